"""The whole life of a claim as one pure function: from what is seen to what is to be done."""

from typing import Any, Final

from provisioner.apis import names
from provisioner.apis.conditions import (
    AWAITING_REASON,
    CONSISTENT_STATE_FOUND,
    DRIFTED,
    LAUNCHED,
    READY,
    Condition,
)
from provisioner.apis.failure import FailureClass
from provisioner.nodeclaim import (
    consistency,
    drift,
    expiration,
    hydration,
    initialization,
    launch,
    liveness,
    registration,
    repair,
    termination,
)
from provisioner.nodeclaim.nodeclass import CLASS_REASONS
from provisioner.nodeclaim.view import DeletePool, Draft, Notice, Step, View

_FAILURES: Final = (
    frozenset(kind.reason for kind in FailureClass) | {launch.NAME_TAKEN} | CLASS_REASONS | initialization.GPU_REASONS
)
# Reasons whose every occurrence is worth an Event; the other stages can be read from the conditions.
_TOLD: Final = {(LAUNCHED, launch.CREATING), (READY, READY)}


def reconcile(view: View) -> Step:
    """Return the next step for the claim; an empty Step where there is nothing to do. No I/O, no clock."""
    claim = view.claim
    if not claim.is_managed or (claim.is_deleting and not claim.has_finalizer):
        # What is being deleted without waiting for us is not ours to write to any more.
        return Step()
    draft = Draft(conditions=claim.condition_set(now=view.now))
    if claim.is_deleting:
        termination.terminate(view, draft)
    elif not expiration.expire(view, draft):
        launch.launch(view, draft)
        registration.register(view, draft)
        initialization.initialize(view, draft)
        hydration.hydrate(view, draft)
        drift.compare(view, draft)
        liveness.check(view, draft)
        consistency.check(view, draft)
        repair.repair(view, draft)
    return _finish(view, draft)


def _finish(view: View, draft: Draft) -> Step:
    claim = view.claim
    conditions = draft.conditions.result()
    changed = [c for c in conditions if _differs(c, _of(claim.conditions, c.type))]
    status = dict(draft.status)
    if changed or (not claim.is_deleting and conditions != claim.conditions):
        status["conditions"] = [condition.to_dict() for condition in conditions]
    if draft.release:
        # The claim is gone with the next request: nobody would read a status.
        status = {}
    if draft.is_brief and not claim.conditions:
        # In a moment there will be something to say; a new claim says as much as these conditions would.
        status = {}
    return Step(
        metadata=_metadata(view, draft),
        node_patch=draft.node_patch,
        going_nodes=draft.going_nodes,
        status=status or None,
        azure=draft.azure,
        deleted_nodes=draft.deleted_nodes,
        release=draft.release,
        delete_claim=draft.delete_claim,
        status_follows=draft.status_follows,
        evictions=draft.evictions,
        ailment=draft.ailment,
        setback=draft.setback,
        unavailable=draft.unavailable,
        waiting=draft.waiting,
        wants_quota=draft.wants_quota,
        waits_for_another=draft.waits_for_another,
        wants_cluster=draft.wants_cluster,
        settled=draft.settled,
        notices=(*draft.notices, *_notices(view, draft, changed)),
        again_after=draft.again_after,
        refresh=draft.refresh,
    )


def _metadata(view: View, draft: Draft) -> dict[str, Any] | None:
    patch: dict[str, Any] = {}
    if draft.add_finalizer:
        patch["finalizers"] = [*view.claim.finalizers, names.TERMINATION_FINALIZER]
    if draft.labels:
        patch["labels"] = draft.labels
    annotations = {k: v for k, v in draft.annotations.items() if view.claim.annotations.get(k) != v}
    if annotations:
        patch["annotations"] = annotations
    return patch or None


def _of(conditions: tuple[Condition, ...], kind: str) -> Condition | None:
    return next((condition for condition in conditions if condition.type == kind), None)


def _differs(new: Condition, old: Condition | None) -> bool:
    return old is None or (new.status, new.reason, new.message) != (old.status, old.reason, old.message)


def _notices(view: View, draft: Draft, changed: list[Condition]) -> list[Notice]:
    """Return an Event for each change that a person who looks at the claim wants to read about."""
    notices = []
    for condition in changed:
        old = _of(view.claim.conditions, condition.type)
        if condition.type == READY and condition.status != "True":
            continue
        if condition.type == CONSISTENT_STATE_FOUND:
            # Its own Event has the numbers, which the condition does not.
            continue
        if old is not None and (old.status, old.reason) == (condition.status, condition.reason):
            continue
        if condition.type == DRIFTED and condition.reason in drift.REASONS:
            notices.append(Notice(reason=condition.reason, message=condition.message))
            continue
        if old is not None and old.reason == condition.reason and condition.reason in _FAILURES:
            # It was told when it happened; now it turns out that there is nothing else to be had either.
            continue
        if condition.reason in _FAILURES or (condition.status == "False" and condition.reason != AWAITING_REASON):
            notices.append(Notice(reason=condition.reason, message=condition.message, is_warning=True))
        elif (condition.type, condition.reason) in _TOLD:
            notices.append(Notice(reason=condition.reason, message=condition.message or _ready_message(view, draft)))
    if isinstance(draft.azure, DeletePool) and view.claim.is_deleting:
        notices.append(Notice(reason="DeletingAgentPool", message=f"Deleting agent pool {draft.azure.name}."))
    return notices


def _ready_message(view: View, draft: Draft) -> str:
    node = draft.status.get("nodeName") or view.claim.node_name
    return f"Node {node} of agent pool {view.pool_name} is ready for workloads."
