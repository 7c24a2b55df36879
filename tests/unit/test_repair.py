"""Repair: a Node that has been unwell for long enough is replaced, where that is its own fault."""

import dataclasses
from datetime import timedelta
from typing import Any

import pytest

from provisioner.apis import names
from provisioner.apis.conditions import INITIALIZED, LAUNCHED, READY, REGISTERED
from provisioner.apis.failure import Failure
from provisioner.apis.node import Node
from provisioner.apis.nodeclaim import NodeClaim
from provisioner.apis.times import format_time
from provisioner.nodeclaim.lifecycle import reconcile
from provisioner.nodeclaim.repair import fleet_of, is_due
from provisioner.nodeclaim.view import Ailment, Fleet, Step, Timeouts, Waiting
from tests.unit.builders import (
    CREATED,
    NAME,
    NOW,
    UID,
    claim,
    condition,
    failure,
    listed,
    node,
    node_condition,
    pool,
    provider_id,
    reached,
    recorded_claim,
    users_pool,
    view,
)
from tests.unit.claim_world import World, ready

SINCE = CREATED + timedelta(hours=1)
MINUTE = timedelta(minutes=1)
LIMIT = 10 * MINUTE
TIMEOUTS = Timeouts(unhealthy=LIMIT, gpus=LIMIT)
ONE = Fleet(total=1, unhealthy=1)
NODE_HEALTHY = "kubernetes.azure.com/NodeHealthy"
TIMESTAMP = names.TERMINATION_TIMESTAMP_ANNOTATION


def running(*kinds: str, **changes: Any) -> NodeClaim:
    stages = kinds or (INITIALIZED, LAUNCHED, REGISTERED, READY)
    status = {"providerID": provider_id(NAME), "nodeName": node().name, "conditions": reached(*stages)}
    return recorded_claim(**{"status": status, **changes})


def joined(**changes: Any) -> Node:
    held = {"labels": {names.NODECLASS_LABEL: "default"}, "finalizers": [names.TERMINATION_FINALIZER]}
    return node(**{"owner": UID, "since": SINCE, **held, **changes})


def look(claim: NodeClaim, *nodes: Node, minutes: float = 10, **changes: Any) -> Step:
    """Look at the claim so many minutes after its Node's Ready condition has changed."""
    seen: dict[str, Any] = {
        "pools": listed(pool()),
        "now": SINCE + minutes * MINUTE,
        "timeouts": TIMEOUTS,
        "fleet": ONE,
        "is_cluster_settled": True,
    }
    return reconcile(view(claim, *nodes, **(seen | changes)))


# Which Nodes


@pytest.mark.parametrize(
    ("status", "minutes", "is_replaced"),
    [
        ("False", 9.9, False),
        ("False", 10, True),
        ("Unknown", 9.9, False),
        ("Unknown", 10, True),
        ("True", 100_000, False),
        ("Maybe", 100_000, False),
    ],
)
def test_node_may_be_not_ready_for_ten_minutes(status: str, minutes: float, is_replaced: bool) -> None:
    step = look(running(), joined(ready=status), minutes=minutes)
    assert step.delete_claim == ("unhealthy" if is_replaced else "")


@pytest.mark.parametrize(
    ("kind", "status", "is_replaced"),
    [
        (NODE_HEALTHY, "False", True),
        (NODE_HEALTHY, "Unknown", False),
        (NODE_HEALTHY, "True", False),
        ("PreemptionScheduled", "True", True),
        ("PreemptionScheduled", "False", False),
        ("MemoryPressure", "True", False),
        ("KernelDeadlock", "True", False),
    ],
)
def test_certain_end_of_a_node_is_not_waited_for(kind: str, status: str, is_replaced: bool) -> None:
    step = look(running(), joined(conditions=[node_condition(kind, status, since=SINCE)]), minutes=0)
    assert step.delete_claim == ("unhealthy" if is_replaced else "")


def test_next_look_is_at_the_end_of_what_is_tolerated() -> None:
    assert look(running(), joined(ready="False"), minutes=4).again_after == 6 * MINUTE


