"""Puts the Workspace controller together and runs it until it is told to stop."""

import asyncio
import logging
import random
import socket
from collections.abc import Iterable
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from typing import Final

from provisioner.apis import names
from provisioner.kube.build_info import publish_build
from provisioner.kube.errors import Gone, KubeError
from provisioner.kube.events import EventRecorder
from provisioner.kube.gateway import KubeGateway
from provisioner.kube.health import HealthServer
from provisioner.kube.leading import Leadership
from provisioner.kube.metrics import Registry
from provisioner.kube.objects import Objects
from provisioner.kube.queue import WorkQueue
from provisioner.kube.running import background, first_lists, keep_watching, served, stop_on_signals, working
from provisioner.kube.transport import Transport
from provisioner.kube.watch import Watched
from provisioner.kube.watchdog import Watchdog, stuck_workers
from provisioner.placement.sizes import KnownSizes, NothingListed
from provisioner.workspace.actuator import Actuator
from provisioner.workspace.controller import Controller, run_workers
from provisioner.workspace.hub import Hub
from provisioner.workspace.settings import WorkspaceSettings
from provisioner.workspace.store import Store
from provisioner.workspace.view import Serving

_log: Final = logging.getLogger(__name__)

LEASE_NAME: Final = "gpu-provisioner-workspace"
_DRAIN_SECONDS: Final = 5.0
_RETRY_CAP: Final = 30.0


async def run(settings: WorkspaceSettings) -> None:
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
        recorder = await stack.enter_async_context(
            EventRecorder(KubeGateway(transport=fenced), clock=_now, instance=socket.gethostname())
        )
        parts = _Parts(settings, objects=Objects(fenced), leadership=leadership, recorder=recorder, metrics=metrics)
        stack.push_async_callback(parts.hub.close)
        await parts.run(stop)


def _now() -> datetime:
    return datetime.now(UTC)


class _Parts:
    """The parts and how they hang together."""

    def __init__(
        self,
        settings: WorkspaceSettings,
        *,
        objects: Objects,
        leadership: Leadership,
        recorder: EventRecorder,
        metrics: Registry,
    ) -> None:
        self._settings = settings
        self._leadership = leadership
        self._watchdog = Watchdog()
        self._recorder = recorder
        self._metrics = metrics
        self._store = Store()
        rng = random.Random()  # noqa: S311 -- spreads retries, guards nothing
        self._queue: WorkQueue[str] = WorkQueue(rng=rng, retry_cap=_RETRY_CAP, name="workspace", metrics=self._metrics)
        self.hub = Hub(endpoint=settings.hub, on_news=lambda name: self._controller.on_model(name))
        self._controller = Controller(
            objects=objects,
            store=self._store,
            queue=self._queue,
            actuator=Actuator(objects=objects, store=self._store, recorder=recorder, metrics=self._metrics),
            hub=self.hub,
            sizes=KnownSizes(NothingListed()),
            serving=Serving(
                image=settings.serving_image,
                pull_secrets=settings.pull_secrets,
                writes_claims=settings.node_source == "claims",
                hub=settings.mirror,
            ),
            now=_now,
            metrics=self._metrics,
        )

    async def run(self, stop: asyncio.Event) -> None:
        """Run until `stop` is set, then let the steps in flight end."""
        settings, leadership = self._settings, self._leadership
        health = HealthServer(
            host=settings.bind_address,
            health_port=settings.health_port,
            metrics_port=settings.metrics_port,
            live=lambda: (*leadership.stuck(), *self._watchdog.reasons(), *stuck_workers(self._queue)),
            # Whoever waits for its turn is ready for that.
            ready=lambda: leadership.unready() if leadership.is_waiting else self._unready(),
            metrics=self._metrics,
        )
        async with served(health), leadership.acting(stop) as is_leader:
            if is_leader:
                await self._act(stop)
                # Before the Lease is let go: whoever has it next is not to find us writing.
                await self._recorder.close()

    def _unready(self) -> Iterable[str]:
        if not self._store.synced:
            yield "Workspaces and Nodes have not been listed yet; is the Workspace CRD installed?"

    async def _act(self, stop: asyncio.Event) -> None:
        settings, controller = self._settings, self._controller
        if not await first_lists(controller.synchronise, kind=names.WORKSPACE_KIND, stop=stop):
            return
        workers = run_workers(controller, count=settings.workers)
        async with working(workers, shut_down=self._queue.shutdown, seconds=_DRAIN_SECONDS):
            async with background(self._resync()):
                _log.info("controller started", extra={"serving_image": settings.serving_image})
                await keep_watching(self._watched(), stop=stop, watchdog=self._watchdog)
            _log.info("controller stopping")

    async def _resync(self) -> None:
        while True:
            await asyncio.sleep(self._settings.resync)
            try:
                await self._controller.synchronise()
            except Gone:
                _log.warning("the Workspace CRD is not installed")
            except KubeError as error:
                _log.warning("the API server does not answer", extra={"error": str(error)})

    def _watched(self) -> tuple[Watched, ...]:
        controller = self._controller
        return (
            Watched(
                group=names.KAITO_GROUP,
                version=names.WORKSPACE_VERSION,
                plural=names.WORKSPACE_PLURAL,
                handler=controller.on_workspace,
            ),
            Watched(
                group=names.KARPENTER_GROUP,
                version=names.NODECLAIM_VERSION,
                plural=names.NODECLAIM_PLURAL,
                handler=controller.on_claim,
            ),
            Watched(group="", version="v1", plural="nodes", handler=controller.on_node),
            Watched(group="apps", version="v1", plural="statefulsets", handler=controller.on_stateful_set),
            Watched(group="batch", version="v1", plural="jobs", handler=controller.on_job),
        )
