"""Puts pods on nodes that they fit: resources, node selector, required node affinity, taints. No preemption."""

from collections import Counter, defaultdict
from collections.abc import Container, Iterable
from decimal import Decimal
from typing import Final

from kubernetes.utils.quantity import parse_quantity

from fakes.cluster.embedded.api import FINISHED, STATUS, Api
from fakes.cluster.embedded.objects import (
    Object,
    condition,
    dig,
    is_deleting,
    labels_of,
    name_of,
    namespace_of,
    now,
    suffix,
    with_condition,
)
from fakes.cluster.embedded.selectors import fulfils
from fakes.cluster.embedded.store import Event, Key

HARD: Final = ("NoSchedule", "NoExecute")
_NAME: Final = "default-scheduler"
_REQUIRED: Final = ("affinity", "nodeAffinity", "requiredDuringSchedulingIgnoredDuringExecution", "nodeSelectorTerms")


class Placement:
    """The pods that take up room on each node, kept up to date by the changes it is told of."""

    def __init__(self) -> None:
        self._pods: defaultdict[str, dict[str, Object]] = defaultdict(dict)

    def note(self, event: Event) -> None:
        """Take in a change."""
        pod = event.item.object
        if event.item.resource.path != "pods" or not (node := pod["spec"].get("nodeName")):
            return
        self._pods[node].pop(pod["metadata"]["uid"], None)
        if event.change != "DELETED" and pod[STATUS].get("phase") not in FINISHED:
            self._pods[node][pod["metadata"]["uid"]] = pod
        elif not self._pods[node]:
            del self._pods[node]

    def on(self, node: str) -> list[Object]:
        """Return the pods on a node."""
        return list(self._pods.get(node, {}).values())

    def obstacles(self, pod: Object, node: Object) -> list[str]:
        """Return why a pod cannot be put on a node, in the scheduler's words; nothing when it can."""
        if not is_wanted(pod, node):
            return ["node(s) didn't match Pod's node affinity/selector"]
        if untolerated(pod, dig(node, "spec", "taints") or (), HARD):
            return ["node(s) had untolerated taint(s)"]
        there = self.on(name_of(node))
        free: dict[str, Decimal] = defaultdict(Decimal)
        for name, amount in (dig(node, STATUS, "allocatable") or {}).items():
            free[name] = parse_quantity(amount)
        for other in there:
            for name, amount in _requests(other).items():
                free[name] -= amount
        lacking = [f"Insufficient {name}" for name, amount in _requests(pod).items() if 0 < amount > free[name]]
        return lacking + (["Too many pods"] if len(there) >= free["pods"] else [])


