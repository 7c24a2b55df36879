"""Garbage: agent pools whose claim is gone, and claims whose agent pool is gone. Pure.

Each judgement needs its lists in the right order. A claim exists before its pool, so a pool on the earlier list without
a claim on the later one has lost it for good. A pool exists before its claim is launched, so a claim has lost its pool
only where it was launched before the pools were listed: the pool of one that was launched since may have come since.
"""

from collections.abc import Collection, Iterable, Mapping

from provisioner.apis.agentpool import AgentPool, pool_of_provider_id, resource_group_of_provider_id
from provisioner.apis.conditions import LAUNCHED
from provisioner.apis.node import Node
from provisioner.apis.nodeclaim import NodeClaim


def orphaned_pools(
    pools: Iterable[AgentPool], *, claim_uids: Collection[str], claim_names: Collection[str]
) -> list[AgentPool]:
    """Return the pools that were made for a claim which no longer exists; a user's own pool never is one.

    `claim_uids` and `claim_names` are of all claims in the cluster, whether we can read or serve them or not.
    """
    orphans = []
    for pool in pools:
        if pool.is_deleting:
            continue
        if pool.claim_uid:
            if pool.claim_uid not in claim_uids:
                orphans.append(pool)
        elif pool.is_peers and pool.name not in claim_names:
            orphans.append(pool)
    return sorted(orphans, key=lambda pool: pool.name)


def lost_claims(
    claims: Iterable[NodeClaim],
    *,
    launched_before: Collection[str],
    pools: Mapping[str, AgentPool],
    nodes: Mapping[str, Iterable[Node]],
) -> list[NodeClaim]:
    """Return the launched claims whose VM cannot exist any more, as its pool does not.

    `launched_before` has the UIDs of the claims that were launched before the list of `pools` was asked for.
    Judged by the providerID, never by the claim's name: a claim that points at another VM is garbage even where a pool
    of its name exists. `nodes` maps lower-cased providerIDs to Nodes. A Ready Node proves that the VM lives, whatever
    Azure's list says.
    """
    lost = []
    for claim in claims:
        if claim.uid not in launched_before or claim.is_deleting or not claim.provider_id:
            continue
        if pool_of_provider_id(claim.provider_id) in pools:
            continue
        if any(node.is_ready for node in nodes.get(claim.provider_id.lower(), ())):
            continue
        lost.append(claim)
    return sorted(lost, key=lambda claim: claim.name)


def launched(claims: Iterable[NodeClaim]) -> frozenset[str]:
    """Return the UIDs of our claims that are launched."""
    return frozenset(claim.uid for claim in claims if claim.is_managed and claim.is_true(LAUNCHED))


def is_same_cluster(nodes: Iterable[Node], *, subscription_id: str, node_resource_group: str) -> bool:
    """Tell whether the Kubernetes cluster we watch is the AKS cluster whose pools we list.

    With a kubeconfig of another cluster every pool looks orphaned. Each AKS cluster has a system pool, so at least one
    Node's providerID lies in the cluster's node resource group; without that proof nothing may be collected.
    """
    if not subscription_id or not node_resource_group:
        return False
    group = f"/subscriptions/{subscription_id}/resourceGroups/{node_resource_group}".lower()
    return any(resource_group_of_provider_id(node.provider_id) == group for node in nodes)
