"""Repair: a claim whose Node is not well, and has not been for long enough, is deleted, so that another VM is made."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from provisioner.apis import names
from provisioner.apis.agentpool import AgentPool
from provisioner.apis.conditions import INITIALIZED, REGISTERED
from provisioner.apis.node import NODE_HEALTHY, PREEMPTION_SCHEDULED, READY, Node, NodeCondition
from provisioner.apis.nodeclaim import NodeClaim
from provisioner.apis.times import format_time, parse_time
from provisioner.azure.inventory import Lookup
from provisioner.nodeclaim.initialization import GPU_REASONS
from provisioner.nodeclaim.view import Ailment, Draft, Fleet, Notice, Timeouts, View, Waiting

# As Karpenter's metrics name it.
UNHEALTHY: Final = "unhealthy"

# The repair policies of Azure's provider for Karpenter. The last two are certain when they are seen: AKS has given the
# node up, or Azure takes the spot VM back within half a minute. They are not waited for.
_SICK: Final = frozenset(
    {(READY, "False"), (READY, "Unknown"), (NODE_HEALTHY, "False"), (PREEMPTION_SCHEDULED, "True")}
)
# Percent of a fleet that may be unhealthy, rounded up to whole Nodes: more than that is no Node's own fault.
_BREAKER_PERCENT: Final = 20
_BLOCKED_AGAIN: Final = timedelta(minutes=5)
# While Azure works on a pool or the cluster. Its end is told by the inventory, that of the cluster's by nobody.
_AZURE_AGAIN: Final = timedelta(minutes=1)
_SOON: Final = timedelta(seconds=1)
_AZURE: Final = "Azure"


@dataclass(frozen=True, kw_only=True)
class _Fault:
    """Why a Node is to be replaced, and from when on. `name` is of its condition, or the reason why it lacks GPUs."""

    name: str
    due: datetime
    text: str


def is_due(claim: NodeClaim, nodes: Iterable[Node], *, timeouts: Timeouts, now: datetime, missing_gpus: bool) -> bool:
    """Tell whether a Node of the claim may have been unwell for long enough, so that its fleet is worth counting.

    `missing_gpus` is whether Nodes without their GPUs are to be replaced as well.
    """
    if missing_gpus and _has_told_of_gpus(claim):
        return True
    return any(fault.due <= now for node in nodes for fault in _faults(node, timeouts=timeouts))


def fleet_of(claim: NodeClaim, *, nodes: Iterable[Node], claims: Iterable[NodeClaim]) -> Fleet:
    """Count the Nodes with the claim's node pool label, or all Nodes of the cluster where it has none.

    Unhealthy are those with a sick condition, however young it is, and those whose claim tells that its GPUs have not
    come in time.
    """
    pool = claim.labels.get(names.NODEPOOL_LABEL)
    without_gpus = {other.node_name for other in claims if _has_told_of_gpus(other)}
    fleet = [node for node in nodes if pool is None or node.labels.get(names.NODEPOOL_LABEL) == pool]
    unhealthy = [node for node in fleet if node.name in without_gpus or any(map(_is_sick, node.conditions))]
    return Fleet(total=len(fleet), unhealthy=len(unhealthy))


def repair(view: View, draft: Draft) -> None:
    """Have the claim deleted whose Node is to be replaced; forcefully, so that its pods are not waited for.

    As in Karpenter, do-not-disrupt does not hold it up: what it protects does not run on such a Node any more.
    """
    if not draft.conditions.is_true(REGISTERED) or draft.delete_claim:
        return
    nodes = [node for node in view.joined_nodes if not node.is_deleting]
    if len(nodes) != 1:
        return
    node = nodes[0]
    is_sick = view.timeouts.unhealthy is not None and any(map(_is_sick, node.conditions))
    without_gpus = _is_without_gpus(view, draft)
    if not (is_sick or without_gpus) or _is_with_azure(view, draft):
        return
    # What Azure has done until then may have been the cause, so that time counts from its end.
    earliest = draft.waiting.since if draft.waiting is not None else None
    faults = [*_faults(node, timeouts=view.timeouts, earliest=earliest)]
    if without_gpus:
        faults.append(_missing_gpus(view, earliest=earliest))
    first = min(faults, key=lambda fault: fault.due, default=None)
    if first is None:
        return
    if first.due > view.now:
        draft.look_again(first.due - view.now)
    elif _may_act(view, draft, node):
        _replace(view, draft, node, fault=first)


def _is_sick(condition: NodeCondition) -> bool:
    return (condition.type, condition.status) in _SICK


def _faults(node: Node, *, timeouts: Timeouts, earliest: datetime | None = None) -> Iterator[_Fault]:
    """Return what the Node's conditions say against it, each tolerated since its transition, or since `earliest`."""
    if timeouts.unhealthy is None:
        return
    for condition in filter(_is_sick, node.conditions):
        toleration = timeouts.unhealthy if condition.type == READY else timedelta(0)
        if condition.since is None and toleration:
            # Nobody can tell how long it has lasted.
            continue
        since = max(condition.since or node.created, earliest or node.created)
        text = f"{condition.type} is {condition.status} since {format_time(condition.since or since)}"
        yield _Fault(name=condition.type, due=since + toleration, text=text)