def test_condition_that_is_over_first_decides() -> None:
    preempted = joined(ready="False", conditions=[node_condition("PreemptionScheduled", "True", since=SINCE)])
    step = look(running(), preempted, minutes=0)
    assert step.delete_claim == "unhealthy"
    assert "PreemptionScheduled is True" in step.notices[0].message


def test_condition_without_a_time_is_never_old_enough_unless_it_is_certain() -> None:
    never = node_condition("Ready", "Unknown") | {"lastTransitionTime": None}
    certain = node_condition("PreemptionScheduled", "True") | {"lastTransitionTime": None}
    assert look(running(), joined(conditions=[never]), minutes=100_000) == Step(settled=True)
    assert look(running(), joined(conditions=[certain]), minutes=0).delete_claim == "unhealthy"


@pytest.mark.parametrize("limit", [MINUTE, None], ids=["shorter", "off"])
def test_what_is_tolerated_can_be_set(limit: timedelta | None) -> None:
    preempted = joined(ready="False", conditions=[node_condition("PreemptionScheduled", "True")])
    step = look(running(), preempted, minutes=1, timeouts=Timeouts(unhealthy=limit))
    assert step.delete_claim == ("" if limit is None else "unhealthy")
    assert step.again_after is None


@pytest.mark.parametrize(
    ("stages", "nodes"),
    [
        ((LAUNCHED,), [joined(ready="False"), joined(ready="False", name="twin")]),
        ((LAUNCHED, REGISTERED), []),
        ((LAUNCHED, REGISTERED), [joined(ready="False", deleting=True)]),
        ((LAUNCHED, REGISTERED), [joined(ready="False"), joined(ready="False", name="twin")]),
        ((LAUNCHED, REGISTERED), [joined(ready="False", provider_id=provider_id("other"))]),
    ],
    ids=["not registered", "gone", "being deleted", "two", "another's"],
)
def test_claim_without_exactly_one_registered_node_is_not_repaired(stages: tuple[str, ...], nodes: list[Node]) -> None:
    assert look(running(*stages), *nodes, minutes=100).delete_claim == ""


def test_registered_claim_need_not_be_initialized() -> None:
    assert look(running(LAUNCHED, REGISTERED), joined(ready="False")).delete_claim == "unhealthy"


def test_claim_of_another_provider_is_not_repaired() -> None:
    foreign = {"group": "karpenter.azure.com", "kind": "AKSNodeClass", "name": "default"}
    assert look(running(nodeClassRef=foreign, labels={}), joined(ready="False")) == Step()


def test_claim_that_is_being_deleted_is_not_deleted_again() -> None:
    assert look(running(deleted=NOW), joined(ready="False")).delete_claim == ""


# How


def test_do_not_disrupt_does_not_hold_repair_up() -> None:
    protected = running(annotations={names.DO_NOT_DISRUPT_ANNOTATION: "true"})
    node = joined(ready="False", annotations={names.DO_NOT_DISRUPT_ANNOTATION: "true"})
    assert look(protected, node).delete_claim == "unhealthy"


def test_repair_waits_for_no_pod_whatever_grace_the_claim_gives() -> None:
    step = look(running(terminationGracePeriod="24h"), joined(ready="False"))
    assert step.metadata == {"annotations": {TIMESTAMP: format_time(SINCE + LIMIT)}}
    assert step.delete_claim == "unhealthy"


@pytest.mark.parametrize(
    ("stored", "is_kept"),
    [
        (format_time(SINCE), True),
        (format_time(SINCE + LIMIT), True),
        (format_time(SINCE + 11 * MINUTE), False),
        ("soon", False),
    ],
)
def test_earlier_end_of_grace_is_kept(stored: str, is_kept: bool) -> None:
    step = look(running(annotations={TIMESTAMP: stored}), joined(ready="False"))
    expected = None if is_kept else {"annotations": {TIMESTAMP: format_time(SINCE + LIMIT)}}
    assert (step.metadata, step.delete_claim) == (expected, "unhealthy")


@pytest.mark.parametrize(
    ("step", "ailment"),
    [
        (look(running(), joined(ready="False")), "Ready"),
        (look(running(), joined(conditions=[node_condition(NODE_HEALTHY, "False")])), NODE_HEALTHY),
        (look(running(), joined(ready="False"), minutes=9), ""),
    ],
    ids=["kubelet", "AKS", "not yet"],
)
def test_metrics_are_told_of_which_condition_and_image(step: Step, ailment: str) -> None:
    image = "AKSUbuntu-2204gen2containerd-202611.10.0"
    assert step.ailment == (Ailment(condition=ailment, image_id=image) if ailment else None)


