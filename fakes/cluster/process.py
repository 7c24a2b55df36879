"""Child processes that end with this process, however it ends. How that is done: see `fakes.cluster.supervisor`."""

import contextlib
import itertools
import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any, cast

_PROGRAM = Path(__file__).with_name("supervisor.py")
# What the supervisor may take to end everything: its grace of half a second, the kills, and removing a folder.
_CLOSE_TIMEOUT = 20.0


class SupervisorError(RuntimeError):
    """The supervisor is gone, or could not do what it was asked."""


class Supervisor:
    """Runs processes by name and owns a folder. Both are gone once it is closed or this process has ended.

    May be made and used from any thread.
    """

    def __init__(self, folder: Path, *, keep: bool = False) -> None:
        self._folder = folder
        self._keep = keep
        self._numbers = itertools.count(1)
        self._lock = threading.Lock()
        self._process = subprocess.Popen(
            # -I and -S: nothing of the caller's environment or site packages is needed, and it starts faster.
            [sys.executable, "-I", "-S", str(_PROGRAM), str(folder), "1" if keep else "0", str(os.getpid())],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        self._requests = cast("IO[bytes]", self._process.stdin)
        self._answers = cast("IO[bytes]", self._process.stdout)

    def start(
        self, name: str, *, argv: Sequence[str], log: Path, cwd: Path, env: Mapping[str, str] | None = None
    ) -> None:
        """Start a process; `env` is added to our own environment. Raises SupervisorError when it cannot be run."""
        self._ask("start", name=name, argv=list(argv), log=str(log), cwd=str(cwd), env=dict(env or {}))

    def poll(self) -> dict[str, int | None]:
        """Return the exit code of every process that was started and not stopped, None for those that run."""
        codes: dict[str, int | None] = self._ask("poll")["codes"]
        return codes

    def stop(self, *names: str, grace: float) -> None:
        """End processes: SIGTERM, and SIGKILL after the grace in seconds; with no grace SIGKILL at once."""
        self._ask("stop", names=list(names), grace=grace)

    def close(self) -> None:
        """End every process, remove the folder unless it is kept. May be called again."""
        with self._lock:
            for end in (self._requests, self._answers):
                with contextlib.suppress(BrokenPipeError):
                    end.close()
            try:
                self._process.wait(_CLOSE_TIMEOUT)
            except subprocess.TimeoutExpired:
                self._process.kill()  # its children follow it at once
                self._process.wait()
        # Does something only when the supervisor itself was killed.
        if not self._keep:
            shutil.rmtree(self._folder, ignore_errors=True)

    def _ask(self, do: str, **request: Any) -> dict[str, Any]:
        with self._lock:
            number = next(self._numbers)
            try:
                self._requests.write(json.dumps({"id": number, "do": do, **request}).encode() + b"\n")
                self._requests.flush()
                # An earlier caller may have been interrupted before it read its answer: that one is passed over.
                while line := self._answers.readline():
                    answer: dict[str, Any] = json.loads(line)
                    if answer["id"] == number:
                        break
                else:
                    raise SupervisorError("the supervisor of the child processes has ended")
            except (BrokenPipeError, ValueError) as error:
                raise SupervisorError("the supervisor of the child processes has ended") from error
        if "error" in answer:
            raise SupervisorError(str(answer["error"]))
        return answer
