"""One pod: volumes, then init containers one after the other, then its containers side by side."""

import asyncio
import logging
import math
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from fakes.containers import volumes
from fakes.containers.container import Container
from fakes.containers.image import Image
from fakes.containers.process import guarded
from fakes.containers.spec import ConfigError, References
from fakes.containers.timing import Timing
from fakes.nodes.api import TRANSIENT, Object, uid_of
from fakes.nodes.running import ContainerRun, PodRun, Read

logger = logging.getLogger(__name__)

# Seconds in which a grace period that has been cut short is noticed.
_NOTICE: Final = 0.2


class ProcessPod:
    """A pod that runs from the moment it is made. Its files are in `folder`, its logs in `logs`."""

    def __init__(
        self,
        pod: Object,
        *,
        images: Mapping[str, Image],
        address: str,
        folder: Path,
        logs: Path,
        read: Read,
        timing: Timing,
        on_change: Callable[[], None],
    ) -> None:
        self._pod = pod
        self._folder = folder
        self._timing = timing
        self._on_change = on_change
        self._references = References(pod["metadata"]["namespace"], read)
        self._missing = ""
        self._deadline = math.inf
        self._stopping = asyncio.Event()

        def make(container: Object, policy: str) -> Container:
            return Container(
                container,
                pod=pod,
                image=images[container["image"]],
                policy=policy,
                folder=folder,
                log=logs / f"{container['name']}.log",
                address=address,
                references=self._references,
                timing=timing,
                on_change=on_change,
            )

        policy = pod["spec"].get("restartPolicy", "Always")
        # One that has done its work is done, whatever the policy of the pod.
        first = "Never" if policy == "Never" else "OnFailure"
        self._init = [make(one, first) for one in pod["spec"].get("initContainers") or ()]
        self._containers = [make(one, policy) for one in pod["spec"]["containers"]]
        logs.mkdir(parents=True, exist_ok=True)
        self._task = asyncio.create_task(self._live(), name=f"pod {pod['metadata']['name']}")
        self._task.add_done_callback(self._over)

    def look(self) -> PodRun:
        """Return how it stands."""
        runs = [one.run for one in self._containers]
        if self._missing:
            waiting: Object = {"waiting": {"reason": "ContainerCreating", "message": self._missing}}
            runs = [ContainerRun(name=run.name, state=waiting) for run in runs]
        return PodRun(containers=tuple(runs), init_containers=tuple(one.run for one in self._init))

    @property
    def ended(self) -> bool:
        """Whether nothing of it runs or will run any more."""
        return self._task.done()

    def stop(self, *, grace: float) -> None:
        """Have it end within so many seconds; the shortest that was ever asked for counts."""
        self._deadline = min(self._deadline, time.monotonic() + grace)
        self._stopping.set()

    async def kill(self) -> None:
        """End it without a word, and return once nothing of it runs."""
        self.stop(grace=0)
        await asyncio.gather(self._task, return_exceptions=True)

    def _over(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.error("pod %s is not looked after any more", self._pod["metadata"]["name"], exc_info=error)
        self._on_change()

    async def _live(self) -> None:
        async with guarded(f"{uid_of(self._pod)}-"):
            await self._live_guarded()

    async def _live_guarded(self) -> None:
        life = asyncio.create_task(self._run())
        told = asyncio.create_task(self._stopping.wait())
        try:
            await asyncio.wait({life, told}, return_when=asyncio.FIRST_COMPLETED)
            if not life.done():
                await self._stop()
            await life
        finally:
            told.cancel()

    async def _run(self) -> None:
        if not await self._fill():
            return
        for one in self._init:
            await one.live()
            if not one.run.succeeded:
                return
        async with asyncio.TaskGroup() as tasks:
            for one in self._containers:
                tasks.create_task(one.live())

    async def _fill(self) -> bool:
        while not self._stopping.is_set():
            try:
                await volumes.fill(self._pod, self._folder / "volumes", references=self._references)
            except ConfigError as error:
                self._missing = str(error)
            except TRANSIENT:
                self._missing = "the API server does not answer"
            else:
                self._missing = ""
                return True
            self._on_change()
            self._references.forget()
            await asyncio.sleep(self._timing.retry)
        return False

    async def _stop(self) -> None:
        everything = [*self._init, *self._containers]
        grace = max(self._deadline - time.monotonic(), 0)
        stopping = asyncio.gather(*(one.stop(grace=grace) for one in everything))
        while not stopping.done():
            await asyncio.wait({stopping}, timeout=_NOTICE)
            if time.monotonic() > self._deadline:
                # Over, or cut short by whoever deleted it again with less.
                await asyncio.gather(*(one.kill() for one in everything))
                break
        await stopping
