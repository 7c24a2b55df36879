"""Draining: who leaves first, who is waited for, and who is made to leave once time is up."""

from datetime import timedelta
from typing import Any

import pytest

from provisioner.apis import names
from provisioner.apis.pod import Pod
from provisioner.nodeclaim.drain import Drain, describe, drain, pace
from provisioner.nodeclaim.view import NodeLoad
from tests.unit.builders import NOW
from tests.unit.pod_builders import pod

CRITICAL = {"priorityClassName": "system-node-critical"}
DAEMON = {"owner": "DaemonSet"}
STAYING = {"tolerations": [{"operator": "Exists"}]}
PROTECTED: dict[str, Any] = {"annotations": {names.DO_NOT_DISRUPT_ANNOTATION: "true"}}
GONE_SOON: dict[str, Any] = {"deleted": NOW + timedelta(seconds=20)}


def seconds(span: float) -> timedelta:
    return timedelta(seconds=span)


def look(*pods: Pod, left: float | None = None) -> Drain:
    """Drain with so many seconds until the deadline, None: without one."""
    deadline = NOW + seconds(left) if left is not None else None
    return drain(NodeLoad(pods=pods), now=NOW, deadline=deadline)


def wanted(seen: Drain) -> dict[str, int | None]:
    return {eviction.pod.name: eviction.grace_seconds for eviction in seen.evictions}


def waiting(seen: Drain) -> list[str]:
    return [each.name for each in seen.waiting]


def protected(value: str, **changes: Any) -> Pod:
    return pod(annotations={names.DO_NOT_DISRUPT_ANNOTATION: value}, **changes)


# Without a deadline


def test_node_without_pods_is_drained() -> None:
    assert look() == Drain()


@pytest.mark.parametrize(
    "changes",
    [
        STAYING,
        {"tolerations": [{"key": "karpenter.sh/disrupted", "operator": "Equal", "effect": "NoSchedule"}]},
        {"tolerations": [{"key": "karpenter.sh/disrupted", "operator": "Exists"}]},
        {"phase": "Succeeded"},
        {"phase": "Failed"},
        {"mirror": True},
        {"owner": "Node"},
        {"deleted": NOW - seconds(61)},
        {**DAEMON, **STAYING},
    ],
)
def test_pod_that_no_drain_would_make_go_is_not_waited_for(changes: dict[str, Any]) -> None:
    assert look(pod(**changes), left=-30) == Drain()


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"owner": "ReplicaSet"},
        {"phase": "Pending"},
        {"tolerations": [{"key": "node.kubernetes.io/unschedulable", "operator": "Exists"}]},
        DAEMON,
        CRITICAL,
    ],
)
def test_pod_is_evicted_and_waited_for(changes: dict[str, Any]) -> None:
    seen = look(pod(**changes))
    assert (wanted(seen), waiting(seen), seen.again_after) == ({"p1": None}, ["p1"], None)


TIERS = [
    pod("workload"),
    pod("agent", **DAEMON),
    pod("dns", priorityClassName="system-cluster-critical"),
    pod("network", **CRITICAL, **DAEMON),
]


@pytest.mark.parametrize("gone", range(4))
def test_tiers_leave_one_after_the_other(gone: int) -> None:
    left = TIERS[gone:]
    seen = look(*reversed(left))
    assert wanted(seen) == {left[0].name: None}
    assert waiting(seen) == [each.name for each in left]


def test_tier_that_is_still_leaving_holds_the_next_one_back() -> None:
    seen = look(pod("leaving", **GONE_SOON), pod("agent", **DAEMON))
    assert (wanted(seen), waiting(seen)) == ({}, ["leaving", "agent"])


def test_pods_of_one_tier_leave_together() -> None:
    assert wanted(look(pod("a"), pod("b"), pod("c", **CRITICAL))) == {"a": None, "b": None}


def test_pod_that_leaves_is_waited_for_until_it_is_stuck() -> None:
    seen = look(pod(**GONE_SOON))
    assert (wanted(seen), waiting(seen)) == ({}, ["p1"])
    assert seen.again_after == seconds(80)


def test_pod_that_must_not_be_disrupted_is_waited_for_and_not_evicted() -> None:
    seen = look(pod(**PROTECTED), pod("other"), pod("agent", **DAEMON))
    assert (wanted(seen), waiting(seen)) == ({"other": None}, ["other", "p1", "agent"])
    assert seen.protected == {"uid-of-p1"}


