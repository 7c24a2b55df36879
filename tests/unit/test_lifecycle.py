"""The whole life of a claim, as its author, Azure and the Node see it."""

import dataclasses
from datetime import timedelta
from typing import Any

import pytest

from provisioner.apis import names
from provisioner.apis.conditions import CONSISTENT_STATE_FOUND, INITIALIZED, LAUNCHED, READY, REGISTERED
from provisioner.apis.times import format_time
from provisioner.nodeclaim.lifecycle import reconcile
from provisioner.nodeclaim.nodeclass import hash_annotations
from provisioner.nodeclaim.view import CreatePool, DeletePool, FindInstance, NodePatch, Step
from tests.unit.builders import (
    A100,
    CREATED,
    GPU_TAINT,
    NAME,
    NOT_READY_TAINT,
    NOW,
    T4,
    claim,
    condition,
    failure,
    kaito_claim,
    listed,
    node,
    peers_pool,
    pool,
    provider_id,
    reached,
    recorded_claim,
    setback,
    users_pool,
    view,
)
from tests.unit.claim_world import NO_ROOM, World, created, failed, ready

CREATING = [
    ("Registered", "Unknown", "AwaitingReconciliation"),
    ("Initialized", "Unknown", "AwaitingReconciliation"),
    ("Launched", "Unknown", "CreatingAgentPool"),
    ("Ready", "Unknown", "ReconcilingDependents"),
]


# What a client sees, stage by stage


def test_claim_of_kaito_becomes_a_node_and_goes_again() -> None:
    world = World()
    created(world)
    writes, told = world.take()
    assert writes == ["metadata", "status", f"create {NAME}"]
    assert sorted(told) == sorted(CREATING)

    world.node_joins(ready="False", taints=[GPU_TAINT, NOT_READY_TAINT], gpus=None)
    world.settle()
    assert world.take() == (
        ["node", "status"],
        [
            ("Initialized", "Unknown", "NodeNotReady"),
            ("Launched", "True", "Launched"),
            ("Registered", "True", "Registered"),
        ],
    )
    assert (world.claim.provider_id, world.claim.node_name) == (provider_id(NAME), node().name)

    world.kubelet_reports(taints=[GPU_TAINT, NOT_READY_TAINT], gpus=None)
    world.settle()
    assert world.take() == (["status"], [("Initialized", "Unknown", "KnownEphemeralTaintsExist")])

    world.kubelet_reports(gpus=None)
    world.settle()
    assert world.take() == (["status"], [("Initialized", "Unknown", "ResourceNotRegistered")])

    world.kubelet_reports()
    world.settle()
    assert world.take() == (
        ["node", "status"],
        [
            ("Initialized", "True", "Initialized"),
            ("ConsistentStateFound", "True", "ConsistentStateFound"),
            ("Ready", "True", "Ready"),
        ],
    )

    world.azure_finishes()
    world.settle()
    assert world.take() == ([], [])

    world.client_deletes()
    world.settle()
    assert world.take() == (
        ["node", "node deleted", f"delete {NAME}", "status"],
        [
            ("Drained", "True", "Drained"),
            ("VolumesDetached", "True", "VolumesDetached"),
            ("InstanceTerminating", "True", "InstanceTerminating"),
        ],
    )
    assert world.claim.is_true(READY)

    world.azure_finishes()
    world.settle()
    assert world.take() == (["node gone", "released"], [])
    assert world.raw is None
    assert world.events == ["CreatingAgentPool", "Ready", "DeletingAgentPool"]


def test_labels_for_columns_and_workloads_are_on_claim_and_node() -> None:
    world = World()
    ready(world)
    labels = world.claim.labels
    assert (labels[names.INSTANCE_TYPE_LABEL], labels[names.CAPACITY_TYPE_LABEL]) == (A100, "on-demand")
    assert (labels[names.ZONE_LABEL], labels[names.REGION_LABEL]) == ("0", "eastus")
    (raw,) = world.nodes.values()
    assert raw["metadata"]["labels"].items() >= labels.items()
    assert raw["metadata"]["labels"]["kaito.sh/workspace"] == "workspace-phi-4-mini"


