"""The node lifecycle: taints that say what a node's conditions say, and pods that do not tolerate them.

A Lease that is not renewed means nothing here: whoever plays the kubelet marks a silent Node itself.
"""

from datetime import UTC, datetime
from typing import Final

from fakes.cluster.embedded.controllers.placement import Placement, tolerates, untolerated
from fakes.cluster.embedded.objects import Object, condition, dig, is_deleting, name_of, namespace_of, now
from fakes.cluster.embedded.rest import Api, own_call
from fakes.cluster.embedded.store import Event, Key
from fakes.cluster.embedded.strategies import NOT_READY, UNREACHABLE

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
        if event.item.resource.path == "nodes":
            return [event.item.key] if event.change != "DELETED" else []
        if event.item.resource.path == "pods" and event.change != "DELETED":
            node = dig(event.item.object, "spec", "nodeName")
            was = dig(event.old.object, "spec", "nodeName") if event.old else None
            return [("", node)] if node and node != was else []
        return []

    def sync(self, key: Key) -> float | None:
        """Put taints on and off, and delete pods that may not stay."""
        node = self._api.find("nodes", key)
        if node is None:
            return None
        present = dig(node, "spec", "taints") or []
        wanted = _wanted(node)
        kept = [t for t in present if t["key"] not in _OURS or (t["key"], t.get("effect")) in wanted]
        there = {(taint["key"], taint.get("effect")) for taint in kept}
        added = [{"key": k, "effect": e, "timeAdded": now()} for k, e in wanted if (k, e) not in there]
        if added or len(kept) != len(present):
            present = [*kept, *added]
            self._write(key, present)
        return self._evict(name_of(node), [taint for taint in present if taint.get("effect") == "NoExecute"])

    def _write(self, key: Key, taints: list[Object]) -> None:
        def edit(node: Object) -> Object:
            return {**node, "spec": {**node["spec"], "taints": taints or None}}

        self._api.update(self._api.registry.built_in("nodes"), key, edit, call=own_call())

    def _evict(self, node: str, taints: list[Object]) -> float | None:
        waits = []
        for pod in self._placement.running(node) if taints else ():
            if is_deleting(pod):
                continue
            wait = _wait(pod, taints)
            if wait is not None and wait <= 0:
                self._api.delete(self._api.registry.built_in("pods"), (namespace_of(pod), name_of(pod)))
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
