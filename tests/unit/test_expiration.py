"""Expiration: a claim ends at the age that its author gave it, and at no other."""

from datetime import timedelta
from typing import Any

import pytest

from provisioner.apis.conditions import INITIALIZED, LAUNCHED, READY, REGISTERED
from provisioner.nodeclaim.lifecycle import reconcile
from provisioner.nodeclaim.view import Step
from tests.unit.builders import CREATED, NOW, claim, listed, node, pool, provider_id, reached, recorded_claim, view
from tests.unit.claim_world import World, created, ready

DISRUPTABLE = {"karpenter.sh/do-not-disrupt": "false"}
HOUR = timedelta(hours=1)


def running(expire_after: Any, **changes: Any) -> Any:
    status = {
        "providerID": provider_id(claim().name),
        "nodeName": node().name,
        "conditions": reached(INITIALIZED, LAUNCHED, REGISTERED, READY),
    }
    return recorded_claim(
        **{"expireAfter": expire_after, "status": status, "annotations": DISRUPTABLE, **changes},
    )


def look(claim: Any, *, age: timedelta) -> Step:
    return reconcile(view(claim, node(owner=claim.uid), pools=listed(pool()), now=CREATED + age))


@pytest.mark.parametrize(
    ("expire_after", "age", "is_over"),
    [
        ("1h", HOUR - timedelta(seconds=1), False),
        ("1h", HOUR, True),
        ("1h30m", HOUR, False),
        ("720h", timedelta(days=31), True),
        ("0s", timedelta(seconds=1), True),
        ("Never", timedelta(days=10_000), False),
        # The CRD lets none of these through.
        (None, timedelta(days=10_000), False),
        ("one hour", timedelta(days=10_000), False),
        ("99999999999999h", timedelta(days=10_000), False),
        (5, timedelta(days=10_000), False),
    ],
)
def test_claim_is_deleted_at_its_age(expire_after: Any, age: timedelta, is_over: bool) -> None:
    step = look(running(expire_after), age=age)
    assert step.delete_claim == ("expired" if is_over else "")
    assert [(notice.reason, notice.is_warning) for notice in step.notices] == [("Expired", True)] * is_over


@pytest.mark.parametrize(("value", "is_kept"), [("true", True), ("True", False), ("30m", False), ("", False)])
def test_claim_that_must_not_be_disrupted_is_kept(value: str, is_kept: bool) -> None:
    step = look(running("1h", annotations={"karpenter.sh/do-not-disrupt": value}), age=2 * HOUR)
    assert (step.delete_claim == "") == is_kept
    assert step.again_after is None


def test_claim_that_is_deleted_already_is_not_deleted_again() -> None:
    step = look(running("1h", deleted=NOW), age=2 * HOUR)
    assert (step.delete_claim, step.notices) == ("", ())
    assert step.node_patch is not None


def test_claim_of_another_provider_does_not_expire() -> None:
    foreign = {"group": "karpenter.azure.com", "kind": "AKSNodeClass", "name": "default"}
    assert look(running("1h", nodeClassRef=foreign, labels={}), age=2 * HOUR) == Step()


def test_next_look_is_at_the_moment_of_expiry() -> None:
    assert look(running("1h"), age=timedelta(minutes=50)).again_after == timedelta(minutes=10)


def test_next_look_is_sooner_where_something_else_asks_for_it() -> None:
    waiting = recorded_claim(expireAfter="1h", annotations=DISRUPTABLE)
    step = reconcile(view(waiting, pools=listed(pool())))
    assert step.again_after == timedelta(seconds=10)


def test_no_pool_is_asked_for_on_behalf_of_an_expired_claim() -> None:
    late = claim(expireAfter="1h", annotations=DISRUPTABLE)
    step = reconcile(view(late, now=CREATED + HOUR))
    assert (step.azure, step.metadata, step.delete_claim) == (None, None, "expired")


def test_event_says_when_and_why() -> None:
    (notice,) = look(running("1h"), age=2 * HOUR).notices
    assert "2026-11-21T05:34:24Z" in notice.message
    assert "spec.expireAfter" in notice.message


@pytest.mark.parametrize("reach", [created, ready])
def test_expired_claim_goes_with_its_pool_and_node(reach: Any) -> None:
    world = World()
    assert world.raw is not None
    world.raw["spec"]["expireAfter"] = "1h"
    world.raw["metadata"]["annotations"] |= DISRUPTABLE
    reach(world)
    world.take()
    world.events.clear()
    world.now += HOUR
    world.settle()
    world.azure_finishes()
    world.settle()
    writes, _ = world.take()
    assert [what for what in writes if what.startswith("delete")] == [
        "delete claim: expired",
        "delete ws09f153898",
    ]
    assert world.raw is None
    assert (world.pools, world.nodes) == ({}, {})
    assert world.events == ["Warning Expired", "DeletingAgentPool"]
