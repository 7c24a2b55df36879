"""The vCPU quotas of a region, with what pools that are being created will take of them."""

import functools
from collections.abc import Mapping
from dataclasses import dataclass, field

from provisioner.apis import names
from provisioner.apis.quota import REGIONAL_USAGE, SPOT_USAGE, Scope, Shortage, Usage
from provisioner.placement.size import Size


@dataclass(frozen=True, kw_only=True)
class RegionQuota:
    """Compute's usages of a region: rows by lower-case name.

    `holds` are the vCPUs of pools that are being created and that the rows do not count yet, by lower-case family and
    capacity type. A quota without a row is not judged.
    """

    usages: Mapping[str, Usage]
    region: str = ""
    holds: Mapping[tuple[str, str], int] = field(default_factory=dict)

    def shortage(self, size: Size, *, capacity_type: str) -> Shortage | None:
        """Return what one more VM lacks; None where it fits, or where the quota is not known and Azure will judge.

        On-demand VMs count against their family and the region's total, spot VMs against the quota of all spot VMs and
        that total (https://learn.microsoft.com/azure/quotas/spot-quota).
        """
        if not size.vcpus:
            return None
        if capacity_type == names.CAPACITY_TYPE_SPOT:
            own = self._lacking(Scope.SPOT, name=SPOT_USAGE, needed=size.vcpus, held=self._held_spot)
        else:
            family = size.family.lower()
            held = self.holds.get((family, capacity_type), 0)
            own = self._lacking(Scope.FAMILY, name=family, needed=size.vcpus, held=held)
        return own or self._lacking(Scope.REGIONAL, name=REGIONAL_USAGE, needed=size.vcpus, held=self._held)

    def has_room(self, shortage: Shortage) -> bool:
        """Tell whether the quota that was short has room now for what was needed, for one vCPU where that is unknown.

        False where there is no row to tell by.
        """
        needed = shortage.needed or 1
        match shortage.scope:
            case Scope.FAMILY:
                name = shortage.family.lower()
                held = self.holds.get((name, names.CAPACITY_TYPE_ON_DEMAND), 0)
            case Scope.SPOT:
                name, held = SPOT_USAGE, self._held_spot
            case Scope.REGIONAL:
                name, held = REGIONAL_USAGE, self._held
            case Scope.UNKNOWN:
                return False
        is_known = name.lower() in self.usages
        return is_known and self._lacking(shortage.scope, name=name, needed=needed, held=held) is None

    @functools.cached_property
    def _held(self) -> int:
        return sum(self.holds.values())

    @functools.cached_property
    def _held_spot(self) -> int:
        return sum(vcpus for (_, kind), vcpus in self.holds.items() if kind == names.CAPACITY_TYPE_SPOT)

    def _lacking(self, scope: Scope, *, name: str, needed: int, held: int) -> Shortage | None:
        usage = self.usages.get(name.lower())
        if usage is None:
            return None
        left = usage.limit - usage.used - held
        if needed <= left:
            return None
        return Shortage(
            scope=scope,
            region=self.region,
            family=usage.name if scope is Scope.FAMILY else "",
            needed=needed,
            left=max(left, 0),
            limit=usage.limit,
            held=held,
        )
