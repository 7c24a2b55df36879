"""Consistency: the Node of an initialized claim has what its VM size promises, and an Event says where it has not."""

from typing import Any

import pytest

from provisioner.apis import names
from provisioner.apis.conditions import CONSISTENT_STATE_FOUND, INITIALIZED, LAUNCHED, READY, REGISTERED
from provisioner.apis.nodeclaim import NodeClaim
from provisioner.nodeclaim.lifecycle import reconcile
from provisioner.nodeclaim.view import Step
from provisioner.placement.size import Size
from tests.unit.builders import (
    NAME,
    condition,
    listed,
    node,
    pool,
    provider_id,
    reached,
    recorded_claim,
    view,
)
from tests.unit.claim_world import World, ready, running

EIGHT = Size(name="Standard_ND96isr_H100_v5", vcpus=96, memory_gib=1900, gpu_count=8)
FOUND = reached(CONSISTENT_STATE_FOUND)
FAILED = [condition(CONSISTENT_STATE_FOUND, "False", "ConsistencyCheckFailed", "Consistency Check Failed")]


def initialized(*found: dict[str, Any], capacity: Any = None, **changes: Any) -> NodeClaim:
    status = {
        "providerID": provider_id(NAME),
        "nodeName": node().name,
        "capacity": capacity or {},
        "conditions": [*reached(INITIALIZED, LAUNCHED, REGISTERED), *found, *reached(READY)],
    }
    return recorded_claim(status=status, **changes)


def look(claim: NodeClaim, *, size: Size = EIGHT, wait_for_gpus: bool = True, **of_node: Any) -> Step:
    labels = {names.NODECLASS_LABEL: "default"}
    joined = node(owner=claim.uid, labels=labels, finalizers=[names.TERMINATION_FINALIZER], **of_node)
    return reconcile(view(claim, joined, pools=listed(pool()), recorded_size=size, wait_for_gpus=wait_for_gpus))


def consistent(step: Step) -> tuple[str, str, str] | None:
    conditions = (step.status or {}).get("conditions", [])
    return next(
        ((c["status"], c["reason"], c["message"]) for c in conditions if c["type"] == CONSISTENT_STATE_FOUND), None
    )


@pytest.mark.parametrize(
    ("requests", "capacity", "message"),
    [
        ({}, {"nvidia.com/gpu": "8"}, ""),
        ({}, {"nvidia.com/gpu": "7"}, "expected 8 of resource nvidia.com/gpu, but found 7 (87.5% of expected)"),
        ({}, {}, "expected 8 of resource nvidia.com/gpu, but found 0 (0.0% of expected)"),
        ({}, {"nvidia.com/gpu": "16"}, ""),
        ({"cpu": "4"}, {"nvidia.com/gpu": "8", "cpu": "87"}, ""),
        (
            {"cpu": "4"},
            {"nvidia.com/gpu": "8", "cpu": "48"},
            "expected 96 of resource cpu, but found 48 (50.0% of expected)",
        ),
        ({"cpu": "0"}, {"nvidia.com/gpu": "8", "cpu": "48"}, ""),
        ({"memory": "1Gi"}, {"nvidia.com/gpu": "8", "memory": "1750Gi"}, ""),
        (
            {"memory": "1Gi"},
            {"nvidia.com/gpu": "8", "memory": "900Gi"},
            "expected 1758Gi of resource memory, but found 900Gi (51.2% of expected)",
        ),
        ({"storage": "87Gi"}, {"nvidia.com/gpu": "8"}, ""),
        (
            {"example.com/fpga": "1"},
            {"nvidia.com/gpu": "8", "example.com/fpga": "1"},
            "expected 2 of resource example.com/fpga, but found 1 (50.0% of expected)",
        ),
        ({"example.com/other": "1"}, {"nvidia.com/gpu": "8"}, ""),
    ],
)
def test_node_has_ninety_percent_of_what_its_size_promises_or_it_once_had(
    requests: Any, capacity: Any, message: str
) -> None:
    claim = initialized(*FOUND, resources={"requests": requests}, capacity={"example.com/fpga": "2"})
    step = look(claim, capacity=capacity)
    if message:
        assert consistent(step) == ("False", "ConsistencyCheckFailed", "Consistency Check Failed")
    else:
        assert step.status is None
    told = [(notice.reason, notice.message, notice.is_warning) for notice in step.notices]
    assert told == ([("FailedConsistencyCheck", message, True)] if message else [])


def test_node_that_is_consistent_again_says_so() -> None:
    step = look(initialized(*FAILED), capacity={"nvidia.com/gpu": "8"})
    assert consistent(step) == ("True", "ConsistentStateFound", "")
    assert step.notices == ()


def test_inconsistency_is_told_once() -> None:
    step = look(initialized(*FAILED), capacity={"nvidia.com/gpu": "6"})
    assert (step.status, step.notices) == (None, ())


@pytest.mark.parametrize("found", [[], FOUND])
def test_claim_stays_ready_whatever_its_node_lacks(found: list[Any]) -> None:
    step = look(initialized(*found), capacity={})
    assert step.status is not None
    assert [(c["type"], c["status"]) for c in step.status["conditions"]][-1] == ("Ready", "True")


@pytest.mark.parametrize("changes", [{"ready": "Unknown"}, {"deleting": True}])
def test_node_that_is_not_ready_is_not_judged(changes: dict[str, Any]) -> None:
    step = look(initialized(*FOUND), capacity={}, **changes)
    assert (step.status, step.notices) == (None, ())


def test_gpus_that_nobody_waits_for_may_be_sliced_away() -> None:
    assert look(initialized(*FOUND), capacity={"nvidia.com/mig-1g.10gb": "56"}, wait_for_gpus=False).status is None


def test_amounts_that_are_none_promise_nothing() -> None:
    claim = initialized(*FOUND, resources={"requests": {"example.com/fpga": "1"}}, capacity={"example.com/fpga": "?"})
    assert look(claim, capacity={"nvidia.com/gpu": "8"}).status is None


def test_claim_that_was_initialized_without_the_condition_is_not_written_for_it() -> None:
    assert look(initialized(), capacity={"nvidia.com/gpu": "8"}) == Step(settled=True)


def test_claim_of_another_provider_is_not_judged() -> None:
    foreign = {"group": "karpenter.azure.com", "kind": "AKSNodeClass", "name": "default"}
    assert look(initialized(*FOUND, nodeClassRef=foreign, labels={}), capacity={}) == Step()


def test_condition_is_written_with_initialized_and_costs_no_request() -> None:
    world = World()
    running(world)
    world.take()
    world.kubelet_reports()
    world.settle()
    writes, told = world.take()
    assert writes == ["node", "status"]
    assert (CONSISTENT_STATE_FOUND, "True", CONSISTENT_STATE_FOUND) in told


def test_claim_that_is_not_initialized_is_not_judged() -> None:
    world = World()
    running(world)
    assert not [c for c in world.claim.conditions if c.type == CONSISTENT_STATE_FOUND]


def test_gpu_that_falls_off_a_ready_node_is_told_once() -> None:
    world = World()
    ready(world)
    world.take()
    world.events.clear()
    world.kubelet_reports(gpus=0)
    world.settle()
    assert world.take() == (["status"], [("ConsistentStateFound", "False", "ConsistencyCheckFailed")])
    assert world.claim.is_true(READY)
    world.kubelet_reports()
    world.settle()
    assert world.events == ["Warning FailedConsistencyCheck"]
