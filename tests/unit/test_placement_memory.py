"""What a failure of an offer tells of other offers, for how long, and when it is forgotten."""

from datetime import datetime, timedelta
from typing import Any

import pytest

from provisioner.apis.failure import Failure, FailureClass
from provisioner.apis.quota import Scope, Shortage, Usage
from provisioner.placement.market import OfferKey
from provisioner.placement.memory import OfferMemory, ttl
from provisioner.placement.quota import RegionQuota
from tests.unit.builders import A100, NOW, T4
from tests.unit.placement_builders import ON_DEMAND, SPOT, failure, key

CAPACITY, ZONE = FailureClass.CAPACITY, FailureClass.ZONE
QUOTA, RESTRICTED = FailureClass.QUOTA, FailureClass.SKU_RESTRICTED
MINUTE, HOUR = timedelta(minutes=1), timedelta(hours=1)
EVERY = [key(size, zone, kind) for size in (A100, T4) for zone in "012" for kind in (ON_DEMAND, SPOT)]


def short(scope: Scope = Scope.FAMILY, limit: int | None = 30, family: str = "StandardNCADSA100v4Family") -> Shortage:
    return Shortage(scope=scope, family=family if scope is Scope.FAMILY else "", needed=24, left=6, limit=limit)


@pytest.mark.parametrize(
    ("failed", "capacity_type", "expected"),
    [
        (failure(QUOTA), ON_DEMAND, 10 * MINUTE),
        (failure(QUOTA, shortage=short()), ON_DEMAND, 10 * MINUTE),
        (failure(QUOTA, shortage=short(limit=None)), ON_DEMAND, 10 * MINUTE),
        (failure(QUOTA, shortage=short(limit=0)), ON_DEMAND, HOUR),
        (failure(QUOTA, shortage=short(Scope.SPOT, limit=0)), SPOT, HOUR),
        (failure(QUOTA, code="InsufficientSubnetSize"), ON_DEMAND, None),
        (failure(CAPACITY), ON_DEMAND, HOUR),
        (failure(CAPACITY), SPOT, HOUR),
        (failure(ZONE), ON_DEMAND, HOUR),
        (failure(RESTRICTED, code="SkuNotAvailable"), SPOT, HOUR),
        (failure(RESTRICTED, code="SkuNotAvailable"), ON_DEMAND, 23 * HOUR),
        (failure(RESTRICTED, code="VMSizeNotSupported"), SPOT, 23 * HOUR),
        *((failure(kind), ON_DEMAND, None) for kind in FailureClass if kind not in (QUOTA, CAPACITY, ZONE, RESTRICTED)),
    ],
)
def test_failures_are_remembered_for_as_long_as_they_are_likely_to_last(
    failed: Failure, capacity_type: str, expected: timedelta | None
) -> None:
    assert ttl(failed, capacity_type=capacity_type) == expected


def spoken_for(*keys: OfferKey, **fields: Any) -> list[OfferKey]:
    memory = OfferMemory()
    memory.remember(keys, failure=failure(**fields), now=NOW)
    return [other for other in EVERY if memory.recall(other) is not None]


def of_a100(zones: str, *kinds: str) -> list[OfferKey]:
    return [key(A100, zone, kind) for zone in zones for kind in kinds]


BOTH = (ON_DEMAND, SPOT)


@pytest.mark.parametrize(
    ("tried", "fields", "expected"),
    [
        # Which zone and capacity type Azure had nothing in.
        ([key()], {"kind": CAPACITY}, of_a100("0", ON_DEMAND)),
        ([key(A100, "1")], {"kind": CAPACITY}, of_a100("1", ON_DEMAND)),
        ([key(A100, "1")], {"kind": CAPACITY, "code": "ZonalAllocationFailed"}, of_a100("1", *BOTH)),
        ([key(A100, "1"), key(A100, "2")], {"kind": CAPACITY, "zones": ("2",)}, of_a100("2", *BOTH)),
        ([key()], {"kind": CAPACITY, "code": "AllocationFailed"}, of_a100("0", *BOTH)),
        ([key(A100, "1")], {"kind": CAPACITY, "code": "AllocationFailed"}, of_a100("12", *BOTH)),
        (
            [key(A100, "1")],
            {"kind": CAPACITY, "code": "OverconstrainedZonalAllocationRequest"},
            of_a100("1", ON_DEMAND),
        ),
        ([key(A100, "1")], {"kind": CAPACITY, "code": "OverconstrainedAllocationRequest"}, of_a100("12", ON_DEMAND)),
        # Restrictions hold for the placement that was tried; those that AKS itself knows of for all.
        ([key()], {"kind": RESTRICTED, "code": "SkuNotAvailable"}, of_a100("0", ON_DEMAND)),
        ([key(A100, "1", SPOT)], {"kind": RESTRICTED, "code": "SkuNotAvailable"}, of_a100("12", SPOT)),
        ([key(A100, "1", SPOT)], {"kind": RESTRICTED, "code": "VMSizeNotSupported"}, of_a100("012", *BOTH)),
        # Zones.
        ([key(A100, "1"), key(A100, "2")], {"kind": ZONE, "zones": ("2",)}, of_a100("2", *BOTH)),
        ([key(A100, "1"), key(A100, "2")], {"kind": ZONE}, of_a100("12", *BOTH)),
        ([key(A100, "1")], {"kind": ZONE, "zones": ("3",)}, of_a100("1", *BOTH)),
        # Quotas know of no zones.
        ([key()], {"kind": QUOTA}, of_a100("012", ON_DEMAND)),
        ([key(A100, "1")], {"kind": QUOTA, "shortage": short()}, of_a100("012", ON_DEMAND)),
        (
            [key(A100, "0", SPOT)],
            {"kind": QUOTA, "shortage": short(Scope.SPOT)},
            [other for other in EVERY if other.capacity_type == SPOT],
        ),
        ([key()], {"kind": QUOTA, "shortage": short(Scope.REGIONAL)}, EVERY),
        # What says nothing about the size.
        ([key()], {"kind": QUOTA, "code": "SubnetIsFull"}, []),
        ([key()], {"kind": FailureClass.THROTTLED}, []),
        ([key()], {"kind": FailureClass.INTERNAL}, []),
    ],
)
def test_failure_speaks_for_what_shares_its_cause(
    tried: list[OfferKey], fields: dict[str, Any], expected: list[OfferKey]
) -> None:
    assert spoken_for(*tried, **fields) == expected


