"""The VM sizes of the region: what Compute's ResourceSkus says of them, and what only the hardware knows.

Names, families, vCPUs, memory and `GPUs` are as the real API returned them in 2026: the capability is absent for some
GPU sizes, 1 for sizes with a fraction of a GPU, and non-zero for the FPGAs of the NP sizes. Retired sizes are absent.
Zones and disk caches differ from region to region; those of the data file are of none in particular.
"""

import functools
import json
import re
from collections.abc import Iterator, Mapping
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
    """What no API of Azure tells: the GPUs a device plugin would find, and what AKS does about them."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    gpu_count: int
    gpu_vendor: str | None
    mig: bool
    aks_driver: bool


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
    private: Hardware

    def resource(self, *, location: str) -> dict[str, Any]:
        """Return the size as ResourceSkus lists it; all values of capabilities are strings there."""
        return {
            "resourceType": "virtualMachines",
            "name": self.name,
            "tier": "Standard",
            "size": self.name.removeprefix("Standard_"),
            "family": self.family,
            "locations": [location],
            "locationInfo": [{"location": location, "zones": list(self.zones), "zoneDetails": []}],
            "capabilities": [{"name": name, "value": value} for name, value in self._capabilities()],
            "restrictions": [],
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
    """Return the sizes by lower-cased name."""
    rows = json.loads(resources.files(__package__).joinpath("skus.json").read_text(encoding="utf-8"))
    return {sku.name.lower(): sku for sku in map(Sku.model_validate, rows)}


def find(name: str) -> Sku | None:
    """Return the size of that name, in any case of letters."""
    return catalogue().get(name.lower())


_FILTER: Final = re.compile(r"\s*location\s+eq\s+'([^']*)'\s*", re.IGNORECASE)


def listing(*, location: str, odata_filter: str | None) -> list[dict[str, Any]]:
    """Return the rows of ResourceSkus; only the cluster's region has any.

    Compute filters by `location eq '...'` and nothing else. Raises ValueError for any other filter.
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
    return others + [sku.resource(location=location) for sku in catalogue().values()]
