"""The time of a script."""

import asyncio
import contextlib
from collections.abc import Iterator

from fakes.azure.clock import Clock


class Pace:
    """The time of a script: simulated seconds, which stand still while the controller starts."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._began = clock.now()
        self._going = asyncio.Event()
        self._going.set()

    @contextlib.contextmanager
    def standing(self) -> Iterator[None]:
        """Stand still meanwhile."""
        since = self._clock.now()
        self._going.clear()
        try:
            yield
        finally:
            self._began += self._clock.now() - since
            self._going.set()

    async def reach(self, moment: float) -> None:
        """Wait until the moment has come."""
        while (left := self._began + moment - self._clock.now()) > 0 or not self._going.is_set():
            await asyncio.sleep(self._clock.real(left))
            await self._going.wait()
