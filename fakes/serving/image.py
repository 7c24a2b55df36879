"""The serving image as a program of this machine: its Dockerfile's variables and entrypoint, with vLLM for CPU.

What differs from the image is in `instead`, and that a model of the Hub is found in the pod's own cache of models,
where a download would have put it: the layout of huggingface_hub, with a tiny model under the large one's name.
"""

import asyncio
import json
import shlex
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from fakes.containers import ConfigError, Image
from fakes.serving.model import make_model

_ROOT: Final = Path(__file__).resolve().parents[2]
_DOCKERFILE: Final = _ROOT / "provisioner" / "serving" / "Dockerfile"
# What the image makes of the program, so that probes and hooks find it by its name.
_SCRIPT: Final = '#!/bin/sh\nexec python3 -m provisioner.serving "$@"\n'
# No model has it: the name of the commit that the tiny weights are of.
_COMMIT: Final = "0" * 40


@dataclass(frozen=True, kw_only=True)
class Dockerfile:
    """What an image says of how it is run."""

    environment: Mapping[str, str]
    entrypoint: tuple[str, ...]
    command: tuple[str, ...]


def read_dockerfile(text: str) -> Dockerfile:
    """Return ENV, ENTRYPOINT and CMD of a Dockerfile; the latter two are JSON."""
    environment: dict[str, str] = {}
    started: dict[str, tuple[str, ...]] = {}
    for line in text.replace("\\\n", " ").splitlines():
        word, _, rest = line.partition(" ")
        if word == "ENV":
            for pair in shlex.split(rest):
                name, _, value = pair.partition("=")
                environment[name] = value
        elif word in ("ENTRYPOINT", "CMD"):
            started[word] = tuple(json.loads(rest))
    return Dockerfile(environment=environment, entrypoint=started.get("ENTRYPOINT", ()), command=started.get("CMD", ()))


class Weights:
    """A tiny model, made once in the background, put in the place of any model of the Hub. Needs a running loop."""

    def __init__(self, directory: Path, *, python: Path) -> None:
        self._directory = directory
        self._made = asyncio.create_task(asyncio.to_thread(make_model, directory, python=python))

    async def fill(self, _root: Path, environment: Mapping[str, str]) -> None:
        """Put it where the container's program looks for its model, unless that is a path. Raises ConfigError."""
        model = environment.get("MODEL", "")
        if not model or model.startswith(("/", ".")):
            return
        try:
            await self._made
        except RuntimeError as error:
            raise ConfigError(str(error)) from error
        revisions = ("main", environment.get("MODEL_REVISION") or "main")
        home = Path(environment["HF_HOME"])
        await asyncio.to_thread(put_into_cache, self._directory, home=home, model=model, revisions=revisions)


def put_into_cache(directory: Path, *, home: Path, model: str, revisions: tuple[str, ...]) -> None:
    """Put a model into a cache of huggingface_hub, as what a download of those revisions would have left."""
    folder = home / "hub" / f"models--{model.replace('/', '--')}"
    shutil.copytree(directory, folder / "snapshots" / _COMMIT, dirs_exist_ok=True)
    for revision in revisions:
        reference = folder / "refs" / revision
        reference.parent.mkdir(parents=True, exist_ok=True)
        reference.write_text(_COMMIT)


def instead(root: Path, address: str) -> Mapping[str, str]:
    """Return the variables that a process has to be told in place of what its container would see."""
    return {
        "PYTHONPATH": str(_ROOT),
        # The program's own names of its mounts, as / is not its own.
        "SERVING_ROOT": str(root),
        # All addresses would be those of the other pods as well.
        "BIND_ADDRESS": address,
        # The cache has what there is; nothing outside of this machine is asked.
        "HF_HUB_OFFLINE": "1",
    }


def serving_image(*, python: Path, folder: Path, weights: Weights) -> Image:
    """Return the image, run by the serving environment's Python; its entrypoint is written to the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    script = folder / "serving"
    script.write_text(_SCRIPT)
    script.chmod(0o755)
    said = read_dockerfile(_DOCKERFILE.read_text())
    return Image(
        entrypoint=said.entrypoint,
        command=said.command,
        environment=said.environment,
        paths=(folder, python.parent),
        instead=instead,
        fill=weights.fill,
    )
