"""PodDisruptionBudgets: what they allow just now, and evictions that ask them."""

import math
from typing import Any

from fakes.cluster.embedded.objects import (
    Object,
    condition,
    controller_of,
    is_deleting,
    labels_of,
    name_of,
    namespace_of,
)
from fakes.cluster.embedded.problems import Problem
from fakes.cluster.embedded.rest import FINISHED, STATUS, Api, Deletion
from fakes.cluster.embedded.selectors import matches
from fakes.cluster.embedded.store import Event, Key

_ONE_BUDGET = "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support."


def evict(api: Api, key: Key, how: Deletion) -> None:
    """Delete a pod where its disruption budget allows. Raises Problem: 429 where it does not."""
    pods = api.registry.built_in("pods")
    pod = api.get(pods, key).object
    budgets = [
        budget
        for budget in api.objects("poddisruptionbudgets")
        if namespace_of(budget) == key[0] and matches(budget["spec"].get("selector"), labels_of(pod))
    ]
    if pod[STATUS].get("phase") in {"Pending", *FINISHED} or is_deleting(pod):
        budgets = []
    if len(budgets) > 1:
        raise Problem(500, "InternalError", _ONE_BUDGET)
    for budget in budgets:
        _spend(api, budget, ready=_is_ready(pod))
    api.delete(pods, key, how)


class Budgets:
    """Keeps the status of PodDisruptionBudgets."""

    def __init__(self, api: Api) -> None:
        self._api = api

    def keys(self, event: Event) -> list[Key]:
        """Return the budgets that a change may concern."""
        if event.item.resource.path not in {"pods", "poddisruptionbudgets.policy"}:
            return []
        if event.item.resource.path != "pods":
            return [event.item.key]
        return [
            (namespace_of(budget), name_of(budget))
            for budget in self._api.objects("poddisruptionbudgets")
            if namespace_of(budget) == event.item.key[0]
        ]

    def sync(self, key: Key) -> None:
        """Count again."""
        budget = self._api.find("poddisruptionbudgets", key)
        if budget is not None:
            self._api.write_status("poddisruptionbudgets", budget, _status(self._api, budget))


def _status(api: Api, budget: Object) -> Object:
    spec = budget["spec"]
    pods = [
        pod
        for pod in api.objects("pods")
        if namespace_of(pod) == namespace_of(budget) and matches(spec.get("selector"), labels_of(pod))
    ]
    expected = len(pods) if isinstance(spec.get("minAvailable"), int) else _expected(api, pods)
    if "maxUnavailable" in spec:
        wanted = max(expected - _amount(spec["maxUnavailable"], expected), 0)
    else:
        wanted = _amount(spec.get("minAvailable", 1), expected)
    healthy = sum(_is_ready(pod) and not is_deleting(pod) for pod in pods)
    allowed = max(healthy - wanted, 0) if expected else 0
    return {
        "disruptionsAllowed": allowed,
        "currentHealthy": healthy,
        "desiredHealthy": wanted,
        "expectedPods": expected,
        "observedGeneration": budget["metadata"]["generation"],
    }


def _expected(api: Api, pods: list[Object]) -> int:
    """Return how many pods there should be, as their controllers say."""
    controllers: dict[str, int] = {}
    for pod in pods:
        owner = controller_of(pod)
        found = api.store.by_uid(owner["uid"]) if owner is not None else None
        if found is not None:
            controllers[found.object["metadata"]["uid"]] = int((found.object.get("spec") or {}).get("replicas", 1))
    return sum(controllers.values())


def _amount(value: Any, whole: int) -> int:
    return math.ceil(int(value.rstrip("%")) * whole / 100) if isinstance(value, str) else int(value)


def _spend(api: Api, budget: Object, *, ready: bool) -> None:
    status = _status(api, budget)
    if not ready and status["currentHealthy"] >= status["desiredHealthy"] > 0:
        return
    if not ready and budget["spec"].get("unhealthyPodEvictionPolicy") == "AlwaysAllow":
        return
    if status["disruptionsAllowed"] <= 0:
        text = (
            f"The disruption budget {name_of(budget)} needs {status['desiredHealthy']} healthy pods "
            f"and has {status['currentHealthy']} currently"
        )
        causes = [{"reason": "DisruptionBudget", "message": text}]
        refusal = "Cannot evict pod as it would violate the pod's disruption budget."
        raise Problem(429, "TooManyRequests", refusal, details={"causes": causes})


def _is_ready(pod: Object) -> bool:
    return condition(pod, "Ready").get("status") == "True"
