"""Karpenter's regression suite as a test binary, with Karpenter's own CRDs: in a cache that is filled once.

It is built from the Go module that `gomodule` pins, which carries its tests; not a line of it is in this repository.
The module is the newest one that is built by the Go which pip brings where there is none; later ones ask for a later Go
and have the same specs of standalone NodeClaims.
"""

import os
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TextIO

from fakes.cluster.binaries import BinariesMissing
from fakes.cluster.built_once import BuiltOnce
from fakes.cluster.toolchain import find_go, go_environment
from fakes.cluster.workshop import Program

MODULE: Final = Path(__file__).with_name("gomodule")
_KARPENTER: Final = "sigs.k8s.io/karpenter"
_CRDS: Final = "crds"


@dataclass(frozen=True, kw_only=True)
class Suite:
    """The test binary, and the folder of the CRDs that its Karpenter installs."""

    binary: Path
    crds: Path


def find(environ: Mapping[str, str] = os.environ) -> Suite:
    """Return the suite. Raises BinariesMissing: nothing is built here."""
    binary = SUITE.find(environ)
    return Suite(binary=binary, crds=binary.with_name(_CRDS))


def _copy_crds(target: Path, environ: Mapping[str, str], stream: TextIO) -> None:
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
    unfinished = target / f"{_CRDS}.unfinished"
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir()
    for manifest in sorted((Path(answer.stdout.strip()) / "pkg" / "apis" / "crds").glob("*.yaml")):
        # Without its mode: Go keeps its modules read-only.
        shutil.copyfile(manifest, unfinished / manifest.name)
    unfinished.replace(target / _CRDS)


SUITE: Final = BuiltOnce(
    module=MODULE,
    name="regression.test",
    program=Program(
        command=("test", "-c", "-trimpath", "-mod=readonly", "-buildvcs=false", "-ldflags", "-s -w"),
        package=f"{_KARPENTER}/test/suites/regression",
    ),
    room="conformance",
    title="Karpenter's own suite",
    takes="about four minutes",
    command="python -m tests.conformance",
    beside=(_CRDS,),
    finish=_copy_crds,
)
