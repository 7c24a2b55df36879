"""Liveness: a claim is deleted when its Node does not come after Azure was done, or its node class does not."""

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest

from provisioner.apis.conditions import LAUNCHED, REGISTERED
from provisioner.apis.failure import FailureClass
from provisioner.nodeclaim.lifecycle import reconcile
from provisioner.nodeclaim.nodeclass import NOT_FOUND, NOT_READY, ClassProblem
from provisioner.nodeclaim.view import Step, Timeouts, View, Waiting
from tests.unit.builders import (
    CREATED,
    NAME,
    NOW,
    Listed,
    claim,
    condition,
    failure,
    listed,
    node,
    peers_pool,
    pool,
    provider_id,
    reached,
    recorded_claim,
    users_pool,
    view,
)
from tests.unit.claim_world import NO_ROOM, TIMEOUTS, World, created, failed

MINUTE = timedelta(minutes=1)
QUARTER = 15 * MINUTE


def launched(since: datetime, *more: dict[str, Any], **changes: Any) -> Any:
    conditions = [condition(LAUNCHED, "True", LAUNCHED, since=since), *more]
    return recorded_claim(status={"providerID": provider_id(NAME), "conditions": conditions}, **changes)


def creating() -> Any:
    return recorded_claim(status={"conditions": [condition(LAUNCHED, "Unknown", "CreatingAgentPool")]})


def seen(claim: Any, pools: Listed | None = None, *nodes: Any, **changes: Any) -> View:
    changes = {"timeouts": TIMEOUTS, **changes}
    return view(claim, *nodes, pools=pools if pools is not None else listed(pool()), **changes)


def waits(what: str, since: datetime) -> Waiting:
    return Waiting(what=what, since=since)


def ended(step: Step) -> tuple[str, list[tuple[str, bool]]]:
    return step.delete_claim, [(notice.reason, notice.is_warning) for notice in step.notices]


OVER = ("registration_timeout", [("RegistrationTimeout", True)])


# The Node does not come


def test_claim_is_deleted_when_its_node_has_not_registered_in_time() -> None:
    step = reconcile(seen(launched(NOW - QUARTER)))
    assert ended(step) == OVER
    (notice,) = step.notices
    assert notice.message.startswith(f"No node of agent pool {NAME} has registered within 15 min")


def test_claim_is_kept_until_then_and_looked_at_at_that_moment() -> None:
    step = reconcile(seen(launched(NOW - QUARTER + timedelta(seconds=7))))
    assert ended(step) == ("", [])
    assert step.again_after == timedelta(seconds=7)


def test_claim_whose_pool_stands_without_a_vm_is_counted_from_when_that_was_first_seen() -> None:
    first = reconcile(seen(creating()))
    assert (first.waiting, first.delete_claim) == (waits("Node", NOW), "")
    later = seen(creating(), now=NOW + QUARTER - timedelta(seconds=1), waiting=first.waiting)
    assert reconcile(later).waiting == first.waiting
    over = reconcile(replace(later, now=NOW + QUARTER))
    assert ended(over) == OVER
    assert over.azure is None


def test_time_counts_from_the_end_of_azures_work_and_not_from_the_launch() -> None:
    early = launched(NOW - 2 * QUARTER)
    working = reconcile(seen(early, listed(pool(state="Updating"))))
    assert working.waiting == waits("Azure", NOW)
    done = reconcile(seen(early, now=NOW + MINUTE, waiting=working.waiting))
    assert (done.waiting, done.delete_claim) == (waits("Node", NOW + MINUTE), "")


def test_time_goes_on_when_the_vm_is_found() -> None:
    since = NOW - QUARTER + MINUTE
    step = reconcile(seen(creating(), waiting=waits("Node", since), instance_id=provider_id(NAME)))
    assert step.waiting == waits("Node", since)
    assert step.again_after == MINUTE


def test_restart_counts_from_the_launch_and_anew_where_there_was_none() -> None:
    assert ended(reconcile(seen(launched(NOW - QUARTER), waiting=None))) == OVER
    assert reconcile(seen(creating(), waiting=None)).waiting == waits("Node", NOW)


