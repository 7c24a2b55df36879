"""Small things that everybody asks of objects. A stored object is never changed: another one is made in its place."""

import secrets
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

Object = dict[str, Any]

# What generated names end with (k8s.io/apimachinery, pkg/util/rand): no vowels, so that they never say anything.
_LETTERS: Final = "bcdfghjklmnpqrstvwxz2456789"


def now() -> str:
    """Return the time as objects carry it."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def suffix(length: int = 5) -> str:
    """Return the random end of a generated name."""
    return "".join(secrets.choice(_LETTERS) for _ in range(length))


def name_of(item: Object) -> str:
    """Return the name."""
    return str(item["metadata"]["name"])


def namespace_of(item: Object) -> str:
    """Return the namespace, empty for objects without one."""
    return str(item["metadata"].get("namespace", ""))


def uid_of(item: Object) -> str:
    """Return the UID."""
    return str(item["metadata"]["uid"])


def labels_of(item: Object) -> Mapping[str, str]:
    """Return the labels."""
    return item["metadata"].get("labels") or {}


def is_deleting(item: Object) -> bool:
    """Whether the deletion has begun."""
    return "deletionTimestamp" in item["metadata"]


def with_metadata(item: Object, **fields: Any) -> Object:
    """Return the object with other metadata; a field given as None is taken out."""
    metadata = {**item["metadata"], **fields}
    return {**item, "metadata": {key: value for key, value in metadata.items() if value is not None}}


def dig(item: Any, *path: str) -> Any:
    """Return what lies at a path, None where there is nothing."""
    for step in path:
        if not isinstance(item, dict):
            return None
        item = item.get(step)
    return item


def condition(item: Object, kind: str) -> Object:
    """Return the condition of a type, an empty one where there is none."""
    conditions = dig(item, "status", "conditions") or ()
    return next((entry for entry in conditions if entry["type"] == kind), {})


def with_condition(conditions: list[Object] | None, kind: str, status: str, **more: Any) -> list[Object]:
    """Return conditions with one set; its time of transition stays where its status does."""
    old = next((entry for entry in conditions or () if entry["type"] == kind), {})
    since = old.get("lastTransitionTime") if old.get("status") == status else None
    new = {"type": kind, "status": status, "lastTransitionTime": since or now(), **more}
    return [*(entry for entry in conditions or () if entry["type"] != kind), new]


def controller_of(item: Object) -> Object | None:
    """Return the owner reference of the controller."""
    owners = item["metadata"].get("ownerReferences") or ()
    return next((owner for owner in owners if owner.get("controller")), None)
