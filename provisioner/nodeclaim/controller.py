"""The provisioner controller: queue in, one look at one claim, one step out.

Everything here is level-triggered: a key in the queue says only that a claim is worth a look. Why it was added is
forgotten at once, so events may be late, doubled or lost.
"""

import asyncio
import logging
from collections.abc import Callable, Collection, Iterator, Mapping
from datetime import datetime
from typing import Any, Final

from provisioner.apis import names
from provisioner.apis.agentpool import AgentPool
from provisioner.apis.conditions import DRIFTED, INITIALIZED, LAUNCHED, READY
from provisioner.apis.node import Node
from provisioner.apis.nodeclaim import NodeClaim
from provisioner.azure.inventory import Inventory
from provisioner.azure.upgrades import NodeImages
from provisioner.kube.gateway import Conflict, Forbidden, Gone, KubeError, KubeGateway, Unavailable
from provisioner.kube.metrics import Registry
from provisioner.kube.queue import WorkQueue
from provisioner.kube.reconciles import Reconciles
from provisioner.kube.store import Store
from provisioner.nodeclaim.actuator import Actuator
from provisioner.nodeclaim.agentpool_spec import pool_name
from provisioner.nodeclaim.asks import Ask, Asks
from provisioner.nodeclaim.cluster_state import ClusterState
from provisioner.nodeclaim.delays import SizeDelays
from provisioner.nodeclaim.drift import DELETED_AS as DRIFT_DELETED
from provisioner.nodeclaim.holds import holds
from provisioner.nodeclaim.lifecycle import reconcile
from provisioner.nodeclaim.nodeclass import pool_hash, preference, problem, ready_status
from provisioner.nodeclaim.nodeclasses import NodeClasses
from provisioner.nodeclaim.quotas import Quotas
from provisioner.nodeclaim.region import Region
from provisioner.nodeclaim.repair import fleet_of, is_due
from provisioner.nodeclaim.replacements import Replacements
from provisioner.nodeclaim.view import CreatePool, Fleet, Target, Timeouts, View
from provisioner.placement.market import Market, Placement, Refusal
from provisioner.placement.memory import OfferMemory
from provisioner.placement.place import place
from provisioner.placement.quota import RegionQuota

_log: Final = logging.getLogger(__name__)

# What the queue holds: the kind of an object, and its name.
Key = tuple[str, str]


