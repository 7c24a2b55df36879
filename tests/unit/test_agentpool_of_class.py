"""What a KaitoNodeClass puts into the body of the PUT."""

import dataclasses
from typing import Any

import pytest

from provisioner.apis import names
from provisioner.apis.nodeclass import read_spec
from provisioner.nodeclaim.agentpool_spec import render
from provisioner.placement.terms import partitioned
from tests.node_classes import FULL, RESERVATION, SUBNET
from tests.unit.builders import A100, GPU_TAINT, NAME, UID, claim, offer_of, requirement, spec_of
from tests.unit.placement_builders import D4, MI300X, changed

SPOT = [
    requirement(names.INSTANCE_TYPE_LABEL, "In", A100),
    requirement(names.CAPACITY_TYPE_LABEL, "In", "spot"),
]


def properties(class_fields: Any, *, size: str = A100, profile: str = "", **of_claim: Any) -> dict[str, Any]:
    """Return what is asked of AKS for a claim of a class."""
    found, error = read_spec(class_fields)
    assert error == ""
    asked = claim(size=size, **of_claim)
    cut = partitioned(changed(size, mig=size == A100), profile)
    assert cut is not None
    offer = dataclasses.replace(offer_of(asked), size=cut)
    result: dict[str, Any] = render(asked, spec_of(asked), offer, node_class=found)["properties"]
    return result


def added(class_fields: Any, **more: Any) -> dict[str, Any]:
    """Return what the class has added to the body, or changed in it."""
    without = properties({}, **more)
    return {key: value for key, value in properties(class_fields, **more).items() if without.get(key) != value}


@pytest.mark.parametrize("fields", [{}, None, {"sizePreference": "Listed", "devicePlugin": "Ignored", "zones": ["1"]}])
def test_class_that_says_nothing_of_nodes_adds_nothing(fields: Any) -> None:
    assert added(fields) == {}


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"vnetSubnetID": SUBNET}, {"vnetSubnetID": SUBNET}),
        ({"capacityReservationGroupID": RESERVATION}, {"capacityReservationGroupID": RESERVATION}),
        ({"maxPods": 30}, {"maxPods": 30}),
        ({"osSKU": "Ubuntu2404"}, {"osSKU": "Ubuntu2404"}),
        ({"osSKU": "AzureLinux"}, {"osSKU": "AzureLinux"}),
        ({"osDiskType": "Ephemeral"}, {"osDiskType": "Ephemeral"}),
        ({"gpuDriver": "None"}, {"gpuProfile": {"driver": "None"}}),
        ({"gpuDriver": "Install"}, {"gpuProfile": {"driver": "Install"}}),
        ({"gpuManagementMode": "Managed"}, {"gpuProfile": {"nvidia": {"managementMode": "Managed"}}}),
        (
            {"gpuManagementMode": "Unmanaged", "gpuDriver": "Install"},
            {"gpuProfile": {"driver": "Install", "nvidia": {"managementMode": "Unmanaged"}}},
        ),
        # For spot VMs alone.
        ({"spot": {"maxPrice": 1.5, "evictionPolicy": "Deallocate"}, "maxPricePerHour": 8}, {}),
    ],
)
def test_field_is_in_the_body_by_the_name_that_aks_has_for_it(fields: Any, expected: dict[str, Any]) -> None:
    assert added(fields) == expected


def test_distribution_of_the_class_wins_over_the_family_that_every_claim_of_kaito_names() -> None:
    azure_linux = {names.NODE_IMAGE_FAMILY_ANNOTATION: "azurelinux"}
    assert properties({"tags": {"a": "b"}}, annotations=azure_linux)["osSKU"] == "AzureLinux"
    assert added({"osSKU": "Ubuntu2204"}, annotations=azure_linux) == {"osSKU": "Ubuntu2204"}


@pytest.mark.parametrize(
    ("fields", "policy", "price"),
    [
        ({}, "Delete", -1),
        ({"spot": {"evictionPolicy": "Deallocate"}}, "Deallocate", -1),
        ({"spot": {"maxPrice": 1.23456}}, "Delete", 1.23456),
        ({"maxPricePerHour": 2, "spot": {"maxPrice": 3}}, "Delete", 2.0),
    ],
)
def test_spot_pool_has_the_policy_and_the_lower_cap_of_its_class(fields: Any, policy: str, price: float) -> None:
    found = properties(fields, requirements=SPOT)
    assert (found["scaleSetPriority"], found["scaleSetEvictionPolicy"]) == ("Spot", policy)
    assert found["spotMaxPrice"] == price


def test_spot_pool_takes_nothing_from_a_reservation() -> None:
    assert added({"capacityReservationGroupID": RESERVATION}, requirements=SPOT) == {}


@pytest.mark.parametrize("fields", [{"gpuDriver": "Install"}, {"gpuManagementMode": "Managed"}, {}])
def test_amds_gpus_never_get_a_driver_of_akss(fields: Any) -> None:
    assert properties(fields, size=MI300X)["gpuProfile"] == {"driver": "None"}


@pytest.mark.parametrize("fields", [{"gpuDriver": "None"}, {"gpuManagementMode": "Managed"}])
def test_size_without_gpus_has_no_profile_of_gpus(fields: Any) -> None:
    assert added(fields, size=D4) == {}


def test_partitioned_gpus_are_asked_for_by_their_profile() -> None:
    assert properties({}, profile="MIG2g")["gpuInstanceProfile"] == "MIG2g"
    assert "gpuInstanceProfile" not in properties({"gpuInstanceProfile": "MIG2g"}, size=D4, profile="MIG2g")


def test_own_tags_are_there_beside_those_of_the_class() -> None:
    found = properties({"tags": {"env": "test", "cost center": "4711"}})["tags"]
    assert found == {"env": "test", "cost center": "4711", names.CLAIM_TAG: NAME, names.CLAIM_UID_TAG: UID}


def test_claims_own_label_wins_over_one_of_the_same_key() -> None:
    found = properties({"labels": {"apps": "of-the-class", "team": "vision"}})["nodeLabels"]
    assert found == {**properties({})["nodeLabels"], "team": "vision"}
    assert found["apps"] == "phi-4"


def test_claims_own_taint_wins_over_one_of_the_same_key_and_effect() -> None:
    of_class = [
        {"key": "sku", "value": "cpu", "effect": "NoSchedule"},
        {"key": "sku", "value": "cpu", "effect": "NoExecute"},
        {"key": "startup", "value": "later", "effect": "NoSchedule"},
        {"key": "team", "effect": "PreferNoSchedule"},
    ]
    startup = [{"key": "startup", "value": "now", "effect": "NoSchedule"}]
    found = properties({"taints": of_class}, taints=[GPU_TAINT], startupTaints=startup)
    assert found["nodeTaints"] == ["sku=gpu:NoSchedule", "sku=cpu:NoExecute", "team=:PreferNoSchedule"]


def test_every_field_together_is_one_body() -> None:
    found = properties(FULL, profile="MIG1g")
    assert found["vnetSubnetID"] == SUBNET
    assert found["gpuProfile"] == {"driver": "None", "nvidia": {"managementMode": "Unmanaged"}}
    assert found.keys() - properties({}).keys() == {
        "vnetSubnetID",
        "maxPods",
        "osDiskType",
        "gpuInstanceProfile",
        "gpuProfile",
        "capacityReservationGroupID",
    }
