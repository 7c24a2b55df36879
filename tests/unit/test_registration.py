"""Registration: the Node that has joined carries what its claim says, in one patch, before the claim says so."""

from datetime import timedelta
from typing import Any

import pytest

from provisioner.apis import names
from provisioner.apis.conditions import LAUNCHED, REGISTERED
from provisioner.apis.node import Node
from provisioner.apis.nodeclaim import NodeClaim
from provisioner.nodeclaim.registration import register
from provisioner.nodeclaim.view import Draft
from tests.unit.builders import (
    CREATED,
    GPU_TAINT,
    NAME,
    NOT_READY_TAINT,
    UID,
    condition,
    node,
    provider_id,
    reached,
    recorded_claim,
    view,
)

UNREGISTERED = {"key": "karpenter.sh/unregistered", "effect": "NoExecute"}
STARTUP = {"key": "example.com/starting", "effect": "NoExecute"}
DO_NOT_SYNC = {names.DO_NOT_SYNC_TAINTS_LABEL: "true"}


def claimed(*kinds: str, vm: str = provider_id(NAME), **changes: Any) -> NodeClaim:
    """Return a launched claim."""
    return recorded_claim(status={"providerID": vm, "conditions": reached(LAUNCHED, *kinds)}, **changes)


def after(claim: NodeClaim, *nodes: Node, **prepared: Any) -> Draft:
    draft = Draft(conditions=claim.condition_set(now=view(claim).now), **prepared)
    register(view(claim, *nodes), draft)
    return draft


def registered(draft: Draft) -> tuple[str, str, str]:
    found = draft.conditions.get(REGISTERED)
    assert found is not None
    return found.status, found.reason, found.message


def patch(draft: Draft) -> dict[str, Any]:
    assert draft.node_patch is not None
    return dict(draft.node_patch.patch)


def test_patch_is_of_one_version_of_the_node_only_where_it_replaces_the_taints() -> None:
    for taints, is_of_version in (([GPU_TAINT, NOT_READY_TAINT], False), ([UNREGISTERED, GPU_TAINT], True)):
        draft = after(claimed(), node(taints=taints))
        assert draft.node_patch is not None
        assert draft.node_patch.is_of_version is is_of_version


def test_node_gets_labels_annotations_owner_and_taints_in_one_patch() -> None:
    joined = node(taints=[UNREGISTERED, NOT_READY_TAINT], ready="False")
    claim = claimed(startupTaints=[STARTUP])
    draft = after(claim, joined)
    assert registered(draft) == ("True", "Registered", "")
    assert draft.status == {
        "nodeName": joined.name,
        "imageID": "AKSUbuntu-2204gen2containerd-202611.10.0",
    }
    assert draft.node_patch is not None
    assert draft.node_patch.node is joined
    assert patch(draft) == {
        "metadata": {
            "labels": {**claim.labels, "karpenter.sh/registered": "true"},
            "annotations": dict(claim.annotations),
            "finalizers": [names.TERMINATION_FINALIZER],
            "ownerReferences": [
                {
                    "apiVersion": "karpenter.sh/v1",
                    "kind": "NodeClaim",
                    "name": NAME,
                    "uid": UID,
                    "blockOwnerDeletion": True,
                }
            ],
        },
        "spec": {"taints": [NOT_READY_TAINT, GPU_TAINT, STARTUP]},
    }


def test_labels_that_the_launch_has_just_found_are_on_the_node_too_and_the_claims_own_win() -> None:
    draft = after(claimed(), node(), labels={"apps": "never", names.CAPACITY_TYPE_LABEL: "on-demand"})
    labels = patch(draft)["metadata"]["labels"]
    assert (labels["apps"], labels[names.CAPACITY_TYPE_LABEL]) == ("phi-4", "on-demand")


