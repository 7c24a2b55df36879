"""One run of the controller in the simulation: put together as in production, on simulated ways out."""

import asyncio
import contextlib
import math
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Final

from provisioner.azure.caller import Caller
from provisioner.kube.events import EventRecorder
from provisioner.kube.gateway import Gone, KubeError, KubeGateway
from provisioner.kube.metrics import Registry
from provisioner.kube.transport import Requests
from provisioner.nodeclaim.assembly import Assembly
from provisioner.nodeclaim.controller import run_workers
from provisioner.settings import Settings
from tests.chaos.apiserver import ApiServer
from tests.chaos.arm import Arm
from tests.chaos.loop import Life
from tests.chaos.watches import Watches
from tests.chaos.world import World

_FIRST_ANSWER: Final = 5.0
_SYNC_PAUSE: Final = 2.0
_DRAIN_SECONDS: Final = 8.0


@dataclass(frozen=True, kw_only=True)
class Flaw:
    """What is wrong with the controller on purpose: with its ways out, or that it collects no garbage."""

    kube: Callable[[Requests], Requests] = lambda connection: connection
    arm: Callable[[Caller], Caller] = lambda session: session
    collects: bool = True


FLAWLESS: Final = Flaw()


class Program:
    """A process of the controller: started, and then stopped or killed."""

    def __init__(
        self, world: World, server: ApiServer, arm: Arm, *, settings: Settings, number: int, flaw: Flaw
    ) -> None:
        self._world = world
        self._settings = settings
        self.life = Life(number)
        self.watches = Watches(world, server.objects, self.life)
        self._collects = flaw.collects
        self._connection = flaw.kube(server.connect(self.life))
        self._session = flaw.arm(arm.connect(self.life, share=settings.request_share))
        self._stop: asyncio.Event | None = None
        self.parts: Assembly | None = None
        self.has_ended = False

    @property
    def runs(self) -> bool:
        """Tell whether it has been started and has not come to its end."""
        return self.life.is_alive and not self.has_ended

    def start(self) -> None:
        """Begin."""
        self._world.trace(f"controller{self.life.number}", "starts")
        task = self._world.loop.create_task(self._main(), context=self._world.loop.within(self.life))
        task.add_done_callback(self._ended, context=self._world.loop.within(self.life))

    def stop(self) -> None:
        """Ask it to end, as SIGTERM does."""
        self._world.trace(f"controller{self.life.number}", "is asked to stop")
        if self._stop is not None:
            self._stop.set()

    def kill(self) -> None:
        """End it, as SIGKILL does."""
        if self.life.is_alive:
            self._world.trace(f"controller{self.life.number}", "is killed")
        self.life.is_alive = False

    def _ended(self, task: "asyncio.Task[None]") -> None:
        self.has_ended = True
        error = None if task.cancelled() else task.exception()
        if error is not None:
            self._world.violate(f"the controller has died: {error!r}")
        self._world.trace(f"controller{self.life.number}", "has ended")

    async def _main(self) -> None:
        stop = self._stop = asyncio.Event()
        metrics, loop = Registry(), self._world.loop
        gateway = KubeGateway(transport=self._connection)
        async with gateway, EventRecorder(gateway, clock=self._world.now, instance="provisioner") as recorder:
            parts = self.parts = Assembly(
                self._settings,
                kube=gateway,
                recorder=recorder,
                session=self._session,
                metrics=metrics,
                monotonic=loop.time,
                now=self._world.now,
                rng=self._world.dice(f"controller {self.life.number}").rng,
                # A wake-up that is lost is to be found, and not to be made up for.
                look_again=math.inf,
            )
            services = [self._service(each) for each in parts.services()]
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_FIRST_ANSWER):
                    await parts.region.tried.wait()
            await self._synchronise(parts, stop)
            workers = loop.create_task(run_workers(parts.controller, count=self._settings.workers))
            if self._collects:
                services.append(self._service(parts.collector.run()))
            self.watches.start(parts.watched)
            await stop.wait()
            self.watches.stop()
            parts.queue.shutdown()
            done, _ = await asyncio.wait([workers], timeout=_DRAIN_SECONDS)
            for task in (*services, *(() if done else (workers,))):
                task.cancel()
                await asyncio.wait([task])

    async def _synchronise(self, parts: Assembly, stop: asyncio.Event) -> None:
        while not stop.is_set():
            try:
                await parts.collector.synchronise()
            except Gone:
                return
            except KubeError:
                await asyncio.sleep(_SYNC_PAUSE)
            else:
                return

    def _service(self, coroutine: Coroutine[Any, Any, None]) -> "asyncio.Task[None]":
        task: asyncio.Task[None] = self._world.loop.create_task(coroutine)
        task.add_done_callback(self._service_ended)
        return task

    def _service_ended(self, task: "asyncio.Task[None]") -> None:
        if not task.cancelled():
            self._world.violate(f"{task.get_coro()!r} has ended: {task.exception()!r}")