@pytest.mark.parametrize("state", ["Creating", "Updating", "Upgrading", "Scaling", "Deleting", "Starting", ""])
def test_nothing_is_shot_that_azure_works_on(state: str) -> None:
    for waiting in (None, waits("Node", CREATED - QUARTER)):
        step = reconcile(seen(launched(NOW - 2 * QUARTER), listed(pool(state=state)), waiting=waiting))
        assert ended(step) == ("", [])
        assert step.waiting == waits("Azure", NOW)


def test_time_does_not_begin_anew_where_pools_cannot_be_read_and_nothing_is_decided() -> None:
    waiting = waits("Node", NOW - QUARTER)
    for pools in (listed(unknown=[NAME]), listed(pool(), failure=failure(FailureClass.INTERNAL, "down"))):
        step = reconcile(seen(launched(NOW - QUARTER), pools, waiting=waiting))
        assert (step.delete_claim, step.waiting) == ("", waiting)


@pytest.mark.parametrize(
    "pools",
    [listed(), listed(users_pool()), listed(pool(uid="other"))],
    ids=["no pool", "pool of a user", "pool of another claim"],
)
def test_claim_without_a_pool_of_its_own_is_not_judged_here(pools: Listed) -> None:
    step = reconcile(seen(launched(NOW - QUARTER), pools))
    assert (step.delete_claim, step.waiting) == ("", None)


def test_pool_of_the_peers_is_judged_like_one_of_ours() -> None:
    assert ended(reconcile(seen(launched(NOW - QUARTER), listed(peers_pool())))) == OVER


def test_pool_that_has_failed_after_the_launch_is_no_reason_to_wait() -> None:
    assert ended(reconcile(seen(launched(NOW - QUARTER), listed(pool(state="Failed"))))) == OVER


def test_launch_that_fails_ends_no_claim() -> None:
    late = {"now": NOW + 100 * QUARTER, "waiting": waits("Node", NOW)}
    step = reconcile(seen(creating(), listed(pool(state="Failed", error=NO_ROOM)), **late))
    assert step.delete_claim == ""
    assert reconcile(seen(creating(), listed(), **late)).delete_claim == ""


def test_node_that_has_registered_in_time_is_never_asked_after_again() -> None:
    registered = launched(NOW - 2 * QUARTER, *reached(REGISTERED))
    assert reconcile(seen(registered)).delete_claim == ""


def test_node_that_joins_at_the_last_moment_counts() -> None:
    step = reconcile(seen(launched(NOW - QUARTER), listed(pool()), node()))
    assert step.delete_claim == ""
    assert step.status is not None
    assert step.status["nodeName"] == node().name


def test_two_nodes_of_one_vm_are_no_registration() -> None:
    step = reconcile(seen(launched(NOW - QUARTER), listed(pool()), node(), node(name="twin")))
    assert step.delete_claim == "registration_timeout"


def test_timeout_that_is_off_never_ends_a_claim() -> None:
    step = reconcile(seen(launched(NOW - 100 * QUARTER), timeouts=Timeouts()))
    assert (step.delete_claim, step.again_after) == ("", None)


def test_claim_of_another_provider_is_left_alone() -> None:
    foreign = {"group": "karpenter.azure.com", "kind": "AKSNodeClass", "name": "default"}
    assert reconcile(seen(launched(NOW - QUARTER, nodeClassRef=foreign, labels={}))) == Step()


def test_claim_that_is_deleted_already_is_not_deleted_again() -> None:
    assert reconcile(seen(launched(NOW - QUARTER, deleted=NOW))).delete_claim == ""


@pytest.mark.parametrize("has_machines", [True, False], ids=["with a VM", "without a VM"])
def test_claim_whose_node_never_joins_goes_with_its_pool(has_machines: bool) -> None:
    world = World()
    created(world)
    world.now += 4 * QUARTER
    world.settle()
    world.has_machines = has_machines
    world.azure_finishes()
    world.settle()
    world.now += QUARTER - MINUTE
    world.settle()
    assert not world.claim.is_deleting
    world.now += MINUTE
    world.take()
    world.settle()
    assert [what for what in world.take()[0] if what.startswith("delete")] == [
        "delete claim: registration_timeout",
        f"delete {NAME}",
    ]
    world.azure_finishes()
    world.settle()
    assert (world.raw, world.pools) == (None, {})
    assert world.events == ["CreatingAgentPool", "Warning RegistrationTimeout", "DeletingAgentPool"]


