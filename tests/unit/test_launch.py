"""Launch: a claim gets an agent pool, once, and says what it waits for."""

from datetime import timedelta
from typing import Any

import pytest

from provisioner.apis import names
from provisioner.apis.agentpool import AgentPool, ProvisioningError
from provisioner.apis.conditions import LAUNCHED, REGISTERED
from provisioner.apis.failure import FailureClass
from provisioner.nodeclaim.agentpool_spec import pool_name, render
from provisioner.nodeclaim.launch import launch
from provisioner.nodeclaim.nodeclass import hash_annotations
from provisioner.nodeclaim.view import CreatePool, DeletePool, Draft, FindInstance, View, Waiting
from provisioner.placement.market import OfferKey, Placement, Refusal
from tests.unit.builders import (
    A100,
    CREATED,
    NAME,
    NOW,
    claim,
    condition,
    failure,
    listed,
    node,
    offer_of,
    peers_pool,
    pool,
    provider_id,
    reached,
    recorded_claim,
    requirement,
    setback,
    spec_of,
    users_pool,
    view,
)

HASHED = pool_name(NAME, alternative=True)
OVERCONSTRAINED = ProvisioningError(
    code="OverconstrainedAllocationRequest", message="Allocation failed. There is not enough capacity."
)


def after(view: View) -> Draft:
    """Return what launch makes of the view."""
    draft = Draft(conditions=view.claim.condition_set(now=view.now))
    launch(view, draft)
    return draft


def launched(draft: Draft) -> tuple[str, str]:
    found = draft.conditions.get(LAUNCHED)
    assert found is not None
    return found.status, found.reason


def message(draft: Draft) -> str:
    found = draft.conditions.get(LAUNCHED)
    assert found is not None
    return found.message


# Asking for the pool


def test_new_claim_is_marked_before_its_pool_is_asked_for() -> None:
    new = claim()
    draft = after(view(new))
    assert draft.add_finalizer
    assert draft.annotations == {
        names.AGENT_POOL_ANNOTATION: NAME,
        names.INSTANCE_TYPE_ANNOTATION: A100,
        **hash_annotations(""),
    }
    assert draft.labels[names.INSTANCE_TYPE_LABEL] == A100
    assert draft.labels[names.NODECLASS_LABEL] == "default"
    assert not draft.labels.keys() & new.labels.keys()
    assert draft.azure == CreatePool(name=NAME, body=render(new, spec_of(new), offer_of(new)), offer=offer_of(new))
    assert launched(draft) == ("Unknown", "CreatingAgentPool")
    assert message(draft) == (
        f"Azure is creating agent pool {NAME} ({A100}, on-demand, regional, 87 GiB OS disk). "
        "A GPU node usually joins within 5 to 10 minutes."
    )


def test_spot_zones_and_azures_own_disk_size_are_named() -> None:
    asked = claim(
        storage=None,
        resources={},
        requirements=[
            requirement(names.INSTANCE_TYPE_LABEL, "In", A100),
            requirement(names.CAPACITY_TYPE_LABEL, "In", "spot"),
            requirement(names.ZONE_LABEL, "In", "eastus-1", "eastus-3"),
        ],
    )
    assert f"({A100}, spot, zone 1 or 3, Azure's default OS disk)" in message(after(view(asked)))


def test_claim_whose_name_no_pool_can_have_gets_a_hashed_one() -> None:
    draft = after(view(claim("my-gpu-claim")))
    assert draft.azure is not None
    assert draft.azure.name == draft.annotations[names.AGENT_POOL_ANNOTATION] == pool_name("my-gpu-claim")


def test_recorded_pool_that_is_not_there_is_asked_for_under_its_recorded_name() -> None:
    draft = after(view(recorded_claim(pool="other"), pools=listed(users_pool())))
    assert isinstance(draft.azure, CreatePool)
    assert draft.azure.name == "other"
    assert (draft.annotations, draft.labels, draft.add_finalizer) == (hash_annotations(""), {}, False)


def test_claim_that_has_lost_its_finalizer_gets_it_back_before_a_pool_is_asked_for() -> None:
    draft = after(view(claim(annotations={names.AGENT_POOL_ANNOTATION: NAME})))
    assert draft.add_finalizer
    assert isinstance(draft.azure, CreatePool)


