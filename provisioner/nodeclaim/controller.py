"""The provisioner controller: queue in, one look at one claim, one step out.

Everything here is level-triggered: a key in the queue says only that a claim is worth a look. Why it was added is
forgotten at once, so events may be late, doubled or lost.
"""

import asyncio
import dataclasses
import logging
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from typing import Final

from provisioner.apis import names
from provisioner.apis.conditions import LAUNCHED
from provisioner.apis.node import Node
from provisioner.azure.inventory import Inventory
from provisioner.kube.gateway import Conflict, Forbidden, Gone, KubeError, KubeGateway, Unavailable, Unserved
from provisioner.kube.metrics import Registry
from provisioner.kube.queue import WorkQueue
from provisioner.kube.reconciles import Reconciles
from provisioner.kube.store import Store
from provisioner.logs import bound
from provisioner.nodeclaim.actuator import Actuator
from provisioner.nodeclaim.agentpool_spec import pool_name
from provisioner.nodeclaim.asks import Ask, Asks
from provisioner.nodeclaim.class_checks import ClassChecks
from provisioner.nodeclaim.class_verdict import ready_status
from provisioner.nodeclaim.cluster_state import ClusterState
from provisioner.nodeclaim.drift import DELETED_AS as DRIFT_DELETED
from provisioner.nodeclaim.keys import NODE_KIND, Key
from provisioner.nodeclaim.lifecycle import reconcile
from provisioner.nodeclaim.loads import Loads
from provisioner.nodeclaim.node_deletion import on_node
from provisioner.nodeclaim.nodeclasses import NodeClasses
from provisioner.nodeclaim.replacements import Replacements
from provisioner.nodeclaim.termination import nodes_to_read
from provisioner.nodeclaim.view import CreatePool, NodeLoad, View
from provisioner.nodeclaim.views import Views

_log: Final = logging.getLogger(__name__)

# Seconds after which something is looked at again that came before the first full lists.
_UNSYNCED: Final = 1.0


