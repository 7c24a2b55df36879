"""What a claim that leaves the choice to us is offered, by its requirements and by what it requests."""

from decimal import Decimal
from typing import Any

import pytest

from provisioner.apis import names
from provisioner.placement import labels
from provisioner.placement.market import Because
from provisioner.placement.resources import allocatable_memory, allocatable_millicores
from tests.unit.builders import A100, T4, requirement
from tests.unit.placement_builders import (
    B1,
    BASIC,
    D2,
    D4,
    D4_ARM,
    D8,
    DC4,
    E4_CONSTRAINED,
    FPGA,
    GB200,
    H100,
    MI300X,
    NC48,
    NEWER,
    V100,
    best,
    changed,
    cpu,
    gpu,
    market,
    offered,
    placed,
    refused,
)

TYPE, SKU, ARCH = names.INSTANCE_TYPE_LABEL, names.SKU_NAME_LABEL, names.ARCH_LABEL
ONE_GPU = {names.NVIDIA_GPU: "1"}
GIB = 1 << 30


# Which half of the sizes


@pytest.mark.parametrize(
    ("requirements", "requests"),
    [
        ([], {}),
        ([], {"cpu": "1", "memory": "1Gi", "pods": "30", "storage": "87Gi", names.NVIDIA_GPU: "0"}),
        ([requirement(TYPE, "NotIn", D8)], {}),
        ([requirement(TYPE, "Exists"), requirement(SKU, "Exists")], {}),
        ([requirement(labels.GPU_NAME, "NotIn", "T4")], {}),
        ([requirement(labels.GPU_NAME, "DoesNotExist")], {}),
        ([requirement(labels.GPU_COUNT, "In", "0")], {}),
        ([requirement(labels.GPU_COUNT, "Lt", "1")], {}),
        ([requirement(labels.FAMILY, "In", "N", "D")], {}),
    ],
)
def test_claim_that_asks_for_no_gpu_gets_the_cheapest_size_without_one(
    requirements: list[dict[str, Any]], requests: dict[str, str]
) -> None:
    names_offered = offered(*requirements, requests=requests)
    assert names_offered[0] == D2
    assert set(names_offered) <= {D2, D4, D8}


def test_sizes_that_are_only_for_claims_that_name_them_are_left_out_with_their_reason() -> None:
    placement = placed()
    assert {entry.size: (entry.because, entry.message) for entry in placement.left_out} == {
        D4_ARM: (Because.ONLY_BY_NAME, f"{D4_ARM} is arm64: only for claims that ask for it."),
        DC4: (Because.ONLY_BY_NAME, f"{DC4} is a confidential VM: only for claims that ask for it."),
        E4_CONSTRAINED: (
            Because.ONLY_BY_NAME,
            f"{E4_CONSTRAINED} costs as much as the size with all of its vCPUs: only for claims that ask for it.",
        ),
        BASIC: (
            Because.ONLY_BY_NAME,
            f"{BASIC} is of a tier that AKS makes no nodes of: only for claims that ask for it.",
        ),
        B1: (Because.TOO_SMALL, f"{B1} has 1 vCPUs and 1 GiB, and an AKS node needs 2 and 3.5 GiB."),
    }
    assert [offered(requirement(TYPE, "In", size)) for size in (D4_ARM, DC4, E4_CONSTRAINED, BASIC, B1)] == [
        [D4_ARM],
        [DC4],
        [E4_CONSTRAINED],
        [BASIC],
        [B1],
    ]