def test_failure_is_recalled_with_its_times() -> None:
    memory = OfferMemory()
    memory.remember([key()], failure=failure(), now=NOW)
    recalled = memory.recall(key())
    assert recalled is not None
    assert (recalled.failure, recalled.at, recalled.until) == (failure(), NOW, NOW + HOUR)
    assert recalled.forgotten_at == NOW + 2 * HOUR


def test_of_several_failures_the_one_that_lasts_longest_is_recalled() -> None:
    memory = OfferMemory()
    memory.remember([key()], failure=failure(RESTRICTED), now=NOW)
    memory.remember([key()], failure=failure(), now=NOW)
    memory.remember([key()], failure=failure(QUOTA, shortage=short(Scope.REGIONAL)), now=NOW)
    recalled, of_others = memory.recall(key()), memory.recall(key(T4))
    assert recalled is not None
    assert recalled.failure.kind is RESTRICTED
    assert of_others is not None
    assert of_others.failure.kind is QUOTA


def test_failure_that_comes_again_lasts_from_then_on() -> None:
    memory = OfferMemory()
    for minutes in (0, 70):
        memory.remember([key()], failure=failure(), now=NOW + minutes * MINUTE)
    recalled = memory.recall(key())
    assert recalled is not None
    assert recalled.until == NOW + 130 * MINUTE
    assert len(memory) == 1


def test_failures_are_pruned_when_they_mean_nothing_any_more() -> None:
    memory = OfferMemory()
    memory.remember([key()], failure=failure(), now=NOW)
    memory.prune(now=NOW + 2 * HOUR - MINUTE)
    assert memory.recall(key()) is not None
    memory.prune(now=NOW + 2 * HOUR)
    assert memory.recall(key()) is None
    assert len(memory) == 0


def test_memory_does_not_grow_with_failures_that_are_over() -> None:
    memory = OfferMemory()
    for number in range(50):
        memory.remember([key(f"size{number}")], failure=failure(), now=NOW + number * HOUR)
    assert len(memory) == 2


def usages(limit: int, used: int = 0) -> RegionQuota:
    row = Usage(name="standardNCADSA100v4Family", limit=limit, used=used)
    return RegionQuota(usages={row.name.lower(): row}, region="eastus")


@pytest.mark.parametrize(
    ("quota", "read_at", "is_left"),
    [
        (usages(24), NOW + MINUTE, False),
        (usages(23), NOW + MINUTE, True),
        (usages(100, used=90), NOW + MINUTE, True),
        # Usages that are older than the failure may not show yet what it failed on.
        (usages(100), NOW, True),
        (usages(100), NOW - MINUTE, True),
        (RegionQuota(usages={}), NOW + MINUTE, True),
    ],
)
def test_quota_is_forgotten_once_newer_usages_show_room_again(
    quota: RegionQuota, read_at: datetime, is_left: bool
) -> None:
    memory = OfferMemory()
    memory.remember([key()], failure=failure(QUOTA, shortage=short()), now=NOW)
    memory.remember([key(T4)], failure=failure(), now=NOW)
    memory.forget(quota.has_room, as_of=read_at)
    assert (memory.recall(key()) is not None) == is_left
    assert memory.recall(key(T4)) is not None


def test_what_is_left_alone_can_be_listed_until_its_time_is_over() -> None:
    memory = OfferMemory()
    memory.remember([key()], failure=failure(code="AllocationFailed"), now=NOW)
    ((left, entry),) = memory.active(now=NOW + timedelta(minutes=59))
    assert (left.size, left.zone, left.capacity_type) == (key().size, "0", "*")
    assert entry.failure.kind is FailureClass.CAPACITY
    assert list(memory.active(now=NOW + timedelta(hours=1))) == []