def test_size_that_is_asked_for_anew_replaces_the_one_recorded_before() -> None:
    before = "Standard_NC6s_v3"
    labels = {names.INSTANCE_TYPE_LABEL: before, names.SKU_NAME_LABEL: "written-by-its-author"}
    draft = after(view(recorded_claim(annotations={names.INSTANCE_TYPE_ANNOTATION: before}, labels=labels)))
    assert draft.annotations[names.INSTANCE_TYPE_ANNOTATION] == A100
    assert draft.labels[names.INSTANCE_TYPE_LABEL] == A100
    assert names.SKU_NAME_LABEL not in draft.labels


def test_launched_claim_that_has_lost_our_finalizer_gets_it_again() -> None:
    launched = {"providerID": provider_id(NAME), "conditions": reached(LAUNCHED)}
    assert after(view(claim(status=launched))).add_finalizer
    assert not after(view(recorded_claim(status=launched))).add_finalizer


def test_odd_spelling_is_told_once_when_the_pool_is_recorded() -> None:
    draft = after(view(claim(size=A100.lower())))
    assert [(notice.reason, notice.is_warning) for notice in draft.notices] == [("InstanceTypeNote", False)]
    assert after(view(recorded_claim(size=A100.lower()))).notices == []


# Not asking


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"size": "Standard_NC1_v9"}, "UnknownInstanceType"),
        ({"storage": "4Ti"}, "InvalidStorage"),
        ({"storage": "lots"}, "InvalidSpec"),
        ({"labels": {"kubernetes.azure.com/mode": "system"}}, "InvalidLabel"),
        ({"taints": [{"key": "kubernetes.io/a", "effect": "NoSchedule"}]}, "InvalidTaint"),
    ],
)
def test_claim_that_cannot_be_served_as_it_stands_is_refused_and_looked_at_again(
    changes: dict[str, Any], reason: str
) -> None:
    draft = after(view(claim(**changes)))
    assert launched(draft) == ("False", reason)
    assert message(draft)
    assert (draft.azure, draft.add_finalizer, draft.annotations) == (None, False, {})
    assert draft.again_after == timedelta(hours=1)


def test_refused_claim_is_served_once_it_can_be() -> None:
    refused = claim(status={"conditions": [condition(LAUNCHED, "False", "UnknownInstanceType", "no such size")]})
    draft = after(view(refused))
    assert launched(draft) == ("Unknown", "CreatingAgentPool")
    assert isinstance(draft.azure, CreatePool)


def test_recorded_claim_whose_size_is_gone_says_so_instead_of_creating() -> None:
    draft = after(view(recorded_claim(size="Standard_NC1_v9")))
    assert launched(draft) == ("False", "UnknownInstanceType")
    assert draft.azure is None


def test_recorded_claim_whose_size_is_gone_keeps_the_pool_that_it_has() -> None:
    draft = after(view(recorded_claim(size="Standard_NC1_v9"), node(), pools=listed(pool())))
    assert launched(draft) == ("True", "Launched")


@pytest.mark.parametrize(
    "changes",
    [
        {"pools": listed(unknown=[NAME])},
        {"is_region_known": False},
        {"is_region_known": False, "pools": listed(pool())},
    ],
    ids=["pools not listed", "region not known", "region not known though the pool is"],
)
def test_nothing_is_done_before_pools_and_region_are_known(changes: dict[str, Any]) -> None:
    draft = after(view(claim(), **changes))
    assert launched(draft) == ("Unknown", "AwaitingReconciliation")
    assert (draft.azure, draft.add_finalizer, draft.refresh) == (None, False, True)


BROKEN = failure(FailureClass.AUTH, "The identity may not do this.")


@pytest.mark.parametrize(
    "changes",
    [
        {"pools": listed(unknown=[NAME], failure=BROKEN)},
        {"is_region_known": False, "region_failure": BROKEN},
    ],
    ids=["pools cannot be listed", "cluster cannot be read"],
)
def test_what_keeps_azure_from_being_read_is_what_the_claim_shows(changes: dict[str, Any]) -> None:
    draft = after(view(claim(), **changes))
    assert launched(draft) == ("Unknown", "AuthorizationFailed")
    assert message(draft) == "The identity may not do this."


# A refusal of Azure's


