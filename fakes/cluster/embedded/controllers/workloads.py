"""Controllers of pods: DaemonSets, StatefulSets and Jobs."""

import hashlib
import json
from collections import Counter
from typing import Any, ClassVar, Final

from fakes.cluster.embedded.api import FINISHED, STATUS, Api
from fakes.cluster.embedded.controllers.scheduler import HARD, is_wanted, untolerated
from fakes.cluster.embedded.objects import (
    Object,
    condition,
    controller_of,
    dig,
    is_deleting,
    labels_of,
    name_of,
    namespace_of,
    now,
    uid_of,
    with_condition,
)
from fakes.cluster.embedded.store import Event, Key

_HASH: Final = "controller-revision-hash"
# What the DaemonSet controller adds to each pod: they stay, whatever happens to the node.
_TOLERATED: Final = [
    {"key": f"node.kubernetes.io/{key}", "operator": "Exists", "effect": effect}
    for effect, keys in {
        "NoExecute": ("not-ready", "unreachable"),
        "NoSchedule": ("disk-pressure", "memory-pressure", "pid-pressure", "unschedulable"),
    }.items()
    for key in keys
]


class Workload:
    """A controller of objects of one kind that own pods. Subclasses say which, and what to do about one of them."""

    plural: ClassVar[str]
    kind: ClassVar[str]

    def __init__(self, api: Api) -> None:
        self.api = api

    def keys(self, event: Event) -> list[Key]:
        """Return the objects that a change concerns: itself, or the controller of a pod that has changed."""
        path = event.item.resource.path
        if path == self.api.kind(self.plural).path:
            return [event.item.key]
        owner = controller_of(event.item.object) if path == "pods" else None
        return [(event.item.key[0], owner["name"])] if owner is not None and owner["kind"] == self.kind else []

    def sync(self, key: Key) -> None:
        """Bring one object on."""
        item = self.api.find(self.plural, key)
        if item is not None and not is_deleting(item):
            self.reconcile(item)

    def reconcile(self, item: Object) -> None:
        """Do what is due for an object that is there to stay."""
        raise NotImplementedError

    def pods(self, item: Object) -> list[Object]:
        """Return the pods that this one controls, sorted by name."""
        found = (entry for entry in self.api.store.dependents(uid_of(item)) if entry.resource.path == "pods")
        return sorted((entry.object for entry in found), key=name_of)

    def create(self, owner: Object, *, labels: Object, metadata: Object, **spec: Any) -> None:
        """Create a pod of the template; `spec` replaces fields."""
        template = owner["spec"]["template"]
        about = template.get("metadata") or {}
        head = self.api.kind(self.plural).head
        reference = {**head, "name": name_of(owner), "uid": uid_of(owner), "controller": True}
        body = {
            "metadata": {
                "generateName": f"{name_of(owner)}-",
                "annotations": about.get("annotations"),
                "labels": {**(about.get("labels") or {}), **labels},
                "ownerReferences": [{**reference, "blockOwnerDeletion": True}],
                **metadata,
            },
            "spec": {**template["spec"], **spec},
        }
        self.api.create(self.api.kind("pods"), body, namespace=namespace_of(owner))

    def delete(self, pod: Object) -> None:
        """Delete a pod, unless it is on its way."""
        if not is_deleting(pod):
            self.api.delete(self.api.kind("pods"), (namespace_of(pod), name_of(pod)))

    def roll(self, item: Object, pods: list[Object]) -> None:
        """Replace pods of an old template: those that are not ready, and one other when all are."""
        old = [pod for pod in pods if labels_of(pod).get(_HASH) != revision(item)]
        due = old[-1:] if all(map(is_ready, pods)) else [pod for pod in old if not is_ready(pod)]
        for pod in due if item["spec"]["updateStrategy"]["type"] == "RollingUpdate" else ():
            self.delete(pod)

    def report(self, item: Object, **status: Any) -> None:
        """Write the status."""
        self.api.write(self.plural, item, status={"observedGeneration": item["metadata"]["generation"], **status})


class DaemonSets(Workload):
    """A pod on each node that it may be on, put there by no scheduler."""

    plural, kind = "daemonsets", "DaemonSet"

    def keys(self, event: Event) -> list[Key]:
        """Return the DaemonSets that a change concerns: all of them when a node has changed."""
        if event.item.resource.path != "nodes":
            return super().keys(event)
        if event.change == "MODIFIED" and event.old is not None and _face(event.old.object) == _face(event.item.object):
            return []
        return [(namespace_of(item), name_of(item)) for item in self.api.objects(self.plural)]

    def reconcile(self, item: Object) -> None:
        """Create and delete pods."""
        spec = item["spec"]["template"]["spec"]
        tolerations = [*(spec.get("tolerations") or ()), *_TOLERATED]
        probe = {"spec": {**spec, "tolerations": tolerations}}
        pods: dict[str, list[Object]] = {}
        for pod in self.pods(item):
            pods.setdefault(pod["spec"].get("nodeName", ""), []).append(pod)
        wanted = set()
        for node in self.api.objects("nodes"):
            name, taints = name_of(node), dig(node, "spec", "taints") or ()
            # A pod that is there stays where a new one would not be put.
            effects = ("NoExecute",) if any(map(_is_active, pods.get(name, ()))) else HARD
            if is_wanted(probe, node) and not untolerated(probe, taints, effects):
                wanted.add(name)
                if name not in pods:
                    self.create(
                        item, labels={_HASH: revision(item)}, metadata={}, nodeName=name, tolerations=tolerations
                    )
        for name, there in pods.items():
            for pod in there:
                if name not in wanted or pod[STATUS].get("phase") in FINISHED:
                    self.delete(pod)
        self.roll(item, self.pods(item))
        there = [pod for pod in self.pods(item) if _is_active(pod)]
        self.report(
            item,
            desiredNumberScheduled=len(wanted),
            currentNumberScheduled=len(there),
            numberMisscheduled=0,
            numberReady=sum(map(is_ready, there)),
            numberAvailable=sum(map(is_ready, there)),
            updatedNumberScheduled=sum(labels_of(pod).get(_HASH) == revision(item) for pod in there),
        )