def test_event_says_what_was_wrong() -> None:
    (notice,) = look(running(), joined(ready="Unknown")).notices
    assert (notice.reason, notice.is_warning, notice.node) == ("NodeUnhealthy", True, None)
    assert f"Node {node().name} is not well: Ready is Unknown since {format_time(SINCE)}" in notice.message


# Whose fault it is


@pytest.mark.parametrize("state", ["Creating", "Updating", "Upgrading", "Scaling", "Starting", "Deleting", ""])
def test_node_is_left_alone_while_azure_works_on_its_pool(state: str) -> None:
    step = look(running(), joined(ready="False"), minutes=100, pools=listed(pool(state=state)))
    assert (step.delete_claim, step.again_after) == ("", MINUTE)
    assert step.waiting == Waiting(what="Azure", since=SINCE + 100 * MINUTE)


@pytest.mark.parametrize("state", ["Succeeded", "Failed", "Canceled"])
def test_node_of_a_pool_that_azure_is_done_with_is_replaced(state: str) -> None:
    step = look(running(), joined(ready="False"), pools=listed(pool(state=state)))
    assert step.delete_claim == "unhealthy"


def test_node_of_a_stopped_pool_is_left_alone() -> None:
    stopped = dataclasses.replace(pool(), power_state="Stopped")
    assert look(running(), joined(ready="False"), minutes=100, pools=listed(stopped)).delete_claim == ""


@pytest.mark.parametrize(
    ("unknown", "reason"), [((NAME,), None), ((), failure())], ids=["not listed", "not listed lately"]
)
def test_nothing_is_decided_while_azure_cannot_be_read(unknown: tuple[str, ...], reason: Failure | None) -> None:
    was = Waiting(what="Azure", since=SINCE)
    pools = listed(*(() if unknown else (pool(),)), unknown=unknown, failure=reason)
    step = look(running(), joined(ready="False"), minutes=100, pools=pools, waiting=was)
    assert (step.delete_claim, step.again_after, step.waiting) == ("", MINUTE, was)


@pytest.mark.parametrize("pools", [listed(), listed(users_pool())], ids=["gone", "another's"])
def test_claim_without_its_pool_is_left_to_garbage_collection(pools: Any) -> None:
    step = look(running(), joined(ready="False"), minutes=100, pools=pools)
    assert (step.delete_claim, step.again_after) == ("", None)


def test_time_begins_anew_when_azure_is_done() -> None:
    done = Waiting(what="Azure", since=SINCE + 30 * MINUTE)
    waiting = look(running(), joined(ready="False"), minutes=32, waiting=done)
    assert (waiting.delete_claim, waiting.again_after, waiting.waiting) == ("", 8 * MINUTE, done)
    assert look(running(), joined(ready="False"), minutes=40, waiting=done).delete_claim == "unhealthy"


def test_node_is_left_alone_while_the_cluster_stops_or_is_upgraded() -> None:
    step = look(running(), joined(ready="False"), minutes=100, is_cluster_settled=False)
    assert (step.delete_claim, step.again_after) == ("", MINUTE)
    assert step.waiting == Waiting(what="Azure", since=SINCE + 100 * MINUTE)


@pytest.mark.parametrize("minutes", [9, 10])
def test_cluster_is_asked_for_only_when_something_hangs_on_it(minutes: int) -> None:
    step = look(running(), joined(ready="False"), minutes=minutes, is_cluster_settled=None, fleet=None)
    assert (step.delete_claim, step.wants_cluster) == ("", minutes == 10)


def test_nothing_is_done_about_a_fleet_that_was_not_counted() -> None:
    step = look(running(), joined(ready="False"), fleet=None)
    assert (step.delete_claim, step.wants_cluster, step.again_after) == ("", False, MINUTE)


# How many


