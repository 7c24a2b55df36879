"""One watch on its way from the API server to a client, event by event."""

import asyncio
import contextlib
import json
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from fakes.proxy.calls import Call
from fakes.proxy.faults import Active, CutWatch, DelayEvents, DropEvents, FailWatch, FaultBook, StallWatch


class WatchCutError(Exception):
    """A fault has it that the watch is torn down."""


class WatchRelay:
    """Reads at once whatever comes, and hands it on as the faults have it, which may change meanwhile."""

    def __init__(self, call: Call, *, faults: FaultBook, write: Callable[[bytes], Awaitable[None]]) -> None:
        self._call = call
        self._faults = faults
        self._write = write
        # The loop's time at which each line is due, the line, and what has made it late.
        self._waiting: deque[tuple[float, bytes, Active[DelayEvents] | None]] = deque()
        self._stall: Active[StallWatch] | None = None

    async def run(self, chunks: AsyncIterator[bytes]) -> None:
        """Relay until the API server ends the watch. Raises WatchCutError, and what reading and writing raise."""
        with self._faults.listening() as news:
            reading = asyncio.create_task(self._read(chunks, news))
            reading.add_done_callback(lambda _: news.set())
            try:
                while True:
                    news.clear()
                    if self._faults.claim(CutWatch, self._call):
                        raise WatchCutError
                    if failing := self._faults.claim(FailWatch, self._call):
                        await self._write(error_event(failing.fault.status, reason=failing.fault.reason))
                        return
                    pause = None
                    if not self._is_stalled():
                        pause = await self._hand_on()
                        if pause is None and reading.done():
                            reading.result()
                            return
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(pause):
                            await news.wait()
            finally:
                reading.cancel()
                await asyncio.gather(reading, return_exceptions=True)

    async def _read(self, chunks: AsyncIterator[bytes], news: asyncio.Event) -> None:
        rest = b""
        async for chunk in chunks:
            *lines, rest = (rest + chunk).split(b"\n")
            for line in lines:
                self._take(line + b"\n")
            news.set()

    def _take(self, line: bytes) -> None:
        event: dict[str, Any] = json.loads(line)
        kind, due, late = event["type"], asyncio.get_running_loop().time(), None
        if kind in ("ADDED", "MODIFIED", "DELETED"):
            # A table, which kubectl asks for, has no name.
            name = event["object"].get("metadata", {}).get("name", "")
            if self._faults.claim(DropEvents, self._call, name=name, where=lambda fault: fault.concerns(kind)):
                return
            late = self._faults.claim(DelayEvents, self._call, name=name)
            if late is not None:
                due += late.fault.seconds
        if self._waiting:
            due = max(due, self._waiting[-1][0])
        self._waiting.append((due, line, late))

    def _is_stalled(self) -> bool:
        if self._stall is None or self._stall.cleared:
            self._stall = self._faults.claim(StallWatch, self._call)
        return self._stall is not None

    async def _hand_on(self) -> float | None:
        """Write what is due; return in how many seconds the next line is, None where none waits."""
        while self._waiting:
            pause = self._waiting[0][0] - asyncio.get_running_loop().time()
            if pause > 0:
                return pause
            _, line, late = self._waiting.popleft()
            await self._write(line)
            if late is not None:
                late.handed_on += 1
        return None


def status(code: int, *, reason: str, message: str = "spoiled") -> dict[str, Any]:
    """Return the Status object with which an API server refuses."""
    return {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "message": message,
        "reason": reason,
        "code": code,
    }


def error_event(code: int, *, reason: str) -> bytes:
    """Return the line with which an API server ends a watch that it cannot go on with."""
    return json.dumps({"type": "ERROR", "object": status(code, reason=reason)}).encode() + b"\n"
