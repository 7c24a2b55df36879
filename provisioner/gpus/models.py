"""What all VM sizes with one model of GPU share: architecture, compute capability and memory. Pure.

`memory_gb` is what the GPU is sold with and what Azure's tables of sizes say. `memory_mib` is the total that its driver
reports (nvidia-smi, rocm-smi) and thereby all that an application can ever get. Reports differ by driver branch, ECC
and virtualisation; of those that fit what AKS installs, the lowest is here, for what is promised must be there.

How sure the reported totals are:

* A100 PCIe, H100 NVL, V100 and RTX PRO 6000 were reported by Azure VMs. Azure passes the last one on as the vGPU
  profile DC-4-96Q with 98304 MiB; the bare card has 97887.
* T4: Azure hands them out with ECC off (16384 MiB, more often) and on (15360 MiB), and no API tells which.
* A100 SXM, H100 SXM, H200, GB200 and GB300: the same from everybody who reports them, seen from other clouds only.
* A10: 23028 MiB is the bare card's. What NCads A10 v4 passes on is not documented anywhere. NVads A10 v5 passes on
  vGPUs, which have their own figures in the catalogue; Azure VMs reported A10-8Q, A10-12Q and A10-24Q.
* MI300X: 205822885888 bytes, as its virtual functions report it; a bare one has a little more.
* V620, V710 and MI25: what Azure's tables of sizes say; no report was found.
* All of these are retired: K80 and M60 were reported by Azure VMs, P40 and P100 are the lowest that current and older
  drivers report with ECC on.

Compute capability: https://developer.nvidia.com/cuda-gpus.
"""

import functools
import json
from collections.abc import Mapping
from enum import StrEnum
from importlib import resources
from typing import Final, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator


class GpuArchitecture(StrEnum):
    """The vendor's name for a generation of its GPUs."""

    KEPLER = "Kepler"
    MAXWELL = "Maxwell"
    PASCAL = "Pascal"
    VOLTA = "Volta"
    TURING = "Turing"
    AMPERE = "Ampere"
    HOPPER = "Hopper"
    BLACKWELL = "Blackwell"
    VEGA = "Vega"
    RDNA2 = "RDNA2"
    RDNA3 = "RDNA3"
    CDNA3 = "CDNA3"

    @property
    def year(self) -> int:
        """Return the year in which its first GPU came out, by which architectures of one vendor are newer or older."""
        return _YEARS[self]


_YEARS: Final[Mapping[GpuArchitecture, int]] = {
    GpuArchitecture.KEPLER: 2012,
    GpuArchitecture.MAXWELL: 2014,
    GpuArchitecture.PASCAL: 2016,
    GpuArchitecture.VOLTA: 2017,
    GpuArchitecture.TURING: 2018,
    GpuArchitecture.AMPERE: 2020,
    GpuArchitecture.HOPPER: 2022,
    GpuArchitecture.BLACKWELL: 2024,
    GpuArchitecture.VEGA: 2017,
    GpuArchitecture.RDNA2: 2020,
    GpuArchitecture.RDNA3: 2022,
    GpuArchitecture.CDNA3: 2023,
}


class GpuModel(BaseModel):
    """One model of GPU. `gpu` is what people call it; models that are called alike differ in `name`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(min_length=1)
    gpu: str = Field(pattern=r"^[A-Z0-9 ]+$")
    vendor: Literal["nvidia", "amd"]
    architecture: GpuArchitecture
    # CUDA's, None for AMD. A string: 10.0 is not 10.
    compute_capability: str | None = Field(default=None, pattern=r"^\d+\.\d$")
    # Of a whole one: as sold, and as its driver reports it.
    memory_gb: int = Field(gt=0)
    memory_mib: int = Field(gt=0)

    @model_validator(mode="after")
    def _check_compute_capability(self) -> "GpuModel":
        if (self.compute_capability is None) is not (self.vendor == "amd"):
            raise ValueError("NVIDIA's have a compute capability, AMD's have none")
        return self


@functools.cache
def models() -> Mapping[str, GpuModel]:
    """Return all models by name, in the order of the data file."""
    text = resources.files(__package__).joinpath("models.json").read_text(encoding="utf-8")
    return {model.name: model for model in map(GpuModel.model_validate, json.loads(text))}
