"""Whether a VM size does for the node class of a claim, whatever the claim itself asks for."""

import dataclasses
import functools
from decimal import Decimal
from typing import Final

from provisioner.apis import names
from provisioner.gpus.mig import PROFILES
from provisioner.placement.ask import Zone
from provisioner.placement.fit import Misfit
from provisioner.placement.labels import traits
from provisioner.placement.market import Because, Terms
from provisioner.placement.order import price
from provisioner.placement.requirements import enumerated
from provisioner.placement.resources import DEFAULT_OS_DISK_GIB
from provisioner.placement.size import Size

_PRICE: Final = "price"


def partitioned(size: Size, profile: str) -> Size | None:
    """Return the size with its GPUs partitioned by a MIG profile, None where they cannot be.

    A size without GPUs is the same with any profile, and so is every size without one.
    """
    return _partitioned(size, profile) if profile and traits(size).accelerated else size


# Claims of a class look at the same sizes again and again.
@functools.lru_cache(maxsize=1024)
def _partitioned(size: Size, profile: str) -> Size | None:
    mig = PROFILES.get(profile)
    if mig is None or not size.mig or size.gpu_instance_profile:
        return None
    return dataclasses.replace(
        size,
        gpu_count=size.gpu_count * mig.instances,
        gpu_memory_gib=size.gpu_memory_gib * mig.memory_eighths / 8,
        gpu_instance_profile=profile,
    )


def unpartitioned(size: Size, *, terms: Terms) -> Misfit:
    """Return that the GPUs of a size cannot be partitioned as the class says."""
    why = f"cannot be partitioned by {terms.gpu_instance_profile}, which {terms.owner} asks for"
    return Misfit(Because.NODE_CLASS, f"{size.name} {why}.", subject="gpuInstanceProfile", has=why)


def misfit(size: Size, *, terms: Terms, os_disk_gib: int | None) -> Misfit | None:
    """Return why no VM of the size does, None where one may. `os_disk_gib` is what the OS disk is asked for with."""
    room, needed = size.ephemeral_os_disk_gib, os_disk_gib or DEFAULT_OS_DISK_GIB
    if not terms.needs_ephemeral_os_disk or room is None or needed <= room:
        return None
    has = f"room for {room} GiB" if room else "no room"
    why = f"has {has} on its host for an ephemeral OS disk of {needed} GiB, which {terms.owner} asks for"
    return Misfit(Because.NODE_CLASS, f"{size.name} {why}.", subject="osDiskType", has=why)


def price_misfit(size: Size, *, capacity_type: str, terms: Terms) -> Misfit | None:
    """Return why the size costs too much, None where it does not.

    A spot VM of unknown price does: Azure is given the cap, and never charges more.
    """
    is_spot = capacity_type == names.CAPACITY_TYPE_SPOT
    cap = _lower(terms.max_price, terms.max_spot_price) if is_spot else terms.max_price
    if cap is None or (is_spot and size.spot_price is None):
        return None
    costs = price(size, capacity_type=capacity_type)
    if costs is not None and costs <= cap:
        return None
    kind = " as spot" if is_spot else ""
    known = f"costs {costs:.3f} $/h{kind}" if costs is not None else "has no known price"
    why = f"{known}, and {terms.owner} allows {cap:f} $/h"
    return Misfit(Because.NODE_CLASS, f"{size.name} {why}.", subject=_PRICE, has=why)


def reserved_zones(
    size: Size, *, capacity_type: str, zones: tuple[Zone, ...], terms: Terms
) -> tuple[Zone, ...] | Misfit:
    """Return in which of the zones VMs of the size are reserved, none where a regional VM is meant; or why nowhere.

    AKS makes a pool that nothing is reserved for all the same, past the group
    (https://learn.microsoft.com/azure/aks/use-capacity-reservation-groups): that would be paid for twice.
    """
    if terms.reserved is None or capacity_type == names.CAPACITY_TYPE_SPOT:
        return zones
    places = {each.zone for each in terms.reserved if each.size == size.name.lower()}
    left = tuple(zone for zone in zones if zone.number in places)
    if left or (not zones and "" in places):
        return left
    what = "is not reserved"
    if places:
        there = enumerated([f"in zone {place}" if place else "without a zone" for place in sorted(places)])
        what = f"is reserved {there} alone"
    why = f"{what} in the capacity reservation group of {terms.owner}"
    return Misfit(Because.NODE_CLASS, f"{size.name} {why}.", subject="capacityReservationGroupID", has=why)


def _lower(one: Decimal | None, other: Decimal | None) -> Decimal | None:
    return min((cap for cap in (one, other) if cap is not None), default=None)
