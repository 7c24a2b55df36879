"""Which sizes come nearest to one that Azure takes down. Pure."""

from collections.abc import Callable, Iterable
from decimal import Decimal
from typing import Final

from provisioner.gpus.catalogue import AksSupport, GpuSize

_AT_MOST: Final = 3
# What costs more than this many times the cheapest is no neighbour: an MI300X is no answer to an eighth of an MI25.
_TOO_DEAR: Final = 10


def catalogue_price(size: GpuSize) -> Decimal | None:
    """Return the price that the catalogue has, in US dollars an hour."""
    return size.price_per_hour


def nearest(
    size: GpuSize, among: Iterable[GpuSize], *, price: Callable[[GpuSize], Decimal | None] = catalogue_price
) -> tuple[GpuSize, ...]:
    """Return at most three sizes that can take the place of one, the cheapest first, each with another model of GPU.

    They are of the same GPU vendor and CPU architecture, for images are built for those; their GPUs are as new or
    newer; AKS has nodes of them, and no end is announced for them. Each of their GPUs has as much memory as each of the
    old ones, and all together have as much as all of those: what fitted on one GPU still does, and fewer GPUs may do. A
    whole GPU is not replaced by a part of one, which comes as a vGPU, without MIG and NVLink. InfiniBand is not asked
    for: it would leave nothing but machines with eight GPUs.

    Memory is what the GPUs are sold with: ECC takes 1 GiB of a T4 and nothing of a V100, and still the T4 is what
    people go on with. It is no faster than a V100, but for a seventh of an A100's price it is offered first: for who
    needs more, the newer models follow.

    Of each model only the cheapest is named, so that the answer is a choice. Where prices are equal the smaller one is
    named, then by name; a size without a known price comes last.
    """
    fitting = sorted(
        (candidate for candidate in among if _replaces(candidate, size)),
        key=lambda candidate: _order(candidate, price=price(candidate)),
    )
    by_model: dict[str, GpuSize] = {}
    for candidate in fitting:
        by_model.setdefault(candidate.gpu_model.name, candidate)
    cheapest = next(iter(map(price, by_model.values())), None)
    return tuple(
        candidate
        for candidate in by_model.values()
        if cheapest is None or (price(candidate) or cheapest) <= cheapest * _TOO_DEAR
    )[:_AT_MOST]


def _replaces(candidate: GpuSize, size: GpuSize) -> bool:
    return (
        candidate.name != size.name
        and candidate.retired is None
        and candidate.aks is not AksSupport.NONE
        and candidate.vendor == size.vendor
        and candidate.architecture == size.architecture
        and candidate.gpu_architecture.year >= size.gpu_architecture.year
        and (candidate.gpu_fraction == 1 or size.gpu_fraction != 1)
        and candidate.sold_gpu_memory_gb >= size.sold_gpu_memory_gb
        and candidate.total_sold_gpu_memory_gb >= size.total_sold_gpu_memory_gb
    )


def _order(candidate: GpuSize, *, price: Decimal | None) -> tuple[bool, Decimal, object, int, str]:
    return price is None, price or Decimal(), candidate.total_sold_gpu_memory_gb, candidate.vcpus, candidate.name
