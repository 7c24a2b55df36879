"""Workspaces, StatefulSets and Jobs as the API server sends them, usual ones and all others."""

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from provisioner.apis.workspace import parse_workspace
from provisioner.workspace.checks import check
from provisioner.workspace.workload import parse_job, parse_stateful_set
from tests.unit.workspace_builders import raw_workspace, tuning, workspace

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
PATHS = [
    ("resource",),
    ("resource", "count"),
    ("resource", "instanceType"),
    ("resource", "labelSelector"),
    ("resource", "labelSelector", "matchLabels"),
    ("resource", "labelSelector", "matchExpressions"),
    ("resource", "partition"),
    ("inference",),
    ("inference", "preset"),
    ("inference", "preset", "name"),
    ("inference", "preset", "presetOptions"),
    ("inference", "template"),
    ("inference", "adapters"),
    ("inference", "config"),
    ("tuning",),
    ("tuning", "input"),
    ("tuning", "input", "urls"),
    ("tuning", "output"),
    ("tuning", "method"),
    ("status",),
    ("status", "conditions"),
    ("status", "targetNodeCount"),
    ("status", "workerNodes"),
    ("status", "model"),
    ("metadata", "annotations"),
    ("metadata", "labels"),
    ("metadata", "deletionTimestamp"),
]


@given(path=st.sampled_from(PATHS), value=JSON, is_tuning=st.booleans())
def test_anything_can_be_read_and_checked(path: tuple[str, ...], value: Any, is_tuning: bool) -> None:
    raw = copy.deepcopy(raw_workspace(spec=tuning() if is_tuning else None, status={"state": "Pending"}))
    inner = raw
    for step in path[:-1]:
        inner = inner.setdefault(step, {})
    inner[path[-1]] = value
    problem = check(parse_workspace(raw))

    assert problem is None or (problem.reason and problem.message)


def test_both_versions_are_read_alike() -> None:
    raw = raw_workspace()

    assert parse_workspace({**raw, "apiVersion": "kaito.sh/v1alpha1"}) == workspace()


def test_workspace_that_cannot_be_read_says_which_field() -> None:
    found = workspace(spec={"inference": {"preset": {"name": "phi-4"}, "adapters": [{"strength": 1}]}})

    assert found.spec_error.startswith("inference.adapters.0.strength: ")
    assert (found.inference, found.tuning) == (None, None)


@pytest.mark.parametrize("count", [None, "3", -1, 2.5, True, []])
def test_number_of_nodes_that_is_none_was_not_decided(count: object) -> None:
    found = workspace(status={"targetNodeCount": count}).target_node_count

    assert found in (0, 1)
    assert isinstance(found, int)


def raw(*, generation: int = 2, **parts: Any) -> dict[str, Any]:
    metadata = {"namespace": "ml", "name": "chat", "uid": "u", "generation": generation}
    return {"metadata": metadata, **parts}


@pytest.mark.parametrize(
    ("status", "is_rolled_out", "ready"),
    [
        ({}, False, 0),
        ({"observedGeneration": 1, "readyReplicas": 3}, False, 3),
        ({"observedGeneration": 2, "readyReplicas": 3}, True, 3),
        ({"observedGeneration": 2, "currentRevision": "a", "updateRevision": "b"}, False, 0),
        ({"observedGeneration": 2, "currentRevision": "a", "updateRevision": "b", "updatedReplicas": 2}, False, 0),
        ({"observedGeneration": 2, "currentRevision": "a", "updateRevision": "b", "updatedReplicas": 3}, True, 0),
        ({"observedGeneration": 2, "currentRevision": "b", "updateRevision": "b", "readyReplicas": None}, True, 0),
    ],
)
def test_set_is_rolled_out_when_no_pod_of_before_is_left(
    status: dict[str, Any], is_rolled_out: bool, ready: int
) -> None:
    found = parse_stateful_set(raw(spec={"replicas": 3}, status=status))

    assert (found.is_rolled_out, found.ready, found.wanted) == (is_rolled_out, ready, 3)


@pytest.mark.parametrize(
    ("status", "succeeded", "is_failed"),
    [
        ({}, 0, False),
        (None, 0, False),
        ({"active": 1, "failed": 3}, 0, False),
        ({"succeeded": 1}, 1, False),
        ({"failed": 7, "conditions": [{"type": "Failed", "status": "True"}]}, 0, True),
        ({"conditions": [{"type": "Failed", "status": "False"}]}, 0, False),
        ({"conditions": [{"type": "Suspended", "status": "True"}]}, 0, False),
    ],
)
def test_job_has_failed_when_it_says_so(status: Any, succeeded: int, is_failed: bool) -> None:
    found = parse_job(raw(status=status))

    assert (found.succeeded, found.is_failed) == (succeeded, is_failed)
