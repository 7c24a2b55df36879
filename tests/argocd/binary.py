"""GopherLua, which Argo CD runs health checks with: built from the Go module that `gomodule` pins, in a cache."""

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final, TextIO

from fakes.cluster import binaries, workshop
from fakes.cluster.binaries import BinariesMissing
from fakes.cluster.workshop import Order, Program

MODULE: Final = Path(__file__).with_name("gomodule")
BUILD_COMMAND: Final = "python -m tests.argocd"

_NAME: Final = "glua"
_PACKAGE: Final = "github.com/yuin/gopher-lua/cmd/glua"
_COMMAND: Final = ("build", "-trimpath", "-mod=readonly", "-buildvcs=false")


def find(environ: Mapping[str, str] = os.environ) -> Path:
    """Return the interpreter. Raises BinariesMissing: nothing is built here."""
    interpreter = _folder(environ) / _NAME
    if not os.access(interpreter, os.X_OK):
        raise BinariesMissing(f"GopherLua is not built: run `{BUILD_COMMAND}` (once, seconds)")
    return interpreter


def skip_reason(environ: Mapping[str, str] = os.environ) -> str | None:
    """Return None when the interpreter is there, else one line on how to get it."""
    try:
        find(environ)
    except BinariesMissing as missing:
        return str(missing)
    return None


def ensure(environ: Mapping[str, str] = os.environ, *, stream: TextIO | None = None) -> Path:
    """Return the interpreter, building it where it is not there. Raises BinariesMissing when that fails."""
    stream = sys.stderr if stream is None else stream
    target = _folder(environ)
    with workshop.locked(target.with_name(f"{target.name}.lock"), stream=stream):
        if skip_reason(environ) is not None:
            program = Program(command=_COMMAND, package=_PACKAGE)
            order = Order(module=MODULE, programs={_NAME: program}, about="GopherLua (seconds)")
            workshop.build(order, target=target, environ=environ, stream=stream)
    return find(environ)


def _folder(environ: Mapping[str, str]) -> Path:
    return binaries.cache_root(environ, room="lua") / binaries.key(MODULE, flags=_COMMAND)
