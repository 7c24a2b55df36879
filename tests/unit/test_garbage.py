"""Garbage: pools that have lost their claim and claims that have lost their pool, and nothing that is in doubt."""

from datetime import timedelta
from typing import Any

import pytest

from provisioner.apis import names
from provisioner.apis.agentpool import AgentPool
from provisioner.apis.conditions import LAUNCHED, REGISTERED
from provisioner.apis.node import Node
from provisioner.apis.nodeclaim import NodeClaim
from provisioner.nodeclaim import garbage
from provisioner.nodeclaim.garbage import is_same_cluster, lost_claims, orphaned_pools
from tests.unit.builders import (
    CREATED,
    NAME,
    NOW,
    UID,
    claim,
    condition,
    node,
    peers_pool,
    pool,
    provider_id,
    reached,
    users_pool,
)

SUBSCRIPTION = "0b1f6471-1bf0-4dda-aec3-cb9272f09590"
GROUP = f"/subscriptions/{SUBSCRIPTION}/resourceGroups/mc_rg_aks_eastus"

# Pools


@pytest.mark.parametrize(
    ("standing", "is_orphaned"),
    [
        (pool(uid="gone"), True),
        (pool(uid="gone", state="Failed"), True),
        (pool(uid="gone", state="Creating"), True),
        (pool(uid="gone", state="Deleting"), False),
        (pool("other", uid="gone", owner=NAME), True),
        (pool(uid=UID), False),
        (pool("other", uid=UID, owner=NAME), False),
        (peers_pool("gone"), True),
        (peers_pool("gone", state="Deleting"), False),
        (peers_pool(NAME), False),
        (peers_pool(NAME, created=CREATED - timedelta(days=1)), False),
        (peers_pool("gone", kaito=False), False),
        (users_pool("gone"), False),
        (users_pool("gone", state="Failed"), False),
        (users_pool("gone", **{names.WORKSPACE_LABEL: "w", names.NODEPOOL_LABEL: "kaito"}), False),
    ],
    ids=[
        "its claim is gone",
        "its claim is gone, failed",
        "its claim is gone, still created",
        "its claim is gone, going already",
        "an earlier claim of a name that lives",
        "its claim lives",
        "its claim lives, another name",
        "peer's, its claim is gone",
        "peer's, going already",
        "peer's, its claim lives",
        "peer's, a claim of the name lives",
        "looks like the peer's, not for KAITO",
        "a user's",
        "a user's, failed",
        "a user's with some of the peer's labels",
    ],
)
def test_pool_is_orphaned_when_the_claim_it_was_made_for_is_gone(standing: AgentPool, is_orphaned: bool) -> None:
    found = orphaned_pools([standing], claim_uids={UID}, claim_names={NAME})
    assert found == ([standing] if is_orphaned else [])


def test_orphans_stand_by_name() -> None:
    pools = [pool(name, uid="gone") for name in ("c", "a", "b")]
    assert [orphan.name for orphan in orphaned_pools(pools, claim_uids=(), claim_names=())] == ["a", "b", "c"]


# Claims


def launched(*kinds: str, vm: str = provider_id(NAME), **changes: Any) -> NodeClaim:
    return claim(status={"providerID": vm, "conditions": reached(LAUNCHED, *kinds)}, **changes)


def lost(claim: NodeClaim, *nodes: Node, pools: tuple[AgentPool, ...] = (), before: NodeClaim | None = None) -> bool:
    """Tell whether the claim is lost; `before` is what it was when the pools were listed, which it may be still."""
    by_provider_id: dict[str, list[Node]] = {}
    for joined in nodes:
        by_provider_id.setdefault(joined.provider_id.lower(), []).append(joined)
    found = lost_claims(
        [claim],
        launched_before=garbage.launched([before or claim]),
        pools={pool.name: pool for pool in pools},
        nodes=by_provider_id,
    )
    assert found in ([], [claim])
    return found == [claim]


@pytest.mark.parametrize(
    "gone",
    [
        launched(),
        launched(REGISTERED),
        launched(vm=provider_id("ANOTHER")),
        launched(vm="kind://docker/kind/worker"),
    ],
    ids=["launched", "registered", "another pool's VM", "no VM of Azure's"],
)
def test_launched_claim_is_lost_when_the_pool_of_its_vm_is_gone(gone: NodeClaim) -> None:
    assert lost(gone)
    assert lost(gone, node(ready="Unknown", provider_id=gone.provider_id))


def test_claim_that_was_launched_after_the_pools_were_listed_is_not_lost() -> None:
    assert not lost(launched(), before=claim())
    assert not lost(launched(), node(ready="False"), before=claim())
    # Another claim of that name.
    assert not lost(launched(), before=launched(uid="earlier"))


def test_claim_is_judged_by_its_provider_id_and_not_by_its_name() -> None:
    assert lost(launched(vm=provider_id("elsewhere")), pools=(pool(NAME),))
    assert not lost(launched(vm=provider_id("elsewhere")), pools=(pool("elsewhere", uid="x"),))


@pytest.mark.parametrize("vm", [provider_id(NAME), provider_id(NAME).upper()])
def test_ready_node_proves_that_its_vm_lives(vm: str) -> None:
    assert not lost(launched(vm=vm), node())


@pytest.mark.parametrize("state", ["Succeeded", "Failed", "Deleting", "Updating"])
def test_claim_is_not_lost_while_its_pool_is_listed(state: str) -> None:
    assert not lost(launched(), pools=(pool(state=state),))


@pytest.mark.parametrize(
    "other",
    [
        claim(),
        claim(
            status={
                "providerID": provider_id(NAME),
                "conditions": [condition(LAUNCHED, "Unknown", "CreatingAgentPool")],
            }
        ),
        launched(vm=""),
        launched(deleted=NOW, finalizers=(names.TERMINATION_FINALIZER,)),
        launched(nodeClassRef={"group": "karpenter.azure.com", "kind": "AKSNodeClass"}, labels={}),
    ],
    ids=["new", "being created", "without a VM", "deleted already", "another provider's"],
)
def test_claim_that_is_not_launched_or_not_ours_is_never_lost(other: NodeClaim) -> None:
    assert not lost(other)


# The proof that both lists are of one cluster


@pytest.mark.parametrize(
    ("nodes", "same"),
    [
        ([node()], True),
        ([node(provider_id=""), node("b", provider_id="kind://x"), node("system")], True),
        ([node(provider_id=provider_id("system").replace("mc_rg_aks_eastus", "MC_RG_AKS_EASTUS"))], True),
        ([node(provider_id=provider_id("system").replace("mc_rg_aks_eastus", "mc_other"))], False),
        ([node(provider_id=provider_id("system").replace(SUBSCRIPTION, "another"))], False),
        ([node(provider_id=f"azure://{GROUP}/providers/Microsoft.Compute/virtualMachines/aks-system-1-vm0")], True),
        ([node(provider_id="kind://docker/kind/worker")], False),
        ([node(provider_id="")], False),
        ([], False),
    ],
)
def test_cluster_is_the_same_when_a_node_lies_in_its_node_resource_group(nodes: list[Node], same: bool) -> None:
    group = "MC_rg_aks_eastus"
    assert is_same_cluster(nodes, subscription_id=SUBSCRIPTION, node_resource_group=group) is same


def test_cluster_without_a_known_node_resource_group_is_never_the_same() -> None:
    nodes = [node(), node("b", provider_id="kind://x")]
    assert not is_same_cluster(nodes, subscription_id=SUBSCRIPTION, node_resource_group="")
    assert not is_same_cluster(nodes, subscription_id="", node_resource_group="MC_rg_aks_eastus")
