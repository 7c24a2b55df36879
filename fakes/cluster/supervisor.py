"""A small program that runs child processes for another process and never lets them outlive it.

Run as a file by `fakes.cluster.process`, which sends requests as lines of JSON to standard input and reads one line
of JSON for each from standard output. It needs the standard library only, to start in a few milliseconds.

Why a process of its own: the obvious way, `prctl(PR_SET_PDEATHSIG)` in each child, fires when the *thread* that
made the child ends, so children started from a worker thread of a test would die with that thread, and it can neither
stop anything in order nor remove a folder. Here the signal is used where it is sound, between this program, which has
one thread, and its children. Between the asking process and this program the end of standard input tells that the
asker is gone, and a pidfd tells it too when forks of the asker still hold the other end of the pipe open.

It runs in a session of its own, so a Ctrl-C at a terminal reaches the asker only, who stops things in order.
"""

import contextlib
import ctypes
import json
import os
import selectors
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

# How long children may take to end after SIGTERM when everything is shut down, in seconds. etcd, scheduler and
# controller manager need a tenth of that; an API server with open watches would take a minute, for nothing.
GRACE = 0.5
_PR_SET_PDEATHSIG = 1


def _die_with_supervisor() -> Callable[[], None] | None:
    if sys.platform != "linux":
        return None
    prctl = ctypes.CDLL(None).prctl  # looked up before the fork: afterwards loading could deadlock
    supervisor = os.getpid()

    def in_child() -> None:
        prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != supervisor:  # it died before the line above
            os._exit(1)

    return in_child


class Children:
    """The processes started so far, by name. A name may be used again once its process has ended."""

    def __init__(self) -> None:
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._in_child = _die_with_supervisor()

    def start(self, *, name: str, argv: list[str], log: str, cwd: str, env: dict[str, str]) -> dict[str, Any]:
        """Start a process whose output is appended to a log file."""
        running = self._processes.get(name)
        if running is not None and running.poll() is None:
            return {"error": f"{name} is running already"}
        with Path(log).open("ab") as output:
            try:
                self._processes[name] = subprocess.Popen(
                    argv,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    cwd=cwd,
                    env={**os.environ, **env},
                    preexec_fn=self._in_child,
                    # A group of its own, so that what it started itself can be killed with it.
                    start_new_session=True,
                )
            except OSError as error:
                return {"error": f"cannot run {argv[0]}: {error.strerror}"}
        return {}

    def poll(self) -> dict[str, Any]:
        """Tell the exit code of every process that was not stopped by a request, null for those that run."""
        return {"codes": {name: process.poll() for name, process in self._processes.items()}}

    def stop(self, *, names: list[str], grace: float) -> dict[str, Any]:
        """End processes by SIGTERM, and those that are still there after the grace, in seconds, by SIGKILL."""
        processes = [self._processes[name] for name in names if name in self._processes]
        if grace > 0:
            for process in processes:
                self._signal(process, signal.SIGTERM)
            deadline = time.monotonic() + grace
            for process in processes:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(max(0.0, deadline - time.monotonic()))
        for process in processes:
            self._signal(process, signal.SIGKILL)
            process.wait()
        for name in names:
            self._processes.pop(name, None)
        return {}

    def stop_all(self) -> None:
        """End every process."""
        self.stop(names=list(self._processes), grace=GRACE)

    @staticmethod
    def _signal(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
        if process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, number)


def _parent_gone(parent: int) -> int | None:
    """Open a descriptor that becomes readable when the parent ends; None where there is no such thing."""
    if not hasattr(os, "pidfd_open"):
        return None
    try:
        return os.pidfd_open(parent)
    except OSError:
        return None


def serve(children: Children, *, parent: int) -> None:
    """Carry out requests until the parent is gone or has closed its end."""
    actions: dict[str, Callable[..., dict[str, Any]]] = {
        "start": children.start,
        "poll": children.poll,
        "stop": children.stop,
    }
    waiting = selectors.DefaultSelector()
    waiting.register(0, selectors.EVENT_READ)
    pidfd = _parent_gone(parent)
    if pidfd is not None:
        waiting.register(pidfd, selectors.EVENT_READ)
    buffer = b""
    while os.getppid() == parent:
        if any(key.fd == pidfd for key, _ in waiting.select()):
            return
        received = os.read(0, 65536)
        if not received:
            return
        *lines, buffer = (buffer + received).split(b"\n")
        for line in lines:
            request = json.loads(line)
            number, do = request.pop("id"), request.pop("do")
            answer = actions[do](**request)
            sys.stdout.write(json.dumps({"id": number, **answer}) + "\n")
            sys.stdout.flush()


def main(folder: str, keep: str, parent: str) -> None:
    """Serve one parent; in the end stop everything and remove the folder unless it is to be kept ("1")."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    for ignored in (signal.SIGINT, signal.SIGHUP):
        signal.signal(ignored, signal.SIG_IGN)
    children = Children()
    try:
        with contextlib.suppress(BrokenPipeError):
            serve(children, parent=int(parent))
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        children.stop_all()
        if keep != "1":
            shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
