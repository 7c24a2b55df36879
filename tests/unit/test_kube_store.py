"""The store: of three tellers that contradict one another, the newest is believed."""

from typing import Any

import pytest

from provisioner.apis import names
from provisioner.kube.store import Store

POOL = names.AKS_AGENT_POOL_LABEL
VMSS = (
    "azure:///subscriptions/s/resourceGroups/MC_rg/providers/Microsoft.Compute/virtualMachineScaleSets/"
    "aks-w1-123-vmss/virtualMachines/0"
)


def claim(name: str = "w1", version: object = 10, *, uid: str = "", pool: str = "", **status: Any) -> dict[str, Any]:
    return {
        "metadata": {
            "name": name,
            "uid": uid or f"uid-{name}",
            "resourceVersion": str(version),
            "annotations": {names.AGENT_POOL_ANNOTATION: pool} if pool else {},
        },
        "spec": {},
        "status": status,
    }


def node(name: str = "n1", version: object = 10, *, uid: str = "", pool: str = "", vm: str = "") -> dict[str, Any]:
    return {
        "metadata": {
            "name": name,
            "uid": uid or f"uid-{name}",
            "resourceVersion": str(version),
            "labels": {POOL: pool} if pool else {},
        },
        "spec": {"providerID": vm} if vm else {},
        "status": {"conditions": [{"type": "Ready", "status": "True"}]},
    }


def version_of(store: Store, name: str = "w1") -> str | None:
    found = store.claim(name)
    return found.resource_version if found else None


@pytest.mark.parametrize(
    ("version", "changed", "kept"),
    [(11, True, "11"), (100, True, "100"), (9, False, "10"), (10, True, "10"), ("opaque", True, "opaque")],
    ids=["newer", "newer by number, not by letters", "older", "the same", "of another storage"],
)
def test_older_object_is_dropped(version: object, changed: bool, kept: str) -> None:
    store = Store()
    store.put_claim(claim(version=10, nodeName="a"))
    assert store.put_claim(claim(version=version, nodeName="b")) is changed
    assert version_of(store) == kept


def test_object_that_differs_in_its_version_alone_is_no_change_but_its_version_counts() -> None:
    store = Store()
    assert store.put_node(node(version=10))
    assert not store.put_node(node(version=12))
    found = store.node("n1")
    assert found is not None
    assert found.resource_version == "12"
    assert not store.put_node({**node(version=11), "spec": {"providerID": VMSS}})


def test_answer_to_a_patch_is_not_undone_by_an_event_from_before_it() -> None:
    store = Store()
    store.put_claim(claim(version=10))
    store.put_claim(claim(version=12, providerID=VMSS))
    assert not store.put_claim(claim(version=11))
    found = store.claim("w1")
    assert found is not None
    assert found.provider_id == VMSS


def test_late_answer_does_not_bring_back_what_was_deleted() -> None:
    store = Store()
    store.put_claim(claim(version=10))
    removed = store.remove_claim("w1", uid="uid-w1")
    assert removed is not None
    assert removed.resource_version == "10"
    assert not store.put_claim(claim(version=11))
    assert store.claims == ()
    assert store.put_claim(claim(version=12, uid="another"))


def test_deletion_of_an_older_object_leaves_the_new_one_of_that_name() -> None:
    store = Store()
    store.put_claim(claim(version=10, uid="old"))
    store.put_claim(claim(version=20, uid="new"))
    assert store.claim_by_uid("old") is None
    assert store.remove_claim("w1", uid="old") is None
    assert not store.put_claim(claim(version=15, uid="old"))
    assert version_of(store) == "20"


def test_object_whose_name_was_taken_over_does_not_come_back_when_its_successor_goes() -> None:
    store = Store()
    store.put_claim(claim(version=10, uid="old"))
    store.put_claim(claim(version=20, uid="new"))
    store.remove_claim("w1", uid="new")
    assert not store.put_claim(claim(version=15, uid="old"))
    assert store.claims == ()


