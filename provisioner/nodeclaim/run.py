"""Puts the controller together and runs it until it is told to stop."""

import asyncio
import contextlib
import logging
import random
import signal
import socket
import time
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from typing import Final

from provisioner.apis import names
from provisioner.azure.budget import Wait
from provisioner.azure.connect import connect
from provisioner.azure.session import AzureSession, CallRecord
from provisioner.kube.events import EventRecorder
from provisioner.kube.gateway import KubeGateway
from provisioner.kube.health import HealthServer
from provisioner.kube.leading import leading
from provisioner.kube.metrics import Registry
from provisioner.kube.objects import Objects
from provisioner.kube.running import background, first_lists, keep_watching, served
from provisioner.kube.transport import Transport
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
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    metrics = Registry()
    async with AsyncExitStack() as stack:
        transport = await stack.enter_async_context(Transport())
        kube = KubeGateway(transport=transport)
        recorder = await stack.enter_async_context(EventRecorder(kube, clock=_now, instance=socket.gethostname()))
        session = await stack.enter_async_context(_session(settings, metrics))
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
        await _Operation(settings, parts=parts, objects=Objects(transport), metrics=metrics).run(stop)


def _now() -> datetime:
    return datetime.now(UTC)


def _session(settings: Settings, metrics: Registry) -> AzureSession:
    calls = metrics.counter(
        "gpu_provisioner_arm_calls_total",
        text="Calls to Azure Resource Manager by operation and status.",
        labels=("operation", "status"),
    )
    seconds = metrics.histogram(
        "gpu_provisioner_arm_call_duration_seconds",
        text="Seconds until Azure Resource Manager answered.",
        labels=("operation",),
    )

    waits = metrics.counter(
        "gpu_provisioner_arm_waits_total",
        text="Calls to Azure Resource Manager that were held back: for a Retry-After of Azure's, or by our own budget.",
        labels=("operation", "by"),
    )

    def on_call(call: CallRecord) -> None:
        calls.inc(operation=call.operation, status=str(call.status or call.error))
        seconds.observe(call.seconds, operation=call.operation)
        _log.debug(
            "ARM call",
            extra={
                "operation": call.operation,
                "status": call.status,
                "error": call.error,
                "seconds": round(call.seconds, 3),
                "correlation_id": call.correlation_id,
            },
        )

    def on_wait(operation: str, wait: Wait) -> None:
        waits.inc(operation=operation, by="azure" if wait.by_azure else "own-budget")

    return connect(settings, on_call=on_call, on_wait=on_wait)


class _Operation:
    """One run of the controller in this process."""

    def __init__(self, settings: Settings, *, parts: Assembly, objects: Objects, metrics: Registry) -> None:
        self._settings = settings
        self._parts = parts
        self._objects = objects
        self._metrics = metrics

    async def run(self, stop: asyncio.Event) -> None:
        """Run until `stop` is set, then let the steps in flight end."""
        is_waiting = self._settings.leader_election
        health = HealthServer(
            host=self._settings.bind_address,
            health_port=self._settings.health_port,
            metrics_port=self._settings.metrics_port,
            live=lambda: (),
            # Whoever waits for its turn is ready for that.
            ready=lambda: () if is_waiting else self._parts.unready(),
            metrics=self._metrics,
        )
        lead = leading(
            self._settings, objects=self._objects, name=LEASE_NAME, stop=stop, now=_now, metrics=self._metrics
        )
        async with served(health), lead as is_leader:
            is_waiting = False
            if is_leader:
                await self._act(stop)

    async def _act(self, stop: asyncio.Event) -> None:
        async with background(*self._parts.services()):
            with contextlib.suppress(TimeoutError):
                # For a wrong setting to end the process before anything else has begun.
                async with asyncio.timeout(_FIRST_ANSWER):
                    await self._parts.region.tried.wait()
            if not await first_lists(self._parts.collector.synchronise, kind=names.NODECLAIM_KIND, stop=stop):
                return
            workers = asyncio.create_task(run_workers(self._parts.controller, count=self._settings.workers))
            async with background(self._parts.collector.run()):
                _log.info("controller started", extra={"cluster": self._settings.cluster_name})
                await keep_watching(self._parts.watched, stop=stop)
            _log.info("controller stopping")
            self._parts.queue.shutdown()
            done, _ = await asyncio.wait([workers], timeout=_DRAIN_SECONDS)
            if not done:
                workers.cancel()
                await asyncio.wait([workers])
