"""Puts the controller together and runs it until it is told to stop."""

import asyncio
import contextlib
import logging
import random
import socket
import time
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from typing import Final

from provisioner.apis import names
from provisioner.azure.connect import connect
from provisioner.kube.build_info import publish_build
from provisioner.kube.events import EventRecorder
from provisioner.kube.gateway import KubeGateway
from provisioner.kube.health import HealthServer
from provisioner.kube.leading import Leadership
from provisioner.kube.metrics import Registry
from provisioner.kube.objects import Objects
from provisioner.kube.running import background, first_lists, keep_watching, served, stop_on_signals, working
from provisioner.kube.transport import Transport
from provisioner.kube.watchdog import Watchdog
from provisioner.nodeclaim.arm_calls import ArmCalls
from provisioner.nodeclaim.assembly import Assembly
from provisioner.nodeclaim.controller import run_workers
from provisioner.settings import Settings

_log: Final = logging.getLogger(__name__)

LEASE_NAME: Final = "gpu-provisioner"
# A step in flight ends by itself within one ARM call; what is cut off is found unfinished and done at the next start.
_DRAIN_SECONDS: Final = 8.0
# An Azure that does not answer at all must not keep claims from being told so.
_FIRST_ANSWER: Final = 5.0


async def run(settings: Settings) -> None:
    """Run the controller until SIGTERM or SIGINT.

    Raises ConfigException (kubernetes) without usable access to a cluster, SettingError where a port is taken,
    LeadershipLost where another instance has taken over.
    """
    stop = stop_on_signals()
    metrics = Registry()
    publish_build(metrics)
    async with AsyncExitStack() as stack:
        # The Lease has connections of its own: its renewal must not wait until others are free.
        leases = Objects(await stack.enter_async_context(Transport()))
        leadership = Leadership(settings, objects=leases, name=LEASE_NAME, now=_now, metrics=metrics)
        fenced = await stack.enter_async_context(Transport(may_act=leadership.may_act))
        kube = KubeGateway(transport=fenced)
        recorder = await stack.enter_async_context(EventRecorder(kube, clock=_now, instance=socket.gethostname()))
        calls = ArmCalls(metrics)
        session = await stack.enter_async_context(
            connect(settings, on_call=calls.on_call, on_wait=calls.on_wait, may_act=leadership.may_act)
        )
        parts = Assembly(
            settings,
            kube=kube,
            recorder=recorder,
            session=session,
            metrics=metrics,
            monotonic=time.monotonic,
            now=_now,
            rng=random.Random(),  # noqa: S311 -- spreads retries, guards nothing
        )
        operation = _Operation(settings, parts=parts, leadership=leadership, recorder=recorder, metrics=metrics)
        await operation.run(stop)


def _now() -> datetime:
    return datetime.now(UTC)


class _Operation:
    """One run of the controller in this process."""

    def __init__(
        self,
        settings: Settings,
        *,
        parts: Assembly,
        leadership: Leadership,
        recorder: EventRecorder,
        metrics: Registry,
    ) -> None:
        self._settings = settings
        self._parts = parts
        self._leadership = leadership
        self._watchdog = Watchdog()
        self._recorder = recorder
        self._metrics = metrics

    async def run(self, stop: asyncio.Event) -> None:
        """Run until `stop` is set, then let the steps in flight end."""
        leadership = self._leadership
        health = HealthServer(
            host=self._settings.bind_address,
            health_port=self._settings.health_port,
            metrics_port=self._settings.metrics_port,
            live=lambda: (*leadership.stuck(), *self._watchdog.reasons(), *self._parts.stuck()),
            # Whoever waits for its turn is ready for that.
            ready=lambda: leadership.unready() if leadership.is_waiting else self._parts.unready(),
            metrics=self._metrics,
        )
        async with served(health), leadership.acting(stop) as is_leader:
            if is_leader:
                await self._act(stop)
                # Before the Lease is let go: whoever has it next is not to find us writing.
                await self._recorder.close()

    async def _act(self, stop: asyncio.Event) -> None:
        async with background(*self._parts.services()):
            with contextlib.suppress(TimeoutError):
                # For a wrong setting to end the process before anything else has begun.
                async with asyncio.timeout(_FIRST_ANSWER):
                    await self._parts.region.tried.wait()
            if not await first_lists(self._parts.collector.synchronise, kind=names.NODECLAIM_KIND, stop=stop):
                return
            workers = run_workers(self._parts.controller, count=self._settings.workers)
            async with working(workers, shut_down=self._parts.queue.shutdown, seconds=_DRAIN_SECONDS):
                async with background(self._parts.collector.run()):
                    _log.info("controller started", extra={"cluster": self._settings.cluster_name})
                    await keep_watching(self._parts.watched, stop=stop, watchdog=self._watchdog)
                _log.info("controller stopping")