def _has_told_of_gpus(claim: NodeClaim) -> bool:
    return any(c.type == INITIALIZED and c.reason in GPU_REASONS for c in claim.conditions)


def _is_without_gpus(view: View, draft: Draft) -> bool:
    initialized = draft.conditions.get(INITIALIZED)
    if not view.repair_missing_gpus or initialized is None or initialized.reason not in GPU_REASONS:
        return False
    if not _has_told_of_gpus(view.claim):
        # What is wrong stands on the claim, and in the count of its fleet, before anything is done about it.
        draft.look_again(_SOON)
        return False
    return True


def _missing_gpus(view: View, *, earliest: datetime | None) -> _Fault:
    told = next(c for c in view.claim.conditions if c.type == INITIALIZED)
    due = view.now if earliest is None else earliest + (view.timeouts.gpus or timedelta(0))
    return _Fault(name=told.reason, due=due, text=f"{told.reason}: {told.message}")


def _is_with_azure(view: View, draft: Draft) -> bool:
    """Tell whether the Node is not ours to judge: Azure works on its pool, or the pool is stopped, gone or unknown.

    An upgrade of the node image takes Nodes down one after the other and brings them back.
    """
    pool = view.pools.lookup(view.pool_name)
    if pool is Lookup.UNKNOWN or view.pools.failure is not None:
        draft.waiting = view.waiting
        draft.look_again(_AZURE_AGAIN)
        return True
    if not isinstance(pool, AgentPool) or not view.owns(pool):
        # Garbage collection finds claims without a pool.
        return True
    if pool.is_stopped or not (pool.is_succeeded or pool.is_failed):
        _wait_for_azure(view, draft)
        return True
    if view.waiting is not None and view.waiting.what == _AZURE:
        draft.waiting = view.waiting
    return False


def _wait_for_azure(view: View, draft: Draft) -> None:
    draft.waiting = Waiting(what=_AZURE, since=view.now)
    draft.look_again(_AZURE_AGAIN)


def _may_act(view: View, draft: Draft, node: Node) -> bool:
    if view.is_cluster_settled is False:
        _wait_for_azure(view, draft)
        return False
    if view.is_cluster_settled is None or view.fleet is None:
        # An answer is followed by a look at once: asked for only where there is none.
        draft.wants_cluster = view.is_cluster_settled is None
        draft.look_again(_AZURE_AGAIN)
        return False
    allowed = -(-view.fleet.total * _BREAKER_PERCENT // 100)
    if view.fleet.unhealthy <= allowed:
        return True
    draft.look_again(_BLOCKED_AGAIN)
    draft.notices.append(
        Notice(
            reason="NodeRepairBlocked",
            message=f"More than {_BREAKER_PERCENT}% of the Nodes {_of_fleet(view)} are unhealthy: none is replaced.",
            is_warning=True,
            node=node,
        )
    )
    return False


def _of_fleet(view: View) -> str:
    pool = view.claim.labels.get(names.NODEPOOL_LABEL)
    return "of the cluster" if pool is None else f"with {names.NODEPOOL_LABEL}={pool}"


def _replace(view: View, draft: Draft, node: Node, *, fault: _Fault) -> None:
    end = parse_time(view.claim.annotations.get(names.TERMINATION_TIMESTAMP_ANNOTATION))
    if end is None or end > view.now:
        draft.annotations[names.TERMINATION_TIMESTAMP_ANNOTATION] = format_time(view.now)
    draft.delete_claim = UNHEALTHY
    draft.ailment = Ailment(condition=fault.name, image_id=node.labels.get(names.AKS_NODE_IMAGE_VERSION_LABEL, ""))
    draft.notices.append(
        Notice(
            reason="NodeUnhealthy",
            message=f"Deleting the claim with its VM, as Node {node.name} is not well: {fault.text}",
            is_warning=True,
        )
    )
