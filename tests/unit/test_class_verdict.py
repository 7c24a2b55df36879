"""Whether claims may use a class: what is wrong with it, and what could not be checked."""

from collections.abc import Mapping
from typing import Any

import pytest

from provisioner.apis.nodeclass import read_spec
from provisioner.apis.quota import Usage
from provisioner.apis.reservation import Reserved
from provisioner.nodeclaim.class_verdict import Finding, Reference, Verdict, judge, ready_status, references
from tests.node_classes import RESERVATION, SUBNET
from tests.unit.builders import A100, NOW, T4, condition
from tests.unit.placement_builders import Catalogue, changed

OPEN = Catalogue((changed(A100, mig=True, zones=("1", "3")), changed(T4, zones=("2",))))
USABLE = Verdict(is_ready=True, reason="Ready", message="The class can be used.")
THERE, MISSING = Finding(exists=True), Finding(exists=False)
NONE: Mapping[str, Finding] = {}
NO_USAGES: Mapping[str, Usage] = {}
UNTOLD = Finding(exists=None, why="the identity lacks x/read")


def verdict(
    fields: Any,
    findings: Mapping[str, Finding] = NONE,
    *,
    sizes: Catalogue = OPEN,
    usages: Mapping[str, Usage] = NO_USAGES,
) -> Verdict:
    spec, error = read_spec(fields)
    found: Mapping[Reference, Finding] = {each: findings[each.field] for each in references(spec)}
    return judge(spec, error=error, findings=found, sizes=sizes, usages=usages, location="eastus")


@pytest.mark.parametrize(
    "fields",
    [{}, None, {"maxPods": 30}, {"zones": ["1"]}, {"zones": ["2", "9"]}, {"gpuInstanceProfile": "MIG1g"}],
)
def test_class_that_something_can_be_made_of_is_ready(fields: Any) -> None:
    assert verdict(fields) == USABLE


def test_field_that_is_wrong_is_named() -> None:
    told = verdict({"maxPods": 5})
    assert (told.is_ready, told.reason) == (False, "InvalidField")
    assert told.message.startswith("spec.maxPods: ")


@pytest.mark.parametrize(
    ("field", "resource", "reason", "kind"),
    [
        ("vnetSubnetID", SUBNET, "SubnetNotFound", "subnet"),
        ("capacityReservationGroupID", RESERVATION, "CapacityReservationGroupNotFound", "capacity reservation group"),
    ],
)
def test_what_the_class_names_has_to_be_there(field: str, resource: str, reason: str, kind: str) -> None:
    assert verdict({field: resource}, {field: THERE}) == USABLE
    told = verdict({field: resource}, {field: MISSING})
    assert (told.is_ready, told.reason) == (False, reason)
    assert f"spec.{field}: there is no {kind} {resource}. Create it" in told.message
    untold = verdict({field: resource}, {field: UNTOLD})
    assert (untold.is_ready, untold.reason) == (True, "Ready")
    assert untold.message == f"The class can be used. Not checked: the {kind} of spec.{field} ({UNTOLD.why})."


def test_one_resource_that_is_missing_outweighs_one_that_could_not_be_checked() -> None:
    fields = {"vnetSubnetID": SUBNET, "capacityReservationGroupID": RESERVATION}
    told = verdict(fields, {"vnetSubnetID": UNTOLD, "capacityReservationGroupID": MISSING})
    assert told.reason == "CapacityReservationGroupNotFound"


@pytest.mark.parametrize(
    ("fields", "sizes", "says"),
    [
        (
            {"zones": ["4", "5"]},
            OPEN,
            "spec.zones: no VM size that is open to this subscription can be had in zones 4, 5 of eastus.",
        ),
        ({"zones": ["2"], "gpuInstanceProfile": "MIG1g"}, OPEN, "spec.zones: no VM size with MIG1g that is open"),
        ({"gpuInstanceProfile": "MIG1g"}, Catalogue((changed(T4),)), "spec.gpuInstanceProfile: no VM size of eastus"),
        (
            {"gpuInstanceProfile": "MIG1g"},
            Catalogue((changed(A100, mig=True, restriction="is closed"),)),
            "spec.gpuInstanceProfile: no VM size of eastus",
        ),
    ],
)
def test_class_that_no_size_of_the_region_does_for_is_not_ready(fields: Any, sizes: Catalogue, says: str) -> None:
    told = verdict(fields, sizes=sizes)
    assert (told.is_ready, told.reason) == (False, "NoSuitableVMSize")
    assert told.message.startswith(says)


def test_without_azures_list_of_sizes_it_is_not_judged_by_them() -> None:
    unread = Catalogue((changed(T4),), complete=False)
    assert verdict({"gpuInstanceProfile": "MIG1g", "zones": ["7"]}, sizes=unread) == USABLE


def reserving(*reserved: tuple[str, str]) -> Mapping[str, Finding]:
    """The group of the class reserves sizes in zones."""
    held = frozenset(Reserved(size.lower(), zone) for size, zone in reserved)
    return {"capacityReservationGroupID": Finding(exists=True, reserved=held)}


GROUP = {"capacityReservationGroupID": RESERVATION}


