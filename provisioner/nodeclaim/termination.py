"""Termination: the claim's Node is drained, its agent pool goes, then its Node, then the claim."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from provisioner.apis import names
from provisioner.apis.agentpool import AgentPool, pool_of_provider_id
from provisioner.apis.conditions import (
    DISRUPTION_REASON,
    DRAINED,
    INSTANCE_TERMINATING,
    REGISTERED,
    VOLUMES_DETACHED,
)
from provisioner.apis.durations import parse_duration
from provisioner.apis.node import Node
from provisioner.apis.nodeclaim import NodeClaim
from provisioner.apis.taints import DISRUPTED_TAINT
from provisioner.apis.times import format_time, parse_time
from provisioner.azure.inventory import Lookup
from provisioner.nodeclaim.agentpool_spec import pool_name
from provisioner.nodeclaim.drain import describe, drain, pace
from provisioner.nodeclaim.drain_rules import STUCK
from provisioner.nodeclaim.view import (
    DeletePool,
    Draft,
    NodeEvictions,
    NodeLoad,
    NodePatch,
    Notice,
    View,
    stored,
)

DRAINING: Final = "Draining"
DETACHING: Final = "AwaitingVolumeDetachment"
ELAPSED: Final = "TerminationGracePeriodElapsed"

# Asked for while a pool goes in case the inventory's own pace has slept in; a LIST is one call for all claims.
_LOOK_AGAIN: Final = timedelta(seconds=30)
# A run that has just begun knows more within seconds.
_SOON: Final = timedelta(seconds=1)
# The same of loads that could not be read.
_UNREAD: Final = timedelta(seconds=10)
# The same where a Node has come or changed while another look was on its way.
_CHANGED: Final = timedelta(seconds=1)
# As in Karpenter, but only where there was a pod to wait for: what a scheduler bound before it saw the taint shows up.
_MIN_DRAIN: Final = timedelta(seconds=5)
# Karpenter's value of the label that takes a Node out of load balancers; any would do.
_EXCLUDED: Final = "karpenter"


def terminate(view: View, draft: Draft) -> None:
    """Take down what stands for a deleted claim; hold the claim until Azure's list shows that nothing is left.

    Keyed on the pool, not on the providerID: a pool exists and costs money long before its VM has an ID.
    """
    deadline = _deadline(view, draft)
    # Asked from the first look on, so that nobody waits for it once the pool is gone.
    is_uncertain = _is_uncertain(view)
    pools = _own_pools(view)
    if not pools and is_uncertain:
        draft.refresh = True
        # The inventory tells of the name that it was asked for, under which nobody may find the claim; and of nothing
        # when it has only become old enough.
        draft.look_again(_LOOK_AGAIN if view.pools.is_settled else _SOON)
        if view.pools.failure is not None:
            failure = view.pools.failure
            draft.conditions.set_unknown(INSTANCE_TERMINATING, reason=failure.kind.reason, message=failure.message)
        return
    draining = _draining(view)
    if view.claim.is_true(REGISTERED):
        # Without our finalizer a Node would be gone before it is drained; such a one goes with the others at the end.
        draft.going_nodes = tuple(
            node
            for node in _own_nodes(view)
            if not node.is_deleting and names.TERMINATION_FINALIZER in node.finalizers and (pools or node in draining)
        )
    if draining and _drain(view, draft, draining, deadline=deadline):
        return
    if not draining:
        _give_up_drain(view, draft)
    if pools:
        _delete(view, draft, pools)
        return
    # Azure's cloud-controller-manager removes the Node of a VM that is gone, in its own time; clients that find one
    # left take it for a node that nobody needs to pay for. Where its pool stands, it is somebody else's: a pool of the
    # claim's name, or whatever VM somebody wrote into the claim's status.
    draft.deleted_nodes = tuple(
        node for node in _own_nodes(view) if not node.is_deleting or names.TERMINATION_FINALIZER in node.finalizers
    )
    # Of a deadline that nobody waits for.
    draft.annotations.clear()
    draft.notices.clear()
    draft.release = True


def is_draining(claim: NodeClaim) -> bool:
    """Tell whether the claim was last seen to wait for its Nodes, and not for Azure."""
    return claim.is_deleting and any(
        condition.type in (DRAINED, VOLUMES_DETACHED) and condition.status == "Unknown"
        for condition in claim.conditions
    )


def nodes_to_read(view: View) -> tuple[Node, ...]:
    """Return the Nodes whose loads have to be known to go on; none before all of them keep new pods away."""
    nodes = _draining(view)
    return nodes if all(_isolation(node) is None for node in nodes) else ()


def _deadline(view: View, draft: Draft) -> datetime | None:
    """Return when all pods are deleted, whatever keeps them from being evicted; write it down when it is found out."""
    claim = view.claim
    if (written := claim.annotations.get(names.TERMINATION_TIMESTAMP_ANNOTATION)) is not None:
        return _moment(written)
    grace = parse_duration(claim.spec.termination_grace_period) if claim.spec else None
    if grace is None or claim.deleted is None:
        return None
    deadline = claim.deleted + grace
    draft.annotations[names.TERMINATION_TIMESTAMP_ANNOTATION] = format_time(deadline)
    message = f"All pods will be deleted by {format_time(deadline)}"
    draft.notices.append(Notice(reason="TerminationGracePeriodExpiring", message=message, is_warning=True))
    return deadline


def _moment(text: str) -> datetime | None:
    try:
        moment = parse_time(text)
        return moment.astimezone(UTC) if moment is not None else None
    except OverflowError:
        return None


def _own_nodes(view: View) -> tuple[Node, ...]:
    """Return the Nodes that are the claim's beyond doubt: its status may name a VM that never was its own."""
    found = []
    for node in view.joined_nodes:
        name = pool_of_provider_id(node.provider_id)
        pool = view.pools.pools.get(name)
        is_its = name == view.pool_name or view.claim.uid in node.owner_uids
        if view.owns(pool) if pool is not None else is_its:
            found.append(node)
    return tuple(found)


