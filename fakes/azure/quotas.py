"""vCPU quotas: what is used of them, what AKS checks before it begins, and what Compute enforces."""

from collections import Counter, deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final

from fakes.azure import shortages
from fakes.azure.pools import Pool
from fakes.azure.settings import Settings
from fakes.azure.skus import Sku
from fakes.azure.usages import CORES, SPOT_CORES, canonical, table

# Used quota by the row's name, as Compute spells it.
Used = Counter[str]

# More than any lag is worth remembering.
_HISTORY: Final = 10_000


@dataclass(frozen=True, kw_only=True)
class Demand:
    """VMs of one size; spot VMs count against a quota of their own instead of their family's."""

    sku: Sku
    spot: bool
    vms: int

    @property
    def vcpus(self) -> int:
        """The vCPUs of all VMs together."""
        return self.vms * self.sku.vcpus

    @property
    def row(self) -> str:
        """The row that the VMs count against, beside the region's."""
        return SPOT_CORES if self.spot else canonical(self.sku.family)


def demand(pool: Pool, *, vms: int) -> Demand:
    """Return what so many VMs of a pool take."""
    return Demand(sku=pool.sku, spot=pool.spot, vms=vms)


def used_by(demands: Iterable[Demand]) -> Used:
    """Return what all the VMs take together."""
    used: Used = Counter()
    for each in demands:
        used[each.row] += each.vcpus
        used[CORES] += each.vcpus
        used["virtualMachines"] += each.vms
        used["virtualMachineScaleSets"] += each.vms > 0
    return used


class Quota:
    """The quotas of one subscription in the cluster's region; limits and the usage of others are settings."""

    def __init__(self, *, settings: Settings, region: str, now: Callable[[], float]) -> None:
        self._settings = settings
        self._region = region
        self._now = now
        # When the VMs became how many, for a list that lags behind.
        self._history: deque[tuple[float, Used]] = deque(maxlen=_HISTORY)

    def observe(self, used: Used) -> None:
        """Take note of what the VMs take from now on."""
        self._history.append((self._now(), used))

    def preflight(self, wanted: Demand, *, used: Used) -> None:
        """Raise 400, flat, unless there is enough left beside what is used."""
        for row in (wanted.row, CORES):
            remaining = self._limit(row) - self._foreign(row) - used[row]
            if wanted.vcpus <= remaining:
                continue
            match row:
                case "lowPriorityCores":
                    raise shortages.spot_preflight(self._region, requested=wanted.vcpus, remaining=remaining)
                case "cores":
                    raise shortages.regional_preflight(self._region, requested=wanted.vcpus, remaining=remaining)
                case family:
                    raise shortages.family_preflight(family, self._region, requested=wanted.vcpus, remaining=remaining)

    def enforce(self, wanted: Demand, *, used: Used) -> None:
        """Raise ShortageError, as Compute does, unless there is enough left beside what is used."""
        for row, name in ((wanted.row, self._compute_name(wanted)), (CORES, "Total Regional Cores")):
            limit, usage = self._limit(row), self._foreign(row) + used[row]
            if usage + wanted.vcpus > limit:
                raise shortages.quota_exceeded(name, self._region, limit=limit, usage=usage, required=wanted.vcpus)

    def rows(self, region: str) -> list[dict[str, Any]]:
        """Return the usages of a region as Compute lists them: late by the lag, and without VMs in other regions."""
        ours = region == self._region
        used = self._used_before(self._now() - self._settings.usage_lag_seconds) if ours else Counter()
        return [
            row.resource(limit=self._limit(row.name), current=self._foreign(row.name) + used[row.name])
            if ours
            else row.resource(limit=row.limit, current=0)
            for row in table().values()
        ]

    @staticmethod
    def _compute_name(wanted: Demand) -> str:
        return "LowPriorityCores" if wanted.spot else f"{wanted.row} Cores"

    def _limit(self, row: str) -> int:
        return self._settings.quota.get(row, table()[row.lower()].limit)

    def _foreign(self, row: str) -> int:
        return self._settings.usage.get(row, 0)

    def _used_before(self, moment: float) -> Used:
        for when, used in reversed(self._history):
            if when <= moment:
                return used
        # Nothing is as old as that: what was there first has been there all along.
        return self._history[0][1] if self._history else Counter()
