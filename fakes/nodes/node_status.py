"""What a kubelet reports of its Node, and what the node lifecycle controller writes of a silent one. Pure."""

from fakes.nodes.api import Object
from fakes.nodes.conditions import differ, find, merged, status_patch
from fakes.nodes.machines import Machine
from fakes.nodes.node_object import GPU_RESOURCES

NO_NETWORK = (
    "container runtime network not ready: NetworkReady=false reason:NetworkPluginNotReady message:Network plugin "
    "returns error: cni plugin not initialized"
)
NO_RUNTIME = "PLEG is not healthy: pleg was last seen active 3m5s ago; threshold is 3m0s"


def conditions(not_ready: str | None, *, now: str) -> list[Object]:
    """Return the kubelet's four conditions; `not_ready` is the message of a kubelet that is not ready."""
    quiet = (
        ("MemoryPressure", "KubeletHasSufficientMemory", "kubelet has sufficient memory available"),
        ("DiskPressure", "KubeletHasNoDiskPressure", "kubelet has no disk pressure"),
        ("PIDPressure", "KubeletHasSufficientPID", "kubelet has sufficient PID available"),
    )
    ready = {"type": "Ready", "status": "True", "reason": "KubeletReady", "message": "kubelet is posting ready status"}
    if not_ready is not None:
        ready |= {"status": "False", "reason": "KubeletNotReady", "message": not_ready}
    kubelet = [
        {"type": kind, "status": "False", "reason": reason, "message": message} for kind, reason, message in quiet
    ]
    return [{**condition, "lastHeartbeatTime": now} for condition in (*kubelet, ready)]


def report(
    node: Object, machine: Machine, *, not_ready: str | None, gpus: int | None, refresh: bool, now: str
) -> Object | None:
    """Return the patch of a kubelet's status report.

    Args:
        node: the Node as it is.
        machine: its machine.
        not_ready: why the kubelet is not ready; None when it is.
        gpus: GPUs the device plugin has registered; None while no plugin serves.
        refresh: report even when nothing but the time of the heartbeat changes.
        now: timestamp.

    Returns:
        None when there is nothing to report.
    """
    wanted = conditions(not_ready, now=now)
    resources = _gpu_resources(node, machine, gpus)
    if not refresh and not resources and not differ(node, wanted):
        return None
    return status_patch(node, {"conditions": merged(node, wanted, now=now), **resources})


def silence(node: Object, *, now: str) -> Object | None:
    """Return what the node lifecycle controller writes when the heartbeats stopped; None when it did already."""
    wanted = [
        {
            **condition,
            "status": "Unknown",
            "reason": "NodeStatusUnknown",
            "message": "Kubelet stopped posting node status.",
        }
        for condition in conditions(None, now=now)
    ]
    for condition in wanted:
        # The controller leaves the time of the last heartbeat as the kubelet wrote it.
        before = find(node, condition["type"])
        condition["lastHeartbeatTime"] = before.get("lastHeartbeatTime", now) if before else now
    if not differ(node, wanted):
        return None
    return status_patch(node, {"conditions": merged(node, wanted, now=now)})


def allocatable_gpus(node: Object) -> int | None:
    """GPUs of any vendor in the Node's allocatable; None when the resource is not there at all."""
    resources = node.get("status", {}).get("allocatable") or {}
    return next((int(resources[name]) for name in GPU_RESOURCES.values() if name in resources), None)


def _gpu_resources(node: Object, machine: Machine, gpus: int | None) -> Object:
    resource = GPU_RESOURCES.get(machine.gpu_vendor or "")
    if resource is None:
        return {}
    status = node["status"]
    capacity, allocatable = (status.get(field, {}).get(resource) for field in ("capacity", "allocatable"))
    if gpus is None:
        # A kubelet whose device plugin went away keeps the capacity and makes none of it allocatable.
        return {} if allocatable in {None, "0"} else {"allocatable": {resource: "0"}}
    if capacity == allocatable == str(gpus):
        return {}
    return {"capacity": {resource: str(gpus)}, "allocatable": {resource: str(gpus)}}