def _draining(view: View) -> tuple[Node, ...]:
    """Return the Nodes that have to be drained before Azure is asked to delete their VMs, or are drained just now."""
    claim = view.claim
    if not (claim.is_deleting and claim.is_managed and claim.has_finalizer and claim.is_true(REGISTERED)):
        return ()
    decided = {condition.type for condition in claim.conditions if condition.status != "Unknown"}
    if INSTANCE_TERMINATING in decided or decided >= {DRAINED, VOLUMES_DETACHED}:
        return ()
    if not _own_pools(view) and _is_uncertain(view):
        return ()
    nodes = []
    for node in _own_nodes(view):
        pool = view.pools.pools.get(pool_of_provider_id(node.provider_id))
        # A Ready Node proves that the VM lives, whatever Azure's list says.
        if node.is_ready if pool is None else not pool.is_deleting:
            nodes.append(node)
    return tuple(nodes)


def _isolation(node: Node) -> dict[str, Any] | None:
    """Return the merge patch that keeps new pods and load balancers away from a Node, None where it has it all."""
    patch: dict[str, Any] = {}
    if node.labels.get(names.EXCLUDE_FROM_BALANCERS_LABEL) != _EXCLUDED:
        patch["metadata"] = {"labels": {names.EXCLUDE_FROM_BALANCERS_LABEL: _EXCLUDED}}
    if DISRUPTED_TAINT not in node.taints:
        patch["spec"] = {"taints": [*node.raw_taints, DISRUPTED_TAINT.to_dict()]}
    return patch or None


