"""In which order a claim's offers are tried."""

from decimal import Decimal
from typing import Final

from provisioner.apis import names
from provisioner.placement.size import Size

Rank = tuple[bool, int, bool, Decimal, bool, int, int, float, str]

_UNKNOWN: Final = Decimal(0)


def price(size: Size, *, capacity_type: str) -> Decimal | None:
    """Return the price to expect: of spot where its own is unknown, the on-demand price, which it never exceeds."""
    if capacity_type == names.CAPACITY_TYPE_SPOT and size.spot_price is not None:
        return size.spot_price
    return size.price


def rank(size: Size, *, capacity_type: str, position: int, gpus: int, failed_lately: bool) -> Rank:
    """Return what offers are sorted by, the best one first.

    What failed lately comes last; then the claim's own order (`position`, the same for all where it has none); then, as
    Karpenter does, the cheapest and spot before on-demand; then what wastes least beyond the `gpus` asked for.
    """
    expected = price(size, capacity_type=capacity_type)
    return (
        failed_lately,
        position,
        expected is None,
        _UNKNOWN if expected is None else expected,
        capacity_type != names.CAPACITY_TYPE_SPOT,
        max(size.gpu_count - gpus, 0),
        size.vcpus,
        size.memory_gib,
        size.name,
    )