class Controller:
    """Reconciles NodeClaims, and the Ready condition of KaitoNodeClasses."""

    def __init__(
        self,
        *,
        kube: KubeGateway,
        store: Store,
        queue: WorkQueue[Key],
        inventory: Inventory,
        actuator: Actuator,
        region: Region,
        quotas: Quotas,
        memory: OfferMemory,
        asks: Asks,
        delays: SizeDelays,
        cluster_state: ClusterState,
        now: Callable[[], datetime],
        metrics: Registry,
        wait_for_gpus: bool,
        repair_missing_gpus: bool,
        timeouts: Timeouts,
        images: NodeImages,
        replacements: Replacements | None,
    ) -> None:
        """Take the parts; without `replacements` claims that have drifted are told of and kept."""
        self._kube = kube
        self._store = store
        self._queue = queue
        self._inventory = inventory
        self._actuator = actuator
        self._region = region
        self._quotas = quotas
        self._memory = memory
        self._asks = asks
        self._delays = delays
        self._now = now
        self._cluster_state = cluster_state
        self._wait_for_gpus = wait_for_gpus
        self._repair_missing_gpus = repair_missing_gpus
        self._timeouts = timeouts
        self._images = images
        self._replacements = replacements
        self._node_classes = NodeClasses()
        self._reconciles = Reconciles(metrics, controller="nodeclaim.lifecycle")
        claims = metrics.gauge(
            "gpu_provisioner_nodeclaims",
            text="NodeClaims of this provisioner by the state of Ready and the reason of the first unmet condition.",
            labels=("ready", "reason"),
        )

        def count_claims() -> None:
            claims.clear()
            counts: dict[tuple[str, str], int] = {}
            for claim in self._store.claims:
                if claim.is_managed:
                    state = _state(claim)
                    counts[state] = counts.get(state, 0) + 1
            for (ready, reason), number in counts.items():
                claims.set(number, ready=ready, reason=reason)

        metrics.before_scrape(count_claims)
        left_alone = metrics.gauge(
            "gpu_provisioner_offers_unavailable",
            text="1 for what is not asked of Azure at present, because it has failed lately; * stands for all.",
            labels=("vm_size", "zone", "capacity_type", "kind"),
        )

        def tell_unavailable() -> None:
            left_alone.clear()
            for key, entry in memory.active(now=now()):
                kind = entry.failure.kind.value
                left_alone.set(1, vm_size=key.size, zone=key.zone, capacity_type=key.capacity_type, kind=kind)

        metrics.before_scrape(tell_unavailable)

    # What there is to look at

    def enqueue(self, name: str) -> None:
        """Have a claim looked at."""
        self._queue.add((names.NODECLAIM_KIND, name))

    def on_claim(self, event: str | None, raw: Mapping[str, Any]) -> None:
        """Take a NodeClaim from the watch."""
        metadata = raw["metadata"]
        if event == "DELETED":
            claim = self._store.remove_claim(metadata["name"], uid=metadata["uid"])
            if claim is not None:
                self._actuator.forget(claim.uid)
            return
        if self._store.put_claim(raw):
            self.enqueue(metadata["name"])

    def on_node(self, event: str | None, raw: Mapping[str, Any]) -> None:
        """Take a Node from the watch: its claim is what is looked at."""
        metadata = raw["metadata"]
        node: Node | None
        if event == "DELETED":
            node = self._store.remove_node(metadata["name"], uid=metadata["uid"])
        else:
            node = self._store.node(metadata["name"]) if self._store.put_node(raw) else None
        if node is None:
            return
        self.enqueue_claims_of(node)

    def enqueue_claims_of(self, node: Node) -> None:
        """Have the claim of a Node looked at: it has recorded the Node's pool, is named as it, or owns the Node."""
        for claim in self._store.claims_of_pool(node.agent_pool):
            self.enqueue(claim.name)
        # Azure/gpu-provisioner names pools as their claims and records nothing.
        if node.agent_pool and self._store.claim(node.agent_pool) is not None:
            self.enqueue(node.agent_pool)
        for uid in node.owner_uids:
            if owner := self._store.claim_by_uid(uid):
                self.enqueue(owner.name)

    def on_node_class(self, event: str | None, raw: Mapping[str, Any]) -> None:
        """Take a KaitoNodeClass from the watch."""
        name = raw["metadata"]["name"]
        if event == "DELETED":
            self._node_classes.remove(name)
        else:
            self._node_classes.put(raw)
        self._look_at_class(name)

    async def relist_node_classes(self) -> None:
        """Take a full list of KaitoNodeClasses over. Raises KubeError, but not where it may not be read."""
        was_listed = self._node_classes.listed
        try:
            changed = await self._node_classes.relist(self._kube.list_node_classes)
        except Forbidden as error:
            # Only claims that name a class other than the default one have to wait for it.
            _log.warning("KaitoNodeClasses cannot be listed", extra={"error": str(error)})
            return
        for name in changed:
            self._look_at_class(name)
        if not was_listed:
            self.look_at_waiting()

    def _look_at_class(self, name: str) -> None:
        self._queue.add((names.NODECLASS_KIND, name))
        for claim in self._store.claims:
            # Those that wait for the class, and those whose node was made as it said.
            if claim.class_name == name:
                self.enqueue(claim.name)

    def on_pools(self, pool_names: Collection[str]) -> None:
        """Have the claims of agent pools looked at that have changed."""
        for name in pool_names:
            for claim in self._store.claims_of_pool(name):
                self.enqueue(claim.name)
            if self._store.claim(name) is not None:
                self.enqueue(name)
        # A claim that has no pool yet waits for the first LIST under the name that it would get.
        wanted = set(pool_names)
        for claim in self._store.claims:
            if not claim.agent_pool and pool_name(claim.name) in wanted:
                self.enqueue(claim.name)

    def look_at_all(self) -> None:
        """Have every claim looked at: something has changed that concerns them all."""
        for claim in self._store.claims:
            self.enqueue(claim.name)

    def look_at_waiting(self) -> None:
        """Have every claim looked at that has no node yet: quota or capacity may have come."""
        for claim in self._store.claims:
            if not claim.is_true(LAUNCHED) and not claim.is_deleting:
                self.enqueue(claim.name)

    def is_busy(self) -> bool:
        """Tell whether a claim waits for something that Azure's list of agent pools will show."""
        return any(
            claim.is_managed
            and claim.has_finalizer
            and (claim.is_deleting or (claim.agent_pool and not claim.is_true(LAUNCHED)))
            for claim in self._store.claims
        )

    def pools_in_use(self) -> Iterator[AgentPool]:
        """Return the agent pools of the claims that have their node."""
        for claim in self._store.claims:
            if claim.is_managed and claim.is_true(INITIALIZED) and not claim.is_deleting:
                pool = self._inventory.pools.get(claim.agent_pool or pool_name(claim.name))
                if pool is not None and pool.is_succeeded:
                    yield pool

    # The look

    async def work(self) -> None:
        """Handle keys until the queue is shut down. Several of these run side by side."""
        self._reconciles.add_worker()
        while (key := await self._queue.get()) is not None:
            with self._reconciles.one() as look:
                try:
                    await self._handle(key)
                except KubeError as error:
                    look.has_failed = True
                    await self._recover(key, error)
                except Exception:  # noqa: BLE001 -- logged with its traceback, counted and retried
                    # A defect in the handling of one claim must not end the work for all others.
                    look.has_failed = True
                    _log.exception("reconcile failed", extra={"kind": key[0], "claim": key[1]})
                    self._queue.retry(key)
                else:
                    self._queue.forget(key)
                finally:
                    self._queue.done(key)

    def view(self, claim: NodeClaim) -> View:
        """Return everything that a decision about the claim rests on."""
        pool = claim.agent_pool or pool_name(claim.name)
        nodes = {node.name: node for node in self._store.nodes_of_pool(pool)}
        if claim.provider_id:
            nodes |= {node.name: node for node in self._store.nodes_by_provider_id(claim.provider_id)}
        now = self._now()
        recorded = self._region.sizes.find(claim.annotations.get(names.INSTANCE_TYPE_ANNOTATION, ""))
        is_launched = recorded is not None and claim.is_true(LAUNCHED)
        placement = Placement() if is_launched or claim.is_deleting else self._place(claim, now=now)
        best, class_name = placement.best, claim.class_name
        node_class = self._node_classes.get(class_name)
        return View(
            claim=claim,
            nodes=tuple(nodes.values()),
            pools=self._inventory,
            placement=placement,
            is_quota_known=self._quotas.are_current,
            is_tried_by_another=best is not None and self._asks.is_tried_by_another(best, uid=claim.uid, now=now),
            recorded_size=recorded,
            now=now,
            location=self._region.location,
            is_region_known=self._region.is_known,
            region_failure=self._region.failure,
            setback=self._actuator.setback(claim.uid),
            instance_id=self._actuator.instance_id(claim.uid),
            wait_for_gpus=self._wait_for_gpus,
            class_problem=problem(class_name, node_class),
            is_node_class_known=self._node_classes.listed
            or node_class is not None
            or class_name == names.DEFAULT_NODECLASS,
            size_delay=self._delays.of(best.size.name, now=now) if best is not None else None,
            timeouts=self._timeouts,
            waiting=self._actuator.waiting(claim.uid),
            target=self._target(pool, node_class),
            replaces_drifted=self._replacements is not None,
            is_replacing_another=self._replacements is not None
            # The look at all others is for the few whose turn it might be.
            and claim.is_true(DRIFTED)
            and self._replacements.is_anothers_turn(claim, claims=self._store.claims, now=now),
            repair_missing_gpus=self._repair_missing_gpus,
            fleet=self._fleet(claim, nodes.values(), now=now),
            is_cluster_settled=self._cluster_state.is_settled,
        )

    def _target(self, pool: str, node_class: Mapping[str, Any] | None) -> Target:
        listed = self._inventory.pools.get(pool)
        newest = self._images.newest(listed) if listed is not None else ""
        is_class_known = self._node_classes.listed or node_class is not None
        return Target(
            kubernetes_version=self._region.kubernetes_version,
            node_image=newest if self._images.is_on else None,
            class_hash=pool_hash(node_class) if is_class_known else None,
        )

    def _fleet(self, claim: NodeClaim, nodes: Collection[Node], *, now: datetime) -> Fleet | None:
        # Counting is for the few Nodes that are to be replaced, not for each that starts NotReady.
        if not self._cluster_state.is_settled or not is_due(
            claim, nodes, timeouts=self._timeouts, now=now, missing_gpus=self._repair_missing_gpus
        ):
            return None
        return fleet_of(claim, nodes=self._store.nodes, claims=self._store.claims)

    def _place(self, claim: NodeClaim, *, now: datetime) -> Placement:
        if claim.spec is None:
            return Placement(refusal=Refusal(reason="InvalidSpec", message=claim.spec_error))
        region, quotas = self._region, self._quotas
        preferred = preference(self._node_classes.get(claim.class_name))
        if isinstance(self._inventory.lookup(claim.agent_pool or pool_name(claim.name)), AgentPool):
            # Nothing will be asked for: what is of interest is only what the pool may have been asked for as.
            return place(
                claim.spec,
                market=Market(sizes=region.sizes, now=now, location=region.location, preference=preferred),
            )
        held = holds(
            self._inventory.pools.values(),
            asks=self._asks.others(claim.uid),
            size_of=region.sizes.find,
            nodes_of=self._store.nodes_of_pool,
            counted_at=quotas.counted_at,
        )
        market = Market(
            sizes=region.sizes,
            now=now,
            location=region.location,
            quota=RegionQuota(usages=quotas.usages, holds=held, region=region.location),
            memory=self._memory,
            preference=preferred,
        )
        return place(claim.spec, market=market)

    async def _handle(self, key: Key) -> None:
        kind, name = key
        if kind == names.NODECLASS_KIND:
            await self._handle_node_class(name)
            return
        claim = self._store.claim(name)
        if claim is None:
            return
        view = self.view(claim)
        step = reconcile(view)
        if step.again_after is not None:
            self._queue.add_after(key, step.again_after.total_seconds())
        if step.waits_for_another:
            self._asks.wait(name)
        if isinstance(step.azure, CreatePool):
            # Before anything is awaited: the next decision has to know what this one will take.
            self._asks.begin(claim.uid, Ask(pool=step.azure.name, offer=step.azure.offer, begun=view.now))
        if step.delete_claim == DRIFT_DELETED and self._replacements is not None:
            self._replacements.begin(now=view.now)
        try:
            again = await self._actuator.carry_out(view, step)
        finally:
            if isinstance(step.azure, CreatePool):
                for waiting in self._asks.end(claim.uid):
                    self.enqueue(waiting)
        if again or (step.wants_cluster and await self._cluster_state.refresh()):
            self._queue.add(key)

    async def _handle_node_class(self, name: str) -> None:
        raw = self._node_classes.get(name)
        status = ready_status(raw, now=self._now()) if raw is not None else None
        if raw is None or status is None:
            return
        self._node_classes.put(
            await self._kube.patch_node_class_status(
                name, {"status": status}, resource_version=raw["metadata"]["resourceVersion"]
            )
        )

    async def _recover(self, key: Key, error: KubeError) -> None:
        kind, name = key
        if kind != names.NODECLAIM_KIND:
            # The watch brings the newer object; nothing hangs on it.
            self._queue.retry(key)
        elif isinstance(error, Gone):
            # Gone is what we were about to write to; the watch may tell of it later than a look would come.
            await self._reread(key)
            self._queue.forget(key)
        elif isinstance(error, Conflict):
            # Somebody was faster, most often the node lifecycle controller on a young Node: decide anew.
            await self._reread(key)
            self._queue.add(key)
        else:
            level, pause = logging.WARNING, 0.0
            if isinstance(error, Unavailable):
                level, pause = logging.INFO, error.retry_after or 0.0
            _log.log(level, "API server refused", extra={"kind": kind, "claim": name, "error": str(error)})
            self._queue.retry(key, at_least=pause)

    async def _reread(self, key: Key) -> None:
        _, name = key
        claim = self._store.claim(name)
        try:
            raw = await self._kube.get_claim(name)
            if raw is not None:
                self._store.put_claim(raw)
            elif claim is not None:
                self._store.remove_claim(name, uid=claim.uid)
                self._actuator.forget(claim.uid)
            for node in self._store.nodes_of_pool(claim.agent_pool) if claim and claim.agent_pool else ():
                fresh = await self._kube.get_node(node.name)
                if fresh is not None:
                    self._store.put_node(fresh)
                else:
                    self._store.remove_node(node.name, uid=node.uid)
        except KubeError as error:
            _log.info("claim not read again", extra={"claim": name, "error": str(error)})
            self._queue.retry(key)


def _state(claim: NodeClaim) -> tuple[str, str]:
    if claim.is_deleting:
        return "False", "Terminating"
    ready = next((c for c in claim.conditions if c.type == READY), None)
    if ready is None:
        return "Unknown", "AwaitingReconciliation"
    if ready.status == "True":
        return "True", READY
    first = next((c for c in claim.conditions if c.type != READY and c.status != "True"), ready)
    return ready.status, first.reason


async def run_workers(controller: Controller, *, count: int) -> None:
    """Run that many workers until the queue is shut down."""
    async with asyncio.TaskGroup() as group:
        for _ in range(count):
            group.create_task(controller.work())
