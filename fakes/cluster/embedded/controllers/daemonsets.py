"""DaemonSets: a pod on each node that it may be on."""

from typing import Final

from fakes.cluster.embedded.controllers.placement import HARD, Placement, is_wanted, pinned_to, untolerated
from fakes.cluster.embedded.controllers.workload import HASH_LABEL, Workload, is_active, is_ready, revision
from fakes.cluster.embedded.objects import Object, dig, is_deleting, labels_of, name_of, namespace_of
from fakes.cluster.embedded.rest import FINISHED, Api
from fakes.cluster.embedded.store import Event, Key

# What the DaemonSet controller adds to each pod: they stay, whatever happens to the node.
_TOLERATED: Final = {
    "not-ready": "NoExecute",
    "unreachable": "NoExecute",
    "disk-pressure": "NoSchedule",
    "memory-pressure": "NoSchedule",
    "pid-pressure": "NoSchedule",
    "unschedulable": "NoSchedule",
}


class DaemonSets(Workload):
    """Makes and takes away pods as nodes come, change and go."""

    plural, kind = "daemonsets", "DaemonSet"

    def __init__(self, api: Api, placement: Placement) -> None:
        super().__init__(api)
        self._placement = placement

    def keys(self, event: Event) -> list[Key]:
        """Return the DaemonSets that a change concerns: all of them when a node has changed."""
        if event.item.resource.path != "nodes":
            return super().keys(event)
        if event.old is not None and event.change == "MODIFIED" and _face(event.old.object) == _face(event.item.object):
            return []
        return [(namespace_of(item), name_of(item)) for item in self.api.objects(self.plural)]

    def reconcile(self, item: Object) -> None:
        """Create and delete pods."""
        present = revision(item)
        pods: dict[str, list[Object]] = {}
        for pod in self.dependents(item):
            pods.setdefault(dig(pod, "spec", "nodeName") or pinned_to(pod) or "", []).append(pod)
        wanted = {}
        for node in self.api.objects("nodes"):
            probe = {"spec": _spec(item, name_of(node))}
            taints = dig(node, "spec", "taints") or ()
            here = pods.get(name_of(node), [])
            if not is_wanted(probe, node) or untolerated(probe, taints, ("NoExecute",)):
                continue
            # A pod that is there stays where a new one would not be put.
            if any(is_active(pod) for pod in here) or not untolerated(probe, taints, HARD):
                wanted[name_of(node)] = probe["spec"]
        for name, there in pods.items():
            for pod in there:
                if name not in wanted or pod["status"].get("phase") in FINISHED:
                    self.delete(pod)
        self._roll(item, pods, present)
        for name, spec in wanted.items():
            if all(pod["status"].get("phase") in FINISHED for pod in pods.get(name, ())):
                self.create_pod(item, labels={HASH_LABEL: present}, **spec)
        self._report(item, list(wanted), present)

    def _roll(self, item: Object, pods: dict[str, list[Object]], present: str) -> None:
        """Replace one pod of an old template at a time."""
        if item["spec"]["updateStrategy"]["type"] != "RollingUpdate":
            return
        all_pods = [pod for there in pods.values() for pod in there]
        old = [pod for pod in all_pods if labels_of(pod).get(HASH_LABEL) != present]
        if old and not any(is_deleting(pod) for pod in all_pods):
            broken = [pod for pod in old if not is_ready(pod)]
            if broken or all(map(is_ready, all_pods)):
                self.delete((broken or old)[0])

    def _report(self, item: Object, wanted: list[str], present: str) -> None:
        pods = [pod for pod in self.dependents(item) if is_active(pod)]
        scheduled = [pod for pod in pods if pod["spec"].get("nodeName") in wanted]
        ready = sum(map(is_ready, scheduled))
        self.write_status(
            item,
            desiredNumberScheduled=len(wanted),
            currentNumberScheduled=len(scheduled),
            numberMisscheduled=0,
            numberReady=ready,
            numberAvailable=ready or None,
            numberUnavailable=(len(wanted) - ready) or None,
            updatedNumberScheduled=sum(labels_of(pod).get(HASH_LABEL) == present for pod in scheduled) or None,
        )


def _spec(item: Object, node: str) -> Object:
    """Return what is particular to the pod of a node."""
    spec = item["spec"]["template"]["spec"]
    here = {"key": "metadata.name", "operator": "In", "values": [node]}
    affinity = spec.get("affinity") or {}
    required = dig(affinity, "nodeAffinity", "requiredDuringSchedulingIgnoredDuringExecution") or {}
    terms = [{**term, "matchFields": [here]} for term in required.get("nodeSelectorTerms") or [{}]]
    node_affinity = {
        **(affinity.get("nodeAffinity") or {}),
        "requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms},
    }
    own = [
        {"key": f"node.kubernetes.io/{key}", "operator": "Exists", "effect": effect}
        for key, effect in [
            *_TOLERATED.items(),
            *([("network-unavailable", "NoSchedule")] if spec.get("hostNetwork") else []),
        ]
    ]
    present = spec.get("tolerations") or []
    tolerations = [*present, *(entry for entry in own if entry not in present)]
    return {
        "affinity": {**affinity, "nodeAffinity": node_affinity},
        "tolerations": tolerations,
        "nodeSelector": spec.get("nodeSelector") or {},
    }


def _face(node: Object) -> tuple[object, ...]:
    """Return what of a node decides who may be on it."""
    return node["metadata"].get("labels"), dig(node, "spec", "taints")
