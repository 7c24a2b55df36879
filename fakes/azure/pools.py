"""An agent pool: what was asked for, what AKS made of it, and how ARM shows it."""

import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from fakes.azure.ids import ResourceIds
from fakes.azure.operations import Operation
from fakes.azure.skus import Sku

SPOT_LABEL: Final = "kubernetes.azure.com/scalesetpriority"
SPOT_TAINT: Final = f"{SPOT_LABEL}=spot:NoSchedule"

# What a PUT without them takes away. Everything else that a PUT leaves out stays as it is.
_CLEARED: Final = ("nodeLabels", "nodeTaints", "tags")


@dataclass(frozen=True, kw_only=True)
class Instance:
    """A scale set instance whose VM exists. `vm_id` tells it from one of the same name in a later pool."""

    index: int
    zone: str | None
    address: str
    created_at: float
    vm_id: str = field(default_factory=lambda: str(uuid.uuid4()))


@dataclass(kw_only=True)
class Pool:
    """An agent pool. `properties` are by wire name with AKS's defaults filled in, `state` is the provisioningState.

    `version` is the Kubernetes version of its nodes, patch and all, `image_release` the release of their image.
    """

    name: str
    sku: Sku
    properties: dict[str, Any]
    version: str
    image_release: str
    state: str = "Creating"
    power_state: str = "Running"
    # Whether a create has ended well: until then a repeated PUT goes on creating.
    created: bool = False
    error: Mapping[str, Any] | None = None
    operation: Operation | None = None
    instances: list[Instance] = field(default_factory=list)
    next_index: int = 0
    etag: str = field(default_factory=lambda: str(uuid.uuid4()))

    @property
    def count(self) -> int:
        """How many nodes are wanted."""
        return int(self.properties["count"])

    @property
    def spot(self) -> bool:
        """Tell whether the VMs are spot VMs."""
        return bool(self.properties.get("scaleSetPriority") == "Spot")

    @property
    def zones(self) -> list[str | None]:
        """The zones that VMs may be in; [None] for a regional pool."""
        return list(self.properties.get("availabilityZones") or [None])

    @property
    def vms_to_come(self) -> int:
        """How many VMs an operation that runs has yet to bring."""
        grows = self.busy is not None and self.busy.kind in ("Creating", "Updating", "Scaling")
        return max(self.count - len(self.instances), 0) if grows else 0

    @property
    def is_system(self) -> bool:
        """Tell whether the pool may run the cluster's own pods."""
        return bool(self.properties["mode"] == "System")

    @property
    def stays_system(self) -> bool:
        """Tell whether the pool is a System pool and not about to go."""
        return self.is_system and self.state != "Deleting"

    @property
    def busy(self) -> Operation | None:
        """The operation that runs on the pool."""
        return self.operation if self.operation is not None and self.operation.running else None

    def touch(self) -> None:
        """Give the pool a new ETag, for every change has one."""
        self.etag = str(uuid.uuid4())

    def upgrade_profile(self, ids: ResourceIds, *, kubernetes_version: str, image_release: str) -> dict[str, Any]:
        """Return what the pool can be upgraded to, as a GET of its upgrade profile does."""
        properties: dict[str, Any] = {
            "kubernetesVersion": self.version,
            "osType": self.properties["osType"],
            "latestNodeImageVersion": self.image_of(image_release),
        }
        if self.version != kubernetes_version:
            properties["upgrades"] = [{"kubernetesVersion": kubernetes_version}]
        return {
            "id": f"{ids.pool_id(self.name)}/upgradeProfiles/default",
            "name": "default",
            "type": "Microsoft.ContainerService/managedClusters/agentPools/upgradeProfiles",
            "properties": properties,
        }

    def profile(self) -> dict[str, Any]:
        """Return the properties as ARM shows them."""
        shown = {
            **self.properties,
            "provisioningState": self.state,
            "currentOrchestratorVersion": self.version,
            "nodeImageVersion": self.image_version,
            "powerState": {"code": self.power_state},
            "eTag": self.etag,
        }
        if self.error is not None:
            shown["status"] = {"provisioningError": dict(self.error)}
        return shown

    def resource(self, ids: ResourceIds) -> dict[str, Any]:
        """Return the pool as a GET does."""
        return {
            "id": ids.pool_id(self.name),
            "name": self.name,
            "type": "Microsoft.ContainerService/managedClusters/agentPools",
            "properties": self.profile(),
        }

    @property
    def image_version(self) -> str:
        """The node image, `<distribution>-<generation>-<release>`."""
        return self.image_of(self.image_release)

    def image_of(self, release: str) -> str:
        """Return the pool's node image as of a release."""
        arm = "arm64" if self.sku.arch == "Arm64" else ""
        match self.properties["osSKU"]:
            case "AzureLinux" | "AzureLinux3":
                return f"AKSAzureLinux-V3{arm}gen2-{release}"
            case "Ubuntu2404":
                return f"AKSUbuntu-2404gen2{arm}containerd-{release}"
            case other if other.startswith("Ubuntu"):
                return f"AKSUbuntu-2204gen2{arm}containerd-{release}"
            case other:
                return f"AKS{other}-gen2{arm}-{release}"


