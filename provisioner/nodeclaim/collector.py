"""The periodic look at everything: pools without claim, claims without pool, and what a watch has missed."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from provisioner.apis.agentpool import AgentPool
from provisioner.apis.node import Node
from provisioner.apis.nodeclaim import NodeClaim
from provisioner.azure.agentpools import AgentPools, ArmFailure, ManagedCluster
from provisioner.azure.inventory import Inventory
from provisioner.kube.events import EventRecorder
from provisioner.kube.gateway import Gone, KubeError, KubeGateway
from provisioner.kube.metrics import Registry
from provisioner.kube.store import Store
from provisioner.nodeclaim.actuator import reference
from provisioner.nodeclaim.garbage import is_same_cluster, launched, lost_claims, orphaned_pools
from provisioner.nodeclaim.metrics import ClaimMetrics

_log: Final = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class ClaimIds:
    """All claims of the cluster, whether we can read and serve them or not."""

    uids: frozenset[str]
    names: frozenset[str]


class Collector:
    """Collects garbage, and in passing brings the store up to date: both need the same full lists.

    A watch does not tell of what vanished while it was interrupted, so the lists are the only cure for ghosts. Every
    `look_again` seconds what is not settled is looked at even where nothing has changed: a wake-up that was lost, by
    whosever fault, costs minutes and no claim.
    """

    def __init__(
        self,
        *,
        kube: KubeGateway,
        store: Store,
        arm: AgentPools,
        inventory: Inventory,
        recorder: EventRecorder,
        enqueue: Callable[[str], None],
        enqueue_claims_of: Callable[[Node], None],
        relist_node_classes: Callable[[], Awaitable[None]],
        forget_gone: Callable[[], None],
        look_at_unsettled: Callable[[], None],
        metrics: Registry,
        claim_metrics: ClaimMetrics,
        subscription_id: str,
        interval: float,
        look_again: float,
        on_cluster: Callable[[ManagedCluster], None],
        clock: Callable[[], float],
    ) -> None:
        self._kube = kube
        self._store = store
        self._arm = arm
        self._inventory = inventory
        self._recorder = recorder
        self._enqueue = enqueue
        self._enqueue_claims_of = enqueue_claims_of
        self._relist_node_classes = relist_node_classes
        self._forget_gone = forget_gone
        self._look_at_unsettled = look_at_unsettled
        self._subscription_id = subscription_id
        self._interval = interval
        self._look_again = look_again
        self._looked_at = clock()
        self._on_cluster = on_cluster
        self._claim_metrics = claim_metrics
        self._clock = clock
        self._listed_at: float | None = None
        self._collected = metrics.counter(
            "gpu_provisioner_garbage_collected_total",
            text="Agent pools without a claim and claims without an agent pool that were deleted.",
            labels=("kind",),
        )
        self._orphans = metrics.gauge(
            "gpu_provisioner_orphaned_agent_pools",
            text="Agent pools without a claim at the last look, those included that may not be deleted yet.",
        )
        self._missed = metrics.counter(
            "gpu_provisioner_found_by_list_total",
            text="Nodes and claims that a full list has shown to be other than the watches had told.",
            labels=("kind",),
        )
        self._ages = metrics.gauge(
            "gpu_provisioner_list_age_seconds",
            text="Seconds since the last full list of agent pools, and of Nodes and claims; none before the first.",
            labels=("of",),
        )
        metrics.before_scrape(self._tell_ages)

    async def run(self) -> None:
        """Collect until cancelled; a round that fails is made up for by the next."""
        while True:
            try:
                await self.collect()
            except ArmFailure as error:
                _log.warning("no garbage collection: Azure does not answer", extra={"error": error.failure.message})
            except Gone:
                _log.warning("no garbage collection: the NodeClaim CRD is not installed")
            except KubeError as error:
                _log.warning("no garbage collection: the API server does not answer", extra={"error": str(error)})
            await asyncio.sleep(self._interval)

    async def synchronise(self) -> "ClaimIds":
        """Take full lists of node classes, Nodes and claims over and look at all claims that changed.

        Returns which claims there are in the cluster. Raises KubeError, Gone where the CRD is not installed.
        """
        is_first = not self._store.synced
        started = self._clock()
        await self._relist_node_classes()
        raw_nodes, nodes_version = await self._kube.list_nodes()
        changed_nodes = self._store.replace_nodes(raw_nodes, resource_version=nodes_version)
        raw_claims, claims_version = await self._kube.list_claims()
        changed = self._store.replace_claims(raw_claims, resource_version=claims_version)
        for node in changed_nodes.values():
            self._enqueue_claims_of(node)
        for name in changed:
            self._enqueue(name)
        self._forget_gone()
        if started - self._looked_at >= self._look_again:
            self._looked_at = started
            self._look_at_unsettled()
        self._listed_at = started
        if not is_first:
            # What a list has told before the watch could is among them: a few are no sign of anything.
            self._missed.inc(len(changed_nodes), kind="node")
            self._missed.inc(len(changed), kind="nodeclaim")
        return _ids(raw_claims)

    async def collect(self) -> None:
        """Make one round. Raises ArmFailure, KubeError."""
        if self._inventory.is_throttled:
            await self.synchronise()
            return
        # What was launched, then the pools, then all claims: see garbage.py.
        launched_before = launched(self._store.claims)
        try:
            await self._inventory.refresh()
        except ArmFailure:
            # What a watch has missed is found without Azure too.
            await self.synchronise()
            raise
        pools = dict(self._inventory.pools)
        present = await self.synchronise()
        claims = self._store.claims
        orphans = orphaned_pools(pools.values(), claim_uids=present.uids, claim_names=present.names)
        self._orphans.set(len(orphans))
        by_provider_id = {
            claim.provider_id.lower(): self._store.nodes_by_provider_id(claim.provider_id) for claim in claims
        }
        lost = lost_claims(claims, launched_before=launched_before, pools=pools, nodes=by_provider_id)
        if (orphans or lost) and await self._may_collect():
            for pool in orphans:
                await self._delete_pool(pool)
            for claim in lost:
                await self._delete_claim(claim)

    def _tell_ages(self) -> None:
        for of, listed_at in (("agentpools", self._inventory.listed_at), ("nodeclaims", self._listed_at)):
            if listed_at is not None:
                self._ages.set(max(self._clock() - listed_at, 0.0), of=of)

    async def _may_collect(self) -> bool:
        cluster = await self._arm.cluster()
        self._on_cluster(cluster)
        if not cluster.is_settled_running:
            # While a cluster stops or starts its VMs and pools come and go as they please.
            _log.info(
                "no garbage collection while the cluster is not running and settled",
                extra={"power_state": cluster.power_state, "provisioning_state": cluster.provisioning_state},
            )
            return False
        same = is_same_cluster(
            self._store.nodes,
            subscription_id=self._subscription_id,
            node_resource_group=cluster.node_resource_group,
        )
        if not same:
            _log.error(
                "no garbage collection: no Node of this Kubernetes cluster lies in the AKS cluster's node resource "
                "group; check KUBECONFIG, AZURE_CLUSTER_NAME, ARM_RESOURCE_GROUP and ARM_SUBSCRIPTION_ID",
                extra={"node_resource_group": cluster.node_resource_group},
            )
            return False
        return True

    async def _delete_pool(self, pool: AgentPool) -> None:
        try:
            # A pool made anew for a claim of the same name, since we looked, is not the one that we have judged.
            accepted = await self._arm.delete(pool.name, etag=pool.etag)
        except ArmFailure as error:
            _log.warning(
                "an agent pool without claim could not be deleted",
                extra={"agent_pool": pool.name, "error": error.failure.message},
            )
            return
        if accepted:
            self._inventory.note_deleting(pool.name)
            self._collected.inc(kind="agent_pool")
            _log.warning("deleting an agent pool whose claim is gone", extra={"agent_pool": pool.name})

    async def _delete_claim(self, claim: NodeClaim) -> None:
        message = f"The VM {claim.provider_id} is gone with its agent pool; deleting the claim."
        self._recorder.record(reference(claim), type="Warning", reason="GarbageCollected", message=message)
        await self._kube.delete_claim(claim.name, uid=claim.uid)
        self._collected.inc(kind="claim")
        self._claim_metrics.disrupted(claim, reason="garbage_collected")
        _log.warning("deleting a claim whose agent pool is gone", extra={"claim": claim.name})


def _ids(raw_claims: Iterable[Mapping[str, Any]]) -> ClaimIds:
    # From the raw list: a claim that we cannot read still owns its pool.
    metadata = [raw.get("metadata") or {} for raw in raw_claims]
    return ClaimIds(
        uids=frozenset(str(m.get("uid", "")) for m in metadata),
        names=frozenset(str(m.get("name", "")) for m in metadata),
    )
