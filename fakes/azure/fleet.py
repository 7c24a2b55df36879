"""The VMs of all agent pools: which exist, where they are, and whether the region has more of them to give."""

import ipaddress
from collections.abc import Callable, Iterable, Mapping
from typing import Final

from fakes.azure.capacity import Place, has_room, moved
from fakes.azure.pools import Instance, Pool
from fakes.azure.quotas import Quota, demand, used_by
from fakes.azure.settings import Settings
from fakes.azure.shortages import (
    ShortageError,
    allocation_failed,
    overconstrained,
    sku_not_available,
    zonal_allocation_failed,
)

_NETWORK: Final = ipaddress.IPv4Network("10.224.0.0/16")
# What makes a regional pool so choosy that Compute blames the constraints and not the region.
_PLACEMENT: Final = ("proximityPlacementGroupID", "hostGroupID", "capacityReservationGroupID", "enableUltraSSD")


class Fleet:
    """Gives VMs to pools and takes them back; `pools` is the cluster's own mapping."""

    def __init__(self, pools: Mapping[str, Pool], *, settings: Settings, region: str, now: Callable[[], float]) -> None:
        self.quota = Quota(settings=settings, region=region, now=now)
        self._pools = pools
        self._settings = settings
        self._region = region
        self._now = now
        self._addresses = 3

    def preflight(self, pool: Pool, *, count: int) -> None:
        """Raise 400 where AKS sees at once that the quotas do not allow a pool to have so many VMs.

        Surge nodes are the matter of upgrades, not of a PUT.
        """
        missing = count - len(pool.instances)
        if missing <= 0 or not self._settings.quota_preflight:
            return
        counted = [demand(other, vms=len(other.instances)) for other in self._pools.values()]
        if self._settings.quota_preflight_counts_pending:
            counted += [demand(other, vms=other.vms_to_come) for other in self._pools.values() if other is not pool]
        self.quota.preflight(demand(pool, vms=missing), used=used_by(counted))

    def grow(self, pool: Pool) -> None:
        """Give a pool the VMs that it lacks, all or none. Raises ShortageError."""
        missing = pool.count - len(pool.instances)
        if missing <= 0:
            return
        counted = [demand(other, vms=len(other.instances)) for other in self._pools.values()]
        self.quota.enforce(demand(pool, vms=missing), used=used_by(counted))
        zones = self._find_zones(pool, vms=missing)
        self._place(pool, zones)
        self._move(pool, zones, vms=1)

    def found(self, pool: Pool) -> None:
        """Give a pool its VMs, whatever there is: they were there before anybody looked."""
        zones = pool.zones
        self._place(pool, [zones[index % len(zones)] for index in range(pool.count)])

    def shrink(self, pool: Pool, doomed: Iterable[Instance], *, returned: bool = True) -> None:
        """Take VMs from a pool; what is `returned` can be had again."""
        gone = set(pool.instances) & set(doomed)
        pool.instances = [instance for instance in pool.instances if instance not in gone]
        self._observe()
        if returned:
            self._move(pool, [instance.zone for instance in gone], vms=-1)

    def _find_zones(self, pool: Pool, *, vms: int) -> list[str | None]:
        """Return a zone for each new VM: in turn, leaving out those that have no more."""
        left: Mapping[str, int] = self._settings.capacity
        zones, chosen = pool.zones, list[str | None]()
        for index in range(pool.next_index, pool.next_index + vms):
            turn = index % len(zones)
            for zone in zones[turn:] + zones[:turn]:
                place = Place(size=pool.sku.name, zone=zone, spot=pool.spot)
                if has_room(left, place):
                    left = moved(left, place, vms=1)
                    chosen.append(zone)
                    break
            else:
                raise self._shortage(pool)
        return chosen

    def _place(self, pool: Pool, zones: Iterable[str | None]) -> None:
        for zone in zones:
            self._addresses = (self._addresses + 1) % _NETWORK.num_addresses
            pool.instances.append(
                Instance(
                    index=pool.next_index,
                    zone=zone,
                    address=str(_NETWORK[self._addresses]),
                    created_at=self._now(),
                )
            )
            pool.next_index += 1
        self._observe()

    def _observe(self) -> None:
        self.quota.observe(used_by(demand(pool, vms=len(pool.instances)) for pool in self._pools.values()))

    def _move(self, pool: Pool, zones: Iterable[str | None], *, vms: int) -> None:
        before = after = self._settings.capacity
        for zone in zones:
            after = moved(after, Place(size=pool.sku.name, zone=zone, spot=pool.spot), vms=vms)
        if after != before:
            # Last of all: whoever listens to settings may look at the cluster.
            self._settings.capacity = after

    def _shortage(self, pool: Pool) -> ShortageError:
        zones = [zone for zone in pool.zones if zone is not None]
        match self._settings.allocation_error or self._fitting_error(pool, zones):
            case "SkuNotAvailable":
                return sku_not_available(pool.sku.name, self._region)
            case "ZonalAllocationFailed":
                return zonal_allocation_failed(pool.sku.name, zones[0] if zones else "1")
            case "OverconstrainedAllocationRequest":
                return overconstrained(_constraints(pool), zonal=False)
            case "OverconstrainedZonalAllocationRequest":
                return overconstrained(["Availability Zone", *_constraints(pool)], zonal=True)
            case _:
                return allocation_failed()

    @staticmethod
    def _fitting_error(pool: Pool, zones: list[str]) -> str:
        if pool.spot:
            return "SkuNotAvailable"
        if len(zones) == 1:
            return "ZonalAllocationFailed"
        if zones:
            return "OverconstrainedZonalAllocationRequest"
        chosen = any(pool.properties.get(name) for name in _PLACEMENT)
        return "OverconstrainedAllocationRequest" if chosen else "AllocationFailed"


def _constraints(pool: Pool) -> list[str]:
    """Return the constraints that Compute lists, in its order, beside the zone."""
    ephemeral = pool.properties["osDiskType"] == "Ephemeral"
    return [
        *(["Differencing (Ephemeral) Disks"] if ephemeral else ()),
        *(["Low Priority VMs"] if pool.spot else ()),
        "Networking Constraints (such as Accelerated Networking or IPv6)",
        *(["Preemptible VMs (VM might be preempted by another VM with a higher priority)"] if pool.spot else ()),
        "VM Size",
    ]