@pytest.mark.parametrize(
    ("requirements", "requests", "expected"),
    [
        ([], ONE_GPU, [T4, A100, H100, NC48]),
        ([], {names.NVIDIA_GPU: "2"}, [NC48]),
        ([], {names.AMD_GPU: "8"}, [MI300X]),
        ([requirement(labels.GPU_NAME, "In", "A100")], {}, [A100, NC48]),
        ([requirement(labels.GPU_NAME, "In", "a100", "t4")], {}, [T4, A100, NC48]),
        ([requirement(labels.GPU_NAME, "In", "H100")], {}, [H100]),
        ([requirement(labels.GPU_NAME, "In", "h100-nvl")], {}, [H100]),
        ([requirement(labels.GPU_NAME, "Exists")], {}, [T4, A100, H100, NC48, MI300X]),
        (
            [requirement(labels.GPU_NAME, "Exists"), requirement(labels.GPU_NAME, "NotIn", "H100NVL")],
            ONE_GPU,
            [T4, A100, NC48],
        ),
        ([requirement(labels.GPU_MANUFACTURER, "In", "AMD")], {}, [MI300X]),
        ([requirement(labels.GPU_MANUFACTURER, "In", "nvidia")], {}, [T4, A100, H100, NC48]),
        ([requirement(labels.GPU_COUNT, "Gt", "1")], {}, [NC48, MI300X]),
        (
            [requirement(labels.GPU_COUNT, "Gte", "1"), requirement(labels.GPU_COUNT, "Lte", "2")],
            {},
            [T4, A100, H100, NC48],
        ),
        ([requirement(labels.GPU_COUNT, "NotIn", "0", "1")], {}, [NC48, MI300X]),
        ([requirement(labels.NVIDIA_COUNT, "In", "2")], {}, [NC48]),
        ([requirement(labels.NVIDIA_MEMORY, "Gt", "20000")], {}, [A100, H100, NC48]),
        ([requirement(labels.NVIDIA_MEMORY, "In", "16384")], {}, [T4]),
        ([requirement(labels.NVIDIA_MEMORY, "Lt", "20000")], {}, [T4]),
        ([requirement(labels.FAMILY, "In", "N")], {}, [T4, A100, H100, NC48, MI300X]),
        ([requirement(labels.FAMILY, "In", "n"), requirement(labels.VERSION, "In", "3")], {}, [T4]),
        ([requirement(labels.SERIES, "In", "NCads_v4")], {}, [A100, NC48]),
        ([requirement(labels.CPU, "Lte", "24")], ONE_GPU, [T4, A100]),
        ([requirement(labels.MEMORY, "Gte", "225280")], ONE_GPU, [A100, H100, NC48]),
        ([requirement(TYPE, "NotIn", T4.lower())], ONE_GPU, [A100, H100, NC48]),
        ([requirement(SKU, "NotIn", A100)], ONE_GPU, [T4, H100, NC48]),
        ([requirement(ARCH, "In", "arm64")], ONE_GPU, [GB200]),
        ([requirement(ARCH, "NotIn", "amd64")], ONE_GPU, [GB200]),
        ([requirement(ARCH, "In", "amd64", "arm64")], {names.NVIDIA_GPU: "2"}, [NC48, GB200]),
        ([requirement(ARCH, "Exists")], {names.NVIDIA_GPU: "4"}, []),
        ([requirement(names.CAPACITY_TYPE_LABEL, "In", "spot")], ONE_GPU, [T4, A100, NC48]),
    ],
)
def test_claim_that_asks_for_a_gpu_gets_what_has_it_the_cheapest_first(
    requirements: list[dict[str, Any]], requests: dict[str, str], expected: list[str]
) -> None:
    assert offered(*requirements, requests=requests) == expected


def test_sizes_of_the_other_half_are_not_even_left_out() -> None:
    with_gpu, without = placed(requests=ONE_GPU), placed()
    seen = {entry.size for entry in with_gpu.left_out} | {offer.size.name for offer in with_gpu.offers}
    assert seen == {A100, NC48, T4, H100, MI300X, GB200, V100, FPGA, NEWER}
    assert seen.isdisjoint({entry.size for entry in without.left_out} | {o.size.name for o in without.offers})


def test_retired_size_is_not_chosen_for_a_claim_that_does_not_name_it() -> None:
    (entry,) = (entry for entry in placed(requests=ONE_GPU).left_out if entry.size == V100)
    assert entry.because is Because.ONLY_BY_NAME
    assert entry.message == f"{V100} was retired by Azure on 2025-09-30: only for claims that ask for it."
    assert offered(requests=ONE_GPU, at=market(changed(V100, retired="2027-01-01"))) == [V100]


def test_labels_of_other_names_do_not_choose_sizes() -> None:
    offer = best(requirement("team", "In", "vision"), requirement("kaito.sh/workspace", "Exists"), requests=ONE_GPU)
    assert offer.size.name == T4
    assert dict(offer.labels)["team"] == "vision"


def test_node_has_the_labels_that_the_claim_chooses_by_as_the_size_spells_them() -> None:
    offer = best(
        requirement(labels.GPU_NAME, "In", "a100"),
        requirement(labels.FAMILY, "In", "n"),
        requirement(labels.GPU_COUNT, "Gt", "0"),
        requirement(labels.NVIDIA_MEMORY, "Gt", "20000"),
    )
    assert dict(offer.labels) == {
        TYPE: A100,
        names.CAPACITY_TYPE_LABEL: "on-demand",
        names.OS_LABEL: "linux",
        ARCH: "amd64",
        labels.GPU_NAME: "A100",
        labels.FAMILY: "N",
        labels.GPU_COUNT: "1",
    }


