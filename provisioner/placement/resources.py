"""What a claim requests of its Node, and whether a VM size has it."""

import functools
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Final

from provisioner.apis import names
from provisioner.placement.labels import traits
from provisioner.placement.refused import UNSUPPORTED_RESOURCE, Refused
from provisioner.placement.requirements import clipped
from provisioner.placement.size import Size

CPU: Final = "cpu"
MEMORY: Final = "memory"
EPHEMERAL_STORAGE: Final = "ephemeral-storage"
# How many pods a Node takes is a setting of its pool, not of the VM size.
_PODS: Final = "pods"
_GPUS: Final = (names.NVIDIA_GPU, names.AMD_GPU)

_GIB: Final = 1 << 30
_MIB: Final = 1 << 20
_MILLI: Final = 1000

# AKS takes an OS disk of 30 to 2048 GiB; without a size it chooses one that suits the VM, of 128 GiB at least
# (https://learn.microsoft.com/azure/aks/concepts-storage#default-os-disk-sizing).
MIN_OS_DISK_GIB: Final = 30
MAX_OS_DISK_GIB: Final = 2048
DEFAULT_OS_DISK_GIB: Final = 128
# Of an OS disk, the file system leaves 97 % and the kubelet's eviction threshold 90 % of those.
_EPHEMERAL_SHARE: Final = Decimal("0.87")

# What a Node can allocate of its VM: https://learn.microsoft.com/azure/aks/node-resource-reservations, for Kubernetes
# 1.29 and later. Memory: 20 MiB a pod and 50 MiB, a quarter at most; less 100 MiB before the kubelet evicts. The pods
# are the most that AKS's network plugins come with (250), as a pool's own number is not known here.
_RESERVED_MIB: Final = 20 * 250 + 50
_RESERVED_SHARE: Final = 0.25
_EVICTION_MIB: Final = 100
# What firmware and kernel take of a VM's memory before Linux counts it, as Karpenter's Azure provider reckons
# (VM_MEMORY_OVERHEAD_PERCENT).
_VM_OVERHEAD: Final = 0.075
# Millicores of the first, the second, the third and fourth vCPU, and of each further one.
_RESERVED_MILLICORES: Final = ((1, 60), (1, 40), (2, 20))
_RESERVED_MILLICORES_EACH: Final = 10

# AKS makes no nodes of fewer vCPUs (https://learn.microsoft.com/azure/aks/quotas-skus-regions#restricted-vm-sizes); the
# memory is what Karpenter's Azure provider asks for.
MIN_VCPUS: Final = 2
MIN_MEMORY_GIB: Final = 3.5


@dataclass(frozen=True, kw_only=True)
class Shortfall:
    """What a size lacks of a request: `has` and `asked` are shown to people, `amount` compares sizes."""

    resource: str
    asked: str
    has: str
    amount: float


@dataclass(frozen=True, kw_only=True)
class Requests:
    """What a claim requests: GPUs by their resource, thousandths of a core, bytes; and the OS disk, None for AKS's."""

    gpus: Mapping[str, int] = field(default_factory=dict)
    millicores: int = 0
    memory: int = 0
    os_disk_gib: int | None = None

    @property
    def gpu_count(self) -> int:
        """Return how many GPUs are requested at all."""
        return sum(self.gpus.values())

    def shortfall(self, size: Size) -> Shortfall | None:
        """Return what the size lacks; None where it has all, or where what it has is not known."""
        for resource, asked in self.gpus.items():
            has = size.gpu_count if size.gpu_resource == resource else 0
            if has < asked and traits(size).gpus_known:
                return Shortfall(resource=resource, asked=str(asked), has=str(has), amount=has)
        if self.millicores and size.vcpus:
            millicores = allocatable_millicores(size.vcpus)
            if millicores < self.millicores:
                asked_cores, cores = _cores(self.millicores), _cores(millicores)
                return Shortfall(resource=CPU, asked=asked_cores, has=f"{cores} allocatable", amount=millicores)
        if self.memory and size.memory_gib:
            memory = allocatable_memory(size.memory_gib)
            if memory < self.memory:
                return Shortfall(
                    resource=MEMORY, asked=_bytes(self.memory), has=f"{_bytes(memory)} allocatable", amount=memory
                )
        return None


