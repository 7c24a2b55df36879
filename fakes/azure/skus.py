"""The VM sizes of the region: what Compute's ResourceSkus says of them, and what only the hardware knows.

Names, families, vCPUs, memory and `GPUs` are as the real API returned them in 2026: the capability is absent for some
GPU sizes, 1 for sizes with a fraction of a GPU, and non-zero for the FPGAs of the NP sizes. Retired sizes are listed
like any other, although nobody gets them. Zones and disk caches differ from region to region; those of the data file
are of none in particular.
"""

import functools
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from importlib import resources
from typing import Any, Final

from pydantic import BaseModel, ConfigDict

# What else ResourceSkus returns beside virtual machines: readers have to look at `resourceType`.
_OTHER_TYPES: Final = (
    ("disks", "Premium_LRS", "Premium", "P10"),
    ("snapshots", "Standard_LRS", "Standard", ""),
    ("availabilitySets", "Aligned", "", ""),
)


class Hardware(BaseModel):
    """What no API of Azure tells: the GPUs a device plugin would find, and what AKS does about them.

    `aks` is False for sizes that AKS takes for no pool, too small or too old:
    https://learn.microsoft.com/azure/aks/quotas-skus-regions#restricted-vm-sizes.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    gpu_count: int
    gpu_vendor: str | None
    mig: bool
    aks_driver: bool
    aks: bool = True


class Sku(BaseModel):
    """A VM size of the region."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    family: str
    vcpus: int
    memory_gb: float
    gpus: int | None = None
    zones: tuple[str, ...]
    arch: str = "x64"
    hyperv: str
    rdma: bool = False
    ephemeral_os_disk: bool
    cached_gib: int
    nvme_mib: int = 0
    spot: bool = True
    retired: bool = False
    private: Hardware

    def resource(self, *, location: str, closed: Sequence[str] | None = None) -> dict[str, Any]:
        """Return the size as ResourceSkus lists it; all values of capabilities are strings there.

        `closed` are the zones that the subscription may not use, empty for the whole location, None for no restriction.
        """
        return {
            "resourceType": "virtualMachines",
            "name": self.name,
            "tier": "Standard",
            "size": self.name.removeprefix("Standard_"),
            "family": self.family,
            "locations": [location],
            "locationInfo": [{"location": location, "zones": list(self.zones), "zoneDetails": []}],
            "capabilities": [{"name": name, "value": value} for name, value in self._capabilities()],
            "restrictions": [] if closed is None else list(self._restrictions(location, closed)),
        }

    def _restrictions(self, location: str, closed: Sequence[str]) -> Iterator[dict[str, Any]]:
        # A size that is closed everywhere is closed in each of its zones too, and Compute says both.
        zones = [zone for zone in self.zones if not closed or zone in closed]
        places: list[tuple[str, dict[str, list[str]]]] = []
        if not closed:
            places.append(("Location", {"locations": [location]}))
        if zones:
            places.append(("Zone", {"locations": [location], "zones": zones}))
        for kind, info in places:
            yield {
                "type": kind,
                "values": [location],
                "restrictionInfo": info,
                "reasonCode": "NotAvailableForSubscription",
            }

    def _capabilities(self) -> Iterator[tuple[str, str]]:
        yield "vCPUs", str(self.vcpus)
        yield "HyperVGenerations", self.hyperv
        yield "MemoryGB", f"{self.memory_gb:g}"
        yield "CpuArchitectureType", self.arch
        yield "LowPriorityCapable", str(self.spot)
        yield "PremiumIO", "True"
        yield "VMDeploymentTypes", "IaaS"
        yield "vCPUsAvailable", str(self.vcpus)
        if self.gpus is not None:
            yield "GPUs", str(self.gpus)
        if self.cached_gib:
            yield "CachedDiskBytes", str(self.cached_gib << 30)
        if self.nvme_mib:
            yield "NvmeDiskSizeInMiB", str(self.nvme_mib)
        yield "EphemeralOSDiskSupported", str(self.ephemeral_os_disk)
        yield "EncryptionAtHostSupported", "True"
        yield "CapacityReservationSupported", "False"
        yield "AcceleratedNetworkingEnabled", "True"
        yield "RdmaEnabled", str(self.rdma)


@functools.cache
def catalogue() -> Mapping[str, Sku]:
    """Return the sizes that Compute knows, by lower-cased name."""
    rows = json.loads(resources.files(__package__).joinpath("skus.json").read_text(encoding="utf-8"))
    return {sku.name.lower(): sku for sku in map(Sku.model_validate, rows)}


def find(name: str, *, retired: bool = False) -> Sku | None:
    """Return the size of that name, in any case of letters, if AKS makes pools of it; of `retired` ones if asked."""
    sku = catalogue().get(name.lower())
    return None if sku is None or (sku.retired and not retired) or not sku.private.aks else sku


_FILTER: Final = re.compile(r"\s*location\s+eq\s+'([^']*)'\s*", re.IGNORECASE)


def listing(
    *, location: str, odata_filter: str | None, restricted: Mapping[str, Sequence[str]], retired: bool
) -> list[dict[str, Any]]:
    """Return the rows of ResourceSkus; only the cluster's region has any.

    `restricted` are the zones closed to the subscription by size, as in `Sku.resource`; `retired` sizes may be left
    out. Compute filters by `location eq '...'` and nothing else. Raises ValueError for any other filter.
    """
    if odata_filter:
        match = _FILTER.fullmatch(odata_filter)
        if match is None:
            raise ValueError(odata_filter)
        if match[1].lower() != location.lower():
            return []
    others = [
        {
            "resourceType": kind,
            "name": name,
            "tier": tier,
            "size": size,
            "locations": [location],
            "locationInfo": [{"location": location, "zones": [], "zoneDetails": []}],
            "capabilities": [],
            "restrictions": [],
        }
        for kind, name, tier, size in _OTHER_TYPES
    ]
    return others + [
        sku.resource(location=location, closed=restricted.get(sku.name))
        for sku in catalogue().values()
        if retired or not sku.retired
    ]
