"""The sizes and quotas of a region: which are shown, in what order, and what still fits."""

from collections.abc import Collection, Mapping
from decimal import Decimal
from typing import Any

import pytest

from provisioner.apis.quota import Usage
from provisioner.commands.exits import Exit, Trouble
from provisioner.commands.quota import quota_lines, quota_rows, require
from provisioner.commands.room import room
from provisioner.commands.skus import Choice, chosen, sku_dict, sku_lines
from provisioner.placement.size import Size
from tests.unit.placement_builders import cpu, gpu

TODAY = "2026-11-21"
A100 = gpu(
    "Standard_NC24ads_A100_v4", "A100", 24, 220, "3.673", family="FamA", spot_price=Decimal("1.5"), zones=("1", "3")
)
A100X2 = gpu("Standard_NC48ads_A100_v4", "A100", 48, 440, "7.346", family="FamA", gpu_count=2)
A10 = gpu("Standard_NV36ads_A10_v5", "A10", 36, 440, "3.2", family="FamB", gpu_memory_gib=24.0, sells_spot=False)
H100 = gpu("Standard_NC40ads_H100_v5", "H100 NVL", 40, 320, None, family="FamC", gpu_memory_gib=93.584, zones=())
V100 = gpu(
    "Standard_NC6s_v3",
    "V100",
    6,
    112,
    "3.06",
    family="FamD",
    gpu_memory_gib=16.0,
    retired="2025-09-30",
    successors=("T4", "A100"),
)
CLOSED = gpu("Standard_NCC40ads_H100_v5", "H100 NVL", 40, 320, "8.82", family="FamE", restriction="Closed to you.")
NEW = cpu("Standard_NC64ads_B300_v7", 64, None, family="FamF")
FPGA = cpu("Standard_NP10s", 10, "1.65", family="FamG")
D4 = cpu("Standard_D4s_v5", 4, "0.192", family="FamH")
SIZES = (D4, A100X2, A100, A10, H100, V100, CLOSED, NEW, FPGA)

# By name: limit and what is used of it.
USAGES = {
    "FamA": (48, 12),
    "FamB": (0, 0),
    "FamC": (400, 0),
    "FamD": (100, 0),
    "FamE": (100, 0),
    "FamF": (100, 0),
    "FamH": (100, 4),
    "cores": (100, 16),
    "lowPriorityCores": (30, 0),
    "virtualMachines": (25000, 3),
}


def usages(**changes: tuple[int, int]) -> Mapping[str, Usage]:
    return {
        name.lower(): Usage(name=name, limit=limit, used=used) for name, (limit, used) in {**USAGES, **changes}.items()
    }


def names(sizes: Collection[Size]) -> list[str]:
    return [size.name for size in sizes]


def choose(**fields: Any) -> list[Size]:
    return chosen(SIZES, usages=usages(), choice=Choice(today=TODAY, **fields))


def test_gpu_sizes_are_listed_the_cheapest_first_and_unknown_prices_last() -> None:
    assert choose() == [V100, A10, A100, A100X2, CLOSED, NEW, H100]


def test_all_sizes_are_listed_when_asked() -> None:
    assert set(names(choose(everything=True))) == set(names(SIZES))


@pytest.mark.parametrize(
    ("gpu_name", "found"),
    [("A100", [A100, A100X2]), ("a10", [A10]), ("h100", [CLOSED, H100]), ("H100 NVL", [CLOSED, H100]), ("b300", [NEW])],
)
def test_gpu_is_found_by_any_spelling_of_its_name(gpu_name: str, found: list[Size]) -> None:
    assert choose(gpu=gpu_name) == found


def test_gpu_memory_is_that_of_the_whole_vm() -> None:
    assert choose(min_gpu_memory_gib=160) == [A100X2]
    assert choose(min_gpu_memory_gib=80) == [A100, A100X2, CLOSED, H100]


def test_available_is_what_may_be_created_and_fits() -> None:
    assert choose(available=True) == [A100, NEW, H100]


def test_spot_has_prices_and_quota_of_its_own() -> None:
    assert choose(available=True, spot=True) == [A100]
    assert choose(spot=True)[0] == A100


def test_quota_that_is_not_known_counts_as_available() -> None:
    assert A10 in chosen(SIZES, usages={}, choice=Choice(available=True, today=TODAY))


def test_table_of_sizes() -> None:
    choice = Choice(today=TODAY)
    lines = sku_lines([V100, A100, H100, NEW, CLOSED], usages=usages(FamF=(0, 5)), choice=choice)

    assert [line.split() for line in lines] == [
        ["NAME", "GPU", "GPUS", "GPU", "MEM", "VCPUS", "MEM", "$/H", "ZONES", "QUOTA", "LEFT", "NOTES"],
        [
            V100.name,
            "V100",
            "1",
            "16",
            "6",
            "112",
            "3.060",
            "?",
            "100/100",
            "retired",
            "2025-09-30",
            "->",
            "T4,",
            "A100",
        ],
        [A100.name, "A100", "1", "80", "24", "220", "3.673", "1,3", "36/48"],
        [H100.name, "H100", "NVL", "1", "94", "40", "320", "?", "-", "400/400"],
        [NEW.name, "?", "?", "-", "64", "256", "?", "?", "0/0"],
        [CLOSED.name, "H100", "NVL", "1", "80", "40", "320", "8.820", "?", "100/100", "Closed", "to", "you."],
    ]