def _drain(view: View, draft: Draft, nodes: tuple[Node, ...], *, deadline: datetime | None) -> bool:
    """Have the Nodes drained; tell whether that is still to be waited for."""
    for node in nodes:
        if (patch := _isolation(node)) is not None:
            draft.node_patch = NodePatch(node=node, patch=patch)
            draft.look_again(_CHANGED)
            return True
    has_elapsed = deadline is not None and view.now - deadline > STUCK
    loads = {node.name: view.loads[node.name] for node in nodes if node.name in view.loads}
    if len(loads) < len(nodes) and not has_elapsed:
        if view.loads_error:
            message = f"The pods on Node {nodes[0].name} cannot be listed: {view.loads_error}"
            draft.conditions.set_unknown(DRAINED, reason=DRAINING, message=message)
        draft.look_again(_UNREAD if view.loads_error else _CHANGED)
        return True
    if _waits_for_pods(view, draft, nodes, loads, deadline=deadline, has_elapsed=has_elapsed):
        return True
    drained = draft.conditions.get(DRAINED)
    if drained is not None and drained.status == "False":
        # Pods that nobody makes leave any more keep their volumes.
        draft.conditions.set_false(VOLUMES_DETACHED, reason=drained.reason, message=drained.message)
        return False
    return _waits_for_volumes(view, draft, nodes, loads, deadline=deadline)


def _waits_for_pods(
    view: View,
    draft: Draft,
    nodes: tuple[Node, ...],
    loads: Mapping[str, NodeLoad],
    *,
    deadline: datetime | None,
    has_elapsed: bool,
) -> bool:
    conditions, before = draft.conditions, stored(view, DRAINED)
    if before is not None and before.status != "Unknown":
        return False
    drains = {name: drain(load, now=view.now, deadline=deadline) for name, load in loads.items()}
    draft.evictions = tuple(
        NodeEvictions(node=node, evictions=drains[node.name].evictions, reason=_reason(view))
        for node in nodes
        if node.name in drains
    )
    left = sum(len(each.waiting) for each in drains.values())
    if has_elapsed and (left or len(loads) < len(nodes)):
        message = f"{_count(left, 'pod')} left, and the grace period of the claim has passed."
        if len(loads) < len(nodes):
            message = f"The pods cannot be listed, and the grace period of the claim has passed. {view.loads_error}"
        conditions.set_false(DRAINED, reason=ELAPSED, message=message)
        return False
    if not left:
        unsettled = _MIN_DRAIN - (view.now - before.last_transition) if before is not None else timedelta(0)
        if unsettled > timedelta(0):
            # For moments only, so that nothing is written that would be written anew at once.
            draft.look_again(unsettled)
            return True
        conditions.set_true(DRAINED)
        return False
    message = describe(drains.values(), deadline=deadline, blocked=view.blocked)
    conditions.set_unknown(DRAINED, reason=DRAINING, message=message)
    for node in nodes:
        if count := len(drains[node.name].waiting):
            text = f"Failed to drain node, {count} pods are waiting to be evicted"
            draft.notices.append(Notice(reason="FailedDraining", message=text, is_warning=True, node=node))
    since = before.last_transition if before is not None else view.claim.deleted or view.now
    draft.look_again(pace(since=since, now=view.now))
    for each in drains.values():
        if each.again_after is not None:
            draft.look_again(each.again_after)
    return True


def _waits_for_volumes(
    view: View,
    draft: Draft,
    nodes: tuple[Node, ...],
    loads: Mapping[str, NodeLoad],
    *,
    deadline: datetime | None,
) -> bool:
    conditions = draft.conditions
    volumes = sorted(volume for load in loads.values() for volume in load.volumes)
    if not volumes and len(loads) == len(nodes):
        conditions.set_true(VOLUMES_DETACHED)
        return False
    attached = f"{_count(len(volumes), 'volume')} still attached: {', '.join(volumes)}."
    if len(loads) < len(nodes):
        attached = f"The volumes cannot be listed. {view.loads_error}"
    if deadline is not None and view.now >= deadline:
        conditions.set_false(VOLUMES_DETACHED, reason=ELAPSED, message=attached)
        return False
    conditions.set_unknown(VOLUMES_DETACHED, reason=DETACHING, message=attached)
    for node in nodes:
        if names_of := loads[node.name].volumes:
            text = f"Awaiting deletion of bound VolumeAttachments ({', '.join(sorted(names_of))})"
            draft.notices.append(Notice(reason=DETACHING, message=text, node=node))
    before = stored(view, VOLUMES_DETACHED)
    draft.look_again(pace(since=before.last_transition if before is not None else view.now, now=view.now))
    if deadline is not None:
        draft.look_again(deadline - view.now)
    return True


