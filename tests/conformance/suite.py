"""Karpenter's regression suite as a test binary, with Karpenter's own CRDs: in a cache that is filled once.

It is built from the Go module that `gomodule` pins, which carries its tests; not a line of it is in this repository.
The module is the newest one that is built by the Go which pip brings where there is none; later ones ask for a later Go
and have the same specs of standalone NodeClaims.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TextIO

from fakes.cluster import binaries, workshop
from fakes.cluster.binaries import BinariesMissing
from fakes.cluster.toolchain import find_go, go_environment
from fakes.cluster.workshop import Order, Program

MODULE: Final = Path(__file__).with_name("gomodule")
BUILD_COMMAND: Final = "python -m tests.conformance"

_NAME: Final = "regression.test"
_KARPENTER: Final = "sigs.k8s.io/karpenter"
_COMMAND: Final = ("test", "-c", "-trimpath", "-mod=readonly", "-buildvcs=false", "-ldflags", "-s -w")
_ORDER: Final = Order(
    module=MODULE,
    programs={_NAME: Program(command=_COMMAND, package=f"{_KARPENTER}/test/suites/regression")},
    about="Karpenter's regression suite (about four minutes)",
)


@dataclass(frozen=True, kw_only=True)
class Suite:
    """The test binary, and the folder of the CRDs that its Karpenter installs."""

    binary: Path
    crds: Path


def find(environ: Mapping[str, str] = os.environ) -> Suite:
    """Return the suite. Raises BinariesMissing: nothing is built here."""
    folder = _folder(environ)
    suite = Suite(binary=folder / _NAME, crds=folder / "crds")
    if not (os.access(suite.binary, os.X_OK) and suite.crds.is_dir()):
        raise BinariesMissing(f"Karpenter's own suite is not built: run `{BUILD_COMMAND}` (once, about four minutes)")
    return suite


def skip_reason(environ: Mapping[str, str] = os.environ) -> str | None:
    """Return None when the suite is there, else one line on how to get it."""
    try:
        find(environ)
    except BinariesMissing as missing:
        return str(missing)
    return None


def ensure(environ: Mapping[str, str] = os.environ, *, stream: TextIO | None = None) -> Suite:
    """Return the suite, building it where it is not there. Raises BinariesMissing when that fails."""
    stream = sys.stderr if stream is None else stream
    if skip_reason(environ) is None:
        return find(environ)
    target = _folder(environ)
    with workshop.locked(target.with_name(f"{target.name}.lock"), stream=stream):
        if skip_reason(environ) is not None:  # another process may have built it by now
            workshop.build(_ORDER, target=target, environ=environ, stream=stream)
            _copy_crds(target, environ=environ, stream=stream)
    return find(environ)


def _folder(environ: Mapping[str, str]) -> Path:
    return binaries.cache_root(environ, room="conformance") / binaries.key(MODULE, flags=_COMMAND)


def _copy_crds(target: Path, *, environ: Mapping[str, str], stream: TextIO) -> None:
    go = find_go(environ, module=MODULE, stream=stream)
    answer = subprocess.run(
        [str(go), "list", "-mod=readonly", "-m", "-f", "{{.Dir}}", _KARPENTER],
        cwd=MODULE,
        env=go_environment(environ),
        capture_output=True,
        text=True,
        check=False,
    )
    if answer.returncode != 0:
        raise BinariesMissing(f"go does not know where {_KARPENTER} is: {answer.stderr.strip()}")
    unfinished = target / "crds.unfinished"
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir()
    for manifest in sorted((Path(answer.stdout.strip()) / "pkg" / "apis" / "crds").glob("*.yaml")):
        # Without its mode: Go keeps its modules read-only.
        shutil.copyfile(manifest, unfinished / manifest.name)
    unfinished.replace(target / "crds")
