"""What must hold in every history: at every moment, after a quiet time, and once all claims are gone."""

from collections.abc import Iterator, Mapping
from datetime import timedelta
from typing import Any, Final

from provisioner.apis import names
from provisioner.apis.conditions import AWAITING_REASON, DEPENDENTS, LAUNCHED, READY, REGISTERED
from provisioner.apis.node import Node, parse_node
from provisioner.apis.nodeclaim import NodeClaim, parse_nodeclaim
from provisioner.apis.times import parse_time
from provisioner.nodeclaim.launch import CREATING
from tests.chaos.azure import Azure, Pool
from tests.chaos.objects import CLAIMS, NODES, Change, Objects, Raw
from tests.chaos.world import World

# Seconds. A pool whose PUT nobody was told about may turn up between the LIST that a decision rests on and what the
# decision does: Azure's lag, the LIST's own time, and a write to Kubernetes that has to be tried again.
_UNSEEN: Final = 20.0
# By then a claim whose VM runs has its Node, or is deleted.
_LONG: Final = timedelta(minutes=25)
# Seconds. Before that no VM has had its time to become a Node in order.
_YOUNG: Final = 300.0
# By then a deleted claim is gone.
_DELETION: Final = timedelta(minutes=10)
# Seconds within which a claim has noticed that its Node is in order, and the cloud provider that a VM is gone.
_NOTICED: Final = 300.0