class Controller:
    """Reconciles NodeClaims, and the Ready condition of KaitoNodeClasses."""

    def __init__(
        self,
        *,
        kube: KubeGateway,
        store: Store,
        queue: WorkQueue[Key],
        inventory: Inventory,
        views: Views,
        actuator: Actuator,
        loads: Loads,
        asks: Asks,
        cluster_state: ClusterState,
        replacements: Replacements | None,
        node_classes: NodeClasses,
        class_checks: ClassChecks,
        now: Callable[[], datetime],
        metrics: Registry,
    ) -> None:
        """Take the parts; without `replacements` claims that have drifted are told of and kept."""
        self._kube = kube
        self._store = store
        self._queue = queue
        self._inventory = inventory
        self._views = views
        self._actuator = actuator
        self._loads = loads
        self._asks = asks
        self._cluster_state = cluster_state
        self._replacements = replacements
        self._node_classes = node_classes
        self._class_checks = class_checks
        self._now = now
        self._reconciles = Reconciles(metrics, controller="nodeclaim.lifecycle")

    async def work(self) -> None:
        """Handle keys until the queue is shut down. Several of these run side by side."""
        self._reconciles.add_worker()
        while (key := await self._queue.get()) is not None:
            with self._reconciles.one() as look, bound(**self._fields(key)):
                try:
                    await self._handle(key)
                except KubeError as error:
                    look.has_failed = True
                    await self._recover(key, error)
                except Exception:  # noqa: BLE001 -- logged with its traceback, counted and retried
                    # A defect in the handling of one claim must not end the work for all others.
                    look.has_failed = True
                    _log.exception("reconcile failed")
                    self._queue.retry(key)
                else:
                    self._queue.forget(key)
                finally:
                    self._queue.done(key)

    def _fields(self, key: Key) -> dict[str, str]:
        """Return what each line about the key is to carry."""
        kind, name = key
        if kind != names.NODECLAIM_KIND:
            return {"node" if kind == NODE_KIND else "node_class": name}
        claim = self._store.claim(name)
        return {"claim": name, "agent_pool": claim.agent_pool if claim is not None else ""}

    async def _handle(self, key: Key) -> None:
        kind, name = key
        if kind == names.NODECLASS_KIND:
            await self._handle_node_class(name)
            return
        if kind == NODE_KIND:
            await self._handle_node(name)
            return
        view = await self._full_view(name)
        if view is None:
            return
        self._look_at_deleted(view.nodes)
        claim, step = view.claim, reconcile(view)
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
                for waiting in sorted(self._asks.end(claim.uid)):
                    self._queue.add((names.NODECLAIM_KIND, waiting))
        if again or (step.wants_cluster and await self._cluster_state.refresh()):
            self._queue.add(key)

    def _look_at_deleted(self, nodes: Iterable[Node]) -> None:
        """Have Nodes looked at that are being deleted: if an answer to us has told of it, no watch tells it as news."""
        for node in nodes:
            if node.is_deleting:
                self._queue.add((NODE_KIND, node.name))

    async def _full_view(self, name: str) -> View | None:
        """Return the view of a claim, with the loads of its Nodes where it is being drained; None without a claim."""
        claim = self._store.claim(name)
        if claim is None:
            return None
        view = self._views.of(claim)
        nodes = nodes_to_read(view)
        if not nodes:
            return view
        loads: Mapping[str, NodeLoad] = {}
        error = ""
        try:
            loads = await self._loads.read(nodes)
        except Forbidden as refusal:
            # Whoever is installed with the rights of an earlier version: the claim says so, and goes at its deadline.
            error = str(refusal)
        # The world may have moved on meanwhile.
        claim = self._store.claim(name)
        if claim is None:
            return None
        blocked = {uid: why for node in nodes for uid, why in self._actuator.blocked(node.name).items()}
        return dataclasses.replace(self._views.of(claim), loads=loads, loads_error=error, blocked=blocked)

    async def _handle_node(self, name: str) -> None:
        node = self._store.node(name)
        if node is None:
            return
        if not self._store.synced:
            # Its claim may be there all the same.
            self._queue.add_after((NODE_KIND, name), _UNSYNCED)
            return
        owners = [claim for uid in node.owner_uids if (claim := self._store.claim_by_uid(uid)) is not None]
        # Usually it is looked at only to see that it still waits, and going through all claims takes its time.
        is_owned = any(claim.is_managed and claim.has_finalizer for claim in owners)
        step = on_node(node, claims=owners if is_owned else self._store.claims, pools=self._inventory)
        if step.again_after is not None:
            self._queue.add_after((NODE_KIND, name), step.again_after.total_seconds())
        if step.refresh:
            self._inventory.wake()
        if step.delete_claim is not None:
            await self._actuator.delete_claim_of(node, step.delete_claim)
        if step.release:
            await self._actuator.let_go(node)

    async def _handle_node_class(self, name: str) -> None:
        raw = self._node_classes.get(name)
        if raw is None:
            self._class_checks.forget(name)
            return
        before = self._class_checks.standing(raw)
        verdict, again = await self._class_checks.check(raw)
        if again is not None:
            self._queue.add_after((names.NODECLASS_KIND, name), again)
        if self._class_checks.standing(raw) != before:
            # The condition may say nothing new of it, after a restart for one.
            for claim in self._store.claims:
                if claim.class_name == name and not claim.is_true(LAUNCHED):
                    self._queue.add((names.NODECLAIM_KIND, claim.name))
        status = ready_status(raw, verdict, now=self._now()) if verdict is not None else None
        if status is None:
            return
        self._node_classes.put(
            await self._kube.patch_node_class_status(
                name, {"status": status}, resource_version=raw["metadata"]["resourceVersion"]
            )
        )

    async def _recover(self, key: Key, error: KubeError) -> None:
        if key[0] != names.NODECLAIM_KIND:
            # The watch brings the newer object; nothing hangs on it.
            self._queue.retry(key)
        elif isinstance(error, Gone) and not isinstance(error, Unserved):
            # Gone is what we were about to write to, the claim or a Node; the watch may tell of it later than a look
            # would come, and tells nothing new after this.
            await self._reread(key)
            if self._store.claim(key[1]) is None:
                self._queue.forget(key)
            else:
                self._queue.retry(key)
        elif isinstance(error, Conflict):
            # Somebody was faster, most often the node lifecycle controller on a young Node: decide anew.
            await self._reread(key)
            self._queue.add(key)
        else:
            level, pause = logging.WARNING, 0.0
            if isinstance(error, Unavailable):
                level, pause = logging.INFO, error.retry_after or 0.0
            _log.log(level, "API server refused", extra={"error": str(error)})
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
            pool = (claim.agent_pool or pool_name(claim.name)) if claim else ""
            for node in self._store.nodes_of_pool(pool):
                fresh = await self._kube.get_node(node.name)
                if fresh is not None:
                    self._store.put_node(fresh)
                else:
                    self._store.remove_node(node.name, uid=node.uid)
                    self._actuator.forget_node(node.name)
        except KubeError as error:
            _log.info("claim not read again", extra={"error": str(error)})
            self._queue.retry(key)


async def run_workers(controller: Controller, *, count: int) -> None:
    """Run that many workers until the queue is shut down."""
    async with asyncio.TaskGroup() as group:
        for _ in range(count):
            group.create_task(controller.work())
