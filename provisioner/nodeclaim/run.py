"""Puts the controller together and runs it until it is told to stop."""

import asyncio
import contextlib
import logging
import random
import signal
import socket
import time
from collections.abc import AsyncIterator, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime
from typing import Any, Final

from provisioner.azure.budget import Wait
from provisioner.azure.connect import connect
from provisioner.azure.session import AzureSession, CallRecord
from provisioner.kube.events import EventRecorder
from provisioner.kube.gateway import Gone, KubeError, KubeGateway
from provisioner.kube.health import HealthServer
from provisioner.kube.metrics import Registry
from provisioner.kube.watch import run_watch
from provisioner.nodeclaim.assembly import Assembly
from provisioner.nodeclaim.controller import run_workers
from provisioner.settings import SettingError, Settings

_log: Final = logging.getLogger(__name__)

# A step in flight ends by itself within one ARM call; what is cut off is found unfinished and done at the next start.
_DRAIN_SECONDS: Final = 8.0
_WATCH_PAUSES: Final = (1.0, 2.0, 5.0, 15.0)
# A watch that lasted this long was no false start: the next one may come at once again.
_WATCH_SOUND: Final = 60.0
_SYNC_PAUSE: Final = 2.0
# An Azure that does not answer at all must not keep claims from being told so.
_FIRST_ANSWER: Final = 5.0


async def run(settings: Settings) -> None:
    """Run the controller until SIGTERM or SIGINT.

    Raises ConfigException (kubernetes) without usable access to a cluster, SettingError where a port is taken.
    """
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    metrics = Registry()
    async with AsyncExitStack() as stack:
        kube = await stack.enter_async_context(KubeGateway())
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
        await _Operation(settings, parts=parts, metrics=metrics).run(stop)


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

    def __init__(self, settings: Settings, *, parts: Assembly, metrics: Registry) -> None:
        self._settings = settings
        self._parts = parts
        self._metrics = metrics

    async def run(self, stop: asyncio.Event) -> None:
        """Run until `stop` is set, then let the steps in flight end."""
        health = HealthServer(
            host=self._settings.bind_address,
            health_port=self._settings.health_port,
            metrics_port=self._settings.metrics_port,
            live=lambda: (),
            ready=self._parts.unready,
            metrics=self._metrics,
        )
        async with _served(health), _background(*self._parts.services()):
            with contextlib.suppress(TimeoutError):
                # For a wrong setting to end the process before anything else has begun.
                async with asyncio.timeout(_FIRST_ANSWER):
                    await self._parts.region.tried.wait()
            if not await self._synchronise(stop):
                return
            workers = asyncio.create_task(run_workers(self._parts.controller, count=self._settings.workers))
            async with _background(self._parts.collector.run()):
                _log.info("controller started", extra={"cluster": self._settings.cluster_name})
                await self._watch(stop)
            _log.info("controller stopping")
            self._parts.queue.shutdown()
            done, _ = await asyncio.wait([workers], timeout=_DRAIN_SECONDS)
            if not done:
                workers.cancel()
                await asyncio.wait([workers])

    async def _synchronise(self, stop: asyncio.Event) -> bool:
        """Read Nodes and claims once before anything is decided. Returns False where we were stopped meanwhile."""
        while not stop.is_set():
            try:
                await self._parts.collector.synchronise()
            except Gone:
                # The watch serves the CRD as soon as it is installed.
                _log.warning("the NodeClaim CRD is not installed; waiting for it")
                return True
            except KubeError as error:
                _log.warning("the API server does not answer", extra={"error": str(error)})
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_SYNC_PAUSE):
                        await stop.wait()
            else:
                return True
        return False

    async def _watch(self, stop: asyncio.Event) -> None:
        """Watch until stopped; a watch that dies is started anew, since what it missed is found by the full lists."""
        falls = 0
        while not stop.is_set():
            started = time.monotonic()
            try:
                await run_watch(self._parts.watched, stop=stop)
            except Exception:  # noqa: BLE001 -- logged with its traceback; whatever it was, watching must go on
                if stop.is_set():
                    # kopf does not end well in the moments in which it starts; its end is what was asked for.
                    _log.debug("the watch has died at its end", exc_info=True)
                    return
                if time.monotonic() - started > _WATCH_SOUND:
                    falls = 0
                pause = _WATCH_PAUSES[min(falls, len(_WATCH_PAUSES) - 1)]
                falls += 1
                _log.exception("the watch has died; it is started anew", extra={"pause_seconds": pause})
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(pause):
                        await stop.wait()


@asynccontextmanager
async def _served(health: HealthServer) -> AsyncIterator[None]:
    try:
        await health.__aenter__()
    except OSError as error:
        raise SettingError(f"HEALTH_PROBE_PORT, METRICS_PORT or BIND_ADDRESS cannot be used: {error}") from error
    try:
        yield
    finally:
        await health.__aexit__(None, None, None)


@asynccontextmanager
async def _background(*coroutines: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Run loops beside the body; one that ends or dies takes the process down, for nobody would notice otherwise."""
    me = asyncio.current_task()
    failures: list[BaseException] = []

    def ended(task: asyncio.Task[None]) -> None:
        if not task.cancelled() and me is not None and not me.done():
            failures.append(task.exception() or RuntimeError(f"{task.get_coro()} has ended"))
            me.cancel()

    tasks = [asyncio.create_task(coroutine) for coroutine in coroutines]
    for task in tasks:
        task.add_done_callback(ended)
    try:
        yield
    except asyncio.CancelledError:
        if failures:
            raise failures[0] from None
        raise
    finally:
        for task in tasks:
            task.remove_done_callback(ended)
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
