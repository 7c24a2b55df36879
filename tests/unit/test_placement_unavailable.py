"""What keeps a size that would do from being offered, and what a claim is told of it."""

import re
from datetime import timedelta
from typing import Any

import pytest

from provisioner.apis import names
from provisioner.apis.failure import Failure, FailureClass
from provisioner.apis.quota import Scope, Shortage
from provisioner.placement.market import Because, Market, OfferKey, Remembered
from tests.unit.builders import A100, NOW, T4, requirement
from tests.unit.placement_builders import (
    NC48,
    SPOT,
    Failed,
    Short,
    changed,
    failure,
    key,
    market,
    offered,
    placed,
    unavailable,
)

TYPE, ZONE = names.INSTANCE_TYPE_LABEL, names.ZONE_LABEL
# What KAITO looks for in the message, and clients show no more bytes than these.
SENTENCE = "all requested instance types were unavailable during launch"
SHOWN = 256
AN_A100 = requirement(TYPE, "In", A100)
HOUR = timedelta(hours=1)

FAMILY_SHORT = Shortage(
    scope=Scope.FAMILY, region="eastus", family="StandardNCADSA100v4Family", needed=24, left=6, limit=30
)


def failed(*keys: OfferKey, lasts: timedelta = HOUR, ago: timedelta = timedelta(), **fields: Any) -> Market:
    at = NOW - ago
    entry = Remembered(failure=failure(**fields), at=at, until=at + lasts)
    return market(memory=Failed(dict.fromkeys(keys, entry)))


# Restrictions


def test_size_that_the_subscription_may_not_use_is_left_out_until_somebody_lifts_that() -> None:
    told, placement = unavailable(AN_A100, at=market(changed(A100, restriction=f"{A100} is closed to you.")))
    assert told.kind is FailureClass.SKU_RESTRICTED
    assert placement.again_at is None
    (entry,) = placement.left_out
    assert (entry.because, entry.until, entry.capacity_type) == (Because.RESTRICTED, None, "on-demand")
    assert entry.message == f"{A100} is closed to you."


# Zones


def test_size_that_is_in_none_of_the_zones_is_left_out_by_its_zones() -> None:
    told, placement = unavailable(AN_A100, requirement(ZONE, "In", "eastus-2"))
    assert (told.kind, told.zones) == (FailureClass.ZONE, ("2",))
    assert placement.left_out[0].because is Because.ZONE
    assert told.message.startswith(f"{A100} cannot be had in zone 2, only in 1, 3. Ask for another zone, or for none; ")


def test_size_whose_zones_are_not_known_is_asked_for_in_all_of_them() -> None:
    (offer,) = placed(requirement(TYPE, "In", NC48), requirement(ZONE, "In", "eastus-1", "eastus-2")).offers
    assert (offer.zones, offer.zone_label) == (("1", "2"), "")


def test_size_without_zones_can_be_had_regionally_alone() -> None:
    region = market(changed(A100, zones=()))
    assert offered(AN_A100, at=region) == [A100]
    told, _ = unavailable(AN_A100, requirement(ZONE, "In", "eastus-1", "eastus-3"), at=region)
    assert told.message.startswith(f"{A100} cannot be had in zones 1, 3, in none.")


def test_zone_that_failed_lately_is_not_asked_for_and_the_others_are() -> None:
    at = failed(key(A100, "1"))
    (offer,) = placed(AN_A100, requirement(ZONE, "In", "eastus-1", "eastus-3"), at=at).offers
    assert (offer.zones, offer.zone_label) == (("3",), "eastus-3")
    assert offered(AN_A100, at=at) == [A100]


def test_size_that_failed_in_all_its_zones_waits_for_the_first_of_them() -> None:
    soon, later = (
        Remembered(failure=failure(message=f"in {span}"), at=NOW, until=NOW + timedelta(minutes=span))
        for span in (10, 50)
    )
    at = market(memory=Failed({key(A100, "1"): later, key(A100, "3"): soon}))
    told, placement = unavailable(AN_A100, requirement(ZONE, "In", "eastus-1", "eastus-2", "eastus-3"), at=at)
    assert placement.again_at == soon.until
    assert told.message.startswith("in 10; ")


# Quota


def test_size_that_the_quota_does_not_suffice_for_is_left_out_by_the_numbers() -> None:
    told, placement = unavailable(AN_A100, at=market(quota=Short({A100: FAMILY_SHORT})))
    assert (told.kind, told.shortage) == (FailureClass.QUOTA, FAMILY_SHORT)
    assert told.message.startswith("StandardNCADSA100v4Family vCPU quota in eastus: 24 needed, 6 left (limit 30)")
    (entry,) = placement.left_out
    assert (entry.because, entry.message, entry.until) == (Because.QUOTA, FAMILY_SHORT.message, None)


