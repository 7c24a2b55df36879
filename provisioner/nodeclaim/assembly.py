"""The controller's parts and how they hang together, whatever they speak to and whatever clock they go by."""

import random
from collections.abc import Callable, Coroutine, Iterable, Iterator
from datetime import datetime, timedelta
from typing import Any, Final

from provisioner.apis import names
from provisioner.apis.node import Node
from provisioner.azure.agentpools import AgentPools
from provisioner.azure.caller import Caller
from provisioner.azure.inventory import Inventory
from provisioner.azure.prices import Prices
from provisioner.azure.references import References
from provisioner.azure.skus import SkuCatalogue
from provisioner.azure.upgrades import NodeImages
from provisioner.azure.usages import Usages
from provisioner.kube.events import EventRecorder
from provisioner.kube.gateway import KubeGateway
from provisioner.kube.metrics import Registry
from provisioner.kube.queue import WorkQueue
from provisioner.kube.store import Store
from provisioner.kube.watch import Watched
from provisioner.kube.watchdog import stuck_workers
from provisioner.nodeclaim.actuator import Actuator
from provisioner.nodeclaim.asks import Asks
from provisioner.nodeclaim.azure_requests import AzureRequests
from provisioner.nodeclaim.class_checks import ClassChecks
from provisioner.nodeclaim.cluster_state import ClusterState
from provisioner.nodeclaim.collector import Collector
from provisioner.nodeclaim.controller import Controller
from provisioner.nodeclaim.delays import SizeDelays
from provisioner.nodeclaim.evictions import Evictions
from provisioner.nodeclaim.gauges import publish
from provisioner.nodeclaim.keys import Key
from provisioner.nodeclaim.loads import Loads
from provisioner.nodeclaim.metrics import ClaimMetrics
from provisioner.nodeclaim.node_metrics import NodeMetrics
from provisioner.nodeclaim.nodeclasses import NodeClasses
from provisioner.nodeclaim.quotas import Quotas
from provisioner.nodeclaim.region import Region
from provisioner.nodeclaim.replacements import Replacements
from provisioner.nodeclaim.triggers import Triggers
from provisioner.nodeclaim.view import Timeouts
from provisioner.nodeclaim.views import Views
from provisioner.placement.memory import OfferMemory
from provisioner.settings import Settings

# Only the API server's refusals are retried by the queue, Azure's have a policy of their own. An API server is back
# within minutes, and nobody wants claims to wait on longer than it was away.
_RETRY_CAP: Final = 30.0
# Seconds: ten times what a LIST may take.
_STUCK_LIST: Final = 300.0
# Seconds after which claims that are not Ready, and Nodes that go, are looked at whether anything has changed or not.
_LOOK_AGAIN: Final = 600.0


