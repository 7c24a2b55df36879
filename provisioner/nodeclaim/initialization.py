"""Initialization: from a registered Node to one that can run the workload: ready, untainted, with its GPUs."""

from datetime import timedelta
from decimal import Decimal
from typing import Any, Final

from provisioner.apis import names
from provisioner.apis.conditions import INITIALIZED, REGISTERED
from provisioner.apis.durations import format_duration
from provisioner.apis.node import READY, Node
from provisioner.apis.nodeclaim import NodeClaim
from provisioner.apis.taints import is_ephemeral
from provisioner.nodeclaim.view import Draft, NodePatch, View, stored
from provisioner.placement.size import Size

# What is missing for longer than that after the Node's becoming Ready is written; Nodes tell whole seconds.
_BRIEF: Final = timedelta(seconds=3)
_NOT_REGISTERED: Final = "ResourceNotRegistered"
# What is wrong with GPUs that do not come: as much as the amounts on the Node tell.
NO_DEVICE_PLUGIN: Final = "DevicePluginNotReady"
GPUS_MISSING: Final = "GPUsMissing"
GPUS_UNHEALTHY: Final = "GPUsUnhealthy"
GPU_REASONS: Final = frozenset({NO_DEVICE_PLUGIN, GPUS_MISSING, GPUS_UNHEALTHY})


def initialize(view: View, draft: Draft) -> None:
    """Bring the claim to Initialized=True, or name the first thing that is missing."""
    conditions = draft.conditions
    if conditions.is_true(INITIALIZED):
        conditions.observe(INITIALIZED)
        return
    if not conditions.is_true(REGISTERED):
        return
    node = next((node for node in view.joined_nodes if not node.is_deleting), None)
    if node is None:
        conditions.set_unknown(INITIALIZED, reason="NodeNotFound", message="Node not registered with cluster")
        return
    missing = _not_ready(view.claim, node) or _resource_missing(view, draft, node)
    if missing:
        reason, message = missing
        if not _is_held(view, draft, node):
            conditions.set_unknown(INITIALIZED, reason=reason, message=message)
        return
    # Node first, claim second: clients take Initialized=True as word that the Node is labelled.
    _label(view, draft, node)
    draft.status |= {"capacity": dict(node.capacity), "allocatable": dict(node.allocatable)}
    conditions.set_true(INITIALIZED)


def _is_held(view: View, draft: Draft, node: Node) -> bool:
    """Tell whether what a Node lacks is not written yet, because it has become Ready just now.

    In the moments after that taints go, and with luck GPUs come: each would be a write to the claim that nobody has
    read before the next.
    """
    ready = node.condition(READY)
    if stored(view, INITIALIZED) is None or not view.claim.is_true(REGISTERED):
        # The claim is written to anyway.
        return False
    if ready is None or ready.since is None or not node.is_ready:
        return False
    age = view.now - ready.since
    # A Node whose clock is ahead is not waited for.
    if not timedelta(0) <= age < _BRIEF:
        return False
    draft.look_again(_BRIEF - age)
    return True


def _not_ready(claim: NodeClaim, node: Node) -> tuple[str, str] | None:
    if not node.is_ready:
        return "NodeNotReady", "Node status is NotReady"
    startup = claim.spec.startup_taints if claim.spec else ()
    # Before registration the startup taints are not on the Node yet: absent then does not mean removed.
    synced = node.labels.get(names.REGISTERED_LABEL) == "true"
    waiting = next((taint for taint in startup if not synced or taint in node.taints), None)
    if waiting:
        return "StartupTaintsExist", f'StartupTaint "{waiting}" still exists'
    ephemeral = next((taint for taint in node.taints if is_ephemeral(taint)), None)
    if ephemeral:
        return "KnownEphemeralTaintsExist", f'KnownEphemeralTaint "{ephemeral}" still exists'
    return None


