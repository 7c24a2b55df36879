"""Nodes that somebody has deleted: their claim goes with them, and none hangs that is no claim's."""

from datetime import timedelta
from typing import Any

import pytest

from provisioner.apis import names
from provisioner.apis.nodeclaim import NodeClaim
from provisioner.nodeclaim.node_deletion import NodeStep, on_node
from tests.unit.builders import (
    CREATED,
    NAME,
    NOW,
    UID,
    Listed,
    claim,
    listed,
    node,
    peers_pool,
    pool,
    provider_id,
    recorded_claim,
    users_pool,
)

LATER = timedelta(seconds=5)
CLASS = {names.NODECLASS_LABEL: "default"}
FOREIGN = {"group": "karpenter.azure.com", "kind": "AKSNodeClass", "name": "default"}


def launched(**changes: Any) -> NodeClaim:
    return recorded_claim(**{"status": {"providerID": provider_id(NAME)}, **changes})


def look(*claims: NodeClaim, pools: Listed | None = None, **changes: Any) -> NodeStep:
    """Look at a deleted Node that our finalizer holds."""
    usual: dict[str, Any] = {"deleting": True, "finalizers": [names.TERMINATION_FINALIZER], "labels": CLASS}
    gone = node(**{**usual, **changes})
    return on_node(gone, claims=claims, pools=pools if pools is not None else listed(pool()))


@pytest.mark.parametrize("owner", [UID, None], ids=["its owner", "of its VM"])
def test_claim_of_a_deleted_node_is_deleted(owner: str | None) -> None:
    mine = launched()
    step = look(mine, launched(name="other", uid="u2", status={}), owner=owner, labels={})
    assert step == NodeStep(delete_claim=mine, again_after=LATER)


def test_claim_that_is_being_deleted_takes_its_node_with_it() -> None:
    assert look(launched(deleted=NOW), owner=UID) == NodeStep(again_after=LATER)


@pytest.mark.parametrize(
    "changes",
    [
        {"deleting": False},
        {"finalizers": []},
        {"finalizers": ["example.com/theirs"]},
        {"labels": {}},
        {"labels": {"karpenter.azure.com/aksnodeclass": "default"}},
        {"labels": {"karpenter.azure.com/aksnodeclass": "default", names.WORKSPACE_LABEL: "ws"}},
    ],
    ids=["not deleted", "not held", "held by others", "of nobody", "of another provider", "of another, for KAITO"],
)
def test_node_that_is_not_ours_is_left_alone(changes: dict[str, Any]) -> None:
    assert look(pools=listed(), **changes) == NodeStep()


def test_node_of_a_claim_of_another_provider_is_left_alone() -> None:
    theirs = launched(nodeClassRef=FOREIGN, labels={})
    assert look(theirs, owner=UID, labels={}, pools=listed()) == NodeStep()


@pytest.mark.parametrize("label", [names.NODECLASS_LABEL, names.WORKSPACE_LABEL, names.RAGENGINE_LABEL])
@pytest.mark.parametrize(
    "pools",
    [listed(), listed(pool(state="Deleting")), listed(users_pool())],
    ids=["without a pool", "of a pool that goes", "of somebody's pool"],
)
def test_node_whose_claim_is_gone_is_let_go(label: str, pools: Listed) -> None:
    assert look(pools=pools, labels={label: "x"}) == NodeStep(release=True)


def test_node_of_no_scale_set_is_let_go() -> None:
    assert look(provider_id="", pools=listed(unknown=[NAME])) == NodeStep(release=True)


@pytest.mark.parametrize("mine", [pool(), peers_pool()], ids=["ours", "the peer's"])
def test_node_whose_claim_is_gone_stays_while_its_vm_runs(mine: Any) -> None:
    assert look(pools=listed(mine)) == NodeStep(again_after=LATER)


def test_node_stays_until_it_is_known_whether_its_vm_runs() -> None:
    assert look(pools=listed(unknown=[NAME])) == NodeStep(refresh=True, again_after=LATER)


@pytest.mark.parametrize(
    "newer",
    [
        launched(created=CREATED + timedelta(hours=1), uid="u2"),
        launched(status={}, uid="u2"),
        claim("unrelated", uid="u2"),
    ],
    ids=["of the same VM", "of the same pool", "of another"],
)
def test_leftover_of_an_earlier_vm_is_let_go_while_the_pool_serves_another_claim(newer: NodeClaim) -> None:
    assert look(newer, pools=listed(pool(uid="u2"))) == NodeStep(release=True)


def test_claim_that_does_not_wait_for_us_holds_no_node() -> None:
    forced = launched(deleted=NOW)
    stripped = claim(deleted=NOW, finalizers=("foregroundDeletion",))
    assert look(forced, owner=UID, pools=listed()).release is False
    assert look(stripped, owner=UID, pools=listed()) == NodeStep(release=True)


# More than one claim


def test_owner_is_the_claim_whatever_others_say() -> None:
    twin = launched(name="twin", uid="u2")
    assert look(twin, launched(), owner=UID).delete_claim == launched()


def test_claim_that_the_pool_was_made_for_is_the_one() -> None:
    twin = launched(name="twin", uid="u2")
    assert look(twin, launched(), pools=listed(pool(uid="u2"))).delete_claim == twin


@pytest.mark.parametrize("pools", [listed(), listed(users_pool()), listed(pool(uid="u3"))])
def test_node_of_several_claims_is_let_go_and_none_of_them_deleted(pools: Listed) -> None:
    assert look(launched(), launched(name="twin", uid="u2"), pools=pools) == NodeStep(release=True)
