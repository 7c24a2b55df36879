"""Where pods are put, and what nodes say of themselves by their taints."""

from typing import Any

import pytest

from tests.semantics.client import STRATEGIC, Kube, Object, condition, eventually
from tests.semantics.things import NODES, path, pod

NOT_READY = "node.kubernetes.io/not-ready"
UNREACHABLE = "node.kubernetes.io/unreachable"


@pytest.fixture
def pods(namespace: str) -> str:
    return f"/api/v1/namespaces/{namespace}/pods"


def report(kube: Kube, node: Object, ready: str) -> None:
    """Say of a node whether it is Ready."""
    body = {"status": {"conditions": [{"type": "Ready", "status": ready}]}}
    kube.patch(f"{path(NODES, node)}/status", body, content_type=STRATEGIC)


def taints(kube: Kube, node: Object) -> set[tuple[str, str]]:
    """The taints of the node but the test's own."""
    found = kube.get(path(NODES, node))["spec"].get("taints") or ()
    return {(taint["key"], taint["effect"]) for taint in found if taint["key"] != "for"}


def place(kube: Kube, pods: str, item: Object) -> str:
    """Wait until a pod is bound; return where."""
    name: str = eventually(lambda: kube.get(path(pods, item))["spec"].get("nodeName", ""))
    return name


def refused(kube: Kube, pods: str, item: Object, *, because: str) -> None:
    """Wait until the scheduler says that it does not bind a pod, and why.

    Its first word may be another: it learns of a node, and of each change of one, later than who has made it.
    """
    seen = eventually(
        lambda: condition(kube.get(path(pods, item)), "PodScheduled"),
        until=lambda seen: because in seen.get("message", ""),
    )
    assert (seen["status"], seen["reason"]) == ("False", "Unschedulable")


def asking(node: Object, **requests: str) -> Object:
    """A pod for the node that asks for resources."""
    return pod(node, containers=[{"name": "main", "image": "busybox:1", "resources": {"limits": requests}}])


def test_ready_node_loses_the_taint_it_was_made_with(kube: Kube, new_node: Object) -> None:
    assert NOT_READY in {taint["key"] for taint in new_node["spec"]["taints"]}
    eventually(lambda: taints(kube, new_node), until=lambda found: not found)


@pytest.mark.usefixtures("second_node")
def test_taints_follow_readiness(kube: Kube, node: Object) -> None:
    report(kube, node, "False")
    eventually(lambda: taints(kube, node), until=lambda found: (NOT_READY, "NoSchedule") in found)
    report(kube, node, "Unknown")
    expected = {(UNREACHABLE, "NoSchedule"), (UNREACHABLE, "NoExecute")}
    # The second one takes the real controller seconds: it is in no hurry to evict.
    eventually(lambda: taints(kube, node), until=lambda found: found == expected)
    report(kube, node, "True")
    eventually(lambda: taints(kube, node), until=lambda found: not found)


def test_cordoned_node_is_tainted(kube: Kube, node: Object) -> None:
    kube.patch(path(NODES, node), {"spec": {"unschedulable": True}})
    expected = ("node.kubernetes.io/unschedulable", "NoSchedule")
    eventually(lambda: taints(kube, node), until=lambda found: expected in found)
    kube.patch(path(NODES, node), {"spec": {"unschedulable": None}})
    eventually(lambda: taints(kube, node), until=lambda found: expected not in found)


def test_pods_that_do_not_tolerate_a_taint_have_to_go(kube: Kube, pods: str, node: Object) -> None:
    name = node["metadata"]["name"]
    stays = {"key": "out", "operator": "Exists", "effect": "NoExecute"}
    tolerant = pod(node, nodeName=name)
    tolerant["spec"]["tolerations"].append(stays)
    made = kube.create(pods, tolerant)
    other = kube.create(pods, pod(node, nodeName=name))
    taint = [*node["spec"]["taints"], {"key": "out", "effect": "NoExecute"}]
    kube.patch(path(NODES, node), {"spec": {"taints": taint}})

    def leaves() -> bool:
        found = kube.find(path(pods, other))
        return found is None or "deletionTimestamp" in found["metadata"]

    eventually(leaves)
    assert "deletionTimestamp" not in kube.get(path(pods, made))["metadata"]


def test_pod_is_bound_where_it_fits(kube: Kube, pods: str, node: Object) -> None:
    made = kube.create(pods, asking(node, cpu="1", **{"nvidia.com/gpu": "1"}))
    assert place(kube, pods, made) == node["metadata"]["name"]
    assert condition(kube.get(path(pods, made)), "PodScheduled")["status"] == "True"


def test_pod_waits_until_there_is_room(kube: Kube, pods: str, node: Object) -> None:
    first = kube.create(pods, asking(node, **{"nvidia.com/gpu": "1"}))
    place(kube, pods, first)
    second = kube.create(pods, asking(node, **{"nvidia.com/gpu": "1"}))
    refused(kube, pods, second, because="1 Insufficient nvidia.com/gpu")
    kube.delete(path(pods, first), {"gracePeriodSeconds": 0})
    place(kube, pods, second)


def test_pod_waits_for_a_resource_that_the_node_registers_later(kube: Kube, pods: str, node: Object) -> None:
    made = kube.create(pods, asking(node, **{"amd.com/gpu": "2"}))
    refused(kube, pods, made, because="1 Insufficient amd.com/gpu")
    room = {"capacity": {"amd.com/gpu": "2"}, "allocatable": {"amd.com/gpu": "2"}}
    kube.patch(f"{path(NODES, node)}/status", {"status": room})
    place(kube, pods, made)


def test_taint_keeps_pods_away_that_do_not_tolerate_it(kube: Kube, pods: str, node: Object) -> None:
    made = kube.create(pods, {**pod(node), "spec": {**pod(node)["spec"], "tolerations": []}})
    refused(kube, pods, made, because="had untolerated taint")


@pytest.mark.parametrize(
    ("expression", "fits"),
    [
        ({"operator": "Exists"}, True),
        ({"operator": "DoesNotExist"}, False),
        ({"operator": "In", "values": ["h100", "a100"]}, True),
        ({"operator": "NotIn", "values": ["a100"]}, False),
    ],
)
def test_required_affinity_is_heeded(kube: Kube, pods: str, node: Object, expression: Any, fits: bool) -> None:
    kube.patch(path(NODES, node), {"metadata": {"labels": {"gpu": "a100"}}})
    term = {"matchExpressions": [{"key": "gpu", **expression}]}
    required = {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [term]}}
    made = kube.create(pods, pod(node, affinity={"nodeAffinity": required}))
    if fits:
        place(kube, pods, made)
    else:
        refused(kube, pods, made, because="didn't match Pod's node affinity/selector")


def test_scheduler_tells_what_it_did(kube: Kube, pods: str, node: Object) -> None:
    made = kube.create(pods, pod(node))
    place(kube, pods, made)
    events = pods.replace("/pods", f"/events?fieldSelector=involvedObject.name={made['metadata']['name']}")
    eventually(lambda: {event["reason"] for event in kube.get(events)["items"]}, until=lambda seen: "Scheduled" in seen)