class Invariants:
    """Watches everything that is asked of Azure and written to Kubernetes."""

    def __init__(self, world: World, objects: Objects, azure: Azure) -> None:
        self._world = world
        self._objects = objects
        self._azure = azure
        self._fit_since: dict[str, float] = {}
        # Etags of pools whose Node somebody has deleted.
        self._without_node: set[str] = set()
        # When the controller that runs now was started: it can know of all pools that stood by then.
        self.run_began = 0.0
        self._gone_at: dict[str, float] = {}
        azure.on_put = self._on_put
        azure.on_delete = self._on_delete
        azure.on_gone = self._on_gone
        objects.on_change.append(self._on_change)

    # At every moment

    def _on_put(self, name: str, exists: bool, body: Mapping[str, Any]) -> None:
        if exists:
            self._world.violate(f"agent pool {name} exists and is written to")
        uid = (body["properties"].get("tags") or {}).get(names.CLAIM_UID_TAG, "")
        if not uid:
            self._world.violate(f"agent pool {name} is asked for without the UID of its claim")
        for pool in self._azure.pools.values():
            if pool.uid == uid and pool.state != "Deleting" and pool.name != name:
                self._world.violate(f"claim {uid} has agent pool {pool.name} and gets {name} beside it")

    def _on_delete(self, pool: Pool) -> None:
        if pool.is_foreign:
            self._world.violate(f"agent pool {pool.name} is a user's and is deleted")
        claim = self._claim_of(pool)
        if claim is not None and not claim.is_deleting and claim.is_true(LAUNCHED) and pool.state == "Succeeded":
            self._world.violate(f"agent pool {pool.name} of claim {claim.name}, which is in use, is deleted")

    def _on_gone(self, pool: Pool) -> None:
        self._gone_at[pool.name] = self._world.loop.time()

    def _on_change(self, change: Change) -> None:
        if change.plural == NODES:
            self._note_fitness(change)
        if change.plural != CLAIMS or change.before is None:
            return
        before, after = parse_nodeclaim(change.before), parse_nodeclaim(change.last)
        name = before.name
        if self._world.is_traced:
            self._trace(before, after)
        if before.provider_id and before.provider_id != after.provider_id:
            self._world.violate(f"claim {name}: the providerID {before.provider_id} becomes {after.provider_id}")
        if before.is_true(LAUNCHED) and not after.is_true(LAUNCHED):
            self._world.violate(f"claim {name}: Launched was True and is so no more")
        if after.is_deleting and after.is_true(READY) and not before.is_true(READY):
            self._world.violate(f"claim {name} becomes Ready while it is being deleted")
        if change.by != "controller":
            return
        if before.has_finalizer and (change.after is None or not after.has_finalizer):
            self._check_release(before)
        if after.is_deleting and not before.is_deleting:
            self._check_disruption(before)

    def _check_release(self, claim: NodeClaim) -> None:
        for pool in self._azure.pools.values():
            if pool.uid != claim.uid:
                continue
            is_known = (pool.told is not None and pool.told.is_alive) or pool.born < self.run_began
            if is_known or self._world.loop.time() - pool.born > _UNSEEN:
                self._world.violate(f"claim {claim.name} is let go while its agent pool {pool.name} is {pool.state}")
            self._world.counts["pools that came after their claim"] += 1

    def _check_disruption(self, claim: NodeClaim) -> None:
        if claim.spec is not None and claim.spec.expire_after is not None:
            return
        for pool in self._azure.pools.values():
            if pool.uid != claim.uid or pool.vm is None or not pool.vm.exists:
                continue
            if pool.state == "Succeeded" and claim.is_true(READY) and any(map(_is_there, self._nodes_of(pool))):
                self._world.violate(f"claim {claim.name} is deleted by the controller and was in order")
            is_young = self._world.loop.time() - pool.born < _YOUNG and pool.first_etag not in self._without_node
            if pool.state in ("Creating", "Succeeded") and claim.is_true(LAUNCHED) and is_young:
                self._world.violate(f"claim {claim.name} is deleted by the controller and its VM had just come")

    def _note_fitness(self, change: Change) -> None:
        node = parse_node(change.last)
        if (pool := self._azure.pools.get(node.agent_pool)) and (change.after is None or node.is_deleting):
            self._without_node.add(pool.first_etag)
        fits = change.after is not None and node.is_ready and node.allocatable_of(names.NVIDIA_GPU) > 0
        if not fits or node.is_deleting:
            self._fit_since.pop(node.name, None)
        else:
            self._fit_since.setdefault(node.name, self._world.loop.time())

    def _trace(self, before: NodeClaim, after: NodeClaim) -> None:
        old = {condition.type: (condition.status, condition.reason) for condition in before.conditions}
        for condition in after.conditions:
            if old.get(condition.type) != (condition.status, condition.reason):
                text = f"{condition.type}={condition.status} {condition.reason} {condition.message[:100]}"
                self._world.trace("claim", f"{after.name}: {text}")

    # After a quiet time

    def check_rest(self) -> None:
        """Find what should not be so after everything has been well for long."""
        for text in self._unrest():
            self._world.violate(f"after a quiet time: {text}")

    def _unrest(self) -> Iterator[str]:
        claims = {claim.uid: claim for claim in map(parse_nodeclaim, self._objects.all(CLAIMS))}
        for pool in self._own_pools():
            if pool.uid not in claims:
                yield f"agent pool {pool.name} is {pool.state} and its claim is gone"
        for raw in self._objects.all(NODES):
            node = parse_node(raw)
            gone_at = self._gone_at.get(node.agent_pool, 0.0)
            if node.agent_pool not in self._azure.pools and self._world.loop.time() - gone_at > _NOTICED:
                yield f"Node {node.name} is there and its agent pool is not"
            deleted = parse_time(raw["metadata"].get("deletionTimestamp"))
            if deleted is not None and self._world.now() - deleted > _DELETION:
                yield f"Node {node.name} is still being deleted"
        for claim in claims.values():
            yield from self._unrest_of(claim)

    def _unrest_of(self, claim: NodeClaim) -> Iterator[str]:
        if not claim.is_managed:
            return
        pools = [pool for pool in self._own_pools() if pool.uid == claim.uid]
        if claim.deleted is not None:
            if self._world.now() - claim.deleted > _DELETION:
                yield f"claim {claim.name} is still being deleted"
            return
        if len(pools) > 1:
            yield f"claim {claim.name} has several agent pools: {', '.join(pool.name for pool in pools)}"
        if claim.is_true(LAUNCHED) and not pools:
            yield f"claim {claim.name} is launched and has no agent pool"
        nodes = [node for pool in pools for node in self._nodes_of(pool)]
        if len(nodes) > 1:
            yield f"claim {claim.name} has several Nodes"
        if not claim.is_true(READY):
            yield from self._unmet_of(claim, pools, nodes)

    def _unmet_of(self, claim: NodeClaim, pools: list[Pool], nodes: list[Node]) -> Iterator[str]:
        conditions = {condition.type: condition for condition in claim.conditions}
        unmet = next((conditions.get(kind) for kind in DEPENDENTS if not claim.is_true(kind)), None)
        if unmet is None or unmet.reason == AWAITING_REASON:
            yield f"claim {claim.name} is not Ready and does not say why"
            return
        if unmet.type == LAUNCHED and unmet.reason == CREATING and not pools:
            yield f"claim {claim.name} waits for an agent pool that nobody creates"
        if unmet.type == REGISTERED and self._world.now() - conditions[LAUNCHED].last_transition > _LONG:
            yield f"claim {claim.name} was launched long ago and has no Node"
        for node in nodes:
            since = self._fit_since.get(node.name)
            if since is not None and self._world.loop.time() - since > _NOTICED and node.created >= claim.created:
                yield f"claim {claim.name} is not Ready ({unmet.reason}), and its Node is"

    # At the end

    def check_nothing_left(self) -> None:
        """Find what is left of claims that were all deleted."""
        left = [
            *(f"claim {raw['metadata']['name']}" for raw in self._objects.all(CLAIMS)),
            *(f"agent pool {pool.name}" for pool in self._own_pools()),
            *(
                f"Node {node.name}"
                for node in map(parse_node, self._objects.all(NODES))
                if not self._is_foreign(node.agent_pool)
            ),
        ]
        if left:
            self._world.violate(f"all claims were deleted, and there is still {', '.join(left)}")

    def _own_pools(self) -> list[Pool]:
        return [pool for pool in self._azure.pools.values() if not pool.is_foreign]

    def _is_foreign(self, name: str) -> bool:
        pool = self._azure.pools.get(name)
        return pool is not None and pool.is_foreign

    def _claim_of(self, pool: Pool) -> NodeClaim | None:
        found: Raw | None = next((raw for raw in self._objects.all(CLAIMS) if raw["metadata"]["uid"] == pool.uid), None)
        return parse_nodeclaim(found) if found else None

    def _nodes_of(self, pool: Pool) -> list[Node]:
        nodes = map(parse_node, self._objects.all(NODES))
        return [node for node in nodes if node.agent_pool == pool.name]


def _is_there(node: Node) -> bool:
    """Tell whether nobody has an objection to the Node: one that somebody deletes takes its claim along."""
    return node.is_ready and not node.is_deleting
