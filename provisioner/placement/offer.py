"""What to ask Azure for: VM size, capacity type, zones and OS disk; or the reason why there is nothing to ask."""

import difflib
import math
import re
from collections.abc import Collection
from dataclasses import dataclass
from decimal import Decimal
from typing import Final, Protocol

from provisioner.apis import names
from provisioner.apis.nodeclaim import NodeClaimSpec
from provisioner.placement.requirements import Contradiction, Requirements, combine

# AKS takes an OS disk of 30 to 2048 GiB; without a size it chooses one that suits the VM.
MIN_OS_DISK_GIB: Final = 30
MAX_OS_DISK_GIB: Final = 2048
_GIB: Final = 1 << 30

# Node zone label of a regional, i.e. not zonal, VM; and of zonal ones `<region>-<number>`.
REGIONAL_ZONE: Final = "0"
_ZONE: Final = re.compile(r"^(?P<region>[a-z0-9]+)-(?P<number>[1-9])$", re.ASCII)

_EXAMPLE_SIZE: Final = "Standard_NC24ads_A100_v4"
_SUGGESTIONS: Final = 3


@dataclass(frozen=True, kw_only=True)
class Size:
    """A VM size in Azure's spelling and what its Node will offer. `gpu_count` is what the Node advertises."""

    name: str
    architecture: str = "amd64"
    gpu_resource: str = names.NVIDIA_GPU
    gpu_count: int = 0
    retired: str = ""


class Sizes(Protocol):
    """The VM sizes that are known: from Azure's list of the region, and from what is built in."""

    def find(self, name: str) -> Size | None:
        """Return the size of that name, in any letter case."""
        ...

    @property
    def are_complete(self) -> bool:
        """Tell whether a size that is not known does not exist, or may be one we have not heard of."""
        ...

    def all_names(self) -> Collection[str]:
        """Return the known names in Azure's spelling."""
        ...


