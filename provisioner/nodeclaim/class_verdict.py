"""Whether claims may use a KaitoNodeClass: the verdict, and its Ready condition. Pure."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Literal

from provisioner.apis.conditions import READY
from provisioner.apis.nodeclass import NodeClassSpec
from provisioner.apis.times import format_time
from provisioner.placement.labels import traits
from provisioner.placement.size import Size, Sizes

INVALID_FIELD: Final = "InvalidField"
SUBNET_NOT_FOUND: Final = "SubnetNotFound"
RESERVATION_NOT_FOUND: Final = "CapacityReservationGroupNotFound"
NO_SUITABLE_SIZE: Final = "NoSuitableVMSize"

_USABLE: Final = "The class can be used."


@dataclass(frozen=True, kw_only=True)
class Reference:
    """A resource that a class names by a field. `kind` is how messages call it."""

    field: Literal["vnetSubnetID", "capacityReservationGroupID"]
    kind: str
    resource_id: str
    missing: str


@dataclass(frozen=True, kw_only=True)
class Finding:
    """Whether a resource exists, None where that could not be told; `why` is then a few words."""

    exists: bool | None
    why: str = ""


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What the Ready condition says."""

    is_ready: bool
    reason: str
    message: str


def references(spec: NodeClassSpec) -> tuple[Reference, ...]:
    """Return the resources that the class names."""
    found = []
    if spec.vnet_subnet_id is not None:
        found.append(
            Reference(field="vnetSubnetID", kind="subnet", resource_id=spec.vnet_subnet_id, missing=SUBNET_NOT_FOUND)
        )
    if spec.capacity_reservation_group_id is not None:
        found.append(
            Reference(
                field="capacityReservationGroupID",
                kind="capacity reservation group",
                resource_id=spec.capacity_reservation_group_id,
                missing=RESERVATION_NOT_FOUND,
            )
        )
    return tuple(found)


def depends_on_region(spec: NodeClassSpec) -> bool:
    """Tell whether the sizes of the region decide about the class, too."""
    return bool(spec.zones or spec.gpu_instance_profile)


def judge(
    spec: NodeClassSpec, *, error: str, findings: Mapping[Reference, Finding], sizes: Sizes, location: str
) -> Verdict:
    """Return whether the class can be used. `error` is why it could not be read, empty where it was.

    What could not be checked is no reason to keep claims waiting: it is told, and Azure judges.
    """
    if error:
        return Verdict(is_ready=False, reason=INVALID_FIELD, message=f"{error}. Correct the class.")
    unchecked = []
    for reference, finding in findings.items():
        if finding.exists is None:
            unchecked.append(f"the {reference.kind} of spec.{reference.field} ({finding.why})")
        elif not finding.exists:
            return Verdict(
                is_ready=False,
                reason=reference.missing,
                message=f"spec.{reference.field}: there is no {reference.kind} {reference.resource_id}. Create it, or "
                "correct the class; it is looked for again every few minutes.",
            )
    if depends_on_region(spec) and sizes.are_complete and (why := _unsuitable(spec, sizes.all(), location=location)):
        return Verdict(is_ready=False, reason=NO_SUITABLE_SIZE, message=f"{why} Correct the class.")
    told = f" Not checked: {'; '.join(unchecked)}." if unchecked else ""
    return Verdict(is_ready=True, reason=READY, message=f"{_USABLE}{told}")


def _unsuitable(spec: NodeClassSpec, sizes: Collection[Size], *, location: str) -> str:
    """Return why no size at all does for the class, empty where one may. What a claim asks for is not judged here."""
    profile, zones = spec.gpu_instance_profile, spec.zones
    left = [size for size in sizes if not size.restriction]
    if profile:
        left = [size for size in left if size.mig and traits(size).accelerated]
        if not left:
            return f"spec.gpuInstanceProfile: no VM size of {location} that is open to this subscription has MIG."
    if zones and not any(size.zones is None or set(zones) & set(size.zones) for size in left):
        which = f"{'zone' if len(zones) == 1 else 'zones'} {', '.join(sorted(zones))}"
        kind = f"VM size with {profile}" if profile else "VM size"
        return f"spec.zones: no {kind} that is open to this subscription can be had in {which} of {location}."
    return ""


def ready_condition(raw: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the stored Ready condition of a class, an empty one where there is none."""
    conditions = (raw.get("status") or {}).get("conditions") or []
    return next((c for c in conditions if c.get("type") == READY), {})


def generation_of(raw: Mapping[str, Any]) -> int:
    """Return the generation of a class."""
    return int((raw.get("metadata") or {}).get("generation", 1))


def ready_status(raw: Mapping[str, Any], verdict: Verdict, *, now: datetime) -> dict[str, Any] | None:
    """Return the status patch that says the verdict of the class at its generation, None where it says so already."""
    if "deletionTimestamp" in (raw.get("metadata") or {}):
        return None
    conditions = (raw.get("status") or {}).get("conditions") or []
    old = ready_condition(raw)
    ready = {
        "type": READY,
        "status": str(verdict.is_ready),
        "reason": verdict.reason,
        "message": verdict.message,
        "observedGeneration": generation_of(raw),
    }
    if ready.items() <= old.items():
        return None
    since = old.get("lastTransitionTime") if old.get("status") == ready["status"] else None
    ready["lastTransitionTime"] = since or format_time(now)
    return {"conditions": [*(c for c in conditions if c.get("type") != READY), ready]}
