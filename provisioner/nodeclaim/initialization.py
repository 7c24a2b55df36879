"""Initialization: from a registered Node to one that can run the workload: ready, untainted, with its GPUs."""

from datetime import timedelta
from decimal import Decimal
from typing import Any, Final

from provisioner.apis import names
from provisioner.apis.conditions import INITIALIZED, REGISTERED
from provisioner.apis.node import Node
from provisioner.apis.nodeclaim import NodeClaim
from provisioner.apis.taints import is_ephemeral
from provisioner.nodeclaim.view import Draft, NodePatch, View, Waiting, stored

_NOT_REGISTERED = "ResourceNotRegistered"
# Who looks at a claim reads what has been missing for longer than that.
_BRIEF: Final = timedelta(seconds=2)


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
    missing = _not_ready(view.claim, node) or _resource_missing(view, node)
    if missing:
        reason, message = missing
        if not _is_held(view, draft, reason=reason, message=message):
            conditions.set_unknown(INITIALIZED, reason=reason, message=message)
        return
    # Node first, claim second: clients take Initialized=True as word that the Node is labelled.
    _label(draft, node)
    draft.status |= {"capacity": dict(node.capacity), "allocatable": dict(node.allocatable)}
    conditions.set_true(INITIALIZED)


def _is_held(view: View, draft: Draft, *, reason: str, message: str) -> bool:
    """Tell whether what is missing now is not written yet, because it may be there in moments.

    A starting Node goes through one reason after the other, some of them within milliseconds, and each would be a write
    to the claim that nobody has read before the next.
    """
    old, registered = stored(view, INITIALIZED), stored(view, REGISTERED)
    if (
        old is None
        or registered is None
        or registered.status != "True"
        or (old.reason, old.message) == (reason, message)
    ):
        # The claim is written to anyway, or not at all.
        return False
    waiting = view.waiting
    if waiting is None or waiting.what != INITIALIZED:
        waiting = Waiting(what=INITIALIZED, since=view.now)
    left = waiting.since + _BRIEF - view.now
    if left <= timedelta(0):
        return False
    draft.waiting = waiting
    draft.look_again(left)
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


def _resource_missing(view: View, node: Node) -> tuple[str, str] | None:
    requests = view.claim.spec.requests if view.claim.spec else {}
    for resource, amount in requests.items():
        # `storage` is the OS disk's size here; no Node ever offers it.
        if resource != names.STORAGE and amount > 0 and node.allocatable_of(resource) <= 0:
            return _NOT_REGISTERED, f'Resource "{resource}" was requested but not registered'
    size = view.size
    if not view.wait_for_gpus or size is None or not size.gpu_count:
        return None
    registered = node.allocatable_of(size.gpu_resource)
    # A MIG slice or a time share makes more of a GPU, never fewer: so at least as many as the size has.
    if registered < Decimal(size.gpu_count):
        return _NOT_REGISTERED, (
            f"{registered:f} of {size.gpu_count} {size.gpu_resource} registered on Node {node.name} ({size.name}). "
            "Waiting for driver and device plugin; if this lasts, check the device plugin's pod on that Node."
        )
    return None


def _label(draft: Draft, node: Node) -> None:
    if node.labels.get(names.INITIALIZED_LABEL) == "true":
        return
    patch: dict[str, Any] = dict(draft.node_patch.patch) if draft.node_patch else {}
    metadata = dict(patch.get("metadata", {}))
    metadata["labels"] = {**metadata.get("labels", {}), names.INITIALIZED_LABEL: "true"}
    draft.node_patch = NodePatch(node=node, patch={**patch, "metadata": metadata})
