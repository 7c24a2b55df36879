import asyncio

import pytest

from fakes.azure.clock import Clock, Timeline
from tests.fakes.simulated import ManualTime


def test_simulated_time_runs_at_its_scale() -> None:
    time = ManualTime()
    clock = Clock(scale=60, source=time)
    time.advance(2)
    assert clock.now() == 120
    assert clock.real(120) == 2


def test_a_changed_scale_neither_jumps_nor_goes_back() -> None:
    time = ManualTime()
    clock = Clock(scale=60, source=time)
    time.advance(1)
    clock.scale = 2
    assert clock.now() == 60
    time.advance(1)
    assert clock.now() == 62


@pytest.mark.parametrize("scale", [0, -1, float("inf"), float("nan")])
def test_a_scale_is_positive(scale: float) -> None:
    with pytest.raises(ValueError, match="scale"):
        Clock(scale=scale)


@pytest.mark.parametrize(
    ("scale", "seconds", "header"), [(1, 60, 60), (1, 59.1, 60), (60, 60, 1), (60, 61, 2), (1000, 1, 1), (1, 0, 1)]
)
def test_retry_after_is_in_real_seconds_rounded_up_and_never_zero(scale: float, seconds: float, header: int) -> None:
    assert Clock(scale=scale).retry_after(seconds) == header


def test_what_is_due_happens_in_order_at_its_own_moment() -> None:
    time = ManualTime()
    timeline = Timeline(Clock(source=time))
    happened: list[tuple[str, float]] = []

    def first() -> None:
        happened.append(("first", timeline.now()))
        timeline.after(5, lambda: happened.append(("planned by first", timeline.now())))

    timeline.after(20, lambda: happened.append(("last", timeline.now())))
    timeline.after(10, first)
    timeline.after(12, lambda: happened.append(("cancelled", timeline.now()))).cancel()
    time.advance(100)
    timeline.advance()
    assert happened == [("first", 10), ("planned by first", 15), ("last", 20)]


def test_nothing_happens_before_it_is_due() -> None:
    time = ManualTime()
    timeline = Timeline(Clock(source=time))
    happened: list[float] = []
    timeline.after(10, lambda: happened.append(timeline.now()))
    time.advance(9.9)
    timeline.advance()
    assert happened == []


async def test_a_running_timeline_acts_without_being_asked_and_follows_the_scale() -> None:
    clock = Clock(scale=1)
    timeline = Timeline(clock)
    happened = asyncio.Event()
    timeline.after(3600, happened.set)
    runner = asyncio.create_task(timeline.run())
    await asyncio.sleep(0)
    clock.scale = 1_000_000
    timeline.reschedule()
    async with asyncio.timeout(5):
        await happened.wait()
    runner.cancel()
    with pytest.raises(asyncio.CancelledError):
        await runner
