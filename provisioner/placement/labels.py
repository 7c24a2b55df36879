"""The labels that a VM size answers requirements with, in the spelling of those who put them on Nodes.

`karpenter.azure.com/sku-*` is as Karpenter's Azure provider derives it (karpenter-provider-azure,
pkg/providers/instancetype/instancetype.go, and Azure/skewer, vmsize.go): memory in MiB, version without its `v`, and
of the GPU the name that the size itself carries. `nvidia.com/gpu.*` is as NVIDIA's GPU feature discovery labels Nodes
(https://github.com/NVIDIA/k8s-device-plugin/tree/main/docs/gpu-feature-discovery), with the memory that is sold: the
driver reports up to 7 % less, so bounds are what to ask it with.
"""

import functools
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from provisioner.apis import names
from provisioner.placement.requirements import NAME_FOLDS, Folds, Requirements, Values
from provisioner.placement.size import Size

FAMILY: Final = "karpenter.azure.com/sku-family"
SERIES: Final = "karpenter.azure.com/sku-series"
VERSION: Final = "karpenter.azure.com/sku-version"
CPU: Final = "karpenter.azure.com/sku-cpu"
MEMORY: Final = "karpenter.azure.com/sku-memory"
GPU_NAME: Final = "karpenter.azure.com/sku-gpu-name"
GPU_MANUFACTURER: Final = "karpenter.azure.com/sku-gpu-manufacturer"
GPU_COUNT: Final = "karpenter.azure.com/sku-gpu-count"
# Of one GPU, in MiB. Karpenter has no such label.
NVIDIA_MEMORY: Final = "nvidia.com/gpu.memory"
NVIDIA_COUNT: Final = "nvidia.com/gpu.count"

# Labels that only a Node with a GPU has; GPU_COUNT is 0 on the others.
_OF_GPUS: Final = (GPU_NAME, GPU_MANUFACTURER, NVIDIA_MEMORY, NVIDIA_COUNT)
# What a size is chosen by, as far as it is known of the size.
SIZE_KEYS: Final = frozenset(
    {names.INSTANCE_TYPE_LABEL, names.SKU_NAME_LABEL, names.ARCH_LABEL, FAMILY, SERIES, VERSION, CPU, MEMORY, GPU_COUNT}
) | frozenset(_OF_GPUS)
# Those that are put on the Node where the claim mentions them. NVIDIA's are not: its discovery writes what it measures.
NODE_KEYS: Final = frozenset(key for key in SIZE_KEYS if key.startswith("karpenter.azure.com/"))
_MANUFACTURERS: Final = {names.NVIDIA_GPU: "nvidia", names.AMD_GPU: "amd"}
_MIB: Final = 1024

# https://learn.microsoft.com/azure/virtual-machines/vm-naming-conventions: the letters before the number are family and
# sub-family, those after it features; then come parts such as the GPU, and the version.
_NAME: Final = re.compile(
    r"Standard_(?P<family>[A-Z])(?P<sub>[A-Z]{0,2})\d{1,4}(?P<constrained>-\d{1,4})?(?P<features>(?:[A-Za-z][A-Za-z0-9]{0,11})?)"
    r"(?P<parts>(?:_[A-Za-z0-9]{1,20}){0,4}?)(?:_v(?P<version>\d{1,2}))?(?:_Promo)?",
    re.ASCII | re.IGNORECASE,
)
_SEPARATORS: Final = re.compile(r"[-_. ]")

# https://learn.microsoft.com/azure/virtual-machines/sizes/overview: GPUs and FPGAs are family N, those of NP are FPGAs;
# DC and EC are confidential, and so is NCC.
_ACCELERATED: Final = "N"
_FPGAS: Final = "P"
_CONFIDENTIAL: Final = frozenset({("D", "C"), ("E", "C"), ("N", "CC")})


def fold_gpu(name: str) -> str:
    """Return a GPU's name as it is compared: `H100 NVL`, `h100-nvl` and `H100NVL` are one."""
    return _SEPARATORS.sub("", name).lower()


FOLDS: Final[Folds] = {
    **NAME_FOLDS,
    FAMILY: str.lower,
    SERIES: str.lower,
    GPU_MANUFACTURER: str.lower,
    GPU_NAME: fold_gpu,
}


@dataclass(frozen=True)
class Label:
    """What a size has a label of: its value, and as what it is compared. Without spellings the Node lacks the label."""

    value: str = ""
    spellings: tuple[str, ...] = ()

    def satisfies(self, values: Values) -> bool:
        """Tell whether a Node with this label meets the requirements."""
        if not self.spellings:
            return values.may_be_absent
        if values.must_be_absent or any(spelling in values.excluded for spelling in self.spellings):
            return False
        return any(values.allows(spelling) for spelling in self.spellings)


_NONE: Final = Label()