class Scheduler:
    """Looks at a waiting pod when it is new, and again when a node or the room on one has changed."""

    def __init__(self, api: Api, placement: Placement) -> None:
        self._api = api
        self._placement = placement
        self._waiting: set[Key] = set()

    def keys(self, event: Event) -> list[Key]:
        """Return the pods to look at."""
        path, item, old = event.item.resource.path, event.item.object, event.old.object if event.old else None
        if path == "pods":
            gone = event.change == "DELETED" or item[STATUS].get("phase") in FINISHED
            if gone or item["spec"].get("nodeName"):
                self._waiting.discard(event.item.key)
                return [*self._waiting] if gone and item["spec"].get("nodeName") else []
            self._waiting.add(event.item.key)
            # Its own note on why it waits is no news.
            return [event.item.key] if old is None or old["spec"] != item["spec"] else []
        if path == "nodes" and (old is None or _offer(old) != _offer(item)):
            return [*self._waiting]
        return []

    def sync(self, key: Key) -> None:
        """Bind a pod, or say why it cannot be bound."""
        pod = self._api.find("pods", key)
        if pod is None or pod["spec"].get("nodeName") or is_deleting(pod) or pod["spec"].get("schedulingGates"):
            return
        if pod["spec"].get("schedulerName") != _NAME:
            return
        nodes = self._api.objects("nodes")
        reasons: Counter[str] = Counter()
        fitting = []
        for node in nodes:
            obstacles = self._placement.obstacles(pod, node)
            reasons.update(obstacles)
            if not obstacles:
                fitting.append((len(self._placement.on(name_of(node))), name_of(node)))
        if fitting:
            self._bind(pod, min(fitting)[1])
        else:
            self._complain(pod, len(nodes), reasons)

    def _bind(self, pod: Object, node: str) -> None:
        conditions = with_condition(pod[STATUS].get("conditions"), "PodScheduled", "True")
        status = {**pod[STATUS], "conditions": conditions}
        self._api.write("pods", pod, spec={**pod["spec"], "nodeName": node}, status=status)
        where = f"{namespace_of(pod)}/{name_of(pod)} to {node}"
        self._announce(pod, "Normal", "Scheduled", f"Successfully assigned {where}")

    def _complain(self, pod: Object, nodes: int, reasons: Counter[str]) -> None:
        told = ", ".join(sorted(f"{count} {reason}" for reason, count in reasons.items()))
        message = f"0/{nodes} nodes are available: {told}." if nodes else "no nodes available to schedule pods"
        if condition(pod, "PodScheduled").get("message") == message:
            return
        conditions = with_condition(
            pod[STATUS].get("conditions"), "PodScheduled", "False", reason="Unschedulable", message=message
        )
        self._api.write("pods", pod, status={**pod[STATUS], "conditions": conditions})
        self._announce(pod, "Warning", "FailedScheduling", message)

    def _announce(self, pod: Object, kind: str, reason: str, message: str) -> None:
        about = {key: pod["metadata"][key] for key in ("name", "namespace", "uid", "resourceVersion")}
        event = {
            "metadata": {"name": f"{name_of(pod)}.{suffix(10)}"},
            "involvedObject": {"kind": "Pod", "apiVersion": "v1", **about},
            "type": kind,
            "reason": reason,
            "message": message,
            "count": 1,
            "source": {"component": _NAME},
            "firstTimestamp": now(),
            "lastTimestamp": now(),
        }
        self._api.create(self._api.kind("events"), event, namespace=namespace_of(pod))


def is_wanted(pod: Object, node: Object) -> bool:
    """Whether a pod's node selector and required node affinity take a node."""
    labels, spec = labels_of(node), pod["spec"]
    if any(labels.get(key) != value for key, value in (spec.get("nodeSelector") or {}).items()):
        return False
    terms = dig(spec, *_REQUIRED)
    return not terms or any(_is_met(term, node) for term in terms)


def untolerated(pod: Object, taints: Iterable[Object], effects: Container[str]) -> list[Object]:
    """Return the taints of such effects that a pod does not tolerate."""
    tolerations = pod["spec"].get("tolerations") or ()
    return [
        taint
        for taint in taints
        if str(taint.get("effect")) in effects and not any(_tolerates(toleration, taint) for toleration in tolerations)
    ]


def _tolerates(toleration: Object, taint: Object) -> bool:
    """Whether a toleration is for a taint."""
    if toleration.get("effect") not in {None, "", taint.get("effect")}:
        return False
    if toleration.get("key") not in {None, "", taint["key"]}:
        return False
    return toleration.get("operator") == "Exists" or toleration.get("value", "") == taint.get("value", "")


def _is_met(term: Object, node: Object) -> bool:
    expressions, fields = term.get("matchExpressions") or (), term.get("matchFields") or ()
    return (
        bool(expressions or fields)
        and all(fulfils(labels_of(node), entry) for entry in expressions)
        and all(fulfils({"metadata.name": name_of(node)}, entry) for entry in fields)
    )


def _requests(pod: Object) -> dict[str, Decimal]:
    """Return what a pod asks for: the sum of its containers, or one init container where that asks for more."""
    total: dict[str, Decimal] = defaultdict(Decimal)
    for container in pod["spec"].get("containers") or ():
        for name, amount in (dig(container, "resources", "requests") or {}).items():
            total[name] += parse_quantity(amount)
    for container in pod["spec"].get("initContainers") or ():
        for name, amount in (dig(container, "resources", "requests") or {}).items():
            total[name] = max(total[name], parse_quantity(amount))
    return total


def _offer(node: Object) -> tuple[object, ...]:
    """Return what of a node matters to pods that wait."""
    return node["metadata"].get("labels"), dig(node, "spec", "taints"), dig(node, STATUS, "allocatable")
