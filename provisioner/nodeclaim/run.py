"""Puts the controller together and runs it until it is told to stop."""

import asyncio
import contextlib
import logging
import random
import signal
import socket
import time
from collections.abc import AsyncIterator, Coroutine, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from provisioner.azure.agentpools import AgentPools
from provisioner.azure.budget import Wait
from provisioner.azure.connect import connect
from provisioner.azure.inventory import Inventory
from provisioner.azure.prices import Prices
from provisioner.azure.session import AzureSession, CallRecord
from provisioner.azure.skus import SkuCatalogue
from provisioner.azure.usages import Usages
from provisioner.kube.events import EventRecorder
from provisioner.kube.gateway import Gone, KubeError, KubeGateway
from provisioner.kube.health import HealthServer
from provisioner.kube.metrics import Registry
from provisioner.kube.queue import WorkQueue
from provisioner.kube.store import Store
from provisioner.kube.watch import Callbacks, run_watch
from provisioner.nodeclaim.actuator import Actuator
from provisioner.nodeclaim.asks import Asks
from provisioner.nodeclaim.collector import Collector
from provisioner.nodeclaim.controller import Controller, Key, run_workers
from provisioner.nodeclaim.delays import SizeDelays
from provisioner.nodeclaim.metrics import ClaimMetrics
from provisioner.nodeclaim.quotas import Quotas
from provisioner.nodeclaim.region import Region
from provisioner.nodeclaim.view import Timeouts
from provisioner.placement.memory import OfferMemory
from provisioner.settings import SettingError, Settings

_log: Final = logging.getLogger(__name__)

# A step in flight ends by itself within one ARM call; what is cut off is found unfinished and done at the next start.
_DRAIN_SECONDS: Final = 8.0
_WATCH_PAUSES: Final = (1.0, 2.0, 5.0, 15.0)
# A watch that lasted this long was no false start: the next one may come at once again.
_WATCH_SOUND: Final = 60.0
_SYNC_PAUSE: Final = 2.0
# Only the API server's refusals are retried by the queue, Azure's have a policy of their own. An API server is back
# within minutes, and nobody wants claims to wait on longer than it was away.
_RETRY_CAP: Final = 30.0
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
        await _Operation(settings, kube=kube, recorder=recorder, session=session, metrics=metrics).run(stop)


def _now() -> datetime:
    return datetime.now(UTC)


