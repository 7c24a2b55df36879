"""PodDisruptionBudgets: what they allow just now, and evictions that ask them."""

import math
from typing import Any

from fakes.cluster.embedded.api import FINISHED, STATUS, Api, Deletion
from fakes.cluster.embedded.objects import (
    Object,
    condition,
    controller_of,
    dig,
    is_deleting,
    labels_of,
    name_of,
    namespace_of,
)
from fakes.cluster.embedded.problems import Problem
from fakes.cluster.embedded.selectors import matches
from fakes.cluster.embedded.store import Event, Key

_ONE_BUDGET = "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support."


def evict(api: Api, key: Key, how: Deletion) -> None:
    """Delete a pod where its disruption budget allows. Raises Problem: 429 where it does not."""
    pods = api.kind("pods")
    pod = api.get(pods, key).object
    if pod[STATUS].get("phase") not in {"Pending", *FINISHED} and not is_deleting(pod):
        budgets = [
            budget
            for budget in api.objects("poddisruptionbudgets", namespace=key[0])
            if matches(budget["spec"].get("selector"), labels_of(pod))
        ]
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
        path, (namespace, _) = event.item.resource.path, event.item.key
        if path == "poddisruptionbudgets.policy":
            return [event.item.key]
        if path != "pods":
            return []
        budgets = self._api.objects("poddisruptionbudgets", namespace=namespace)
        return [(namespace, name_of(budget)) for budget in budgets]

    def sync(self, key: Key) -> None:
        """Count again."""
        budget = self._api.find("poddisruptionbudgets", key)
        if budget is not None:
            self._api.write("poddisruptionbudgets", budget, status=_status(self._api, budget))


def _status(api: Api, budget: Object) -> Object:
    spec = budget["spec"]
    inside = api.objects("pods", namespace=namespace_of(budget))
    pods = [pod for pod in inside if matches(spec.get("selector"), labels_of(pod))]
    expected = len(pods) if isinstance(spec.get("minAvailable"), int) else _expected(api, pods)
    if "maxUnavailable" in spec:
        wanted = max(expected - _amount(spec["maxUnavailable"], expected), 0)
    else:
        wanted = _amount(spec.get("minAvailable", 1), expected)
    healthy = sum(_is_ready(pod) and not is_deleting(pod) for pod in pods)
    return {
        "disruptionsAllowed": max(healthy - wanted, 0) if expected else 0,
        "currentHealthy": healthy,
        "desiredHealthy": wanted,
        "expectedPods": expected,
        "observedGeneration": budget["metadata"]["generation"],
    }


def _expected(api: Api, pods: list[Object]) -> int:
    """Return how many pods there should be, as their controllers say."""
    controllers = {owner["uid"] for owner in map(controller_of, pods) if owner is not None}
    found = filter(None, map(api.store.by_uid, controllers))
    return sum(int(dig(controller.object, "spec", "replicas") or 1) for controller in found)


def _amount(value: Any, whole: int) -> int:
    return math.ceil(int(value.rstrip("%")) * whole / 100) if isinstance(value, str) else int(value)


def _spend(api: Api, budget: Object, *, ready: bool) -> None:
    status = _status(api, budget)
    if not ready and status["currentHealthy"] >= status["desiredHealthy"] > 0:
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
