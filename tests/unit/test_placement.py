"""What a claim that names its VM sizes is offered, and why it is refused."""

from decimal import Decimal
from typing import Any

import pytest

from provisioner.apis import names
from provisioner.placement.market import Because, Offer, Refusal
from provisioner.placement.place import place
from provisioner.placement.size import Size
from tests.unit.builders import A100, T4, claim, requirement, spec_of
from tests.unit.placement_builders import GB200, H100, NC48, V100, best, changed, market, offered, placed, refused

TYPE, SKU, ZONE = names.INSTANCE_TYPE_LABEL, names.SKU_NAME_LABEL, names.ZONE_LABEL
CAPACITY, ARCH, OS = names.CAPACITY_TYPE_LABEL, names.ARCH_LABEL, names.OS_LABEL


def an_a100(*requirements: dict[str, Any], **fields: Any) -> Offer:
    return best(requirement(TYPE, "In", A100), *requirements, **fields)


def no_a100(*requirements: dict[str, Any], **fields: Any) -> Refusal:
    return refused(requirement(TYPE, "In", A100), *requirements, **fields)


def of_kaito(**changes: Any) -> Offer:
    placement = place(spec_of(claim(**changes)), market=market())
    assert placement.best is not None, placement
    return placement.best


def test_claim_of_kaito_is_an_on_demand_regional_node_of_that_size() -> None:
    offer = of_kaito()
    assert offer.size.name == A100
    assert (offer.capacity_type, offer.zones, offer.zone_label, offer.os_disk_gib) == ("on-demand", (), "0", 87)
    assert dict(offer.labels) == {
        TYPE: A100,
        SKU: A100,
        CAPACITY: "on-demand",
        OS: "linux",
        ARCH: "amd64",
        names.NODEPOOL_LABEL: "kaito",
    }
    assert offer.notes == ()


# VM size


@pytest.mark.parametrize(
    ("requirements", "size"),
    [
        ([requirement(TYPE, "In", A100)], A100),
        ([requirement(SKU, "In", A100)], A100),
        ([requirement(TYPE, "In", T4, A100)], T4),
        ([requirement(TYPE, "In", A100, T4)], A100),
        ([requirement(TYPE, "In", "Standard_NC1_v9", T4)], T4),
        ([requirement(TYPE, "In", A100, T4), requirement(SKU, "In", T4)], T4),
        ([requirement(TYPE, "In", A100, T4), requirement(TYPE, "NotIn", A100)], T4),
        ([requirement(TYPE, "In", A100, T4), requirement(SKU, "NotIn", A100)], T4),
        ([requirement(TYPE, "NotIn", A100), requirement(SKU, "In", A100, T4)], T4),
        ([requirement(TYPE, "In", A100, GB200), requirement(ARCH, "In", "arm64")], GB200),
        ([requirement(TYPE, "In", "Standard_D4s_v5")], "Standard_D4s_v5"),
    ],
)
def test_first_size_that_fits_is_taken_in_the_order_of_the_claim(requirements: list[dict[str, Any]], size: str) -> None:
    offer = best(*requirements, at=market(preference="Listed"))
    assert offer.size.name == size
    assert dict(offer.labels)[TYPE] == size


@pytest.mark.parametrize("key", [TYPE, SKU])
@pytest.mark.parametrize("written", [A100.lower(), A100.upper()])
def test_size_in_another_letter_case_is_found_and_the_difference_is_told(written: str, key: str) -> None:
    offer = best(requirement(key, "In", written))
    assert offer.size.name == A100
    assert offer.notes == (f"{written} is spelled {A100} by Azure, and so by the Node's {TYPE}.",)


@pytest.mark.parametrize("key", [TYPE, SKU])
def test_size_that_is_spelled_as_azure_spells_it_has_no_note(key: str) -> None:
    assert best(requirement(key, "In", A100)).notes == ()


def test_size_is_not_listed_twice_by_its_two_spellings() -> None:
    offer = best(requirement(TYPE, "In", A100), requirement(SKU, "In", A100.lower()))
    assert offer.size.name == A100
    assert dict(offer.labels)[SKU] == A100


def test_named_sizes_are_tried_by_their_price_unless_the_order_of_the_claim_is_asked_for() -> None:
    listed = requirement(TYPE, "In", NC48, A100, T4)
    assert offered(listed) == [T4, A100, NC48]
    assert offered(listed, at=market(preference="Listed")) == [NC48, A100, T4]


def test_size_that_azure_has_retired_is_asked_for_with_a_warning_that_names_what_stays() -> None:
    (note,) = best(requirement(TYPE, "In", V100)).notes
    assert note == (
        f"{V100} was retired by Azure on 2025-09-30; it may refuse to create it. Nearest sizes that stay: {T4}, {A100}."
    )