class StatefulSets(Workload):
    """Pods with numbers, one after the other unless the policy is Parallel; the highest goes first."""

    plural, kind = "statefulsets", "StatefulSet"

    def reconcile(self, item: Object) -> None:
        """Do the next step."""
        present, wanted = revision(item), item["spec"]["replicas"]
        self._step(item, {int(name_of(pod).rpartition("-")[2]): pod for pod in self.pods(item)})
        pods = self.pods(item)
        ready, updated = sum(map(is_ready, pods)), sum(labels_of(pod).get(_HASH) == present for pod in pods)
        done = updated == len(pods) == ready == wanted
        self.report(
            item,
            replicas=len(pods),
            readyReplicas=ready,
            availableReplicas=ready,
            updatedReplicas=updated,
            currentRevision=present if done else dig(item, STATUS, "currentRevision") or present,
            updateRevision=present,
        )

    def _step(self, item: Object, pods: dict[int, Object]) -> None:
        if item["spec"]["podManagementPolicy"] == "Parallel":
            self._leap(item, pods)
            return None
        for ordinal in range(item["spec"]["replicas"]):
            pod = pods.pop(ordinal, None)
            if pod is None:
                return self._create(item, ordinal)
            if pod[STATUS].get("phase") in FINISHED:
                return self.delete(pod)
            if not is_ready(pod):
                return self.roll(item, [pod])
        if pods:
            return self.delete(pods[max(pods)])
        return self.roll(item, sorted(self.pods(item), key=lambda pod: int(name_of(pod).rpartition("-")[2])))

    def _leap(self, item: Object, pods: dict[int, Object]) -> None:
        """Make and delete all at once; only an update of what is there goes on one by one."""
        wanted = item["spec"]["replicas"]
        for ordinal in range(wanted):
            if ordinal not in pods:
                self._create(item, ordinal)
        for ordinal, pod in pods.items():
            if ordinal >= wanted or pod[STATUS].get("phase") in FINISHED:
                self.delete(pod)
        self.roll(item, sorted(self.pods(item), key=lambda pod: int(name_of(pod).rpartition("-")[2])))

    def _create(self, item: Object, ordinal: int) -> None:
        name = f"{name_of(item)}-{ordinal}"
        about = {"statefulset.kubernetes.io/pod-name": name, "apps.kubernetes.io/pod-index": str(ordinal)}
        labels = {**about, _HASH: revision(item)}
        subdomain = item["spec"].get("serviceName")
        self.create(item, labels=labels, metadata={"name": name}, hostname=name, subdomain=subdomain)


class Jobs(Workload):
    """Runs pods until enough have succeeded or too many have failed; it counts the pods that are there."""

    plural, kind = "jobs", "Job"

    def reconcile(self, item: Object) -> None:
        """Count what has ended, and start what is missing."""
        spec, status = item["spec"], dict(item.get(STATUS) or {})
        if status.get("conditions"):
            return
        ended = Counter(pod[STATUS].get("phase") for pod in self.pods(item))
        active = [pod for pod in self.pods(item) if _is_active(pod)]
        succeeded, has_failed = ended["Succeeded"], ended["Failed"] > spec["backoffLimit"]
        completions = spec.get("completions")
        done = succeeded >= completions if completions is not None else bool(succeeded) and not active
        if has_failed:
            told = {"reason": "BackoffLimitExceeded", "message": "Job has reached the specified backoff limit"}
            status["conditions"] = with_condition([], "Failed", "True", **told)
        elif done:
            told = {"reason": "CompletionsReached", "message": "Reached expected number of succeeded pods"}
            status |= {"conditions": with_condition([], "Complete", "True", **told), "completionTime": now()}
        if has_failed or done or spec["suspend"]:
            for pod in active:
                self.delete(pod)
        elif completions is not None or not succeeded:
            left = spec["parallelism"] if completions is None else min(spec["parallelism"], completions - succeeded)
            for _ in range(left - len(active)):
                self.create(item, labels={}, metadata={})
        active = [pod for pod in self.pods(item) if _is_active(pod)]
        status.setdefault("startTime", now())
        status |= {"active": len(active), "ready": sum(map(is_ready, active))}
        status |= {"succeeded": succeeded, "failed": ended["Failed"], "uncountedTerminatedPods": {}}
        self.api.write(self.plural, item, status=status)


def is_ready(pod: Object) -> bool:
    """Whether a pod is Ready and stays."""
    return condition(pod, "Ready").get("status") == "True" and _is_active(pod)


def revision(item: Object) -> str:
    """Return a short name for the present template."""
    text = json.dumps(item["spec"]["template"], sort_keys=True)
    return f"{name_of(item)}-{hashlib.sha256(text.encode()).hexdigest()[:10]}"


def _is_active(pod: Object) -> bool:
    """Whether a pod counts: neither finished nor on its way out."""
    return pod[STATUS].get("phase") not in FINISHED and not is_deleting(pod)


def _face(node: Object) -> tuple[object, ...]:
    """Return what of a node decides who may be on it."""
    return node["metadata"].get("labels"), dig(node, "spec", "taints")