def _give_up_drain(view: View, draft: Draft) -> None:
    """Close a drain that has lost its Node, or its VM: somebody else has deleted it, or the agent pool."""
    nodes = _own_nodes(view)
    for kind in (DRAINED, VOLUMES_DETACHED):
        before = stored(view, kind)
        if before is None or before.status != "Unknown":
            continue
        if nodes:
            message = "Somebody else has deleted the agent pool meanwhile."
            draft.conditions.set_false(kind, reason="AgentPoolDeleting", message=message)
        else:
            draft.conditions.set_true(kind)
        draft.evictions = tuple(NodeEvictions(node=node, evictions=(), reason=_reason(view)) for node in nodes)


def _count(number: int, what: str) -> str:
    return f"1 {what} is" if number == 1 else f"{number} {what}s are"


def _reason(view: View) -> str:
    why = stored(view, DISRUPTION_REASON)
    return why.reason if why is not None and why.status == "True" else "Forceful Termination"


def _own_pools(view: View) -> list[AgentPool]:
    """Return every pool of this claim, also one under a name that the claim does not record."""
    found = {pool.name: pool for pool in view.pools.of_claim(view.claim.uid)}
    # The peer writes no tag, and names its pools as their claims.
    if (namesake := view.pools.pools.get(view.claim.name)) is not None:
        found[namesake.name] = namesake
    return sorted((pool for pool in found.values() if view.owns(pool)), key=lambda pool: pool.name)


def _is_uncertain(view: View) -> bool:
    # All are asked for: the inventory tells only of names that were, and under the first everybody finds the claim.
    candidates = (view.pool_name, pool_name(view.claim.name), pool_name(view.claim.name, alternative=True))
    # A request whose answer was lost may take effect when LISTs have long shown no pool. One has to have begun since
    # the claim was seen to go, where a pool can have been asked for at all: its name is recorded before that.
    is_late_enough = not view.claim.agent_pool or view.pools.is_confirmed(view.claim.uid, name=view.pool_name)
    is_unknown = Lookup.UNKNOWN in [view.pools.lookup(name) for name in candidates]
    return is_unknown or not is_late_enough or not view.pools.is_settled


def _delete(view: View, draft: Draft, pools: list[AgentPool]) -> None:
    conditions = draft.conditions
    standing = [pool for pool in pools if not pool.is_deleting]
    draft.look_again(_LOOK_AGAIN)
    if not standing:
        going = " and ".join(pool.name for pool in pools)
        conditions.set_true(INSTANCE_TERMINATING, message=f"Azure is deleting agent pool {going}.")
        return
    if view.setback is not None and view.waits_until_retry(DeletePool):
        failure = view.setback.failure
        conditions.set_unknown(INSTANCE_TERMINATING, reason=failure.kind.reason, message=failure.message)
        draft.look_again(view.setback.retry_at - view.now)
        return
    draft.azure = DeletePool(name=standing[0].name)
    if is_draining(view.claim):
        # That the drain is over is written before Azure is asked: a restart between the two would take the deletion of
        # the pool for somebody else's.
        return
    going = " and ".join(pool.name for pool in pools if pool.is_deleting or pool is standing[0])
    conditions.set_true(INSTANCE_TERMINATING, message=f"Azure is deleting agent pool {going}.")
    draft.status_follows = True