def test_size_that_azure_will_retire_is_asked_for_and_the_day_is_told() -> None:
    soon = changed(V100, retired="2027-03-31", successors=())
    (note,) = best(requirement(TYPE, "In", V100), at=market(soon)).notes
    assert note == f"{V100} will be retired by Azure on 2027-03-31."


def test_unknown_sizes_beside_known_ones_are_left_out_with_that_reason() -> None:
    placement = placed(requirement(TYPE, "In", "Standard_NC1_v9", A100, ""))
    assert [offer.size.name for offer in placement.offers] == [A100]
    assert [(entry.size, entry.because, entry.message) for entry in placement.left_out] == [
        ("Standard_NC1_v9", Because.UNKNOWN, "Standard_NC1_v9: no VM size of that name in this region."),
        ("", Because.UNKNOWN, '"": no VM size of that name in this region.'),
    ]


@pytest.mark.parametrize(
    ("written", "nearest"),
    [
        (["Standard_NC24ads_A100_v5"], A100),
        (["Standard_NC4as_T4"], T4),
        (["nc24ads_a100_v4"], A100),
        (["Standard_NC48_A100_v4", "xyz"], NC48),
    ],
)
def test_unknown_size_is_refused_with_what_may_have_been_meant(written: list[str], nearest: str) -> None:
    refusal = refused(requirement(TYPE, "In", *written))
    assert refusal.reason == "UnknownInstanceType"
    unknown = f"{', '.join(written)}: no VM size of that name in this region. "
    assert refusal.message.startswith(f"{unknown}Did you mean {nearest}")
    assert refusal.message.count("Standard_", len(unknown)) <= 3


def test_unknown_size_like_none_that_there_is_points_to_azures_list() -> None:
    assert refused(requirement(TYPE, "In", "xyz")) == Refusal(
        reason="UnknownInstanceType",
        message="xyz: no VM size of that name in this region. `az vm list-skus` lists what there is.",
    )


@pytest.mark.parametrize("key", [TYPE, SKU])
def test_unknown_size_is_azures_to_judge_where_its_list_could_not_be_read(key: str) -> None:
    offer = best(requirement(key, "In", "Standard_NC1_v9"), at=market(complete=False))
    assert offer.size == Size(name="Standard_NC1_v9")


@pytest.mark.parametrize("name", ["", "Standard NC24", "../x", "Standard_NC1_v9\n", "x" * 81])
def test_what_cannot_be_a_name_is_no_size_even_where_azures_list_could_not_be_read(name: str) -> None:
    refusal = refused(requirement(TYPE, "In", name), at=market(complete=False))
    assert refusal.reason == "UnknownInstanceType"


def test_claim_that_names_no_size_is_told_how_to_where_there_is_none_to_choose_from() -> None:
    region = market(changed(A100), complete=False)
    refusal = refused(requirement(OS, "In", "linux"), at=region)
    assert refusal.reason == "NoInstanceType"
    assert f"No VM size without a GPU is known in this region: add a requirement {TYPE} In [" in refusal.message
    assert best(requests={names.NVIDIA_GPU: 1}, at=region).size.name == A100


@pytest.mark.parametrize("key", [TYPE, SKU])
def test_node_without_a_vm_size_is_refused(key: str) -> None:
    refusal = refused(requirement(key, "DoesNotExist"))
    assert refusal.reason == "UnsupportedRequirement"
    assert key in refusal.message


@pytest.mark.parametrize(
    ("requirements", "message"),
    [
        (
            [requirement(TYPE, "In", A100), requirement(TYPE, "In", T4)],
            f"no value of {TYPE} satisfies In [{A100}] and In [{T4}]. Write a new claim: a spec cannot be changed.",
        ),
        (
            [requirement(TYPE, "In", A100), requirement(SKU, "In", T4)],
            f"{TYPE} and {SKU} have no size in common.",
        ),
        (
            [requirement(TYPE, "In", A100), requirement(ARCH, "In", "arm64")],
            f"{A100} is amd64, which {ARCH} excludes.",
        ),
        (
            [requirement(TYPE, "In", GB200), requirement(ARCH, "In", "amd64")],
            f"{GB200} is arm64, which {ARCH} excludes.",
        ),
        (
            [requirement(TYPE, "In", A100), requirement("team", "In", "a"), requirement("team", "DoesNotExist")],
            "no value of team satisfies In [a] and DoesNotExist. Write a new claim: a spec cannot be changed.",
        ),
    ],
)
def test_requirements_that_exclude_one_another_are_refused(requirements: list[dict[str, Any]], message: str) -> None:
    assert refused(*requirements) == Refusal(reason="ContradictoryRequirements", message=message)


# OS disk


