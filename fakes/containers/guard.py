"""A small program that outlives whoever runs a pod, however that ends, and takes what is left of the pod away.

Run as a file, with the beginning of the pod's marks as its argument and the other end of its standard input held by the
one that runs the pod. It needs the standard library only, to start in a few milliseconds, and has a session of its own:
a Ctrl-C at a terminal reaches the other one, who ends things in order.
"""

import contextlib
import os
import signal
import sys
import time
from pathlib import Path

# Whatever a container starts inherits it: a process that has lost its parent is found by it as well.
MARK = "FAKE_CONTAINER"
# Seconds between two looks: what is killed takes a moment to go.
POLL = 0.02


def kill_marked(mark: str) -> bool:
    """Kill each process whose mark begins so; whether there was any."""
    wanted = f"{MARK}={mark}".encode()
    found = False
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal() and any(one.startswith(wanted) for one in _environment(entry)):
            found = True
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(entry.name), signal.SIGKILL)
    return found


def _environment(process: Path) -> list[bytes]:
    # Empty for one that has ended and was not waited for, so that a sweep comes to its end.
    with contextlib.suppress(OSError):
        return (process / "environ").read_bytes().split(b"\0")
    return []


def main(mark: str) -> None:
    """Wait until nobody holds the other end any more, then kill until nothing is found."""
    for ignored in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(ignored, signal.SIG_IGN)
    sys.stdin.buffer.read()
    while kill_marked(mark):
        time.sleep(POLL)


if __name__ == "__main__":
    main(sys.argv[1])
