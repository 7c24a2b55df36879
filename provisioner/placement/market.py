"""What placement rests on beside the claim, and what it answers. Data and narrow interfaces only."""

from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from typing import Final, Literal, Protocol

from provisioner.apis.failure import Failure
from provisioner.apis.quota import Shortage
from provisioner.apis.reservation import Reserved
from provisioner.placement.size import Size, Sizes

# Zone label of a Node whose VM is regional, i.e. in no zone; those of zonal ones are `<region>-<number>`.
REGIONAL_ZONE: Final = "0"

Preference = Literal["Price", "Listed"]


@dataclass(frozen=True, kw_only=True)
class OfferKey:
    """What failures are remembered by. The size is lower-cased; the zone is a number, or REGIONAL_ZONE."""

    size: str
    zone: str
    capacity_type: str


@dataclass(frozen=True, kw_only=True)
class Remembered:
    """A failure of an offer: Azure is not asked for it again before `until`, and after that rather for others."""

    failure: Failure
    at: datetime
    until: datetime

    @property
    def forgotten_at(self) -> datetime:
        """Return when the failure means nothing any more: after `until` it counts for as long again."""
        return self.until + (self.until - self.at)


class Memory(Protocol):
    """The failures of offers, shared by all claims."""

    def recall(self, key: OfferKey) -> Remembered | None:
        """Return the last failure, None where there was none or it is too long ago to mean anything."""
        ...


class Quota(Protocol):
    """The vCPU quotas of the region, less what pools that are being created will take."""

    def shortage(self, size: Size, *, capacity_type: str) -> Shortage | None:
        """Return what one more VM lacks; None where it fits, or where the quota is not known and Azure will judge."""
        ...


class Unknown:
    """No failure is remembered and no quota known: it is Azure that decides."""

    def recall(self, key: OfferKey) -> Remembered | None:
        """Return None."""
        return None

    def shortage(self, size: Size, *, capacity_type: str) -> Shortage | None:
        """Return None."""
        return None


@dataclass(frozen=True, kw_only=True)
class Terms:
    """What the node class of a claim lays down for what may be offered.

    `zones` are the numbers of those that a VM may be in, none for any placement. Prices are US dollars an hour.
    `gpu_instance_profile` is how GPUs are partitioned, empty for whole ones; `os_disk_gib` the OS disk of claims that
    request none. `reserved` is what its capacity reservation group reserves, None where it has none or that is not
    known. `owner` is how messages name the class.
    """

    owner: str = "the node class"
    zones: tuple[str, ...] = ()
    max_price: Decimal | None = None
    max_spot_price: Decimal | None = None
    gpu_instance_profile: str = ""
    needs_ephemeral_os_disk: bool = False
    os_disk_gib: int | None = None
    reserved: frozenset[Reserved] | None = None


@dataclass(frozen=True, kw_only=True)
class Market:
    """What there is to choose from at one moment.

    `location` is the cluster's; while it is empty, no requirement on the region is judged. `preference` is the order
    of what can be had: the cheapest first, or as the claim lists the sizes.
    """

    sizes: Sizes
    now: datetime
    location: str = ""
    quota: Quota = field(default_factory=Unknown)
    memory: Memory = field(default_factory=Unknown)
    preference: Preference = "Price"
    terms: Terms = Terms()


@dataclass(frozen=True, kw_only=True)
class Offer:
    """One thing to ask Azure for.

    `zones` is empty for a regional pool, `os_disk_gib` None for Azure's default. `labels` are those that the Node has
    for the claim's requirements. `price` is US dollars an hour, None where unknown. `notes` are for the user.
    """

    size: Size
    capacity_type: str
    zones: tuple[str, ...] = ()
    zone_label: str = REGIONAL_ZONE
    os_disk_gib: int | None = None
    price: Decimal | None = None
    labels: tuple[tuple[str, str], ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def keys(self) -> tuple[OfferKey, ...]:
        """Return what a failure of this offer is remembered by."""
        return tuple(
            OfferKey(size=self.size.name.lower(), zone=zone, capacity_type=self.capacity_type)
            for zone in self.zones or (REGIONAL_ZONE,)
        )


class Because(StrEnum):
    """Why a size was left out: it does not do for the claim, or it would do but cannot be had now."""

    UNKNOWN = "unknown"
    REQUIREMENT = "requirement"
    TOO_SMALL = "too-small"
    ONLY_BY_NAME = "only-by-name"
    NODE_CLASS = "node-class"
    RESTRICTED = "restricted"
    ZONE = "zone"
    QUOTA = "quota"
    FAILED = "failed"

    @property
    def may_pass(self) -> bool:
        """Tell whether the size would do for the claim."""
        return self in (Because.RESTRICTED, Because.ZONE, Because.QUOTA, Because.FAILED)


@dataclass(frozen=True, kw_only=True)
class LeftOut:
    """A size, in one capacity type, that is not offered.

    `message` is a sentence for people that begins with the numbers. `failure` is there where the size would do for the
    claim; `until` is when it is tried again, None where something else has to happen first.
    """

    size: str
    because: Because
    message: str
    capacity_type: str = ""
    failure: Failure | None = None
    until: datetime | None = None


@dataclass(frozen=True, kw_only=True)
class Refusal:
    """Why the claim cannot be served as it stands; `reason` is a condition reason."""

    reason: str
    message: str


@dataclass(frozen=True, kw_only=True)
class Placement:
    """The answer: what to ask for, best first, and why everything else is left out.

    At most one of `refusal` and `unavailable` is there, and only without offers: `refusal` where nothing that Azure has
    would do for the claim, `unavailable` where all that would do cannot be had now; `again_at` is when one of those may
    be tried again, None where something else has to happen first.
    """

    offers: tuple[Offer, ...] = ()
    left_out: tuple[LeftOut, ...] = ()
    refusal: Refusal | None = None
    unavailable: Failure | None = None
    again_at: datetime | None = None

    @property
    def best(self) -> Offer | None:
        """Return the offer to ask for, None where there is none."""
        return self.offers[0] if self.offers else None
