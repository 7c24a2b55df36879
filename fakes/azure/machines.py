"""The machines of agent pools: as ARM shows them, and as whoever plays the nodes needs them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from fakes.azure.ids import ResourceIds
from fakes.azure.pools import Instance, Pool

# What a device plugin that follows the strategy `single` advertises for each GPU:
# https://learn.microsoft.com/azure/aks/gpu-multi-instance.
_INSTANCES: Final = {"MIG1g": 7, "MIG2g": 3, "MIG3g": 2, "MIG4g": 1, "MIG7g": 1}


@dataclass(frozen=True, kw_only=True)
class Machine:
    """A virtual machine that exists. Its name is the name its Node will have.

    `vm_size` is in Azure's own spelling, `gpu_count` and `gpu_vendor` are the hardware's, whatever the SKU's
    capabilities say; of partitioned GPUs it is their instances that count. `gpu_managed` says that AKS runs the device
    plugin itself. `vm_id` and `created_at` (simulated seconds) tell it from an earlier machine of the same name.
    """

    pool: str
    name: str
    provider_id: str
    vm_size: str
    os_sku: str
    location: str
    zone: str | None
    priority: str
    mode: str
    node_labels: Mapping[str, str]
    node_taints: tuple[str, ...]
    node_image_version: str
    kubernetes_version: str
    vcpus: int
    memory_gib: float
    gpu_count: int
    gpu_vendor: str | None
    gpu_managed: bool
    os_disk_gib: int
    max_pods: int
    vm_id: str
    created_at: float


def machine(pool: Pool, instance: Instance, ids: ResourceIds) -> Machine:
    """Return an instance of a pool as a machine."""
    properties = pool.properties
    return Machine(
        pool=pool.name,
        name=ids.node_name(pool.name, instance.index),
        provider_id=ids.provider_id(pool.name, instance.index),
        vm_size=pool.sku.name,
        os_sku=properties["osSKU"],
        location=ids.location,
        zone=instance.zone,
        priority=properties.get("scaleSetPriority", "Regular"),
        mode=properties["mode"],
        node_labels=dict(properties.get("nodeLabels", {})),
        node_taints=tuple(properties.get("nodeTaints", ())),
        node_image_version=pool.image_version,
        kubernetes_version=pool.version,
        vcpus=pool.sku.vcpus,
        memory_gib=pool.sku.memory_gb,
        gpu_count=pool.sku.private.gpu_count * _INSTANCES.get(properties.get("gpuInstanceProfile", ""), 1),
        gpu_vendor=pool.sku.private.gpu_vendor,
        gpu_managed=(properties.get("gpuProfile", {}).get("nvidia") or {}).get("managementMode") == "Managed",
        os_disk_gib=properties["osDiskSizeGB"],
        max_pods=properties["maxPods"],
        vm_id=instance.vm_id,
        created_at=instance.created_at,
    )


def machine_resource(pool: Pool, instance: Instance, ids: ResourceIds) -> dict[str, Any]:
    """Return an instance of a pool as the machines API of api-version 2026-08-01 does: no size, no state."""
    name = ids.node_name(pool.name, instance.index)
    resource: dict[str, Any] = {
        "id": ids.machine_id(pool.name, name),
        "name": name,
        "type": "Microsoft.ContainerService/managedClusters/agentPools/machines",
        "properties": {
            "network": {"ipAddresses": [{"family": "IPv4", "ip": instance.address}]},
            "resourceId": ids.instance_id(pool.name, instance.index),
        },
    }
    if instance.zone is not None:
        resource["zones"] = [instance.zone]
    return resource