@pytest.mark.parametrize(
    ("storage", "gib"),
    [
        ("87Gi", 87),
        ("1Ti", 1024),
        ("1024Gi", 1024),
        ("100.1Gi", 101),
        ("100G", 94),
        ("512Mi", 30),
        ("1", 30),
        ("30Gi", 30),
        ("2048Gi", 2048),
        (None, None),
    ],
)
def test_storage_is_the_os_disk_rounded_up_to_what_aks_takes(storage: str | None, gib: int | None) -> None:
    assert of_kaito(storage=storage).os_disk_gib == gib


@pytest.mark.parametrize(
    ("storage", "shown"),
    [
        ("0", "0 bytes"),
        ("-1", "-1 bytes"),
        ("-87Gi", "-93415538688 bytes"),
        ("2049Gi", "2049.0Gi"),
        ("2Pi", "2097152.0Gi"),
    ],
)
def test_storage_that_no_os_disk_can_have_is_refused(storage: str, shown: str) -> None:
    refusal = place(spec_of(claim(storage=storage)), market=market()).refusal
    assert refusal is not None
    assert refusal.reason == "InvalidStorage"
    assert refusal.message == (
        f"resources.requests.storage is the OS disk and must be above 0 and at most 2048Gi, not {shown}. "
        "Leave it out for Azure's default."
    )


@pytest.mark.parametrize(
    ("requests", "gib"),
    [
        ({"ephemeral-storage": "100Gi"}, None),
        ({"ephemeral-storage": "200Gi"}, 230),
        ({"ephemeral-storage": "10Gi", "storage": "87Gi"}, 87),
        ({"ephemeral-storage": "100Gi", "storage": "87Gi"}, 115),
    ],
)
def test_os_disk_has_room_for_the_ephemeral_storage_on_it(requests: dict[str, str], gib: int | None) -> None:
    assert an_a100(requests=requests).os_disk_gib == gib


@pytest.mark.parametrize("asked", ["-1", "1800Gi"])
def test_ephemeral_storage_that_no_os_disk_can_have_is_refused(asked: str) -> None:
    refusal = no_a100(requests={"ephemeral-storage": asked})
    assert refusal.reason == "InvalidStorage"
    assert "at most 1781Gi" in refusal.message


# Capacity type


@pytest.mark.parametrize(
    ("requirements", "capacity_types"),
    [
        ([], ["on-demand"]),
        ([requirement(CAPACITY, "In", "on-demand")], ["on-demand"]),
        ([requirement(CAPACITY, "In", "spot", "on-demand")], ["spot", "on-demand"]),
        ([requirement(CAPACITY, "In", "on-demand", "spot")], ["spot", "on-demand"]),
        ([requirement(CAPACITY, "In", "spot")], ["spot"]),
        ([requirement(CAPACITY, "In", "reserved", "spot")], ["spot"]),
        ([requirement(CAPACITY, "NotIn", "on-demand")], ["spot"]),
        ([requirement(CAPACITY, "NotIn", "spot")], ["on-demand"]),
        ([requirement(CAPACITY, "Exists")], ["on-demand"]),
    ],
)
def test_spot_is_for_claims_that_ask_for_it(requirements: list[dict[str, Any]], capacity_types: list[str]) -> None:
    offers = placed(requirement(TYPE, "In", A100), *requirements).offers
    assert [offer.capacity_type for offer in offers] == capacity_types
    assert [dict(offer.labels)[CAPACITY] for offer in offers] == capacity_types


def test_price_of_a_spot_offer_is_that_of_spot() -> None:
    spot, on_demand = placed(requirement(TYPE, "In", A100), requirement(CAPACITY, "In", "spot", "on-demand")).offers
    assert (spot.price, on_demand.price) == (Decimal("1.469"), Decimal("3.673"))
    (unknown,) = placed(requirement(TYPE, "In", NC48), requirement(CAPACITY, "In", "spot")).offers
    assert unknown.price is None


def test_spot_without_a_price_of_its_own_is_tried_before_on_demand() -> None:
    offers = placed(requirement(TYPE, "In", NC48), requirement(CAPACITY, "In", "spot", "on-demand")).offers
    assert [offer.capacity_type for offer in offers] == ["spot", "on-demand"]


def test_size_that_is_not_sold_as_spot_is_left_out_of_spot_alone() -> None:
    both = placed(requirement(TYPE, "In", H100), requirement(CAPACITY, "In", "spot", "on-demand"))
    assert [offer.capacity_type for offer in both.offers] == ["on-demand"]
    assert [(entry.capacity_type, entry.because) for entry in both.left_out] == [("spot", Because.REQUIREMENT)]
    refusal = refused(requirement(TYPE, "In", H100), requirement(CAPACITY, "In", "spot"))
    assert refusal.reason == "ContradictoryRequirements"
    assert refusal.message == f"{H100} is not sold as spot, and {CAPACITY} In [spot] is asked for."


