"""The controller dies at the worst moments: no machine is made twice, none is left behind, no claim is left waiting.

One `kill -9` finds a claim at each of those moments; it is started again when the world has moved on.
"""

from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest
import pytest_asyncio

from fakes.aks import FakeAks
from fakes.azure import Delay, Disconnect
from fakes.cluster.interface import ControlPlane
from fakes.nodes import FaultKind
from provisioner.apis import names
from provisioner.nodeclaim.agentpool_spec import pool_name
from tests.claims import A100, kaito_claim
from tests.kube import CLAIMS, NODES, Kube, Object, condition, has_reason, is_true
from tests.scenarios.on_azure import (
    AGES,
    DELETE,
    PUT,
    hurry,
    pools,
    put_pool,
    settings,
    statuses,
    wait_hit,
    wait_pool,
)
from tests.scenarios.running import running

pytestmark = pytest.mark.asyncio(loop_scope="module")

# The PUT has taken effect and was not answered; and the pool is finished before the controller is back.
PUT_DONE, FINISHED = "putdone", "finished"
# The claim says which pool it will have, the PUT has not taken effect; and it does so later than the next one.
RECORDED, LATE = "recorded", "late"
# Ready; and two that wait for something that comes while nobody watches.
READY, NOT_READY, NO_GPUS = "ready", "notready", "nogpus"
# The DELETE has taken effect and was not answered; and the pool is gone before the controller is back.
DELETING, GONE = "deleting", "gone"
# Deleted while nobody watches.
DELETED = "deleted"

# RECORDED cannot have its own name: somebody else's pool has it.
OTHER_NAME = pool_name(RECORDED, alternative=True)


@dataclass(frozen=True, kw_only=True)
class Killed:
    """The world after the restart, and the claims as they were while the controller was dead."""

    aks: FakeAks
    kube: Kube
    claims: dict[str, Object]
    creation: object
    """What creates the pool of PUT_DONE; a PUT that changes a pool starts another operation."""

    async def assert_is_served(self, name: str, *, pool: str = "") -> Object:
        """Wait until the claim is Ready: by the one pool made for it, with one VM, whose Node is the claim's."""
        claim = await self.kube.wait_claim(name, is_true("Ready"))
        mine = [
            pool
            for pool in pools(self.aks).values()
            if pool.properties.get("tags", {}).get(names.CLAIM_UID_TAG) == claim["metadata"]["uid"]
        ]
        assert [each.name for each in mine] == [pool or name]
        assert [instance.index for instance in mine[0].instances] == [0]
        assert mine[0].next_index == 1
        (node,) = await self.kube.nodes_of_pool(mine[0].name)
        assert claim["status"]["nodeName"] == node["metadata"]["name"]
        assert claim["status"]["providerID"] == node["spec"]["providerID"]
        return claim

    async def assert_is_gone(self, name: str) -> None:
        """Wait until the claim is gone, and see that its pool and its Node went before."""
        await self.kube.wait_gone(CLAIMS, name)
        assert name not in pools(self.aks)
        assert await self.kube.get(NODES, self.claims[name]["status"]["nodeName"]) is None


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def killed(control_plane: ControlPlane, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Killed]:
    async with running(control_plane, log=tmp_path_factory.mktemp("crash") / "controller.log") as world:
        aks, kube, controller = world.aks, world.kube, world.controller
        with settings(aks, create_seconds=0.0):
            put_pool(aks, RECORDED, vmSize="Standard_D4s_v5")
        put_hangs = [
            *(Delay(operation=PUT, pool=pool, seconds=AGES, after_effect=True) for pool in (PUT_DONE, FINISHED)),
            *(Delay(operation=PUT, pool=pool, seconds=AGES, after_effect=False) for pool in (OTHER_NAME, LATE)),
        ]
        for hang in put_hangs:
            aks.azure.add_fault(hang)
        not_ready = aks.nodes.add_fault(FaultKind.NOT_READY, pool=NOT_READY)
        no_gpus = aks.nodes.add_fault(FaultKind.GPUS_NEVER_REGISTER, pool=NO_GPUS)
        for name in (PUT_DONE, FINISHED, RECORDED, LATE, READY, NOT_READY, NO_GPUS, DELETING, GONE, DELETED):
            await kube.create(CLAIMS, kaito_claim(name))
        await wait_hit(aks, *put_hangs)
        creation = pools(aks)[PUT_DONE].operation
        await kube.wait_claim(NOT_READY, has_reason("Initialized", "NodeNotReady"))
        await kube.wait_claim(NO_GPUS, has_reason("Initialized", "ResourceNotRegistered"))
        for name in (READY, DELETED, DELETING, GONE):
            await kube.wait_claim(name, is_true("Ready"))

        with settings(aks, delete_seconds=AGES):
            await delete_and_hang(aks, kube, DELETING)
        await delete_and_hang(aks, kube, GONE)
        await controller.kill()

        claims = {claim["metadata"]["name"]: claim for claim in await kube.items(CLAIMS)}
        await kube.delete(CLAIMS, DELETED)
        aks.azure.cluster.delete_pool(RECORDED)
        aks.nodes.clear(not_ready)
        aks.nodes.clear(no_gpus)
        await wait_pool(aks, RECORDED, None)
        await wait_pool(aks, GONE, None)
        await wait_pool(aks, FINISHED, "Succeeded")
        aks.azure.calls.reset()
        # Two real seconds on its way, of which the first one takes none.
        second_put = Delay(operation=PUT, pool=LATE, seconds=400.0, after_effect=False)
        aks.azure.add_fault(second_put)
        await controller.start()
        await wait_hit(aks, second_put)
        tags = {names.CLAIM_TAG: LATE, names.CLAIM_UID_TAG: claims[LATE]["metadata"]["uid"]}
        put_pool(aks, LATE, vmSize=A100, tags=tags, nodeTaints=["sku=gpu:NoSchedule"])
        yield Killed(aks=aks, kube=kube, claims=claims, creation=creation)


