"""Termination of a claim that has Nodes: isolated, drained, free of volumes, and only then without their VMs."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest

from provisioner.apis import names
from provisioner.apis.conditions import DEPENDENTS, DRAINED, INSTANCE_TERMINATING, READY, VOLUMES_DETACHED
from provisioner.apis.node import Node
from provisioner.apis.nodeclaim import NodeClaim
from provisioner.apis.pod import Pod
from provisioner.apis.times import format_time
from provisioner.nodeclaim.lifecycle import reconcile
from provisioner.nodeclaim.termination import is_draining, nodes_to_read
from provisioner.nodeclaim.view import DeletePool, NodeLoad, NodePatch, Step
from tests.unit.builders import (
    CREATED,
    GPU_TAINT,
    NAME,
    NOW,
    UID,
    Listed,
    condition,
    failure,
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
from tests.unit.pod_builders import pod

DISRUPTED = {"key": "karpenter.sh/disrupted", "effect": "NoSchedule"}
ISOLATED: Mapping[str, Any] = {
    "labels": {names.EXCLUDE_FROM_BALANCERS_LABEL: "karpenter"},
    "taints": [GPU_TAINT, DISRUPTED],
}
OURS: Mapping[str, Any] = {"owner": UID, "finalizers": [names.TERMINATION_FINALIZER]}
LABEL_PATCH = {"labels": {names.EXCLUDE_FROM_BALANCERS_LABEL: "karpenter"}}


def seconds(span: float) -> timedelta:
    return timedelta(seconds=span)


def deleted(*conditions: dict[str, Any], deadline: datetime | None = None, **changes: Any) -> NodeClaim:
    """Return a claim that was Ready, with further conditions, and was deleted now."""
    status = {
        "providerID": provider_id(NAME),
        "nodeName": node().name,
        "conditions": [*reached(*DEPENDENTS, READY), *conditions],
    }
    annotations = {names.TERMINATION_TIMESTAMP_ANNOTATION: format_time(deadline)} if deadline else {}
    return recorded_claim(**{"deleted": NOW, "status": status, "annotations": annotations, **changes})


def going(**changes: Any) -> Node:
    """Return the claim's Node as it waits for its drain."""
    return node(**{**OURS, **ISOLATED, "deleting": True, **changes})


def look(
    claim: NodeClaim,
    *nodes: Node,
    pods: tuple[Pod, ...] = (),
    volumes: tuple[str, ...] = (),
    pools: Listed | None = None,
    **changes: Any,
) -> Step:
    """Reconcile; every Node whose load is asked for has these pods and volumes."""
    seen = view(claim, *nodes, pools=pools if pools is not None else listed(pool()), **changes)
    loads = {each.name: NodeLoad(pods=pods, volumes=volumes) for each in nodes_to_read(seen)}
    return reconcile(replace(seen, loads=loads))


def said(step: Step, kind: str) -> tuple[str, str] | None:
    conditions = step.status["conditions"] if step.status else ()
    return next(((each["status"], each["reason"]) for each in conditions if each["type"] == kind), None)


def message(step: Step, kind: str) -> str:
    assert step.status is not None
    return next(str(each["message"]) for each in step.status["conditions"] if each["type"] == kind)


def events(step: Step) -> list[tuple[str, str, bool]]:
    return [(notice.reason, notice.node.name if notice.node else "", notice.is_warning) for notice in step.notices]


def wanted(step: Step) -> dict[str, dict[str, int | None]]:
    return {
        entry.node.name: {each.pod.name: each.grace_seconds for each in entry.evictions} for entry in step.evictions
    }


def draining(*, lasted: float = 60) -> dict[str, Any]:
    return condition(DRAINED, "Unknown", "Draining", "Draining", since=NOW - seconds(lasted))


DONE = (condition(DRAINED, "True", DRAINED), condition(VOLUMES_DETACHED, "True", VOLUMES_DETACHED))


# The Node is deleted and isolated first


def test_node_is_isolated_and_deleted_before_anything_else() -> None:
    mine = node(**OURS)
    step = look(deleted(), mine)
    patch = {"metadata": LABEL_PATCH, "spec": {"taints": [GPU_TAINT, DISRUPTED]}}
    assert step == Step(node_patch=NodePatch(node=mine, patch=patch), going_nodes=(mine,), again_after=seconds(1))


