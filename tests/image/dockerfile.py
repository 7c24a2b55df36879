"""A Dockerfile, read; and which files of the repository its build is given."""

import re
import shlex
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from typing import Final, Self

ROOT: Final = Path(__file__).resolve().parents[2]
DOCKERFILE: Final = ROOT / "provisioner" / "Dockerfile"
_GLOBSTAR: Final = "**/"


@dataclass(frozen=True, kw_only=True)
class Instruction:
    """One instruction: `COPY`, and what follows it on one line."""

    name: str
    text: str

    @property
    def words(self) -> list[str]:
        """Return what follows, word by word and without quotes."""
        return shlex.split(self.text)


@dataclass(frozen=True, kw_only=True)
class Dockerfile:
    """The instructions before the first FROM, and those of each stage with its FROM in front."""

    preamble: Sequence[Instruction]
    stages: Sequence[Sequence[Instruction]]

    @classmethod
    def read(cls, path: Path = DOCKERFILE) -> Self:
        """Read a file. Comments and continued lines are as https://docs.docker.com/reference/dockerfile/ has them."""
        text = "\n".join(line for line in path.read_text().splitlines() if not line.lstrip().startswith("#"))
        lines = (line for line in re.sub(r"\\\n\s*", "", text).splitlines() if line.strip())
        preamble: list[Instruction] = []
        stages: list[list[Instruction]] = []
        for line in lines:
            name, _, rest = line.partition(" ")
            if name == "FROM":
                stages.append([])
            (stages[-1] if stages else preamble).append(Instruction(name=name, text=rest))
        return cls(preamble=preamble, stages=stages)

    def every(self, name: str) -> list[Instruction]:
        """Return the instructions of that name, of all stages."""
        return [each for stage in (self.preamble, *self.stages) for each in stage if each.name == name]


def context(dockerfile: Path = DOCKERFILE) -> Iterator[PurePosixPath]:
    """Return the files that the build is given: what git knows or would take, and the ignore file lets pass."""
    rules = [line.strip() for line in Path(f"{dockerfile}.dockerignore").read_text().splitlines() if line.strip()]
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    for name in sorted(set(listed.splitlines())):
        path = PurePosixPath(name)
        if (ROOT / path).is_file() and not _is_ignored(path, rules):
            yield path


def _is_ignored(path: PurePosixPath, rules: Sequence[str]) -> bool:
    """Tell by https://docs.docker.com/build/concepts/context/#dockerignore-files: the last rule that matches counts."""
    ignored = False
    for rule in rules:
        if any(_matches(part, rule.removeprefix("!")) for part in (path, *path.parents)):
            ignored = not rule.startswith("!")
    return ignored


def _matches(path: PurePosixPath, rule: str) -> bool:
    if rule.startswith(_GLOBSTAR):
        tail = rule.removeprefix(_GLOBSTAR)
        return any(_matches(PurePosixPath(*path.parts[start:]), tail) for start in range(len(path.parts)))
    wanted = rule.split("/")
    return len(wanted) == len(path.parts) and all(map(fnmatchcase, path.parts, wanted))