@pytest.mark.parametrize(
    ("total", "unhealthy", "is_blocked"),
    [
        (1, 1, False),
        (2, 1, False),
        (2, 2, True),
        (5, 1, False),
        (5, 2, True),
        (6, 2, False),
        (6, 3, True),
        (100, 20, False),
        (100, 21, True),
        (101, 21, False),
        (1000, 201, True),
    ],
)
def test_no_node_is_replaced_while_too_many_are_unhealthy(total: int, unhealthy: int, is_blocked: bool) -> None:
    step = look(running(), joined(ready="False"), fleet=Fleet(total=total, unhealthy=unhealthy))
    assert step.delete_claim == ("" if is_blocked else "unhealthy")
    if is_blocked:
        assert (step.metadata, step.status, step.again_after) == (None, None, 5 * MINUTE)


@pytest.mark.parametrize(
    ("labels", "which"), [({names.NODEPOOL_LABEL: "kaito"}, "karpenter.sh/nodepool=kaito"), ({}, "of the cluster")]
)
def test_blocked_repair_is_told_on_the_node(labels: dict[str, str], which: str) -> None:
    sick = joined(ready="False")
    step = look(running(labels=labels | {names.WORKSPACE_LABEL: "w"}), sick, fleet=Fleet(total=10, unhealthy=9))
    (notice,) = step.notices
    assert (notice.reason, notice.is_warning, notice.node) == ("NodeRepairBlocked", True, sick)
    assert which in notice.message


def test_fleet_is_the_nodes_of_the_claims_node_pool_or_all_of_the_cluster() -> None:
    here, there = {names.NODEPOOL_LABEL: "kaito"}, {names.NODEPOOL_LABEL: "other"}
    nodes = [
        node("a", labels=here),
        node("b", labels=here, ready="Unknown"),
        node("c", labels=here, conditions=[node_condition(NODE_HEALTHY, "False")]),
        node("d", labels=here, conditions=[node_condition("MemoryPressure", "True")]),
        node("e", labels=there, ready="False"),
        node("f", ready="False"),
    ]
    assert fleet_of(claim(), nodes=nodes, claims=[]) == Fleet(total=4, unhealthy=2)
    assert fleet_of(claim(labels={}), nodes=nodes, claims=[]) == Fleet(total=6, unhealthy=4)


def test_node_without_its_gpus_counts_as_unhealthy_and_once() -> None:
    nodes = [node(name=name, labels={names.NODEPOOL_LABEL: "kaito"}) for name in "abc"]
    nodes.append(node(name="d", ready="False", labels={names.NODEPOOL_LABEL: "kaito"}))

    def of(name: str, reason: str) -> NodeClaim:
        told = [condition(INITIALIZED, "Unknown", reason)]
        return claim(f"ws{name}", status={"nodeName": name, "conditions": told})

    claims = [of("a", "GPUsMissing"), of("b", "ResourceNotRegistered"), of("d", "DevicePluginNotReady")]
    assert fleet_of(claim(), nodes=nodes, claims=claims) == Fleet(total=4, unhealthy=2)


@pytest.mark.parametrize(
    ("node", "expected"),
    [
        (joined(ready="False"), True),
        (joined(ready="False", since=SINCE + MINUTE), False),
        (joined(), False),
        (joined(conditions=[node_condition(NODE_HEALTHY, "False")]), True),
    ],
    ids=["old", "young", "well", "certain"],
)
def test_fleet_is_counted_only_for_a_node_that_may_be_replaced(node: Node, expected: bool) -> None:
    assert is_due(running(), [node], timeouts=TIMEOUTS, now=SINCE + LIMIT, missing_gpus=True) is expected


# GPUs that do not come


def without_gpus(reason: str = "DevicePluginNotReady") -> NodeClaim:
    told = condition(INITIALIZED, "Unknown", reason, "0 of 1 nvidia.com/gpu")
    status = {
        "providerID": provider_id(NAME),
        "nodeName": node().name,
        "conditions": [*reached(LAUNCHED, REGISTERED), told],
    }
    return recorded_claim(status=status)


