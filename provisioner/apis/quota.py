"""vCPU quotas of a region: how much of each is used, and what is missing where one does not suffice."""

from dataclasses import dataclass
from enum import Enum
from typing import Final


class Scope(Enum):
    """Which vCPU quota is used up."""

    FAMILY = "family"
    REGIONAL = "regional"
    SPOT = "spot"
    UNKNOWN = "unknown"


# Names of the rows in Compute's usages that are of no VM family; spot VMs count against the second one alone, and all
# against the first.
REGIONAL_USAGE: Final = "cores"
SPOT_USAGE: Final = "lowPriorityCores"

_PAGES: Final = {
    Scope.FAMILY: "https://learn.microsoft.com/azure/quotas/per-vm-quota-requests",
    Scope.UNKNOWN: "https://learn.microsoft.com/azure/quotas/per-vm-quota-requests",
    Scope.REGIONAL: "https://learn.microsoft.com/azure/quotas/regional-quota-requests",
    Scope.SPOT: "https://learn.microsoft.com/azure/quotas/spot-quota",
}
_NAMES: Final = {Scope.REGIONAL: "Total regional vCPU quota", Scope.SPOT: "Spot vCPU quota"}
_FREED_BY: Final = {
    Scope.REGIONAL: "delete VMs in this region",
    Scope.SPOT: "delete spot nodes in this region, or use on-demand",
}


@dataclass(frozen=True, kw_only=True)
class Usage:
    """One row of Compute's usages, in vCPUs. `name` is spelled as Azure spells it; compare it without case."""

    name: str
    limit: int
    used: int
    localized: str = ""


@dataclass(frozen=True, kw_only=True)
class Shortage:
    """A vCPU quota that does not suffice: vCPUs needed, left and granted at all (`limit`), where that is known.

    `family` is the quota's name as Azure writes it, empty unless the scope is FAMILY. `held` is how many of those that
    are not left are held by pools which are being created.
    """

    scope: Scope
    region: str = ""
    family: str = ""
    needed: int | None = None
    left: int | None = None
    limit: int | None = None
    held: int = 0

    @property
    def usage(self) -> str:
        """Return the lower-case name of the usage that is short, empty where that is not known."""
        if self.scope is Scope.FAMILY:
            return self.family.lower()
        return {Scope.REGIONAL: REGIONAL_USAGE, Scope.SPOT: SPOT_USAGE.lower()}.get(self.scope, "")

    @property
    def message(self) -> str:
        """Return what a person needs to know and can do, the numbers first."""
        freed_by = _FREED_BY.get(self.scope, "delete nodes of this family")
        return f"{self._name}{self._numbers}. Ask for more: {_PAGES[self.scope]}, or {freed_by}."

    @property
    def _name(self) -> str:
        name = _NAMES.get(self.scope) or f"{self.family} vCPU quota".strip()
        return f"{name} in {self.region}" if self.region else name

    @property
    def _numbers(self) -> str:
        parts = []
        if self.needed is not None:
            parts.append(f"{self.needed} needed")
        if self.left is not None:
            parts.append(f"{self.left} left")
        numbers = ", ".join(parts)
        details = []
        if self.limit is not None:
            details.append(f"limit {self.limit}")
        if self.held:
            details.append(f"{self.held} held by pools being created")
        if numbers and details:
            return f": {numbers} ({', '.join(details)})"
        return f": {numbers or ', '.join(details)}" if numbers or details else " exceeded"
