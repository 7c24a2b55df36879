"""The Workspace controller among crashes, lost answers and late watches: it ends well, or gone, and leaks nothing."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from provisioner.apis import names
from tests.unit.virtual_time import virtual_time
from tests.unit.workspace_builders import A100, SELECTOR, tuning
from tests.unit.workspace_world import CLAIMS, JOBS, NODES, SERVICES, SETS, World

THREE = {"labelSelector": SELECTOR, "instanceType": A100, "count": 3}
TUNING = tuning(output={"volumeSource": {"emptyDir": {}}})


def ends_ready(world: World, *, claims: int = 1) -> None:
    assert world.status["state"] == "Ready", world.status
    assert len(world.api.alive()) == claims
    assert len(world.api.objects[CLAIMS]) == claims
    assert len(world.status["workerNodes"]) == world.status["targetNodeCount"]
    assert set(world.api.objects[SERVICES]) == {"ml/chat", "ml/chat-headless"}
    for kind in ("NodeClaimReady", "NodesReady", "ResourceReady", "InferenceReady", "WorkspaceSucceeded"):
        assert world.condition(kind)[0] == "True" or (kind == "NodeClaimReady" and not claims), kind


def ends_gone(world: World) -> None:
    assert world.workspace is None
    assert {kind: list(world.api.objects[kind]) for kind in (CLAIMS, SETS, JOBS, SERVICES)} == {
        CLAIMS: [],
        SETS: [],
        JOBS: [],
        SERVICES: [],
    }


@virtual_time
async def test_workspace_comes_up_and_goes() -> None:
    async with World(0) as world:
        world.create()
        await world.settle(5)
        ends_ready(world)
        await world.rests()
        world.delete()
        await world.settle(5)
        ends_gone(world)
        assert world.api.objects[NODES] == {}


@virtual_time
async def test_group_of_nodes() -> None:
    async with World(0) as world:
        world.create(resource=THREE)
        await world.settle(5)
        ends_ready(world, claims=3)
        assert world.api.objects[SETS]["ml/chat"]["spec"]["replicas"] == 3
        await world.rests()


@virtual_time
async def test_brought_nodes_come_first_and_are_given_back() -> None:
    async with World(0) as world:
        world.brings("mine")
        world.brings("not-mine", labels={"apps": "other"})
        world.create(resource=THREE)
        await world.settle(5)
        ends_ready(world, claims=2)
        assert "mine" in world.status["workerNodes"]
        world.delete()
        await world.settle(5)
        ends_gone(world)
        assert set(world.api.objects[NODES]) == {"mine", "not-mine"}
        assert names.WORKSPACE_LABEL not in world.api.objects[NODES]["mine"]["metadata"]["labels"]


@virtual_time
async def test_brought_node_of_which_the_watch_has_not_told_yet_spares_a_claim() -> None:
    """Somebody labels a Node and writes the Workspace in one breath."""
    async with World(0) as world:
        await asyncio.sleep(5)
        world.lags[NODES] = 60.0
        world.brings("mine")
        world.create()
        await world.settle(5)
        ends_ready(world, claims=0)
        assert not world.api.journal[CLAIMS], "none was ever written"
        assert world.status["workerNodes"] == ["mine"]


@virtual_time
async def test_claim_that_somebody_deletes_is_replaced() -> None:
    async with World(0) as world:
        world.create(resource=THREE)
        await world.settle(5)
        first = sorted(world.api.objects[CLAIMS])[0]
        world.api.delete(CLAIMS, first)
        await asyncio.sleep(3)
        assert world.status["state"] == "NotReady"
        await world.settle(5)
        ends_ready(world, claims=3)
        assert first not in world.api.objects[CLAIMS]


@virtual_time
async def test_why_there_are_no_nodes_is_told_word_for_word() -> None:
    async with World(0) as world:
        world.no_nodes = "QuotaExceeded"
        world.create()
        await asyncio.sleep(60)
        for kind in ("NodeClaimReady", "ResourceReady", "WorkspaceSucceeded"):
            assert world.condition(kind) == ("False", "QuotaExceeded", "0 of 24 vCPUs are left.")
        assert world.status["state"] == "Pending"
        await world.rests()
        await world.settle(5)
        ends_ready(world)


@pytest.mark.parametrize(
    ("kind", "about", "reason", "said"),
    [
        (CLAIMS, "ResourceReady", "NodeClaimCreationFailed", "denied: no GPUs on Fridays"),
        (SETS, "InferenceReady", "WorkloadRejected", "spec.template: Required value"),
        (SERVICES, "InferenceReady", "WorkloadRejected", "spec.template: Required value"),
    ],
)
def test_what_the_api_server_refuses_is_told(kind: str, about: str, reason: str, said: str) -> None:
    @virtual_time
    async def run() -> None:
        async with World(0) as world:
            world.api.refuses = {kind}
            world.create()
            await asyncio.sleep(120)
            for told in (about, "WorkspaceSucceeded"):
                assert world.condition(told)[:2] == ("False", reason)
                assert said in world.condition(told)[2]
            assert world.status["state"] == "Pending"
            await world.rests()
            await world.settle(5)
            ends_ready(world)
            await world.rests()

    run()


@pytest.mark.parametrize(("kind", "name"), [(SERVICES, "chat"), (SETS, "chat"), (SERVICES, "chat-headless")])
def test_object_of_somebody_else_is_neither_changed_nor_deleted(kind: str, name: str) -> None:
    @virtual_time
    async def run() -> None:
        async with World(0) as world:
            spec = {"ports": [{"port": 443}], "replicas": 1}
            # However it is labelled.
            labels = {"kaito.sh/workspace": "chat", "kaito.sh/workspacenamespace": "ml"}
            metadata = {"namespace": "ml", "name": name, "labels": labels}
            foreign = world.api.create(kind, {"metadata": metadata, "spec": spec})
            world.create()
            await world.settle(5)
            told = world.condition("WorkspaceSucceeded")
            assert told[:2] == ("False", "WorkloadRejected")
            assert f"{name}: there is one that is not of this Workspace" in told[2]
            assert world.api.objects[kind][f"ml/{name}"]["spec"] == spec
            await world.rests()
            world.delete()
            await world.settle(5)
            assert world.workspace is None
            assert world.api.objects[kind][f"ml/{name}"]["metadata"]["uid"] == foreign["metadata"]["uid"]

    run()


@virtual_time
async def test_what_kaito_has_made_for_the_workspace_is_taken_over() -> None:
    async with World(0) as world:
        await world.stop()
        world.create()
        assert world.workspace is not None
        owner = {"uid": world.workspace["metadata"]["uid"], "controller": True}
        metadata = {
            "namespace": "ml",
            "name": "chat",
            "ownerReferences": [owner],
            "labels": {"kaito.sh/workspace": "chat"},
        }
        ports = [{"port": 80}, {"port": 6379}, {"port": 8265}]
        service = world.api.create(SERVICES, {"metadata": dict(metadata), "spec": {"ports": ports}})
        kaitos = world.api.create(SETS, {"metadata": dict(metadata), "spec": {"replicas": 1, "serviceName": "x"}})
        await world.start()
        await world.settle(5)
        ends_ready(world)
        assert world.api.objects[SETS]["ml/chat"]["metadata"]["uid"] != kaitos["metadata"]["uid"]
        taken = world.api.objects[SERVICES]["ml/chat"]
        assert taken["metadata"]["uid"] == service["metadata"]["uid"]
        assert [port["port"] for port in taken["spec"]["ports"]] == [80]
        await world.rests()


@virtual_time
async def test_tuning_that_kaito_has_begun_goes_on_and_its_end_is_told() -> None:
    async with World(0) as world:
        await world.stop()
        world.create(spec=TUNING)
        assert world.workspace is not None
        metadata = {
            "namespace": "ml",
            "name": "chat",
            "ownerReferences": [{"uid": world.workspace["metadata"]["uid"], "controller": True}],
            "labels": {"kaito.sh/workspace": "chat", "kaito.sh/workspacenamespace": "ml"},
        }
        job = world.api.create(JOBS, {"metadata": metadata, "spec": {}})
        await world.start()
        await world.settle(10)
        assert world.status["state"] == "Succeeded"
        assert [each["metadata"]["uid"] for each in world.api.objects[JOBS].values()] == [job["metadata"]["uid"]]
        await world.rests()


@virtual_time
async def test_tuning_runs_once() -> None:
    async with World(0) as world:
        world.create(spec=TUNING)
        await world.settle(10)
        assert world.status["state"] == "Succeeded"
        assert world.condition("WorkspaceSucceeded")[0] == "True"
        job = world.api.objects[JOBS]["ml/chat"]["metadata"]["uid"]
        # Another release has another image.
        world.image = "registry.example/serving:next"
        await world.restart()
        await world.rests()
        assert world.api.objects[JOBS]["ml/chat"]["metadata"]["uid"] == job
        # Somebody clears the Job away.
        world.api.delete(JOBS, "ml/chat")
        await world.settle(10)
        assert world.api.objects[JOBS] == {}
        assert world.status["state"] == "Succeeded"


@pytest.mark.parametrize("is_cleared", [False, True])
def test_other_tuning_runs_anew(is_cleared: bool) -> None:
    @virtual_time
    async def run() -> None:
        async with World(0) as world:
            world.create(spec=TUNING)
            await world.settle(10)
            assert world.status["state"] == "Succeeded"
            job = world.api.objects[JOBS]["ml/chat"]["metadata"]["uid"]
            if is_cleared:
                world.api.delete(JOBS, "ml/chat")
                await asyncio.sleep(60)
            world.patch({"tuning": {"input": {"urls": ["https://data.example/b.parquet"]}}})
            await asyncio.sleep(3)
            assert world.status["state"] in ("Pending", "Running")
            await world.settle(10)
            assert world.status["state"] == "Succeeded"
            assert world.api.objects[JOBS]["ml/chat"]["metadata"]["uid"] != job
            await world.rests()

    run()


@virtual_time
async def test_start_that_fails_halfway_overlooks_nobody() -> None:
    async with World(0) as world:
        await world.stop()
        world.create()
        world.api.faults = 0.6
        await world.start()
        await asyncio.sleep(60)
        await world.settle(5)
        ends_ready(world)


@virtual_time
async def test_no_claim_is_made_twice_whose_making_nobody_was_told_of() -> None:
    async with World(0) as world:
        world.lags[CLAIMS] = 100.0
        world.api.loses_answers_about = {CLAIMS}
        world.create(resource=THREE)
        await asyncio.sleep(100)
        assert len(world.api.alive()) == 3
        await world.settle(5)
        ends_ready(world, claims=3)


@virtual_time
async def test_claim_that_nobody_has_told_of_goes_with_its_workspace() -> None:
    async with World(0, lag=0.1) as world:
        world.lags[CLAIMS] = 300.0
        world.api.loses_answers_about = {CLAIMS}
        world.create()
        for _ in range(200):
            await asyncio.sleep(0.02)
            if world.api.objects[CLAIMS]:
                break
        world.delete()
        await asyncio.sleep(60)
        # Neither that it was made nor that it went was told of by then.
        ends_gone(world)


@pytest.mark.parametrize("is_made_anew", [False, True])
def test_claims_of_a_workspace_whose_finalizer_was_taken_off_go_too(is_made_anew: bool) -> None:
    @virtual_time
    async def run() -> None:
        async with World(0) as world:
            world.create()
            # KAITO's, or written by hand: not ours to delete.
            labels = {"kaito.sh/workspace": "other", "kaito.sh/workspacenamespace": "ml"}
            await world.settle(5)
            metadata = {
                "name": "foreign",
                "uid": "f",
                "labels": labels,
                "annotations": {names.WORKSPACE_UID_ANNOTATION: ""},
            }
            world.api.store(CLAIMS, "foreign", {"metadata": metadata, "spec": {}}, "ADDED")
            old = {claim["metadata"]["uid"] for claim in world.api.alive()}
            await world.stop()
            world.api.is_forced = True
            world.patch({"metadata": {"finalizers": None}})
            world.delete()
            if is_made_anew:
                world.create()
            await world.start()
            await world.settle(10)
            left = {claim["metadata"]["uid"] for claim in world.api.alive()}
            assert left & old == {"f"}
            assert len(left) == (2 if is_made_anew else 1)

    run()


HAPPENINGS: dict[str, Callable[[World], Any]] = {
    "crash": lambda world: setattr(world.api, "crash_in", 0),
    "crash after a write": lambda world: setattr(world.api, "crash_in", 1),
    "crash after some writes": lambda world: setattr(world.api, "crash_in", 4),
    "answers get lost": lambda world: setattr(world.api, "faults", 0.3),
    "answers are had": lambda world: setattr(world.api, "faults", 0.0),
    "watches drop": lambda world: setattr(world, "drops", 0.5),
    "watches are whole": lambda world: setattr(world, "drops", 0.0),
    "watches are late": lambda world: setattr(world, "lag", 20.0),
    "watches are in time": lambda world: setattr(world, "lag", 1.0),
    "no quota": lambda world: setattr(world, "no_nodes", "QuotaExceeded"),
    "quota": lambda world: setattr(world, "no_nodes", ""),
    "claims are refused": lambda world: world.api.refuses.add(CLAIMS),
    "nothing is refused": lambda world: world.api.refuses.clear(),
    "a claim is deleted": lambda world: _delete_one(world, CLAIMS),
    "a node is deleted": lambda world: _delete_one(world, NODES),
    "the set is deleted": lambda world: _delete_one(world, SETS),
    "a node is brought": lambda world: world.brings(f"brought-{world.api.version}"),
    "somebody labels it": lambda world: _label(world),
}


def _label(world: World) -> None:
    if world.workspace is not None:
        world.patch({"metadata": {"labels": {"x": str(world.api.version)}}})


def _delete_one(world: World, kind: str) -> None:
    found = sorted(world.api.objects[kind])
    if found:
        world.api.delete(kind, world.rng.choice(found))


@pytest.mark.parametrize("is_deleted", [False, True], ids=["becoming ready", "going"])
@pytest.mark.parametrize("write", range(10))
def test_crash_at_any_write_is_made_good(write: int, is_deleted: bool) -> None:
    @virtual_time
    async def run() -> None:
        async with World(write) as world:
            if not is_deleted:
                world.api.crash_in = write
            world.create(resource=THREE)
            await asyncio.sleep(120)
            if is_deleted:
                world.api.crash_in = write
                world.delete()
            await world.settle(10)
            if is_deleted:
                ends_gone(world)
            else:
                ends_ready(world, claims=3)
                await world.rests()

    run()


@pytest.mark.parametrize("seed", range(25))
def test_workspace_ends_ready_or_gone_whatever_happens_before(seed: int) -> None:
    @virtual_time
    async def run() -> None:
        async with World(seed) as world:
            rng = world.rng
            world.api.faults, world.lag = rng.choice([0.0, 0.3]), rng.choice([1.0, 20.0])
            world.create(resource=rng.choice([THREE, {"labelSelector": SELECTOR, "instanceType": A100}]))
            for _ in range(rng.randint(3, 25)):
                await asyncio.sleep(rng.choice([0.1, 1, 5, 40]))
                HAPPENINGS[rng.choice(sorted(HAPPENINGS))](world)
            is_deleted = rng.random() < 0.5
            if is_deleted:
                world.delete()
                await asyncio.sleep(rng.choice([0, 1, 30]))
            world.lag = 1.0
            await world.settle(10)
            if is_deleted:
                ends_gone(world)
                return
            await world.rests()
            brought = [node for node in world.status["workerNodes"] if node.startswith("brought")]
            ends_ready(world, claims=max(world.status["targetNodeCount"] - len(brought), len(world.api.alive())))

    run()