@functools.lru_cache(maxsize=1024)
def allocatable_millicores(vcpus: int) -> int:
    """Return what the Node of a VM with these vCPUs can give to pods, in thousandths of a core."""
    reserved, left = 0, vcpus
    for count, millicores in _RESERVED_MILLICORES:
        taken = min(left, count)
        reserved += taken * millicores
        left -= taken
    return vcpus * _MILLI - reserved - left * _RESERVED_MILLICORES_EACH


@functools.lru_cache(maxsize=1024)
def allocatable_memory(memory_gib: float) -> int:
    """Return what the Node of a VM with this memory can give to pods, in bytes."""
    total = memory_gib * _GIB
    reserved = min(_RESERVED_MIB * _MIB, total * _RESERVED_SHARE)
    return max(int(total * (1 - _VM_OVERHEAD) - reserved - _EVICTION_MIB * _MIB), 0)


def read_requests(requests: Mapping[str, Decimal], *, os_disk_gib: int | None = None) -> Requests:
    """Read what a claim requests. Raises Refused where no Node of an agent pool can have it.

    `os_disk_gib` is the OS disk of a claim that requests no storage, None for AKS's.
    """
    gpus: dict[str, int] = {}
    millicores = memory = 0
    for resource, amount in sorted(requests.items()):
        if resource in (names.STORAGE, EPHEMERAL_STORAGE):
            continue
        if amount < 0:
            raise Refused(
                reason=UNSUPPORTED_RESOURCE,
                message=f"resources.requests.{clipped(resource)} is {amount:f}: it must be 0 or more.",
            )
        if resource in _GPUS:
            if amount != amount.to_integral_value():
                raise Refused(
                    reason=UNSUPPORTED_RESOURCE,
                    message=f"resources.requests.{resource} is {amount:f}: GPUs are requested as whole ones.",
                )
            if amount:
                gpus[resource] = int(amount)
        elif resource == CPU:
            millicores = math.ceil(amount * _MILLI)
        elif resource == MEMORY:
            memory = math.ceil(amount)
        elif resource != _PODS and amount:
            raise Refused(
                reason=UNSUPPORTED_RESOURCE,
                message=f"resources.requests has {clipped(resource)}, which no VM size is known to have. What can be "
                f"requested: {', '.join((*_GPUS, CPU, MEMORY))}, and {names.STORAGE} for the OS disk.",
            )
    disk = _os_disk(requests.get(names.STORAGE), ephemeral=requests.get(EPHEMERAL_STORAGE), default=os_disk_gib)
    return Requests(gpus=gpus, millicores=millicores, memory=memory, os_disk_gib=disk)


def _os_disk(storage: Decimal | None, *, ephemeral: Decimal | None, default: int | None) -> int | None:
    """Return the OS disk in GiB: what `storage` says, and enough for `ephemeral-storage`, which lies on it too."""
    asked = default
    if storage is not None:
        gib = math.ceil(storage / _GIB)
        if storage <= 0 or gib > MAX_OS_DISK_GIB:
            raise Refused(
                reason="InvalidStorage",
                message=f"resources.requests.storage is the OS disk and must be above 0 and at most {MAX_OS_DISK_GIB}"
                f"Gi, not {_shown(storage)}. Leave it out for Azure's default.",
            )
        asked = max(gib, MIN_OS_DISK_GIB)
    if ephemeral is None:
        return asked
    needed = math.ceil(ephemeral / _GIB / _EPHEMERAL_SHARE)
    if ephemeral < 0 or needed > MAX_OS_DISK_GIB:
        most = int(MAX_OS_DISK_GIB * _EPHEMERAL_SHARE)
        raise Refused(
            reason="InvalidStorage",
            message=f"resources.requests.ephemeral-storage must be 0 or more and at most {most}Gi, which is what an OS "
            f"disk of {MAX_OS_DISK_GIB}Gi leaves, not {_shown(ephemeral)}.",
        )
    # AKS's default may well be an ephemeral disk on the host, so it is given up only where it may be too small.
    return asked if needed <= (asked or DEFAULT_OS_DISK_GIB) else needed


def _shown(quantity: Decimal) -> str:
    gib = quantity / _GIB
    return f"{gib:.1f}Gi" if gib >= 1 else f"{quantity:f} bytes"


def _bytes(amount: int) -> str:
    return _shown(Decimal(amount))


def _cores(millicores: int) -> str:
    return f"{millicores / _MILLI:g}"
