"""The node lifecycle: taints that say what a node's conditions say, and pods that do not tolerate them.

A Lease that is not renewed means nothing here: whoever plays the kubelet marks a silent Node itself.
"""

from datetime import UTC, datetime
from typing import Final

from fakes.cluster.embedded.api import Api
from fakes.cluster.embedded.controllers.scheduler import Placement, tolerates, untolerated
from fakes.cluster.embedded.objects import Object, condition, dig, is_deleting, name_of, namespace_of, now
from fakes.cluster.embedded.rules import NOT_READY, UNREACHABLE
from fakes.cluster.embedded.store import Event, Key

_UNSCHEDULABLE: Final = "node.kubernetes.io/unschedulable"
# Condition that is True -> taint (k8s.io/kubernetes, pkg/controller/nodelifecycle).
_PRESSURES: Final = {
    "MemoryPressure": "node.kubernetes.io/memory-pressure",
    "DiskPressure": "node.kubernetes.io/disk-pressure",
    "PIDPressure": "node.kubernetes.io/pid-pressure",
    "NetworkUnavailable": "node.kubernetes.io/network-unavailable",
}
_OURS: Final = {NOT_READY, UNREACHABLE, _UNSCHEDULABLE, *_PRESSURES.values()}


class Nodes:
    """Taints nodes and evicts from them."""

    def __init__(self, api: Api, placement: Placement) -> None:
        self._api = api
        self._placement = placement

    def keys(self, event: Event) -> list[Key]:
        """Return the node of a change: its own, or of a pod that was put on it."""
        if event.change == "DELETED":
            return []
        if event.item.resource.path == "nodes":
            return [event.item.key]
        if event.item.resource.path == "pods":
            node = event.item.object["spec"].get("nodeName")
            was = event.old.object["spec"].get("nodeName") if event.old else None
            return [("", node)] if node and node != was else []
        return []

    def sync(self, key: Key) -> float | None:
        """Put taints on and off, and delete pods that may not stay; return when the next one has to go."""
        node = self._api.find("nodes", key)
        if node is None:
            return None
        present = dig(node, "spec", "taints") or []
        wanted = _wanted(node)
        kept = [t for t in present if t["key"] not in _OURS or (t["key"], t.get("effect")) in wanted]
        there = {(taint["key"], taint.get("effect")) for taint in kept}
        taints = kept + [{"key": k, "effect": e, "timeAdded": now()} for k, e in wanted if (k, e) not in there]
        if taints != present:
            spec = {field: value for field, value in node["spec"].items() if field != "taints"}
            self._api.write("nodes", node, spec={**spec, **({"taints": taints} if taints else {})})
        return self._evict(name_of(node), [taint for taint in taints if taint.get("effect") == "NoExecute"])

    def _evict(self, node: str, taints: list[Object]) -> float | None:
        waits = []
        for pod in self._placement.on(node) if taints else ():
            wait = None if is_deleting(pod) else _wait(pod, taints)
            if wait is not None and wait <= 0:
                self._api.delete(self._api.kind("pods"), (namespace_of(pod), name_of(pod)))
            elif wait is not None:
                waits.append(wait)
        return min(waits, default=None)


def _wanted(node: Object) -> list[tuple[str, str]]:
    """Return the taints that a node should have of ours; one that has not said how it is has none."""
    ready = condition(node, "Ready").get("status", "True")
    wanted = [
        (taint, "NoSchedule") for kind, taint in _PRESSURES.items() if condition(node, kind).get("status") == "True"
    ]
    if ready != "True":
        key = NOT_READY if ready == "False" else UNREACHABLE
        wanted += [(key, "NoSchedule"), (key, "NoExecute")]
    if dig(node, "spec", "unschedulable"):
        wanted.append((_UNSCHEDULABLE, "NoSchedule"))
    return wanted


def _wait(pod: Object, taints: list[Object]) -> float | None:
    """Return in how many seconds a pod has to leave, None when it may stay."""
    if untolerated(pod, taints, ("NoExecute",)):
        return 0.0
    waits = []
    for taint in taints:
        tolerations = [t for t in pod["spec"].get("tolerations") or () if tolerates(t, taint)]
        seconds = [t["tolerationSeconds"] for t in tolerations if t.get("tolerationSeconds") is not None]
        if seconds and len(seconds) == len(tolerations):
            added = datetime.fromisoformat(taint.get("timeAdded") or now())
            waits.append(min(seconds) - (datetime.now(UTC) - added).total_seconds())
    return min(waits, default=None)
