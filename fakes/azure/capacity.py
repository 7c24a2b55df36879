"""How many VMs of a size the region can still give, in total, by zone and for spot."""

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

from fakes.azure import skus


@dataclass(frozen=True, kw_only=True)
class Place:
    """What a capacity is of: a size in the whole region or in one zone, for all VMs or for spot VMs alone.

    Written `Standard_X`, `Standard_X/2`, `Standard_X/spot`, `Standard_X/2/spot`.
    """

    size: str
    zone: str | None = None
    spot: bool = False

    @classmethod
    def parse(cls, key: str) -> Self:
        """Read a place, in any case of letters. Raises ValueError for any other text and for unknown sizes."""
        name, *parts = key.split("/")
        sku = skus.catalogue().get(name.lower())
        if sku is None:
            raise ValueError(f"{name!r} is no VM size of the region")
        spot = [part for part in parts if part.lower() == "spot"]
        zones = [part for part in parts if part.isdecimal()]
        if len(spot) > 1 or len(zones) > 1 or len(spot) + len(zones) != len(parts):
            raise ValueError(f"{key!r} is none of SIZE, SIZE/ZONE, SIZE/spot and SIZE/ZONE/spot")
        return cls(size=sku.name, zone=zones[0] if zones else None, spot=bool(spot))

    def __str__(self) -> str:
        return "/".join([self.size, *([self.zone] if self.zone else ()), *(["spot"] if self.spot else ())])

    def covers(self, other: Self) -> bool:
        """Tell whether a VM at the other place takes from this one. A regional VM takes from no zone's share."""
        return self.size == other.size and self.zone in (None, other.zone) and (other.spot or not self.spot)


_parse = functools.cache(Place.parse)


def has_room(capacity: Mapping[str, int], place: Place) -> bool:
    """Tell whether one more VM can be had; what is not in the mapping is unlimited."""
    return all(left > 0 for key, left in capacity.items() if _parse(key).covers(place))


def moved(capacity: Mapping[str, int], place: Place, *, vms: int) -> dict[str, int]:
    """Return the capacity after so many VMs came (or, negative, went) at a place."""
    return {key: left - vms if _parse(key).covers(place) else left for key, left in capacity.items()}
