"""GopherLua, which Argo CD runs health checks with: built from the Go module that `gomodule` pins."""

from pathlib import Path
from typing import Final

from fakes.cluster.built_once import BuiltOnce
from fakes.cluster.workshop import Program

LUA: Final = BuiltOnce(
    module=Path(__file__).with_name("gomodule"),
    name="glua",
    program=Program(
        command=("build", "-trimpath", "-mod=readonly", "-buildvcs=false"),
        package="github.com/yuin/gopher-lua/cmd/glua",
    ),
    room="lua",
    title="GopherLua",
    takes="seconds",
    command="python -m tests.argocd",
)
