"""Who may act: also in a process that was held up and does not know it yet."""

import asyncio
from datetime import UTC, datetime

import pytest

from provisioner.kube.leading import Leadership
from provisioner.kube.lease import DURATION, RENEW_DEADLINE, LeadershipLost
from provisioner.kube.metrics import Registry
from provisioner.kube.objects import Objects
from provisioner.settings import ControllerSettings
from tests.unit.test_lease import LATENCY, Leases
from tests.unit.virtual_time import VirtualTimeLoop, now, virtual_time


def leadership(api: Leases, *, elects: bool = True) -> Leadership:
    return Leadership(
        ControllerSettings(leader_election=elects),
        objects=Objects(api),
        name="controller",
        now=lambda: datetime(2026, 11, 21, tzinfo=UTC),
        metrics=Registry(),
    )


@virtual_time
async def test_without_an_election_everybody_acts() -> None:
    alone = leadership(Leases(), elects=False)

    assert alone.may_act()
    assert not alone.is_waiting
    assert list(alone.unready()) == []
    async with alone.acting(asyncio.Event()) as acts:
        assert acts
        assert alone.may_act()


@virtual_time
async def test_whoever_has_the_lease_may_act_from_then_on_until_it_lets_it_go() -> None:
    api, stop = Leases(), asyncio.Event()
    first = leadership(api)
    assert not first.may_act()
    async with first.acting(stop) as acts:
        assert acts
        for _ in range(20):
            assert first.may_act()
            await asyncio.sleep(DURATION / 7)
    assert not first.may_act()
    assert api.stored is not None
    assert api.stored["spec"]["holderIdentity"] == ""


@virtual_time
async def test_whoever_waits_may_not_act_and_gives_up_when_it_is_stopped() -> None:
    api, stop = Leases(), asyncio.Event()
    async with leadership(api).acting(asyncio.Event()):
        second = leadership(api)
        asyncio.get_running_loop().call_later(3, stop.set)
        async with second.acting(stop) as acts:
            assert not acts
            assert not second.may_act()
            assert second.is_waiting


@virtual_time
async def test_process_that_was_held_up_may_not_act_before_anything_else_runs_in_it() -> None:
    first, loop = leadership(Leases()), asyncio.get_running_loop()
    assert isinstance(loop, VirtualTimeLoop)

    async def act() -> None:
        async with first.acting(asyncio.Event()):
            await asyncio.sleep(5)
            assert first.may_act()
            # SIGSTOP, and SIGCONT: time has passed, and nothing has run meanwhile.
            loop.now += DURATION
            assert not first.may_act()
            await asyncio.sleep(1)

    with pytest.raises(LeadershipLost):
        await act()


@virtual_time
async def test_nobody_may_act_any_more_before_the_lease_can_be_anothers() -> None:
    api = Leases()
    first = leadership(api)

    async def act() -> None:
        async with first.acting(asyncio.Event()):
            await asyncio.sleep(30)
            api.is_away = True
            for second in range(int(DURATION)):
                assert first.may_act() or second > RENEW_DEADLINE - 3
                await asyncio.sleep(1)
            raise AssertionError("it still acts when the Lease can be another's")

    with pytest.raises(LeadershipLost):
        await act()
    assert not first.may_act()
    assert now() <= 30 + RENEW_DEADLINE + 3 * LATENCY


@virtual_time
async def test_whoever_waits_is_ready_while_the_api_server_answers() -> None:
    api, stop = Leases(), asyncio.Event()
    api.stored = {
        "metadata": {"resourceVersion": "1"},
        "spec": {"holderIdentity": "somebody", "leaseDurationSeconds": 3600},
    }
    api.is_away = True
    second = leadership(api)
    waiting = asyncio.create_task(second.acting(stop).__aenter__())
    await asyncio.sleep(3)
    assert list(second.unready()) == ["the API server has not answered yet: nothing is known of the Lease"]

    api.is_away = False
    await asyncio.sleep(2)
    assert list(second.unready()) == []

    api.is_away = True
    await asyncio.sleep(20)
    assert list(second.unready()) == []
    await asyncio.sleep(20)
    (reason,) = second.unready()
    assert reason.startswith("the API server has not answered for ")

    stop.set()
    assert not await waiting
