"""Two instances of the Workspace controller: one acts, the other takes over; probes and metrics tell of both."""

from collections.abc import AsyncIterator
from dataclasses import dataclass

import aiohttp
import pytest
import pytest_asyncio

from fakes.cluster.components import free_port
from fakes.cluster.interface import ControlPlane
from fakes.controller import ControllerProcess
from tests.kube import eventually
from tests.scenarios.on_workspaces import Serving, inference, serving, workspace_environment

pytestmark = pytest.mark.asyncio(loop_scope="module")

LEASES = "/apis/coordination.k8s.io/v1/namespaces/default/leases"
LEASE = "gpu-provisioner-workspace"
LOCAL = "127.0.0.1"
IS_LEADER = f'leader_election_master_status{{name="{LEASE}"}}'


@dataclass(frozen=True, kw_only=True)
class Instance:
    """One of the two, and where it is asked."""

    process: ControllerProcess
    health: int
    metrics: int

    async def ask(self, path: str, *, port: int = 0) -> tuple[int, str]:
        """Return status and text of an answer, 0 where nobody listens."""
        try:
            async with (
                aiohttp.ClientSession() as session,
                session.get(f"http://{LOCAL}:{port or self.health}{path}") as response,
            ):
                return response.status, await response.text()
        except aiohttp.ClientError:
            return 0, ""

    async def value(self, sample: str) -> str:
        """Return a sample of the metrics, empty where it is not there."""
        _, text = await self.ask("/metrics", port=self.metrics)
        return next((line.rpartition(" ")[2] for line in text.splitlines() if line.startswith(f"{sample} ")), "")

    async def leads(self) -> bool:
        """Tell whether it is this one that acts."""
        return await self.value(IS_LEADER) == "1"


@dataclass(frozen=True, kw_only=True)
class Pair:
    """The two, and the world they work in."""

    world: Serving
    first: Instance
    second: Instance


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def pair(control_plane: ControlPlane, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Pair]:
    folder = tmp_path_factory.mktemp("leaders")
    ports = [free_port() for _ in range(4)]

    def settings(health: int, metrics: int) -> dict[str, str]:
        return {
            "LEADER_ELECTION": "true",
            "LEASE_NAMESPACE": "default",
            "HEALTH_PROBE_PORT": str(health),
            "METRICS_PORT": str(metrics),
            "BIND_ADDRESS": LOCAL,
        }

    async with serving(control_plane, folder=folder, settings=settings(ports[0], ports[1])) as world:
        first = Instance(process=world.workspaces, health=ports[0], metrics=ports[1])
        await eventually(first.leads, what="the first instance acts")
        environment = {**workspace_environment(control_plane), **settings(ports[2], ports[3])}
        async with ControllerProcess(environment, log=folder / "second.log", command="workspace") as process:
            second = Instance(process=process, health=ports[2], metrics=ports[3])
            yield Pair(world=world, first=first, second=second)
        # Left behind by a holder that was killed, it would have the next run wait.
        await world.kube.delete(LEASES, LEASE)


async def holder(world: Serving) -> str:
    lease = await world.kube.get(LEASES, LEASE)
    return str((lease or {}).get("spec", {}).get("holderIdentity") or "")


async def test_one_acts_and_the_other_is_ready_to(pair: Pair) -> None:
    await eventually(lambda: pair.second.ask("/readyz"), until=lambda answer: answer[0] == 200)
    assert (await pair.first.ask("/healthz"))[0] == 200
    await pair.world.create(inference("first"))
    await pair.world.wait_state("first", "Ready")
    assert await pair.first.leads()
    assert await pair.second.value(IS_LEADER) == "0"
    assert float(await pair.first.value('controller_runtime_reconcile_total{controller="workspace",result="success"}'))
    assert await pair.first.value('kaito_workspace_count{phase="ready"}') == "1"
    assert await pair.first.value('gpu_provisioner_workspace_writes_total{kind="NodeClaim",verb="create"}') == "1"
    assert not await pair.second.value('gpu_provisioner_workspace_writes_total{kind="NodeClaim",verb="create"}')


async def test_it_is_handed_over_and_taken_over(pair: Pair) -> None:
    world = pair.world
    before = await holder(world)
    assert await pair.first.process.stop() == 0
    # The Lease is let go: nobody waits for its end.
    await eventually(pair.second.leads, patience=10, what="the second instance acts")
    assert await holder(world) not in ("", before)
    await world.create(inference("second"))
    await world.wait_state("second", "Ready")

    await pair.first.process.start()
    await eventually(lambda: pair.first.ask("/readyz"), until=lambda answer: answer[0] == 200)
    assert not await pair.first.leads()
    await pair.second.process.kill()
    # By its duration of 15 s, and the first look after it.
    await eventually(pair.first.leads, patience=40, what="the first instance acts again")
    await world.create(inference("third"))
    await world.wait_state("third", "Ready")
    assert [len(await world.claims_of(name)) for name in ("first", "second", "third")] == [1, 1, 1]
