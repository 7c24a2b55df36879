"""Hydration: a launched claim and its Node say by a label of which class they are, whoever has made them."""

from typing import Any

import pytest

from provisioner.apis import names
from provisioner.apis.conditions import LAUNCHED, REGISTERED
from provisioner.apis.node import Node
from provisioner.apis.nodeclaim import NodeClaim
from provisioner.nodeclaim.hydration import hydrate
from provisioner.nodeclaim.view import Draft, NodePatch
from tests.unit.builders import NAME, UID, node, provider_id, reached, recorded_claim, view

KEY = "kaito.sh/kaitonodeclass"
CLASS = {"group": "kaito.sh", "kind": "KaitoNodeClass", "name": "spot"}
LABEL = {KEY: "spot"}


def claimed(*kinds: str, vm: str = provider_id(NAME), **changes: Any) -> NodeClaim:
    """Return a claim of the class `spot` that has got so far."""
    status = {"providerID": vm, "conditions": reached(*kinds)}
    return recorded_claim(**{"nodeClassRef": CLASS, "labels": {}, "status": status, **changes})


def after(claim: NodeClaim, *nodes: Node, **prepared: Any) -> Draft:
    draft = Draft(conditions=claim.condition_set(now=view(claim).now), **prepared)
    hydrate(view(claim, *nodes), draft)
    return draft


def on_node(draft: Draft) -> Any:
    return draft.node_patch.patch if draft.node_patch is not None else None


def test_registered_claim_and_its_node_get_the_label_of_the_class() -> None:
    draft = after(claimed(LAUNCHED, REGISTERED), node(owner=UID))
    assert draft.labels == LABEL
    assert draft.node_patch == NodePatch(node=node(owner=UID), patch={"metadata": {"labels": LABEL}})


def test_claim_that_is_labelled_is_left_alone_with_its_node() -> None:
    draft = after(claimed(LAUNCHED, REGISTERED, labels=LABEL), node(owner=UID, labels=LABEL))
    assert draft.labels == {}
    assert draft.node_patch is None


def test_what_somebody_has_written_there_stays_and_holds_for_the_node() -> None:
    written = {KEY: "written"}
    draft = after(claimed(LAUNCHED, REGISTERED, labels=written), node(owner=UID))
    assert draft.labels == {}
    assert on_node(draft) == {"metadata": {"labels": written}}
    assert on_node(after(claimed(LAUNCHED, REGISTERED, labels=LABEL), node(owner=UID, labels=written))) is None


def test_node_waits_for_registration_and_claim_for_launch() -> None:
    launched = after(claimed(LAUNCHED), node(owner=UID))
    assert launched.labels == LABEL
    assert launched.node_patch is None
    assert after(claimed(), node(owner=UID)).labels == {}


def test_label_joins_what_the_step_writes_to_the_node_anyway() -> None:
    joined = node(owner=UID)
    written = {"metadata": {"labels": {names.INITIALIZED_LABEL: "true"}, "finalizers": ["x"]}, "spec": {"taints": []}}
    draft = after(claimed(LAUNCHED, REGISTERED), joined, node_patch=NodePatch(node=joined, patch=written))
    assert on_node(draft) == {
        "metadata": {"labels": {names.INITIALIZED_LABEL: "true", **LABEL}, "finalizers": ["x"]},
        "spec": {"taints": []},
    }


def test_what_the_step_writes_to_another_node_is_not_lost() -> None:
    other = NodePatch(node=node(number=1), patch={"metadata": {"labels": {names.INITIALIZED_LABEL: "true"}}})
    draft = after(claimed(LAUNCHED, REGISTERED), node(owner=UID), node_patch=other)
    assert draft.node_patch == other


@pytest.mark.parametrize(
    "there",
    [
        pytest.param((), id="none"),
        pytest.param((node(owner=UID, deleting=True),), id="one that is being deleted"),
        pytest.param((node("other", owner="another"),), id="a VM that somebody wrote into the status"),
    ],
)
def test_without_a_node_of_its_own_the_claim_alone_is_labelled(there: tuple[Node, ...]) -> None:
    vm = there[0].provider_id if there else provider_id(NAME)
    draft = after(claimed(LAUNCHED, REGISTERED, vm=vm), *there)
    assert draft.labels == LABEL
    assert draft.node_patch is None


@pytest.mark.parametrize("name", ["c" * 64, "of spot", "-"])
def test_name_that_fits_into_no_label_makes_none(name: str) -> None:
    draft = after(claimed(LAUNCHED, REGISTERED, nodeClassRef={**CLASS, "name": name}), node(owner=UID))
    assert draft.labels == {}
    assert draft.node_patch is None


def test_claim_of_another_kind_of_class_is_of_the_default_one() -> None:
    theirs = {"group": "karpenter.azure.com", "kind": "AKSNodeClass", "name": "theirs"}
    assert after(claimed(LAUNCHED, nodeClassRef=theirs)).labels == {KEY: "default"}
