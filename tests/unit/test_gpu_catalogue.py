import json
from collections import Counter
from datetime import date
from fractions import Fraction
from importlib import resources

import pytest

from provisioner.gpus.catalogue import AksSupport, Driver, GpuSize, find, sizes

TODAY = date(2026, 11, 21)


def test_no_size_occurs_twice() -> None:
    rows = json.loads(resources.files("provisioner.gpus").joinpath("catalogue.json").read_text(encoding="utf-8"))
    counts = Counter(row["name"].lower() for row in rows)
    assert [name for name, count in counts.items() if count > 1] == []
    assert len(sizes()) == len(rows) > 80


def test_names_are_found_in_any_case_and_keep_azures_spelling() -> None:
    size = find("STANDARD_NC24ADS_a100_V4")
    assert size is not None
    assert size.name == "Standard_NC24ads_A100_v4"
    assert size.family == "StandardNCADSA100v4Family"


@pytest.mark.parametrize("name", ["Standard_D4s_v5", "Standard_NP10s", "Standard_NP20s", "Standard_NP40s", ""])
def test_sizes_without_a_gpu_are_not_in_it(name: str) -> None:
    assert find(name) is None


@pytest.mark.parametrize("size", sizes(), ids=lambda size: size.name)
def test_each_size_makes_sense(size: GpuSize) -> None:
    assert find(size.name) is size
    # A part of a GPU is one of its own on the Node, and there is only one of it.
    assert size.gpu_fraction == 1 or size.gpu_count == 1
    assert size.gpu_fraction.numerator == 1
    # Azure's families are named in three styles; what they share is this.
    assert size.family.lower().startswith("standard")
    assert size.family.endswith("Family")
    if size.vendor == "amd":
        assert size.driver is Driver.NONE, "AKS installs none for AMD"
        assert not size.mig
    if size.mig:
        assert size.gpu.split()[0] in ("A100", "H100", "H200")
    if size.retired:
        assert size.price_per_hour is None, "a retired size must not look cheap"
        assert size.aks is AksSupport.NONE
        assert size.is_retired(on=TODAY)
    if size.architecture == "arm64":
        assert size.gpu.startswith("GB")


@pytest.mark.parametrize(
    ("name", "count", "fraction", "memory"),
    [
        ("Standard_NC4as_T4_v3", 1, Fraction(1), 16),
        ("Standard_NC64as_T4_v3", 4, Fraction(1), 64),
        ("Standard_NV6ads_A10_v5", 1, Fraction(1, 6), 4),
        ("Standard_NV36ads_A10_v5", 1, Fraction(1), 24),
        ("Standard_NC96ads_A100_v4", 4, Fraction(1), 320),
        ("Standard_ND96isr_H200_v5", 8, Fraction(1), 1128),
        ("Standard_ND128isr_NDR_GB200_v6", 4, Fraction(1), 768),
        ("Standard_ND96is_MI300X_v5", 8, Fraction(1), 1536),
        ("Standard_NC72lds_xl_RTXPRO6000BSE_v6", 1, Fraction(1, 2), 48),
    ],
)
def test_what_a_node_offers(name: str, count: int, fraction: Fraction, memory: float) -> None:
    size = find(name)
    assert size is not None
    assert (size.gpu_count, size.gpu_fraction, size.total_gpu_memory_gib) == (count, fraction, memory)


@pytest.mark.parametrize(
    ("name", "on", "retired"),
    [
        ("Standard_NV4as_v4", date(2026, 9, 29), False),
        ("Standard_NV4as_v4", date(2026, 9, 30), True),
        ("Standard_NC6s_v3", TODAY, True),
        ("Standard_NC24rs_v3", date(2025, 4, 1), True),
        ("Standard_ND40rs_v2", TODAY, False),
        ("Standard_NC24ads_A100_v4", TODAY, False),
    ],
)
def test_when_a_size_is_retired(name: str, on: date, retired: bool) -> None:
    size = find(name)
    assert size is not None
    assert size.is_retired(on=on) is retired


def test_sizes_that_aks_supports_and_that_are_priced_can_be_compared() -> None:
    priced = [size for size in sizes() if size.aks is not AksSupport.NONE and size.price_per_hour]
    cheapest = min(priced, key=lambda size: size.price_per_hour or 0)
    assert cheapest.name == "Standard_NV4ads_V710_v5"
    assert {size.vendor for size in priced} == {"nvidia", "amd"}
