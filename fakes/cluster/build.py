"""Fills the cache: builds the five programs from their Go modules, once, with a display of how far it is."""

import contextlib
import fcntl
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TextIO

from fakes.cluster import binaries
from fakes.cluster.binaries import MODULE, PACKAGES, Binaries, BinariesMissing
from fakes.cluster.process import Supervisor
from fakes.cluster.toolchain import find_go, go_environment

_POLL: Final = 0.2
# Plain output says now and then that the build is alive: some runners end jobs that are silent for long. Seconds.
_PLAIN_INTERVAL: Final = 60.0
_FAILURE_LINES: Final = 20


class Progress:
    """Tells which program of how many is being built and for how long, on one line of a terminal or on plain ones."""

    def __init__(self, stream: TextIO, *, total: int) -> None:
        self._stream = stream
        self._total = total
        self._in_place = stream.isatty()
        self._next_plain = 0.0

    def begin(self, number: int, *, name: str) -> None:
        """Show that the build of a program begins."""
        self._next_plain = 0.0
        self.building(number, name=name, elapsed=0.0)

    def building(self, number: int, *, name: str, elapsed: float) -> None:
        """Show that a program is being built. `elapsed` is in seconds."""
        text = f"[{number}/{self._total}] building {name} ... {elapsed:.0f} s"
        if self._in_place:
            self._write(f"\r\x1b[K{text}")
        elif elapsed >= self._next_plain:
            self._next_plain += _PLAIN_INTERVAL
            self._write(f"{text}\n")

    def built(self, number: int, *, name: str, elapsed: float) -> None:
        """Show that a program is done."""
        start = "\r\x1b[K" if self._in_place else ""
        self._write(f"{start}[{number}/{self._total}] built {name} in {elapsed:.0f} s\n")

    def interrupted(self) -> None:
        """Leave the line that was being updated."""
        if self._in_place:
            self._write("\n")

    def _write(self, text: str) -> None:
        self._stream.write(text)
        self._stream.flush()


def ensure(environ: Mapping[str, str] = os.environ, *, stream: TextIO | None = None) -> Binaries:
    """Return the five programs, building into the cache those that are nowhere.

    Raises BinariesMissing when that fails. What is finished stays, so an interrupted build goes on where it was.
    """
    stream = sys.stderr if stream is None else stream
    found = binaries.search(environ)
    if found.notice:
        stream.write(f"{found.notice}\n")
    if not found.missing:
        return found.binaries()
    root = binaries.cache_root(environ)
    root.mkdir(mode=0o700, parents=True, exist_ok=True)
    key = binaries.key()
    with _locked(root / f"{key}.lock", stream=stream):
        missing = binaries.search(environ).missing  # another process may have built them by now
        if missing:
            _build(missing, target=root / key, environ=environ, stream=stream)
    return binaries.find(environ)


@contextlib.contextmanager
def _locked(path: Path, *, stream: TextIO) -> Iterator[None]:
    """Hold a lock that goes with the process. The file stays: removing it would let two processes hold it."""
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            stream.write("another process is building the control plane: waiting for it\n")
            stream.flush()
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


@dataclass(frozen=True, kw_only=True)
class _Workshop:
    """Builds programs in a folder of its own and moves each into the cache when it is finished."""

    go: Path
    folder: Path
    target: Path
    environ: Mapping[str, str]
    supervisor: Supervisor
    progress: Progress

    def build(self, name: str, *, number: int) -> None:
        output, log, started = self.folder / name, self.folder / f"{name}.log", time.monotonic()
        self.supervisor.start(
            name,
            argv=[str(self.go), "build", *binaries.build_flags(), "-o", str(output), PACKAGES[name]],
            log=log,
            cwd=MODULE,
            # Go leaves its scratch folder behind when it is killed; in here it goes with the workshop.
            env={**go_environment(self.environ), "GOTMPDIR": str(self.folder)},
        )
        self.progress.begin(number, name=name)
        while (code := self.supervisor.poll()[name]) is None:
            time.sleep(_POLL)
            self.progress.building(number, name=name, elapsed=time.monotonic() - started)
        if code != 0:
            last = "\n".join(log.read_text(errors="replace").strip().splitlines()[-_FAILURE_LINES:])
            raise BinariesMissing(f"go cannot build {name} (exit code {code}); the last it said:\n{last}")
        output.replace(self.target / name)
        self.progress.built(number, name=name, elapsed=time.monotonic() - started)


def _build(names: tuple[str, ...], *, target: Path, environ: Mapping[str, str], stream: TextIO) -> None:
    go = find_go(environ, stream=stream)
    stream.write(f"building from source with {go}, once, about five minutes for all five, into {target}\n")
    for stale in target.parent.glob(f"{target.name}.building-*"):  # its process and its supervisor were both killed
        shutil.rmtree(stale, ignore_errors=True)
    target.mkdir(mode=0o700, exist_ok=True)
    # Never the same folder twice: the supervisor of a build that was just killed may still be removing its own.
    folder = Path(tempfile.mkdtemp(prefix=f"{target.name}.building-", dir=target.parent))
    supervisor, progress = Supervisor(folder), Progress(stream, total=len(names))
    workshop = _Workshop(go=go, folder=folder, target=target, environ=environ, supervisor=supervisor, progress=progress)
    try:
        for number, name in enumerate(names, start=1):
            workshop.build(name, number=number)
    except BaseException:
        progress.interrupted()
        raise
    finally:
        supervisor.close()
