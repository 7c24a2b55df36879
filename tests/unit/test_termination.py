"""Termination: a deleted claim is held until nothing of it is left in Azure, whatever stage it had reached."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from typing import Any, NoReturn

import pytest

from provisioner.apis import names
from provisioner.apis.agentpool import AgentPool
from provisioner.apis.conditions import DEPENDENTS, INSTANCE_TERMINATING, READY
from provisioner.apis.failure import FailureClass
from provisioner.apis.node import Node
from provisioner.apis.nodeclaim import NodeClaim
from provisioner.nodeclaim.agentpool_spec import pool_name
from provisioner.nodeclaim.termination import nodes_to_read, terminate
from provisioner.nodeclaim.view import DeletePool, Draft, NodeLoad, View
from tests.unit.builders import (
    CREATED,
    GPU_TAINT,
    NAME,
    NOW,
    UID,
    Listed,
    claim,
    failure,
    listed,
    node,
    peers_pool,
    pool,
    provider_id,
    reached,
    recorded_claim,
    setback,
    users_pool,
    view,
)

DISRUPTED = {"key": "karpenter.sh/disrupted", "effect": "NoSchedule"}
HASHED = pool_name(NAME, alternative=True)
READY_STATUS = {
    "providerID": provider_id(NAME),
    "nodeName": node().name,
    "conditions": reached(*DEPENDENTS, READY),
}


def deleted(**changes: Any) -> NodeClaim:
    return recorded_claim(deleted=NOW, **changes)


def after(view: View) -> Draft:
    """Reconcile with empty loads of the Nodes that are asked about."""
    view = replace(view, loads={node.name: NodeLoad(pods=()) for node in nodes_to_read(view)} | dict(view.loads))
    draft = Draft(conditions=view.claim.condition_set(now=view.now))
    terminate(view, draft)
    return draft


def isolated(**changes: Any) -> Node:
    """Return a Node that was deleted, waits for our finalizer and gets no new pods."""
    labels = {names.EXCLUDE_FROM_BALANCERS_LABEL: "karpenter"}
    held: dict[str, Any] = {"deleting": True, "finalizers": [names.TERMINATION_FINALIZER], "owner": UID}
    return node(**{**held, "labels": labels, "taints": [GPU_TAINT, DISRUPTED], **changes})


def terminating(draft: Draft) -> tuple[str, str, str] | None:
    found = draft.conditions.get(INSTANCE_TERMINATING)
    return (found.status, found.reason, found.message) if found else None


@pytest.mark.parametrize("state", ["Creating", "Updating", "Succeeded", "Failed", "Canceled", "SomethingNew"])
@pytest.mark.parametrize("status", [{}, READY_STATUS], ids=["before it launched", "when it was ready"])
def test_pool_is_deleted_whatever_state_it_and_the_claim_are_in(state: str, status: dict[str, Any]) -> None:
    draft = after(view(deleted(status=status), isolated(), pools=listed(pool(state=state))))
    assert draft.azure == DeletePool(name=NAME)
    assert (draft.release, draft.deleted_nodes) == (False, ())
    # To be written when Azure has accepted it.
    assert terminating(draft) == ("True", "InstanceTerminating", f"Azure is deleting agent pool {NAME}.")
    assert draft.status_follows


def test_claim_waits_while_its_pool_goes() -> None:
    draft = after(view(deleted(), node(), pools=listed(pool(state="Deleting"))))
    assert (draft.azure, draft.release, draft.deleted_nodes) == (None, False, ())
    assert terminating(draft) == ("True", "InstanceTerminating", f"Azure is deleting agent pool {NAME}.")
    assert draft.again_after == timedelta(seconds=30)


def test_claim_goes_with_its_node_when_the_pool_is_gone() -> None:
    left = node(ready="Unknown")
    draft = after(view(deleted(status=READY_STATUS), left))
    assert draft.deleted_nodes == (left,)
    assert draft.release


def test_node_that_the_peers_finalizer_holds_is_let_go_too() -> None:
    held = node(deleting=True, ready="Unknown", finalizers=[names.TERMINATION_FINALIZER])
    assert after(view(deleted(status=READY_STATUS), held)).deleted_nodes == (held,)


def test_claim_that_never_got_anywhere_goes_at_once() -> None:
    draft = after(view(deleted()))
    assert (draft.azure, draft.deleted_nodes, draft.release) == (None, (), True)


def test_claim_whose_spec_cannot_be_read_goes_as_any_other() -> None:
    unreadable = deleted(taints=[{"effect": "?"}])
    assert unreadable.spec is None
    assert after(view(unreadable, pools=listed(pool()))).azure == DeletePool(name=NAME)
    assert after(view(unreadable)).release


# All that is the claim's, and nothing else


@pytest.mark.parametrize(
    "mine",
    [pool(), pool("other", owner=NAME), pool(HASHED, owner=NAME), peers_pool(), peers_pool(kaito=False)],
    ids=["recorded", "not recorded", "alternative", "the peer's", "the peer's, not for KAITO"],
)
def test_every_pool_of_the_claim_is_found_under_whatever_name(mine: AgentPool) -> None:
    assert after(view(claim(deleted=NOW), pools=listed(mine))).azure == DeletePool(name=mine.name)


def test_two_pools_of_one_claim_go_one_after_the_other() -> None:
    both = {NAME: pool(), HASHED: pool(HASHED, owner=NAME)}
    first = after(view(deleted(), pools=listed(*both.values())))
    assert first.azure is not None
    both[first.azure.name] = pool(first.azure.name, owner=NAME, state="Deleting")
    second = after(view(deleted(), pools=listed(*both.values())))
    assert second.azure is not None
    assert {first.azure.name, second.azure.name} == {NAME, HASHED}
    going = after(view(deleted(), pools=listed(*(pool(name, owner=NAME, state="Deleting") for name in both))))
    assert going.azure is None
    assert not going.release


class Unread(Mapping[str, AgentPool]):
    """Pools by name that nobody goes through."""

    def __init__(self, pools: Mapping[str, AgentPool]) -> None:
        self._pools = pools

    def __getitem__(self, name: str) -> AgentPool:
        return self._pools[name]

    def __iter__(self) -> NoReturn:
        raise AssertionError("a look at one claim goes through all pools")

    def __len__(self) -> int:
        return len(self._pools)


class LargeList(Listed):
    @property
    def pools(self) -> Mapping[str, AgentPool]:
        return Unread(self.known)


@pytest.mark.parametrize(
    ("mine", "goes"),
    [
        ([], ()),
        ([pool(HASHED, owner=NAME)], (HASHED,)),
        ([peers_pool()], (NAME,)),
        ([peers_pool(), pool("other", owner=NAME)], ("other", NAME)),
    ],
    ids=["none", "tagged", "the peer's", "both"],
)
def test_look_at_one_claim_does_not_go_through_the_pools_of_all(mine: list[AgentPool], goes: tuple[str, ...]) -> None:
    others = [pool(f"p{number}", uid=f"uid-{number}") for number in range(9)]
    pools = LargeList({pool.name: pool for pool in [*others, *mine]})
    for name in goes:
        assert after(view(deleted(), node(), pools=pools)).azure == DeletePool(name=name)
        pools.known[name] = replace(pools.known[name], state="Deleting")
    for name in goes:
        assert not after(view(deleted(), node(), pools=pools)).release
        del pools.known[name]
    assert after(view(deleted(), node(), pools=pools)).release


@pytest.mark.parametrize(
    "foreign",
    [users_pool(), pool(uid="another-claim"), peers_pool(created=CREATED - timedelta(days=1)), peers_pool("twin")],
    ids=["a user's", "another claim's", "the peer's for an older claim", "the peer's for one of the same second"],
)
def test_pool_that_is_not_the_claims_is_left_alone_and_so_are_its_nodes(foreign: AgentPool) -> None:
    draft = after(
        view(claim(deleted=NOW, finalizers=(names.TERMINATION_FINALIZER,)), node(foreign.name), pools=listed(foreign))
    )
    assert (draft.azure, draft.deleted_nodes) == (None, ())
    assert draft.release


def test_node_that_somebody_wrote_into_the_claims_status_is_left_alone_while_its_pool_stands() -> None:
    victim = node("system")
    status = {**READY_STATUS, "providerID": victim.provider_id}
    draft = after(view(deleted(status=status), victim, pools=listed(users_pool("system"))))
    assert draft.deleted_nodes == ()
    assert draft.release


@pytest.mark.parametrize(
    "other",
    [
        node("other"),
        node(deleting=True, finalizers=["example.com/theirs"]),
        node(created=CREATED - timedelta(seconds=1)),
        node(provider_id=""),
    ],
    ids=["of another pool", "going already", "older than the claim", "without a VM"],
)
def test_only_the_claims_own_node_goes_with_it(other: Node) -> None:
    draft = after(view(deleted(), other))
    assert draft.deleted_nodes == ()
    assert draft.release


# Doubt


@pytest.mark.parametrize("doubtful", [NAME, HASHED, "recorded"])
def test_claim_is_held_while_a_pool_of_it_may_exist(doubtful: str) -> None:
    draft = after(view(deleted(pool="recorded"), node(), pools=listed(unknown=[doubtful])))
    assert (draft.release, draft.deleted_nodes, draft.azure) == (False, (), None)
    assert draft.refresh
    assert draft.again_after is not None, "whatever the inventory tells of in the end, the claim is looked at"
    assert terminating(draft) is None


def test_claim_asks_about_every_pool_that_may_be_its_own() -> None:
    """The inventory tells of the names that it was asked about: with only another one of them the claim sleeps on."""
    mine = {"recorded", NAME, HASHED}
    pools = listed(unknown=mine)
    assert after(view(deleted(pool="recorded"), pools=pools)).refresh
    assert pools.asked == mine


def test_claim_is_held_while_a_pool_of_an_earlier_run_may_not_be_listed_yet() -> None:
    young = Listed(is_settled=False)
    draft = after(view(deleted(), node(), pools=young))
    assert (draft.release, draft.deleted_nodes) == (False, ())
    assert draft.refresh
    assert draft.again_after == timedelta(seconds=1)


def test_claim_that_may_have_asked_for_a_pool_is_held_until_a_list_is_newer_than_its_deletion() -> None:
    """What was asked for without an answer may have taken effect since the last one."""
    stale = Listed(confirmed=False)
    draft = after(view(deleted(pool="recorded"), node(), pools=stale))
    assert (draft.release, draft.deleted_nodes, draft.azure) == (False, (), None)
    assert draft.refresh
    assert draft.again_after is not None
    assert "recorded" in stale.asked
    never_asked = claim(deleted=NOW, finalizers=(names.TERMINATION_FINALIZER,))
    assert after(view(never_asked, pools=stale)).release, "no name of a pool is recorded, so none was asked for"


def test_list_newer_than_the_deletion_is_asked_for_before_the_pool_is_gone() -> None:
    pools = Listed(known={NAME: pool()}, confirmed=False)
    assert after(view(deleted(pool=NAME), pools=pools)).azure == DeletePool(name=NAME)
    assert NAME in pools.asked


def test_failing_list_is_what_the_deleted_claim_shows() -> None:
    broken = failure(FailureClass.AUTH, "The identity may not list agent pools.")
    draft = after(view(deleted(), pools=listed(unknown=[NAME], failure=broken)))
    assert terminating(draft) == ("Unknown", "AuthorizationFailed", "The identity may not list agent pools.")
    assert not draft.release


# A refusal of Azure's


@pytest.mark.parametrize(("wait", "looked_at"), [(20, 20), (600, 30)])
def test_refused_deletion_is_shown_and_waited_out(wait: int, looked_at: int) -> None:
    refused = setback(DeletePool, wait=timedelta(seconds=wait), kind=FailureClass.CONFLICT)
    draft = after(view(deleted(), pools=listed(pool()), setback=refused))
    assert terminating(draft) == ("Unknown", "OperationInProgress", refused.failure.message)
    assert draft.azure is None
    assert draft.again_after == timedelta(seconds=looked_at)


def test_after_the_wait_the_pool_is_deleted_again() -> None:
    refused = setback(DeletePool, wait=timedelta(0))
    assert after(view(deleted(), pools=listed(pool()), setback=refused)).azure == DeletePool(name=NAME)


def test_refused_creation_does_not_hold_a_deletion_up() -> None:
    refused = setback(wait=timedelta(hours=1))
    assert after(view(deleted(), pools=listed(pool(state="Creating")), setback=refused)).azure == DeletePool(name=NAME)
