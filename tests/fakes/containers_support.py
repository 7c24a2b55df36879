"""Pods of the fake container runtime for its tests: programs of a shell, at addresses of their own."""

import asyncio
import base64
import functools
import ipaddress
import secrets
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from fakes.containers import NETWORK, Image, ProcessRunner, Timing
from fakes.nodes.api import ApiError, Object
from fakes.nodes.running import ContainerRun, PodRun, RunningPod

IMAGE = "registry.invalid/shell:1"
QUICK = Timing(back_off=0.05, longest=0.1, good_run=60, retry=0.02, least=0.05)
# Seconds until a condition that never comes fails its test.
PATIENCE = 20.0
POLL = 0.02


def container(script: str, *, name: str = "main", **fields: Any) -> Object:
    # The shell is to see its dollars, which a kubelet looks at first.
    return {"name": name, "image": IMAGE, "command": ["sh", "-c", script.replace("$", "$$")], **fields}


def pod(*containers: Object, metadata: Mapping[str, Any] | None = None, **spec: Any) -> Object:
    return {
        "metadata": {"name": "pod-0", "namespace": "default", "uid": secrets.token_hex(8), **(metadata or {})},
        "spec": {"restartPolicy": "Always", "containers": list(containers), **spec},
        "status": {},
    }


class Api:
    """The Secrets and ConfigMaps that there are; they may be changed at any time."""

    def __init__(self) -> None:
        self.objects: dict[str, Object] = {}
        self.reads: list[str] = []

    def config_map(self, name: str, **data: str) -> None:
        self.objects[f"/api/v1/namespaces/default/configmaps/{name}"] = {"data": data}

    def secret(self, name: str, **data: str) -> None:
        encoded = {key: base64.b64encode(value.encode()).decode() for key, value in data.items()}
        self.objects[f"/api/v1/namespaces/default/secrets/{name}"] = {"data": encoded}

    async def read(self, path: str) -> Object:
        self.reads.append(path)
        if path not in self.objects:
            raise ApiError(404, "NotFound", path)
        return self.objects[path]


class Pods:
    """Starts pods; what they leave is in `folder`."""

    def __init__(self, folder: Path, **image: Any) -> None:
        self.api = Api()
        self.address = _address()
        self._folder = folder
        self._started: list[Started] = []
        paths = (Path(sys.executable).parent,)
        images = {IMAGE: Image(**{"entrypoint": ("sh",), "paths": paths, **image})}
        self._runner = ProcessRunner(images, folder=folder / "pods", logs=folder / "logs", timing=QUICK)

    def start(self, raw: Object) -> "Started":
        log = functools.partial(self._runner.log_of, "default", raw["metadata"]["name"])
        started = Started(
            lambda on_change: self._runner.start(raw, address=self.address, read=self.api.read, on_change=on_change),
            log=log,
        )
        self._started.append(started)
        return started

    def file(self, path: str) -> Path:
        """Return where a file in a volume of the only pod is; its path begins with the volume."""
        (folder,) = (self._folder / "pods").iterdir()
        return folder / "volumes" / path

    async def close(self) -> None:
        for started in self._started:
            await started.pod.kill()


class Started:
    """A pod that runs, and all that was told of it; `happened` has each look once."""

    def __init__(self, start: Callable[[Callable[[], None]], RunningPod], *, log: Callable[[str], Path]) -> None:
        self.happened: list[PodRun] = []
        self._news = asyncio.Event()
        self._log = log
        self.pod = start(self._changed)

    def _changed(self) -> None:
        self._news.set()
        self.happened.append(self.pod.look())

    async def until(self, check: Callable[[PodRun], bool]) -> PodRun:
        """Return how it stands as soon as that is so."""
        async with asyncio.timeout(PATIENCE):
            while not check(run := self.pod.look()):
                self._news.clear()
                await self._news.wait()
        return run

    async def until_main(self, check: Callable[[ContainerRun], bool]) -> ContainerRun:
        return (await self.until(lambda run: check(run.containers[0]))).containers[0]

    async def until_ended(self) -> PodRun:
        return await self.until(lambda _: self.pod.ended)

    async def until_log(self, text: str, *, of: str = "main") -> str:
        """Return the log of a container as soon as the text is in it."""
        async with asyncio.timeout(PATIENCE):
            while True:
                if text in (found := self.log(of)):
                    return found
                await asyncio.sleep(POLL)

    def log(self, of: str = "main") -> str:
        path = self._log(of)
        return path.read_text() if path.exists() else ""


def exit_code(run: ContainerRun) -> int | None:
    """Return the exit code of a container that has ended."""
    code: int | None = run.state.get("terminated", {}).get("exitCode")
    return code


def _address() -> str:
    network = ipaddress.ip_network(NETWORK)
    return str(network[1 + secrets.randbelow(network.num_addresses - 2)])
