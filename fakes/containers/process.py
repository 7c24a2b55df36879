"""One run of a container: a process, and whatever it starts."""

import asyncio
import contextlib
import signal
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Final, Self

from fakes.containers import guard
from fakes.containers.guard import MARK, POLL, kill_marked

# Without site-packages and what the user's own environment says: the guard has to be there at once.
_GUARD: Final = (sys.executable, "-I", "-S", guard.__file__)


@contextlib.asynccontextmanager
async def guarded(mark: str) -> AsyncIterator[None]:
    """See to it that no process whose mark begins so is left, though this process be killed."""
    process = await asyncio.create_subprocess_exec(
        *_GUARD, mark, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.DEVNULL, start_new_session=True
    )
    try:
        yield
    finally:
        if process.stdin is not None:
            process.stdin.close()
        await process.wait()


class Process:
    """A running process. Use `start` to make one."""

    def __init__(self, process: asyncio.subprocess.Process, mark: str) -> None:
        self._process = process
        self._mark = mark

    @classmethod
    async def start(
        cls, argv: Sequence[str], *, environment: Mapping[str, str], directory: Path, log: Path, mark: str
    ) -> Self:
        """Start it, its output appended to the log; `mark` is this run's alone. Raises OSError."""
        with log.open("ab") as output:
            process = await asyncio.create_subprocess_exec(
                *argv,
                cwd=directory,
                env={**environment, MARK: mark},
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        return cls(process, mark)

    async def wait(self) -> int:
        """Return its exit code as a container's once it has ended; what it has left behind ends with it."""
        code = await self._process.wait()
        await self.kill()
        return code if code >= 0 else 128 - code

    def terminate(self) -> None:
        """Ask it to end: the process itself and nothing that it has started."""
        if self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(signal.SIGTERM)

    async def kill(self) -> None:
        """Kill it with all that it has started, and return once nothing of it runs."""
        # Again until nothing is found: what is being started while this looks is seen the next time.
        while kill_marked(self._mark):  # noqa: ASYNC110 -- nobody tells when a grandchild has gone
            await asyncio.sleep(POLL)
        await self._process.wait()
