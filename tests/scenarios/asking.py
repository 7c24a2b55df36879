"""The commands for people, each as a process of its own, told by its environment where the fakes are."""

import asyncio
import json
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from fakes.aks import FakeAks

ROOT: Final = Path(__file__).parents[2]
PATIENCE: Final = 60.0


@dataclass(frozen=True)
class Ended:
    """How a command has ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """Return what it has written as JSON."""
        return json.loads(self.out)

    @property
    def rows(self) -> dict[str, list[str]]:
        """Return the words of each line by the first of them."""
        return {line.split()[0]: line.split() for line in self.out.splitlines() if line.strip()}


def environment(aks: FakeAks, **settings: str) -> dict[str, str]:
    """Return the variables by which a command finds this AKS and its price list."""
    return {"PATH": os.environ["PATH"], "PRICING_ENDPOINT": aks.azure.endpoint, **aks.environment(), **settings}


async def start(env: Mapping[str, str], *arguments: str, stdin: bytes | None = None) -> asyncio.subprocess.Process:
    """Start a command."""
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "provisioner", *arguments),
        cwd=ROOT,
        env=dict(env),
        stdin=asyncio.subprocess.DEVNULL if stdin is None else asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )


async def ask(aks: FakeAks, *arguments: str, stdin: str | None = None, **settings: str) -> Ended:
    """Run a command to its end."""
    given = None if stdin is None else stdin.encode()
    process = await start(environment(aks, **settings), *arguments, stdin=given)
    async with asyncio.timeout(PATIENCE):
        out, err = await process.communicate(given)
    assert process.returncode is not None
    return Ended(process.returncode, out.decode(), err.decode())


def assert_told(ended: Ended, code: int, *parts: str) -> None:
    """Expect one line on standard error that says so, and nothing else."""
    (line,) = ended.err.splitlines()
    assert line.startswith("provisioner: ")
    for part in parts:
        assert part in line
    assert (ended.code, ended.out) == (code, "")
