"""Puts pods on nodes that they fit: resources, node selector, required node affinity, taints. No preemption."""

from collections import Counter
from typing import Final

from fakes.cluster.embedded.controllers.placement import Placement, pinned_to
from fakes.cluster.embedded.objects import (
    Object,
    condition,
    dig,
    is_deleting,
    name_of,
    namespace_of,
    now,
    suffix,
    with_condition,
)
from fakes.cluster.embedded.rest import FINISHED, STATUS, Api
from fakes.cluster.embedded.store import Event, Key

_NAME: Final = "default-scheduler"


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
            gone = event.change == "DELETED" or item["status"].get("phase") in FINISHED
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
        pinned = pinned_to(pod)
        found = self._api.find("nodes", ("", pinned)) if pinned else None
        nodes = ([found] if found else []) if pinned else list(self._api.objects("nodes"))
        reasons: Counter[str] = Counter()
        fitting = []
        for node in nodes:
            obstacles = self._placement.obstacles(pod, node)
            reasons.update(obstacles)
            if not obstacles:
                fitting.append((len(self._placement.running(name_of(node))), name_of(node)))
        if fitting:
            self._bind(pod, min(fitting)[1])
        else:
            self._complain(pod, len(nodes), reasons)

    def _bind(self, pod: Object, node: str) -> None:
        conditions = with_condition(pod[STATUS].get("conditions"), "PodScheduled", "True", lastProbeTime=None)
        self._api.bind(pod, node, conditions)
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
        self._api.write_status("pods", pod, {**pod[STATUS], "conditions": conditions})
        self._announce(pod, "Warning", "FailedScheduling", message)

    def _announce(self, pod: Object, kind: str, reason: str, message: str) -> None:
        moment, metadata = now(), pod["metadata"]
        about = {key: metadata[key] for key in ("name", "namespace", "uid", "resourceVersion")}
        event = {
            "metadata": {"name": f"{name_of(pod)}.{suffix(10)}"},
            "involvedObject": {"kind": "Pod", "apiVersion": "v1", **about},
            "type": kind,
            "reason": reason,
            "message": message,
            "count": 1,
            "source": {"component": _NAME},
            "reportingComponent": _NAME,
            "reportingInstance": _NAME,
            "firstTimestamp": moment,
            "lastTimestamp": moment,
        }
        self._api.create(self._api.registry.built_in("events"), event, namespace=namespace_of(pod))


def _offer(node: Object) -> tuple[object, ...]:
    """Return what of a node matters to pods that wait."""
    return node["metadata"].get("labels"), dig(node, "spec", "taints"), dig(node, "status", "allocatable")