def test_status_of_a_ready_claim_names_node_vm_image_and_amounts() -> None:
    world = World()
    ready(world)
    assert world.raw is not None
    status = {key: value for key, value in world.raw["status"].items() if key != "conditions"}
    assert status == {
        "providerID": provider_id(NAME),
        "nodeName": node().name,
        "imageID": "AKSUbuntu-2204gen2containerd-202611.10.0",
        "capacity": {"cpu": "24", "memory": "220Gi", "pods": "110", "nvidia.com/gpu": "1"},
        "allocatable": {"cpu": "24", "memory": "220Gi", "pods": "110", "nvidia.com/gpu": "1"},
    }


def test_node_that_was_complete_when_it_joined_makes_the_claim_ready_in_one_step() -> None:
    world = World()
    created(world)
    world.take()
    world.node_joins()
    world.settle()
    assert world.take()[0] == ["node", "status"]
    assert world.claim.is_true(READY)


def test_startup_taints_are_put_on_the_node_once_and_awaited() -> None:
    startup = {"key": "example.com/starting", "effect": "NoSchedule"}
    world = World(kaito_claim(startupTaints=[startup]))
    created(world)
    world.node_joins()
    world.settle()
    assert world.told[-1] == ("Registered", "True", "Registered")
    assert [raw["spec"]["taints"] for raw in world.nodes.values()] == [[GPU_TAINT, startup]]
    assert not world.claim.is_true(INITIALIZED)
    world.kubelet_reports()
    world.settle()
    assert world.claim.is_true(READY)
    assert [raw["spec"]["taints"] for raw in world.nodes.values()] == [[GPU_TAINT]]


def test_pool_that_is_finished_before_its_node_joins_is_launched_by_its_vm() -> None:
    world = World()
    created(world)
    world.take()
    world.azure_finishes()
    world.has_machines = False
    expecting = world.settle()
    assert expecting is not None
    assert expecting.azure is None
    world.now += timedelta(seconds=10)
    waiting = world.settle()
    assert waiting is not None
    assert waiting.azure == FindInstance(name=NAME)
    assert waiting.again_after == timedelta(seconds=15)
    world.has_machines = True
    world.look()
    world.settle()
    assert world.take() == (["status"], [("Registered", "Unknown", "NodeNotFound"), ("Launched", "True", "Launched")])
    world.node_joins()
    world.settle()
    assert world.claim.is_true(READY)


def test_refused_creation_is_told_once_and_tried_again() -> None:
    world = World()
    world.refusal = failure()
    waiting = world.settle()
    assert waiting is not None
    assert timedelta(0) < (waiting.again_after or timedelta(0)) <= timedelta(minutes=2)
    assert ("Launched", "Unknown", "QuotaExceeded") in world.told
    world.take()
    world.retry_is_due()
    world.settle()
    assert world.take() == ([f"create {NAME}"], [])
    world.refusal = None
    world.retry_is_due()
    world.settle()
    assert world.take() == ([f"create {NAME}", "status"], [("Launched", "Unknown", "CreatingAgentPool")])
    assert world.events == ["CreatingAgentPool", "Warning QuotaExceeded", "CreatingAgentPool"]


def test_failed_pool_is_taken_down_and_created_again_after_a_pause() -> None:
    world = World()
    failed(world)
    world.take()
    world.settle()
    assert world.take() == (["status", f"delete {NAME}"], [("Launched", "Unknown", "InsufficientCapacity")])
    world.azure_finishes()
    waiting = world.settle()
    # There is no other size that the claim allows.
    writes, told = world.take()
    assert (writes, told[0]) == (["status"], ("Launched", "False", "InsufficientCapacity"))
    assert waiting is not None
    assert waiting.again_after is not None
    world.retry_is_due()
    world.settle()
    writes, told = world.take()
    assert (writes, told[0]) == (["status", f"create {NAME}"], ("Launched", "Unknown", "CreatingAgentPool"))
    assert world.events == ["CreatingAgentPool", "Warning InsufficientCapacity", "CreatingAgentPool"]