def test_no_sizes_make_no_table() -> None:
    assert sku_lines([], usages={}, choice=Choice()) == []


def test_size_for_scripts() -> None:
    assert sku_dict(A100, usages=usages(), choice=Choice(today=TODAY)) == {
        "name": A100.name,
        "gpu": "A100",
        "gpus": 1,
        "gpuMemoryGiB": 80.0,
        "vcpus": 24,
        "memoryGiB": 220,
        "architecture": "amd64",
        "family": "FamA",
        "zones": ["1", "3"],
        "pricePerHour": 3.673,
        "spotPricePerHour": 1.5,
        "sellsSpot": True,
        "quota": {"name": "FamA", "limit": 48, "used": 12, "left": 36},
        "vmsThatFit": 1,
        "available": True,
        "restriction": None,
        "retired": None,
        "successors": [],
    }


# What is left of family, region and spot, and how many VMs of 24 vCPUs fit.
ROOM = [
    ({"FamA": (48, 0)}, False, 2),
    ({"FamA": (47, 0)}, False, 1),
    ({"FamA": (48, 60)}, False, 0),
    ({"FamA": (480, 0), "cores": (100, 50)}, False, 2),
    ({"FamA": (0, 0)}, True, 1),
    ({"lowPriorityCores": (240, 0), "cores": (100, 50)}, True, 2),
]


@pytest.mark.parametrize(("changes", "spot", "vms"), ROOM)
def test_room_is_what_the_narrowest_quota_leaves(changes: dict[str, tuple[int, int]], spot: bool, vms: int) -> None:
    assert room(A100, usages(**changes), spot=spot) == vms


def test_room_without_a_quota_to_tell_by_is_not_known() -> None:
    assert room(A100, {}, spot=False) is None
    assert room(FPGA, usages(), spot=False) is None
    assert room(Size(name="Standard_new", family="FamA"), usages(), spot=False) is None


def quota_names(**fields: Any) -> list[str]:
    wanted: dict[str, Any] = {"everything": False, "family": "", "today": TODAY} | fields
    return [row.usage.name for row in quota_rows(SIZES, usages(), **wanted)]


def test_quotas_are_those_of_gpu_sizes_that_can_be_created_and_of_the_region() -> None:
    assert quota_names() == ["FamA", "FamB", "FamC", "FamF", "cores", "lowPriorityCores"]


def test_all_quotas_are_those_of_all_sizes() -> None:
    everything = ["FamA", "FamB", "FamC", "FamD", "FamE", "FamF", "FamH", "cores", "lowPriorityCores"]

    assert quota_names(everything=True) == everything


def test_family_is_found_by_part_of_its_name() -> None:
    assert quota_names(family="fam-b") == ["FamB"]
    assert quota_names(family="nothing") == []


def test_table_of_quotas_says_what_fits() -> None:
    rows = quota_rows(SIZES, usages(FamA=(48, 0)), everything=False, family="", today=TODAY)

    assert quota_lines(rows) == [
        "QUOTA                      LIMIT  USED  LEFT  FITS",
        f"FamA                          48     0    48  2 x {A100.name}, 1 x {A100X2.name}",
        f"FamB                           0     0     0  none: {A10.name} needs 36",
        f"FamC                         400     0   400  2 x {H100.name}",
        f"FamF                         100     0   100  1 x {NEW.name}",
        "Total Regional vCPUs         100    16    84  -",
        "Total Regional Spot vCPUs     30     0    30  -",
    ]


# A size, how many of it, as spot, and what keeps them from being created.
REQUIRED: dict[str, tuple[Size, int, bool, str]] = {
    "fits": (A100, 1, False, ""),
    "family": (A100, 2, False, "FamA vCPU quota in eastus: 48 needed, 36 left (limit 48)"),
    "region": (H100, 3, False, "Total regional vCPU quota in eastus: 120 needed, 84 left"),
    "spot": (A100, 2, True, "Spot vCPU quota in eastus: 48 needed, 30 left"),
    "not sold as spot": (A10, 1, True, "is not sold as spot"),
    "restricted": (CLOSED, 1, False, "Closed to you."),
}


@pytest.mark.parametrize(("size", "count", "spot", "message"), REQUIRED.values(), ids=REQUIRED.keys())
def test_requirement_says_what_is_missing(size: Size, count: int, spot: bool, message: str) -> None:
    answer = require(size, usages(), count=count, spot=spot, region="eastus")

    assert answer.fits is not bool(message)
    assert message in answer.message


def test_requirement_without_a_quota_to_tell_by_fails() -> None:
    with pytest.raises(Trouble, match="no quota of family FamG") as raised:
        require(FPGA, usages(), count=1, spot=False, region="eastus")
    assert raised.value.code == Exit.FAILED