def test_next_size_is_offered_where_the_quota_of_the_first_does_not_suffice() -> None:
    at = market(quota=Short({A100: FAMILY_SHORT}), preference="Listed")
    assert offered(requirement(TYPE, "In", A100, T4), at=at) == [T4]


# Memory


def test_offer_that_failed_is_left_out_until_its_time_is_over() -> None:
    told, placement = unavailable(AN_A100, at=failed(key(), message="24 needed, no capacity."))
    (entry,) = placement.left_out
    assert (entry.because, entry.message) == (Because.FAILED, "24 needed, no capacity.")
    assert entry.until == placement.again_at == NOW + HOUR
    assert told.kind is FailureClass.CAPACITY


@pytest.mark.parametrize(
    ("ago", "order"),
    [
        (timedelta(minutes=59), [A100, NC48]),
        (timedelta(minutes=60), [A100, NC48, T4]),
        (timedelta(minutes=119), [A100, NC48, T4]),
        (timedelta(minutes=120), [T4, A100, NC48]),
    ],
)
def test_offer_that_failed_lately_is_tried_after_all_others(ago: timedelta, order: list[str]) -> None:
    assert offered(requirement(TYPE, "In", A100, T4, NC48), at=failed(key(T4), ago=ago)) == order


def test_failure_of_one_capacity_type_leaves_the_other() -> None:
    both = requirement(names.CAPACITY_TYPE_LABEL, "In", "spot", "on-demand")
    placement = placed(AN_A100, both, at=failed(key(A100, capacity_type=SPOT)))
    assert [offer.capacity_type for offer in placement.offers] == ["on-demand"]
    assert [entry.capacity_type for entry in placement.left_out] == ["spot"]


# What the claim is told


def test_message_of_several_sizes_has_the_numbers_of_the_best_and_why_the_next_does_not_do() -> None:
    at = market(quota=Short({T4: FAMILY_SHORT}), memory=failed(key(), key(NC48)).memory)
    told, placement = unavailable(requirement(TYPE, "In", A100, T4, NC48), at=at)
    assert [entry.size for entry in placement.left_out] == [T4, A100, NC48]
    assert (told.kind, told.shortage) == (FailureClass.QUOTA, FAMILY_SHORT)
    assert told.message == (
        "StandardNCADSA100v4Family vCPU quota in eastus: 24 needed, 6 left (limit 30); "
        f"{SENTENCE} (3 VM sizes tried; next: {A100}, no capacity; again at 2026-11-21 05:34 UTC). "
        "Ask for more: https://learn.microsoft.com/azure/quotas/per-vm-quota-requests, or delete nodes of this family."
    )
    assert placement.again_at == NOW + HOUR


def test_next_reason_may_be_of_the_same_size_in_another_capacity_type() -> None:
    both = requirement(names.CAPACITY_TYPE_LABEL, "In", "spot", "on-demand")
    of_spot = Remembered(failure=failure(FailureClass.SKU_RESTRICTED, "not now."), at=NOW, until=NOW + HOUR)
    of_on_demand = Remembered(failure=failure(), at=NOW, until=NOW + HOUR)
    at = market(memory=Failed({key(capacity_type=SPOT): of_spot, key(): of_on_demand}))
    told, _ = unavailable(AN_A100, both, at=at)
    tried = f"1 VM size tried; next: {A100} as on-demand, no capacity; again at 2026-11-21 05:34 UTC"
    assert told.message == f"not now; {SENTENCE} ({tried})."


@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize(
    "message",
    [
        "short",
        "x" * 400,
        "ü" * 400,
        "24 needed. " * 60,
        "no end of words " * 60,
        "€" * 49 + " and more words that are cut off somewhere in the middle of it all, in bytes and not in letters",
    ],
)
def test_first_bytes_have_the_sentence_that_ends_a_wait_whole_and_nothing_is_lost(message: str, count: int) -> None:
    sizes = (A100, T4)[:count]
    told, _ = unavailable(requirement(TYPE, "In", *sizes), at=failed(*map(key, sizes), message=message))
    assert SENTENCE in told.message.encode()[:SHOWN].decode(errors="ignore")
    assert told.message.startswith(message[:5])
    kept = re.sub(rf"; {SENTENCE} \([^)]*\)\.", "", told.message).replace("...", "")
    assert kept.replace(" ", "").replace(".", "") == message.replace(" ", "").replace(".", "")


def test_failure_is_that_of_the_best_size() -> None:
    of_azure = Failure(
        kind=FailureClass.ZONE, message="zone 1 is closed.", code="ZonesNotSupported", retry_after=7.0, zones=("1",)
    )
    entry = Remembered(failure=of_azure, at=NOW, until=NOW + HOUR)
    told, _ = unavailable(AN_A100, at=market(memory=Failed({key(): entry})))
    assert (told.kind, told.code, told.retry_after, told.zones) == (FailureClass.ZONE, "ZonesNotSupported", 7.0, ("1",))
