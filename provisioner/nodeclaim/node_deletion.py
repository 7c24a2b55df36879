"""Deleted Nodes: the claim of such a Node goes with it; where there is none, nothing but our finalizer holds it. Pure.

A claim's termination drains the Node, deletes its VM and lets it go. Here is only what a claim does not see.
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from provisioner.apis import names
from provisioner.apis.agentpool import AgentPool, pool_of_provider_id
from provisioner.apis.node import Node
from provisioner.apis.nodeclaim import NodeClaim
from provisioner.azure.inventory import Lookup
from provisioner.nodeclaim.garbage import orphaned_pools
from provisioner.nodeclaim.view import Pools

# While a deleted Node is there it is looked at so often; that asks nobody anything.
_LOOK_AGAIN: Final = timedelta(seconds=5)


@dataclass(frozen=True, kw_only=True)
class NodeStep:
    """What is to be done about a Node: its claim deleted, or our finalizer taken off it."""

    delete_claim: NodeClaim | None = None
    release: bool = False
    again_after: timedelta | None = None
    refresh: bool = False


def on_node(node: Node, *, claims: Collection[NodeClaim], pools: Pools) -> NodeStep:
    """Return the next step for a Node; an empty one where it is not being deleted, or not held by us.

    `claims` are all of the cluster.
    """
    if not node.is_deleting or names.TERMINATION_FINALIZER not in node.finalizers:
        return NodeStep()
    name = pool_of_provider_id(node.provider_id)
    mine = _claims_of(node, claims)
    if len(mine) > 1 and (pool := pools.pools.get(name)) is not None and pool.claim_uid:
        mine = [claim for claim in mine if claim.uid == pool.claim_uid] or mine
    if len(mine) == 1:
        # One that is being deleted takes the Node with it; if it does not, it will be gone when this looks again.
        return NodeStep(delete_claim=None if mine[0].is_deleting else mine[0], again_after=_LOOK_AGAIN)
    if not mine and not _is_ours(node):
        return NodeStep()
    if not mine and name:
        state = pools.lookup(name)
        if state is Lookup.UNKNOWN:
            return NodeStep(refresh=True, again_after=_LOOK_AGAIN)
        if isinstance(state, AgentPool) and _is_orphaned(state, claims):
            # Its VM runs, until the garbage collector has the pool deleted.
            return NodeStep(again_after=_LOOK_AGAIN)
    return NodeStep(release=True)


def _claims_of(node: Node, claims: Iterable[NodeClaim]) -> list[NodeClaim]:
    """Return the claims that the Node is for: its owners, else those of its VM. Several are one too many."""
    provider_id = node.provider_id.lower()
    managed = [claim for claim in claims if claim.is_managed and not (claim.is_deleting and not claim.has_finalizer)]
    owners = [claim for claim in managed if claim.uid in node.owner_uids]
    return owners or [
        claim
        for claim in managed
        # A Node older than the claim is the leftover of an earlier VM of that name.
        if provider_id and claim.provider_id.lower() == provider_id and node.created >= claim.created
    ]


def _is_ours(node: Node) -> bool:
    """Tell whether the Node was a claim's of this provider: other Karpenter providers put the same finalizer on."""
    if any(label.endswith("nodeclass") and label != names.NODECLASS_LABEL for label in node.labels):
        return False
    return any(label in node.labels for label in (names.NODECLASS_LABEL, *names.KAITO_OWNER_LABELS))


def _is_orphaned(pool: AgentPool, claims: Iterable[NodeClaim]) -> bool:
    uids, claim_names = {claim.uid for claim in claims}, {claim.name for claim in claims}
    return bool(orphaned_pools([pool], claim_uids=uids, claim_names=claim_names))
