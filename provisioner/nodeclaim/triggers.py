"""What makes a claim worth a look: watches, lists of agent pools, news about the region.

They only say which claim. Why is forgotten at once, so that events may be late, doubled or lost.
"""

import logging
from collections.abc import Collection, Iterator, Mapping
from typing import Any, Final

from provisioner.apis import names
from provisioner.apis.agentpool import AgentPool
from provisioner.apis.conditions import INITIALIZED, LAUNCHED, READY
from provisioner.apis.node import Node
from provisioner.apis.nodeclaim import NodeClaim
from provisioner.azure.inventory import Inventory, Lookup
from provisioner.kube.gateway import Forbidden, KubeGateway
from provisioner.kube.queue import WorkQueue
from provisioner.kube.store import Store
from provisioner.nodeclaim.actuator import Actuator
from provisioner.nodeclaim.agentpool_spec import pool_name
from provisioner.nodeclaim.keys import NODE_KIND, Key
from provisioner.nodeclaim.nodeclasses import NodeClasses
from provisioner.nodeclaim.termination import is_draining

_log: Final = logging.getLogger(__name__)


class Triggers:
    """Takes what the watches, the inventory and others tell into the store, and puts claims into the queue."""

    def __init__(
        self,
        *,
        kube: KubeGateway,
        store: Store,
        queue: WorkQueue[Key],
        inventory: Inventory,
        actuator: Actuator,
        node_classes: NodeClasses,
    ) -> None:
        self._kube = kube
        self._store = store
        self._queue = queue
        self._inventory = inventory
        self._actuator = actuator
        self._node_classes = node_classes

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
            self._actuator.forget_node(metadata["name"])
        else:
            node = self._store.node(metadata["name"]) if self._store.put_node(raw) else None
        if node is None:
            return
        self.enqueue_claims_of(node)

    def enqueue_claims_of(self, node: Node) -> None:
        """Have the claim of a Node looked at: it has recorded the Node's pool, is named as it, or owns the Node.

        A Node that is being deleted is looked at itself too.
        """
        if node.is_deleting:
            self._queue.add((NODE_KIND, node.name))
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
        for name in sorted(changed):
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
        # In an order that does not depend on hashes: the same history gives the same queue.
        for name in sorted(pool_names):
            for claim in self._store.claims_of_pool(name):
                self.enqueue(claim.name)
            for node in self._store.nodes_of_pool(name):
                if node.is_deleting:
                    self._queue.add((NODE_KIND, node.name))
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

    def look_at_unsettled(self) -> None:
        """Have every claim looked at that is not Ready or is being deleted, and every Node that is being deleted."""
        for claim in self._store.claims:
            if claim.is_deleting or not claim.is_true(READY):
                self.enqueue(claim.name)
        for node in self._store.nodes:
            if node.is_deleting:
                self._queue.add((NODE_KIND, node.name))

    def look_at_waiting(self) -> None:
        """Have every claim looked at that has no node yet: quota or capacity may have come."""
        for claim in self._store.claims:
            if not claim.is_true(LAUNCHED) and not claim.is_deleting:
                self.enqueue(claim.name)

    def is_busy(self) -> bool:
        """Tell whether a claim waits for something that Azure's list of agent pools will show.

        One that waits for quota or capacity does not: it may for hours, and has no pool meanwhile.
        """
        return any(
            claim.is_managed and claim.has_finalizer and self._is_in_flight(claim) for claim in self._store.claims
        )

    def _is_in_flight(self, claim: NodeClaim) -> bool:
        if claim.is_deleting:
            return not is_draining(claim)
        is_launching = claim.agent_pool and not claim.is_true(LAUNCHED)
        return bool(is_launching) and self._inventory.lookup(claim.agent_pool) is not Lookup.ABSENT

    def forget_gone(self) -> None:
        """Drop what is remembered of claims that are not there any more, however they went.

        Most are forgotten as they go. But a watch may tell of a deletion when a claim of the same name has taken the
        place already, or never; and a delay of the queue is as long as a claim's whole life.
        """
        self._actuator.retain({claim.uid for claim in self._store.claims})
        self._queue.retain(lambda key: key[0] != names.NODECLAIM_KIND or self._store.claim(key[1]) is not None)

    def pools_in_use(self) -> Iterator[AgentPool]:
        """Return the agent pools of the claims that have their node."""
        for claim in self._store.claims:
            if claim.is_managed and claim.is_true(INITIALIZED) and not claim.is_deleting:
                pool = self._inventory.pools.get(claim.agent_pool or pool_name(claim.name))
                if pool is not None and pool.is_succeeded:
                    yield pool