def _limit(seconds: float) -> timedelta | None:
    return timedelta(seconds=seconds) if seconds else None


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
    """The parts and how they hang together."""

    def __init__(
        self,
        settings: Settings,
        *,
        kube: KubeGateway,
        recorder: EventRecorder,
        session: AzureSession,
        metrics: Registry,
    ) -> None:
        self._settings = settings
        self._metrics = metrics
        rng = random.Random()  # noqa: S311 -- spreads retries, guards nothing
        self._store = Store()
        self._queue: WorkQueue[Key] = WorkQueue(rng=rng, retry_cap=_RETRY_CAP, metrics=metrics)
        self._arm = AgentPools(session)
        self._inventory = Inventory(
            self._arm,
            clock=time.monotonic,
            busy=lambda: self._controller.is_busy(),
            on_change=lambda pools: self._controller.on_pools(pools),
            busy_interval=settings.busy_interval,
            idle_interval=settings.idle_interval,
        )
        self._region = Region(
            arm=self._arm,
            sizes_of=lambda location: SkuCatalogue(session, location=location, clock=time.monotonic),
            prices_of=lambda location: Prices(location=location, endpoint=settings.price_list, clock=time.monotonic),
            on_news=lambda: self._controller.look_at_all(),
        )
        memory, asks = OfferMemory(capacity=timedelta(seconds=settings.capacity_retry)), Asks()
        delays = SizeDelays(on_forgotten=lambda: self._controller.look_at_waiting())

        async def usages() -> Usages:
            await self._region.located.wait()
            return Usages(session, location=self._region.location, clock=time.monotonic)

        self._quotas = Quotas(
            reader=usages,
            clock=time.monotonic,
            now=_now,
            on_news=lambda: self._controller.look_at_waiting(),
            on_freed=lambda usage: memory.forget(lambda shortage: shortage.usage == usage, as_of=_now()),
            interval=settings.quota_interval,
            metrics=metrics,
        )
        claim_metrics = ClaimMetrics(metrics, claims=lambda: self._store.claims, now=_now)
        self._actuator = Actuator(
            kube=kube,
            store=self._store,
            arm=self._arm,
            notes=self._inventory,
            recorder=recorder,
            memory=memory,
            asks=asks,
            delays=delays,
            quotas=self._quotas,
            now=_now,
            rng=rng,
            metrics=metrics,
            claim_metrics=claim_metrics,
        )
        self._controller = Controller(
            kube=kube,
            store=self._store,
            queue=self._queue,
            inventory=self._inventory,
            actuator=self._actuator,
            region=self._region,
            quotas=self._quotas,
            memory=memory,
            asks=asks,
            delays=delays,
            now=_now,
            metrics=metrics,
            wait_for_gpus=settings.wait_for_gpus,
            timeouts=Timeouts(
                launch=_limit(settings.launch_timeout), registration=_limit(settings.registration_timeout)
            ),
        )
        self._collector = Collector(
            kube=kube,
            store=self._store,
            arm=self._arm,
            inventory=self._inventory,
            recorder=recorder,
            enqueue=self._controller.enqueue,
            enqueue_claims_of=self._controller.enqueue_claims_of,
            relist_node_classes=self._controller.relist_node_classes,
            metrics=metrics,
            claim_metrics=claim_metrics,
            subscription_id=settings.subscription_id,
            interval=settings.garbage_interval,
        )

    async def run(self, stop: asyncio.Event) -> None:
        """Run until `stop` is set, then let the steps in flight end."""
        health = HealthServer(
            host=self._settings.bind_address,
            health_port=self._settings.health_port,
            metrics_port=self._settings.metrics_port,
            live=lambda: (),
            ready=self._unready,
            metrics=self._metrics,
        )
        async with _served(health), _background(self._region.run(), self._quotas.run(), self._inventory.run()):
            with contextlib.suppress(TimeoutError):
                # For a wrong setting to end the process before anything else has begun.
                async with asyncio.timeout(_FIRST_ANSWER):
                    await self._region.tried.wait()
            if not await self._synchronise(stop):
                return
            workers = asyncio.create_task(run_workers(self._controller, count=self._settings.workers))
            async with _background(self._collector.run()):
                _log.info("controller started", extra={"cluster": self._settings.cluster_name})
                await self._watch(stop)
            _log.info("controller stopping")
            self._queue.shutdown()
            done, _ = await asyncio.wait([workers], timeout=_DRAIN_SECONDS)
            if not done:
                workers.cancel()
                await asyncio.wait([workers])

    def _unready(self) -> Iterable[str]:
        """Return why the controller cannot do its work yet."""
        if not self._store.synced:
            yield "Nodes and NodeClaims have not been listed yet; is the NodeClaim CRD installed?"
        if self._inventory.listed_at is None:
            failure = self._inventory.failure
            yield f"agent pools have not been listed yet{': ' + failure.message if failure else ''}"

    async def _synchronise(self, stop: asyncio.Event) -> bool:
        """Read Nodes and claims once before anything is decided. Returns False where we were stopped meanwhile."""
        while not stop.is_set():
            try:
                await self._collector.synchronise()
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
        callbacks = Callbacks(
            on_claim=self._controller.on_claim,
            on_node=self._controller.on_node,
            on_node_class=self._controller.on_node_class,
        )
        falls = 0
        while not stop.is_set():
            started = time.monotonic()
            try:
                await run_watch(callbacks=callbacks, stop=stop)
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