# Named sizes and requirements


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (requirement(labels.GPU_COUNT, "Gt", "1"), f"{labels.GPU_COUNT} 1, and Gt [1]"),
        (requirement(labels.GPU_NAME, "In", "H100"), f"{labels.GPU_NAME} A100, and In [H100]"),
        (requirement(labels.GPU_NAME, "DoesNotExist"), f"{labels.GPU_NAME} A100, and DoesNotExist"),
    ],
)
def test_named_size_that_lacks_a_label_is_refused_by_what_it_has(asked: dict[str, Any], message: str) -> None:
    refusal = refused(requirement(TYPE, "In", A100), asked)
    assert refusal.reason == "ContradictoryRequirements"
    assert refusal.message == f"{A100} has {message} is asked for."


def test_named_size_without_the_label_at_all_is_refused() -> None:
    refusal = refused(requirement(TYPE, "In", D4), requirement(labels.GPU_NAME, "Exists"))
    assert refusal.message == f"{D4} has no {labels.GPU_NAME}, and Exists is asked for."


def test_size_that_nothing_is_known_of_is_not_judged() -> None:
    named = requirement(TYPE, "In", "Standard_ZZ_new")
    requirements = (requirement(labels.GPU_NAME, "In", "B300"), requirement(labels.CPU, "Gt", "9000"))
    requests = {names.NVIDIA_GPU: "8", "cpu": "5000", "memory": "9Ti"}
    offer = best(named, *requirements, requests=requests, at=market(complete=False))
    assert offer.size.name == "Standard_ZZ_new"


def test_gpus_of_a_size_that_is_newer_than_what_we_know_are_azures_to_judge_where_it_is_named() -> None:
    assert offered(requirement(TYPE, "In", NEWER), requests={names.NVIDIA_GPU: "4"}) == [NEWER]
    assert refused(requirement(TYPE, "In", FPGA), requests=ONE_GPU).message == (
        f"1 {names.NVIDIA_GPU} requested, {FPGA} has 0. Write a new claim: a spec cannot be changed."
    )


# Resource requests


def test_size_with_gpus_of_the_other_maker_does_not_do() -> None:
    refusal = refused(requirement(TYPE, "In", MI300X), requests={names.NVIDIA_GPU: "8"})
    assert refusal.reason == "NoFittingInstanceType"
    assert refusal.message.startswith(f"8 {names.NVIDIA_GPU} requested, {MI300X} has 0.")


@pytest.mark.parametrize(
    ("vcpus", "millicores"), [(1, 60), (2, 100), (4, 140), (8, 180), (16, 260), (32, 420), (64, 740)]
)
def test_cores_that_aks_reserves_are_those_of_its_documentation(vcpus: int, millicores: int) -> None:
    assert allocatable_millicores(vcpus) == vcpus * 1000 - millicores


def test_memory_that_can_be_allocated_is_less_than_that_of_the_vm() -> None:
    # A quarter of a small VM at most; 20 MiB a pod of a large one.
    assert allocatable_memory(8) == int(8 * GIB * 0.925) - 2 * GIB - (100 << 20)
    assert allocatable_memory(220) == int(220 * GIB * 0.925) - ((20 * 250 + 50) << 20) - (100 << 20)
    assert allocatable_memory(0.5) == int(0.5 * GIB * 0.675) - (100 << 20)
    assert allocatable_memory(0.1) == 0


@pytest.mark.parametrize(
    ("requests", "size"),
    [
        ({"cpu": "1900m"}, D2),
        ({"cpu": "1901m"}, D4),
        ({"cpu": "7"}, D8),
        ({"memory": "5Gi"}, D2),
        ({"memory": "8Gi"}, D4),
        ({"memory": "20Gi"}, D8),
        ({"cpu": "1", "memory": "1Gi", **ONE_GPU}, T4),
        ({"cpu": "8", **ONE_GPU}, A100),
        ({"memory": "190Gi", **ONE_GPU}, A100),
        ({"memory": "200Gi", **ONE_GPU}, H100),
    ],
)
def test_requests_fit_what_the_node_can_allocate(requests: dict[str, str], size: str) -> None:
    assert best(requests=requests).size.name == size


@pytest.mark.parametrize(
    ("requests", "message"),
    [
        ({"cpu": "-1"}, "resources.requests.cpu is -1: it must be 0 or more."),
        ({names.NVIDIA_GPU: "1500m"}, f"resources.requests.{names.NVIDIA_GPU} is 1.500: GPUs are requested as whole"),
        ({"example.com/fpga": "1"}, "resources.requests has example.com/fpga, which no VM size is known to have."),
        ({"nvidia.com/mig-1g.10gb": "1"}, "resources.requests has nvidia.com/mig-1g.10gb, which no VM size"),
    ],
)
def test_request_that_no_node_can_have_is_refused(requests: dict[str, str], message: str) -> None:
    for named in ([], [requirement(TYPE, "In", A100)]):
        refusal = refused(*named, requests=requests)
        assert refusal.reason == "UnsupportedResource"
        assert refusal.message.startswith(message)


