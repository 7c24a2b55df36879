"""Every GPU size that Azure offers or has offered, and what no API of Azure tells about it.

Resource SKUs cannot stand in for this table: its `GPUs` capability is absent for GB200, GB300, V710, V620 and one
MI300X size, 1 for sizes with a fraction of a GPU, and not 0 for the FPGAs of the NP sizes; GPU model, GPU memory,
MIG and driver are not in it at all. Retired sizes stay in it and in price lists, so they are here with their date.

Sources: vCPUs, memory and family as Resource SKUs returns them; GPUs from
https://learn.microsoft.com/azure/virtual-machines/sizes/overview#gpu-accelerated; drivers from Azure/AgentBaker
(`parts/common/components.json`) and Azure/karpenter-provider-azure (`pkg/utils/supported-gpus.yaml`); retirement
dates from https://learn.microsoft.com/azure/virtual-machines/retirement-notices; prices are Linux pay-as-you-go in
June 2026, in East US or else the first region that has the size.
"""

import functools
import json
from collections.abc import Mapping
from datetime import date
from decimal import Decimal
from enum import StrEnum
from fractions import Fraction
from importlib import resources
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class Driver(StrEnum):
    """Which driver AKS installs on Linux nodes of a size; NONE also for sizes that AKS makes no nodes of."""

    CUDA = "cuda"
    CUDA_LTS = "cuda-lts"
    GRID = "grid"
    GRID_V20 = "grid-v20"
    NONE = "none"


class AksSupport(StrEnum):
    """On which node images AKS has GPU nodes of a size; NONE is accepted by AKS without a driver only, if at all."""

    LINUX = "linux"
    UBUNTU = "ubuntu"
    NONE = "none"


class GpuSize(BaseModel):
    """One VM size with GPUs. The name is spelled as Azure spells it, the family as its quota is named."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(pattern=r"^Standard_N[A-Za-z0-9_]+$")
    vcpus: int = Field(gt=0)
    memory_gib: float = Field(gt=0)
    gpu: str
    # What a Kubernetes node offers as nvidia.com/gpu or amd.com/gpu: a fraction of a GPU is offered as one.
    gpu_count: int = Field(ge=1)
    # The part of a physical GPU that each of them is.
    gpu_fraction: Fraction = Field(default=Fraction(1), gt=0, le=1)
    # Of each of them, so for a fraction that fraction's.
    gpu_memory_gib: float = Field(gt=0)
    vendor: Literal["nvidia", "amd"]
    architecture: Literal["amd64", "arm64"] = "amd64"
    family: str
    driver: Driver
    # Whether AKS can partition the GPUs (gpuInstanceProfile).
    mig: bool = False
    aks: AksSupport
    # The day on which Azure takes the last VMs down.
    retired: date | None = None
    # US dollars; a stand-in where live prices are unknown. None means unknown, not free.
    price_per_hour: Decimal | None = Field(default=None, gt=0)

    def is_retired(self, *, on: date) -> bool:
        """Tell whether Azure has retired the size by that day."""
        return self.retired is not None and self.retired <= on

    @property
    def total_gpu_memory_gib(self) -> float:
        """Return the GPU memory of the whole VM."""
        return self.gpu_count * self.gpu_memory_gib


def find(name: str) -> GpuSize | None:
    """Return the size of that name, in any case, or None where it has no GPU or is newer than the catalogue."""
    return _by_name().get(name.lower())


def sizes() -> tuple[GpuSize, ...]:
    """Return all sizes, retired ones included, in the order of the data file."""
    return tuple(_by_name().values())


@functools.cache
def _by_name() -> Mapping[str, GpuSize]:
    text = resources.files(__package__).joinpath("catalogue.json").read_text(encoding="utf-8")
    found = [GpuSize.model_validate(item) for item in json.loads(text)]
    return {size.name.lower(): size for size in found}
