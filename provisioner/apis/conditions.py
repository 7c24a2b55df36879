"""Status conditions with the arithmetic of Karpenter's NodeClaim.

Clients compare reasons and messages literally, so the rules follow operatorpkg's condition set, which Karpenter
uses: a root condition `Ready` computed from dependents, transition times that move only when the status moves,
conditions of a deleting object carrying the new generation, newest transition first in the root's message.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final, Literal

from provisioner.apis.sharing import shared_text
from provisioner.apis.times import format_time, parse_time

Status = Literal["True", "False", "Unknown"]

READY: Final = "Ready"
LAUNCHED: Final = "Launched"
REGISTERED: Final = "Registered"
INITIALIZED: Final = "Initialized"
DRAINED: Final = "Drained"
VOLUMES_DETACHED: Final = "VolumesDetached"
INSTANCE_TERMINATING: Final = "InstanceTerminating"
# Set by whoever deletes a claim for a reason of its own; the reason is what Events about its pods tell.
DISRUPTION_REASON: Final = "DisruptionReason"
DRIFTED: Final = "Drifted"
CONSISTENT_STATE_FOUND: Final = "ConsistentStateFound"
DEPENDENTS: Final = (LAUNCHED, REGISTERED, INITIALIZED)

AWAITING_REASON: Final = "AwaitingReconciliation"
AWAITING_MESSAGE: Final = "object is awaiting reconciliation"
# The CRD takes sixteen times as much; KAITO shows the first 256 bytes, so what matters stands in front.
MAX_MESSAGE: Final = 2048


@dataclass(frozen=True, kw_only=True, slots=True)
class Condition:
    """One entry of `status.conditions`."""

    type: str
    status: Status
    reason: str
    message: str
    last_transition: datetime
    observed_generation: int

    def to_dict(self) -> dict[str, Any]:
        """Return the condition as the API server stores it."""
        return {
            "type": self.type,
            "status": self.status,
            "reason": self.reason,
            "message": self.message,
            "lastTransitionTime": format_time(self.last_transition),
            "observedGeneration": self.observed_generation,
        }


def parse_conditions(raw: object, *, fallback: datetime) -> tuple[Condition, ...]:
    """Read stored conditions; entries that are none are dropped, they are rewritten by the next status patch."""
    result = []
    for item in raw if isinstance(raw, list) else ():
        if not isinstance(item, dict) or item.get("status") not in ("True", "False", "Unknown"):
            continue
        if not isinstance(item.get("type"), str):
            continue
        generation = item.get("observedGeneration")
        result.append(
            Condition(
                type=shared_text(item["type"]),
                status=item["status"],
                reason=shared_text(str(item.get("reason") or "")),
                message=shared_text(str(item.get("message") or "")),
                last_transition=parse_time(item.get("lastTransitionTime")) or fallback,
                observed_generation=generation if isinstance(generation, int) else 0,
            )
        )
    return tuple(result)


class ConditionSet:
    """The conditions of one NodeClaim while a reconcile works on them. Not shared, not thread safe."""

    def __init__(
        self,
        existing: Iterable[Condition],
        *,
        generation: int,
        created: datetime,
        now: datetime,
        deleting: bool = False,
    ) -> None:
        """Start from the stored conditions; missing ones become Unknown as of the object's creation."""
        self._generation = generation
        self._now = now
        # Deletion is a new generation, but none in which anything has to be decided anew: a claim that is Ready stays
        # Ready until its node is gone.
        self._conditions = {
            condition.type: replace(condition, observed_generation=generation) if deleting else condition
            for condition in existing
        }
        missing = [kind for kind in (*DEPENDENTS, READY) if kind not in self._conditions]
        for kind in missing:
            self._conditions[kind] = Condition(
                type=kind,
                status="Unknown",
                reason=AWAITING_REASON,
                message=AWAITING_MESSAGE,
                last_transition=created,
                observed_generation=generation,
            )

    def get(self, kind: str) -> Condition | None:
        """Return the condition of that type, if it was ever set."""
        return self._conditions.get(kind)

    def is_true(self, kind: str) -> bool:
        """Tell whether the condition is True."""
        condition = self._conditions.get(kind)
        return condition is not None and condition.status == "True"

    def set_true(self, kind: str, *, reason: str | None = None, message: str = "") -> None:
        """Set True; the reason defaults to the type, as Karpenter does."""
        self._set(kind, "True", reason or kind, message)

    def set_unknown(self, kind: str, *, reason: str, message: str) -> None:
        """Set Unknown: work is going on or has to be repeated."""
        self._set(kind, "Unknown", reason, message)

    def set_false(self, kind: str, *, reason: str, message: str) -> None:
        """Set False: nothing that we do will change this by itself."""
        self._set(kind, "False", reason, message)

    def observe(self, kind: str) -> None:
        """Confirm a decided condition at the present generation; one that somebody wrote without a reason gets one."""
        condition = self._conditions[kind]
        self._set(kind, condition.status, condition.reason or kind, condition.message)

    def clear(self, kind: str) -> None:
        """Take a condition out that has nothing to say any more; not one that the root depends on."""
        if kind in (*DEPENDENTS, READY):
            raise ValueError(f"condition {kind} is never taken out")
        self._conditions.pop(kind, None)

    def _set(self, kind: str, status: Status, reason: str, message: str) -> None:
        if not reason:
            raise ValueError(f"condition {kind} needs a reason: clients refuse a status without one")
        old = self._conditions.get(kind)
        self._conditions[kind] = Condition(
            type=kind,
            status=status,
            reason=reason,
            message=message if len(message) <= MAX_MESSAGE else message[: MAX_MESSAGE - 3] + "...",
            last_transition=old.last_transition if old and old.status == status else self._now,
            observed_generation=self._generation,
        )

    def result(self) -> tuple[Condition, ...]:
        """Return all conditions, oldest transition first, the recomputed root last."""
        unhealthy = [
            condition
            for condition in (self._conditions[kind] for kind in DEPENDENTS)
            if condition.status != "True" or condition.observed_generation != self._generation
        ]
        if not unhealthy:
            self._set(READY, "True", READY, "")
        else:
            newest_first = sorted(unhealthy, key=lambda condition: condition.last_transition, reverse=True)
            message = ", ".join(f"{condition.type}={condition.status}" for condition in newest_first)
            failed = any(c.status == "False" and c.observed_generation == self._generation for c in unhealthy)
            if failed:
                self._set(READY, "False", "UnhealthyDependents", message)
            else:
                self._set(READY, "Unknown", "ReconcilingDependents", message)
        others = [condition for condition in self._conditions.values() if condition.type != READY]
        return (*sorted(others, key=lambda condition: condition.last_transition), self._conditions[READY])