def merge(existing: Mapping[str, Any], wish: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a PUT makes of an existing pool's properties: labels, taints and tags it leaves out are gone."""
    return {name: value for name, value in existing.items() if name not in _CLEARED} | dict(wish)


def complete(wish: Mapping[str, Any], *, sku: Sku, kubernetes_version: str) -> dict[str, Any]:
    """Fill in what AKS fills in, and drop what says nothing.

    Disk sizes: https://learn.microsoft.com/azure/aks/concepts-storage#default-os-disk-sizing.
    """
    properties = {name: value for name, value in wish.items() if value not in ({}, [], "")}
    defaults: dict[str, Any] = {
        "count": 1,
        "mode": "User",
        "type": "VirtualMachineScaleSets",
        "osType": "Linux",
        "osSKU": "Ubuntu",
        "maxPods": 110,
        "kubeletDiskType": "OS",
        "scaleDownMode": "Delete",
        "workloadRuntime": "OCIContainer",
        "enableAutoScaling": False,
        "enableNodePublicIP": False,
        "enableEncryptionAtHost": False,
        "enableUltraSSD": False,
        "enableFIPS": False,
        "upgradeSettings": {"maxSurge": "10%"},
        "securityProfile": {"enableVTPM": False, "enableSecureBoot": False},
    }
    properties = {**defaults, **properties}
    properties["orchestratorVersion"] = properties.get("orchestratorVersion") or kubernetes_version
    size = properties.get("osDiskSizeGB") or 0
    kind = properties.setdefault("osDiskType", "Ephemeral" if fits_cache(sku, size or 128) else "Managed")
    properties["osDiskSizeGB"] = size or (128 if kind == "Ephemeral" else default_disk_gib(sku.vcpus))
    if properties.get("scaleSetPriority") == "Spot":
        properties.setdefault("scaleSetEvictionPolicy", "Delete")
        properties.setdefault("spotMaxPrice", -1)
        properties["nodeLabels"] = {**properties.get("nodeLabels", {}), SPOT_LABEL: "spot"}
        taints = properties.get("nodeTaints", [])
        properties["nodeTaints"] = taints if SPOT_TAINT in taints else [*taints, SPOT_TAINT]
    return properties


def node_version(asked: str, *, kubernetes_version: str) -> str:
    """Return the version that nodes run: AKS picks the patch where only a minor version was asked for."""
    if asked.count(".") > 1:
        return asked
    return kubernetes_version if kubernetes_version.startswith(f"{asked}.") else f"{asked}.0"


def fits_cache(sku: Sku, disk_gib: int) -> bool:
    """Tell whether an ephemeral OS disk of that size fits into the cache of the VM size."""
    return sku.ephemeral_os_disk and sku.cached_gib >= disk_gib


def default_disk_gib(vcpus: int) -> int:
    """Return AKS's size of a managed OS disk when none is asked for, in GiB."""
    for bound, gib in ((8, 128), (16, 256), (64, 512)):
        if vcpus < bound:
            return gib
    return 1024