def test_taints_of_others_stay_as_they_are_stored() -> None:
    theirs = {"key": "node.kubernetes.io/unreachable", "effect": "NoExecute", "timeAdded": "2026-11-21T04:00:00Z"}
    step = look(deleted(), node(**OURS, taints=[theirs, {"key": "a", "effect": "NoDreams"}]))
    assert step.node_patch is not None
    assert step.node_patch.patch["spec"]["taints"] == [theirs, {"key": "a", "effect": "NoDreams"}, DISRUPTED]


@pytest.mark.parametrize(
    ("has", "patch"),
    [
        ({"labels": ISOLATED["labels"]}, {"spec": {"taints": [GPU_TAINT, DISRUPTED]}}),
        ({"taints": ISOLATED["taints"]}, {"metadata": LABEL_PATCH}),
    ],
)
def test_isolation_that_somebody_has_taken_off_in_part_is_put_back(has: Any, patch: Any) -> None:
    step = look(deleted(draining()), node(**{**OURS, **has}, deleting=True), pods=(pod(),))
    assert step.node_patch is not None
    assert step.node_patch.patch == patch


def test_nodes_are_not_read_before_they_are_all_isolated() -> None:
    twin = node(name="twin", **OURS)
    assert nodes_to_read(view(deleted(), going(), twin, pools=listed(pool()))) == ()
    assert len(nodes_to_read(view(deleted(), going(), going(name="twin"), pools=listed(pool())))) == 2


def test_all_nodes_of_the_claim_are_deleted() -> None:
    twins = node(**OURS), node(name="twin", **OURS)
    step = look(deleted(), *twins)
    assert step.going_nodes == twins
    assert step.azure is None


def test_node_without_our_finalizer_is_drained_before_it_is_deleted() -> None:
    bare = node(owner=UID)
    step = look(deleted(), bare)
    assert step.going_nodes == ()
    assert step.node_patch is not None
    step = look(deleted(), node(owner=UID, **ISOLATED), pods=(pod(),))
    assert (step.going_nodes, step.azure) == ((), None)
    assert wanted(step) == {bare.name: {"p1": None}}


@pytest.mark.parametrize("status", [{}, {"providerID": provider_id(NAME), "conditions": reached("Launched")}])
def test_node_of_a_claim_that_is_not_registered_is_neither_drained_nor_deleted_first(status: dict[str, Any]) -> None:
    step = look(deleted(status=status), node(**OURS), pods=(pod(),))
    assert (step.azure, step.going_nodes, step.node_patch) == (DeletePool(name=NAME), (), None)


def test_deletion_of_a_ready_claim_does_not_touch_its_readiness() -> None:
    step = look(deleted(), going())
    assert said(step, READY) == ("True", READY)


# The drain


def test_empty_node_is_drained_at_once_and_all_is_told_in_one_write_after_azure() -> None:
    step = look(deleted(), going())
    assert (step.azure, step.status_follows) == (DeletePool(name=NAME), True)
    assert said(step, DRAINED) == ("True", "Drained")
    assert said(step, VOLUMES_DETACHED) == ("True", "VolumesDetached")
    assert said(step, INSTANCE_TERMINATING) == ("True", "InstanceTerminating")
    assert events(step) == [("DeletingAgentPool", "", False)]


def test_pods_are_evicted_and_the_pool_waits_for_them() -> None:
    mine = going()
    step = look(deleted(), mine, pods=(pod(), pod("agent", owner="DaemonSet")))
    assert (step.azure, step.release) == (None, False)
    assert wanted(step) == {mine.name: {"p1": None}}
    assert [entry.reason for entry in step.evictions] == ["Forceful Termination"]
    assert said(step, DRAINED) == ("Unknown", "Draining")
    assert message(step, DRAINED) == "2 pods are waiting to be evicted: default/p1, default/agent."
    assert events(step) == [("FailedDraining", mine.name, True)]
    assert step.notices[0].message == "Failed to drain node, 2 pods are waiting to be evicted"
    assert step.again_after == seconds(1)


def test_reason_of_the_evictions_is_why_the_claim_was_deleted() -> None:
    step = look(deleted(condition("DisruptionReason", "True", "Unhealthy")), going(), pods=(pod(),))
    assert [entry.reason for entry in step.evictions] == ["Unhealthy"]


def test_pods_of_all_nodes_are_counted_together_and_told_of_each() -> None:
    mine = going(), going(name="twin")
    step = look(deleted(), *mine, pods=(pod(),))
    assert message(step, DRAINED).startswith("2 pods are waiting")
    assert [event[1] for event in events(step)] == [each.name for each in mine]


