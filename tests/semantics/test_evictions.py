"""Evictions: deletions that ask the disruption budget first."""

import pytest

from tests.semantics.client import Answer, Kube, Object, eventually, unique
from tests.semantics.things import path, pod


@pytest.fixture
def pods(namespace: str) -> str:
    return f"/api/v1/namespaces/{namespace}/pods"


@pytest.fixture
def budgets(namespace: str) -> str:
    return f"/apis/policy/v1/namespaces/{namespace}/poddisruptionbudgets"


def running(kube: Kube, pods: str, node: Object, *, ready: bool = True) -> Object:
    """A pod that runs on the node, as its kubelet would say."""
    made = kube.create(pods, pod(node, labels={"app": "guarded"}, nodeName=node["metadata"]["name"]))
    conditions = [{"type": "Ready", "status": str(ready)}]
    return kube.patch(f"{path(pods, made)}/status", {"status": {"phase": "Running", "conditions": conditions}})


def guard(kube: Kube, budgets: str, *, allowed: int, **spec: object) -> None:
    """Make a budget and wait until it has counted."""
    body = {"metadata": {"name": unique("pdb")}, "spec": {"selector": {"matchLabels": {"app": "guarded"}}, **spec}}
    made = kube.create(budgets, body)

    def counted(seen: Object) -> bool:
        status = seen.get("status") or {}
        return bool(status.get("observedGeneration") == 1 and status.get("disruptionsAllowed") == allowed)

    eventually(lambda: kube.get(path(budgets, made)), until=counted)


def evict(kube: Kube, pods: str, item: Object) -> Answer:
    body = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": item["metadata"]["name"]}}
    return kube.ask("POST", f"{path(pods, item)}/eviction", body)


def test_pod_without_a_budget_is_evicted(kube: Kube, pods: str, node: Object) -> None:
    made = running(kube, pods, node)
    assert evict(kube, pods, made).code == 201
    assert "deletionTimestamp" in kube.get(path(pods, made))["metadata"]


def test_budget_that_is_spent_refuses(kube: Kube, pods: str, budgets: str, node: Object) -> None:
    made = running(kube, pods, node)
    guard(kube, budgets, allowed=0, minAvailable=1)
    answer = evict(kube, pods, made)
    assert (answer.code, answer.reason) == (429, "TooManyRequests")
    assert answer.message == "Cannot evict pod as it would violate the pod's disruption budget."
    (cause,) = answer.body["details"]["causes"]
    assert cause["reason"] == "DisruptionBudget"
    assert "needs 1 healthy pods and has 1 currently" in cause["message"]
    assert "deletionTimestamp" not in kube.get(path(pods, made))["metadata"]


def test_budget_allows_as_many_as_it_can_spare(kube: Kube, pods: str, budgets: str, node: Object) -> None:
    made = [running(kube, pods, node) for _ in range(2)]
    guard(kube, budgets, allowed=1, minAvailable=1)
    assert [evict(kube, pods, item).code for item in made] == [201, 429]


def test_percentage_of_pods_without_a_controller_allows_none(kube: Kube, pods: str, budgets: str, node: Object) -> None:
    made = running(kube, pods, node)
    guard(kube, budgets, allowed=0, maxUnavailable=0)
    assert evict(kube, pods, made).code == 429


def test_pod_that_does_not_run_is_not_guarded(kube: Kube, pods: str, budgets: str) -> None:
    waiting = kube.create(pods, pod(labels={"app": "guarded"}))
    guard(kube, budgets, allowed=0, minAvailable=1)
    assert evict(kube, pods, waiting).code == 201
    kube.gone(path(pods, waiting))


def test_pod_of_two_budgets_is_not_evicted(kube: Kube, pods: str, budgets: str, node: Object) -> None:
    made = running(kube, pods, node)
    for _ in range(2):
        guard(kube, budgets, allowed=1, minAvailable=0)
    answer = evict(kube, pods, made)
    assert answer.code == 500
    assert "more than one PodDisruptionBudget" in answer.message


def test_missing_pod_is_not_found(kube: Kube, pods: str) -> None:
    assert evict(kube, pods, {"metadata": {"name": "nobody"}}).code == 404