@pytest.mark.parametrize(
    ("is_on", "claim", "deleted", "again"),
    [
        (True, without_gpus(), "unhealthy", None),
        (True, without_gpus("ResourceNotRegistered"), "", timedelta(seconds=1)),
        (False, without_gpus(), "", None),
    ],
    ids=["told", "told with this step", "off"],
)
def test_node_whose_gpus_do_not_come_is_replaced_where_asked_for_and_told_before(
    is_on: bool, claim: NodeClaim, deleted: str, again: timedelta | None
) -> None:
    step = look(claim, joined(gpus=None), repair_missing_gpus=is_on)
    assert (step.delete_claim, step.again_after) == (deleted, again)
    assert is_due(claim, [], timeouts=TIMEOUTS, now=NOW, missing_gpus=is_on) is (bool(deleted))


def test_gpus_that_come_after_all_save_the_claim() -> None:
    step = look(without_gpus(), joined(), repair_missing_gpus=True)
    assert step.delete_claim == ""


def test_gpus_are_given_their_time_anew_when_azure_is_done() -> None:
    done = Waiting(what="Azure", since=SINCE + 30 * MINUTE)
    step = look(without_gpus(), joined(gpus=None), minutes=32, repair_missing_gpus=True, waiting=done)
    assert (step.delete_claim, step.again_after) == ("", 8 * MINUTE)


def test_missing_gpus_of_too_many_nodes_are_no_nodes_fault() -> None:
    fleet = Fleet(total=10, unhealthy=3)
    step = look(without_gpus(), joined(gpus=None), repair_missing_gpus=True, fleet=fleet)
    assert step.delete_claim == ""
    assert [notice.reason for notice in step.notices if notice.node] == ["NodeRepairBlocked"]


# The whole way


def test_node_that_stays_not_ready_is_replaced_by_its_claims_end() -> None:
    world = World()
    ready(world)
    world.take()
    world.events.clear()
    world.kubelet_reports(ready="Unknown")
    waiting = world.settle()
    assert waiting is not None
    assert waiting.again_after is not None
    assert world.take() == ([], [])
    world.now += waiting.again_after
    world.settle()
    world.azure_finishes()
    world.settle()
    writes, _ = world.take()
    assert writes[:2] == ["metadata", "delete claim: unhealthy"]
    assert world.raw is None
    assert (world.pools, world.nodes) == ({}, {})
    assert world.events == ["Warning NodeUnhealthy", "DeletingAgentPool"]


def test_crash_before_the_deletion_is_made_good() -> None:
    world = World()
    ready(world)
    world.kubelet_reports(ready="False")
    world.now += LIMIT
    world.take()
    world.crash_in = 1
    world.look()
    first = world.claim.annotations[TIMESTAMP]
    assert not world.claim.is_deleting
    world.look()
    assert world.claim.is_deleting
    assert world.claim.annotations[TIMESTAMP] == first


def test_node_that_recovers_in_time_is_kept() -> None:
    world = World()
    ready(world)
    for _ in range(3):
        world.kubelet_reports(ready="Unknown")
        world.settle()
        world.now += LIMIT - MINUTE
        world.kubelet_reports()
        world.settle()
    assert world.claim.is_true(READY)
    assert not world.claim.is_deleting


def test_node_without_gpus_is_told_of_and_then_replaced() -> None:
    world = World()
    world.repair_missing_gpus = True
    world.settle()
    world.node_joins(gpus=None)
    world.azure_finishes()
    world.settle()
    world.take()
    world.now += LIMIT
    world.look()
    assert world.take() == (["status"], [("Initialized", "Unknown", "DevicePluginNotReady")])
    world.settle()
    assert world.take()[0][:2] == ["metadata", "delete claim: unhealthy"]
    assert world.events[-3:] == ["Warning DevicePluginNotReady", "Warning NodeUnhealthy", "DeletingAgentPool"]


def test_node_without_gpus_is_told_of_once_and_kept_where_nobody_asked_for_more() -> None:
    world = World()
    world.settle()
    world.node_joins(gpus=None)
    world.azure_finishes()
    world.settle()
    for _ in range(3):
        world.now += LIMIT
        world.settle()
    assert not world.claim.is_deleting
    assert world.events == ["CreatingAgentPool", "Warning DevicePluginNotReady"]


def test_conditions_that_decide_nothing_are_not_read() -> None:
    sick = joined(ready="False", conditions=[{"type": "DiskPressure", "status": "False"}])
    assert [(c.type, c.status, c.since) for c in sick.conditions] == [("Ready", "False", SINCE)]
