"""Whether claims may use a KaitoNodeClass: the verdict, and its Ready condition. Pure."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Literal

from provisioner.apis.conditions import READY
from provisioner.apis.nodeclass import NodeClassSpec
from provisioner.apis.quota import Usage
from provisioner.apis.reservation import Reserved
from provisioner.apis.times import format_time
from provisioner.placement.labels import traits
from provisioner.placement.requirements import enumerated
from provisioner.placement.size import Size, Sizes

INVALID_FIELD: Final = "InvalidField"
SUBNET_NOT_FOUND: Final = "SubnetNotFound"
RESERVATION_NOT_FOUND: Final = "CapacityReservationGroupNotFound"
RESERVATION_EMPTY: Final = "CapacityReservationGroupEmpty"
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
    """Whether a resource exists, None where that could not be told; `why` is then a few words.

    `reserved` is what a capacity reservation group reserves.
    """

    exists: bool | None
    why: str = ""
    reserved: frozenset[Reserved] | None = None


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
    return bool(spec.zones or spec.gpu_instance_profile or spec.capacity_reservation_group_id)


def judge(
    spec: NodeClassSpec,
    *,
    error: str,
    findings: Mapping[Reference, Finding],
    sizes: Sizes,
    usages: Mapping[str, Usage],
    location: str,
) -> Verdict:
    """Return whether the class can be used. `error` is why it could not be read, empty where it was.

    `usages` are the region's quotas by lower-case name, as far as they are known. What could not be checked is no
    reason to keep claims waiting: it is told, and Azure judges. Nor is a quota: claims wait for that by themselves.
    """
    if error:
        return Verdict(is_ready=False, reason=INVALID_FIELD, message=f"{error}. Correct the class.")
    unchecked, reserved = [], None
    for reference, finding in findings.items():
        if finding.exists is None:
            unchecked.append(f"the {reference.kind} of spec.{reference.field} ({finding.why})")
        elif (lacking := _lacking(reference, finding)) is not None:
            return lacking
        elif finding.reserved is not None:
            reserved = finding.reserved
    told = f" Not checked: {'; '.join(unchecked)}." if unchecked else ""
    if depends_on_region(spec) and sizes.are_complete:
        suitable = _suitable(spec, sizes.all(), reserved=reserved, location=location)
        if isinstance(suitable, str):
            return Verdict(is_ready=False, reason=NO_SUITABLE_SIZE, message=f"{suitable} Correct the class.")
        told += _without_quota(suitable, usages)
    return Verdict(is_ready=True, reason=READY, message=f"{_USABLE}{told}")


def _lacking(reference: Reference, finding: Finding) -> Verdict | None:
    kind, resource_id = reference.kind, reference.resource_id
    if not finding.exists:
        reason, what = reference.missing, f"there is no {kind} {resource_id}. Create it"
    elif finding.reserved is not None and not finding.reserved:
        reason, what = RESERVATION_EMPTY, f"nothing is reserved in the {kind} {resource_id}. Reserve VMs of a size"
    else:
        return None
    again = "it is looked for again every few minutes"
    return Verdict(
        is_ready=False, reason=reason, message=f"spec.{reference.field}: {what}, or correct the class; {again}."
    )


def _suitable(
    spec: NodeClassSpec, sizes: Collection[Size], *, reserved: frozenset[Reserved] | None, location: str
) -> list[Size] | str:
    """Return the sizes that do for the class, or why none does. What a claim asks for is not judged here."""
    profile, zones = spec.gpu_instance_profile, set(spec.zones)
    left = [size for size in sizes if not size.restriction]
    if profile:
        left = [size for size in left if size.mig and traits(size).accelerated]
        if not left:
            return f"spec.gpuInstanceProfile: no VM size of {location} that is open to this subscription has MIG."
    if zones:
        left = [size for size in left if size.zones is None or zones & set(size.zones)]
        if not left:
            which = f"{'zone' if len(zones) == 1 else 'zones'} {', '.join(sorted(zones))}"
            kind = f"VM size with {profile}" if profile else "VM size"
            return f"spec.zones: no {kind} that is open to this subscription can be had in {which} of {location}."
    if reserved is not None:
        places = {each.size for each in reserved if not zones or each.zone in zones}
        left = [size for size in left if size.name.lower() in places]
        if not left:
            what = enumerated([f"{size} in zone {zone}" if zone else size for size, zone in sorted(reserved)])
            return f"spec.capacityReservationGroupID: reserved is {what}, which the class, or the region, rules out."
    return left


def _without_quota(sizes: Collection[Size], usages: Mapping[str, Usage]) -> str:
    """Return a sentence where no size would fit into its quota if nothing of that was used, empty where one may."""
    # Whoever narrows the sizes of a region down does so for their GPUs.
    families = set()
    for size in [size for size in sizes if size.gpu_count] or sizes:
        usage = usages.get(size.family.lower())
        if usage is None or usage.limit >= size.vcpus:
            return ""
        families.add(f"{usage.name} (limit {usage.limit})")
    which = enumerated(sorted(families))
    return f" No quota: on-demand VMs of its sizes count against {which}, which is too little for one. Ask for more."


def ready_condition(raw: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the stored Ready condition of a class, an empty one where there is none."""
    conditions = (raw.get("status") or {}).get("conditions") or []
    return next((c for c in conditions if c.get("type") == READY), {})


def stored_verdict(raw: Mapping[str, Any]) -> Verdict | None:
    """Return what the class says of itself at its generation, None where it says nothing."""
    ready = ready_condition(raw)
    if ready.get("status") not in ("True", "False") or ready.get("observedGeneration") != generation_of(raw):
        return None
    return Verdict(
        is_ready=ready["status"] == "True", reason=str(ready.get("reason")), message=str(ready.get("message"))
    )


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
