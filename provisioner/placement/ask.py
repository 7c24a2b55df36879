"""What a claim asks for, read from its spec once, before any VM size is looked at."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from provisioner.apis import names
from provisioner.apis.nodeclaim import NodeClaimSpec
from provisioner.placement.labels import FOLDS, asks_for_gpu
from provisioner.placement.market import REGIONAL_ZONE, Terms
from provisioner.placement.refused import Refused
from provisioner.placement.requirements import Contradiction, Requirements, Values, clipped, combine, enumerated
from provisioner.placement.resources import Requests, read_requests

# Node zone label of a zonal VM; that of a regional one is REGIONAL_ZONE.
_ZONE: Final = re.compile(r"(?P<region>[a-z0-9]+)-(?P<number>[1-9])", re.ASCII)

_NAMING: Final = (names.INSTANCE_TYPE_LABEL, names.SKU_NAME_LABEL)
_ARM: Final = "arm64"
_ARCHITECTURES: Final = ("amd64", _ARM)
_NO_TERMS: Final = Terms()
# Cheaper ones first, so that they come first where the prices are not known.
_CAPACITY_TYPES: Final = (names.CAPACITY_TYPE_SPOT, names.CAPACITY_TYPE_ON_DEMAND)


@dataclass(frozen=True, kw_only=True)
class Zone:
    """A zone that the claim allows: its number for Azure and its label on the Node."""

    number: str
    label: str


@dataclass(frozen=True, kw_only=True)
class Ask:
    """What a claim asks for.

    `named` are the sizes that it names, in lower case and its order; None where it leaves the choice to us. `written`
    are their spellings in the claim. `zones` is empty for a regional VM. `accelerated` says whether a claim that names
    no size asks for a GPU.
    """

    requirements: Requirements
    requests: Requests
    named: tuple[str, ...] | None
    written: Mapping[str, str]
    capacity_types: tuple[str, ...]
    zones: tuple[Zone, ...]
    accelerated: bool

    @property
    def takes_arm(self) -> bool:
        """Tell whether the claim says that it can do with arm64, or with that alone."""
        wanted = self.requirements[names.ARCH_LABEL]
        return wanted.allows(_ARM) and (_ARM in (wanted.candidates or ()) or not wanted.allows(_ARCHITECTURES[0]))

    @property
    def architecture(self) -> str:
        """Return the architecture to expect of a size that nothing is known of."""
        wanted = self.requirements[names.ARCH_LABEL]
        return next((name for name in _ARCHITECTURES if wanted.allows(name)), _ARCHITECTURES[0])


def read_ask(spec: NodeClaimSpec, *, location: str, terms: Terms = _NO_TERMS) -> Ask:
    """Read what a claim asks for, within the terms of its class.

    `location` is the cluster's region; while it is empty, no requirement on the region is judged. Raises Refused where
    no agent pool at all can be that.
    """
    try:
        requirements = combine(spec.requirements, folds=FOLDS)
    except Contradiction as error:
        raise Refused(
            reason="ContradictoryRequirements", message=f"{error}. Write a new claim: a spec cannot be changed."
        ) from None
    capacity_types = _read_capacity_types(requirements[names.CAPACITY_TYPE_LABEL])
    if not requirements[names.OS_LABEL].allows("linux"):
        raise Refused(
            reason="UnsupportedRequirement", message=f"{names.OS_LABEL} must allow linux: GPU pools are Linux pools."
        )
    if location and not requirements[names.REGION_LABEL].allows(location):
        raise Refused(
            reason="UnsupportedRequirement",
            message=f"{names.REGION_LABEL} must allow {location}: all nodes are in the cluster's region.",
        )
    if terms.zones:
        zones = _read_allowed_zones(requirements, location=location, terms=terms)
    else:
        zones = _read_zones(requirements[names.ZONE_LABEL], location=location)
    named = _read_named(requirements)
    requests = read_requests(spec.requests, os_disk_gib=terms.os_disk_gib)
    return Ask(
        requirements=requirements,
        requests=requests,
        named=named,
        written=_read_spellings(spec),
        capacity_types=capacity_types,
        zones=zones,
        accelerated=bool(requests.gpu_count) or asks_for_gpu(requirements),
    )


def _read_capacity_types(wanted: Values) -> tuple[str, ...]:
    allowed = tuple(name for name in _CAPACITY_TYPES if wanted.allows(name))
    if not allowed:
        raise Refused(
            reason="UnsupportedRequirement",
            message=f"{names.CAPACITY_TYPE_LABEL} must allow on-demand or spot, "
            "which is all that an agent pool can be.",
        )
    # A VM that may be evicted at any moment is for those alone who have asked for it by its name, or excluded all else.
    return allowed if wanted.candidates is not None or len(allowed) == 1 else (names.CAPACITY_TYPE_ON_DEMAND,)


def _read_zones(wanted: Values, *, location: str) -> tuple[Zone, ...]:
    # Regional unless zones are asked for by name: zonal creation of GPU sizes fails far more often.
    if wanted.allows(REGIONAL_ZONE):
        return ()
    candidates = wanted.candidates
    if not candidates:
        raise Refused(
            reason="UnsupportedRequirement",
            message=f"{names.ZONE_LABEL} excludes a regional node (0) and names no zone: list zones such as eastus-1.",
        )
    matches = [match for match in map(_ZONE.fullmatch, candidates) if match]
    if len(matches) < len(candidates):
        raise Refused(
            reason="UnsupportedRequirement",
            message=f"{names.ZONE_LABEL} takes zones such as eastus-1, or 0 for a regional node, "
            f"not {enumerated(candidates)}.",
        )
    here = {match["number"]: match[0] for match in matches if not location or match["region"] == location}
    if not here:
        raise Refused(
            reason="UnsupportedRequirement",
            message=f"{names.ZONE_LABEL} must allow a zone of {location}, not {enumerated(candidates)} alone: "
            "all nodes are in the cluster's region.",
        )
    return tuple(Zone(number=number, label=label) for number, label in sorted(here.items()))


def _read_allowed_zones(requirements: Requirements, *, location: str, terms: Terms) -> tuple[Zone, ...]:
    """Return the zones that both the claim and its class allow. A class that lists zones rules a regional VM out."""
    wanted, numbers = requirements[names.ZONE_LABEL], sorted(set(terms.zones))
    labels = {number: f"{location}-{number}" for number in numbers} if location else dict.fromkeys(numbers, "")
    zones = tuple(
        Zone(number=number, label=label) for number, label in labels.items() if not location or wanted.allows(label)
    )
    if not zones:
        written, allowed = requirements.written[names.ZONE_LABEL], " and ".join(labels.values())
        raise Refused(
            reason="ContradictoryRequirements",
            message=f"{names.ZONE_LABEL} {written} is asked for, and {terms.owner} allows {allowed} alone. Write a new "
            "claim, or change the class.",
        )
    return zones


def _read_named(requirements: Requirements) -> tuple[str, ...] | None:
    by_type, by_sku = (requirements[key] for key in _NAMING)
    for key in _NAMING:
        if requirements[key].must_be_absent:
            raise Refused(
                reason="UnsupportedRequirement", message=f"{key} DoesNotExist cannot be: it is the VM size of a Node."
            )
    listed = by_type.candidates if by_type.candidates is not None else by_sku.candidates
    if listed is None:
        return None
    named = tuple(name for name in listed if by_type.allows(name) and by_sku.allows(name))
    if not named:
        raise Refused(
            reason="ContradictoryRequirements",
            message=f"{names.INSTANCE_TYPE_LABEL} and {names.SKU_NAME_LABEL} have no size in common.",
        )
    return named


def _read_spellings(spec: NodeClaimSpec) -> dict[str, str]:
    return {
        value.lower(): value
        for key in reversed(_NAMING)
        for requirement in spec.requirements
        if requirement.key == key
        for value in requirement.values
    }


def shown_name(name: str) -> str:
    """Return a size's name as the claim has it, at a length that a message can hold and never empty."""
    return clipped(name) or '""'
