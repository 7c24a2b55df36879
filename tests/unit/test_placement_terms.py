"""What a node class lays down narrows what is offered, and says so; nothing else changes by it."""

from decimal import Decimal
from typing import Any

import pytest

from provisioner.apis import names
from provisioner.apis.reservation import Reserved
from provisioner.placement.market import Because, Market, Terms
from provisioner.placement.terms import partitioned
from tests.unit.builders import A100, LOCATION, T4, requirement
from tests.unit.placement_builders import (
    D4,
    GB200,
    H100,
    MI300X,
    NC48,
    ON_DEMAND,
    SPOT,
    best,
    changed,
    market,
    offered,
    placed,
    refused,
)

OWNER = "KaitoNodeClass gold"
GPU = {names.NVIDIA_GPU: "1"}


def within(*sizes: Any, **terms: Any) -> Market:
    return market(*sizes, terms=Terms(owner=OWNER, **terms))


def zone(operator: str, *values: str) -> dict[str, Any]:
    return requirement(names.ZONE_LABEL, operator, *values)


def capacity(*types: str) -> dict[str, Any]:
    return requirement(names.CAPACITY_TYPE_LABEL, "In", *types)


def named(*sizes: str) -> dict[str, Any]:
    return requirement(names.INSTANCE_TYPE_LABEL, "In", *sizes)


# Zones


@pytest.mark.parametrize(
    ("asked", "allowed", "zones"),
    [
        ([], ("3", "1"), ("1", "3")),
        ([], ("2", "3"), ("3",)),
        ([zone("In", f"{LOCATION}-1", f"{LOCATION}-3")], ("3",), ("3",)),
        ([zone("In", "0", f"{LOCATION}-1")], ("1", "3"), ("1",)),
        ([zone("NotIn", f"{LOCATION}-1")], ("1", "3"), ("3",)),
        ([zone("Exists")], ("1", "1"), ("1",)),
    ],
)
def test_zones_are_those_that_claim_and_class_and_size_have_in_common(
    asked: list[Any], allowed: tuple[str, ...], zones: tuple[str, ...]
) -> None:
    offer = best(named(A100), *asked, at=within(zones=allowed))
    assert offer.zones == zones
    assert offer.zone_label == (f"{LOCATION}-{zones[0]}" if len(zones) == 1 else "")


def test_class_that_lists_no_zones_leaves_vms_regional() -> None:
    assert best(named(A100), at=within()).zones == ()


@pytest.mark.parametrize("asked", [zone("In", f"{LOCATION}-1"), zone("In", "0"), zone("In", "westus-2")])
def test_claim_and_class_without_a_zone_in_common_are_told_apart(asked: Any) -> None:
    refusal = refused(named(A100), asked, at=within(zones=("2", "3")))
    assert refusal.reason == "ContradictoryRequirements"
    assert f"{OWNER} allows {LOCATION}-2 and {LOCATION}-3 alone" in refusal.message


def test_size_that_is_in_none_of_the_zones_is_passed_over() -> None:
    placement = placed(named(A100, T4), at=within(zones=("2",)))
    assert [offer.size.name for offer in placement.offers] == [T4]
    assert [(entry.size, entry.because) for entry in placement.left_out] == [(A100, Because.ZONE)]


def test_zones_of_a_region_that_is_not_known_yet_are_taken_as_they_are() -> None:
    offer = best(named(A100), at=market(location="", terms=Terms(zones=("1", "3"))))
    assert offer.zones == ("1", "3")


# Prices


def test_claim_for_one_gpu_does_not_fall_back_to_what_costs_too_much() -> None:
    everything = offered(requests=GPU)
    assert {T4, A100, NC48, H100} <= set(everything)
    assert offered(requests=GPU, at=within(max_price=Decimal("3.673"))) == [T4, A100]
    placement = placed(requests=GPU, at=within(max_price=Decimal(4)))
    told = {entry.size: entry for entry in placement.left_out if entry.because is Because.NODE_CLASS}
    assert told[NC48].message == f"{NC48} costs 7.346 $/h, and {OWNER} allows 4 $/h."
    assert told[NC48].capacity_type == ON_DEMAND
    assert told[NC48].failure is None


