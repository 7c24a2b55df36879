"""Renders the agent pool that a claim becomes: its name and the body of the PUT. Pure."""

import hashlib
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any, Final

from provisioner.apis import names
from provisioner.apis.agentpool import POOL_NAME
from provisioner.apis.labels import is_key, is_value, is_within
from provisioner.apis.nodeclaim import NodeClaim, NodeClaimSpec
from provisioner.apis.nodeclass import DEFAULTS, SET_BY_AKS, NodeClassSpec
from provisioner.apis.taints import UNREGISTERED_TAINT, Taint
from provisioner.placement.labels import traits
from provisioner.placement.market import Offer, Refusal

_BASE36: Final = "0123456789abcdefghijklmnopqrstuvwxyz"
_MAX_POOL_NAME: Final = 12

# AKS keeps these prefixes for itself (https://learn.microsoft.com/azure/aks/use-labels).
_RESERVED_PREFIXES: Final = ("kubernetes.azure.com/", "kubernetes.io/")
# Set by AKS or the kubelet on every Node, or refused from a kubelet by the NodeRestriction admission plugin: not
# for the pool's nodeLabels. Those of them that a claim carries are put on its Node when it registers.
_NODE_DOMAINS: Final = ("kubernetes.io", "k8s.io")
_WELL_KNOWN: Final = frozenset({names.OS_LABEL, names.ARCH_LABEL, "kubernetes.io/hostname"})

_SPOT_TAINT_KEY: Final = "kubernetes.azure.com/scalesetpriority"
_OS_SKUS: Final = {"ubuntu": "Ubuntu", "azurelinux": "AzureLinux"}
_DEFAULT_NODEPOOL: Final = "kaito"
# Azure/gpu-provisioner writes the claim's creation time so, in UTC; a label value takes no colons.
_TIMESTAMP: Final = "%Y-%m-%dT%H-%M-%SZ"


def pool_name(claim_name: str, *, alternative: bool = False) -> str:
    """Return the agent pool's name for a claim: the claim's own where AKS takes it, else one hashed from it.

    `alternative` is for a claim whose own name a foreign pool already has: always the hashed one.
    """
    if POOL_NAME.fullmatch(claim_name) and not alternative:
        return claim_name
    number = int.from_bytes(hashlib.sha256(claim_name.encode()).digest(), "big")
    digits = []
    for _ in range(_MAX_POOL_NAME - 1):
        number, digit = divmod(number, len(_BASE36))
        digits.append(_BASE36[digit])
    return "g" + "".join(digits)


def creation_timestamp_label(created: datetime) -> str:
    """Return the claim's creation time as the peer writes it into its pools' node labels."""
    return created.astimezone(UTC).strftime(_TIMESTAMP)


def launch_labels(claim: NodeClaim, offer: Offer, *, location: str) -> dict[str, str]:
    """Return the labels that a launched claim carries; what the user wrote wins over what we know."""
    known = dict(offer.labels)
    if offer.zone_label:
        known[names.ZONE_LABEL] = offer.zone_label
    if location:
        known[names.REGION_LABEL] = location
    return known | class_label(claim) | dict(claim.labels)


def class_label(claim: NodeClaim) -> dict[str, str]:
    """Return the label that names the claim's class; none where the name of the class does not fit into a label."""
    name = claim.class_name
    return {names.NODECLASS_LABEL: name} if is_value(name) else {}


def check(claim: NodeClaim, spec: NodeClaimSpec) -> Refusal | None:
    """Return why AKS would refuse the claim's labels or taints, None where it would not."""
    return _check_labels(claim.labels) or _check_taints(spec.taints)


def render(
    claim: NodeClaim, spec: NodeClaimSpec, offer: Offer, *, node_class: NodeClassSpec = DEFAULTS
) -> dict[str, Any]:
    """Return the body of the PUT.

    Where Azure/gpu-provisioner sets a field, and the class says nothing else, the value is the same as its. What is
    added: the tags that prove ownership, and the fields of what it cannot do (spot, zones, those of the class).
    """
    properties: dict[str, Any] = {
        "count": 1,
        "mode": "User",
        "nodeLabels": _node_labels(claim, offer, node_class),
        "nodeTaints": _node_taints(spec, node_class),
        "osSKU": _os_sku(claim, node_class),
        "osType": "Linux",
        "tags": {**node_class.tags, names.CLAIM_TAG: claim.name, names.CLAIM_UID_TAG: claim.uid},
        "type": "VirtualMachineScaleSets",
        "vmSize": offer.size.name,
    }
    is_spot = offer.capacity_type == names.CAPACITY_TYPE_SPOT
    optional: dict[str, Any] = {
        "vnetSubnetID": node_class.vnet_subnet_id,
        "maxPods": node_class.max_pods,
        "osDiskType": node_class.os_disk_type,
        "osDiskSizeGB": offer.os_disk_gib,
        "gpuInstanceProfile": offer.size.gpu_instance_profile or None,
        "gpuProfile": _gpu_profile(offer, node_class) or None,
        "availabilityZones": list(offer.zones) or None,
        # Reservations are of on-demand VMs, and AKS refuses one beside spot.
        "capacityReservationGroupID": None if is_spot else node_class.capacity_reservation_group_id,
    }
    properties |= {name: value for name, value in optional.items() if value is not None}
    if is_spot:
        # Up to the on-demand price where there is no cap; an evicted GPU VM is deleted unless the class says else: it
        # holds nothing that its claim would want back.
        cap = node_class.spot_max_price
        properties |= {
            "scaleSetPriority": "Spot",
            "scaleSetEvictionPolicy": node_class.spot.eviction_policy,
            "spotMaxPrice": -1 if cap is None else float(cap),
        }
    return {"properties": properties}


