"""The Node that AKS makes of a machine: labels, taints, resources. Pure.

Labels, conditions and numbers follow `kubectl describe node` of AKS 1.32 to 1.34 nodes.
"""

import re
import uuid
from collections.abc import Iterable

from fakes.nodes.api import Object
from fakes.nodes.machines import Machine
from fakes.nodes.settings import NodeSettings

UNINITIALIZED = {"key": "node.cloudprovider.kubernetes.io/uninitialized", "value": "true", "effect": "NoSchedule"}
SPOT_TAINT = "kubernetes.azure.com/scalesetpriority=spot:NoSchedule"
CLUSTER_LABEL = "kubernetes.azure.com/cluster"
PROVIDER = "azure://"

GPU_RESOURCES = {"nvidia": "nvidia.com/gpu", "amd": "amd.com/gpu"}

LABEL_VALUE_LIMIT = 63

# What an Ubuntu 22.04 node of 32 GiB reports: 32859916 Ki of 33554432 Ki; the rest is firmware's and the kernel's.
MEMORY_SEEN = 0.979
# What a 128 GiB OS disk gives to the file system: 129886128 Ki of 134217728 Ki.
DISK_SEEN = 0.96773
# AKS since 1.29: memory is reserved by the number of pods, at most a quarter of it, and evicted below 100 MiB.
RESERVED_MIB, RESERVED_MIB_PER_POD, RESERVED_SHARE, EVICTION_MIB = 50, 20, 0.25, 100
# The kubelet evicts below 10 % of the node's file system.
DISK_ALLOCATABLE = 0.9


def new_node(machine: Machine, *, address: str, settings: NodeSettings) -> Object:
    """Return the Node as the kubelet registers it, with its status but without conditions.

    Unless cloud initialisation takes no time in the settings, the Node lacks what cloud-node-manager adds a moment
    later (see `initialized`), and carries the taint that says so.
    """
    node: Object = {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {
            "name": machine.name,
            "labels": kubelet_labels(machine, settings),
            "annotations": {
                "alpha.kubernetes.io/provided-node-ip": address,
                "volumes.kubernetes.io/controller-managed-attach-detach": "true",
            },
        },
        "spec": {"taints": [*taints(machine), UNINITIALIZED]},
        "status": {
            "addresses": [
                {"type": "InternalIP", "address": address},
                {"type": "Hostname", "address": machine.name},
            ],
            "daemonEndpoints": {"kubeletEndpoint": {"Port": 10250}},
            "nodeInfo": node_info(machine),
            "capacity": capacity(machine),
            "allocatable": allocatable(machine),
            "images": [
                {"names": ["mcr.microsoft.com/oss/v2/kubernetes/pause:3.6"], "sizeBytes": 484139},
                {"names": ["mcr.microsoft.com/oss/v2/kubernetes/kube-proxy:v" + machine.kubernetes_version]},
            ],
        },
    }
    if settings.cloud_init_delay == 0:
        patch = initialized(node, machine)
        node["metadata"]["labels"].update(patch["metadata"]["labels"])
        node["spec"].update(patch["spec"])
    return node


def initialized(node: Object, machine: Machine) -> Object:
    """Return the patch by which cloud-node-manager initialises a Node: providerID, size, region, zone, taint off."""
    left = [taint for taint in node["spec"].get("taints") or () if taint["key"] != UNINITIALIZED["key"]]
    return {
        "metadata": {"labels": cloud_labels(machine)},
        "spec": {"providerID": machine.provider_id, "taints": left or None},
    }


def is_uninitialized(node: Object) -> bool:
    """Whether cloud-node-manager has not come by yet."""
    return any(taint["key"] == UNINITIALIZED["key"] for taint in node["spec"].get("taints") or ())


def pool_update(node: Object, *, before: Machine, after: Machine) -> Object | None:
    """Return the patch that carries a change of the pool's labels and taints to a Node, as AKS does; None without."""
    labels: Object = {label: None for label in before.node_labels if label not in after.node_labels}
    labels |= {label: value for label, value in after.node_labels.items() if before.node_labels.get(label) != value}
    if not labels and before.node_taints == after.node_taints:
        return None
    old, new = taints(before), taints(after)
    others = [taint for taint in node["spec"].get("taints") or () if not _among(taint, old) and not _among(taint, new)]
    return {"metadata": {"labels": labels}, "spec": {"taints": [*others, *new] or None}}


