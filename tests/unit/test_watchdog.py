"""What /healthz goes by: signs of life that stop, workers that come to no end, watches that die again and again."""

import asyncio
import random
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from provisioner.kube import running
from provisioner.kube.queue import WorkQueue
from provisioner.kube.running import keep_watching
from provisioner.kube.watch import Watched
from provisioner.kube.watchdog import STUCK_WORKER, Watchdog, stuck_workers
from tests.unit.virtual_time import now, virtual_time


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_sign_that_is_overdue_is_named_until_it_is_given() -> None:
    clock = Clock()
    watchdog = Watchdog(clock=clock)
    assert list(watchdog.reasons()) == []
    watchdog.expect("one", within=10)
    watchdog.expect("two", within=20)
    clock.now = 10.0
    assert list(watchdog.reasons()) == []
    clock.now = 15.0
    assert list(watchdog.reasons()) == ["one: no sign of life for 15 s"]
    clock.now = 21.0
    watchdog.expect("one", within=10)
    assert list(watchdog.reasons()) == ["two: no sign of life for 21 s"]
    watchdog.forget("two")
    watchdog.forget("three")
    assert list(watchdog.reasons()) == []


@virtual_time
async def test_worker_that_comes_to_no_end_is_named() -> None:
    queue: WorkQueue[str] = WorkQueue(rng=random.Random(0), name="things")  # noqa: S311 -- repeatable
    queue.add("a")
    queue.add("waits")
    assert await queue.get() == "a"
    await asyncio.sleep(STUCK_WORKER)
    assert list(stuck_workers(queue)) == []
    await asyncio.sleep(1)
    assert list(stuck_workers(queue)) == ["a worker of things has been at a for 601 s"]
    queue.done("a")
    assert list(stuck_workers(queue)) == []


Life = Callable[[Callable[[], None]], Any]


def play(monkeypatch: pytest.MonkeyPatch, *lives: Life) -> None:
    """Let the watches live these lives, one after the other, and the last one for ever."""
    left = list(lives)

    async def run_watch(_: Sequence[Watched], *, stop: asyncio.Event, alive: Callable[[], None]) -> None:
        await (left.pop(0) if len(left) > 1 else left[0])(alive)

    monkeypatch.setattr(running, "run_watch", run_watch)


async def lives(alive: Callable[[], None]) -> None:
    while True:
        alive()
        await asyncio.sleep(5)


async def lives_for_a_while(alive: Callable[[], None]) -> None:
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(100):
            await lives(alive)
    raise RuntimeError("a fatal answer")


async def dies(alive: Callable[[], None]) -> None:
    alive()
    raise RuntimeError("a fatal answer")


async def hangs(alive: Callable[[], None]) -> None:
    alive()
    await asyncio.sleep(100_000)


@pytest.mark.parametrize(
    ("played", "complains_within"),
    [
        pytest.param([lives], None, id="it lives"),
        pytest.param([lives_for_a_while, lives], None, id="it dies once and is started again"),
        pytest.param([lives_for_a_while], None, id="it dies now and then"),
        pytest.param([dies, dies, dies, lives], None, id="it comes back after some attempts"),
        pytest.param([dies], (300, 302), id="it dies again and again"),
        pytest.param([lives_for_a_while, dies], (400, 402), id="it dies again and again after having lived"),
        pytest.param([hangs], (60, 62), id="its loop is stuck"),
    ],
)
def test_watches(
    monkeypatch: pytest.MonkeyPatch, played: Sequence[Life], complains_within: tuple[float, float] | None
) -> None:
    @virtual_time
    async def run() -> None:
        play(monkeypatch, *played)
        watchdog, stop = Watchdog(clock=now), asyncio.Event()
        watching = asyncio.create_task(keep_watching((), stop=stop, watchdog=watchdog))
        begun: float | None = None
        while now() < 1000:
            await asyncio.sleep(1)
            if list(watchdog.reasons()):
                begun = now() if begun is None else begun
            else:
                assert begun is None
        if complains_within is None:
            assert begun is None
        else:
            assert begun is not None
            assert complains_within[0] <= begun <= complains_within[1]
        watching.cancel()

    run()


@virtual_time
async def test_watches_that_were_stopped_are_not_missed(monkeypatch: pytest.MonkeyPatch) -> None:
    watchdog, stop = Watchdog(clock=now), asyncio.Event()

    async def until_stopped(alive: Callable[[], None]) -> None:
        alive()
        await stop.wait()
        alive()

    play(monkeypatch, until_stopped)
    asyncio.get_running_loop().call_later(10, stop.set)
    await keep_watching((), stop=stop, watchdog=watchdog)
    await asyncio.sleep(1000)
    assert list(watchdog.reasons()) == []
