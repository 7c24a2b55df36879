"""A program that runs below this one, with all that it starts: its output, and its end.

It gets a session of its own, so that one signal reaches everything it has left behind: vLLM's engines and workers
outlive their parent when that is killed, and hold the GPUs.
"""

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Final

# Longer lines are cut for those who read them; they are forwarded whole.
_LONGEST_LINE: Final = 4096
_CHUNK: Final = 1 << 16


class Child:
    """A running program."""

    def __init__(
        self,
        process: asyncio.subprocess.Process,
        output: asyncio.StreamReader,
        pipe: asyncio.ReadTransport,
        on_line: Callable[[str], None],
    ) -> None:
        self._process = process
        self._output = output
        self._pipe = pipe
        self._on_line = on_line
        self._signalled = False
        self._reading = asyncio.create_task(self._read())

    @classmethod
    async def start(
        cls, command: Sequence[str], *, environment: Mapping[str, str], on_line: Callable[[str], None]
    ) -> "Child":
        """Start it without a shell; its output is forwarded and shown line by line to `on_line`. Raises OSError."""
        # A pipe of our own: asyncio's would keep `wait` from returning as long as anything that the program has left
        # behind holds the other end.
        ours, theirs = os.pipe()
        output = asyncio.StreamReader()
        pipe, _ = await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(output), os.fdopen(ours, "rb", buffering=0)
        )
        try:
            process = await asyncio.create_subprocess_exec(
                *command,
                env=dict(environment),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=theirs,
                stderr=theirs,
                start_new_session=True,
            )
        except BaseException:
            pipe.close()
            raise
        finally:
            os.close(theirs)
        return cls(process, output, pipe, on_line)

    @property
    def returncode(self) -> int | None:
        """Return its exit code, minus the signal that ended it, None while it runs."""
        return self._process.returncode

    async def wait(self) -> int:
        """Return the exit code once it has ended."""
        code = await self._process.wait()
        # What it has started may hold the pipe open for good: what it said itself is there by now.
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(asyncio.shield(self._reading), timeout=1)
        return code

    def terminate(self) -> None:
        """Send SIGTERM, once: a second one makes vLLM neither faster nor cleaner."""
        if not self._signalled and self._process.returncode is None:
            self._signalled = True
            self._process.terminate()

    async def kill(self) -> int:
        """End it at once, with everything that it has started; return its exit code."""
        self._signalled = True
        self._kill()
        return await self.wait()

    async def stop(self, *, patience: float) -> int:
        """End it, with everything that it has started, after so many seconds by force; return its exit code."""
        self.terminate()
        try:
            return await asyncio.wait_for(self.wait(), timeout=patience)
        except TimeoutError:
            self._kill()
            return await self.wait()
        finally:
            self._kill()
            self._reading.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._reading
            self._pipe.close()

    def _kill(self) -> None:
        # The group's number is the program's own, and is not given anew while a process of the group is left.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)

    async def _read(self) -> None:
        line = b""
        while chunk := await self._output.read(_CHUNK):
            # Whoever reads the log may be slow: that must not keep the gate from answering.
            await asyncio.to_thread(_forward, chunk)
            *whole, line = (line + chunk).split(b"\n")
            for part in whole:
                self._on_line(part[:_LONGEST_LINE].decode(errors="replace"))
            line = line[:_LONGEST_LINE]
        if line:
            self._on_line(line.decode(errors="replace"))


def _forward(chunk: bytes) -> None:
    sys.stdout.buffer.write(chunk)
    sys.stdout.buffer.flush()