def test_refusal_is_shown_and_waited_out() -> None:
    draft = after(view(recorded_claim(), setback=setback(CreatePool, wait=timedelta(minutes=3))))
    assert launched(draft) == ("Unknown", "QuotaExceeded")
    assert message(draft) == "24 vCPUs needed, 0 left."
    assert draft.azure is None
    assert draft.again_after == timedelta(minutes=3)


def test_after_the_wait_the_pool_is_asked_for_again_and_the_refusal_still_shown() -> None:
    draft = after(view(recorded_claim(), setback=setback(CreatePool, wait=timedelta(0))))
    assert launched(draft) == ("Unknown", "QuotaExceeded")
    assert isinstance(draft.azure, CreatePool)


def test_refusal_is_forgotten_as_soon_as_azure_is_creating() -> None:
    draft = after(view(recorded_claim(), pools=listed(pool(state="Creating")), setback=setback(CreatePool)))
    assert launched(draft) == ("Unknown", "CreatingAgentPool")
    assert draft.azure is None


# The pool exists


@pytest.mark.parametrize("state", ["Creating", "Updating", "Scaling", "SomethingNew"])
def test_pool_at_work_is_waited_for(state: str) -> None:
    draft = after(view(recorded_claim(), pools=listed(pool(state=state))))
    assert launched(draft) == ("Unknown", "CreatingAgentPool")
    assert (draft.azure, draft.status) == (None, {})


@pytest.mark.parametrize("state", ["Creating", "Updating", "Succeeded", "Failed"])
def test_node_that_has_joined_is_a_launched_claim_whatever_azure_still_does(state: str) -> None:
    draft = after(view(recorded_claim(), node(ready="False"), pools=listed(pool(state=state))))
    assert launched(draft) == ("True", "Launched")
    assert draft.status == {"providerID": provider_id(NAME)}
    assert draft.settled
    assert draft.azure is None


@pytest.mark.parametrize(
    ("waiting", "again_after"),
    [
        (None, 10),
        (Waiting(what="Azure", since=NOW - timedelta(minutes=5)), 10),
        (Waiting(what="Node", since=NOW - timedelta(seconds=8)), 2),
    ],
    ids=["first look", "done just now", "not yet"],
)
def test_node_of_a_finished_pool_is_given_moments_to_join(waiting: Waiting | None, again_after: int) -> None:
    draft = after(view(recorded_claim(), pools=listed(pool()), waiting=waiting))
    assert launched(draft) == ("Unknown", "CreatingAgentPool")
    assert draft.azure is None
    assert draft.again_after == timedelta(seconds=again_after)


def test_finished_pool_without_a_node_has_its_vm_looked_up() -> None:
    waiting = Waiting(what="Node", since=NOW - timedelta(seconds=10))
    draft = after(view(recorded_claim(), pools=listed(pool()), waiting=waiting))
    assert launched(draft) == ("Unknown", "CreatingAgentPool")
    assert draft.azure == FindInstance(name=NAME)
    assert draft.again_after == timedelta(seconds=15)


def test_finished_pool_is_launched_by_its_vm_before_the_node_joins() -> None:
    vm = provider_id(NAME)
    draft = after(view(recorded_claim(), pools=listed(pool()), instance_id=vm))
    assert launched(draft) == ("True", "Launched")
    assert draft.status == {"providerID": vm}


@pytest.mark.parametrize("state", ["Creating", "Deleting"])
def test_vm_of_a_pool_that_is_not_finished_counts_for_nothing(state: str) -> None:
    draft = after(view(recorded_claim(), pools=listed(pool(state=state)), instance_id=provider_id(NAME)))
    assert draft.status == {}


def test_node_older_than_the_claim_is_none_of_its() -> None:
    left_over = node(created=CREATED - timedelta(seconds=1))
    draft = after(view(recorded_claim(), left_over, pools=listed(pool(state="Creating"))))
    assert launched(draft) == ("Unknown", "CreatingAgentPool")


@pytest.mark.parametrize("vm", ["", provider_id("other"), "kind://docker/kind/x"])
def test_node_of_another_pool_or_of_no_vm_is_none_of_its(vm: str) -> None:
    draft = after(view(recorded_claim(), node(provider_id=vm), pools=listed(pool(state="Creating"))))
    assert launched(draft) == ("Unknown", "CreatingAgentPool")