def test_size_of_unknown_price_is_not_offered_where_there_is_a_cap() -> None:
    at = within(changed(A100, price=None), max_price=Decimal(9999))
    assert refused(named(A100), at=at).message.startswith(f"{A100} has no known price, and {OWNER} allows 9999 $/h.")


@pytest.mark.parametrize(
    ("terms", "types"),
    [
        ({}, [SPOT, ON_DEMAND]),
        ({"max_spot_price": Decimal("1.469")}, [SPOT, ON_DEMAND]),
        ({"max_spot_price": Decimal("1.46")}, [ON_DEMAND]),
        ({"max_price": Decimal(2)}, [SPOT]),
        ({"max_price": Decimal(2), "max_spot_price": Decimal(1)}, []),
        ({"max_price": Decimal(4), "max_spot_price": Decimal(1)}, [ON_DEMAND]),
    ],
)
def test_cap_holds_for_the_capacity_types_that_it_is_for(terms: Any, types: list[str]) -> None:
    placement = placed(named(A100), capacity(SPOT, ON_DEMAND), at=within(**terms))
    assert [offer.capacity_type for offer in placement.offers] == types


def test_spot_of_unknown_price_is_left_to_azure_which_gets_the_cap() -> None:
    at = within(changed(A100, spot_price=None), max_price=Decimal("0.01"))
    assert best(named(A100), capacity(SPOT), at=at).capacity_type == SPOT


def test_claim_that_nothing_cheap_enough_does_for_says_by_how_much() -> None:
    refusal = refused(requests=GPU, at=within(max_price=Decimal("0.1")))
    assert refusal.reason == "NoFittingInstanceType"
    assert f"costs 3.673 $/h, and {OWNER} allows 0.1 $/h" in refusal.message
    assert refusal.message.endswith("Write a new claim, or change the class.")


# Partitioned GPUs

MIG_A100 = changed(A100, mig=True)
MIG_NC48 = changed(NC48, mig=True)


@pytest.mark.parametrize(
    ("profile", "count", "memory"),
    [("MIG1g", 14, 10.0), ("MIG2g", 6, 20.0), ("MIG3g", 4, 40.0), ("MIG4g", 2, 40.0), ("MIG7g", 2, 80.0)],
)
def test_instances_are_what_the_node_has_for_gpus(profile: str, count: int, memory: float) -> None:
    size = best(named(NC48), at=within(MIG_NC48, gpu_instance_profile=profile)).size
    assert (size.name, size.gpu_count, size.gpu_memory_gib) == (NC48, count, memory)
    assert (size.gpu_instance_profile, size.whole_gpus) == (profile, 2)


def test_only_sizes_with_mig_are_offered_and_the_others_say_why() -> None:
    sizes = (MIG_A100, changed(T4), changed(MI300X))
    placement = placed(named(A100, T4, MI300X), at=within(*sizes, gpu_instance_profile="MIG1g"))
    assert [offer.size.name for offer in placement.offers] == [A100]
    assert {entry.size: entry.message for entry in placement.left_out} == {
        name: f"{name} cannot be partitioned by MIG1g, which {OWNER} asks for." for name in (T4, MI300X)
    }


def test_size_without_gpus_is_the_same_with_any_profile() -> None:
    assert best(named(D4), at=within(gpu_instance_profile="MIG1g")).size == changed(D4)


@pytest.mark.parametrize(("wanted", "count"), [("7", 1), ("8", 2), ("14", 2)])
def test_claim_requests_instances(wanted: str, count: int) -> None:
    at = within(MIG_A100, MIG_NC48, gpu_instance_profile="MIG1g")
    assert best(requests={names.NVIDIA_GPU: wanted}, at=at).size.whole_gpus == count


def test_labels_speak_of_whole_gpus_where_karpenters_do_and_of_instances_where_nvidias_do() -> None:
    at = within(MIG_NC48, gpu_instance_profile="MIG1g")
    count, memory = "karpenter.azure.com/sku-gpu-count", "nvidia.com/gpu.memory"
    assert dict(best(named(NC48), requirement(count, "In", "2"), at=at).labels)[count] == "2"
    assert offered(named(NC48), requirement("nvidia.com/gpu.count", "In", "14"), at=at) == [NC48]
    assert placed(named(NC48), requirement(memory, "Gt", "20480"), at=at).offers == ()


