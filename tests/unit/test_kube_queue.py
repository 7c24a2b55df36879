"""The work queue: what is added is handled, once, by one worker, in time."""

import asyncio
import random

import pytest

from provisioner.kube.metrics import Registry
from provisioner.kube.queue import WorkQueue
from tests.unit.virtual_time import now, virtual_time


def seeded(seed: int = 1) -> random.Random:
    return random.Random(seed)  # noqa: S311 -- to be repeated, not to be secret


def make(*, retry_base: float = 1.0, retry_cap: float = 300.0) -> WorkQueue[str]:
    return WorkQueue(rng=seeded(), retry_base=retry_base, retry_cap=retry_cap)


async def get_all(queue: WorkQueue[str]) -> list[str | None]:
    keys = []
    while len(queue):
        keys.append(key := await queue.get())
        assert key is not None
        queue.done(key)
    return keys


@virtual_time
async def test_key_added_twice_is_handled_once() -> None:
    queue = make()
    for key in ("a", "b", "a", "a"):
        queue.add(key)
    assert len(queue) == 2
    assert await get_all(queue) == ["a", "b"]


@virtual_time
async def test_key_added_while_handled_comes_back_when_done() -> None:
    queue = make()
    queue.add("a")
    assert await queue.get() == "a"
    queue.add("a")
    queue.add("a")
    queue.add("b")
    assert len(queue) == 1
    assert await queue.get() == "b"
    queue.done("a")
    assert await queue.get() == "a"
    queue.done("a")
    assert len(queue) == 0


@virtual_time
async def test_get_waits_for_a_key() -> None:
    queue = make()
    getter = asyncio.create_task(queue.get())
    await asyncio.sleep(10)
    assert not getter.done()
    queue.add("a")
    assert await getter == "a"
    assert now() == 10


@virtual_time
async def test_cancelled_get_loses_no_key() -> None:
    queue = make()
    first, second = asyncio.create_task(queue.get()), asyncio.create_task(queue.get())
    await asyncio.sleep(1)
    queue.add("a")
    first.cancel()
    assert await second == "a"


@pytest.mark.parametrize("delays", [(5.0, 2.0), (2.0, 5.0), (2.0, 2.0)])
@virtual_time
async def test_earliest_of_several_delays_counts_and_only_once(delays: tuple[float, ...]) -> None:
    queue = make()
    for delay in delays:
        queue.add_after("a", delay)
    assert len(queue) == 0
    assert await queue.get() == "a"
    assert now() == 2
    queue.done("a")
    await asyncio.sleep(60)
    assert len(queue) == 0


@pytest.mark.parametrize("delay", [0.0, -1.0])
@virtual_time
async def test_delay_that_is_over_is_none(delay: float) -> None:
    queue = make()
    queue.add_after("a", delay)
    assert len(queue) == 1


@virtual_time
async def test_key_with_a_delay_can_come_earlier_for_another_reason() -> None:
    queue = make()
    queue.add_after("a", 30)
    queue.add("a")
    assert await queue.get() == "a"
    queue.done("a")
    assert await queue.get() == "a"
    assert now() == 30


@virtual_time
async def test_delay_that_ends_while_the_key_is_handled_waits_for_the_worker() -> None:
    queue = make()
    queue.add("a")
    await queue.get()
    queue.add_after("a", 1)
    await asyncio.sleep(5)
    assert len(queue) == 0
    queue.done("a")
    assert await queue.get() == "a"
    assert now() == 5


@virtual_time
async def test_retry_doubles_with_jitter_up_to_the_cap() -> None:
    queue = make(retry_base=1.0, retry_cap=60.0)
    delays = [queue.retry("a") for _ in range(100)]
    for failures, delay in enumerate(delays):
        nominal = min(60.0, 2.0**failures)
        assert nominal / 2 <= delay <= nominal
    assert len(set(delays)) == len(delays)
    assert await queue.get() == "a"
    assert now() == min(delays)


@virtual_time
@pytest.mark.parametrize(("at_least", "pause"), [(7.0, 7.0), (60.0, 60.0), (86400.0, 60.0)])
async def test_retry_waits_as_long_as_a_server_asks_for_up_to_the_cap(at_least: float, pause: float) -> None:
    queue = make(retry_cap=60.0)
    assert queue.retry("a", at_least=at_least) == pause
    assert queue.retry("b", at_least=0.1) >= 0.5


@virtual_time
async def test_forget_starts_the_back_off_anew() -> None:
    queue = make(retry_base=1.0)
    for _ in range(10):
        queue.retry("a")
    queue.forget("a")
    queue.forget("never failed")
    assert queue.retry("a") <= 1.0


