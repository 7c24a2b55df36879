"""What AKS refuses at once when an agent pool is PUT.

Where a comment says so, the wording of the answer is not published; status and code then follow what AKS says about
the nearest thing that is.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from fakes.azure import errors, skus
from fakes.azure.ids import ResourceIds, find_id, parent
from fakes.azure.pools import SPOT_LABEL, Pool, fits_cache
from fakes.azure.schema import PROPERTIES
from fakes.azure.settings import Settings
from fakes.azure.skus import Sku
from fakes.azure.syntax import check_labels, check_tags, check_taints

# https://learn.microsoft.com/azure/aks/create-node-pools
_NAME: Final = re.compile(r"[a-z][a-z0-9]{0,11}", re.ASCII)
_WINDOWS_NAME_LENGTH: Final = 6
_LEAST_PODS: Final = 10
_MOST_PODS: Final = 250


@dataclass(frozen=True, kw_only=True)
class PutRequest:
    """A PUT of an agent pool: what is wished for, as `schema.decode` returns it, and what there is."""

    name: str
    wish: Mapping[str, Any]
    existing: Pool | None
    others: tuple[Pool, ...]
    ids: ResourceIds
    settings: Settings
    kubernetes_version: str


def check(request: PutRequest) -> Sku:
    """Raise what AKS answers when it refuses the request; return the VM size when it does not."""
    _check_name(request)
    sku = _check_size(request)
    if request.existing is not None:
        _check_immutable(request.wish, existing=request.existing)
        _check_system_left(request, existing=request.existing)
    else:
        _check_pool_limit(request)
    _check_count(request)
    _check_disk(request, sku=sku)
    _check_priority(request, sku=sku)
    _check_gpu(request.wish, sku=sku)
    _check_pods(request.wish)
    _check_subnet(request)
    _check_reservation(request)
    _check_zones(request, sku=sku)
    _check_version(request)
    check_labels(_without_spot(request.wish))
    check_taints(request.wish.get("nodeTaints", ()))
    check_tags(request.wish.get("tags", {}))
    return sku


def _check_name(request: PutRequest) -> None:
    windows = request.wish.get("osType") == "Windows"
    if not _NAME.fullmatch(request.name) or (windows and len(request.name) > _WINDOWS_NAME_LENGTH):
        raise errors.invalid_parameter(
            "The value of parameter agentPoolProfile.name is invalid. "
            "Please see https://aka.ms/aks-naming-rules for more details.",
            target="agentPoolProfile.name",
        )


def _check_size(request: PutRequest) -> Sku:
    size = request.wish.get("vmSize")
    if size is None and request.existing is not None:
        return request.existing.sku
    if not size:
        raise errors.invalid_parameter("Required parameter vmSize is missing (null).", target="agentPoolProfile.vmSize")
    sku = skus.find(size, retired=request.settings.sell_retired_sizes)
    kept = request.existing is not None and sku is request.existing.sku
    if sku is None or (request.settings.restricted.get(sku.name) == () and not kept):
        raise errors.vm_size_not_supported(size, request.ids.subscription, request.ids.location)
    return sku


def _check_immutable(wish: Mapping[str, Any], *, existing: Pool) -> None:
    for name, value in wish.items():
        if PROPERTIES[name].fixed and _changed(name, value, existing.properties.get(name)):
            raise errors.property_change(name)


def _changed(name: str, wished: Any, current: Any) -> bool:
    match name:
        case "vmSize":
            return bool(wished.lower() != current.lower())
        case "osDiskSizeGB":
            return bool(wished not in (0, current))
        case "availabilityZones":
            return sorted(wished) != sorted(current or ())
        case "scaleSetPriority":
            return bool(wished != (current or "Regular"))
        case _:
            # An empty object or string wishes for nothing.
            return bool((wished or current) and wished != current)


def _check_system_left(request: PutRequest, *, existing: Pool) -> None:
    demoted = existing.is_system and request.wish.get("mode", "System") != "System"
    if demoted and not any(pool.stays_system for pool in request.others):
        raise errors.no_system_pool()


def _check_pool_limit(request: PutRequest) -> None:
    limit = request.settings.max_agent_pools
    if len(request.others) >= limit:
        # Wording and code not published.
        raise errors.bad_request(
            f"The number of agent pools {len(request.others) + 1} exceeds the maximum number of agent pools {limit} "
            "of a managed cluster.",
            target="agentPoolProfiles",
        )


def _check_count(request: PutRequest) -> None:
    wish, existing = request.wish, request.existing
    current = existing.properties if existing else {}
    count = wish.get("count", current.get("count", 1))
    lowest = 1 if wish.get("mode", current.get("mode", "User")) == "System" else 0
    if not lowest <= count <= request.settings.max_nodes_per_pool:
        raise errors.invalid_parameter(
            f"The value of parameter agentPoolProfile.count is invalid: {count} is not in the range "
            f"[{lowest}, {request.settings.max_nodes_per_pool}].",
            target="agentPoolProfile.count",
        )
    total = count + sum(pool.count for pool in request.others)
    if total > request.settings.max_nodes_per_cluster:
        # Wording and code not published.
        raise errors.bad_request(
            f"The total number of nodes {total} exceeds the maximum of {request.settings.max_nodes_per_cluster} nodes "
            "of a managed cluster.",
            target="agentPoolProfile.count",
        )


def _check_disk(request: PutRequest, *, sku: Sku) -> None:
    size = request.wish.get("osDiskSizeGB", 0)
    if size != 0 and not 30 <= size <= 2048:
        raise errors.invalid_parameter(
            f"The OSDiskSize for Agent {request.name} cannot be less than 30GB or larger than 2048GB."
        )
    wanted = size or 128
    if request.wish.get("osDiskType") == "Ephemeral" and not fits_cache(sku, wanted):
        raise errors.AzureError(
            400,
            "VMCacheSizeTooSmall",
            f"Virtual Machine size {sku.name} cache size is too small for ephemeral os, which is "
            f"{sku.cached_gib << 30} in bytes, OS disk requires {wanted << 30} in bytes. Use larger cache VM or "
            "disable ephemeral os",
        )


def _check_priority(request: PutRequest, *, sku: Sku) -> None:
    wish = request.wish
    spot = wish.get("scaleSetPriority") == "Spot"
    price = wish.get("spotMaxPrice")
    # Wordings not published; the rules are in https://learn.microsoft.com/azure/aks/spot-node-pool and
    # https://learn.microsoft.com/azure/aks/use-system-pools.
    if wish.get("mode") == "System" and (spot or sku.vcpus < 2):
        raise errors.invalid_parameter(
            "A System pool can not be a spot pool, and its VM size has at least 2 vCPUs.",
            target="agentPoolProfile.mode",
        )
    if spot and not sku.spot:
        raise errors.invalid_parameter(
            f"The VM size {sku.name} does not support spot priority.", target="agentPoolProfile.scaleSetPriority"
        )
    if price is not None and price != -1 and (price <= 0 or round(price, 5) != price):
        raise errors.invalid_parameter(
            "The value of parameter agentPoolProfile.spotMaxPrice is invalid: it must be -1, or greater than 0 with at "
            "most 5 decimal places.",
            target="agentPoolProfile.spotMaxPrice",
        )


def _check_gpu(wish: Mapping[str, Any], *, sku: Sku) -> None:
    hardware = sku.private
    if wish.get("gpuInstanceProfile") and not hardware.mig:
        # The code is in AKS's own list of codes, the wording is not published.
        raise errors.AzureError(
            400,
            "VMSizeDoesNotSupportMIG",
            f"VM size {sku.name} does not support a GPU instance profile.",
            target="agentPoolProfile.gpuInstanceProfile",
        )
    profile = wish.get("gpuProfile", {})
    _check_gpu_profile(profile)
    mode = (profile.get("nvidia") or {}).get("managementMode")
    if mode == "Managed" and hardware.gpu_vendor != "nvidia":
        # Documented as a rule, wording not published: https://learn.microsoft.com/azure/aks/aks-managed-gpu-nodes.
        raise errors.bad_request(
            f"The managed GPU experience is not supported on VM size {sku.name}.",
            target="agentPoolProfile.gpuProfile.nvidia.managementMode",
        )
    accelerated = hardware.gpu_vendor is not None or sku.gpus is not None
    if accelerated and not hardware.aks_driver and profile.get("driver") != "None":
        # Documented as a rule (sizes without a driver of AKS's need `driver: None`), wording not published.
        raise errors.bad_request(
            f"AKS does not install a GPU driver on VM size {sku.name}; set gpuProfile.driver to None.",
            target="agentPoolProfile.gpuProfile.driver",
        )


def _check_gpu_profile(profile: Mapping[str, Any]) -> None:
    nvidia = profile.get("nvidia")
    values = {
        "driver": (profile.get("driver"), ("Install", "None")),
        "nvidia.managementMode": ((nvidia or {}).get("managementMode"), ("Managed", "Unmanaged")),
    }
    for name, (value, allowed) in values.items():
        if value is not None and value not in allowed:
            raise errors.invalid_parameter(
                f"The value of parameter agentPoolProfile.gpuProfile.{name} is invalid.",
                target=f"agentPoolProfile.gpuProfile.{name}",
            )


def _check_pods(wish: Mapping[str, Any]) -> None:
    # https://learn.microsoft.com/azure/aks/quotas-skus-regions; codes in AKS's own list, wording not published.
    pods = wish.get("maxPods")
    if pods is None or _LEAST_PODS <= pods <= _MOST_PODS:
        return
    code = "InsufficientMaxPods" if pods < _LEAST_PODS else "MaxPodsLimitExceeded"
    raise errors.AzureError(
        400,
        code,
        f"The value of parameter agentPoolProfile.maxPods is invalid: {pods} is not in the range "
        f"[{_LEAST_PODS}, {_MOST_PODS}].",
        target="agentPoolProfile.maxPods",
    )


def _check_subnet(request: PutRequest) -> None:
    wished = request.wish.get("vnetSubnetID")
    if not wished or request.existing is not None:
        return
    target = "agentPoolProfile.vnetSubnetID"
    # That all pools are in one network is documented (https://learn.microsoft.com/azure/aks/node-pool-unique-subnet).
    # The wording for pools without a subnet is that of https://github.com/Azure/AKS/issues/2927, no other is published.
    for pool in request.others:
        theirs = pool.properties.get("vnetSubnetID")
        if not theirs:
            raise errors.invalid_parameter(f"The AgentPool {pool.name} does not have subnet defined.", target=target)
        if parent(theirs).lower() != parent(wished).lower():
            raise errors.invalid_parameter(
                f"The subnet {wished} is not in the virtual network of agent pool {pool.name}.", target=target
            )
    if find_id(wished, request.settings.subnets) is None:
        raise errors.invalid_parameter(f"The subnet {wished} could not be found.", target=target)


def _check_reservation(request: PutRequest) -> None:
    wished = request.wish.get("capacityReservationGroupID")
    if not wished:
        return
    target = "agentPoolProfile.capacityReservationGroupID"
    if request.wish.get("scaleSetPriority") == "Spot":
        # The code is in AKS's own list of codes, the wording is not published.
        raise errors.AzureError(
            400, "CRGConflictWithSpotVM", "A capacity reservation group cannot be used by a spot pool.", target=target
        )
    if find_id(wished, request.settings.capacity_reservation_groups) is None:
        # Neither code nor wording are published.
        raise errors.invalid_parameter(f"The capacity reservation group {wished} could not be found.", target=target)


def _check_zones(request: PutRequest, *, sku: Sku) -> None:
    closed = (*request.settings.refused_zones, *request.settings.restricted.get(sku.name, ()))
    supported = [zone for zone in sku.zones if zone not in closed]
    refused = [zone for zone in request.wish.get("availabilityZones", ()) if zone not in supported]
    if refused:
        raise errors.zone_not_supported(refused, request.name, request.ids.location, supported)


def _check_version(request: PutRequest) -> None:
    version = request.wish.get("orchestratorVersion")
    if not version:
        return
    wished, current = _minor(version), _minor(request.kubernetes_version)
    if wished is None:
        raise errors.invalid_parameter(f"Version {version} is not supported.", target="orchestratorVersion")
    if current is not None and wished > current:
        raise errors.AzureError(
            400,
            "NodePoolMcVersionIncompatible",
            f"Node pool version {version} and control plane version {request.kubernetes_version} are incompatible. "
            f"Minor version of node pool version {wished[1]} is bigger than control plane version {current[1]}. "
            "For more information, please check https://aka.ms/aks/UpgradeVersionRules",
        )


def _minor(version: str) -> tuple[int, int] | None:
    match = re.match(r"(\d+)\.(\d+)(\.\d+)?$", version, re.ASCII)
    return (int(match[1]), int(match[2])) if match else None


def _without_spot(wish: Mapping[str, Any]) -> Mapping[str, str]:
    # AKS adds the label itself and takes it back from clients that PUT what they have read.
    labels: Mapping[str, str] = wish.get("nodeLabels", {})
    return {key: value for key, value in labels.items() if (key, value) != (SPOT_LABEL, "spot")}
