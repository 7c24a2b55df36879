"""An AKS agent pool, as ARM lists it."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from provisioner.apis import names

# AKS: Linux pools, 1 to 12 characters (https://learn.microsoft.com/azure/aks/create-node-pools).
POOL_NAME: Final = re.compile(r"[a-z][a-z0-9]{0,11}", re.ASCII)

_VMSS_OF_PROVIDER_ID: Final = re.compile(
    r"^azure:///subscriptions/[^/]+/resourceGroups/[^/]+/providers/Microsoft\.Compute/"
    r"virtualMachineScaleSets/aks-(?P<pool>[a-z0-9]+)-[0-9]+-vmss/virtualMachines/[^/]+$",
    re.ASCII | re.IGNORECASE,
)


_GROUP_OF_PROVIDER_ID: Final = re.compile(
    r"^azure://(?P<group>/subscriptions/[^/]+/resourceGroups/[^/]+)/providers/Microsoft\.Compute/", re.IGNORECASE
)


@dataclass(frozen=True, kw_only=True)
class ProvisioningError:
    """`properties.status.provisioningError`: why the pool's last operation failed.

    `outer_codes` are those of the errors that it came in, outermost first: at times only they say what it is about.
    """

    code: str
    message: str
    outer_codes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class AgentPool:
    """An agent pool as last listed. `state` is the provisioningState, a free string of Azure's.

    `spot` is its scaleSetPriority, `zones` its availabilityZones, none where it is regional, and `max_surge` its
    upgradeSettings.maxSurge as written: a number of nodes or a percentage, empty for AKS's default.
    `kubernetes_version` is what its nodes run, patch version and all (currentOrchestratorVersion), `power_state` its
    powerState's code. `gpu_instance_profile` is the MIG profile of its GPUs, empty where they are whole.
    """

    name: str
    state: str
    vm_size: str
    count: int
    tags: Mapping[str, str]
    node_labels: Mapping[str, str]
    node_image_version: str = ""
    error: ProvisioningError | None = None
    etag: str = ""
    spot: bool = False
    zones: tuple[str, ...] = ()
    max_surge: str = ""
    kubernetes_version: str = ""
    power_state: str = ""
    gpu_instance_profile: str = ""

    @property
    def claim_uid(self) -> str:
        """Return the UID of the claim that the pool was made for, or an empty string."""
        return self.tags.get(names.CLAIM_UID_TAG, "")

    @property
    def has_peers_marks(self) -> bool:
        """Tell whether the pool has the node labels that Azure/gpu-provisioner puts on each, and no tag of ours."""
        marks = (names.NODEPOOL_LABEL, names.CREATION_TIMESTAMP_LABEL, names.MACHINE_TYPE_LABEL)
        return all(label in self.node_labels for label in marks) and not self.claim_uid

    @property
    def is_peers(self) -> bool:
        """Tell whether Azure/gpu-provisioner takes the pool for its own when there is no claim to compare it with.

        Of claims that are KAITO's: from others a pool gets no further label, and is known by its claim alone.
        """
        return self.has_peers_marks and any(label in self.node_labels for label in names.KAITO_OWNER_LABELS)

    @property
    def is_deleting(self) -> bool:
        """Tell whether Azure is taking the pool down."""
        return self.state.lower() == "deleting"

    @property
    def is_failed(self) -> bool:
        """Tell whether the last operation on the pool failed; Azure keeps such a pool until somebody deletes it."""
        return self.state.lower() in ("failed", "canceled")

    @property
    def is_succeeded(self) -> bool:
        """Tell whether the pool's last operation has ended well."""
        return self.state.lower() == "succeeded"

    @property
    def is_stopped(self) -> bool:
        """Tell whether somebody has stopped the pool, which keeps it and deallocates its VMs."""
        return self.power_state.lower() == "stopped"


def parse_agent_pool(raw: Mapping[str, Any]) -> AgentPool:
    """Read an agent pool resource. Raises KeyError where it has no name, which ARM never sends."""
    properties = raw.get("properties") or {}
    error = (properties.get("status") or {}).get("provisioningError")
    return AgentPool(
        name=raw["name"],
        state=properties.get("provisioningState") or "",
        vm_size=properties.get("vmSize") or "",
        count=properties.get("count") or 0,
        tags=dict(properties.get("tags") or {}),
        node_labels=dict(properties.get("nodeLabels") or {}),
        node_image_version=properties.get("nodeImageVersion") or "",
        error=_innermost(error) if isinstance(error, Mapping) and error else None,
        etag=properties.get("eTag") or "",
        spot=str(properties.get("scaleSetPriority")).lower() == "spot",
        zones=tuple(str(zone) for zone in properties.get("availabilityZones") or ()),
        max_surge=str((properties.get("upgradeSettings") or {}).get("maxSurge") or ""),
        kubernetes_version=str(properties.get("currentOrchestratorVersion") or ""),
        power_state=str((properties.get("powerState") or {}).get("code") or ""),
        gpu_instance_profile=str(properties.get("gpuInstanceProfile") or ""),
    )


def _innermost(raw: Mapping[str, Any]) -> ProvisioningError:
    # The outer error often says no more than "the operation failed"; the cause is the first detail, nested at will.
    codes = [str(raw.get("code") or "")]
    while isinstance(details := raw.get("details"), list) and details and isinstance(details[0], Mapping):
        if not details[0].get("message"):
            break
        raw = details[0]
        codes.append(str(raw.get("code") or ""))
    return ProvisioningError(
        code=codes[-1], message=str(raw.get("message") or ""), outer_codes=tuple(code for code in codes[:-1] if code)
    )


def pool_of_provider_id(provider_id: str) -> str:
    """Return the agent pool that a scale set instance belongs to, empty where the ID is of no such instance."""
    match = _VMSS_OF_PROVIDER_ID.match(provider_id)
    return match["pool"].lower() if match else ""


def resource_group_of_provider_id(provider_id: str) -> str:
    """Return the lower-cased ID of a VM's resource group, empty where the ID is of no VM of Azure's.

    Of any VM, not of a scale set's alone: a system pool may be of type VirtualMachines.
    """
    match = _GROUP_OF_PROVIDER_ID.match(provider_id)
    return match["group"].lower() if match else ""