def test_failed_pool_is_followed_by_one_of_the_next_size() -> None:
    sizes = {"key": names.INSTANCE_TYPE_LABEL, "operator": "In", "values": [A100, T4]}
    world = World(kaito_claim(requirements=[sizes]))
    world.settle()
    asked = world.pools[NAME].vm_size
    assert world.claim.labels[names.INSTANCE_TYPE_LABEL] == asked
    world.pools[NAME] = dataclasses.replace(world.pools[NAME], state="Failed", error=NO_ROOM)
    world.settle()
    world.azure_finishes()
    world.settle()
    assert {asked, world.pools[NAME].vm_size} == {A100, T4}
    assert world.claim.labels[names.INSTANCE_TYPE_LABEL] == world.pools[NAME].vm_size
    assert world.claim.annotations[names.INSTANCE_TYPE_ANNOTATION] == world.pools[NAME].vm_size
    assert world.creations == 2


def test_ready_claim_stays_ready_when_its_node_is_not() -> None:
    world = World()
    ready(world)
    world.take()
    world.kubelet_reports(ready="Unknown", gpus=0)
    world.settle()
    assert world.take() == ([], [])


# Single looks


@pytest.mark.parametrize("deleted", [None, NOW])
def test_claim_of_another_provider_is_left_alone(deleted: Any) -> None:
    other = recorded_claim(
        nodeClassRef={"group": "karpenter.azure.com", "kind": "AKSNodeClass", "name": "default"},
        labels={},
        deleted=deleted,
    )
    assert reconcile(view(other, node(), pools=listed(pool()))) == Step()


DONE = (LAUNCHED, REGISTERED, INITIALIZED, CONSISTENT_STATE_FOUND, READY)


def observed(step: Step) -> dict[str, tuple[str, int]]:
    assert step.status is not None
    return {entry["type"]: (entry["status"], entry["observedGeneration"]) for entry in step.status["conditions"]}


def test_every_condition_is_confirmed_at_a_generation_that_rises_after_all_are_true() -> None:
    status = {"providerID": provider_id(NAME), "nodeName": node().name, "conditions": reached(*DONE)}
    done = recorded_claim(status=status, generation=2)
    step = reconcile(view(done, node(owner=done.uid), pools=listed(pool())))
    assert observed(step) == dict.fromkeys(DONE, ("True", 2))
    assert step.status is not None
    assert {entry["lastTransitionTime"] for entry in step.status["conditions"]} == {format_time(CREATED)}
    assert (step.metadata, step.notices) == (None, ())


def test_every_condition_is_of_the_last_generation_once_the_claim_goes() -> None:
    status = {"providerID": provider_id(NAME), "nodeName": node().name, "conditions": reached(*DONE)}
    going = recorded_claim(status=status, deleted=NOW)
    step = reconcile(view(going, node(owner=going.uid), pools=listed(pool(state="Deleting"))))
    assert observed(step) == dict.fromkeys((*DONE, "InstanceTerminating"), ("True", 2))


def test_finalizer_comes_with_the_step_that_asks_azure_for_a_pool() -> None:
    step = reconcile(view(claim()))
    assert isinstance(step.azure, CreatePool)
    assert step.metadata is not None
    assert step.metadata["finalizers"] == ["karpenter.sh/termination"]


def test_claim_that_goes_without_waiting_for_us_is_left_alone() -> None:
    going = claim(deleted=NOW, finalizers=("foregroundDeletion",))
    assert reconcile(view(going, node(), pools=listed(pool(state="Deleting")))) == Step()


def test_finalizers_of_others_stay() -> None:
    step = reconcile(view(claim(finalizers=("example.com/theirs",))))
    assert step.metadata is not None
    assert step.metadata["finalizers"] == ["example.com/theirs", "karpenter.sh/termination"]


def test_annotation_that_is_there_is_not_written_again() -> None:
    recorded = claim(annotations={names.AGENT_POOL_ANNOTATION: NAME})
    step = reconcile(view(recorded))
    assert step.metadata is not None
    assert step.metadata["annotations"] == {names.INSTANCE_TYPE_ANNOTATION: A100, **hash_annotations("")}