def test_what_holds_a_pod_is_told() -> None:
    held = pod("held", annotations={names.DO_NOT_DISRUPT_ANNOTATION: "true"})
    step = look(deleted(), going(), pods=(pod(), held), blocked={"uid-of-p1": "violates the pod's disruption budget"})
    assert message(step, DRAINED) == (
        "2 pods are waiting to be evicted: default/held (karpenter.sh/do-not-disrupt), "
        "default/p1 (a PodDisruptionBudget)."
    )


@pytest.mark.parametrize(("lasted", "wait"), [(0, 5), (4, 1), (5, None), (60, None)])
def test_drain_that_had_to_wait_for_pods_lasts_five_seconds_at_least(lasted: float, wait: float | None) -> None:
    step = look(deleted(draining(lasted=lasted)), going())
    if wait is None:
        # Told before Azure is asked: the drain must not look unfinished in a pool that is being deleted.
        assert (step.azure, step.status_follows) == (DeletePool(name=NAME), False)
        assert said(step, DRAINED) == ("True", "Drained")
        assert said(step, INSTANCE_TERMINATING) is None
    else:
        assert (step.azure, step.status, step.again_after) == (None, None, seconds(wait))


def test_drained_node_has_nothing_evicted_any_more() -> None:
    assert wanted(look(deleted(draining()), going())) == {going().name: {}}


def test_drain_that_is_done_is_not_begun_again_while_azure_refuses() -> None:
    claim = deleted(*DONE)
    assert nodes_to_read(view(claim, going(), pools=listed(pool()))) == ()
    step = look(claim, going(), setback=setback(DeletePool))
    assert said(step, INSTANCE_TERMINATING) == ("Unknown", "QuotaExceeded")
    assert look(claim, going()).azure == DeletePool(name=NAME)


def test_refusal_of_azure_is_told_together_with_the_end_of_the_drain() -> None:
    step = look(deleted(), going(), setback=setback(DeletePool))
    assert (step.azure, step.status_follows) == (None, False)
    assert said(step, DRAINED) == ("True", "Drained")
    assert said(step, INSTANCE_TERMINATING) == ("Unknown", "QuotaExceeded")


def test_pool_that_lists_are_wanted_for_seldom_while_pods_are_waited_for() -> None:
    assert is_draining(deleted(draining()))
    assert is_draining(deleted(DONE[0], condition(VOLUMES_DETACHED, "Unknown", "AwaitingVolumeDetachment")))
    assert not is_draining(deleted())
    assert not is_draining(deleted(*DONE))


def test_loads_that_may_not_be_read_are_told_and_tried_again() -> None:
    seen = view(deleted(), going(), pools=listed(pool()), loads_error="pods is forbidden")
    step = reconcile(seen)
    assert (step.azure, step.again_after) == (None, seconds(10))
    assert message(step, DRAINED) == f"The pods on Node {going().name} cannot be listed: pods is forbidden"
    late = reconcile(replace(seen, claim=deleted(deadline=NOW - seconds(61))))
    assert late.azure == DeletePool(name=NAME)
    assert said(late, DRAINED) == ("False", "TerminationGracePeriodElapsed")
    assert said(late, VOLUMES_DETACHED) == ("False", "TerminationGracePeriodElapsed")


# VMs that are gone, and pools that are going


@pytest.mark.parametrize("ready", ["True", "False", "Unknown"])
def test_node_of_a_pool_that_somebody_else_deletes_is_not_drained(ready: str) -> None:
    mine = node(**OURS, ready=ready)
    step = look(deleted(), mine, pods=(pod(),), pools=listed(pool(state="Deleting")))
    assert (step.node_patch, step.evictions, step.going_nodes) == (None, (), (mine,))
    assert said(step, INSTANCE_TERMINATING) == ("True", "InstanceTerminating")
    assert said(step, DRAINED) is None


@pytest.mark.parametrize("ready", ["False", "Unknown", ""])
def test_node_that_is_not_ready_goes_undrained_with_its_vanished_pool(ready: str) -> None:
    mine = going(ready=ready)
    step = look(deleted(draining()), mine, pods=(pod(),), pools=listed())
    assert (step.deleted_nodes, step.release, step.going_nodes) == ((mine,), True, ())


def test_node_that_is_ready_is_drained_whatever_azure_lists() -> None:
    step = look(deleted(), going(), pods=(pod(),), pools=listed())
    assert (step.release, step.deleted_nodes) == (False, ())
    assert wanted(step) == {going().name: {"p1": None}}
    done = look(deleted(draining()), going(), pools=listed())
    assert (done.release, done.deleted_nodes) == (True, (going(),))


