"""Drift: what counts as one and what does not, what is said of it and for how long, and who is replaced for it."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from provisioner.apis import names
from provisioner.apis.agentpool import AgentPool
from provisioner.apis.conditions import DRIFTED, INITIALIZED, LAUNCHED, READY, REGISTERED, Condition
from provisioner.apis.node import Node
from provisioner.apis.nodeclaim import NodeClaim
from provisioner.nodeclaim.lifecycle import reconcile
from provisioner.nodeclaim.nodeclass import ClassProblem, hash_annotations, pool_hash
from provisioner.nodeclaim.view import Step, Target
from tests.unit.builders import (
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
    view,
)
from tests.unit.claim_world import World, ready

UBUNTU = "AKSUbuntu-2204gen2containerd"
OLD, NEW = f"{UBUNTU}-202611.10.0", f"{UBUNTU}-202612.01.0"
THEN = pool_hash({"spec": {"subnet": "gpu"}})
CHANGED = pool_hash({"spec": {"subnet": "gpu2"}})
LABEL = names.AKS_NODE_IMAGE_VERSION_LABEL
DISRUPTABLE = {names.DO_NOT_DISRUPT_ANNOTATION: "false"}
# What the node of the tests is like, and what it would be like in each case.
SAME = Target(kubernetes_version="1.34.2", node_image=OLD, class_hash=THEN)
IMAGE = replace(SAME, node_image=NEW)
VERSION = replace(SAME, kubernetes_version="1.35.1")
CLASS = replace(SAME, class_hash=CHANGED)
UNKNOWN = Target(node_image="")
DRIFTS = {"ImageDrift": IMAGE, "K8sVersionDrift": VERSION, "NodeClassDrift": CLASS}


def running(*drifted: dict[str, Any], **changes: Any) -> NodeClaim:
    """Return a claim that has its node, made as the class was then; it may say that it has drifted."""
    status = {
        "providerID": provider_id(NAME),
        "nodeName": node().name,
        "conditions": [*reached(INITIALIZED, LAUNCHED, REGISTERED), *drifted, *reached(READY)],
    }
    annotations = hash_annotations(THEN) | DISRUPTABLE | changes.pop("annotations", {})
    return recorded_claim(**{"status": status, "annotations": annotations, **changes})


def said(reason: str, message: str = "as it was told before") -> dict[str, Any]:
    return condition("Drifted", "True", reason, message)


def pool_of(**changes: Any) -> AgentPool:
    return replace(pool(), **{"kubernetes_version": "1.34.2", "node_image_version": OLD, **changes})


def joined(**changes: Any) -> Node:
    return node(**{"owner": UID, "labels": {LABEL: OLD}, **changes})


def look(
    claim: NodeClaim,
    target: Target,
    *,
    nodes: tuple[Node, ...] | None = None,
    pools: Listed | None = None,
    **changes: Any,
) -> Step:
    nodes = (joined(),) if nodes is None else nodes
    return reconcile(view(claim, *nodes, pools=pools or listed(pool_of()), target=target, **changes))


def found(step: Step, before: NodeClaim) -> Condition | None:
    """Return the condition Drifted as it is after the step; Ready must not have changed."""
    after: Any = before.conditions
    if step.status is not None:
        status = {**before_status(before), "conditions": step.status["conditions"]}
        after = running(status=status).conditions
    assert next(c.status for c in after if c.type == READY) == "True"
    return next((c for c in after if c.type == DRIFTED), None)


def before_status(claim: NodeClaim) -> dict[str, Any]:
    return {"providerID": claim.provider_id, "nodeName": claim.node_name}


def reason_of(step: Step, before: NodeClaim) -> str:
    drifted = found(step, before)
    return drifted.reason if drifted is not None else ""


# What drifts


@pytest.mark.parametrize(
    ("target", "parts"),
    [
        (IMAGE, ("ImageDrift", OLD, NEW)),
        (VERSION, ("K8sVersionDrift", "1.34.2", "1.35.1")),
        (replace(SAME, kubernetes_version="1.34.3"), ("K8sVersionDrift", "1.34.2", "1.34.3")),
        (CLASS, ("NodeClassDrift", THEN, CHANGED, "KaitoNodeClass default")),
        (replace(SAME, class_hash=pool_hash({"spec": {}})), ("NodeClassDrift", THEN)),
    ],
)
def test_what_has_drifted_is_told_with_both_values_and_one_event(target: Target, parts: tuple[str, ...]) -> None:
    step = look(running(), target)
    drifted = found(step, running())
    assert drifted is not None
    assert (drifted.status, drifted.reason) == ("True", parts[0])
    for part in parts[1:]:
        assert part in drifted.message
    assert [(n.reason, n.message, n.is_warning) for n in step.notices] == [(parts[0], drifted.message, False)]
    assert (step.delete_claim, step.azure, step.again_after) == ("", None, None)


@pytest.mark.parametrize(
    "target",
    [
        SAME,
        replace(SAME, kubernetes_version="1.34.1"),
        replace(SAME, kubernetes_version="1.33.9"),
        replace(SAME, kubernetes_version="unreadable"),
        replace(SAME, node_image=f"{UBUNTU}-202610.30.0"),
        replace(SAME, node_image="AKSUbuntu-2404gen2containerd-202612.01.0"),
        replace(SAME, node_image="AKSAzureLinux-V3gen2-202612.01.0"),
        replace(SAME, class_hash=""),
        replace(IMAGE, node_image=None),
        UNKNOWN,
    ],
)
def test_what_has_not_drifted_or_cannot_be_told_is_not_said(target: Target) -> None:
    assert look(running(), target) == look(running(), Target())
    assert found(look(running(), target), running()) is None


@pytest.mark.parametrize(
    ("pools", "nodes"),
    [
        (listed(pool_of(state="Upgrading")), None),
        (listed(pool_of(state="UpgradingNodeImageVersion")), None),
        (listed(pool_of(tags={names.CLAIM_UID_TAG: "another"})), None),
        (listed(pool_of(), failure=failure()), None),
        (listed(), None),
        (listed(unknown=[NAME]), None),
        (None, ()),
        (None, (joined(deleting=True),)),
        (None, (joined(provider_id=provider_id(NAME, number=7)),)),
    ],
)
def test_version_and_image_are_judged_of_a_node_that_is_there_and_a_pool_that_is_left_in_peace(
    pools: Listed | None, nodes: tuple[Node, ...] | None
) -> None:
    for target in (VERSION, IMAGE):
        assert reason_of(look(running(), target, pools=pools, nodes=nodes), running()) == ""


def test_pool_that_does_not_tell_its_version_has_not_drifted_from_one() -> None:
    silent = listed(pool_of(kubernetes_version=""))
    assert reason_of(look(running(), VERSION, pools=silent), running()) == ""


def test_image_is_the_nodes_own_where_it_tells_and_else_the_pools() -> None:
    upgraded = listed(pool_of(node_image_version=NEW))
    assert reason_of(look(running(), IMAGE, pools=upgraded), running()) == "ImageDrift"
    reimaged = joined(labels={LABEL: NEW})
    assert reason_of(look(running(), IMAGE, nodes=(reimaged,)), running()) == ""
    silent = joined(labels={LABEL: ""})
    assert reason_of(look(running(), IMAGE, nodes=(silent,)), running()) == "ImageDrift"
    assert reason_of(look(running(), IMAGE, nodes=(silent,), pools=upgraded), running()) == ""


def test_one_reason_is_given_at_a_time_the_authors_own_change_first() -> None:
    everything = Target(kubernetes_version="1.35.1", node_image=NEW, class_hash=CHANGED)
    assert reason_of(look(running(), everything), running()) == "NodeClassDrift"
    assert reason_of(look(running(), replace(everything, class_hash=THEN)), running()) == "K8sVersionDrift"


@pytest.mark.parametrize("kind", [LAUNCHED, REGISTERED, INITIALIZED])
def test_claim_that_is_not_initialized_is_not_judged(kind: str) -> None:
    kinds = (LAUNCHED, REGISTERED, INITIALIZED)
    status = {"providerID": provider_id(NAME), "conditions": reached(*kinds[: kinds.index(kind)])}
    # Its node is not ready.
    step = look(running(status=status), IMAGE, nodes=(joined(ready="False"),))
    assert step.status is None or "Drifted" not in str(step.status)


def test_claim_that_is_being_deleted_is_not_judged() -> None:
    step = look(running(deleted=NOW), IMAGE)
    assert "Drifted" not in str(step.status)


# The class


@pytest.mark.parametrize(
    "annotations",
    [
        {names.NODECLASS_HASH_ANNOTATION: ""},
        {names.NODECLASS_HASH_ANNOTATION: "", names.NODECLASS_HASH_VERSION_ANNOTATION: ""},
    ],
)
def test_claim_without_a_hash_has_not_drifted_and_gets_none(annotations: dict[str, str]) -> None:
    older = running(annotations=annotations)
    bare = replace(older, annotations={k: v for k, v in older.annotations.items() if v})
    step = look(bare, CLASS)
    assert (step.metadata, reason_of(step, bare)) == (None, "")


@pytest.mark.parametrize("version", ["", "v0", "v2"])
def test_hash_of_another_rule_is_written_anew_and_is_no_drift(version: str) -> None:
    older = running(annotations={names.NODECLASS_HASH_VERSION_ANNOTATION: version})
    step = look(older, CLASS)
    assert step.metadata is not None
    assert {**older.annotations, **step.metadata["annotations"]} == {**older.annotations, **hash_annotations(CHANGED)}
    assert reason_of(step, older) == ""


@pytest.mark.parametrize("now", [None, ""])
def test_hash_of_another_rule_stays_while_there_is_no_class_to_compare_with(now: str | None) -> None:
    older = running(annotations={names.NODECLASS_HASH_VERSION_ANNOTATION: "v0"})
    assert look(older, replace(SAME, class_hash=now)).metadata is None


def test_pool_is_asked_for_with_the_hash_of_the_class_and_an_adopted_one_has_none() -> None:
    fresh = recorded_claim(annotations=hash_annotations(THEN))
    step = reconcile(view(fresh, target=CLASS))
    assert step.azure is not None
    assert step.metadata == {"annotations": {names.NODECLASS_HASH_ANNOTATION: CHANGED}}
    adopted = reconcile(view(recorded_claim(), pools=listed(peers_pool()), target=CLASS))
    assert "hash" not in str(adopted.metadata)


# What was said before


@pytest.mark.parametrize("reason", DRIFTS)
def test_what_was_said_is_said_once(reason: str) -> None:
    first = look(running(), DRIFTS[reason])
    drifted = found(first, running())
    assert drifted is not None
    again = look(running(drifted.to_dict()), DRIFTS[reason])
    assert (again.status, again.notices) == (None, ())


def test_newer_image_yet_is_told_without_another_event() -> None:
    before = running(said("ImageDrift", f"Node image {OLD}; the pool's newest is {NEW}."))
    newest = f"{UBUNTU}-202612.08.0"
    step = look(before, replace(SAME, node_image=newest))
    drifted = found(step, before)
    assert drifted is not None
    assert newest in drifted.message
    assert step.notices == ()


@pytest.mark.parametrize("reason", DRIFTS)
def test_what_has_drifted_no_more_is_taken_out(reason: str) -> None:
    before = running(said(reason))
    step = look(before, SAME)
    assert step.status is not None
    assert {c["type"] for c in step.status["conditions"]} == {LAUNCHED, REGISTERED, INITIALIZED, READY}
    assert step.notices == ()


@pytest.mark.parametrize("reason", DRIFTS)
def test_what_was_said_stays_while_its_ground_is_not_known(reason: str) -> None:
    before = running(said(reason))
    assert look(before, UNKNOWN).status is None
    # Nor is another reason put in its place, which would come and go.
    if reason == "NodeClassDrift":
        assert look(before, replace(VERSION, class_hash=None)).status is None


def test_image_drift_is_taken_out_where_images_are_not_compared_any_more() -> None:
    before = running(said("ImageDrift"))
    assert found(look(before, replace(SAME, node_image=None)), before) is None


def test_what_somebody_else_has_said_stays() -> None:
    before = running(said("NodePoolDrifted"))
    assert look(before, SAME).status is None
    assert reason_of(look(before, IMAGE), before) == "ImageDrift"


# Replacement


def replaced(before: NodeClaim, target: Target, **changes: Any) -> Step:
    return look(before, target, **{"replaces_drifted": True, **changes})


@pytest.mark.parametrize("reason", DRIFTS)
def test_drifted_claim_is_told_of_first_and_then_deleted(reason: str) -> None:
    step = replaced(running(), DRIFTS[reason])
    drifted = found(step, running())
    assert drifted is not None
    assert (step.delete_claim, step.again_after) == ("", timedelta(seconds=1))
    step = replaced(running(drifted.to_dict()), DRIFTS[reason])
    assert step.delete_claim == "drifted"
    (notice,) = step.notices
    assert (notice.reason, notice.is_warning) == ("DriftReplaced", True)
    assert reason in notice.message
    assert drifted.message in notice.message


@pytest.mark.parametrize("reason", DRIFTS)
def test_nobody_is_deleted_who_does_not_wish_for_it(reason: str) -> None:
    assert look(running(said(reason)), DRIFTS[reason]).delete_claim == ""


@pytest.mark.parametrize(
    ("changes", "nodes"),
    [
        ({"annotations": {names.DO_NOT_DISRUPT_ANNOTATION: "true"}}, (joined(),)),
        ({}, (joined(annotations={names.DO_NOT_DISRUPT_ANNOTATION: "true"}),)),
    ],
)
@pytest.mark.parametrize("reason", DRIFTS)
def test_claim_that_must_not_be_disrupted_is_told_of_and_kept(
    changes: dict[str, Any], nodes: tuple[Node, ...], reason: str
) -> None:
    before = running(said(reason), **changes)
    step = replaced(before, DRIFTS[reason], nodes=nodes)
    assert (step.delete_claim, step.again_after) == ("", None)
    assert reason_of(step, before) == reason


@pytest.mark.parametrize(
    "changes",
    [
        {"is_replacing_another": True},
        {"pools": listed(pool_of(state="Updating"))},
        {"pools": listed(pool_of(), failure=failure())},
        {"pools": listed()},
    ],
)
def test_claim_waits_for_its_turn_and_for_azure(changes: dict[str, Any]) -> None:
    before = running(said("NodeClassDrift"))
    step = replaced(before, CLASS, **changes)
    assert (step.delete_claim, step.again_after) == ("", timedelta(seconds=5))


@pytest.mark.parametrize(
    ("changes", "again"),
    [
        ({"class_problem": ClassProblem(reason="NodeClassNotReady", message="There is no subnet.")}, None),
        ({"is_node_class_known": False}, timedelta(seconds=5)),
    ],
)
@pytest.mark.parametrize("reason", DRIFTS)
def test_claim_is_kept_while_nothing_can_be_made_of_its_class(
    changes: dict[str, Any], again: timedelta | None, reason: str
) -> None:
    before = running(said(reason))
    step = replaced(before, DRIFTS[reason], **changes)
    assert (step.delete_claim, step.again_after) == ("", again)
    assert reason_of(step, before) == reason


@pytest.mark.parametrize("reason", DRIFTS)
def test_claim_is_kept_while_the_ground_of_what_was_said_is_not_known(reason: str) -> None:
    assert replaced(running(said(reason)), UNKNOWN).delete_claim == ""


def test_claim_is_not_deleted_for_what_somebody_else_has_said() -> None:
    assert replaced(running(said("NodePoolDrifted")), SAME).delete_claim == ""


def test_claim_carries_the_hash_from_before_its_pool_is_asked_for() -> None:
    world = World()
    ready(world)
    assert world.claim.annotations.items() >= hash_annotations("").items()
    assert world.writes.index("metadata") < world.writes.index(f"create {NAME}")