@dataclass(frozen=True, kw_only=True)
class Offer:
    """One thing to ask Azure for. `zones` is empty for a regional pool, `os_disk_gib` None for Azure's default."""

    size: Size
    capacity_type: str
    zones: tuple[str, ...] = ()
    zone_label: str = REGIONAL_ZONE
    os_disk_gib: int | None = None
    labels: tuple[tuple[str, str], ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Refusal:
    """Why the claim cannot be served as it stands; `reason` is a condition reason."""

    reason: str
    message: str


class _Refused(Exception):
    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.refusal = Refusal(reason=reason, message=message)


def choose(spec: NodeClaimSpec, *, sizes: Sizes, location: str = "") -> Offer | Refusal:
    """Choose what to ask for, the first fitting size in the order in which the claim lists them.

    `location` is the cluster's; while it is not known, no requirement on the region is judged.
    """
    try:
        requirements = combine(spec.requirements)
        capacity_type = _capacity_type(requirements)
        _check_os(requirements)
        _check_region(requirements, location=location)
        zones, zone_label = _zones(requirements)
        size, notes = _size(requirements, spec=spec, sizes=sizes)
        return Offer(
            size=size,
            capacity_type=capacity_type,
            zones=zones,
            zone_label=zone_label,
            os_disk_gib=_os_disk(spec.requests.get(names.STORAGE)),
            labels=tuple(sorted(_labels(requirements, size=size, capacity_type=capacity_type).items())),
            notes=notes,
        )
    except Contradiction as error:
        return Refusal(
            reason="ContradictoryRequirements", message=f"{error}. Write a new claim: a spec cannot be changed."
        )
    except _Refused as error:
        return error.refusal


def _capacity_type(requirements: Requirements) -> str:
    wanted = requirements[names.CAPACITY_TYPE_LABEL]
    for capacity_type in (names.CAPACITY_TYPE_ON_DEMAND, names.CAPACITY_TYPE_SPOT):
        if wanted.allows(capacity_type):
            return capacity_type
    raise _Refused(
        "UnsupportedRequirement",
        f"{names.CAPACITY_TYPE_LABEL} must allow on-demand or spot, which is all that an agent pool can be.",
    )


def _check_os(requirements: Requirements) -> None:
    if not requirements[names.OS_LABEL].allows("linux"):
        raise _Refused("UnsupportedRequirement", f"{names.OS_LABEL} must allow linux: GPU pools are Linux pools.")


def _check_region(requirements: Requirements, *, location: str) -> None:
    if location and not requirements[names.REGION_LABEL].allows(location):
        raise _Refused(
            "UnsupportedRequirement",
            f"{names.REGION_LABEL} must allow {location}: all nodes are in the cluster's region.",
        )


def _zones(requirements: Requirements) -> tuple[tuple[str, ...], str]:
    wanted = requirements[names.ZONE_LABEL]
    candidates = wanted.candidates
    # Regional unless zones are asked for by name: zonal creation of GPU sizes fails far more often.
    if wanted.allows(REGIONAL_ZONE):
        return (), REGIONAL_ZONE
    if not candidates:
        raise _Refused(
            "UnsupportedRequirement",
            f"{names.ZONE_LABEL} excludes a regional node (0) and names no zone: list zones such as eastus-1.",
        )
    matches = [match for match in map(_ZONE.match, candidates) if match]
    if len(matches) < len(candidates):
        raise _Refused(
            "UnsupportedRequirement",
            f"{names.ZONE_LABEL} takes zones such as eastus-1, or 0 for a regional node, not {', '.join(candidates)}.",
        )
    return tuple(sorted({match["number"] for match in matches})), candidates[0] if len(candidates) == 1 else ""


def _size(requirements: Requirements, *, spec: NodeClaimSpec, sizes: Sizes) -> tuple[Size, tuple[str, ...]]:
    by_type, by_sku = requirements[names.INSTANCE_TYPE_LABEL], requirements[names.SKU_NAME_LABEL]
    listed = by_type.candidates if by_type.candidates is not None else by_sku.candidates
    if listed is None:
        raise _Refused(
            "NoInstanceType",
            f"No VM size: add a requirement {names.INSTANCE_TYPE_LABEL} In [{_EXAMPLE_SIZE}] or another size.",
        )
    candidates = [name for name in listed if by_type.allows(name) and by_sku.allows(name)]
    if not candidates:
        raise _Refused(
            "ContradictoryRequirements",
            f"{names.INSTANCE_TYPE_LABEL} and {names.SKU_NAME_LABEL} have no size in common.",
        )
    written = {
        value.lower(): value
        for key in (names.SKU_NAME_LABEL, names.INSTANCE_TYPE_LABEL)
        for requirement in spec.requirements
        if requirement.key == key
        for value in requirement.values
    }
    unsuitable = []
    for candidate in candidates:
        spelling = written.get(candidate, candidate)
        size = sizes.find(candidate)
        if size is None:
            if sizes.are_complete:
                continue
            # Azure's list could not be read, and it is Azure that knows: let it decide.
            allowed = (name for name in ("amd64", "arm64") if requirements[names.ARCH_LABEL].allows(name))
            size = Size(name=spelling, architecture=next(allowed, "amd64"))
        if not requirements[names.ARCH_LABEL].allows(size.architecture):
            unsuitable.append(f"{size.name} is {size.architecture}, which {names.ARCH_LABEL} excludes")
            continue
        return size, _notes(size, spelling=spelling)
    if unsuitable:
        raise _Refused("ContradictoryRequirements", f"{'; '.join(unsuitable)}.")
    raise _Refused("UnknownInstanceType", _unknown([written.get(name, name) for name in candidates], sizes=sizes))


def _notes(size: Size, *, spelling: str) -> tuple[str, ...]:
    notes = []
    if spelling != size.name:
        notes.append(f"{spelling} is spelled {size.name} by Azure, and so by the Node's {names.INSTANCE_TYPE_LABEL}.")
    if size.retired:
        notes.append(f"{size.name} was retired by Azure on {size.retired}; it may refuse to create it.")
    return tuple(notes)


def _unknown(candidates: Collection[str], *, sizes: Sizes) -> str:
    known = {name.lower(): name for name in sizes.all_names()}
    near = [
        known[match]
        for candidate in candidates
        for match in difflib.get_close_matches(candidate.lower(), known, n=_SUGGESTIONS, cutoff=0.7)
    ]
    hint = f" Did you mean {' or '.join(dict.fromkeys(near))}?" if near else " `az vm list-skus` lists what there is."
    return f"{', '.join(candidates)}: no VM size of that name in this region.{hint}"


def _os_disk(requested: Decimal | None) -> int | None:
    if requested is None:
        return None
    gib = math.ceil(requested / _GIB)
    if requested <= 0 or gib > MAX_OS_DISK_GIB:
        raise _Refused(
            "InvalidStorage",
            f"resources.requests.storage is the OS disk and must be above 0 and at most {MAX_OS_DISK_GIB}Gi, "
            f"not {_shown(requested)}. Leave it out for Azure's default.",
        )
    return max(gib, MIN_OS_DISK_GIB)


def _shown(quantity: Decimal) -> str:
    gib = quantity / _GIB
    return f"{gib:.1f}Gi" if gib >= 1 else f"{quantity:f} bytes"


def _labels(requirements: Requirements, *, size: Size, capacity_type: str) -> dict[str, str]:
    return (
        requirements.single_values
        | {
            names.INSTANCE_TYPE_LABEL: size.name,
            names.CAPACITY_TYPE_LABEL: capacity_type,
            names.OS_LABEL: "linux",
            names.ARCH_LABEL: size.architecture,
        }
        | ({names.SKU_NAME_LABEL: size.name} if names.SKU_NAME_LABEL in requirements.by_key else {})
    )
