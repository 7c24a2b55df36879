"""Deletion, crashes and bad luck in every stage of a claim's life: it ends ready or gone, and nothing is left over."""

import dataclasses
from collections.abc import Callable
from datetime import timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from provisioner.apis import names
from provisioner.apis.conditions import READY
from provisioner.apis.failure import FailureClass
from provisioner.nodeclaim.view import Step
from tests.unit.builders import NAME, failure, kaito_claim
from tests.unit.claim_world import NO_CLASS, NO_ROOM, STAGES, World, ready
from tests.unit.pod_builders import pod

every_stage = pytest.mark.parametrize("reach", STAGES.values(), ids=STAGES)


@every_stage
def test_deleted_claim_goes_and_leaves_nothing_behind(reach: Callable[[World], None]) -> None:
    world = World()
    reach(world)
    world.events.clear()
    creations = world.creations
    world.client_deletes()
    world.settle()
    world.everything_ends_well()
    assert world.raw is None
    assert (world.pools, world.nodes) == ({}, {})
    assert world.creations == creations
    assert set(world.events) <= {"DeletingAgentPool"}


@every_stage
def test_claim_gets_ready_once_nothing_stands_in_its_way(reach: Callable[[World], None]) -> None:
    world = World()
    reach(world)
    world.everything_ends_well()
    assert world.claim.is_true(READY)
    assert list(world.pools) == [NAME]


@every_stage
def test_reconciling_again_writes_nothing(reach: Callable[[World], None]) -> None:
    world = World()
    reach(world)
    world.settle()
    world.take()
    for _ in range(3):
        world.look()
    assert world.take() == ([], [])


@every_stage
def test_claim_survives_a_restart_that_forgets_what_was_only_remembered(reach: Callable[[World], None]) -> None:
    world = World()
    reach(world)
    world.restarts()
    world.settle()
    world.everything_ends_well()
    assert world.claim.is_true(READY)


@every_stage
def test_pool_that_somebody_deletes_is_replaced_before_the_launch_and_ends_the_claim_after_it(
    reach: Callable[[World], None],
) -> None:
    world = World()
    reach(world)
    was_launched = bool(world.claim.provider_id)
    world.somebody_deletes_the_pools()
    world.settle()
    world.everything_ends_well()
    assert (world.raw is None) == was_launched
    assert list(world.pools) == ([] if was_launched else [NAME])


@pytest.mark.parametrize("survived", range(8))
@pytest.mark.parametrize("is_deleted", [False, True], ids=["becoming ready", "going"])
def test_crash_between_any_two_writes_is_made_good(survived: int, is_deleted: bool) -> None:
    world = World()
    if is_deleted:
        ready(world)
        world.client_deletes()
    world.crash_in = survived
    world.everything_ends_well()
    writes = 6 if is_deleted else 5
    assert (world.crash_in is None) == (survived < writes), "each of the writes was once the last before a crash"
    if is_deleted:
        assert world.raw is None
        assert (world.pools, world.nodes) == ({}, {})
    else:
        assert world.claim.is_true(READY)
        assert (world.creations, list(world.pools)) == (1, [NAME])


_ORDER = ("metadata", "node_patch", "going_nodes", "status", "azure", "deleted_nodes", "release", "delete_claim")


def test_step_is_carried_out_with_azure_after_the_claim_and_the_finalizer_last() -> None:
    assert tuple(field.name for field in dataclasses.fields(Step))[: len(_ORDER)] == _ORDER


HAPPENINGS: dict[str, Callable[[World], None]] = {
    "azure finishes": World.azure_finishes,
    "azure fails": lambda world: world.azure_fails(NO_ROOM),
    "azure refuses": lambda world: setattr(world, "refusal", failure(FailureClass.CONFLICT, "busy")),
    "azure grants": lambda world: setattr(world, "refusal", None),
    "list is lost": lambda world: setattr(world, "is_listed", False),
    "list is back": lambda world: setattr(world, "is_listed", True),
    "node joins": lambda world: world.node_joins(ready="False", gpus=None),
    "node is ready": lambda world: world.kubelet_reports(gpus=None),
    "node has gpus": lambda world: world.kubelet_reports(),
    "node is not ready": lambda world: world.kubelet_reports(ready="False"),
    "node has lost its gpus": lambda world: world.kubelet_reports(gpus=None),
    "missing gpus are repaired": lambda world: setattr(world, "repair_missing_gpus", True),
    "node is gone": lambda world: world.nodes.clear(),
    "time passes": World.retry_is_due,
    "minutes pass": lambda world: setattr(world, "now", world.now + timedelta(minutes=6)),
    "class is missing": lambda world: setattr(world, "class_problem", NO_CLASS),
    "class is there": lambda world: setattr(world, "class_problem", None),
    "pods run": lambda world: world.pods_run(pod(f"p{len(world.pods)}")),
    "pods leave": World.pods_leave,
    "somebody deletes the node": World.somebody_deletes_the_nodes,
    "restart": World.restarts,
    "crash": lambda world: setattr(world, "crash_in", 0),
    "crash after a write": lambda world: setattr(world, "crash_in", 1),
    "somebody deletes the pool": World.somebody_deletes_the_pools,
    "garbage is collected": World.garbage_is_collected,
    "client deletes": World.client_deletes,
}


@settings(deadline=None, max_examples=60)
@given(
    happenings=st.lists(st.sampled_from(sorted(HAPPENINGS)), max_size=12),
    node_class=st.sampled_from(["default", "gold"]),
    expire_after=st.sampled_from(["Never", "5m", "2h", "48h"]),
)
def test_claim_ends_ready_or_gone_whatever_happens_before(
    happenings: list[str], node_class: str, expire_after: str
) -> None:
    ref = {"group": "kaito.sh", "kind": "KaitoNodeClass", "name": node_class}
    annotations = {names.DO_NOT_DISRUPT_ANNOTATION: "false"}
    world = World(kaito_claim(nodeClassRef=ref, expireAfter=expire_after, annotations=annotations))
    world.settle()
    for happening in happenings:
        HAPPENINGS[happening](world)
        world.settle()
    world.everything_ends_well()
    if world.raw is None:
        assert (world.pools, world.nodes) == ({}, {})
    else:
        assert world.claim.is_true(READY)
        assert len(world.pools) == 1