def kubelet_labels(machine: Machine, settings: NodeSettings) -> dict[str, str]:
    """Labels the Node has when it registers: AKS passes its own and the pool's to the kubelet."""
    azure = {
        "agentpool": machine.pool,
        "cluster": _cluster(machine, settings),
        "consolidated-additional-properties": str(uuid.uuid5(uuid.NAMESPACE_DNS, machine.pool)),
        "kubelet-serving-ca": "cluster",
        "localdns-state": "disabled",
        "mode": machine.mode.lower(),
        "node-image-version": machine.node_image_version,
        "nodepool-type": "VirtualMachineScaleSets",
        "os-sku": _os_sku(machine),
        "os-sku-effective": os_sku_effective(machine),
        "os-sku-requested": machine.os_sku,
        "podnetwork-type": "overlay",
        "role": "agent",
        "sku-cpu": str(machine.vcpus),
        "sku-memory": str(round(machine.memory_gib * 1024)),
        "storageprofile": "managed",
        "storagetier": "Premium_LRS",
    }
    legacy = {"agentpool": machine.pool, "storageprofile": "managed", "storagetier": "Premium_LRS"}
    if machine.gpu_vendor == "nvidia":
        azure["accelerator"] = legacy["accelerator"] = "nvidia"
    if machine.priority.lower() == "spot":
        azure["scalesetpriority"] = azure["priority"] = "spot"
    architecture = _architecture(machine.vm_size)
    own = {
        "beta.kubernetes.io/arch": architecture,
        "beta.kubernetes.io/os": "linux",
        "kubernetes.io/arch": architecture,
        "kubernetes.io/hostname": machine.name,
        "kubernetes.io/os": "linux",
    }
    return {
        **machine.node_labels,
        **legacy,
        **{f"kubernetes.azure.com/{label}": value for label, value in azure.items()},
        **own,
    }


def cloud_labels(machine: Machine) -> dict[str, str]:
    """Labels cloud-node-manager adds (and the disk driver's, which comes about then)."""
    zone = "0" if machine.zone is None else f"{machine.location}-{machine.zone}"
    return {
        "beta.kubernetes.io/instance-type": machine.vm_size,
        "failure-domain.beta.kubernetes.io/region": machine.location,
        "failure-domain.beta.kubernetes.io/zone": zone,
        "node.kubernetes.io/instance-type": machine.vm_size,
        "topology.disk.csi.azure.com/zone": "" if machine.zone is None else zone,
        "topology.kubernetes.io/region": machine.location,
        "topology.kubernetes.io/zone": zone,
    }


def taints(machine: Machine) -> list[Object]:
    """Return the pool's taints; a spot pool's has its own in any case."""
    spot = (SPOT_TAINT,) if machine.priority.lower() == "spot" else ()
    unique: dict[tuple[str, str], Object] = {}
    for text in (*machine.node_taints, *spot):
        taint = parse_taint(text)
        unique[taint["key"], taint["effect"]] = taint
    return list(unique.values())


def parse_taint(text: str) -> Object:
    """Parse `key=value:Effect` (or `key:Effect`), as ARM writes taints.

    Raises:
        ValueError: it has no effect.
    """
    rest, colon, effect = text.rpartition(":")
    if not colon:
        raise ValueError(f"taint without effect: {text}")
    key, equals, value = rest.partition("=")
    return {"key": key, "value": value, "effect": effect} if equals else {"key": key, "effect": effect}


def capacity(machine: Machine) -> dict[str, str]:
    """Resources the kubelet sees; GPUs come later, from the device plugin."""
    return {
        "cpu": str(machine.vcpus),
        "ephemeral-storage": f"{_disk_ki(machine)}Ki",
        "hugepages-1Gi": "0",
        "hugepages-2Mi": "0",
        "memory": f"{_memory_ki(machine)}Ki",
        "pods": str(machine.max_pods),
    }


