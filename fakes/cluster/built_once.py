"""A Go program that is built once, in a room of the cache of its own, keyed by its module and how it is built."""

import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from fakes.cluster import binaries, workshop
from fakes.cluster.binaries import BinariesMissing
from fakes.cluster.process import SupervisorError
from fakes.cluster.workshop import Order, Program

Finish = Callable[[Path, Mapping[str, str], TextIO], None]


def _nothing(_target: Path, _environ: Mapping[str, str], _stream: TextIO) -> None:
    """Add nothing to what was built."""


@dataclass(frozen=True, kw_only=True)
class BuiltOnce:
    """The program called `name` of the Go module in the folder `module`.

    `title` is what people call it and `takes` how long it is built; `command` makes it where it is not there. `finish`
    adds the folders `beside` to that of the program; without them it is not whole.
    """

    module: Path
    name: str
    program: Program
    room: str
    title: str
    takes: str
    command: str
    beside: tuple[str, ...] = ()
    finish: Finish = _nothing

    def find(self, environ: Mapping[str, str] = os.environ) -> Path:
        """Return the program. Raises BinariesMissing: nothing is built here."""
        folder = self._folder(environ)
        program = folder / self.name
        if not (os.access(program, os.X_OK) and all((folder / name).is_dir() for name in self.beside)):
            raise BinariesMissing(f"{self.title} is not built: run `{self.command}` (once, {self.takes})")
        return program

    def skip_reason(self, environ: Mapping[str, str] = os.environ) -> str | None:
        """Return None when the program is there, else one line on how to get it."""
        try:
            self.find(environ)
        except BinariesMissing as missing:
            return str(missing)
        return None

    def ensure(self, environ: Mapping[str, str] = os.environ, *, stream: TextIO | None = None) -> Path:
        """Return the program, building it where it is not there. Raises BinariesMissing when that fails."""
        stream = sys.stderr if stream is None else stream
        if self.skip_reason(environ) is None:
            return self.find(environ)
        target = self._folder(environ)
        with workshop.locked(target.with_name(f"{target.name}.lock"), stream=stream):
            if self.skip_reason(environ) is not None:  # another process may have built it by now
                order = Order(
                    module=self.module, programs={self.name: self.program}, about=f"{self.title} ({self.takes})"
                )
                workshop.build(order, target=target, environ=environ, stream=stream)
                self.finish(target, environ, stream)
        return self.find(environ)

    def main(self) -> int:
        """Build it as a command; return its exit code: 0 when it is there."""
        try:
            self.ensure()
        except (BinariesMissing, SupervisorError, OSError) as error:
            sys.stderr.write(f"error: {error}\n")
            return 1
        except KeyboardInterrupt:
            return 130
        return 0

    def _folder(self, environ: Mapping[str, str]) -> Path:
        return binaries.cache_root(environ, room=self.room) / binaries.key(self.module, flags=self.program.command)
