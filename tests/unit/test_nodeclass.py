"""A KaitoNodeClass has nothing that could be wrong: it is Ready at every generation, and written once for each."""

from typing import Any

import pytest

from provisioner.nodeclaim.nodeclass import hash_annotations, pool_hash, ready_status
from tests.unit.builders import NOW, condition

READY_NOW = {
    "type": "Ready",
    "status": "True",
    "reason": "Ready",
    "message": "The class has no fields that could be wrong.",
    "lastTransitionTime": "2026-11-21T04:34:26Z",
    "observedGeneration": 1,
}


def node_class(*conditions: dict[str, Any], **metadata: Any) -> dict[str, Any]:
    return {
        "metadata": {"name": "default", "generation": 1, **metadata},
        "status": {"conditions": list(conditions)} if conditions else {},
    }


@pytest.mark.parametrize(
    "raw", [node_class(), {"metadata": {"name": "default"}}, {**node_class(), "status": None}], ids=str
)
def test_new_class_becomes_ready(raw: dict[str, Any]) -> None:
    assert ready_status(raw, now=NOW) == {"conditions": [READY_NOW]}


def test_ready_class_is_not_written_again() -> None:
    assert ready_status(node_class(READY_NOW), now=NOW) is None


@pytest.mark.parametrize(
    ("stored", "since"),
    [
        (condition("Ready", "True", "Ready"), "2026-11-21T04:34:24Z"),
        (condition("Ready", "Unknown", "AwaitingReconciliation"), "2026-11-21T04:34:26Z"),
        (condition("Ready", "False", "Broken", generation=2), "2026-11-21T04:34:26Z"),
    ],
    ids=["ready before", "unknown", "somebody said false"],
)
def test_class_of_a_new_generation_is_ready_since_it_first_was(stored: dict[str, Any], since: str) -> None:
    expected = {**READY_NOW, "observedGeneration": 2, "lastTransitionTime": since}
    assert ready_status(node_class(stored, generation=2), now=NOW) == {"conditions": [expected]}


def test_conditions_of_others_stay() -> None:
    other = condition("SubnetReady", "True", "Found")
    assert ready_status(node_class(other), now=NOW) == {"conditions": [other, READY_NOW]}


def test_class_that_is_being_deleted_is_left_alone() -> None:
    assert ready_status(node_class(deletionTimestamp="2026-11-21T04:34:26Z"), now=NOW) is None


def of_spec(spec: Any, **metadata: Any) -> dict[str, Any]:
    return {**node_class(**metadata), "spec": spec}


GOLD = {"subnet": "gpu", "zones": ["1", "2"], "driver": {"install": False, "version": "570"}}


@pytest.mark.parametrize(
    "same",
    [
        {"zones": ["1", "2"], "driver": {"version": "570", "install": False}, "subnet": "gpu"},
        GOLD | {"sizePreference": "Listed"},
        GOLD | {"tags": {}, "image": None, "labels": [], "family": "", "disk": {"kind": None}},
    ],
)
def test_hash_is_the_same_where_nodes_are_made_the_same(same: dict[str, Any]) -> None:
    assert pool_hash(of_spec(same)) == pool_hash(of_spec(GOLD, generation=7))


@pytest.mark.parametrize(
    "other",
    [
        GOLD | {"subnet": "cpu"},
        GOLD | {"zones": ["1"]},
        GOLD | {"zones": ["2", "1"]},
        GOLD | {"driver": {"install": True, "version": "570"}},
        GOLD | {"a field of a later version": 0},
        {"subnet": "gpu"},
        {},
    ],
)
def test_hash_is_another_where_any_field_that_shapes_nodes_is(other: dict[str, Any]) -> None:
    assert pool_hash(of_spec(other)) != pool_hash(of_spec(GOLD))


@pytest.mark.parametrize(
    "raw",
    [None, of_spec(GOLD, deletionTimestamp="2026-11-21T04:34:24Z"), {"metadata": {"deletionTimestamp": "x"}}],
)
def test_class_that_is_not_there_has_no_hash(raw: dict[str, Any] | None) -> None:
    assert pool_hash(raw) == ""


@pytest.mark.parametrize("spec", [{}, None, "text", {"sizePreference": "Price"}])
def test_class_without_fields_is_as_good_as_none(spec: Any) -> None:
    assert hash_annotations(pool_hash(of_spec(spec))) == hash_annotations("")


def test_hash_is_written_as_karpenters_providers_do() -> None:
    # Stored on claims: another value would make every node of today look changed.
    assert hash_annotations(pool_hash(of_spec(GOLD))) == {
        "kaito.sh/kaitonodeclass-hash": "e8543cb2510a70d9",
        "kaito.sh/kaitonodeclass-hash-version": "v1",
    }
