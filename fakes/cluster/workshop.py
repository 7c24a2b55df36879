"""Builds Go programs from their modules into a cache, once, with a display of how far it is."""

import contextlib
import fcntl
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TextIO

from fakes.cluster.binaries import BinariesMissing
from fakes.cluster.process import Supervisor
from fakes.cluster.toolchain import find_go, go_environment

_POLL: Final = 0.2
# Plain output says now and then that the build is alive: some runners end jobs that are silent for long. Seconds.
_PLAIN_INTERVAL: Final = 60.0
_FAILURE_LINES: Final = 20


@dataclass(frozen=True, kw_only=True)
class Program:
    """One program: the `go` command that makes it, such as `build -trimpath`, and its package."""

    command: tuple[str, ...]
    package: str


@dataclass(frozen=True, kw_only=True)
class Order:
    """What to build of the Go module in the folder `module`; `about` says it to people, and how long it takes."""

    module: Path
    programs: Mapping[str, Program]
    about: str


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


@contextlib.contextmanager
def locked(path: Path, *, stream: TextIO) -> Iterator[None]:
    """Hold a lock that goes with the process. The file stays: removing it would let two processes hold it."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            stream.write("another process is building the same: waiting for it\n")
            stream.flush()
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def build(order: Order, *, target: Path, environ: Mapping[str, str], stream: TextIO) -> None:
    """Build all programs of an order into the folder `target`; those that are finished stay, whatever happens.

    The caller holds the lock of that folder. Raises BinariesMissing.
    """
    go = find_go(environ, module=order.module, stream=stream)
    stream.write(f"building {order.about} from source with {go}, once, into {target}\n")
    for stale in target.parent.glob(f"{target.name}.building-*"):  # its process and its supervisor were both killed
        shutil.rmtree(stale, ignore_errors=True)
    target.mkdir(mode=0o700, exist_ok=True)
    # Never the same folder twice: the supervisor of a build that was just killed may still be removing its own.
    folder = Path(tempfile.mkdtemp(prefix=f"{target.name}.building-", dir=target.parent))
    supervisor, progress = Supervisor(folder), Progress(stream, total=len(order.programs))
    bench = _Bench(go=go, folder=folder, module=order.module, environ=environ, supervisor=supervisor, progress=progress)
    try:
        for number, (name, program) in enumerate(order.programs.items(), start=1):
            bench.build(name, program, number=number).replace(target / name)
    except BaseException:
        progress.interrupted()
        raise
    finally:
        supervisor.close()


@dataclass(frozen=True, kw_only=True)
class _Bench:
    """Builds programs in a folder of its own."""

    go: Path
    folder: Path
    module: Path
    environ: Mapping[str, str]
    supervisor: Supervisor
    progress: Progress

    def build(self, name: str, program: Program, *, number: int) -> Path:
        output, log, started = self.folder / name, self.folder / f"{name}.log", time.monotonic()
        argv: Sequence[str] = (str(self.go), *program.command, "-o", str(output), program.package)
        self.supervisor.start(
            name,
            argv=argv,
            log=log,
            cwd=self.module,
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
        self.progress.built(number, name=name, elapsed=time.monotonic() - started)
        return output
