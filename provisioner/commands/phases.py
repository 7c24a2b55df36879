"""What a claim is doing, from its conditions alone. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from typing import Any, Final

from provisioner.apis import names
from provisioner.apis.agentpool import pool_of_provider_id
from provisioner.apis.conditions import (
    DRAINED,
    DRIFTED,
    INITIALIZED,
    INSTANCE_TERMINATING,
    LAUNCHED,
    READY,
    REGISTERED,
    VOLUMES_DETACHED,
    Condition,
)
from provisioner.apis.nodeclaim import NodeClaim
from provisioner.apis.times import format_time
from provisioner.nodeclaim.launch import CREATING


class Phase(StrEnum):
    """Where a claim is in its life. In Waiting it will be tried again; Failed has to be mended by somebody."""

    WAITING = "Waiting"
    FAILED = "Failed"
    LAUNCHING = "Launching"
    REGISTERING = "Registering"
    INITIALIZING = "Initializing"
    READY = "Ready"
    TERMINATING = "Terminating"


_STAGES: Final = (
    (LAUNCHED, Phase.LAUNCHING),
    (REGISTERED, Phase.REGISTERING),
    (INITIALIZED, Phase.INITIALIZING),
)


@dataclass(frozen=True, kw_only=True)
class ClaimStatus:
    """One claim for people. `price` is US dollars an hour, None where unknown; `runs` while there is a VM to pay."""

    name: str
    pool: str
    size: str
    capacity_type: str
    node: str
    phase: Phase
    since: datetime
    reason: str
    message: str
    runs: bool
    price: Decimal | None = None

    @property
    def why(self) -> str:
        """Return reason and message in one."""
        return ": ".join(part for part in (self.reason, self.message) if part)

    def to_dict(self) -> dict[str, Any]:
        """Return the claim for scripts; what is not known, or not there yet, is null."""
        return {
            "name": self.name,
            "agentPool": self.pool or None,
            "vmSize": self.size or None,
            "capacityType": self.capacity_type,
            "nodeName": self.node or None,
            "phase": self.phase.value,
            "since": format_time(self.since),
            "reason": self.reason or None,
            "message": self.message or None,
            "runs": self.runs,
            "pricePerHour": None if self.price is None else float(self.price),
        }


def claim_status(claim: NodeClaim) -> ClaimStatus:
    """Return what the claim is doing; its price is not in it."""
    by_type = {condition.type: condition for condition in claim.conditions}
    phase, since, told = _phase(claim, by_type)
    return ClaimStatus(
        name=claim.name,
        pool=claim.agent_pool or pool_of_provider_id(claim.provider_id),
        size=_size(claim),
        capacity_type=claim.labels.get(names.CAPACITY_TYPE_LABEL, names.CAPACITY_TYPE_ON_DEMAND),
        node=claim.node_name,
        phase=phase,
        since=since,
        # The default reason of a condition that is True repeats its name.
        reason="" if told is None or told.reason == told.type else told.reason,
        message="" if told is None else told.message,
        runs=bool(claim.provider_id),
    )


def _phase(claim: NodeClaim, by_type: Mapping[str, Condition]) -> tuple[Phase, datetime, Condition | None]:
    """Return the phase, since when, and the condition that tells of it."""
    if claim.deleted is not None:
        waits = (by_type.get(kind) for kind in (DRAINED, VOLUMES_DETACHED))
        draining = next((condition for condition in waits if condition and condition.status == "Unknown"), None)
        return Phase.TERMINATING, claim.deleted, draining or by_type.get(INSTANCE_TERMINATING)
    for kind, phase in _STAGES:
        condition = by_type.get(kind)
        if condition is None:
            return (Phase.WAITING if kind == LAUNCHED else phase), claim.created, None
        if condition.status == "True":
            continue
        if condition.status == "False":
            return Phase.FAILED, condition.last_transition, condition
        is_waiting = kind == LAUNCHED and condition.reason != CREATING
        return (Phase.WAITING if is_waiting else phase), condition.last_transition, condition
    ready = by_type.get(READY)
    if ready is not None and ready.status == "True":
        return Phase.READY, ready.last_transition, by_type.get(DRIFTED)
    return Phase.INITIALIZING, claim.created if ready is None else ready.last_transition, ready


def _size(claim: NodeClaim) -> str:
    """Return the size that was asked for, else the only one that the claim names."""
    recorded = claim.annotations.get(names.INSTANCE_TYPE_ANNOTATION) or claim.labels.get(names.INSTANCE_TYPE_LABEL)
    if recorded or claim.spec is None:
        return recorded or ""
    wanted = [r.values for r in claim.spec.requirements if r.key == names.INSTANCE_TYPE_LABEL and r.operator == "In"]
    return wanted[0][0] if len(wanted) == 1 and len(wanted[0]) == 1 else ""