def test_what_is_partitioned_already_or_by_no_known_profile_is_not_partitioned() -> None:
    once = partitioned(MIG_A100, "MIG1g")
    assert once is not None
    assert partitioned(once, "MIG2g") is None
    assert partitioned(MIG_A100, "MIG5g") is None
    assert partitioned(changed(GB200), "MIG1g") is None
    assert partitioned(MIG_A100, "") is MIG_A100


# OS disks


@pytest.mark.parametrize(
    ("room", "storage", "default", "is_offered"),
    [
        (None, "2000Gi", None, True),
        (0, None, None, False),
        (127, None, None, False),
        (128, None, None, True),
        (128, "129Gi", None, False),
        (64, "64Gi", None, True),
        (64, None, 64, True),
        (64, None, 65, False),
    ],
)
def test_size_without_room_for_the_disk_on_its_host_is_left_out(
    room: int | None, storage: str | None, default: int | None, is_offered: bool
) -> None:
    requests = {"storage": storage} if storage else {}
    at = within(changed(A100, ephemeral_os_disk_gib=room), needs_ephemeral_os_disk=True, os_disk_gib=default)
    assert bool(placed(named(A100), requests=requests, at=at).offers) is is_offered
    anywhere = within(changed(A100, ephemeral_os_disk_gib=room), os_disk_gib=default)
    assert placed(named(A100), requests=requests, at=anywhere).offers


@pytest.mark.parametrize(
    ("requests", "gib"),
    [
        ({}, 256),
        ({"storage": "87Gi"}, 87),
        ({"ephemeral-storage": "100Gi"}, 256),
        ({"ephemeral-storage": "300Gi"}, 345),
    ],
)
def test_disk_of_the_class_is_for_claims_that_request_none_and_large_enough_for_those_that_do(
    requests: dict[str, str], gib: int
) -> None:
    assert best(named(A100), requests=requests, at=within(os_disk_gib=256)).os_disk_gib == gib


# Reservations


def reserved(*places: tuple[str, str], **terms: Any) -> Market:
    return within(reserved=frozenset(Reserved(size.lower(), where) for size, where in places), **terms)


def test_on_demand_vms_are_of_reserved_sizes_and_spot_vms_of_any() -> None:
    placement = placed(named(A100, T4), capacity(SPOT, ON_DEMAND), at=reserved((A100, "")))
    assert [(offer.size.name, offer.capacity_type) for offer in placement.offers] == [
        (T4, SPOT),
        (A100, SPOT),
        (A100, ON_DEMAND),
    ]
    (told,) = [entry for entry in placement.left_out if entry.because is Because.NODE_CLASS]
    assert told.message == f"{T4} is not reserved in the capacity reservation group of {OWNER}."
    assert told.capacity_type == ON_DEMAND


@pytest.mark.parametrize(
    ("asked", "places", "zones"),
    [
        ([], ["", "1"], ()),
        ([zone("In", f"{LOCATION}-1", f"{LOCATION}-3")], ["", "1"], ("1",)),
        ([zone("In", f"{LOCATION}-1", f"{LOCATION}-3")], ["3", "1"], ("1", "3")),
    ],
)
def test_vms_are_where_they_are_reserved(asked: list[Any], places: list[str], zones: tuple[str, ...]) -> None:
    assert best(named(A100), *asked, at=reserved(*((A100, place) for place in places))).zones == zones


@pytest.mark.parametrize(
    ("asked", "places", "says"),
    [
        ([], ["3", "1"], "is reserved in zone 1, in zone 3 alone in the capacity reservation group"),
        ([zone("In", f"{LOCATION}-1")], [""], "is reserved without a zone alone in the capacity reservation group"),
    ],
)
def test_claim_that_is_for_elsewhere_is_told_where_there_are_reservations(
    asked: list[Any], places: list[str], says: str
) -> None:
    refusal = refused(named(A100), *asked, at=reserved(*((A100, place) for place in places)))
    assert refusal.reason == "NoFittingInstanceType"
    assert says in refusal.message
