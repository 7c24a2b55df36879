"""Checks KaitoNodeClasses: asks Azure for what they name, seldom, and remembers the verdicts.

The verdict is on the class's Ready condition. It is remembered here as well, for a cluster that does not let its
condition be written.
"""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol

from provisioner.apis import names
from provisioner.apis.failure import FailureClass
from provisioner.apis.nodeclass import DEFAULTS, NodeClassSpec, read_spec
from provisioner.apis.quota import Usage
from provisioner.apis.reservation import Reserved
from provisioner.azure.errors import ArmFailure
from provisioner.nodeclaim.class_verdict import (
    Finding,
    Reference,
    Verdict,
    depends_on_region,
    generation_of,
    judge,
    references,
    stored_verdict,
)
from provisioner.nodeclaim.nodeclass import NOT_READY, ClassProblem
from provisioner.placement.size import Sizes

_log: Final = logging.getLogger(__name__)

# Seconds for which an answer is good. Subnets and reservations come and go by hand; one that is missing, or could not
# be asked for, is somebody's next step.
_FOUND_FOR: Final = 600.0
_OTHERWISE_FOR: Final = 120.0
# Seconds after which a class is looked at again while the sizes of the region are not known.
_UNKNOWN_AGAIN: Final = 30.0
_RIGHTS: Final[Mapping[str, str]] = {
    "vnetSubnetID": "Microsoft.Network/virtualNetworks/subnets/read",
    "capacityReservationGroupID": "Microsoft.Compute/capacityReservationGroups/capacityReservations/read",
}
# Questions that are out at the same time: each keeps a worker, for half a minute where Azure does not answer.
_AT_ONCE: Final = 4
# Seconds after which a class is looked at again whose question another one asks, or that has to wait for others.
_TURN_AGAIN: Final = 1.0
_UNREAD: Final = Finding(exists=None, why="it could not be read")
_FORBIDDEN: Final = 403


class References(Protocol):
    """Who knows what exists in Azure."""

    async def subnet_exists(self, resource_id: str) -> bool:
        """Tell whether there is such a subnet. Raises ArmFailure."""
        ...

    async def reservations(self, resource_id: str) -> frozenset[Reserved] | None:
        """Return what a capacity reservation group reserves, None where there is no such group. Raises ArmFailure."""
        ...


class KnownRegion(Protocol):
    """What is known of the region."""

    @property
    def location(self) -> str:
        """Return its name."""
        ...

    @property
    def sizes(self) -> Sizes:
        """Return its VM sizes."""
        ...


@dataclass(frozen=True, kw_only=True)
class _Known:
    finding: Finding
    due_at: float