@virtual_time
async def test_same_seed_gives_the_same_delays() -> None:
    first, second = make(), make()
    assert [first.retry("a") for _ in range(5)] == [second.retry("a") for _ in range(5)]


@virtual_time
async def test_shutdown_sends_all_workers_home() -> None:
    queue = make()
    queue.add("busy")
    assert await queue.get() == "busy"
    waiting = [asyncio.create_task(queue.get()) for _ in range(3)]
    await asyncio.sleep(1)
    queue.add("left")
    queue.add_after("later", 5)
    queue.shutdown()
    assert await asyncio.gather(*waiting) == [None, None, None]
    queue.add("busy")
    queue.add_after("late", 1)
    queue.done("busy")
    await asyncio.sleep(10)
    assert await queue.get() is None
    assert await queue.get() is None
    assert len(queue) == 0


@pytest.mark.parametrize("seed", range(20))
def test_under_load_no_key_is_handled_twice_at_once_and_no_change_is_missed(seed: int) -> None:
    rng = seeded(seed)
    versions = dict.fromkeys("abcdefgh", 0)
    seen = dict.fromkeys(versions, -1)
    busy: set[str] = set()

    async def work(queue: WorkQueue[str]) -> None:
        while (key := await queue.get()) is not None:
            assert key not in busy
            busy.add(key)
            version = versions[key]
            await asyncio.sleep(rng.random())
            busy.remove(key)
            seen[key] = max(seen[key], version)
            if rng.random() < 0.3:
                queue.retry(key)
            else:
                queue.forget(key)
            queue.done(key)

    @virtual_time
    async def run() -> None:
        queue = WorkQueue[str](rng=rng)
        async with asyncio.TaskGroup() as workers:
            for _ in range(4):
                workers.create_task(work(queue))
            for _ in range(300):
                key = rng.choice(list(versions))
                versions[key] += 1
                queue.add_after(key, rng.choice((0, 0, rng.random())))
                await asyncio.sleep(rng.random() / 4)
            await asyncio.sleep(1000)
            queue.shutdown()

    run()
    assert {key: seen[key] for key in versions if versions[key]} == {key: v for key, v in versions.items() if v}


@virtual_time
async def test_metrics_tell_depth_adds_retries_and_times() -> None:
    metrics = Registry()
    queue = WorkQueue[str](rng=seeded(), name="claims", metrics=metrics)
    queue.add("a")
    queue.add("a")
    queue.add("b")
    depth = metrics.gauge("workqueue_depth", text="", labels=("name",))
    assert depth.value(name="claims") == 2
    await asyncio.sleep(3)
    await queue.get()
    assert depth.value(name="claims") == 1
    queue.retry("a")
    await asyncio.sleep(7)
    queue.done("a")
    lines = metrics.expose().splitlines()
    assert 'workqueue_adds_total{name="claims"} 3' in lines
    assert 'workqueue_retries_total{name="claims"} 1' in lines
    assert 'workqueue_queue_duration_seconds_sum{name="claims"} 3' in lines
    assert 'workqueue_work_duration_seconds_bucket{name="claims",le="10"} 1' in lines
    assert 'workqueue_work_duration_seconds_sum{name="claims"} 7' in lines


async def test_whatever_makes_a_key_worth_a_look_a_servers_wish_is_not_undercut() -> None:
    queue = make()
    queue.retry("a", at_least=0.2)
    queue.add("a")
    assert len(queue) == 0
    started = asyncio.get_running_loop().time()
    assert await queue.get() == "a"
    assert asyncio.get_running_loop().time() - started >= 0.18


async def test_key_that_was_handled_well_since_is_held_no_more() -> None:
    queue = make()
    queue.retry("a", at_least=60.0)
    queue.forget("a")
    queue.add("a")
    assert len(queue) == 1


@virtual_time
async def test_key_that_is_not_wanted_any_more_does_not_come_back() -> None:
    queue = make()
    queue.add_after("gone", 10)
    queue.add_after("stays", 10)
    queue.add("due")
    queue.retry("failed", at_least=10)
    queue.retain(lambda key: key == "stays")
    await asyncio.sleep(100)
    assert await get_all(queue) == ["due", "stays"]
    # Neither the pause that a server had asked for nor the failure counts for another of that name.
    assert queue.retry("failed") <= 1.0
    await asyncio.sleep(1)
    assert await get_all(queue) == ["failed"]