def test_resource_that_none_is_requested_of_does_not_matter() -> None:
    assert offered(requests={"example.com/fpga": "0", "hugepages-2Mi": 0}) == [D2, D4, D8]


# Refusals


def test_refusal_of_many_sizes_names_what_comes_closest_in_few_words() -> None:
    refusal = refused(requests={names.NVIDIA_GPU: "16"})
    assert refusal.reason == "NoFittingInstanceType"
    assert refusal.message.startswith(
        f"None of 9 VM sizes with a GPU does: 16 {names.NVIDIA_GPU} requested, the most is 2 ({NC48}; 5 sizes); "
    )
    assert len(refusal.message) < 500


def test_refusal_by_a_label_lists_the_values_that_there_are() -> None:
    refusal = refused(requirement(labels.GPU_NAME, "In", "B200"))
    assert f"{labels.GPU_NAME} In [B200] asked for, there is A100, H100, MI300X, T4 (5 sizes)" in refusal.message


def test_refusal_of_several_named_sizes_says_what_is_wrong_with_each() -> None:
    refusal = refused(requirement(TYPE, "In", A100, T4, NC48, H100), requests={names.NVIDIA_GPU: "4"})
    assert refusal.reason == "NoFittingInstanceType"
    assert refusal.message == (
        f"4 nvidia.com/gpu requested, {A100} has 1; 4 nvidia.com/gpu requested, {T4} has 1; "
        f"4 nvidia.com/gpu requested, {NC48} has 2; and 1 more. Write a new claim: a spec cannot be changed."
    )


# A choice of values


@pytest.mark.parametrize(
    ("key", "wanted", "found"),
    [
        (TYPE, 4, None),
        (TYPE, 5, f"4 found: {A100}, {H100}, {NC48}, {T4}."),
        (labels.GPU_NAME, 3, None),
        (labels.GPU_NAME, 4, "3 found: A100, H100, T4."),
        (names.CAPACITY_TYPE_LABEL, 2, "1 found: on-demand."),
        (names.ZONE_LABEL, 2, "1 found: 0."),
        (names.REGION_LABEL, 2, "1 found: eastus."),
        ("team", 1, "0 found."),
    ],
)
def test_claim_that_wants_more_choice_than_there_is_is_refused(key: str, wanted: int, found: str | None) -> None:
    asked = {"key": key, "operator": "Exists", "minValues": wanted}
    placement = placed(asked, requests=ONE_GPU)
    if found is None:
        assert len(placement.offers) == 4
        return
    assert placement.refusal is not None
    assert placement.refusal.reason == "MinValuesNotMet"
    assert placement.refusal.message == f"{key} wants a choice of {wanted} values (minValues), {found}"
    assert placement.offers == ()


# Order


def test_of_sizes_at_one_price_the_one_that_wastes_least_comes_first() -> None:
    region = market(
        gpu("Standard_NC8_b", "T4", 8, 56, "1.0"),
        gpu("Standard_NC8_a", "T4", 8, 56, "1.0"),
        gpu("Standard_NC8_c", "T4", 8, 50, "1.0"),
        gpu("Standard_NC4_x", "T4", 4, 99, "1.0"),
        gpu("Standard_NC2_y", "T4", 2, 99, "1.0", gpu_count=2),
        gpu("Standard_NC1_z", "T4", 2, 9, None),
    )
    order = ["Standard_NC4_x", "Standard_NC8_c", "Standard_NC8_a", "Standard_NC8_b", "Standard_NC2_y", "Standard_NC1_z"]
    assert offered(requests=ONE_GPU, at=region) == order
    assert offered(requests={names.NVIDIA_GPU: "2"}, at=region) == ["Standard_NC2_y"]


def test_cheapest_of_all_capacity_types_comes_first() -> None:
    both = requirement(names.CAPACITY_TYPE_LABEL, "In", "spot", "on-demand")
    offers = placed(requirement(TYPE, "In", A100, T4), both).offers
    assert [(offer.size.name, offer.capacity_type, offer.price) for offer in offers] == [
        (T4, "spot", Decimal("0.110")),
        (T4, "on-demand", Decimal("0.526")),
        (A100, "spot", Decimal("1.469")),
        (A100, "on-demand", Decimal("3.673")),
    ]


def test_order_does_not_depend_on_that_of_the_list() -> None:
    one = cpu("Standard_D4s_v4", 4, "0.192"), cpu("Standard_D4s_v3", 4, "0.192"), cpu("Standard_D4s_v2", 4, "0.100")
    assert offered(at=market(*one)) == offered(at=market(*reversed(one)))
