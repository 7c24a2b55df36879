"""The steps of a Dockerfile, carried out in a folder instead of an image.

Paths of the image are those of the folder: /opt/provisioner is FOLDER/opt/provisioner. The base image's Python is a
copy of this one, in FOLDER/usr/local, so that any user can read it. ARGs have their defaults unless they are given.
"""

import os
import re
import shutil
import stat
import subprocess
import sys
import sysconfig
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final

from tests.image.dockerfile import ROOT, Dockerfile, Instruction, context

# What a path of the image begins with; all else is of the machine that this runs on.
_OURS: Final = re.compile(r"(?<![\w./}-])/(?:src|opt/provisioner|usr/local)\b")
_WRITABLE: Final = stat.S_IWUSR | stat.S_IWGRP | stat.S_IWOTH


class Replay:
    """One build: after `run`, `environment` and `user` are those that the image is run with."""

    def __init__(self, folder: Path, *, arguments: Mapping[str, str]) -> None:
        """Take an empty folder, and what `docker build` would be given by --build-arg."""
        self._folder = folder
        self._given = {str(path) for path in context()}
        self._arguments = arguments
        self.environment: dict[str, str] = {}
        self.user = ""

    def path(self, text: str) -> str:
        """Return a text of the image with its paths as those of the folder."""
        return _OURS.sub(lambda match: f"{self._folder}{match[0]}", text)

    def run(self, dockerfile: Dockerfile) -> None:
        """Carry out all stages. They share the folder: what a later one takes from an earlier one is there already."""
        copy_python(self._folder / "usr" / "local")
        preamble = self._variables(dockerfile.preamble)
        for stage in dockerfile.stages:
            variables, self.environment = dict(preamble), {}
            for instruction in stage:
                if instruction.name == "ARG":
                    variables |= self._variables([instruction])
                elif instruction.name == "ENV":
                    for word in instruction.words:
                        name, _, value = word.partition("=")
                        self.environment[name] = self.path(_filled(value, variables))
                elif instruction.name == "RUN":
                    self._run(instruction, variables)
                elif instruction.name == "COPY":
                    self._copy(instruction)
                elif instruction.name == "USER":
                    self.user = instruction.text
        # What the image alone does not have.
        shutil.rmtree(self._folder / "src")
        for path in [self._folder, *self._folder.rglob("*")]:
            if not path.is_symlink():
                path.chmod(path.stat().st_mode & ~_WRITABLE)

    def _variables(self, instructions: Iterable[Instruction]) -> dict[str, str]:
        pairs = (each.text.partition("=") for each in instructions if each.name == "ARG")
        return {name: self._arguments.get(name, default) for name, _, default in pairs}

    def _run(self, instruction: Instruction, variables: Mapping[str, str]) -> None:
        step = self.path(instruction.text)
        sys.stdout.write(f"+ {step}\n")
        sys.stdout.flush()
        # What the machine needs to reach its package index comes along; PATH is the base image's.
        path = f"{self._folder}/usr/local/bin:/usr/bin:/bin"
        subprocess.run(
            ["/bin/sh", "-euc", step],
            check=True,
            cwd="/",
            env={**os.environ, "LD_LIBRARY_PATH": self.libraries, "PATH": path, **variables, **self.environment},
        )

    @property
    def libraries(self) -> str:
        """Return where the copy of libpython lies: it would be looked for where this Python was built for."""
        return f"{self._folder}/usr/local/lib"

    def _copy(self, instruction: Instruction) -> None:
        *sources, target = instruction.words
        if sources[0].startswith("--from="):
            return
        for source in sources:
            self._copy_one(source, Path(self.path(target)), into=target.endswith("/") or len(sources) > 1)

    def _copy_one(self, source: str, target: Path, *, into: bool) -> None:
        files = sorted(path for path in self._given if path == source or path.startswith(f"{source}/"))
        if not files:
            raise SystemExit(f"COPY {source}: the build is not given it")
        for name in files:
            # A directory is copied as what is in it, a file into a directory under its own name.
            inside = Path(name).relative_to(source) if name != source else Path(Path(name).name if into else "")
            to = target / inside
            to.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, to)


def copy_python(target: Path) -> None:
    """Copy this Python with pip and setuptools, and with nothing else that was installed into it."""
    prefix = Path(sys.base_prefix)
    library = Path(sysconfig.get_path("stdlib"))
    name = f"python{sysconfig.get_python_version()}"

    def ignored(directory: str, names: list[str]) -> Sequence[str]:
        if Path(directory).name == "site-packages":
            return [
                each
                for each in names
                if not re.match(r"(?:pip|setuptools|wheel|_distutils_hack|pkg_resources)\b", each)
            ]
        return [each for each in names if each in ("__pycache__", "test", "tests") or each.startswith("config-")]

    shutil.copytree(library, target / "lib" / name, symlinks=True, ignore=ignored)
    (target / "bin").mkdir()
    shutil.copy(prefix / "bin" / name, target / "bin" / name)
    (target / "bin" / "python3").symlink_to(name)
    for shared in prefix.glob("lib/libpython3*.so*"):
        shutil.copy(shared, target / "lib", follow_symlinks=False)


def _filled(text: str, variables: Mapping[str, str]) -> str:
    return re.sub(r"\$\{(\w+)\}", lambda match: variables[match[1]], text)
