"""Whoever asks for a size that is taken down is told what to ask for instead."""

from collections.abc import Sequence
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from provisioner.gpus.catalogue import AksSupport, GpuSize, find, sizes
from provisioner.gpus.successors import nearest

CATALOGUE = sizes()


def size(name: str) -> GpuSize:
    found = find(f"Standard_{name}")
    assert found is not None
    return found


def names(found: Sequence[GpuSize]) -> list[str]:
    return [item.name.removeprefix("Standard_") for item in found]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        # One V100 of 16 GB: the T4 is the cheapest with as much, the others are faster.
        ("NC6s_v3", ["NC4as_T4_v3", "NC16ads_A10_v4", "NC24ads_A100_v4"]),
        # Four of them are 64 GB: one A100 has more and costs less than four T4s.
        ("NC24s_v3", ["NC24ads_A100_v4", "NC64as_T4_v3", "NC144lds_xl_RTXPRO6000BSE_v6"]),
        # A P40 has 24 GB, so four T4s will not do although they have 64.
        ("ND6s", ["NC16ads_A10_v4", "NC24ads_A100_v4", "NC144lds_xl_RTXPRO6000BSE_v6"]),
        ("ND12s", ["NC24ads_A100_v4", "NC32ads_A10_v4", "NC144lds_xl_RTXPRO6000BSE_v6"]),
        # Not the third of an A10, which has the same 8 GB.
        ("NV12s_v3", ["NC4as_T4_v3", "NC16ads_A10_v4", "NC24ads_A100_v4"]),
        # AMD's go to AMD's, parts to parts; an MI300X would do for an eighth of an MI25, but at what price.
        ("NV4as_v4", ["NV4ads_V710_v5"]),
        ("NV16as_v4", ["NV8ads_V710_v5"]),
        ("NV32as_v4", ["NV24ads_V710_v5"]),
        ("NC128lds_xl_RTXPRO6000BSE_v6", ["NC144lds_xl_RTXPRO6000BSE_v6"]),
    ],
)
def test_sizes_that_come_nearest(old: str, new: list[str]) -> None:
    assert names(nearest(size(old), CATALOGUE)) == new


def test_each_retired_size_has_a_successor() -> None:
    assert [old.name for old in CATALOGUE if old.retired and not nearest(old, CATALOGUE)] == []


def test_only_sizes_of_the_region_are_named() -> None:
    region = [size("NV36ads_A10_v5"), size("NC96ads_A100_v4"), size("NV6ads_A10_v5")]
    assert names(nearest(size("NC6s_v3"), region)) == ["NV36ads_A10_v5", "NC96ads_A100_v4"]
    assert nearest(size("NC6s_v3"), []) == ()


def test_prices_of_the_region_decide_the_order() -> None:
    prices = {
        "Standard_NC4as_T4_v3": Decimal(9),
        "Standard_NC8as_T4_v3": Decimal(8),
        "Standard_NV36ads_A10_v5": Decimal(2),
    }
    region = [size(name) for name in ("NC4as_T4_v3", "NC8as_T4_v3", "NV36ads_A10_v5", "NC24ads_A100_v4")]
    found = nearest(size("NC6s_v3"), region, price=lambda item: prices.get(item.name))
    assert names(found) == ["NV36ads_A10_v5", "NC8as_T4_v3", "NC24ads_A100_v4"], "the one without a price is last"


def test_smaller_size_comes_first_where_no_price_is_known() -> None:
    found = nearest(size("NC6s_v3"), CATALOGUE, price=lambda _: None)
    assert names(found) == ["NC4as_T4_v3", "NC16ads_A10_v4", "NC24ads_A100_v4"]


@given(old=st.sampled_from(CATALOGUE), among=st.lists(st.sampled_from(CATALOGUE), unique_by=lambda item: item.name))
def test_successor_is_never_smaller_nor_older_nor_on_its_way_out(old: GpuSize, among: list[GpuSize]) -> None:
    found = nearest(old, among)
    assert len(found) <= 3
    assert len({item.gpu_model.name for item in found}) == len(found)
    for item in found:
        assert item in among
        assert item != old
        assert item.retired is None
        assert item.aks is not AksSupport.NONE
        assert (item.vendor, item.architecture) == (old.vendor, old.architecture)
        assert item.gpu_architecture.year >= old.gpu_architecture.year
        assert item.sold_gpu_memory_gb >= old.sold_gpu_memory_gb
        assert item.gpu_count * item.sold_gpu_memory_gb >= old.gpu_count * old.sold_gpu_memory_gb
    prices = [item.price_per_hour for item in found if item.price_per_hour]
    assert prices == sorted(prices)
    assert nearest(old, reversed(among)) == found, "the order in which sizes are listed does not matter"
