"""KaitoNodeClass: what it says about nodes, and its Ready condition. Pure."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

from provisioner.apis.conditions import READY
from provisioner.apis.times import format_time
from provisioner.placement.market import Preference

_MESSAGE: Final = "The class has no fields that could be wrong."


def preference(raw: Mapping[str, Any] | None) -> Preference:
    """Return in which order a claim's sizes are tried; a class that does not exist prefers the cheapest."""
    spec = (raw or {}).get("spec")
    return "Listed" if isinstance(spec, Mapping) and spec.get("sizePreference") == "Listed" else "Price"


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
