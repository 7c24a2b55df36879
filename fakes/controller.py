"""`provisioner run` or `workspace` as a child process: unmodified code, told by its environment where the fakes are."""

import asyncio
import os
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Final, Self

_ROOT: Final = Path(__file__).resolve().parent.parent
_STOP_TIMEOUT: Final = 15.0
_POLL: Final = 0.05
_STARTED: Final = "controller started"
# What a person's shell or a CI machine may carry and that must not reach the controller under test.
_FOREIGN: Final = ("AZURE_", "ARM_", "KUBE", "HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy")


class ControllerProcess:
    """One run of a controller; use as `async with`. Its log goes to `log`, appended over restarts."""

    def __init__(self, environment: Mapping[str, str], *, log: Path, command: str = "run") -> None:
        inherited = {key: value for key, value in os.environ.items() if not key.startswith(_FOREIGN)}
        self._environment = {**inherited, **environment}
        self._log = log
        self._command = command
        self._process: asyncio.subprocess.Process | None = None
        # How long the log was when it was started last.
        self._old_log = 0

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    @property
    def process(self) -> asyncio.subprocess.Process:
        """Return the running process."""
        if self._process is None:
            raise RuntimeError("the controller has not been started")
        return self._process

    async def start(self) -> None:
        """Start it."""
        with self._log.open("ab") as output:
            self._old_log = output.tell()
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "provisioner", self._command),
                cwd=_ROOT,
                env=self._environment,
                stdout=output,
                stderr=output,
            )

    async def wait_started(self, *, patience: float = 30.0) -> None:
        """Return once it says in its log that it works. Raises TimeoutError, RuntimeError where it has ended."""
        async with asyncio.timeout(patience):
            while _STARTED.encode() not in self._log.read_bytes()[self._old_log :]:
                if self.process.returncode is not None:
                    raise RuntimeError(f"the controller has ended with code {self.process.returncode}")
                await asyncio.sleep(_POLL)

    async def kill(self) -> None:
        """Kill it as the kernel does, without a word."""
        self.process.kill()
        await self.process.wait()

    async def stop(self) -> int:
        """Ask it to stop, and return its exit code."""
        process = self.process
        if process.returncode is None:
            process.send_signal(signal.SIGTERM)
            try:
                async with asyncio.timeout(_STOP_TIMEOUT):
                    await process.wait()
            except TimeoutError:
                await self.kill()
        return process.returncode if process.returncode is not None else -1

    def log_text(self) -> str:
        """Return what it has logged so far."""
        return self._log.read_text(errors="replace") if self._log.exists() else ""