def test_node_that_carries_everything_is_not_written() -> None:
    claim = claimed()
    complete = node(
        owner=UID,
        labels={**claim.labels, names.REGISTERED_LABEL: "true"},
        annotations=dict(claim.annotations),
        finalizers=[names.TERMINATION_FINALIZER],
    )
    draft = after(claim, complete)
    assert draft.node_patch is None
    assert registered(draft)[0] == "True"


def test_bookkeeping_of_kubectl_stays_on_the_claim() -> None:
    claim = claimed(annotations={"kubectl.kubernetes.io/last-applied-configuration": "{}", "team": "vision"})
    annotations = patch(after(claim, node()))["metadata"]["annotations"]
    assert annotations["team"] == "vision"
    assert "kubectl.kubernetes.io/last-applied-configuration" not in annotations


# Taints


@pytest.mark.parametrize(
    ("on_node", "written"),
    [
        ([GPU_TAINT], None),
        ([], [GPU_TAINT]),
        ([{**GPU_TAINT, "timeAdded": "2026-11-21T04:40:00Z"}], None),
        ([{**GPU_TAINT, "value": "other"}], [{**GPU_TAINT, "value": "other"}, GPU_TAINT]),
        ([{**GPU_TAINT, "effect": "NoExecute"}], [{**GPU_TAINT, "effect": "NoExecute"}, GPU_TAINT]),
        ([NOT_READY_TAINT, GPU_TAINT], None),
        ([UNREGISTERED, GPU_TAINT], [GPU_TAINT]),
        ([{"key": "a", "effect": "NoDreams"}], [{"key": "a", "effect": "NoDreams"}, GPU_TAINT]),
    ],
)
def test_claims_taints_are_appended_and_none_is_lost(on_node: list[Any], written: list[Any] | None) -> None:
    assert patch(after(claimed(), node(taints=on_node))).get("spec") == (written and {"taints": written})


@pytest.mark.parametrize(
    ("on_claim", "on_node", "synced"),
    [
        ({}, {}, True),
        ({}, DO_NOT_SYNC, False),
        (DO_NOT_SYNC, {}, False),
        ({}, dict.fromkeys(DO_NOT_SYNC, "false"), True),
        ({}, dict.fromkeys(DO_NOT_SYNC, "no"), True),
        (dict.fromkeys(DO_NOT_SYNC, "false"), {}, True),
    ],
)
def test_taints_and_startup_taints_are_not_synced_where_a_label_forbids_it(
    on_claim: dict[str, str], on_node: dict[str, str], synced: bool
) -> None:
    joined = node(taints=[UNREGISTERED], labels=on_node)
    written = patch(after(claimed(labels=on_claim, startupTaints=[STARTUP]), joined))["spec"]
    assert written == {"taints": [GPU_TAINT, STARTUP] if synced else []}


@pytest.mark.parametrize("field", ["taints", "startupTaints"])
@pytest.mark.parametrize("on_node", [[], [UNREGISTERED]])
def test_unregistered_taint_comes_off_even_where_the_claim_asks_for_it(field: str, on_node: list[Any]) -> None:
    asked: dict[str, Any] = {"taints": [], field: [UNREGISTERED]}
    claim = claimed(**asked)
    assert patch(after(claim, node(taints=on_node))).get("spec") == ({"taints": []} if on_node else None)


def test_claim_without_a_readable_spec_still_gets_its_node() -> None:
    draft = after(claimed(taints=[{"effect": "?"}]), node(taints=[UNREGISTERED]))
    assert registered(draft)[0] == "True"
    assert patch(draft)["spec"] == {"taints": []}


@pytest.mark.parametrize("on_node", [[GPU_TAINT], []])
def test_startup_taint_that_was_taken_off_does_not_come_back(on_node: list[Any]) -> None:
    held = [names.TERMINATION_FINALIZER]
    registered_node = node(owner=UID, taints=on_node, labels={names.REGISTERED_LABEL: "true"}, finalizers=held)
    assert after(claimed(REGISTERED, startupTaints=[STARTUP]), registered_node).node_patch is None


# Which Node