@pytest.mark.parametrize(
    ("fields", "reserved"),
    [
        ({}, [(A100, "")]),
        # Which zone a claim asks for is its own to say.
        ({}, [(A100, "1")]),
        ({"zones": ["1", "2"]}, [(T4, "3"), (A100, "1")]),
        ({"gpuInstanceProfile": "MIG1g"}, [(T4, ""), (A100, "")]),
    ],
)
def test_group_that_reserves_what_the_class_allows_does(fields: Any, reserved: list[tuple[str, str]]) -> None:
    assert verdict(GROUP | fields, reserving(*reserved)) == USABLE


@pytest.mark.parametrize(
    ("fields", "reserved", "what"),
    [
        ({}, [("Standard_Else", "")], "standard_else"),
        ({"zones": ["1"]}, [(A100, "3"), (A100, "")], f"{A100.lower()}, {A100.lower()} in zone 3"),
        ({"gpuInstanceProfile": "MIG1g"}, [(T4, "2")], f"{T4.lower()} in zone 2"),
    ],
)
def test_group_that_reserves_what_the_class_rules_out_does_not(
    fields: Any, reserved: list[tuple[str, str]], what: str
) -> None:
    told = verdict(GROUP | fields, reserving(*reserved))
    assert (told.is_ready, told.reason) == (False, "NoSuitableVMSize")
    assert told.message.startswith(f"spec.capacityReservationGroupID: reserved is {what}, which the class")


def test_group_that_reserves_nothing_does_not() -> None:
    told = verdict(GROUP, reserving())
    assert (told.is_ready, told.reason) == (False, "CapacityReservationGroupEmpty")
    assert f"nothing is reserved in the capacity reservation group {RESERVATION}" in told.message


def quotas(**limits: int) -> dict[str, Usage]:
    return {
        f"standard{gpu}Family".lower(): Usage(name=f"standard{gpu}Family", limit=n, used=0) for gpu, n in limits.items()
    }


@pytest.mark.parametrize(
    ("fields", "usages", "says"),
    [
        (
            {"gpuInstanceProfile": "MIG1g"},
            quotas(A100=23),
            "against standardA100Family (limit 23), which is too little",
        ),
        ({"zones": ["1", "2"]}, quotas(A100=0, T4=0), "standardA100Family (limit 0), standardT4Family (limit 0)"),
        ({"gpuInstanceProfile": "MIG1g"}, quotas(A100=24), ""),
        ({"zones": ["1", "2"]}, quotas(A100=0, T4=4), ""),
        # What is not known is not judged, and what the class leaves open is the claim's affair.
        ({"zones": ["1", "2"]}, quotas(A100=0), ""),
        ({"maxPods": 30}, quotas(A100=0, T4=0), ""),
    ],
)
def test_quota_that_is_too_little_for_all_that_the_class_allows_is_told_and_no_more(
    fields: Any, usages: dict[str, Usage], says: str
) -> None:
    told = verdict(fields, usages=usages)
    assert told.is_ready
    assert ("No quota: " in told.message) is bool(says)
    assert says in told.message


# The condition

MISSING_SUBNET = Verdict(is_ready=False, reason="SubnetNotFound", message="There is none.")
READY_NOW = {
    "type": "Ready",
    "status": "True",
    "reason": "Ready",
    "message": "The class can be used.",
    "lastTransitionTime": "2026-11-21T04:34:26Z",
    "observedGeneration": 1,
}


def node_class(*conditions: dict[str, Any], **metadata: Any) -> dict[str, Any]:
    return {
        "metadata": {"name": "default", "generation": 1, **metadata},
        "status": {"conditions": list(conditions)} if conditions else {},
    }


@pytest.mark.parametrize(
    "raw", [node_class(), {"metadata": {"name": "default"}}, {**node_class(), "status": None}], ids=str
)
def test_new_class_gets_the_verdict(raw: dict[str, Any]) -> None:
    assert ready_status(raw, USABLE, now=NOW) == {"conditions": [READY_NOW]}


def test_verdict_that_is_written_is_not_written_again() -> None:
    assert ready_status(node_class(READY_NOW), USABLE, now=NOW) is None


@pytest.mark.parametrize(
    ("stored", "since"),
    [
        (condition("Ready", "True", "Ready"), "2026-11-21T04:34:24Z"),
        (condition("Ready", "Unknown", "AwaitingReconciliation"), "2026-11-21T04:34:26Z"),
        (condition("Ready", "False", "Broken", generation=2), "2026-11-21T04:34:26Z"),
    ],
    ids=["ready before", "unknown", "somebody said false"],
)
def test_class_of_a_new_generation_is_ready_since_it_first_was(stored: dict[str, Any], since: str) -> None:
    expected = {**READY_NOW, "observedGeneration": 2, "lastTransitionTime": since}
    assert ready_status(node_class(stored, generation=2), USABLE, now=NOW) == {"conditions": [expected]}


def test_class_that_has_lost_its_subnet_is_not_ready_from_then_on() -> None:
    status = ready_status(node_class(READY_NOW), MISSING_SUBNET, now=NOW)
    assert status is not None
    (told,) = status["conditions"]
    assert (told["status"], told["reason"], told["message"]) == ("False", "SubnetNotFound", "There is none.")
    assert ready_status(node_class(told), MISSING_SUBNET, now=NOW) is None


def test_conditions_of_others_stay() -> None:
    other = condition("SubnetReady", "True", "Found")
    assert ready_status(node_class(other), USABLE, now=NOW) == {"conditions": [other, READY_NOW]}


def test_class_that_is_being_deleted_is_left_alone() -> None:
    assert ready_status(node_class(deletionTimestamp="2026-11-21T04:34:26Z"), USABLE, now=NOW) is None