def test_full_list_drops_ghosts_and_returns_them_as_last_seen() -> None:
    store = Store()
    store.put_node(node("stays", 10))
    store.put_node(node("changes", 10))
    store.put_node(node("ghost", 11, pool="w1"))
    changed = store.replace_nodes(
        [node("stays", 10), node("changes", 20, vm=VMSS), node("new", 21)], resource_version="30"
    )
    assert set(changed) == {"changes", "ghost", "new"}
    assert changed["ghost"].agent_pool == "w1"
    assert store.node("ghost") is None
    assert store.nodes_of_pool("w1") == []
    assert not store.put_node(node("ghost", 25)), "an event that was on its way when the list was read"


def test_full_list_keeps_what_is_newer_than_itself() -> None:
    store = Store()
    store.put_claim(claim("born", 31))
    store.put_claim(claim("patched", 32, nodeName="n1"))
    changed = store.replace_claims([claim("patched", 20)], resource_version="30")
    assert changed == {}
    assert version_of(store, "born") == "31"
    assert version_of(store, "patched") == "32"


def test_full_list_does_not_bring_back_what_was_deleted_after_it_was_read() -> None:
    store = Store()
    store.put_claim(claim(version=10))
    store.remove_claim("w1", uid="uid-w1")
    assert store.replace_claims([claim(version=10)], resource_version="11") == {}
    assert store.claims == ()


def test_full_list_without_comparable_versions_is_believed_until_told_otherwise() -> None:
    store = Store()
    store.put_claim(claim(version="x"))
    assert set(store.replace_claims([], resource_version="y")) == {"w1"}
    assert store.put_claim(claim(version="z"))


def test_synced_only_after_both_lists() -> None:
    store = Store()
    store.put_claim(claim())
    store.put_node(node())
    assert not store.synced
    store.replace_claims([], resource_version="1")
    assert not store.synced
    store.replace_nodes([], resource_version="1")
    assert store.synced


def test_nodes_are_found_by_pool_and_provider_id_whatever_their_case() -> None:
    store = Store()
    store.put_node(node("n2", pool="W1", vm=VMSS))
    store.put_node(node("n1", pool="w1"))
    store.put_node(node("n3"))
    assert [found.name for found in store.nodes_of_pool("w1")] == ["n1", "n2"]
    assert [found.name for found in store.nodes_by_provider_id(VMSS.upper())] == ["n2"]
    assert store.nodes_of_pool("") == []
    assert store.nodes_by_provider_id("") == []


def test_indexes_follow_changes_and_deletions() -> None:
    store = Store()
    store.put_node(node(version=1, pool="a"))
    store.put_node(node(version=2, pool="b"))
    assert store.nodes_of_pool("a") == []
    assert [found.name for found in store.nodes_of_pool("b")] == ["n1"]
    store.remove_node("n1", uid="uid-n1")
    assert store.nodes_of_pool("b") == []


def test_claims_are_found_by_recorded_pool_and_by_uid() -> None:
    store = Store()
    store.put_claim(claim("long-name", 1, pool="wabc123"))
    store.put_claim(claim("other", 1))
    assert [found.name for found in store.claims_of_pool("wabc123")] == ["long-name"]
    found = store.claim_by_uid("uid-other")
    assert found is not None
    assert found.name == "other"
    assert store.claim_by_uid("") is None


UNREADABLE: list[dict[str, Any]] = [
    {},
    {"metadata": None},
    {"metadata": {"name": "w1"}},
    {"metadata": {"name": "w1", "uid": "u", "generation": "many"}},
    {"metadata": {"name": "w1", "uid": "u", "finalizers": 3}},
]


@pytest.mark.parametrize("raw", UNREADABLE)
def test_unreadable_object_stops_no_other(raw: dict[str, Any], caplog: pytest.LogCaptureFixture) -> None:
    store = Store()
    assert not store.put_claim(raw)
    assert set(store.replace_claims([raw, claim("w2")], resource_version="20")) == {"w2"}
    assert "cannot be read" in caplog.text


def test_object_that_has_become_unreadable_stays_as_it_was() -> None:
    store = Store()
    store.put_claim(claim(version=10))
    unreadable = claim(version=11)
    unreadable["metadata"]["generation"] = "many"
    assert store.replace_claims([unreadable], resource_version="20") == {}
    assert version_of(store) == "10"


def test_claim_with_an_unreadable_spec_is_kept() -> None:
    store = Store()
    raw = claim()
    raw["spec"] = {"resources": {"requests": {"storage": "much"}}}
    assert store.put_claim(raw)
    found = store.claim("w1")
    assert found is not None
    assert found.spec is None
