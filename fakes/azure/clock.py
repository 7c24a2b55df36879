"""Simulated time, and what is due in it."""

import asyncio
import heapq
import itertools
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field


class Clock:
    """Simulated seconds that run `scale` times as fast as real ones. The scale may change while the clock runs."""

    def __init__(self, *, scale: float = 1.0, source: Callable[[], float] = time.monotonic) -> None:
        self._source = source
        self._scale = _positive(scale)
        self._real = source()
        self._simulated = 0.0

    @property
    def scale(self) -> float:
        """Simulated seconds a real second."""
        return self._scale

    @scale.setter
    def scale(self, scale: float) -> None:
        # Re-based first, so that simulated time neither jumps nor runs backwards.
        self._simulated, self._real = self.now(), self._source()
        self._scale = _positive(scale)

    def now(self) -> float:
        """Return the simulated seconds since the clock was made."""
        return self._simulated + (self._source() - self._real) * self._scale

    def real(self, simulated: float) -> float:
        """Return the real seconds that a span of simulated seconds takes; never negative."""
        return max(simulated, 0.0) / self._scale

    def retry_after(self, simulated: float) -> int:
        """Return what a Retry-After header says for a span of simulated seconds.

        Clients sleep in real time, and the header carries whole seconds, so the span is divided by the scale, rounded
        up, and never less than 1: 0 means "at once" to azure-core.
        """
        return max(math.ceil(self.real(simulated)), 1)


def _positive(scale: float) -> float:
    if not (scale > 0 and math.isfinite(scale)):
        raise ValueError(f"the scale of a clock must be positive, not {scale}")
    return scale


@dataclass(order=True)
class Due:
    """Something that happens at a simulated moment, unless it is cancelled before."""

    when: float
    order: int
    action: Callable[[], None] = field(compare=False)
    cancelled: bool = field(default=False, compare=False)

    def cancel(self) -> None:
        """Let it not happen."""
        self.cancelled = True


class Timeline:
    """What will happen, in order of simulated time.

    Readers call `advance` before they look, so that state is right even where the event loop was late. `run` does the
    same when the next moment comes, so that watchers wake without anybody asking. While an action runs, `now` is the
    moment it was due at: what a late loop does is the same as what a punctual one does.
    """

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self._due: list[Due] = []
        self._order = itertools.count()
        self._moment: float | None = None
        self._changed = asyncio.Event()

    def now(self) -> float:
        """Return the simulated time, or inside an action the moment it was due at."""
        return self.clock.now() if self._moment is None else self._moment

    def after(self, seconds: float, action: Callable[[], None]) -> Due:
        """Plan an action in so many simulated seconds."""
        due = Due(self.now() + seconds, next(self._order), action)
        heapq.heappush(self._due, due)
        self._changed.set()
        return due

    def advance(self) -> None:
        """Do all that is due, in order. Actions may plan more, due at once or later."""
        if self._moment is not None:
            return
        while self._due and (self._due[0].cancelled or self._due[0].when <= self.clock.now()):
            due = heapq.heappop(self._due)
            if due.cancelled:
                continue
            self._moment = due.when
            try:
                due.action()
            finally:
                self._moment = None

    def reschedule(self) -> None:
        """Look again when the next action is due; for a changed scale."""
        self._changed.set()

    async def run(self) -> None:
        """Do what is due when it is due, until cancelled."""
        while True:
            self._changed.clear()
            self.advance()
            wait = self.clock.real(self._due[0].when - self.clock.now()) if self._due else None
            try:
                async with asyncio.timeout(wait):
                    await self._changed.wait()
            except TimeoutError:
                continue
