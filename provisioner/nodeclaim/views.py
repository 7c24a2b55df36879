"""Puts together what a decision about one claim rests on, from all that is known at the moment."""

from collections.abc import Callable, Collection, Mapping
from datetime import datetime
from typing import Any

from provisioner.apis import names
from provisioner.apis.agentpool import AgentPool
from provisioner.apis.conditions import DRIFTED, LAUNCHED
from provisioner.apis.node import Node
from provisioner.apis.nodeclaim import NodeClaim
from provisioner.apis.nodeclass import NodeClassSpec
from provisioner.azure.inventory import Inventory
from provisioner.azure.upgrades import NodeImages
from provisioner.kube.store import Store
from provisioner.nodeclaim.actuator import Actuator
from provisioner.nodeclaim.agentpool_spec import pool_name
from provisioner.nodeclaim.asks import Asks
from provisioner.nodeclaim.azure_requests import AzureRequests
from provisioner.nodeclaim.class_checks import ClassChecks
from provisioner.nodeclaim.cluster_state import ClusterState
from provisioner.nodeclaim.delays import SizeDelays
from provisioner.nodeclaim.holds import holds
from provisioner.nodeclaim.nodeclass import ignores_gpus, pool_hash, problem, spec_of, terms
from provisioner.nodeclaim.nodeclasses import NodeClasses
from provisioner.nodeclaim.quotas import Quotas
from provisioner.nodeclaim.region import Region
from provisioner.nodeclaim.repair import fleet_of, is_due
from provisioner.nodeclaim.replacements import Replacements
from provisioner.nodeclaim.view import Fleet, Target, Timeouts, View
from provisioner.placement.market import Market, Placement, Refusal, Terms
from provisioner.placement.memory import OfferMemory
from provisioner.placement.place import place
from provisioner.placement.quota import RegionQuota
from provisioner.placement.size import Size
from provisioner.placement.terms import partitioned


class Views:
    """Makes Views. Nothing here waits."""

    def __init__(
        self,
        *,
        store: Store,
        inventory: Inventory,
        azure: AzureRequests,
        actuator: Actuator,
        region: Region,
        quotas: Quotas,
        memory: OfferMemory,
        asks: Asks,
        delays: SizeDelays,
        cluster_state: ClusterState,
        images: NodeImages,
        replacements: Replacements | None,
        node_classes: NodeClasses,
        class_checks: ClassChecks,
        now: Callable[[], datetime],
        wait_for_gpus: bool,
        repair_missing_gpus: bool,
        timeouts: Timeouts,
    ) -> None:
        self._store = store
        self._inventory = inventory
        self._azure = azure
        self._actuator = actuator
        self._region = region
        self._quotas = quotas
        self._memory = memory
        self._asks = asks
        self._delays = delays
        self._cluster_state = cluster_state
        self._images = images
        self._replacements = replacements
        self._node_classes = node_classes
        self._class_checks = class_checks
        self._now = now
        self._wait_for_gpus = wait_for_gpus
        self._repair_missing_gpus = repair_missing_gpus
        self._timeouts = timeouts

    def of(self, claim: NodeClaim) -> View:
        """Return everything that a decision about the claim rests on, but for what is on its Nodes."""
        pool = claim.agent_pool or pool_name(claim.name)
        nodes = {node.name: node for node in self._store.nodes_of_pool(pool)}
        if claim.provider_id:
            nodes |= {node.name: node for node in self._store.nodes_by_provider_id(claim.provider_id)}
        now = self._now()
        recorded = self._recorded_size(claim)
        is_launched = recorded is not None and claim.is_true(LAUNCHED)
        class_name = claim.class_name
        node_class = self._node_classes.get(class_name)
        class_spec = spec_of(node_class)
        placement = Placement() if is_launched or claim.is_deleting else self._place(claim, class_spec, now=now)
        best = placement.best
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
            setback=self._azure.setback(claim.uid),
            instance_id=self._azure.instance_id(claim.uid),
            wait_for_gpus=self._wait_for_gpus and not ignores_gpus(claim, node_class),
            node_class=class_spec,
            class_problem=problem(class_name, node_class) or self._class_checks.problem(node_class),
            is_node_class_known=self._class_checks.is_judged(node_class)
            if node_class is not None
            else self._node_classes.listed or class_name == names.DEFAULT_NODECLASS,
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

    def _recorded_size(self, claim: NodeClaim) -> Size | None:
        """Return what the claim's pool was asked for with, its GPUs partitioned as they were to be then."""
        size = self._region.sizes.find(claim.annotations.get(names.INSTANCE_TYPE_ANNOTATION, ""))
        if size is None:
            return None
        return partitioned(size, claim.annotations.get(names.GPU_INSTANCE_PROFILE_ANNOTATION, "")) or size

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

    def _place(self, claim: NodeClaim, class_spec: NodeClassSpec, *, now: datetime) -> Placement:
        if claim.spec is None:
            return Placement(refusal=Refusal(reason="InvalidSpec", message=claim.spec_error))
        region, quotas = self._region, self._quotas
        preferred = class_spec.size_preference
        pool = self._inventory.lookup(claim.agent_pool or pool_name(claim.name))
        if isinstance(pool, AgentPool):
            # Nothing will be asked for: what is of interest is only what the pool may have been asked for as, whatever
            # the class says by now.
            market = Market(
                sizes=region.sizes,
                now=now,
                location=region.location,
                preference=preferred,
                terms=Terms(gpu_instance_profile=pool.gpu_instance_profile),
            )
            return place(claim.spec, market=market)
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
            terms=terms(claim.class_name, class_spec, reserved=self._class_checks.reserved(class_spec)),
        )
        return place(claim.spec, market=market)
