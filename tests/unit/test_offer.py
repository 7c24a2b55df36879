"""From what a claim asks for to what Azure is asked for, or to the reason why there is nothing to ask."""

import dataclasses
from typing import Any

import pytest

from provisioner.apis import names
from provisioner.placement.offer import Offer, Refusal, Size, choose
from tests.unit.builders import A100, REGION, T4, Region, claim, offer_of, requirement, spec, spec_of

TYPE, SKU, ZONE = names.INSTANCE_TYPE_LABEL, names.SKU_NAME_LABEL, names.ZONE_LABEL
CAPACITY, ARCH, OS = names.CAPACITY_TYPE_LABEL, names.ARCH_LABEL, names.OS_LABEL
NC48 = "Standard_NC48ads_A100_v4"
GB200 = "Standard_ND128isr_NDR_GB200_v6"
UNREAD = dataclasses.replace(REGION, complete=False)


def offered(*requirements: dict[str, Any], sizes: Region = REGION, **fields: Any) -> Offer:
    chosen = choose(spec(*requirements, **fields), sizes=sizes)
    assert isinstance(chosen, Offer), chosen
    return chosen


def refused(*requirements: dict[str, Any], sizes: Region = REGION, **fields: Any) -> Refusal:
    chosen = choose(spec(*requirements, **fields), sizes=sizes)
    assert isinstance(chosen, Refusal), chosen
    return chosen


def an_a100(*requirements: dict[str, Any], **fields: Any) -> Offer:
    return offered(requirement(TYPE, "In", A100), *requirements, **fields)


def no_a100(*requirements: dict[str, Any], **fields: Any) -> Refusal:
    return refused(requirement(TYPE, "In", A100), *requirements, **fields)


def test_claim_of_kaito_is_an_on_demand_regional_node_of_that_size() -> None:
    offer = offer_of(claim())
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
    offer = offered(*requirements)
    assert offer.size.name == size
    assert dict(offer.labels)[TYPE] == size


@pytest.mark.parametrize("key", [TYPE, SKU])
@pytest.mark.parametrize("written", [A100.lower(), A100.upper()])
def test_size_in_another_letter_case_is_found_and_the_difference_is_told(written: str, key: str) -> None:
    offer = offered(requirement(key, "In", written))
    assert offer.size.name == A100
    assert offer.notes == (f"{written} is spelled {A100} by Azure, and so by the Node's {TYPE}.",)


@pytest.mark.parametrize("key", [TYPE, SKU])
def test_size_that_is_spelled_as_azure_spells_it_has_no_note(key: str) -> None:
    assert offered(requirement(key, "In", A100)).notes == ()


def test_size_is_not_listed_twice_by_its_two_spellings() -> None:
    offer = offered(requirement(TYPE, "In", A100), requirement(SKU, "In", A100.lower()))
    assert offer.size.name == A100
    assert dict(offer.labels)[SKU] == A100


def test_size_that_azure_has_retired_is_asked_for_with_a_warning() -> None:
    offer = offered(requirement(TYPE, "In", "Standard_NC6s_v3"))
    assert offer.notes == ("Standard_NC6s_v3 was retired by Azure on 2025-09-30; it may refuse to create it.",)


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
    offer = offered(requirement(key, "In", "Standard_NC1_v9"), sizes=UNREAD)
    assert offer.size == Size(name="Standard_NC1_v9")


@pytest.mark.parametrize(
    "requirements",
    [
        [],
        [requirement(TYPE, "NotIn", A100)],
        [requirement(TYPE, "Exists")],
        [requirement(OS, "In", "linux"), requirement(CAPACITY, "In", "on-demand")],
    ],
)
def test_claim_that_names_no_size_is_told_how_to(requirements: list[dict[str, Any]]) -> None:
    refusal = refused(*requirements)
    assert refusal.reason == "NoInstanceType"
    assert f"{TYPE} In [{A100}]" in refusal.message


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
    assert offer_of(claim(storage=storage)).os_disk_gib == gib


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
    refusal = choose(spec_of(claim(storage=storage)), sizes=REGION)
    assert isinstance(refusal, Refusal)
    assert refusal.reason == "InvalidStorage"
    assert refusal.message == (
        f"resources.requests.storage is the OS disk and must be above 0 and at most 2048Gi, not {shown}. "
        "Leave it out for Azure's default."
    )


def test_other_requests_do_not_matter_to_azure() -> None:
    requests = {"cpu": "500", "memory": "9Ti", "nvidia.com/gpu": "8"}
    assert an_a100(resources={"requests": requests}) == an_a100()


# Capacity type


@pytest.mark.parametrize(
    ("requirements", "capacity_type"),
    [
        ([], "on-demand"),
        ([requirement(CAPACITY, "In", "on-demand")], "on-demand"),
        ([requirement(CAPACITY, "In", "spot", "on-demand")], "on-demand"),
        ([requirement(CAPACITY, "In", "spot")], "spot"),
        ([requirement(CAPACITY, "In", "reserved", "spot")], "spot"),
        ([requirement(CAPACITY, "NotIn", "on-demand")], "spot"),
        ([requirement(CAPACITY, "Exists")], "on-demand"),
    ],
)
def test_capacity_type_is_on_demand_unless_the_claim_excludes_it(
    requirements: list[dict[str, Any]], capacity_type: str
) -> None:
    offer = an_a100(*requirements)
    assert offer.capacity_type == capacity_type
    assert dict(offer.labels)[CAPACITY] == capacity_type


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
        ([requirement(ZONE, "In", "eastus-2")], ("2",), "eastus-2"),
        ([requirement(ZONE, "In", "eastus-3", "eastus-1")], ("1", "3"), ""),
        ([requirement(ZONE, "In", "eastus-1", "eastus-2"), requirement(ZONE, "NotIn", "eastus-1")], ("2",), "eastus-2"),
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


def test_same_claim_gets_the_same_offer_each_time() -> None:
    assert offer_of(claim()) == offer_of(claim())


def test_region_of_another_cluster_is_refused_once_ours_is_known() -> None:
    asked = spec(requirement(TYPE, "In", A100), requirement(names.REGION_LABEL, "In", "westus"))
    refusal = choose(asked, sizes=REGION, location="eastus")
    assert isinstance(refusal, Refusal)
    assert refusal.reason == "UnsupportedRequirement"
    assert "eastus" in refusal.message
    assert isinstance(choose(asked, sizes=REGION, location="westus"), Offer)
    assert isinstance(choose(asked, sizes=REGION), Offer)