def _resource_missing(view: View, draft: Draft, node: Node) -> tuple[str, str] | None:
    size = view.size if view.wait_for_gpus else None
    # A MIG slice or a time share makes more of a GPU, never fewer: so at least as many as the size has.
    lacks = size is not None and node.allocatable_of(size.gpu_resource) < size.gpu_count
    known = _lasting_fault(view, draft, node, size) if size is not None and lacks else None
    requests = view.claim.spec.requests if view.claim.spec else {}
    for resource, amount in requests.items():
        if known is not None and size is not None and resource == size.gpu_resource:
            continue
        # `storage` is the OS disk's size here; no Node ever offers it.
        if resource != names.STORAGE and amount > 0 and node.allocatable_of(resource) <= 0:
            return _NOT_REGISTERED, f'Resource "{resource}" was requested but not registered'
    if known is not None or size is None or not lacks:
        return known
    return _NOT_REGISTERED, (
        f"{node.allocatable_of(size.gpu_resource):f} of {size.gpu_count} {size.gpu_resource} registered on Node "
        f"{node.name} ({size.name}). Waiting for driver and device plugin; if this lasts, check the device plugin's "
        "pod on that Node."
    )


def _lasting_fault(view: View, draft: Draft, node: Node, size: Size) -> tuple[str, str] | None:
    """Return what is wrong once the Node has lacked GPUs for too long.

    Counted from where it is Ready and carries the claim's labels: a device plugin may go by both.
    """
    timeout = view.timeouts.gpus
    ready, registered = node.condition(READY), draft.conditions.get(REGISTERED)
    if timeout is None or ready is None or registered is None:
        return None
    left = max(ready.since or node.created, registered.last_transition) + timeout - view.now
    if left > timedelta(0):
        draft.look_again(left)
        return None
    return _what_is_wrong(node, size, after=format_duration(timeout))


def _what_is_wrong(node: Node, size: Size, *, after: str) -> tuple[str, str]:
    """Tell the cases apart. A message stays the same while the amounts do: each change is a write to the claim."""
    resource, expected = size.gpu_resource, size.gpu_count
    capacity, allocatable = node.capacity_of(resource), node.allocatable_of(resource)
    where = f"Node {node.name} ({size.name})"
    tool = "nvidia-smi" if resource == names.NVIDIA_GPU else "amd-smi"
    if capacity <= 0:
        return NO_DEVICE_PLUGIN, (
            f"0 of {expected} {resource} on {where} after {after}: driver or device plugin is missing. Look for a "
            f"device plugin's pod on it (kubectl get pods -A -o wide), at its logs, and at {tool} there."
        )
    if capacity < Decimal(expected):
        return GPUS_MISSING, (
            f"{capacity:f} of {expected} {resource} on {where} after {after}: the driver has not found the others. "
            f"Compare {tool} and the kernel's log on the Node (Xid 79: a GPU has fallen off the bus); delete the claim "
            "to get another VM."
        )
    return GPUS_UNHEALTHY, (
        f"{allocatable:f} of {expected} {resource} allocatable on {where} after {after}, with {capacity:f} in its "
        "capacity: the device plugin has stopped, or reports GPUs as unhealthy. Look for Xid errors in its pod's logs; "
        "delete the claim to get another VM."
    )


def _label(view: View, draft: Draft, node: Node) -> None:
    wanted = {names.INITIALIZED_LABEL: "true"}
    size = view.size
    if size is not None and size.gpu_count and size.gpu_resource == names.NVIDIA_GPU:
        # Clients select Nodes by it, and AKS has left it off before. Another value is somebody's decision.
        wanted[names.ACCELERATOR_LABEL] = node.labels.get(names.ACCELERATOR_LABEL, names.ACCELERATOR_NVIDIA)
    missing = {key: value for key, value in wanted.items() if node.labels.get(key) != value}
    if not missing:
        return
    patch: dict[str, Any] = dict(draft.node_patch.patch) if draft.node_patch else {}
    metadata = dict(patch.get("metadata", {}))
    metadata["labels"] = {**metadata.get("labels", {}), **missing}
    draft.node_patch = NodePatch(node=node, patch={**patch, "metadata": metadata})
