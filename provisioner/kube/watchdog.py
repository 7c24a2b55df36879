"""Whether the process still does its work, for /healthz: what is stuck is only cured by a restart.

That an API server or Azure is away is no reason to end: whoever comes after would find them away too.
"""

import time
from collections.abc import Callable, Iterator
from typing import Final

from provisioner.kube.queue import Key, WorkQueue

# Seconds for one look at an object. Each request has its limit, 60 s at most, and a look makes a handful of them.
STUCK_WORKER: Final = 600.0


class Watchdog:
    """Signs of life by name, each with the time by which the next one is due. `clock` is in seconds."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._signs: dict[str, tuple[float, float]] = {}

    def expect(self, name: str, *, within: float) -> None:
        """Take a sign of life; the next one is due within so many seconds."""
        now = self._clock()
        self._signs[name] = now, now + within

    def forget(self, name: str) -> None:
        """Expect nothing more of that name."""
        self._signs.pop(name, None)

    def reasons(self) -> Iterator[str]:
        """Return what has given no sign for too long."""
        now = self._clock()
        for name, (given, due) in self._signs.items():
            if now > due:
                yield f"{name}: no sign of life for {now - given:.0f} s"


def stuck_workers(queue: WorkQueue[Key], *, limit: float = STUCK_WORKER) -> Iterator[str]:
    """Return the keys that a worker has been at for longer than any look takes."""
    for key, seconds in queue.under_way():
        if seconds > limit:
            yield f"a worker of {queue.name} has been at {key} for {seconds:.0f} s"