def test_node_that_is_not_ready_is_drained_while_its_pool_stands() -> None:
    assert wanted(look(deleted(), going(ready="Unknown"), pods=(pod(),))) == {going().name: {"p1": None}}


def test_drain_ends_with_a_pool_that_somebody_deletes_meanwhile() -> None:
    step = look(deleted(draining()), going(), pods=(pod(),), pools=listed(pool(state="Deleting")))
    assert said(step, DRAINED) == ("False", "AgentPoolDeleting")
    assert said(step, INSTANCE_TERMINATING) == ("True", "InstanceTerminating")
    assert wanted(step) == {going().name: {}}


def test_volumes_of_a_drain_that_was_given_up_are_not_waited_for_when_the_pool_stands_again() -> None:
    """Azure has failed to delete the pool that somebody else wanted to go; its pods were told nothing since."""
    given_up = condition(DRAINED, "False", "AgentPoolDeleting", "Somebody else has deleted the agent pool meanwhile.")
    step = look(deleted(given_up), going(), pods=(pod(),), volumes=("csi-1",), pools=listed(pool(state="Failed")))
    assert step.azure == DeletePool(name=NAME)
    assert said(step, VOLUMES_DETACHED) == ("False", "AgentPoolDeleting")


def test_drain_ends_when_the_node_is_gone() -> None:
    step = look(deleted(draining()))
    assert said(step, DRAINED) == ("True", "Drained")
    assert step.azure == DeletePool(name=NAME)


def test_nothing_is_drained_once_azure_has_been_asked() -> None:
    claim = deleted(condition(INSTANCE_TERMINATING, "True", INSTANCE_TERMINATING))
    for pools in (listed(pool()), listed(pool(state="Deleting")), listed()):
        assert nodes_to_read(view(claim, going(), pools=pools)) == ()
    assert look(claim, going(), pools=listed()).release


def test_nothing_is_drained_before_the_pools_are_known() -> None:
    step = look(deleted(), node(**OURS), pods=(pod(),), pools=listed(unknown=[NAME]))
    assert (step.node_patch, step.going_nodes, step.evictions) == (None, (), ())
    assert step.refresh


@pytest.mark.parametrize(
    ("victim", "pools"),
    [
        (going(pool="system", owner="other"), listed(users_pool("system"))),
        (going(pool="system", owner="other"), listed()),
        (going(pool="system"), listed(users_pool("system"))),
        (going(provider_id=provider_id(NAME).replace("virtualMachineScaleSets", "vms"), owner="other"), listed()),
        (going(created=CREATED - seconds(1)), listed(pool())),
    ],
)
def test_node_that_is_not_the_claims_is_not_touched(victim: Node, pools: Listed) -> None:
    status = {"providerID": victim.provider_id, "conditions": reached(*DEPENDENTS)}
    step = look(deleted(status=status), victim, pods=(pod(),), pools=pools)
    assert (step.node_patch, step.going_nodes, step.evictions, step.deleted_nodes) == (None, (), (), ())


def test_claim_and_node_of_the_peer_are_drained_like_our_own() -> None:
    claim = deleted(annotations={})
    mine = node(**OURS)
    assert look(claim, mine, pools=listed(peers_pool())).going_nodes == (mine,)


# The termination grace period


@pytest.mark.parametrize(("grace", "end"), [("10m", "2026-11-21T04:44:26Z"), ("0s", "2026-11-21T04:34:26Z")])
def test_deadline_is_written_down_and_told(grace: str, end: str) -> None:
    step = look(deleted(terminationGracePeriod=grace), going(), pods=(pod(),))
    assert step.metadata == {"annotations": {names.TERMINATION_TIMESTAMP_ANNOTATION: end}}
    assert [(each.reason, each.message, each.is_warning) for each in step.notices if each.node is None] == [
        ("TerminationGracePeriodExpiring", f"All pods will be deleted by {end}", True)
    ]


@pytest.mark.parametrize("grace", [None, "soon", ""])
def test_no_deadline_without_a_grace_period(grace: str | None) -> None:
    changes: dict[str, Any] = {"terminationGracePeriod": grace} if grace is not None else {}
    step = look(deleted(**changes), going(), pods=(pod(),))
    assert step.metadata is None
    assert [event for event in events(step) if not event[1]] == []


@pytest.mark.parametrize("written", [NOW - seconds(9), NOW + seconds(9), NOW + timedelta(days=9)])
def test_deadline_that_is_written_already_is_kept(written: datetime) -> None:
    step = look(deleted(deadline=written, terminationGracePeriod="1h"), going(), pods=(pod(),))
    assert step.metadata is None
    left = (written - NOW).total_seconds()
    assert wanted(step) == {going().name: {"p1": max(int(left), 1) if left < 30 else None}}