def test_oldest_of_several_nodes_is_the_claims() -> None:
    younger = node(number=0, created=CREATED + timedelta(minutes=9))
    draft = after(view(recorded_claim(), younger, node(number=1), pools=listed(pool())))
    assert draft.status == {"providerID": provider_id(NAME, number=1)}


def test_launched_claim_is_never_launched_again() -> None:
    done = recorded_claim(
        status={"providerID": provider_id("gone"), "conditions": reached(LAUNCHED)}, requirements=[], generation=2
    )
    draft = after(view(done, node(), pools=listed(pool(state="Failed")), setback=setback()))
    assert launched(draft) == ("True", "Launched")
    assert (draft.status, draft.azure, draft.annotations, draft.settled) == ({}, None, {}, True)
    found = draft.conditions.get(LAUNCHED)
    assert found is not None
    assert found.observed_generation == 2


# The pool has failed


def test_failed_pool_is_deleted_and_everybody_told_what_could_not_be_had() -> None:
    draft = after(view(recorded_claim(), pools=listed(pool(state="Failed", error=OVERCONSTRAINED))))
    assert launched(draft) == ("Unknown", "InsufficientCapacity")
    assert draft.azure == DeletePool(name=NAME)
    assert draft.unavailable is not None
    assert draft.unavailable.keys == (OfferKey(size=A100.lower(), zone="0", capacity_type="on-demand"),)
    assert message(draft) == draft.unavailable.failure.message != ""
    assert draft.setback is None


def test_failure_that_says_nothing_about_the_size_sets_back_this_claim_alone() -> None:
    draft = after(view(recorded_claim(), pools=listed(pool(state="Failed", error=None))))
    assert launched(draft) == ("Unknown", "AzureError")
    assert draft.azure == DeletePool(name=NAME)
    assert draft.unavailable is None
    assert draft.setback is not None
    assert message(draft) == draft.setback.message != ""


def test_failed_pool_is_not_deleted_again_before_azure_wants_to_be_asked() -> None:
    refused = setback(DeletePool, wait=timedelta(minutes=2), kind=FailureClass.CONFLICT)
    draft = after(view(recorded_claim(), pools=listed(pool(state="Failed", error=OVERCONSTRAINED)), setback=refused))
    assert (draft.azure, draft.setback) == (None, None)
    assert draft.again_after == timedelta(minutes=2)


def test_cause_is_still_shown_while_the_failed_pool_goes() -> None:
    going = listed(pool(state="Deleting"))
    draft = after(view(recorded_claim(), pools=going, setback=setback(kind=FailureClass.CAPACITY)))
    assert launched(draft) == ("Unknown", "InsufficientCapacity")
    assert draft.azure is None


# The pool is being deleted


@pytest.mark.parametrize(
    ("stored", "expected"),
    [
        ([], "AgentPoolDeleting"),
        ([condition(LAUNCHED, "Unknown", "CreatingAgentPool")], "AgentPoolDeleting"),
        ([condition(LAUNCHED, "Unknown", "InsufficientCapacity", "no room")], "InsufficientCapacity"),
    ],
    ids=["new", "while it was created", "after a failure, told by an earlier run"],
)
def test_pool_that_goes_is_waited_for_even_where_a_node_has_joined(stored: list[dict[str, Any]], expected: str) -> None:
    waiting = recorded_claim(status={"conditions": stored})
    draft = after(view(waiting, node(), pools=listed(pool(state="Deleting"))))
    assert launched(draft) == ("Unknown", expected)
    assert (draft.azure, draft.status) == (None, {})


# The pool is not the claim's


@pytest.mark.parametrize(
    "foreign",
    [
        users_pool(),
        users_pool(state="Failed"),
        users_pool(state="Deleting"),
        users_pool(**{names.WORKSPACE_LABEL: "w", names.NODEPOOL_LABEL: "kaito"}),
        pool(uid="another-claim", owner="another-name"),
        peers_pool(created=CREATED - timedelta(seconds=1)),
        peers_pool(created=CREATED - timedelta(seconds=1), kaito=False),
    ],
    ids=[
        "a user's",
        "a user's, failed",
        "a user's, going",
        "labelled like ours",
        "another claim's",
        "older, peer's",
        "older, peer's, not for KAITO",
    ],
)
def test_foreign_pool_of_the_claims_name_is_left_alone_and_evaded(foreign: AgentPool) -> None:
    draft = after(view(claim(), node(), pools=listed(foreign)))
    assert draft.annotations[names.AGENT_POOL_ANNOTATION] == HASHED
    assert draft.add_finalizer
    assert draft.azure is None
    assert draft.status == {}
    following = after(view(recorded_claim(pool=HASHED), pools=listed(foreign)))
    assert isinstance(following.azure, CreatePool)
    assert following.azure.name == HASHED


