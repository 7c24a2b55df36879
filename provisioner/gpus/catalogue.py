"""Every GPU size that Azure offers or has offered, and what no API of Azure tells about it.

Resource SKUs cannot stand in for this table: its `GPUs` capability is absent for GB200, GB300, V710, V620 and one
MI300X size, 1 for sizes with a fraction of a GPU, and not 0 for the FPGAs of the NP sizes; GPU model, GPU memory, MIG
and driver are not in it at all. Retired sizes stay in it and in price lists, so they are here with their date.

Sources: vCPUs, memory and family as Resource SKUs returns them; GPUs from
https://learn.microsoft.com/azure/virtual-machines/sizes/overview#gpu-accelerated; drivers and node images from
Azure/AgentBaker (`parts/common/components.json`, `GetGPUDriverType`) and Azure/karpenter-provider-azure
(`pkg/utils/supported-gpus.yaml`); MIG from https://learn.microsoft.com/azure/aks/gpu-multi-instance; retirement dates
from https://learn.microsoft.com/azure/virtual-machines/sizes/retirement/retired-sizes-list and the guides it names.
Prices are Linux pay-as-you-go of June to October 2026, in East US or else the first region that has the size.

What is less than sure:

* ND96is, isf, isrf, flex and noIB, ND96ams and ND128isrf have no page of their own: their vCPUs, memory and GPUs are
  those of the documented size that they are named after.
* NC8ads_A10_v4 has none either. It is taken for half a GPU, because vCPUs, memory and price are half of
  NC16ads_A10_v4's, and because that is the smaller promise.
* An empty family means that nobody was seen to name it: the quota is Azure's to judge until its list was read.
* ND96asr_A100_v4 is another name of ND96asr_v4, which AKS's own tables do not have.
* The RTX PRO 6000 sizes with 128, 256 and 320 vCPUs were a preview that stopped to deploy; their day is that of the
  page which says so. On all RTX PRO 6000 sizes Azure's host switches MIG on and its guest cannot change it, so AKS has
  no profiles to offer (`mig` is false), and a device plugin must follow the MIG strategy `single`.
"""

import functools
import json
from collections.abc import Mapping
from datetime import date
from decimal import Decimal
from enum import StrEnum
from fractions import Fraction
from importlib import resources
from typing import Annotated, Final, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from provisioner.gpus.models import GpuArchitecture, GpuModel, models

_MIB_IN_GIB: Final = 1024


class Driver(StrEnum):
    """Which driver AKS installs on Linux nodes of a size; NONE also for sizes that AKS makes no nodes of."""

    CUDA_LTS = "cuda-lts"
    GRID = "grid"
    GRID_V20 = "grid-v20"
    NONE = "none"


class AksSupport(StrEnum):
    """On which node images AKS has GPU nodes of a size; NONE is accepted by AKS without a driver only, if at all."""

    LINUX = "linux"
    UBUNTU = "ubuntu"
    NONE = "none"


class Interconnect(StrEnum):
    """How the GPUs of one VM reach each other: over PCIe (NONE), over NVLink from GPU to GPU, which need not be each to
    each, through NVLink switches, or over AMD's Infinity Fabric.
    """

    NONE = "none"
    NVLINK = "nvlink"
    NVSWITCH = "nvswitch"
    XGMI = "xgmi"


def _model(value: object) -> object:
    if not isinstance(value, str):
        return value
    if value not in models():
        raise ValueError(f"no GPU model is named {value!r}")
    return models()[value]


class GpuSize(BaseModel):
    """One VM size with GPUs. The name is spelled as Azure spells it, the family as its quota is named."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(pattern=r"^Standard_N[A-Za-z0-9_]+$")
    vcpus: int = Field(gt=0)
    memory_gib: float = Field(gt=0)
    # The data file names it.
    gpu_model: Annotated[GpuModel, BeforeValidator(_model)]
    # What a Kubernetes node offers as nvidia.com/gpu or amd.com/gpu: a fraction of a GPU is offered as one.
    gpu_count: int = Field(ge=1)
    # The part of a physical GPU that each of them is.
    gpu_fraction: Fraction = Field(default=Fraction(1), gt=0, le=1)
    # What the driver reports of each, where a whole GPU comes with another total than its model has.
    gpu_memory_mib: int | None = Field(default=None, gt=0)
    architecture: Literal["amd64", "arm64"] = "amd64"
    interconnect: Interconnect = Interconnect.NONE
    # Whether the VM has InfiniBand.
    rdma: bool = False
    # Empty where it is not known.
    family: str = Field(pattern=r"^([Ss]tandard.+Family)?$")
    driver: Driver
    # Whether AKS can partition the GPUs (gpuInstanceProfile).
    mig: bool = False
    aks: AksSupport
    # The day on which Azure takes the last VMs down.
    retired: date | None = None
    # US dollars; a stand-in where live prices are unknown. None means unknown, not free.
    price_per_hour: Decimal | None = Field(default=None, gt=0)

    @model_validator(mode="after")
    def _check_parts(self) -> "GpuSize":
        if self.gpu_fraction != 1 and (self.gpu_count != 1 or self.gpu_memory_mib is not None):
            raise ValueError("a part of a GPU comes alone, and its memory follows from the part")
        if self.interconnect is not Interconnect.NONE and self.gpu_count == 1:
            raise ValueError("one GPU has none to be connected with")
        return self

    @property
    def gpu(self) -> str:
        """Return the short name of the GPU, such as A100."""
        return self.gpu_model.gpu

    @property
    def vendor(self) -> Literal["nvidia", "amd"]:
        """Return who makes the GPU."""
        return self.gpu_model.vendor

    @property
    def gpu_architecture(self) -> GpuArchitecture:
        """Return the GPU's architecture."""
        return self.gpu_model.architecture

    @property
    def compute_capability(self) -> str | None:
        """Return CUDA's compute capability such as 8.0, None for AMD."""
        return self.gpu_model.compute_capability

    @property
    def gpu_memory_gib(self) -> float:
        """Return the memory of each GPU as its driver reports it.

        Parts of a GPU are vGPUs, and those report what their profile is named after: an A10-8Q has 8192 MiB.
        """
        if self.gpu_fraction != 1:
            return float(self.sold_gpu_memory_gb)
        return (self.gpu_memory_mib or self.gpu_model.memory_mib) / _MIB_IN_GIB

    # Cached: each list of sizes that is read compares all pairs of them by it.
    @functools.cached_property
    def sold_gpu_memory_gb(self) -> Fraction:
        """Return the memory of each GPU as Azure's tables have it: by this figure sizes are compared."""
        return self.gpu_model.memory_gb * self.gpu_fraction

    @functools.cached_property
    def total_sold_gpu_memory_gb(self) -> Fraction:
        """Return the GPU memory of the whole VM as Azure's tables have it."""
        return self.gpu_count * self.sold_gpu_memory_gb

    @property
    def total_gpu_memory_gib(self) -> float:
        """Return the GPU memory of the whole VM as its driver reports it."""
        return self.gpu_count * self.gpu_memory_gib

    def is_retired(self, *, on: date) -> bool:
        """Tell whether Azure has retired the size by that day."""
        return self.retired is not None and self.retired <= on


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
