"""A KaitoNodeClass has nothing that could be wrong: it is Ready at every generation, and written once for each."""

from typing import Any

import pytest

from provisioner.nodeclaim.nodeclass import ready_status
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