class Assembly:
    """All parts of one controller. Nothing runs yet: see `services`, and `run_workers` of the controller.

    `session` and `kube` are the only ways out, `monotonic` (seconds), `now` and `rng` the only sources of time and
    chance beside the event loop's clock.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        kube: KubeGateway,
        recorder: EventRecorder,
        session: Caller,
        metrics: Registry,
        monotonic: Callable[[], float],
        now: Callable[[], datetime],
        rng: random.Random,
        look_again: float = _LOOK_AGAIN,
    ) -> None:
        self.store = Store()
        self.queue: WorkQueue[Key] = WorkQueue(rng=rng, retry_cap=_RETRY_CAP, metrics=metrics)
        arm = AgentPools(session)
        self.inventory = Inventory(
            arm,
            clock=monotonic,
            busy=lambda: self.triggers.is_busy(),
            on_change=lambda pools: self.triggers.on_pools(pools),
            busy_interval=settings.busy_interval,
            idle_interval=settings.idle_interval,
            jitter=rng.random,
        )
        self.region = Region(
            arm=arm,
            sizes_of=lambda location: SkuCatalogue(session, location=location, clock=monotonic),
            prices_of=lambda location: Prices(location=location, endpoint=settings.price_list, clock=monotonic),
            on_news=lambda: self.triggers.look_at_all(),
        )
        memory, asks = OfferMemory(capacity=timedelta(seconds=settings.capacity_retry)), Asks()
        delays = SizeDelays(on_forgotten=lambda: self.triggers.look_at_waiting())

        async def usages() -> Usages:
            await self.region.located.wait()
            return Usages(session, location=self.region.location, clock=monotonic)

        self.quotas = Quotas(
            reader=usages,
            clock=monotonic,
            now=now,
            on_news=lambda: self.triggers.look_at_waiting(),
            on_freed=lambda usage: memory.forget(lambda shortage: shortage.usage == usage, as_of=now()),
            interval=settings.quota_interval,
            metrics=metrics,
        )
        self.images = NodeImages(
            session,
            pools=lambda: self.triggers.pools_in_use(),
            on_news=lambda: self.triggers.look_at_all(),
            clock=monotonic,
            interval=settings.node_image_check,
        )
        claim_metrics = ClaimMetrics(metrics, claims=lambda: self.store.claims, now=now)
        node_metrics = NodeMetrics(metrics, nodes=self._own_nodes, now=now)
        self.evictions = Evictions(kube, recorder=recorder, rng=rng, metrics=metrics, node_metrics=node_metrics)
        azure = AzureRequests(
            arm=arm,
            notes=self.inventory,
            memory=memory,
            asks=asks,
            quotas=self.quotas,
            now=now,
            rng=rng,
            metrics=metrics,
            claim_metrics=claim_metrics,
        )
        actuator = Actuator(
            kube=kube,
            store=self.store,
            azure=azure,
            recorder=recorder,
            delays=delays,
            quotas=self.quotas,
            evictions=self.evictions,
            now=now,
            claim_metrics=claim_metrics,
            node_metrics=node_metrics,
        )
        node_classes = NodeClasses()
        class_checks = ClassChecks(
            References(session), region=self.region, usages=lambda: self.quotas.usages, clock=monotonic
        )
        cluster_state = ClusterState(arm, clock=monotonic)
        replacements = Replacements(now=now()) if settings.replace_drifted else None
        self.triggers = Triggers(
            kube=kube,
            store=self.store,
            queue=self.queue,
            inventory=self.inventory,
            actuator=actuator,
            node_classes=node_classes,
        )
        views = Views(
            store=self.store,
            inventory=self.inventory,
            azure=azure,
            actuator=actuator,
            region=self.region,
            quotas=self.quotas,
            memory=memory,
            asks=asks,
            delays=delays,
            cluster_state=cluster_state,
            images=self.images,
            replacements=replacements,
            node_classes=node_classes,
            class_checks=class_checks,
            now=now,
            wait_for_gpus=settings.wait_for_gpus,
            repair_missing_gpus=settings.repair_missing_gpus,
            timeouts=Timeouts(
                launch=_limit(settings.launch_timeout),
                registration=_limit(settings.registration_timeout),
                gpus=_limit(settings.gpu_timeout),
                unhealthy=_limit(settings.node_repair),
            ),
        )
        self.controller = Controller(
            kube=kube,
            store=self.store,
            queue=self.queue,
            inventory=self.inventory,
            views=views,
            actuator=actuator,
            loads=Loads(kube, now=now),
            asks=asks,
            cluster_state=cluster_state,
            replacements=replacements,
            node_classes=node_classes,
            class_checks=class_checks,
            now=now,
            metrics=metrics,
        )
        publish(metrics, store=self.store, memory=memory, now=now)
        self.collector = Collector(
            kube=kube,
            store=self.store,
            arm=arm,
            inventory=self.inventory,
            recorder=recorder,
            enqueue=self.triggers.enqueue,
            enqueue_claims_of=self.triggers.enqueue_claims_of,
            relist_node_classes=self.triggers.relist_node_classes,
            forget_gone=self.triggers.forget_gone,
            look_at_unsettled=self.triggers.look_at_unsettled,
            metrics=metrics,
            claim_metrics=claim_metrics,
            subscription_id=settings.subscription_id,
            interval=settings.garbage_interval,
            look_again=look_again,
            on_cluster=self.region.note,
            clock=monotonic,
        )

    @property
    def watched(self) -> tuple[Watched, ...]:
        """Return what is to be watched, and whom the watches tell."""
        return (
            Watched(
                group=names.KARPENTER_GROUP,
                version=names.NODECLAIM_VERSION,
                plural=names.NODECLAIM_PLURAL,
                handler=self.triggers.on_claim,
            ),
            Watched(group="", version="v1", plural="nodes", handler=self.triggers.on_node),
            Watched(
                group=names.KAITO_GROUP,
                version=names.NODECLASS_VERSION,
                plural=names.NODECLASS_PLURAL,
                handler=self.triggers.on_node_class,
            ),
        )

    def services(self) -> tuple[Coroutine[Any, Any, None], ...]:
        """Return the loops to be run beside everything else; none of them ends by itself."""
        images = (self.images.run(),) if self.images.is_on else ()
        return self.region.run(), self.quotas.run(), self.inventory.run(), self.evictions.run(), *images

    def _own_nodes(self) -> Iterator[Node]:
        for claim in self.store.claims:
            if claim.is_managed and claim.provider_id:
                yield from self.store.nodes_by_provider_id(claim.provider_id)

    def stuck(self) -> Iterable[str]:
        """Return what goes on no more and only a restart makes go on again."""
        yield from stuck_workers(self.queue)
        yield from self.evictions.stuck()
        if (overdue := self.inventory.overdue) > _STUCK_LIST:
            yield f"the LIST of agent pools is overdue for {overdue:.0f} s"

    def unready(self) -> Iterable[str]:
        """Return why the controller cannot do its work yet."""
        if not self.store.synced:
            yield "Nodes and NodeClaims have not been listed yet; is the NodeClaim CRD installed?"
        if self.inventory.listed_at is None:
            failure = self.inventory.failure
            yield f"agent pools have not been listed yet{': ' + failure.message if failure else ''}"


def _limit(seconds: float) -> timedelta | None:
    return timedelta(seconds=seconds) if seconds else None