class ClassChecks:
    """The verdicts on classes; to be used from one event loop."""

    def __init__(
        self,
        azure: References,
        *,
        region: KnownRegion,
        usages: Callable[[], Mapping[str, Usage]],
        clock: Callable[[], float],
    ) -> None:
        """Take what knows the region's usages by lower-case name, without asking, and a clock in monotonic seconds."""
        self._azure = azure
        self._region = region
        self._usages = usages
        self._clock = clock
        # By lower-case ID: classes that name the same share it.
        self._known: dict[str, _Known] = {}
        self._asking: set[str] = set()
        # By the name of the class: its UID and generation, and what was found.
        self._verdicts: dict[str, tuple[str, int, Verdict]] = {}

    async def check(self, raw: Mapping[str, Any]) -> tuple[Verdict | None, float | None]:
        """Return the verdict on a class, and in how many seconds it is to be checked again, None for never.

        Asks Azure for what the class names unless that was done lately, and for nothing else. There is no verdict yet
        while it has to wait for that.
        """
        spec, error = read_spec(raw.get("spec"))
        findings: dict[Reference, Finding] = {}
        dues = []
        for reference in () if error else references(spec):
            known = await self._find(reference)
            if known is None:
                return None, _TURN_AGAIN
            findings[reference] = known.finding
            dues.append(max(known.due_at - self._clock(), 1.0))
        region = self._region
        verdict = judge(
            spec,
            error=error,
            findings=findings,
            sizes=region.sizes,
            usages=self._usages(),
            location=region.location,
        )
        if _UNREAD in findings.values():
            # What an earlier run has found out is better than nothing.
            verdict = stored_verdict(raw) or verdict
        if not error and depends_on_region(spec):
            dues.append(_FOUND_FOR if region.sizes.are_complete else _UNKNOWN_AGAIN)
        self._verdicts[raw["metadata"]["name"]] = (*_version(raw), verdict)
        return verdict, min(dues, default=None)

    def is_judged(self, raw: Mapping[str, Any] | None) -> bool:
        """Tell whether it is known if the class can be used as it stands.

        It is where it names nothing in Azure, where this or an earlier run of the controller has said so, and where
        there is no class. What a group reserves no earlier run has left behind.
        """
        spec = read_spec(raw.get("spec"))[0] if raw is not None else DEFAULTS
        if raw is None or not references(spec) or self._verdict(raw) is not None:
            return True
        return spec.capacity_reservation_group_id is None and stored_verdict(raw) is not None

    def standing(self, raw: Mapping[str, Any]) -> tuple[Verdict | None, frozenset[Reserved] | None]:
        """Return what has been found here on a class as it stands, and what its group reserves."""
        return self._verdict(raw), self.reserved(read_spec(raw.get("spec"))[0])

    def reserved(self, spec: NodeClassSpec) -> frozenset[Reserved] | None:
        """Return what the capacity reservation group of a class reserves, None where there is none, or none known."""
        known = self._known.get((spec.capacity_reservation_group_id or "").lower())
        # Without any the class is not Ready, which says more than that nothing is offered.
        return (known.finding.reserved or None) if known is not None else None

    def problem(self, raw: Mapping[str, Any] | None) -> ClassProblem | None:
        """Return why the class cannot be used as was found here, None where it can, or where that is not known."""
        verdict = self._verdict(raw) if raw is not None else None
        if raw is None or verdict is None or verdict.is_ready:
            return None
        name = raw["metadata"]["name"]
        return ClassProblem(reason=NOT_READY, message=f"{names.NODECLASS_KIND} {name} is not Ready: {verdict.message}")

    def forget(self, name: str) -> None:
        """Drop the verdict on a class that is gone."""
        self._verdicts.pop(name, None)

    def _verdict(self, raw: Mapping[str, Any]) -> Verdict | None:
        known = self._verdicts.get(raw["metadata"]["name"])
        return known[2] if known is not None and known[:2] == _version(raw) else None

    async def _find(self, reference: Reference) -> _Known | None:
        """Return what is known of a resource, asked for anew where that is old; None where that has to wait."""
        key = reference.resource_id.lower()
        known = self._known.get(key)
        if known is not None and self._clock() < known.due_at:
            return known
        if key in self._asking or len(self._asking) >= _AT_ONCE:
            return None
        self._asking.add(key)
        try:
            finding = await self._ask(reference)
        finally:
            self._asking.discard(key)
        if finding is None:
            # For a moment, perhaps: what was known stays until it is known better.
            finding = known.finding if known is not None else _UNREAD
        seconds = _FOUND_FOR if _is_good(finding, reference) else _OTHERWISE_FOR
        self._known = {each: it for each, it in self._known.items() if self._clock() < it.due_at + _FOUND_FOR}
        self._known[key] = known = _Known(finding=finding, due_at=self._clock() + seconds)
        return known

    async def _ask(self, reference: Reference) -> Finding | None:
        """Return what Azure says, None where it does not say anything."""
        try:
            if reference.field == "vnetSubnetID":
                return Finding(exists=await self._azure.subnet_exists(reference.resource_id))
            reserved = await self._azure.reservations(reference.resource_id)
            return Finding(exists=reserved is not None, reserved=reserved)
        except ArmFailure as error:
            _log.info(
                "a resource of a node class was not checked",
                extra={"field": reference.field, "resource": reference.resource_id, "error": error.failure.message},
            )
            is_forbidden = error.status == _FORBIDDEN and error.failure.kind is FailureClass.AUTH
            return Finding(exists=None, why=_why_forbidden(reference)) if is_forbidden else None


def _is_good(finding: Finding, reference: Reference) -> bool:
    """Tell whether an answer is good for long: what is missing is somebody's next step, a role comes once for all."""
    if finding.exists is None:
        return finding.why == _why_forbidden(reference)
    return finding.exists and (finding.reserved is None or bool(finding.reserved))


def _why_forbidden(reference: Reference) -> str:
    return f"the identity lacks {_RIGHTS[reference.field]}"


def _version(raw: Mapping[str, Any]) -> tuple[str, int]:
    return str(raw["metadata"].get("uid", "")), generation_of(raw)
