"""Helm, built from the Go module that `gomodule` pins.

A module of its own, for Helm and the control plane want different versions of the same modules.
"""

import re
from pathlib import Path
from typing import Final

from fakes.cluster.binaries import BinariesMissing
from fakes.cluster.built_once import BuiltOnce
from fakes.cluster.workshop import Program

MODULE: Final = Path(__file__).with_name("gomodule")
_HELM: Final = "helm.sh/helm/v4"


def version() -> str:
    """Return which Helm is pinned, such as `v4.3.1`."""
    match = re.search(rf"^require {re.escape(_HELM)} (\S+)$", (MODULE / "go.mod").read_text(), re.MULTILINE)
    if match is None:
        raise BinariesMissing(f"{MODULE / 'go.mod'} does not require {_HELM}")
    return match.group(1)


# Without the version Helm calls itself by the minor one alone, and charts may ask.
_STAMP: Final = f"-s -w -X {_HELM}/internal/version.version={version()}"
HELM: Final = BuiltOnce(
    module=MODULE,
    name="helm",
    program=Program(
        command=("build", "-trimpath", "-mod=readonly", "-buildvcs=false", "-ldflags", _STAMP),
        package=f"{_HELM}/cmd/helm",
    ),
    room="helm",
    title="Helm",
    takes="about two minutes",
    command="python -m tests.charts",
)
