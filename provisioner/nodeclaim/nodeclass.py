"""KaitoNodeClass: what it says about nodes, and its Ready condition. Pure."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from provisioner.apis import names
from provisioner.apis.conditions import READY
from provisioner.apis.times import format_time
from provisioner.placement.market import Preference

NOT_FOUND: Final = "NodeClassNotFound"
NOT_READY: Final = "NodeClassNotReady"
CLASS_REASONS: Final = frozenset({NOT_FOUND, NOT_READY})
# Of the rule below. Where a claim carries another one, its hash cannot be compared with one of today's.
HASH_VERSION: Final = "v1"
_HASH_LENGTH: Final = 16
# What a new claim gets changes with these; nothing is wrong with a node that was chosen before.
_OF_CHOICE: Final = frozenset({"sizePreference"})
_MESSAGE: Final = "The class has no fields that could be wrong."


@dataclass(frozen=True, kw_only=True)
class ClassProblem:
    """Why no node is made for claims of a class: a condition reason and its message."""

    reason: str
    message: str


def problem(name: str, raw: Mapping[str, Any] | None) -> ClassProblem | None:
    """Return why the class cannot be used, None where it can. One that is being deleted is missing, as in Karpenter.

    Without the default one defaults hold: KAITO names it in every claim and makes none.
    """
    if raw is None or "deletionTimestamp" in (raw.get("metadata") or {}):
        if name == names.DEFAULT_NODECLASS:
            return None
        message = f"There is no {names.NODECLASS_KIND} {name}. Create it, or write a claim that names another one."
        return ClassProblem(reason=NOT_FOUND, message=message)
    conditions = (raw.get("status") or {}).get("conditions") or []
    ready: Mapping[str, Any] = next((c for c in conditions if c.get("type") == READY), {})
    if ready.get("status") != "False":
        return None
    return ClassProblem(
        reason=NOT_READY,
        message=f"{names.NODECLASS_KIND} {name} is not Ready: {ready.get('message') or ready.get('reason')}",
    )


def preference(raw: Mapping[str, Any] | None) -> Preference:
    """Return in which order a claim's sizes are tried; a class that does not exist prefers the cheapest."""
    spec = (raw or {}).get("spec")
    return "Listed" if isinstance(spec, Mapping) and spec.get("sizePreference") == "Listed" else "Price"


def pool_hash(raw: Mapping[str, Any] | None) -> str:
    """Return a hash of what the class says about how nodes are made, empty where there is no such class.

    Every field of its spec counts but those that only choose among what could be made, so that a field which is new to
    the class needs no change here. What is empty or null is as good as left out.
    """
    if raw is None or "deletionTimestamp" in (raw.get("metadata") or {}):
        return ""
    spec = raw.get("spec")
    return _hash({k: v for k, v in spec.items() if k not in _OF_CHOICE} if isinstance(spec, Mapping) else {})


def hash_annotations(class_hash: str) -> dict[str, str]:
    """Return the annotations of a claim whose pool is made as the class of that hash says; without one, by defaults."""
    return {
        names.NODECLASS_HASH_ANNOTATION: class_hash or _hash({}),
        names.NODECLASS_HASH_VERSION_ANNOTATION: HASH_VERSION,
    }


def _hash(spec: Mapping[str, Any]) -> str:
    text = json.dumps(_stripped(spec), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:_HASH_LENGTH]


def _stripped(value: Any) -> Any:
    """Return the value without what says nothing, at any depth."""
    if isinstance(value, Mapping):
        members = {key: _stripped(member) for key, member in value.items()}
        return {key: member for key, member in members.items() if member not in (None, "", {}, [])}
    return [_stripped(member) for member in value] if isinstance(value, list) else value


def ready_status(raw: Mapping[str, Any], *, now: datetime) -> dict[str, Any] | None:
    """Return the status patch that makes the class Ready at its generation, None where it is so already."""
    metadata = raw.get("metadata") or {}
    if "deletionTimestamp" in metadata:
        return None
    generation = metadata.get("generation", 1)
    conditions = (raw.get("status") or {}).get("conditions") or []
    old: Mapping[str, Any] = next((c for c in conditions if c.get("type") == READY), {})
    if old.get("status") == "True" and old.get("observedGeneration") == generation:
        return None
    since = old.get("lastTransitionTime") if old.get("status") == "True" else None
    ready = {
        "type": READY,
        "status": "True",
        "reason": READY,
        "message": _MESSAGE,
        "lastTransitionTime": since or format_time(now),
        "observedGeneration": generation,
    }
    return {"conditions": [*(c for c in conditions if c.get("type") != READY), ready]}