@dataclass(frozen=True, kw_only=True)
class Traits:
    """What follows from a size alone. A label that is missing is not known, and requirements on it are not judged.

    `only_by_name` says why a claim that names no size is not given this one. `accelerated` is the half of the sizes
    that such a claim has to ask for.
    """

    labels: Mapping[str, Label]
    accelerated: bool
    gpus_known: bool
    only_by_name: str


# More than twice as many as a region has, so that a new price list does not empty it at once.
@functools.lru_cache(maxsize=4096)
def traits(size: Size) -> Traits:
    """Return what follows from the size alone."""
    parsed = _NAME.fullmatch(size.name)
    family = parsed["family"].upper() if parsed else ""
    sub = parsed["sub"].upper() if parsed else ""
    # Azure's list gives no GPUs for some sizes that have them, and some for FPGAs: only a name tells the rest apart.
    gpus_known = size.gpu_count > 0 or (size.vcpus > 0 and (family != _ACCELERATED or sub == _FPGAS))
    labels = {
        names.INSTANCE_TYPE_LABEL: _label(size.name, fold=str.lower),
        names.SKU_NAME_LABEL: _label(size.name, fold=str.lower),
        names.ARCH_LABEL: _label(size.architecture),
    }
    if parsed:
        series = f"{family}{sub}{parsed['features']}" + (f"_v{parsed['version']}" if parsed["version"] else "")
        labels |= {
            FAMILY: _label(family, fold=str.lower),
            SERIES: _label(series, fold=str.lower),
            VERSION: _label(parsed["version"] or "1"),
        }
    if size.vcpus:
        labels[CPU] = _label(str(size.vcpus))
    if size.memory_gib:
        labels[MEMORY] = _label(str(int(size.memory_gib * _MIB)))
    if gpus_known:
        labels |= _gpu_labels(size, parts=parsed["parts"].split("_") if parsed else [])
    accelerated = size.gpu_count > 0 or family == _ACCELERATED
    return Traits(
        labels=labels,
        accelerated=accelerated,
        gpus_known=gpus_known,
        only_by_name=_only_by_name(size, parsed=parsed, kind=(family, sub)),
    )


def asks_for_gpu(requirements: Requirements) -> bool:
    """Tell whether no size without a GPU can meet the requirements."""
    if any(not requirements[key].may_be_absent for key in _OF_GPUS):
        return True
    if GPU_COUNT in requirements.by_key and not requirements[GPU_COUNT].allows("0"):
        return True
    letter = _ACCELERATED.lower()
    lists = (requirements[FAMILY].candidates, requirements[SERIES].candidates)
    return any(all(value.startswith(letter) for value in listed) for listed in lists if listed)


def _label(value: str, *, fold: Callable[[str], str] = str) -> Label:
    return Label(value, (fold(value),))


def _gpu_labels(size: Size, *, parts: list[str]) -> dict[str, Label]:
    labels = {GPU_COUNT: _label(str(size.whole_gpus)), GPU_NAME: _NONE, GPU_MANUFACTURER: _NONE}
    nvidia = {NVIDIA_COUNT: _NONE, NVIDIA_MEMORY: _NONE}
    if not size.gpu_count:
        return labels | nvidia
    labels[GPU_MANUFACTURER] = _label(_MANUFACTURERS.get(size.gpu_resource, ""))
    if size.gpu_name:
        full = fold_gpu(size.gpu_name)
        # Karpenter takes the GPU's name from the size's: of an H100 NVL it says H100. Both are understood.
        own = next((part for part in parts if len(part) > 1 and full.startswith(part.lower())), "")
        value = own or _SEPARATORS.sub("", size.gpu_name)
        labels[GPU_NAME] = Label(value, tuple(dict.fromkeys((value.lower(), full))))
    else:
        del labels[GPU_NAME]
    if size.gpu_resource == names.NVIDIA_GPU:
        nvidia[NVIDIA_COUNT] = _label(str(size.gpu_count))
        if size.gpu_memory_gib:
            nvidia[NVIDIA_MEMORY] = _label(str(int(size.gpu_memory_gib * _MIB)))
        else:
            del nvidia[NVIDIA_MEMORY]
    return labels | nvidia


def _only_by_name(size: Size, *, parsed: re.Match[str] | None, kind: tuple[str, str]) -> str:
    if size.only_by_name:
        return size.only_by_name
    # As Karpenter's Azure provider leaves them out too: what it takes to run one is for the user to know.
    if not size.name.lower().startswith("standard_"):
        return "is of a tier that AKS makes no nodes of"
    if kind in _CONFIDENTIAL:
        return "is a confidential VM"
    if parsed and parsed["constrained"]:
        return "costs as much as the size with all of its vCPUs"
    if kind[0] == _ACCELERATED and not size.gpu_count:
        return "has an FPGA or a GPU that is not known"
    return ""