@pytest.mark.parametrize("text", ["soon", "0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59-23:59"])
def test_deadline_that_cannot_be_read_is_none(text: str) -> None:
    claim = deleted(annotations={names.TERMINATION_TIMESTAMP_ANNOTATION: text})
    assert wanted(look(claim, going(), pods=(pod(),))) == {going().name: {"p1": None}}


def test_claim_that_goes_at_once_is_given_no_deadline() -> None:
    step = look(deleted(terminationGracePeriod="10m", status={}), pools=listed())
    assert step == Step(release=True)


def test_look_comes_back_in_time_to_delete_a_pod() -> None:
    claim = deleted(draining(lasted=3600), deadline=NOW + seconds(33))
    assert look(claim, going(), pods=(pod(),)).again_after == seconds(3)


@pytest.mark.parametrize(("past", "waits"), [(0, True), (60, True), (61, False)])
def test_pods_that_outlive_their_forced_deletion_are_given_up_after_a_minute(past: float, waits: bool) -> None:
    claim = deleted(draining(), deadline=NOW - seconds(past))
    step = look(claim, going(), pods=(pod(deleted=NOW + seconds(9)),), volumes=("v",))
    assert (step.azure is None) is waits
    expected = ("Unknown", "Draining") if waits else ("False", "TerminationGracePeriodElapsed")
    assert said(step, DRAINED) == expected


def test_claim_that_the_crd_no_longer_accepts_is_drained_by_its_deadline_all_the_same() -> None:
    # Neither annotation nor condition can be written: what they would say follows from the claim.
    claim = deleted(terminationGracePeriod="10m", deleted=NOW - timedelta(minutes=9, seconds=40))
    assert wanted(look(claim, going(), pods=(pod(),))) == {going().name: {"p1": 20}}
    assert look(claim, going()).azure == DeletePool(name=NAME)


# Volumes


def test_volumes_are_waited_for_after_the_pods() -> None:
    step = look(deleted(draining()), going(), volumes=("csi-2", "csi-1"))
    assert (step.azure, said(step, DRAINED)) == (None, ("True", "Drained"))
    assert said(step, VOLUMES_DETACHED) == ("Unknown", "AwaitingVolumeDetachment")
    assert message(step, VOLUMES_DETACHED) == "2 volumes are still attached: csi-1, csi-2."
    assert events(step) == [("AwaitingVolumeDetachment", going().name, False)]
    assert step.notices[0].message == "Awaiting deletion of bound VolumeAttachments (csi-1, csi-2)"
    assert step.again_after == seconds(1)


def test_volumes_are_not_waited_for_before_the_pods_are_gone() -> None:
    step = look(deleted(), going(), pods=(pod(),), volumes=("csi-1",))
    assert said(step, VOLUMES_DETACHED) is None


@pytest.mark.parametrize("pods", [(), (pod("late"),)])
def test_pod_that_turns_up_after_the_drain_does_not_begin_it_anew(pods: tuple[Pod, ...]) -> None:
    claim = deleted(DONE[0], condition(VOLUMES_DETACHED, "Unknown", "AwaitingVolumeDetachment"))
    step = look(claim, going(), pods=pods)
    assert step.azure == DeletePool(name=NAME)
    assert said(step, VOLUMES_DETACHED) == ("True", "VolumesDetached")


@pytest.mark.parametrize(("left", "waits"), [(1, True), (0, False), (-5, False)])
def test_volumes_are_not_waited_for_past_the_deadline(left: float, waits: bool) -> None:
    step = look(deleted(draining(), deadline=NOW + seconds(left)), going(), volumes=("csi-1",))
    assert (step.azure is None) is waits
    reason = ("Unknown", "AwaitingVolumeDetachment") if waits else ("False", "TerminationGracePeriodElapsed")
    assert said(step, VOLUMES_DETACHED) == reason


# Azure does not answer


def test_drain_goes_on_while_pools_cannot_be_listed_any_more() -> None:
    pools = Listed({NAME: pool()}, failure=failure())
    assert wanted(look(deleted(), going(), pods=(pod(),), pools=pools)) == {going().name: {"p1": None}}


def test_node_that_joined_while_the_others_were_read_is_read_soon() -> None:
    seen = view(deleted(), going(), going(name="twin"), pools=listed(pool()), loads={"twin": NodeLoad(pods=())})
    step = reconcile(seen)
    assert (step.azure, step.status, step.again_after) == (None, None, seconds(1))
