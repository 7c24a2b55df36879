"""What the running of a controller takes: workers that end well, and signals."""

import asyncio
import signal
import subprocess
import sys

import pytest

from provisioner.kube.running import working
from tests.unit.virtual_time import now, virtual_time


class Worker:
    """Works at one thing that takes so many seconds, and then waits to be shut down."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._down = asyncio.Event()
        self.log: list[str] = []

    async def run(self) -> None:
        try:
            await asyncio.sleep(self._seconds)
            self.log.append("finished")
            await self._down.wait()
            self.log.append("ended")
        except asyncio.CancelledError:
            self.log.append("cut off")
            raise

    def shut_down(self) -> None:
        self._down.set()


@pytest.mark.parametrize(
    ("takes", "log", "until"),
    [(0.0, ["finished", "ended"], 1.0), (5.0, ["finished", "ended"], 5.0), (60.0, ["cut off"], 9.0)],
)
def test_workers_may_finish_what_they_are_at_for_some_time(takes: float, log: list[str], until: float) -> None:
    @virtual_time
    async def run() -> None:
        worker = Worker(takes)
        async with working(worker.run(), shut_down=worker.shut_down, seconds=8.0):
            await asyncio.sleep(1.0)
        assert worker.log == log
        assert now() == pytest.approx(until)

    run()


@virtual_time
async def test_workers_are_cut_off_at_once_where_something_has_failed() -> None:
    worker = Worker(60.0)

    async def fail() -> None:
        async with working(worker.run(), shut_down=worker.shut_down, seconds=8.0):
            await asyncio.sleep(1.0)
            raise OSError("lost")

    with pytest.raises(OSError, match="lost"):
        await fail()
    assert worker.log == ["cut off"]
    assert now() == pytest.approx(1.0)


@pytest.mark.parametrize("error", [None, ValueError("a defect")])
def test_workers_that_end_by_themselves_end_the_whole(error: Exception | None) -> None:
    @virtual_time
    async def run() -> None:
        async def work() -> None:
            await asyncio.sleep(1.0)
            if error is not None:
                raise error

        async with working(work(), shut_down=lambda: None, seconds=8.0):
            await asyncio.sleep(3600)

    with pytest.raises(type(error) if error else RuntimeError, match="a defect" if error else "has ended"):
        run()


# Says when it can be signalled, stops at the first signal, and then does not come to its end.
STUBBORN = """
import asyncio, time
from provisioner.kube.running import stop_on_signals

async def main():
    stop = stop_on_signals()
    print("ready", flush=True)
    await stop.wait()
    print("stopping", flush=True)
    {then}

asyncio.run(main())
"""
STUCK_IN_THE_LOOP = "time.sleep(60)"
WAITS = "await asyncio.sleep(60)"


@pytest.mark.parametrize("first", ["SIGTERM", "SIGINT"])
@pytest.mark.parametrize(("second", "code"), [("SIGTERM", 143), ("SIGINT", 130)])
@pytest.mark.parametrize("then", [WAITS, STUCK_IN_THE_LOOP])
def test_second_signal_ends_the_process_at_once(first: str, second: str, code: int, then: str) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", STUBBORN.format(then=then)], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.Signals[first])
        assert process.stdout.readline() == "stopping\n"
        process.send_signal(signal.Signals[second])

        assert process.wait(timeout=30) == code


def test_one_signal_lets_the_process_come_to_its_end() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", STUBBORN.format(then="await asyncio.sleep(0.2)")], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.terminate()
        assert process.stdout.readline() == "stopping\n"

        assert process.wait(timeout=30) == 0


# Is signalled while the libraries of the controllers are imported, before there is an event loop.
TOO_EARLY = """
import os, signal, sys
from provisioner.__main__ import main

class Signalled:
    def find_spec(self, name, path, target=None):
        if name == "kubernetes":
            os.kill(os.getpid(), signal.SIGTERM)

sys.meta_path.insert(0, Signalled())
sys.exit(main(["workspace"]))
"""


def test_a_signal_ends_a_process_that_has_only_begun_to_start() -> None:
    ended = subprocess.run([sys.executable, "-c", TOO_EARLY], timeout=60, capture_output=True, text=True, check=False)

    # By its own will: -SIGTERM would be the kernel's, which spares process 1 of a container.
    assert (ended.returncode, ended.stderr) == (143, "")
