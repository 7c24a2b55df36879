"""The node lifecycle: taints that say what a node's conditions say, and pods that do not tolerate them.

A Lease that is not renewed means nothing here: whoever plays the kubelet marks a silent Node itself. A pod that
tolerates a taint for some seconds stays for ever.
"""

from typing import Final

from fakes.cluster.embedded.api import Api
from fakes.cluster.embedded.controllers.scheduler import Placement, untolerated
from fakes.cluster.embedded.objects import Object, condition, dig, is_deleting, name_of, namespace_of, now
from fakes.cluster.embedded.rules import NOT_READY, UNREACHABLE
from fakes.cluster.embedded.store import Event, Key

_UNSCHEDULABLE: Final = "node.kubernetes.io/unschedulable"
_OURS: Final = {NOT_READY, UNREACHABLE, _UNSCHEDULABLE}


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

    def sync(self, key: Key) -> None:
        """Put taints on and off, and delete pods that may not stay."""
        node = self._api.find("nodes", key)
        if node is None:
            return
        present = dig(node, "spec", "taints") or []
        wanted = _wanted(node)
        kept = [t for t in present if t["key"] not in _OURS or (t["key"], t.get("effect")) in wanted]
        there = {(taint["key"], taint.get("effect")) for taint in kept}
        taints = kept + [{"key": k, "effect": e, "timeAdded": now()} for k, e in wanted if (k, e) not in there]
        if taints != present:
            spec = {field: value for field, value in node["spec"].items() if field != "taints"}
            self._api.write("nodes", node, spec={**spec, **({"taints": taints} if taints else {})})
        for pod in self._placement.on(name_of(node)):
            if untolerated(pod, taints, ("NoExecute",)) and not is_deleting(pod):
                self._api.delete(self._api.kind("pods"), (namespace_of(pod), name_of(pod)))


def _wanted(node: Object) -> list[tuple[str, str]]:
    """Return the taints that a node should have of ours; one that has not said how it is has none."""
    ready = condition(node, "Ready").get("status", "True")
    wanted = []
    if ready != "True":
        key = NOT_READY if ready == "False" else UNREACHABLE
        wanted = [(key, "NoSchedule"), (key, "NoExecute")]
    if dig(node, "spec", "unschedulable"):
        wanted.append((_UNSCHEDULABLE, "NoSchedule"))
    return wanted
