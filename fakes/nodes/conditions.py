"""Condition lists of Nodes and pods, and the patch that carries a status."""

from collections.abc import Iterable, Sequence

from fakes.nodes.api import Object


def find(item: Object, kind: str) -> Object | None:
    """Return a condition of an object by its type."""
    conditions = item.get("status", {}).get("conditions") or ()
    return next((condition for condition in conditions if condition["type"] == kind), None)


def is_true(item: Object, kind: str) -> bool:
    """Whether a condition is there and True."""
    condition = find(item, kind)
    return condition is not None and condition["status"] == "True"


def differ(item: Object, wanted: Iterable[Object]) -> bool:
    """Whether an object's conditions say anything else than the wanted ones; times do not count."""
    for condition in wanted:
        current = find(item, condition["type"]) or {}
        if any((current.get(field) or "") != (condition.get(field) or "") for field in ("status", "reason", "message")):
            return True
    return False


def merged(item: Object, wanted: Sequence[Object], *, now: str) -> list[Object]:
    """Return the whole list to write: the wanted conditions over those of an object.

    Conditions of other writers stay. A time of transition is kept as long as the status is the same.
    """
    result = {condition["type"]: condition for condition in item.get("status", {}).get("conditions") or ()}
    for condition in wanted:
        before = result.get(condition["type"])
        same = before is not None and before["status"] == condition["status"]
        since = before["lastTransitionTime"] if before is not None and same else now
        result[condition["type"]] = {**condition, "lastTransitionTime": since}
    return list(result.values())


def status_patch(item: Object, status: Object) -> Object:
    """Return a merge patch of a status that fails with a conflict when the object has moved on.

    The kubelet sends a strategic merge patch, which merges conditions by type on the server. Custom resources and small
    servers do not know it; the whole list under the object's version does the same anywhere.
    """
    return {"metadata": {"resourceVersion": item["metadata"]["resourceVersion"]}, "status": status}