def test_claim_whose_both_names_are_taken_says_which_pool_is_in_the_way() -> None:
    draft = after(view(recorded_claim(pool=HASHED), pools=listed(users_pool(), users_pool(HASHED))))
    assert launched(draft) == ("Unknown", "AgentPoolNameTaken")
    assert message(draft) == (
        f"Agent pool {HASHED} exists and is not this claim's. Delete it, or write a claim of another name."
    )
    assert draft.azure is None


def test_pool_of_an_earlier_claim_of_this_name_is_deleted_first() -> None:
    draft = after(view(claim(), node(), pools=listed(pool(uid="earlier"))))
    assert launched(draft) == ("Unknown", "AgentPoolDeleting")
    assert draft.azure == DeletePool(name=NAME)
    assert draft.setback is None


def test_pool_of_an_earlier_claim_that_already_goes_is_waited_for() -> None:
    draft = after(view(claim(), pools=listed(pool(uid="earlier", state="Deleting"))))
    assert launched(draft) == ("Unknown", "AgentPoolDeleting")
    assert draft.azure is None


def test_pool_of_an_earlier_claim_is_not_deleted_again_before_azure_wants_to_be_asked() -> None:
    refused = setback(DeletePool, wait=timedelta(seconds=40))
    draft = after(view(claim(), pools=listed(pool(uid="earlier")), setback=refused))
    assert draft.azure is None
    assert draft.again_after == timedelta(seconds=40)


# Adoption


@pytest.mark.parametrize(
    "mine", [pool(), peers_pool(), peers_pool(kaito=False)], ids=["ours", "the peer's", "the peer's, not for KAITO"]
)
@pytest.mark.parametrize("finalizers", [(), (names.TERMINATION_FINALIZER,)], ids=["unheld", "held by the peer"])
def test_pool_that_was_made_for_the_claim_is_adopted(mine: AgentPool, finalizers: tuple[str, ...]) -> None:
    draft = after(view(claim(finalizers=finalizers), node(), pools=listed(mine)))
    assert draft.annotations == {names.AGENT_POOL_ANNOTATION: NAME, names.INSTANCE_TYPE_ANNOTATION: A100}
    assert draft.add_finalizer is not bool(finalizers)
    assert launched(draft) == ("True", "Launched")
    assert draft.azure is None


def test_failed_pool_of_the_peer_is_adopted_and_replaced() -> None:
    draft = after(view(claim(), pools=listed(peers_pool(state="Failed"))))
    assert draft.annotations[names.AGENT_POOL_ANNOTATION] == NAME
    assert draft.azure == DeletePool(name=NAME)


def test_launch_says_nothing_about_the_stages_after_it() -> None:
    draft = after(view(recorded_claim(), node(), pools=listed(pool())))
    registered = draft.conditions.get(REGISTERED)
    assert registered is not None
    assert registered.reason == "AwaitingReconciliation"


def test_recorded_name_that_no_longer_is_the_claims_own_is_followed_by_its_recorded_name() -> None:
    elsewhere = recorded_claim("my-gpu-claim", pool="g0123456789a")
    draft = after(view(elsewhere, pools=listed(pool("g0123456789a", owner="my-gpu-claim", state="Creating"))))
    assert launched(draft) == ("Unknown", "CreatingAgentPool")
    assert "agent pool g0123456789a" in message(draft)


def test_a_refusal_from_placement_is_worded_by_placement() -> None:
    refusal = Refusal(reason="NoInstanceType", message="Name a size.")
    draft = after(view(claim(), placement=Placement(refusal=refusal), now=NOW))
    assert (launched(draft), message(draft)) == (("False", "NoInstanceType"), "Name a size.")