async def delete_and_hang(aks: FakeAks, kube: Kube, name: str) -> None:
    hangs = Delay(operation=DELETE, pool=name, seconds=AGES, after_effect=True)
    aks.azure.add_fault(hangs)
    await kube.delete(CLAIMS, name)
    await wait_hit(aks, hangs)


async def test_put_that_took_effect_is_not_repeated(killed: Killed) -> None:
    await killed.assert_is_served(PUT_DONE)
    assert pools(killed.aks)[PUT_DONE].operation is killed.creation
    assert set(statuses(killed.aks, PUT, pool=PUT_DONE)) <= {412}


async def test_pool_and_node_came_up_while_nobody_watched(killed: Killed) -> None:
    assert condition(killed.claims[FINISHED], "Launched")["reason"] == "CreatingAgentPool"
    await killed.assert_is_served(FINISHED)
    assert set(statuses(killed.aks, PUT, pool=FINISHED)) <= {412}


async def test_pool_is_the_one_that_was_recorded_before_the_put(killed: Killed) -> None:
    before = killed.claims[RECORDED]["metadata"]
    assert before["annotations"][names.AGENT_POOL_ANNOTATION] == OTHER_NAME
    assert names.TERMINATION_FINALIZER in before["finalizers"]
    # By now the claim's own name would be free.
    claim = await killed.assert_is_served(RECORDED, pool=OTHER_NAME)
    assert claim["metadata"]["annotations"][names.AGENT_POOL_ANNOTATION] == OTHER_NAME


async def test_put_that_was_on_its_way_takes_effect_before_the_next(killed: Killed) -> None:
    await killed.assert_is_served(LATE)
    assert statuses(killed.aks, PUT, pool=LATE) == [412]


@pytest.mark.parametrize("name", [NOT_READY, NO_GPUS])
async def test_node_came_on_while_nobody_watched(killed: Killed, name: str) -> None:
    claim = await killed.assert_is_served(name)
    before = killed.claims[name]
    assert condition(before, "Initialized")["status"] == "Unknown"
    for stage in ("Launched", "Registered"):
        assert condition(claim, stage) == condition(before, stage)
    assert statuses(killed.aks, PUT, pool=name) == []


async def test_ready_claim_is_left_alone(killed: Killed) -> None:
    # Asked for after every claim that was there at the start has been looked at.
    await killed.kube.create(CLAIMS, kaito_claim("canary"))
    await killed.kube.wait_claim("canary", is_true("Launched"))
    assert await killed.kube.claim(READY) == killed.claims[READY]
    assert statuses(killed.aks, PUT, pool=READY) == []
    assert statuses(killed.aks, DELETE, pool=READY) == []


async def test_pool_is_still_going(killed: Killed) -> None:
    await killed.kube.wait_claim(DELETING, is_true("InstanceTerminating"))
    assert pools(killed.aks)[DELETING].state == "Deleting"
    with hurry(killed.aks):
        await killed.assert_is_gone(DELETING)
    assert statuses(killed.aks, DELETE, pool=DELETING) == []


async def test_pool_went_while_nobody_watched(killed: Killed) -> None:
    assert killed.claims[GONE]["metadata"]["finalizers"] == [names.TERMINATION_FINALIZER]
    await killed.assert_is_gone(GONE)
    assert statuses(killed.aks, DELETE, pool=GONE) == []


async def test_claim_was_deleted_while_nobody_watched(killed: Killed) -> None:
    await killed.assert_is_gone(DELETED)
    assert statuses(killed.aks, DELETE, pool=DELETED) == [202]


async def test_answers_are_lost_without_a_crash(killed: Killed) -> None:
    killed.aks.azure.add_fault(Disconnect(operation=PUT, pool="lost", after_effect=True))
    killed.aks.azure.add_fault(Disconnect(operation=DELETE, pool="lost", after_effect=True))
    await killed.kube.create(CLAIMS, kaito_claim("lost"))
    killed.claims["lost"] = await killed.assert_is_served("lost")
    first, *others = statuses(killed.aks, PUT, pool="lost")
    assert first is None
    assert set(others) <= {412}

    await killed.kube.delete(CLAIMS, "lost")

    await killed.assert_is_gone("lost")
    assert statuses(killed.aks, DELETE, pool="lost")[0] is None
