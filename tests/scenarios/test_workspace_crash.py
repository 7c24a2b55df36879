"""The Workspace controller dies at each of its writes: no claim is made twice, nothing is left waiting or behind.

One `kill -9` finds a Workspace at each of those moments: its write has not taken effect, or it has and was not
answered. Then both controllers are killed together, and found again by each other.
"""

from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest
import pytest_asyncio

from fakes.cluster.interface import ControlPlane
from fakes.proxy import Delay, FaultProxy
from fakes.proxy.faults import Active
from tests.claims import A100
from tests.kube import NODES, WORKSPACES, Object, eventually
from tests.scenarios.on_azure import AGES, PUT, hurry, pools, put_pool, statuses
from tests.scenarios.on_azure import settings as azure_settings
from tests.scenarios.on_workspaces import (
    SECRETS,
    STATEFUL_SETS,
    Serving,
    inference,
    registry_secret,
    serving,
    tuning,
)

pytestmark = pytest.mark.asyncio(loop_scope="module")

# The write that the controller dies in: verb and resource.
WRITES: dict[str, tuple[str, str]] = {
    "finalizer": ("patch", "workspaces"),
    "decision": ("patch", "workspaces/status"),
    "claim": ("create", "nodeclaims"),
    "service": ("patch", "services"),
    "server": ("patch", "statefulsets"),
    "job": ("patch", "jobs"),
    "node": ("patch", "nodes"),
}
# What it dies in while a Workspace goes.
GOING: dict[str, tuple[str, str]] = {
    "undone": ("delete", "statefulsets"),
    "unclaimed": ("delete", "nodeclaims"),
    "released": ("patch", "workspaces"),
}
LONG = 600.0


@dataclass(frozen=True, kw_only=True)
class Bench:
    """Both controllers; the calls of the Workspaces' own go through a proxy."""

    world: Serving
    proxy: FaultProxy

    async def hang(self, name: str, verb: str, resource: str, *, after_effect: bool) -> Active[Delay]:
        """Let the next such write about an object hang; of claims and Nodes, whose names are others, any."""
        named = "*" if resource in ("nodeclaims", "nodes") else name
        fault = Delay(verb=verb, resource=resource, name=named, seconds=LONG, after_effect=after_effect)
        return self.proxy.add_fault(fault)

    async def die_in(self, fault: Active[Delay]) -> None:
        """Kill the controller in that write, and start it again."""

        async def hit() -> bool:
            return fault.hits > 0

        await eventually(hit, what=f"{fault.fault} has hit")
        await self.world.workspaces.kill()
        self.proxy.clear(fault)
        await self.world.workspaces.start()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def bench(control_plane: ControlPlane, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Bench]:
    async with FaultProxy(control_plane) as proxy:
        settings = {"KUBECONFIG": str(proxy.kubeconfig)}
        async with serving(control_plane, folder=tmp_path_factory.mktemp("crash"), settings=settings) as world:
            await world.kube.create(SECRETS, registry_secret("push"))
            yield Bench(world=world, proxy=proxy)


def body_of(name: str, write: str) -> Object:
    return tuning(name) if write == "job" else inference(name)


@pytest.mark.parametrize("after_effect", [False, True], ids=["lost", "unanswered"])
@pytest.mark.parametrize("write", list(WRITES))
async def test_it_is_served_all_the_same(bench: Bench, write: str, after_effect: bool) -> None:
    world = bench.world
    name = f"{write}-{'done' if after_effect else 'lost'}"
    verb, resource = WRITES[write]
    if write == "node":
        put_pool(world.aks, "brought", vmSize=A100, nodeLabels={"apps": name}, nodeTaints=["sku=gpu:NoSchedule"])

        async def usable() -> bool:
            nodes = await world.kube.nodes_of_pool("brought")
            return any(node["status"]["allocatable"].get("nvidia.com/gpu", "0") != "0" for node in nodes)

        await eventually(usable, what="a brought Node")
    fault = await bench.hang(name, verb, resource, after_effect=after_effect)
    await world.create(body_of(name, write))

    await bench.die_in(fault)

    await world.wait_state(name, "Succeeded" if write == "job" else "Ready")
    claims = await world.claims_of(name)
    assert len(claims) == (0 if write == "node" else 1)
    for claim in claims:
        assert [status for status in statuses(world.aks, PUT, pool=claim["metadata"]["name"]) if status == 201] == [201]
    await world.delete(name)
    await world.assert_nothing_left(name)
    if write == "node":
        for node in await world.kube.nodes_of_pool("brought"):
            await world.kube.delete(NODES, node["metadata"]["name"])
        world.aks.azure.cluster.delete_pool("brought")
    with hurry(world.aks):
        await eventually(lambda: _pools(world), until=lambda left: not left, what="no pool is left")


@pytest.mark.parametrize("after_effect", [False, True], ids=["lost", "unanswered"])
@pytest.mark.parametrize("write", list(GOING))
async def test_it_goes_all_the_same(bench: Bench, write: str, after_effect: bool) -> None:
    world = bench.world
    name = f"{write}-{'done' if after_effect else 'lost'}"
    await world.create(inference(name))
    await world.wait_state(name, "Ready")
    fault = await bench.hang(name, *GOING[write], after_effect=after_effect)
    await world.kube.delete(WORKSPACES, name)

    await bench.die_in(fault)

    await world.kube.wait_gone(WORKSPACES, name)
    await world.assert_nothing_left(name)
    assert pools(world.aks) == {}


async def test_both_controllers_die_and_come_back(bench: Bench) -> None:
    world = bench.world
    await world.create(inference("served"))
    await world.wait_state("served", "Ready")
    (pod,) = await world.pods_of("served")
    with azure_settings(world.aks, create_seconds=AGES, vm_seconds=AGES):
        await world.create(inference("waiting"))
        await world.wait_reason("waiting", "NodeClaimReady", "CreatingAgentPool")
    await world.create(inference("going"))
    await world.wait_state("going", "Ready")
    with azure_settings(world.aks, delete_seconds=AGES, vm_delete_seconds=AGES):
        await world.kube.delete(WORKSPACES, "going")
        await world.kube.wait_gone(STATEFUL_SETS, "going")

    await world.claims.kill()
    await world.workspaces.kill()
    await world.kube.delete(WORKSPACES, "waiting")
    await world.create(inference("new"))
    await world.workspaces.start()
    await world.claims.start()

    await world.wait_state("new", "Ready")
    with hurry(world.aks):
        for name in ("going", "waiting"):
            await world.kube.wait_gone(WORKSPACES, name)
    served, new = await world.claims_of("served"), await world.claims_of("new")
    assert len(served) == len(new) == 1
    assert set(pools(world.aks)) == {claim["metadata"]["name"] for claim in (*served, *new)}
    (after,) = await world.pods_of("served")
    assert after["metadata"]["uid"] == pod["metadata"]["uid"]


async def _pools(world: Serving) -> list[str]:
    return list(pools(world.aks))