@pytest.mark.parametrize(
    "asked", [requirement(CAPACITY, "In", "reserved"), requirement(CAPACITY, "DoesNotExist")], ids=["other", "none"]
)
def test_capacity_type_that_no_pool_can_have_is_refused(asked: dict[str, Any]) -> None:
    refusal = no_a100(asked)
    assert refusal.reason == "UnsupportedRequirement"
    assert "must allow on-demand or spot" in refusal.message


# Zones


@pytest.mark.parametrize(
    ("requirements", "zones", "label"),
    [
        ([], (), "0"),
        ([requirement(ZONE, "In", "0")], (), "0"),
        ([requirement(ZONE, "Exists")], (), "0"),
        ([requirement(ZONE, "NotIn", "eastus-1")], (), "0"),
        ([requirement(ZONE, "In", "eastus-1", "0")], (), "0"),
        ([requirement(ZONE, "In", "eastus-3")], ("3",), "eastus-3"),
        ([requirement(ZONE, "In", "eastus-3", "eastus-1")], ("1", "3"), ""),
        ([requirement(ZONE, "In", "eastus-1", "eastus-3"), requirement(ZONE, "NotIn", "eastus-1")], ("3",), "eastus-3"),
        # The subscription may not use the second zone, which the third then stands for alone.
        ([requirement(ZONE, "In", "eastus-2", "eastus-3")], ("3",), "eastus-3"),
    ],
)
def test_node_is_regional_unless_zones_are_asked_for_by_name(
    requirements: list[dict[str, Any]], zones: tuple[str, ...], label: str
) -> None:
    offer = an_a100(*requirements)
    assert (offer.zones, offer.zone_label) == (zones, label)


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (
            requirement(ZONE, "In", "eastus-1", "us-east-1a"),
            f"{ZONE} takes zones such as eastus-1, or 0 for a regional node, not eastus-1, us-east-1a.",
        ),
        (requirement(ZONE, "In", "1"), f"{ZONE} takes zones such as eastus-1, or 0 for a regional node, not 1."),
        (
            requirement(ZONE, "NotIn", "0"),
            f"{ZONE} excludes a regional node (0) and names no zone: list zones such as eastus-1.",
        ),
        (
            requirement(ZONE, "DoesNotExist"),
            f"{ZONE} excludes a regional node (0) and names no zone: list zones such as eastus-1.",
        ),
    ],
)
def test_zone_that_azure_cannot_give_is_refused(asked: dict[str, Any], message: str) -> None:
    assert no_a100(asked) == Refusal(reason="UnsupportedRequirement", message=message)


# Operating system


@pytest.mark.parametrize("asked", [requirement(OS, "In", "linux", "windows"), requirement(OS, "NotIn", "windows")])
def test_claim_that_allows_linux_gets_linux(asked: dict[str, Any]) -> None:
    assert dict(an_a100(asked).labels)[OS] == "linux"


@pytest.mark.parametrize("asked", [requirement(OS, "In", "windows"), requirement(OS, "NotIn", "linux")])
def test_claim_for_windows_is_refused(asked: dict[str, Any]) -> None:
    assert no_a100(asked) == Refusal(
        reason="UnsupportedRequirement", message=f"{OS} must allow linux: GPU pools are Linux pools."
    )


# Labels


def test_labels_are_what_the_requirements_leave_no_choice_of() -> None:
    labels = dict(
        an_a100(
            requirement("team", "In", "vision"),
            requirement("tier", "In", "a", "b"),
            requirement(ARCH, "In", "amd64", "arm64"),
            requirement("stage", "Exists"),
        ).labels
    )
    assert labels == {"team": "vision", TYPE: A100, CAPACITY: "on-demand", OS: "linux", ARCH: "amd64"}


def test_region_of_another_cluster_is_refused_once_ours_is_known() -> None:
    asked = (requirement(TYPE, "In", A100), requirement(names.REGION_LABEL, "In", "westus"))
    refusal = refused(*asked, at=market(location="eastus"))
    assert refusal.reason == "UnsupportedRequirement"
    assert "eastus" in refusal.message
    assert best(*asked, at=market(location="westus")).size.name == A100
    assert best(*asked, at=market(location="")).size.name == A100


def test_zones_of_another_region_are_none_of_ours() -> None:
    refusal = no_a100(requirement(ZONE, "In", "westus-1"))
    assert refusal.reason == "UnsupportedRequirement"
    assert refusal.message.startswith(f"{ZONE} must allow a zone of eastus, not westus-1 alone")
    offer = an_a100(requirement(ZONE, "In", "westus-1", "eastus-3"))
    assert (offer.zones, offer.zone_label) == (("3",), "eastus-3")