def allocatable(machine: Machine) -> dict[str, str]:
    """Capacity less what AKS reserves (concepts-clusters-workloads, "Resource reservations")."""
    wanted = RESERVED_MIB + RESERVED_MIB_PER_POD * machine.max_pods
    reserved = min(wanted * 1024, int(_memory_ki(machine) * RESERVED_SHARE)) + EVICTION_MIB * 1024
    return {
        **capacity(machine),
        "cpu": f"{machine.vcpus * 1000 - reserved_cpu(machine.vcpus)}m",
        "ephemeral-storage": str(int(_disk_ki(machine) * 1024 * DISK_ALLOCATABLE)),
        "memory": f"{_memory_ki(machine) - reserved}Ki",
    }


def reserved_cpu(vcpus: int) -> int:
    """Milli-CPUs AKS reserves: its table has 60 for 1, 100 for 2, 140 for 4, 180 for 8, then 10 a core."""
    return 60 + 40 * min(vcpus - 1, 1) + 20 * max(min(vcpus - 2, 2), 0) + 10 * max(vcpus - 4, 0)


def node_info(machine: Machine) -> dict[str, str]:
    """`status.nodeInfo`; the identifiers are the machine's for ever."""
    effective = os_sku_effective(machine)
    image, kernel = next(
        (known for name, known in _SYSTEMS.items() if effective.startswith(name)), _SYSTEMS["Ubuntu2204"]
    )
    version = f"v{machine.kubernetes_version.removeprefix('v')}"
    return {
        "architecture": _architecture(machine.vm_size),
        "bootID": str(uuid.uuid5(uuid.NAMESPACE_URL, machine.name)),
        "containerRuntimeVersion": "containerd://1.7.29-1",
        "kernelVersion": kernel,
        "kubeProxyVersion": version,
        "kubeletVersion": version,
        "machineID": uuid.uuid5(uuid.NAMESPACE_OID, machine.name).hex,
        "operatingSystem": "linux",
        "osImage": image,
        "systemUUID": str(uuid.uuid5(uuid.NAMESPACE_DNS, machine.name)),
    }


def os_sku_effective(machine: Machine) -> str:
    """`Ubuntu2204`, `AzureLinux3`: the image's own version, whatever was asked for."""
    if found := re.match(r"AKS(Ubuntu)-(\d{4})|AKS(AzureLinux)-V(\d)", machine.node_image_version):
        return "".join(part for part in found.groups() if part)
    return machine.os_sku


_SYSTEMS = {
    "Ubuntu2204": ("Ubuntu 22.04.5 LTS", "5.15.0-1102-azure"),
    "Ubuntu2404": ("Ubuntu 24.04.3 LTS", "6.8.0-1041-azure"),
    "AzureLinux": ("Microsoft Azure Linux 3.0", "6.6.104.2-4.azl3"),
}


def _os_sku(machine: Machine) -> str:
    return re.sub(r"\d+$", "", machine.os_sku)


def _cluster(machine: Machine, settings: NodeSettings) -> str:
    group = settings.node_resource_group
    if group is None:
        found = re.search(r"/resourceGroups/([^/]+)/", machine.provider_id, re.IGNORECASE)
        group = found[1] if found else ""
    # AKS cuts a longer name: a label's value has no room for it.
    return group[:LABEL_VALUE_LIMIT].rstrip("-_.")


def _architecture(vm_size: str) -> str:
    # A "p" among a size's feature letters is Azure's mark for Arm; the Grace machines carry it in their name.
    if re.match(r"Standard_[A-Z]+\d+(-\d+)?[a-z]*p", vm_size) or "_GB" in vm_size:
        return "arm64"
    return "amd64"


def _memory_ki(machine: Machine) -> int:
    return int(machine.memory_gib * 1024 * 1024 * MEMORY_SEEN)


def _disk_ki(machine: Machine) -> int:
    return int(machine.os_disk_gib * 1024 * 1024 * DISK_SEEN)


def _among(taint: Object, those: Iterable[Object]) -> bool:
    return any(taint["key"] == other["key"] and taint["effect"] == other["effect"] for other in those)