def test_claim_that_is_not_launched_is_not_registered() -> None:
    draft = after(recorded_claim(), node())
    assert registered(draft)[1] == "AwaitingReconciliation"
    assert draft.node_patch is None


NOT_FOUND = ("Unknown", "NodeNotFound", "Node not registered with cluster")


@pytest.mark.parametrize(
    "nodes",
    [
        [],
        [node(number=1)],
        [node("other")],
        [node(created=CREATED - timedelta(seconds=1))],
        [node(deleting=True)],
    ],
    ids=["none", "another VM", "another pool", "older than the claim", "being deleted"],
)
def test_launched_claim_without_its_node_waits_for_it(nodes: list[Node]) -> None:
    draft = after(claimed(), *nodes)
    assert registered(draft) == NOT_FOUND
    assert (draft.node_patch, draft.status) == (None, {})


def test_node_is_known_by_its_provider_id_in_any_letter_case() -> None:
    assert registered(after(claimed(), node(provider_id=provider_id(NAME).upper())))[0] == "True"


def test_node_need_not_be_ready() -> None:
    assert registered(after(claimed(), node(ready="Unknown")))[0] == "True"


def test_two_nodes_of_one_vm_are_a_violated_invariant() -> None:
    twin = node(name="twin")
    draft = after(claimed(), node(), twin)
    assert registered(draft) == ("False", "MultipleNodesFound", "Invariant violated, matched multiple nodes")
    assert (draft.node_patch, draft.status) == (None, {})


def test_twin_that_is_being_deleted_does_not_count() -> None:
    assert registered(after(claimed(), node(), node(name="twin", deleting=True)))[0] == "True"


def test_nodes_of_other_vms_of_the_pool_do_not_matter_in_the_pass_that_launches() -> None:
    fresh = recorded_claim()
    draft = Draft(conditions=fresh.condition_set(now=view(fresh).now), status={"providerID": provider_id(NAME)})
    draft.conditions.set_true(LAUNCHED)
    register(view(fresh, node(), node(number=1)), draft)
    assert registered(draft)[0] == "True"
    assert draft.status["nodeName"] == node().name


def test_violated_invariant_is_looked_at_again() -> None:
    claim = recorded_claim(
        status={
            "providerID": provider_id(NAME),
            "conditions": [*reached(LAUNCHED), condition(REGISTERED, "False", "MultipleNodesFound")],
        }
    )
    assert registered(after(claim, node()))[0] == "True"


def test_registered_claim_stays_so_and_its_node_is_not_touched_again() -> None:
    held = node(taints=[], finalizers=[names.TERMINATION_FINALIZER])
    draft = after(claimed(REGISTERED, generation=2), held)
    assert registered(draft)[0] == "True"
    assert (draft.node_patch, draft.status) == (None, {})
    found = draft.conditions.get(REGISTERED)
    assert found is not None
    assert found.observed_generation == 2


# The finalizer that holds a deleted Node until it is drained


def test_finalizers_of_others_stay_on_the_node() -> None:
    draft = after(claimed(), node(finalizers=["example.com/theirs"]))
    assert patch(draft)["metadata"]["finalizers"] == ["example.com/theirs", names.TERMINATION_FINALIZER]


@pytest.mark.parametrize("owner", [UID, None], ids=["owned", "of the claim's pool"])
def test_registered_node_without_the_finalizer_gets_it_and_nothing_else(owner: str | None) -> None:
    draft = after(claimed(REGISTERED), node(taints=[], owner=owner))
    assert patch(draft) == {"metadata": {"finalizers": [names.TERMINATION_FINALIZER]}}


def test_node_that_is_being_deleted_does_not_get_the_finalizer_back() -> None:
    assert after(claimed(REGISTERED), node(deleting=True, owner=UID)).node_patch is None


def test_node_that_somebody_wrote_into_the_claims_status_does_not_get_the_finalizer() -> None:
    victim = node("system")
    assert after(claimed(REGISTERED, vm=victim.provider_id), victim).node_patch is None
