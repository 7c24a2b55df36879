"""The VM sizes of one region, as Compute's Resource SKUs lists them for this subscription.

https://learn.microsoft.com/rest/api/compute/resource-skus/list. Read as plain JSON: a region has about 1,500 entries in
5 MB, and building the SDK's models of them holds the event loop for a second.
"""

import asyncio
import re
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from provisioner.azure.caller import Caller

# The newest that there is of this API.
API_VERSION: Final = "2021-07-01"
# Seconds for all pages.
TIMEOUT: Final = 60.0

_LOCATION: Final = re.compile(r"[a-z0-9]{2,60}", re.ASCII)

# Where a host may have an OS disk: its cache, the temporary disk or NVMe, and the unit of each in bytes. The last only
# where Azure says so (https://learn.microsoft.com/azure/virtual-machines/ephemeral-os-disks).
_ROOMS: Final = {"CachedDiskBytes": 1, "MaxResourceVolumeMB": 1 << 20}
_PLACEMENTS: Final = "SupportedEphemeralOSDiskPlacements"
_NVME: Final = "NvmeDisk"
_NVME_ROOM: Final = {"NvmeDiskSizeInMiB": 1 << 20}

_REASON: Final = re.compile(r"[A-Za-z]{2,60}", re.ASCII)
_ACCESS_PAGE: Final = "https://learn.microsoft.com/troubleshoot/azure/general/region-access-request-process"
# https://learn.microsoft.com/rest/api/compute/resource-skus/list#resourceskurestrictionsreasoncode: the first is about
# the capacity of the region's data centres, the second about what kind of subscription it is.
_BECAUSE: Final[Mapping[str, str]] = {
    "notavailableforsubscription": (
        f"is closed to this subscription in {{location}} ({{reason}}): ask Azure for access, {_ACCESS_PAGE}, or use "
        "another size or region."
    ),
    "quotaid": (
        "is not part of what this kind of subscription may buy in {location} ({reason}): use another size, or a "
        "subscription of another offer such as pay-as-you-go."
    ),
}
_BECAUSE_ANY: Final = (
    f"is restricted for this subscription in {{location}} ({{reason}}): ask Azure for access, {_ACCESS_PAGE}, or use "
    "another size or region."
)


@dataclass(frozen=True, kw_only=True)
class Sku:
    """One VM size, spelled as Azure spells it.

    `gpus` is the capability as listed, which is absent for some GPU sizes and set for some FPGAs. `restriction` is a
    sentence on why this subscription may not use the size in the region at all, and what to do about it, empty where it
    may. `zones` are those that it may use, `closed_zones` those that have the size and are closed to it.
    `ephemeral_os_disk_gib` is the largest OS disk that its host has room for, in the cache, on the temporary disk or on
    NVMe, 0 where it takes none and None where Azure does not say.
    """

    name: str
    family: str
    vcpus: int
    memory_gib: float
    gpus: int | None
    architecture: Literal["amd64", "arm64"]
    zones: tuple[str, ...]
    closed_zones: tuple[str, ...] = ()
    restriction: str = ""
    low_priority_capable: bool = True
    ephemeral_os_disk_gib: int | None = None

    @property
    def restricted(self) -> bool:
        """Tell whether this subscription may not use the size in the region at all."""
        return bool(self.restriction)


class SkuCatalogue:
    """What was last listed. Empty until the first refresh: which sizes there are is then Azure's to judge."""

    def __init__(self, session: Caller, *, location: str, clock: Callable[[], float]) -> None:
        """Take the region in either form, `eastus` or `East US`, and a clock in monotonic seconds.

        Raises ValueError for what is no region.
        """
        self._session = session
        self._location = region_name(location)
        self._clock = clock
        self._skus: Mapping[str, Sku] = {}
        self._fetched_at: float | None = None
        self._epoch = 0

    @property
    def location(self) -> str:
        """Return the region in Azure's short form."""
        return self._location

    @property
    def age(self) -> float | None:
        """Return the seconds since the list was fetched, None where it never was."""
        return None if self._fetched_at is None else self._clock() - self._fetched_at

    def get(self, name: str) -> Sku | None:
        """Return the size of that name, in any case. None says nothing as long as `age` is None."""
        return self._skus.get(name.lower())

    @property
    def epoch(self) -> int:
        """Return a number that changes whenever another list was read, for what is derived from it."""
        return self._epoch

    def names(self) -> tuple[str, ...]:
        """Return the names of all sizes."""
        return tuple(sku.name for sku in self._skus.values())

    def all(self) -> Collection[Sku]:
        """Return all sizes."""
        return self._skus.values()

    async def refresh(self) -> None:
        """Fetch the list. Raises ArmFailure and then keeps what it had."""
        started = self._clock()
        items = await self._session.list(
            f"{self._session.target.subscription_path}/providers/Microsoft.Compute/skus",
            operation="skus.list",
            timeout=TIMEOUT,
            query={"api-version": API_VERSION, "$filter": f"location eq '{self._location}'"},
        )
        self._skus = await asyncio.to_thread(_parse_all, items, self._location)
        self._fetched_at = started
        self._epoch += 1


