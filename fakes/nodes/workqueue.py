"""A queue of keys, each handled once at a time, with delays and back-off."""

import asyncio
import heapq
import logging
from collections.abc import Awaitable, Callable

from fakes.nodes.api import TRANSIENT, ApiError

logger = logging.getLogger(__name__)

FIRST_RETRY = 0.05
LAST_RETRY = 2.0

Handler = Callable[[str], Awaitable[float | None]]


class WorkQueue:
    """Calls `handler(key)`; what it returns is the delay in real seconds until it wants to see the key again.

    A key that is added while it is being handled is handled once more afterwards, so no change is lost between a
    handler's look at the world and its end. Of several times asked for, the earliest wins.
    """

    def __init__(self, handler: Handler, *, concurrency: int) -> None:
        self._handler = handler
        self._slots = asyncio.Semaphore(concurrency)
        self._due: dict[str, float] = {}
        self._heap: list[tuple[float, str]] = []
        self._active: set[str] = set()
        self._failures: dict[str, int] = {}
        self._wake = asyncio.Event()

    def add(self, key: str, *, after: float = 0.0) -> None:
        """Ask for a key to be handled `after` real seconds."""
        due = asyncio.get_running_loop().time() + after
        if self._due.get(key, float("inf")) <= due:
            return
        self._due[key] = due
        # While a key is active its next time waits in _due alone: pushed now, it would be popped and dropped.
        if key not in self._active:
            self._push(key, due)

    async def run(self) -> None:
        """Handle keys until cancelled. A handler's error that is no failure of the API ends it."""
        async with asyncio.TaskGroup() as handlers:
            while True:
                await self._slots.acquire()
                key = await self._next()
                self._active.add(key)
                handlers.create_task(self._handle(key))

    def _push(self, key: str, due: float) -> None:
        heapq.heappush(self._heap, (due, key))
        self._wake.set()

    async def _next(self) -> str:
        loop = asyncio.get_running_loop()
        while True:
            while self._heap and self._stale(self._heap[0]):
                heapq.heappop(self._heap)
            self._wake.clear()
            wait = self._heap[0][0] - loop.time() if self._heap else None
            if wait is not None and wait <= 0:
                _, key = heapq.heappop(self._heap)
                del self._due[key]
                return key
            try:
                async with asyncio.timeout(wait):
                    await self._wake.wait()
            except TimeoutError:
                continue

    def _stale(self, entry: tuple[float, str]) -> bool:
        due, key = entry
        return key in self._active or self._due.get(key) != due

    async def _handle(self, key: str) -> None:
        try:
            again = await self._handler(key)
        except TRANSIENT as error:
            failures = self._failures.get(key, 0)
            self._failures[key] = failures + 1
            # Conflicts and a server that is away are daily bread; a refusal is a mistake of ours and has to be seen.
            refused = isinstance(error, ApiError) and error.status in {400, 403, 422}
            logger.log(logging.WARNING if refused else logging.DEBUG, "%s: %s", key, error)
            again = min(FIRST_RETRY * 2 ** min(failures, 10), LAST_RETRY)
        else:
            self._failures.pop(key, None)
        finally:
            self._active.discard(key)
            self._slots.release()
        due = self._due.get(key)
        if due is not None:
            self._push(key, due)
        if again is not None:
            self.add(key, after=again)
