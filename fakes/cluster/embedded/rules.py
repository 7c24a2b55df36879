"""What is particular to built-in kinds when they are written: defaults, and rules that no schema states.

The API server calls this a strategy (k8s.io/kubernetes, pkg/registry).
"""

import base64
import copy
import itertools
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from fakes.cluster.embedded import problems, resources
from fakes.cluster.embedded.objects import Object, dig, is_deleting, labels_of, name_of, namespace_of, uid_of
from fakes.cluster.embedded.problems import Cause
from fakes.cluster.embedded.selectors import matches

NOT_READY: Final = "node.kubernetes.io/not-ready"
UNREACHABLE: Final = "node.kubernetes.io/unreachable"
# Seconds a pod stays on a node in trouble unless it says otherwise (plugin DefaultTolerationSeconds).
_TOLERATION_SECONDS: Final = 300
_POD_UPDATE: Final = "pod updates may not change fields other than images, `spec.activeDeadlineSeconds` and tolerations"

_SUBDOMAIN: Final = re.compile(r"(?=.{1,253}$)[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_LABEL_KEY: Final = re.compile(r"([a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?/)?([A-Za-z0-9][-A-Za-z0-9_.]{0,61})?[A-Za-z0-9]")
_LABEL_VALUE: Final = re.compile(r"(([A-Za-z0-9][-A-Za-z0-9_.]{0,61})?[A-Za-z0-9])?")
# Kinds whose names may hold anything that fits into a path.
_FREE_NAMES: Final = ("roles", "clusterroles", "rolebindings", "clusterrolebindings")

_POD_SPEC: Final[Object] = {
    "restartPolicy": "Always",
    "terminationGracePeriodSeconds": 30,
    "dnsPolicy": "ClusterFirst",
    "securityContext": {},
    "schedulerName": "default-scheduler",
}
_CONTAINER: Final[Object] = {
    "resources": {},
    "terminationMessagePath": "/dev/termination-log",
    "terminationMessagePolicy": "File",
}
_ROLLING: Final[Object] = {"updateStrategy": {"type": "RollingUpdate"}, "revisionHistoryLimit": 10}
_DAEMONS: Final = ("currentNumberScheduled", "numberMisscheduled", "desiredNumberScheduled", "numberReady")
_DISRUPTIONS: Final = ("disruptionsAllowed", "currentHealthy", "desiredHealthy", "expectedPods")
# Plural -> what an object has where it does not say otherwise.
_DEFAULTS: Final[Mapping[str, Object]] = {
    "daemonsets": {"spec": _ROLLING, "status": dict.fromkeys(_DAEMONS, 0)},
    "jobs": {
        "spec": {"parallelism": 1, "backoffLimit": 6, "completionMode": "NonIndexed", "suspend": False},
        "status": {},
    },
    "namespaces": {"spec": {"finalizers": ["kubernetes"]}, "status": {"phase": "Active"}},
    "nodes": {"spec": {}, "status": {"daemonEndpoints": {"kubeletEndpoint": {"Port": 0}}}},
    "persistentvolumeclaims": {"spec": {"volumeMode": "Filesystem"}, "status": {"phase": "Pending"}},
    "poddisruptionbudgets": {"spec": {}, "status": dict.fromkeys(_DISRUPTIONS, 0)},
    "pods": {
        "spec": {"preemptionPolicy": "PreemptLowerPriority", "priority": 0, "enableServiceLinks": True},
        "status": {"phase": "Pending"},
    },
    "secrets": {"type": "Opaque"},
    "services": {
        "spec": {"type": "ClusterIP", "sessionAffinity": "None", "internalTrafficPolicy": "Cluster"},
        "status": {"loadBalancer": {}},
    },
    "statefulsets": {
        "spec": {"replicas": 1, "podManagementPolicy": "OrderedReady", **_ROLLING},
        "status": {"replicas": 0, "availableReplicas": 0},
    },
}

_addresses = itertools.count(2)


def check_metadata(plural: str, item: Object, old: Object | None) -> Iterator[Cause]:
    """Yield what is wrong with names, labels and finalizers; `old` is what is there before an update."""
    name = name_of(item)
    if plural not in _FREE_NAMES and not _SUBDOMAIN.fullmatch(name):
        text = (
            "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must "
            "start and end with an alphanumeric character"
        )
        yield problems.wrong("metadata.name", name, text)
    for key, value in labels_of(item).items():
        for part, form in ((key, _LABEL_KEY), (value, _LABEL_VALUE)):
            if not form.fullmatch(part):
                text = "must consist of alphanumeric characters, '-', '_' or '.', and begin and end with alphanumeric"
                yield problems.wrong("metadata.labels", part, text)
    if old is not None and is_deleting(old):
        before = old["metadata"].get("finalizers", ())
        if added := [entry for entry in item["metadata"].get("finalizers", ()) if entry not in before]:
            text = f"no new finalizers can be added if the object is being deleted, found new finalizers {added}"
            yield problems.forbidden("metadata.finalizers", text)


def complete(plural: str, item: Object) -> None:
    """Fill in what the API server fills in when an object is created; the object is the caller's own."""
    _fill(item, copy.deepcopy(_DEFAULTS.get(plural, {})))
    if maker := _COMPLETE.get(plural):
        maker(item)
    if template := dig(item, "spec", "template", "spec"):
        _complete_pod_spec(template)


def code_secret(secret: Object) -> None:
    """Put what a secret says in plain text beside its coded data, whenever it is written."""
    for key, value in (secret.pop("stringData", None) or {}).items():
        secret.setdefault("data", {})[key] = base64.b64encode(value.encode()).decode()


def check(plural: str, item: Object, old: Object | None) -> Iterator[Cause]:
    """Yield what is wrong with an object of a built-in kind; `old` is what is there before an update."""
    if checker := _CHECK.get(plural):
        yield from checker(item, old)


def _fill(item: Object, defaults: Object) -> None:
    for key, value in defaults.items():
        if isinstance(value, dict) and isinstance(item.get(key), dict):
            _fill(item[key], value)
        else:
            item.setdefault(key, value)


def _complete_pod_spec(spec: Object) -> None:
    _fill(spec, copy.deepcopy(_POD_SPEC))
    for container in [*(spec.get("initContainers") or ()), *(spec.get("containers") or ())]:
        image = str(container.get("image", ""))
        always = image.endswith(":latest") or ":" not in image.rpartition("/")[2]
        pull = {"imagePullPolicy": "Always" if always else "IfNotPresent"}
        _fill(container, {**copy.deepcopy(_CONTAINER), **pull})
        for port in container.get("ports") or ():
            port.setdefault("protocol", "TCP")
        if limits := container["resources"].get("limits"):
            container["resources"]["requests"] = {**limits, **(container["resources"].get("requests") or {})}


def _pod(pod: Object) -> None:
    spec = pod["spec"]
    _complete_pod_spec(spec)
    account = spec.setdefault("serviceAccountName", "default")
    spec["serviceAccount"] = account
    tolerations = spec.setdefault("tolerations", [])
    for key in (NOT_READY, UNREACHABLE):
        if not any(t.get("key") in {key, None} and t.get("effect") in {"NoExecute", None} for t in tolerations):
            own = {"key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": _TOLERATION_SECONDS}
            tolerations.append(own)
    pod["status"]["qosClass"] = _qos(spec)


def _qos(spec: Object) -> str:
    parts = [container["resources"] for container in spec.get("containers") or ()]
    if not any(part.get("requests") or part.get("limits") for part in parts):
        return "BestEffort"
    whole = all({"cpu", "memory"} <= (part.get("limits") or {}).keys() for part in parts)
    return "Guaranteed" if whole and all(part["requests"] == part["limits"] for part in parts) else "Burstable"


def _node(node: Object) -> None:
    # Plugin TaintNodesByCondition: nothing is put on a node before it is known to be Ready.
    taints = node["spec"].setdefault("taints", [])
    if not any(taint["key"] == NOT_READY and taint.get("effect") == "NoSchedule" for taint in taints):
        taints.append({"key": NOT_READY, "effect": "NoSchedule"})
    if "capacity" in node["status"]:
        node["status"].setdefault("allocatable", node["status"]["capacity"])


def _namespace(namespace: Object) -> None:
    namespace["metadata"].setdefault("labels", {})["kubernetes.io/metadata.name"] = name_of(namespace)


def _job(job: Object) -> None:
    spec = job["spec"]
    if spec["parallelism"] == 1:
        spec.setdefault("completions", 1)
    uid = uid_of(job)
    own = {"controller-uid": uid, "job-name": name_of(job)}
    own |= {f"batch.kubernetes.io/{key}": value for key, value in own.items()}
    spec.setdefault("template", {}).setdefault("metadata", {}).setdefault("labels", {}).update(own)
    job["metadata"].setdefault("labels", own)
    spec["selector"] = {"matchLabels": {"batch.kubernetes.io/controller-uid": uid}}


def _service(service: Object) -> None:
    spec = service["spec"]
    if spec["type"] != "ExternalName" and "clusterIP" not in spec:
        number = next(_addresses)
        spec["clusterIP"] = f"10.0.{number // 256}.{number % 256}"
    spec.setdefault("clusterIPs", [spec["clusterIP"]] if "clusterIP" in spec else [])
    for port in spec.get("ports") or ():
        _fill(port, {"protocol": "TCP", "targetPort": port["port"]})


_COMPLETE: Final[Mapping[str, Callable[[Object], None]]] = {
    resources.CRDS: resources.complete_crd,
    "jobs": _job,
    "namespaces": _namespace,
    "nodes": _node,
    "pods": _pod,
    "services": _service,
}


def _check_pod(pod: Object, old: Object | None) -> Iterator[Cause]:
    if not pod["spec"].get("containers"):
        yield problems.required("spec.containers")
    if old is None:
        return
    if _fixed(pod["spec"]) != _fixed(old["spec"]):
        yield problems.forbidden("spec", _POD_UPDATE)
    elif any(t not in (pod["spec"].get("tolerations") or ()) for t in old["spec"].get("tolerations") or ()):
        yield problems.forbidden("spec.tolerations", "existing toleration can not be modified")


def _fixed(spec: Object) -> Object:
    """Return what may not change in a pod's spec."""
    fixed: dict[str, Any] = {k: v for k, v in spec.items() if k not in {"activeDeadlineSeconds", "tolerations"}}
    for field in ("containers", "initContainers"):
        fixed[field] = [{k: v for k, v in entry.items() if k != "image"} for entry in spec.get(field) or ()]
    return fixed


def _check_node(node: Object, old: Object | None) -> Iterator[Cause]:
    spec = node.get("spec") or {}
    seen = set()
    for index, taint in enumerate(spec.get("taints") or ()):
        if (key := (taint["key"], taint.get("effect"))) in seen:
            yield problems.duplicate(f"metadata.taints[{index}]", taint)
        seen.add(key)
    before = dig(old, "spec", "providerID")
    if before and spec.get("providerID") != before:
        text = 'node updates may not change providerID except from "" to valid'
        yield problems.forbidden("spec.providerID", text)


def _check_event(event: Object, _old: Object | None) -> Iterator[Cause]:
    about = event.get("involvedObject") or {}
    if about.get("namespace", "default") != namespace_of(event):
        yield problems.wrong("involvedObject.namespace", about.get("namespace", ""), "does not match event.namespace")


def _check_job(job: Object, old: Object | None) -> Iterator[Cause]:
    policy = dig(job, "spec", "template", "spec", "restartPolicy")
    if policy not in {"OnFailure", "Never"}:
        yield problems.unsupported("spec.template.spec.restartPolicy", policy, ("OnFailure", "Never"))
    for field in ("template", "selector", "completions", "completionMode") if old is not None else ():
        if job["spec"].get(field) != dig(old, "spec", field):
            yield problems.wrong(f"spec.{field}", job["spec"].get(field), "field is immutable")


def _check_workload(item: Object, old: Object | None) -> Iterator[Cause]:
    spec = item["spec"]
    labels = dig(spec, "template", "metadata", "labels") or {}
    if not matches(spec.get("selector"), labels):
        yield problems.wrong("spec.template.metadata.labels", labels, "`selector` does not match template `labels`")
    if old is not None and spec.get("selector") != old["spec"].get("selector"):
        yield problems.wrong("spec.selector", spec.get("selector"), "field is immutable")
    if spec.get("volumeClaimTemplates"):
        yield problems.forbidden("spec.volumeClaimTemplates", "no volume is ever made by this control plane")
    policy = spec.get("podManagementPolicy", "OrderedReady")
    if policy not in ("OrderedReady", "Parallel"):
        yield problems.unsupported("spec.podManagementPolicy", policy, ("OrderedReady", "Parallel"))
    if old is not None and policy != old["spec"].get("podManagementPolicy", "OrderedReady"):
        yield problems.forbidden("spec", "updates to statefulset spec for podManagementPolicy are forbidden")


def _check_unmade(_item: Object, _old: Object | None) -> Iterator[Cause]:
    yield problems.forbidden("kind", "no controller of this control plane would make pods of it")


def _check_crd(crd: Object, _old: Object | None) -> Iterator[Cause]:
    return resources.check_crd(crd)


_CHECK: Final[Mapping[str, Callable[[Object, Object | None], Iterator[Cause]]]] = {
    resources.CRDS: _check_crd,
    "daemonsets": _check_workload,
    "deployments": _check_unmade,
    "events": _check_event,
    "jobs": _check_job,
    "nodes": _check_node,
    "pods": _check_pod,
    "replicasets": _check_unmade,
    "statefulsets": _check_workload,
}