@pytest.mark.parametrize(
    ("value", "started", "protects", "again"),
    [
        ("30m", -600, True, 1200),
        ("30m", -1800, False, None),
        ("30m", None, True, None),
        ("false", -1, False, None),
        ("True", -1, False, None),
        ("0s", None, False, None),
        ("soon", -1, False, None),
        ("2000000h", -1, True, 2000000 * 3600 - 1),
    ],
)
def test_protection_for_a_time_counts_from_the_pods_start(
    value: str, started: float | None, protects: bool, again: float | None
) -> None:
    seen = look(protected(value, started=NOW + seconds(started) if started is not None else None))
    assert (wanted(seen) == {}) is protects
    assert seen.again_after == (seconds(again) if again is not None else None)


# Towards the deadline


@pytest.mark.parametrize(
    ("left", "grace"),
    [(31, None), (30, 30), (29.9, 29), (2, 2), (0.5, 1), (0, 1), (-30, 1)],
)
def test_pod_is_deleted_in_time_to_use_its_grace_period_up(left: float, grace: int | None) -> None:
    assert wanted(look(pod(), left=left)) == {"p1": grace}


@pytest.mark.parametrize("left", [10, -1])
def test_pods_past_their_time_are_deleted_whatever_protects_them_and_whatever_their_tier(left: float) -> None:
    grace = max(int(left), 1)
    pods = [pod("free"), pod("protected", **PROTECTED), pod("agent", **DAEMON), pod("dns", **CRITICAL)]
    assert wanted(look(*pods, left=left)) == {each.name: grace for each in pods}


def test_only_pods_past_their_time_are_deleted() -> None:
    pods = [
        pod("long", terminationGracePeriodSeconds=600, **CRITICAL),
        pod("short", terminationGracePeriodSeconds=5),
        pod("protected", terminationGracePeriodSeconds=5, **PROTECTED),
    ]
    seen = look(*pods, left=60)
    assert wanted(seen) == {"long": 60, "short": None}
    assert seen.again_after == seconds(55)


@pytest.mark.parametrize(
    ("gone_by", "left", "grace"),
    [(3600, 60, 60), (60, 60, None), (20, 60, None), (20, -5, 1), (1, -5, None), (-30, -60, None)],
)
def test_pod_that_leaves_too_late_is_given_less_time(gone_by: float, left: float, grace: int | None) -> None:
    seen = look(pod(deleted=NOW + seconds(gone_by)), left=left)
    assert wanted(seen) == ({"p1": grace} if grace is not None else {})
    assert waiting(seen) == ["p1"]


def test_grace_period_beyond_the_calendar_is_no_error() -> None:
    assert wanted(look(pod(terminationGracePeriodSeconds=2**63 - 1), left=60)) == {"p1": 60}


# How often, and what is said


@pytest.mark.parametrize(("lasted", "every"), [(-1, 1), (0, 1), (10, 1), (50, 5), (100, 10), (86400, 10)])
def test_long_drain_is_looked_at_less_often(lasted: float, every: float) -> None:
    assert pace(since=NOW - seconds(lasted), now=NOW) == seconds(every)


@pytest.mark.parametrize(
    ("pods", "text"),
    [
        ([pod()], "1 pod is waiting to be evicted: default/p1."),
        (
            [pod("x"), pod("y", **PROTECTED)],
            "2 pods are waiting to be evicted: default/y (karpenter.sh/do-not-disrupt), default/x.",
        ),
        (
            [pod(name) for name in "vwxyz"],
            "5 pods are waiting to be evicted: default/v, default/w, default/x and 2 more.",
        ),
        (
            [pod("z", **CRITICAL), pod("a"), pod("b", **GONE_SOON), pod("c")],
            "4 pods are waiting to be evicted: default/a (a PodDisruptionBudget), default/c (x), default/b and 1 more.",
        ),
    ],
)
def test_text_begins_with_the_number_and_names_what_holds_the_drain(pods: list[Pod], text: str) -> None:
    blocked = {
        "uid-of-a": "Cannot evict pod as it would violate the pod's disruption budget.",
        "uid-of-c": "x",
        "uid-of-b": "not any more",
    }
    assert describe([look(*pods)], deadline=None, blocked=blocked) == text


def test_text_tells_the_deadline() -> None:
    text = describe([look(pod(), left=60), look(pod("p2"))], deadline=NOW + seconds(60), blocked={})
    assert text == (
        "2 pods are waiting to be evicted: default/p1, default/p2; all will be deleted by 2026-11-21T04:35:26Z."
    )
