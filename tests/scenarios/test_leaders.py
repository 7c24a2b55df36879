"""Two instances of the controller of claims: one acts at a time, whatever becomes of the one that does."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from fakes.aks import FakeAks
from fakes.proxy import Delay, Disconnect
from provisioner.apis import names
from tests.claims import kaito_claim
from tests.kube import CLAIMS, Kube, eventually, is_true
from tests.scenarios.on_azure import PUT, pools, statuses
from tests.scenarios.two_instances import (
    FATES,
    TAKE_OVER,
    Fate,
    Pair,
    held_up,
    let_go_on,
    take_over,
    two_instances,
)

MANY = 50
# Fifty Nodes with their device plugins take a scheduler and a controller manager on two busy cores a while.
PATIENCE = 240.0
# Real seconds from a write until it is answered: longer than a Lease lasts, shorter than the client waits.
HELD_BACK = 22.0


@pytest.fixture
async def pair(aks: FakeAks, kube: Kube, tmp_path: Path) -> AsyncIterator[Pair]:
    async with two_instances(aks, kube, folder=tmp_path) as running:
        yield running


async def create(kube: Kube, count: int, *, prefix: str = "claim") -> list[str]:
    wanted = [f"{prefix}{number}" for number in range(count)]
    await asyncio.gather(*(kube.create(CLAIMS, kaito_claim(name)) for name in wanted))
    return wanted


async def wait_asked(aks: FakeAks, count: int) -> None:
    """Wait until Azure has taken so many pools."""

    async def asked() -> int:
        return statuses(aks, PUT).count(201)

    await eventually(
        asked, until=lambda number: number >= count, patience=PATIENCE, what=f"{count} pools are asked for"
    )


async def assert_served(aks: FakeAks, kube: Kube, wanted: list[str]) -> None:
    """Wait until each claim is Ready; see that each has a pool of its own, made once."""

    async def unready() -> list[str]:
        ready = {claim["metadata"]["name"] for claim in await kube.items(CLAIMS) if is_true("Ready")(claim)}
        return sorted(set(wanted) - ready)

    await eventually(unready, until=lambda left: not left, patience=PATIENCE, what="each claim is Ready")
    claims = {claim["metadata"]["name"]: claim["metadata"]["uid"] for claim in await kube.items(CLAIMS)}
    assert {name: pool.properties["tags"][names.CLAIM_UID_TAG] for name, pool in pools(aks).items()} == claims
    for name in wanted:
        # Another PUT that finds the pool there changes nothing, and is asked for where an answer was lost.
        assert statuses(aks, PUT, pool=name).count(201) == 1
        assert set(statuses(aks, PUT, pool=name)) <= {201, 412, None}


async def test_the_one_that_waits_asks_for_the_lease_alone(aks: FakeAks, kube: Kube, pair: Pair) -> None:
    await assert_served(aks, kube, await create(kube, 1))

    assert await pair.first.leads()
    assert {(call.verb, call.resource) for call in pair.second.proxy.calls} == {("get", "leases")}
    assert pair.second.arm_calls() == []


@pytest.mark.parametrize("fate", FATES)
async def test_fifty_claims_in_flight_are_asked_for_once_each_whatever_becomes_of_the_leader(
    aks: FakeAks, kube: Kube, pair: Pair, fate: Fate
) -> None:
    wanted = await create(kube, MANY)
    await wait_asked(aks, MANY // 2)

    await take_over(pair, fate)

    await assert_served(aks, kube, wanted)
    if fate is held_up:
        # By now nothing of what it had in mind is still to be done.
        await let_go_on(pair.first)
    pair.assert_one_after_the_other(on_its_way=1 if fate is held_up else 0)
    asked = {name: statuses(aks, PUT, pool=name) for name in wanted}
    again = [name for name, answers in asked.items() if answers != [201]]
    # One that was on its way when the first was held up finds the pool there.
    assert [asked[name] for name in again] == ([[201, 412]] * len(again) if fate is held_up else [])


async def test_leader_out_of_reach_of_the_api_server_ends_before_another_begins(
    aks: FakeAks, kube: Kube, pair: Pair
) -> None:
    await assert_served(aks, kube, await create(kube, 1))
    pair.first.proxy.add_fault(Disconnect(times=None))

    async with asyncio.timeout(TAKE_OVER):
        assert await pair.first.process.process.wait() == 1
    assert not pair.second.arm_calls()

    await eventually(pair.second.leads, patience=TAKE_OVER, what="the second acts")
    await assert_served(aks, kube, await create(kube, 2, prefix="later"))
    pair.assert_one_after_the_other()


async def test_leader_that_was_held_up_sends_nothing_that_it_had_decided_before(
    aks: FakeAks, kube: Kube, pair: Pair
) -> None:
    # What is written last before the PUT goes out.
    held_back = pair.first.proxy.add_fault(
        Delay(verb="patch", resource="nodeclaims/status", seconds=HELD_BACK, times=None)
    )
    wanted = await create(kube, 5)

    async def hits() -> int:
        return held_back.hits

    # The first claim for a size asks for all of them.
    await eventually(hits, what="a claim is about to be asked for")
    answered = asyncio.get_running_loop().time() + HELD_BACK + 1.0
    pair.first.stop_time()
    await eventually(pair.second.leads, patience=TAKE_OVER, what="the second acts")
    await wait_asked(aks, 1)
    # By then what the first has waited for lies ready for it.
    await asyncio.sleep(max(0.0, answered - asyncio.get_running_loop().time()))
    await let_go_on(pair.first)

    await assert_served(aks, kube, wanted)
    pair.assert_one_after_the_other()