def region_name(location: str) -> str:
    """Return a region in Azure's short form, `eastus` for `East US`. Raises ValueError for what is none."""
    name = location.replace(" ", "").lower()
    if not _LOCATION.fullmatch(name):
        raise ValueError(f"{location[:80]!r} is no Azure region such as eastus")
    return name


def _parse_all(items: Iterable[Mapping[str, Any]], location: str) -> Mapping[str, Sku]:
    found = {}
    for item in items:
        # The list holds disks and host groups too.
        if item.get("resourceType") == "virtualMachines" and (sku := _parse(item, location)) is not None:
            found[sku.name.lower()] = sku
    return found


def _parse(item: Mapping[str, Any], location: str) -> Sku | None:
    """Return the size, None where an entry lacks what makes it one: the others are worth having all the same."""
    try:
        capabilities = {entry["name"]: entry["value"] for entry in item.get("capabilities") or ()}
        gpus = capabilities.get("GPUs")
        reason, closed = _restrictions(item, location)
        zones = {zone for info in item.get("locationInfo") or () for zone in info.get("zones") or ()}
        return Sku(
            name=item["name"],
            family=item.get("family") or "",
            vcpus=int(capabilities["vCPUs"]),
            memory_gib=float(capabilities["MemoryGB"]),
            gpus=int(gpus) if gpus is not None else None,
            architecture="arm64" if str(capabilities.get("CpuArchitectureType")).lower() == "arm64" else "amd64",
            zones=tuple(sorted(zones - closed)),
            closed_zones=tuple(sorted(zones & closed)),
            restriction=_sentence(item["name"], reason, location) if reason else "",
            # Only where Azure says so: it is Azure that refuses, and quota for spot VMs is often none at all.
            low_priority_capable=str(capabilities.get("LowPriorityCapable")).lower() != "false",
            ephemeral_os_disk_gib=_ephemeral_os_disk(capabilities),
        )
    except (KeyError, TypeError, ValueError, AttributeError):
        return None


def _ephemeral_os_disk(capabilities: Mapping[str, Any]) -> int | None:
    match str(capabilities.get("EphemeralOSDiskSupported")).lower():
        case "false":
            return 0
        case "true":
            units = _ROOMS | (_NVME_ROOM if _NVME in str(capabilities.get(_PLACEMENTS)) else {})
            rooms = [int(capabilities[name]) * unit >> 30 for name, unit in units.items() if name in capabilities]
            # What is supported has room somewhere, and where Azure does not say how much, it is Azure that knows.
            return max(rooms, default=0) or None
        case _:
            return None


def _restrictions(item: Mapping[str, Any], location: str) -> tuple[str, set[str]]:
    """Return why the whole region is closed to us, empty where it is not, and the zones that are."""
    reason, closed = "", set[str]()
    for restriction in item.get("restrictions") or ():
        info = restriction.get("restrictionInfo") or {}
        kind = str(restriction.get("type")).lower()
        where = [str(name).lower() for name in info.get("locations") or restriction.get("values") or (location,)]
        if location not in where:
            continue
        if kind == "location":
            code = restriction.get("reasonCode") or ""
            # A code and nothing else: it goes into conditions and events.
            reason = code if _REASON.fullmatch(code) else "Unexplained"
        elif kind == "zone":
            closed.update(info.get("zones") or ())
    return reason, closed


def _sentence(name: str, reason: str, location: str) -> str:
    return f"{name} {_BECAUSE.get(reason.lower(), _BECAUSE_ANY).format(location=location, reason=reason)}"