def _os_sku(claim: NodeClaim, node_class: NodeClassSpec) -> str:
    # KAITO writes `ubuntu` on every claim: if that won, a class could say nothing.
    family = claim.annotations.get(names.NODE_IMAGE_FAMILY_ANNOTATION, "").lower()
    return node_class.os_sku or _OS_SKUS.get(family, "Ubuntu")


def _gpu_profile(offer: Offer, node_class: NodeClassSpec) -> dict[str, Any]:
    if offer.size.gpu_resource == names.AMD_GPU:
        # AKS has no AMD driver and refuses these sizes unless it is told to install none.
        return {"driver": "None"}
    profile: dict[str, Any] = {}
    if traits(offer.size).accelerated:
        if node_class.gpu_driver is not None:
            profile["driver"] = node_class.gpu_driver
        if node_class.gpu_management_mode is not None:
            profile["nvidia"] = {"managementMode": node_class.gpu_management_mode}
    return profile


def _node_taints(spec: NodeClaimSpec, node_class: NodeClassSpec) -> list[str]:
    own = [taint for taint in spec.taints if not _is_set_elsewhere(taint)]
    # A Node has one taint of a key and effect, and gets the startup taints when it registers.
    taken = {(taint.key, taint.effect) for taint in (*own, *spec.startup_taints)}
    return [_aks_taint(t) for t in (*own, *(t for t in node_class.taints if (t.key, t.effect) not in taken))]


def _node_labels(claim: NodeClaim, offer: Offer, node_class: NodeClassSpec) -> dict[str, str]:
    # The claim already carries what its launch derived; only what its author wrote goes to AKS, as the peer does.
    derived = dict(offer.labels).keys() | {names.NODECLASS_LABEL}
    own = {
        key: value
        for key, value in claim.labels.items()
        if (key not in derived or key == names.NODEPOOL_LABEL)
        and key not in SET_BY_AKS
        and not is_within(key, *_NODE_DOMAINS)
    }
    return {
        names.NODEPOOL_LABEL: _DEFAULT_NODEPOOL,
        **node_class.labels,
        **own,
        names.MACHINE_TYPE_LABEL: "gpu" if "Standard_N" in offer.size.name else "cpu",
        names.CREATION_TIMESTAMP_LABEL: creation_timestamp_label(claim.created),
    }


def _is_set_elsewhere(taint: Taint) -> bool:
    return taint == UNREGISTERED_TAINT or taint.key == _SPOT_TAINT_KEY


def _aks_taint(taint: Taint) -> str:
    return f"{taint.key}={taint.value}:{taint.effect}"


def _check_labels(labels: Mapping[str, str]) -> Refusal | None:
    for key, value in labels.items():
        if key.startswith(_RESERVED_PREFIXES) and key not in _WELL_KNOWN:
            return _invalid_label(key, "AKS keeps this prefix for itself")
        if not is_key(key) or not is_value(value):
            return _invalid_label(key, f"{key}={value} is no valid label")
    return None


def _invalid_label(key: str, why: str) -> Refusal:
    return Refusal(reason="InvalidLabel", message=f"Label {key}: {why}. Write a new claim without it.")


def _check_taints(taints: Iterable[Taint]) -> Refusal | None:
    seen: set[tuple[str, str]] = set()
    for taint in taints:
        if _is_set_elsewhere(taint):
            continue
        if taint.key.startswith(_RESERVED_PREFIXES):
            return _invalid_taint(taint, "AKS keeps this prefix for itself")
        if not is_key(taint.key) or not is_value(taint.value):
            return _invalid_taint(taint, "key or value is not valid")
        if (taint.key, taint.effect) in seen:
            return _invalid_taint(taint, "key and effect occur twice")
        seen.add((taint.key, taint.effect))
    return None


def _invalid_taint(taint: Taint, why: str) -> Refusal:
    return Refusal(reason="InvalidTaint", message=f"Taint {taint}: {why}. Write a new claim without it.")
