"""Helm, built from the Go module that `gomodule` pins: in a cache that is filled once.

A module of its own, for Helm and the control plane want different versions of the same modules.
"""

import os
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final, TextIO

from fakes.cluster import binaries, workshop
from fakes.cluster.binaries import BinariesMissing
from fakes.cluster.workshop import Order, Program

MODULE: Final = Path(__file__).with_name("gomodule")
BUILD_COMMAND: Final = "python -m tests.charts"

_NAME: Final = "helm"
_HELM: Final = "helm.sh/helm/v4"


def version() -> str:
    """Return which Helm is pinned, such as `v4.3.1`."""
    match = re.search(rf"^require {re.escape(_HELM)} (\S+)$", (MODULE / "go.mod").read_text(), re.MULTILINE)
    if match is None:
        raise BinariesMissing(f"{MODULE / 'go.mod'} does not require {_HELM}")
    return match.group(1)


def find(environ: Mapping[str, str] = os.environ) -> Path:
    """Return Helm. Raises BinariesMissing: nothing is built here."""
    helm = _folder(environ) / _NAME
    if not os.access(helm, os.X_OK):
        raise BinariesMissing(f"Helm is not built: run `{BUILD_COMMAND}` (once, about two minutes)")
    return helm


def skip_reason(environ: Mapping[str, str] = os.environ) -> str | None:
    """Return None when Helm is there, else one line on how to get it."""
    try:
        find(environ)
    except BinariesMissing as missing:
        return str(missing)
    return None


def ensure(environ: Mapping[str, str] = os.environ, *, stream: TextIO | None = None) -> Path:
    """Return Helm, building it where it is not there. Raises BinariesMissing when that fails."""
    stream = sys.stderr if stream is None else stream
    if skip_reason(environ) is None:
        return find(environ)
    target = _folder(environ)
    with workshop.locked(target.with_name(f"{target.name}.lock"), stream=stream):
        if skip_reason(environ) is not None:  # another process may have built it by now
            program = Program(command=_command(), package=f"{_HELM}/cmd/helm")
            order = Order(module=MODULE, programs={_NAME: program}, about="Helm (about two minutes)")
            workshop.build(order, target=target, environ=environ, stream=stream)
    return find(environ)


def _command() -> tuple[str, ...]:
    # Without the version Helm calls itself by the minor one alone, and charts may ask.
    stamp = f"-s -w -X {_HELM}/internal/version.version={version()}"
    return ("build", "-trimpath", "-mod=readonly", "-buildvcs=false", "-ldflags", stamp)


def _folder(environ: Mapping[str, str]) -> Path:
    return binaries.cache_root(environ, room="helm") / binaries.key(MODULE, flags=_command())