def test_conditions_of_others_stay() -> None:
    theirs = condition("Drifted", "True", "NodePoolDrifted", "NodePoolDrifted")
    step = reconcile(view(claim(status={"conditions": [theirs]})))
    assert step.status is not None
    assert theirs in step.status["conditions"]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [({"storage": "4Ti"}, "InvalidStorage"), ({"taints": [{"effect": "?"}]}, "InvalidSpec")],
)
def test_claim_that_cannot_be_served_fails_with_a_warning_and_holds_nobody_up(
    changes: dict[str, Any], reason: str
) -> None:
    step = reconcile(view(claim(**changes)))
    assert step.metadata is None
    assert step.azure is None
    assert step.status is not None
    told = {entry["type"]: (entry["status"], entry["reason"]) for entry in step.status["conditions"]}
    assert told[LAUNCHED] == ("False", reason)
    assert told[READY] == ("False", "UnhealthyDependents")
    assert [(notice.reason, notice.is_warning) for notice in step.notices] == [(reason, True)]


@pytest.mark.parametrize("old", ["22 vCPUs needed, 0 left.", "24 vCPUs needed, 0 left."])
def test_refusal_with_other_numbers_is_shown_but_no_new_event(old: str) -> None:
    known = recorded_claim(status=reconcile(view(recorded_claim(), setback=setback())).status)
    shown = known.is_true(LAUNCHED), next(c for c in known.conditions if c.type == LAUNCHED).message
    assert shown == (False, "24 vCPUs needed, 0 left.")
    other = dataclasses.replace(setback(), failure=failure(message=old))
    step = reconcile(view(known, setback=other))
    assert (step.status is None) == (old == "24 vCPUs needed, 0 left.")
    assert step.notices == ()


def test_status_of_a_claim_that_goes_with_this_step_is_not_written() -> None:
    step = reconcile(view(recorded_claim(deleted=NOW)))
    assert step == Step(release=True)


def test_violated_invariant_is_a_warning() -> None:
    status = {"providerID": provider_id(NAME), "conditions": reached(LAUNCHED)}
    step = reconcile(view(recorded_claim(status=status), node(), node(name="twin"), pools=listed(pool())))
    assert [(notice.reason, notice.is_warning) for notice in step.notices] == [("MultipleNodesFound", True)]


def test_claim_that_the_peer_has_made_ready_gets_the_label_of_its_class_with_its_node_and_nothing_else() -> None:
    status = {
        "providerID": provider_id(NAME),
        "nodeName": node().name,
        "conditions": reached(INITIALIZED, LAUNCHED, REGISTERED, READY),
    }
    done = claim(status=status, finalizers=(names.TERMINATION_FINALIZER,))
    held = node(owner=done.uid, finalizers=[names.TERMINATION_FINALIZER])
    step = reconcile(view(done, held, pools=listed(peers_pool())))
    labels = {"labels": {names.NODECLASS_LABEL: "default"}}
    assert step == Step(metadata=labels, node_patch=NodePatch(node=held, patch={"metadata": labels}), settled=True)


def test_claim_that_the_peer_was_launching_goes_on_with_the_same_pool() -> None:
    status = {"conditions": [condition(LAUNCHED, "Unknown", "LaunchFailed", "timeout")]}
    step = reconcile(view(claim(status=status), node(), pools=listed(peers_pool(state="Creating"))))
    assert step.metadata is not None
    assert step.metadata["annotations"][names.AGENT_POOL_ANNOTATION] == NAME
    assert step.azure is None
    assert step.status is not None
    assert step.status["nodeName"] == node().name


@pytest.mark.parametrize("stage", ["creating", "deleting"])
def test_refused_request_is_tried_again_without_anybodys_help(stage: str) -> None:
    waiting = {
        "creating": view(recorded_claim(), setback=setback(CreatePool)),
        "deleting": view(recorded_claim(deleted=NOW), pools=listed(pool()), setback=setback(DeletePool)),
    }[stage]
    step = reconcile(waiting)
    assert step.azure is None
    assert step.again_after is not None
    assert step.again_after <= timedelta(minutes=1)


def test_foreign_pool_is_evaded_in_two_steps_and_never_asked_anything() -> None:
    world = World()
    world.pools[NAME] = users_pool()
    world.settle()
    (alternative,) = set(world.pools) - {NAME}
    assert world.writes == ["metadata", "status", "metadata", "status", f"create {alternative}"]
    assert world.pools[NAME] == users_pool()
    assert world.claim.agent_pool == alternative