def test_failed_launch_waits_for_ever() -> None:
    world = World()
    failed(world)
    world.settle()
    world.azure_finishes()
    for _ in range(5):
        world.settle()
        world.now += 100 * QUARTER
    assert not world.claim.is_deleting


# The node class does not come

MISSING = ClassProblem(reason=NOT_FOUND, message="There is no KaitoNodeClass gold.")
BROKEN = ClassProblem(reason=NOT_READY, message="KaitoNodeClass gold is not Ready: no such subnet")


def gold(name: str = "gold", **changes: Any) -> Any:
    return claim(nodeClassRef={"group": "kaito.sh", "kind": "KaitoNodeClass", "name": name}, **changes)


@pytest.mark.parametrize("problem", [MISSING, BROKEN], ids=lambda problem: problem.reason)
def test_claim_of_a_class_that_cannot_be_used_says_so_at_once_and_ends_after_the_launch_timeout(
    problem: ClassProblem,
) -> None:
    first = reconcile(seen(gold(), listed(), class_problem=problem))
    assert (first.azure, first.metadata, first.delete_claim) == (None, None, "")
    assert (first.waiting, first.again_after) == (waits("NodeClass", NOW), 5 * MINUTE)
    assert first.status is not None
    told = {entry["type"]: (entry["status"], entry["reason"], entry["message"]) for entry in first.status["conditions"]}
    assert told[LAUNCHED] == ("Unknown", problem.reason, problem.message)
    assert [(notice.reason, notice.is_warning) for notice in first.notices] == [(problem.reason, True)]

    waiting = gold(status=first.status)
    later = seen(waiting, listed(), class_problem=problem, waiting=first.waiting)
    assert reconcile(replace(later, now=NOW + 5 * MINUTE - timedelta(seconds=1))).delete_claim == ""
    over = reconcile(replace(later, now=NOW + 5 * MINUTE))
    assert ended(over) == ("launch_timeout", [("LaunchTimeout", True)])
    assert over.notices[0].message == f"Deleting the claim after 5 min. {problem.message}"


def test_time_counts_from_when_the_class_was_missing_and_not_from_the_claims_creation() -> None:
    step = reconcile(seen(gold(), listed(), class_problem=MISSING, now=NOW + 60 * MINUTE))
    assert (step.delete_claim, step.waiting) == ("", waits("NodeClass", NOW + 60 * MINUTE))


def test_class_that_comes_back_ends_the_wait() -> None:
    step = reconcile(seen(gold(), listed(), waiting=waits("NodeClass", NOW - 60 * MINUTE)))
    assert step.azure is not None
    assert (step.delete_claim, step.waiting) == ("", None)


def test_claim_of_the_default_class_is_never_deleted_for_it() -> None:
    late = waits("NodeClass", NOW - 60 * MINUTE)
    step = reconcile(seen(claim(), listed(), class_problem=BROKEN, waiting=late))
    assert (step.azure, step.delete_claim) == (None, "")


def test_claim_that_has_its_pool_needs_no_class_any_more() -> None:
    late = waits("NodeClass", NOW - 60 * MINUTE)
    going = recorded_claim(nodeClassRef={"group": "kaito.sh", "kind": "KaitoNodeClass", "name": "gold"})
    step = reconcile(seen(going, listed(pool(state="Creating")), class_problem=MISSING, waiting=late))
    assert (step.delete_claim, step.waiting) == ("", waits("Azure", NOW))


def test_launch_timeout_that_is_off_never_ends_a_claim() -> None:
    late = waits("NodeClass", NOW - 60 * MINUTE)
    step = reconcile(seen(gold(), listed(), class_problem=MISSING, waiting=late, timeouts=Timeouts()))
    assert step.delete_claim == ""


def test_nothing_is_said_and_asked_for_before_node_classes_were_listed() -> None:
    step = reconcile(seen(gold(), listed(), class_problem=MISSING, is_node_class_known=False))
    assert step == Step(again_after=MINUTE)
