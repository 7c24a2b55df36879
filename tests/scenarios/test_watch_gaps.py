"""The way to the API server is bad: claims get on by the full lists, nothing is doubled, nothing that went stays."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from itertools import count
from typing import Any

import aiohttp
import pytest
import pytest_asyncio

from fakes.aks import claim_name
from fakes.cluster.components import free_port
from fakes.cluster.interface import ControlPlane
from fakes.nodes.api import ApiError, KubeApi
from fakes.proxy import (
    Active,
    Answer,
    CutWatch,
    Delay,
    DelayEvents,
    Disconnect,
    DropEvents,
    FailWatch,
    Fault,
    FaultProxy,
    StallWatch,
)
from provisioner.apis.names import TERMINATION_FINALIZER
from tests.claims import kaito_claim
from tests.kube import CLAIMS, Kube, eventually, is_true
from tests.scenarios.on_azure import DELETE, PUT, pools, settings, statuses, wait_pool
from tests.scenarios.running import Running, running

pytestmark = pytest.mark.asyncio(loop_scope="module")

LOCAL = "127.0.0.1"
KOPF = "kopf/*"
PROBE = "probe"
CLAIM_COUNT = 3
# The longest pause after which a broken watch is tried again is half a minute.
PATIENCE = 60.0

WATCHES: dict[str, list[Fault]] = {
    "late events": [DelayEvents(seconds=1.5, times=None)],
    "dropped events": [DropEvents(times=None)],
    "stalled watches": [StallWatch(times=None)],
    "cut watches": [CutWatch(times=20)],
    "expired watches": [FailWatch(times=10)],
    "broken lists": [FailWatch(times=2), Answer(verb="list", status=410, reason="Expired", times=4)],
    "watches refused": [CutWatch(times=2), Answer(verb="watch", status=410, reason="Expired", times=2)],
    "failed watches": [FailWatch(status=500, reason="InternalError", times=2)],
}
WRITES: dict[str, list[Fault]] = {
    "conflicts": [
        Answer(verb="patch", resource="nodeclaims", status=409, reason="Conflict", times=3),
        Answer(verb="patch", resource="nodeclaims/status", status=409, reason="Conflict", times=6),
        Answer(verb="patch", resource="nodes", status=409, reason="Conflict", times=3),
    ],
    "lost answers to status patches": [
        Disconnect(verb="patch", resource="nodeclaims/status", after_effect=True, times=6)
    ],
    "lost answers to other writes": [
        Disconnect(verb="patch", resource="nodeclaims", after_effect=True, times=3),
        Disconnect(verb="patch", resource="nodes", after_effect=True, times=3),
        Disconnect(verb="delete", resource="nodes", after_effect=True, times=3),
        Disconnect(resource="events", after_effect=True, times=3),
    ],
    "resets": [Disconnect(times=12)],
    "errors": [Answer(verb="patch", status=500, reason="InternalError", times=6)],
    "throttling": [Answer(verb="patch", status=429, reason="TooManyRequests", retry_after=1, times=6)],
    "slow answers": [Delay(seconds=0.5, times=None)],
}


@dataclass(frozen=True, kw_only=True)
class World:
    """A controller whose API server is behind a proxy. `running.kube` goes past it."""

    running: Running
    proxy: FaultProxy
    metrics: str

    @property
    def kube(self) -> Kube:
        return self.running.kube

    async def create(self) -> list[str]:
        names = [claim_name() for _ in range(CLAIM_COUNT)]
        for name in names:
            await self.kube.create(CLAIMS, kaito_claim(name))
        return names

    async def until_ready(self, names: list[str]) -> None:
        for name in names:
            claim = await self.kube.wait_claim(name, is_true("Ready"), patience=PATIENCE)
            assert claim["metadata"]["finalizers"] == [TERMINATION_FINALIZER]
            assert len(await self.kube.nodes_of_pool(name)) == 1

    async def delete(self, names: list[str]) -> None:
        for name in names:
            await self.kube.delete(CLAIMS, name)

    async def until_gone(self, names: list[str]) -> None:
        for name in names:
            await self.kube.wait_gone(CLAIMS, name, patience=PATIENCE)
            assert name not in pools(self.running.aks)
            assert await self.kube.nodes_of_pool(name) == []

    def assert_nothing_doubled(self, names: list[str]) -> None:
        for name in names:
            assert statuses(self.running.aks, PUT, pool=name) == [201]
            assert statuses(self.running.aks, DELETE, pool=name) in ([], [202])
        assert self.running.controller.process.returncode is None
        assert "reconcile failed" not in self.running.controller.log_text()

    async def claims_in_store(self) -> int:
        """Return how many claims of ours the controller believes to be there."""
        async with aiohttp.ClientSession() as session, session.get(self.metrics) as response:
            lines = (await response.text()).splitlines()
        values = [line.rpartition(" ")[2] for line in lines if line.startswith("gpu_provisioner_nodeclaims{")]
        return int(sum(map(float, values)))


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def behind_a_proxy(control_plane: ControlPlane, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    log, port = tmp_path_factory.mktemp("gaps") / "controller.log", free_port()
    async with FaultProxy(control_plane) as proxy:
        behind = {
            "KUBECONFIG": str(proxy.kubeconfig),
            "METRICS_PORT": str(port),
            "BIND_ADDRESS": LOCAL,
        }
        async with running(control_plane, log=log, settings=behind) as cluster:
            # Of no kind that the controller serves: it is there to be told of.
            probe = kaito_claim(PROBE)
            probe["metadata"]["labels"] = {}
            probe["spec"]["nodeClassRef"] = {"group": "example.com", "kind": "Other", "name": "default"}
            await cluster.kube.create(CLAIMS, probe)
            yield World(running=cluster, proxy=proxy, metrics=f"http://{LOCAL}:{port}/metrics")


@pytest_asyncio.fixture(loop_scope="module")
async def world(behind_a_proxy: World) -> AsyncIterator[World]:
    """The world with nothing wrong in it: the watch tells of claims. Nobody but the controller deletes Nodes."""
    behind_a_proxy.running.aks.nodes.settings.node_removal_delay = None
    await until_told(behind_a_proxy)
    yield behind_a_proxy
    behind_a_proxy.proxy.clear()


async def until_told(world: World) -> None:
    """Wait until an event about a claim has come through the watch."""
    told = world.proxy.add_fault(DelayEvents(resource="nodeclaims", name=PROBE, seconds=0.0, times=None))
    numbers = count()

    async def look() -> bool:
        await world.kube.patch(CLAIMS, PROBE, {"metadata": {"annotations": {"number": str(next(numbers))}}})
        return told.handed_on > 0

    await eventually(look, patience=PATIENCE, what="the watch of NodeClaims tells of changes")
    world.proxy.clear(told)


async def until_hit(active: Active[Any], *, times: int) -> None:
    """Wait until a fault has hit so often."""

    async def hits() -> int:
        return active.hits

    await eventually(hits, until=lambda seen: seen >= times, what=f"{active.fault} hits")


@pytest.mark.parametrize("faults", WATCHES.values(), ids=WATCHES)
async def test_claims_live_and_die_whatever_the_watches_do(world: World, faults: list[Fault]) -> None:
    in_force = [world.proxy.add_fault(fault) for fault in faults]

    names = await world.create()
    await world.until_ready(names)
    await world.delete(names)
    await world.until_gone(names)

    assert all(active.hits for active in in_force)
    world.assert_nothing_doubled(names)
    await eventually(world.claims_in_store, until=lambda number: number == 0)


async def test_released_claim_does_not_come_back_by_what_the_watch_tells_late(world: World) -> None:
    names = await world.create()
    await world.until_ready(names)
    world.proxy.add_fault(DelayEvents(resource="nodeclaims", name="ws*", seconds=2.0, times=None))
    await world.delete(names)
    world.proxy.calls.reset()
    await world.until_gone(names)
    await until_told(world)

    releases = [call.status for call in world.proxy.calls if (call.verb, call.resource) == ("patch", "nodeclaims")]
    assert releases == [200] * CLAIM_COUNT


@pytest.mark.parametrize("faults", WRITES.values(), ids=WRITES)
async def test_claims_live_and_die_whatever_writes_meet(world: World, faults: list[Fault]) -> None:
    first = [world.proxy.add_fault(fault) for fault in faults]
    names = await world.create()
    await world.until_ready(names)
    world.proxy.clear()

    second = [world.proxy.add_fault(fault) for fault in faults]
    await world.delete(names)
    await world.until_gone(names)

    assert all(before.hits + after.hits for before, after in zip(first, second, strict=True))
    world.assert_nothing_doubled(names)


async def test_throttled_claim_comes_back_no_sooner_than_it_was_asked_to(world: World) -> None:
    busy = Answer(verb="patch", resource="nodeclaims", status=429, reason="TooManyRequests", retry_after=2)
    world.proxy.add_fault(busy)
    world.proxy.calls.reset()
    names = await world.create()
    await world.until_ready(names)

    (refused,) = (call for call in world.proxy.calls if call.spoiled)
    first, second, *_ = (call.time for call in world.proxy.calls if (call.verb, call.name) == ("patch", refused.name))
    assert second - first >= 2.0
    await world.delete(names)
    await world.until_gone(names)


async def test_api_server_that_fails_all_calls_for_a_while_is_waited_for(world: World) -> None:
    going = await world.create()
    await world.until_ready(going)
    names = await world.create()
    world.proxy.add_fault(CutWatch(times=None))
    outage = world.proxy.add_fault(Answer(status=500, reason="InternalError", times=None))
    await world.delete(going)

    async def refused() -> set[str]:
        return {call.verb for call in world.proxy.calls if call.spoiled and call.status == 500}

    await eventually(refused, until={"list", "watch"}.issubset)
    await until_hit(outage, times=10)
    world.proxy.clear()

    await world.until_ready(names)
    await world.until_gone(going)
    world.assert_nothing_doubled([*names, *going])
    await world.delete(names)
    await world.until_gone(names)


async def test_claim_that_vanished_unnoticed_is_forgotten_and_its_pool_deleted(world: World) -> None:
    (name, *others) = names = await world.create()
    await world.until_ready(names)
    missed = world.proxy.add_fault(DropEvents(resource="nodeclaims", name=name, times=None))

    await world.kube.patch(CLAIMS, name, {"metadata": {"finalizers": None}})
    await world.kube.delete(CLAIMS, name)
    assert await world.kube.claim(name) is None

    await wait_pool(world.running.aks, name, None)
    assert missed.hits
    await eventually(world.claims_in_store, until=lambda number: number == len(others))
    await world.delete(others)
    await world.until_gone(others)


async def test_lost_claim_is_collected_although_nobody_told_that_its_node_went(world: World) -> None:
    """A Ready Node proves that the VM lives, so a Node that is remembered for too long would hold the claim."""
    (name, *others) = names = await world.create()
    await world.until_ready(names)
    world.proxy.add_fault(DropEvents(resource="nodes", name=f"*-{name}-*", times=None))
    world.running.aks.nodes.settings.node_removal_delay = 60.0
    world.running.aks.azure.cluster.delete_pool(name)

    await world.until_gone([name])

    await world.delete(others)
    await world.until_gone(others)
    world.assert_nothing_doubled(others)


@pytest.mark.real_only("it is etcd that is compacted")
async def test_watch_goes_on_after_a_restart_and_compaction(world: World, control_plane: ControlPlane) -> None:
    going = await world.create()
    await world.until_ready(going)
    with settings(world.running.aks, create_seconds=1000.0, vm_seconds=1000.0):
        flying = await world.create()
        for name in flying:
            await wait_pool(world.running.aks, name, "Creating")
    away = world.proxy.add_fault(Disconnect(verb="watch", times=None))
    world.proxy.add_fault(CutWatch(times=None))
    await until_hit(away, times=2)
    old = (await world.kube.wait_claim(PROBE, bool))["metadata"]["resourceVersion"]

    await world.delete(going)
    await compact(control_plane)
    await asyncio.to_thread(control_plane.restart_apiserver)
    assert await refusal_of_watch(control_plane, version=old) == 410
    listed = world.proxy.calls.count("list", "nodeclaims", agent=KOPF)
    world.proxy.clear()

    await until_told(world)
    assert world.proxy.calls.count("list", "nodeclaims", agent=KOPF) > listed
    await world.until_ready(flying)
    await world.until_gone(going)
    world.assert_nothing_doubled([*flying, *going])
    await world.delete(flying)
    await world.until_gone(flying)


async def compact(cluster: ControlPlane) -> None:
    """Have etcd forget all but the present, which the API server itself has it do every five minutes."""
    connector = aiohttp.UnixConnector(str(cluster.folder / "etcd:1"))
    async with aiohttp.ClientSession("http://etcd", connector=connector, raise_for_status=True) as session:
        async with session.post("/v3/kv/range", json={"key": "AA=="}) as response:
            revision = (await response.json())["header"]["revision"]
        async with session.post("/v3/kv/compaction", json={"revision": revision, "physical": True}):
            pass


async def refusal_of_watch(cluster: ControlPlane, *, version: str) -> int:
    """Return the code with which a watch of claims from a version on is refused."""

    async def refusal() -> int:
        with pytest.raises(ApiError) as refused:
            async for _ in client.watch(CLAIMS, version=version, seconds=5):
                pass
        return refused.value.status

    async with KubeApi(cluster.kubeconfig) as client:
        # Just after its start the API server answers for a kind with 429 until its cache is filled.
        return await eventually(refusal, until=lambda status: status != 429)
