"""What is particular to built-in kinds when they are written: defaults, and rules that no schema states.

The API server calls this a strategy (k8s.io/kubernetes, pkg/registry).
"""

import base64
import itertools
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from fakes.cluster.embedded import kinds, problems
from fakes.cluster.embedded.objects import Object, dig, is_deleting, labels_of, name_of, namespace_of, uid_of
from fakes.cluster.embedded.problems import Cause
from fakes.cluster.embedded.selectors import matches

NOT_READY: Final = "node.kubernetes.io/not-ready"
UNREACHABLE: Final = "node.kubernetes.io/unreachable"
# Seconds a pod stays on a node in trouble unless it says otherwise (plugin DefaultTolerationSeconds).
_TOLERATION_SECONDS: Final = 300
_SYSTEM_PRIORITIES: Final = {"system-node-critical": 2000001000, "system-cluster-critical": 2000000000}
_POD_UPDATE: Final = (
    "pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,"
    "`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),"
    "`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)"
)
_POLICIES: Final = "is not evaluated by this control plane, so nothing would come of it: use the real one"

_SUBDOMAIN: Final = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_LABEL_KEY: Final = re.compile(r"([a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?/)?([A-Za-z0-9][-A-Za-z0-9_.]{0,61})?[A-Za-z0-9]")
_LABEL_VALUE: Final = re.compile(r"(([A-Za-z0-9][-A-Za-z0-9_.]{0,61})?[A-Za-z0-9])?")
# Kinds whose names may hold anything that fits into a path.
_FREE_NAMES: Final = ("roles", "clusterroles", "rolebindings", "clusterrolebindings")

_addresses = itertools.count(2)


def check_metadata(plural: str, item: Object, old: Object | None) -> Iterator[Cause]:
    """Yield what is wrong with names, labels and finalizers; `old` is what is there before an update."""
    name = name_of(item)
    if plural not in _FREE_NAMES and (not _SUBDOMAIN.fullmatch(name) or len(name) > 253):
        text = (
            "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must "
            "start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is "
            f"'{_SUBDOMAIN.pattern}')"
        )
        yield problems.wrong("metadata.name", name, text)
    for key, value in labels_of(item).items():
        if not _LABEL_KEY.fullmatch(key):
            text = "name part must consist of alphanumeric characters, '-', '_' or '.'"
            yield problems.wrong("metadata.labels", key, text)
        if not _LABEL_VALUE.fullmatch(value):
            text = "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.'"
            yield problems.wrong("metadata.labels", value, text)
    if old is not None and is_deleting(old):
        before = old["metadata"].get("finalizers", ())
        if added := [entry for entry in item["metadata"].get("finalizers", ()) if entry not in before]:
            text = "no new finalizers can be added if the object is being deleted, found new finalizers []string"
            yield problems.forbidden("metadata.finalizers", f"{text}{{{problems.shown(added)[1:-1]}}}")


def on_create(plural: str, item: Object) -> None:
    """Fill in what the API server fills in; the object is the caller's own."""
    if maker := _CREATE.get(plural):
        maker(item)
    if template := dig(item, "spec", "template", "spec"):
        _default_pod_spec(template)


def check(plural: str, item: Object, old: Object | None) -> Iterator[Cause]:
    """Yield what is wrong with an object of a built-in kind; `old` is what is there before an update."""
    if checker := _CHECK.get(plural):
        yield from checker(item, old)


def refused(group: str) -> str | None:
    """Return why objects of a group are not taken, None for those that are."""
    return _POLICIES if group == "admissionregistration.k8s.io" else None


def _default_pod_spec(spec: Object) -> None:
    defaults = {
        "restartPolicy": "Always",
        "terminationGracePeriodSeconds": 30,
        "dnsPolicy": "ClusterFirst",
        "securityContext": {},
        "schedulerName": "default-scheduler",
    }
    spec.update({**defaults, **spec})
    for container in [*(spec.get("initContainers") or ()), *(spec.get("containers") or ())]:
        tag = str(container.get("image", "")).rpartition(":")[2]
        pull = "Always" if tag == "latest" or tag == container.get("image") else "IfNotPresent"
        defaults = {
            "resources": {},
            "terminationMessagePath": "/dev/termination-log",
            "terminationMessagePolicy": "File",
            "imagePullPolicy": pull,
        }
        container.update({**defaults, **container})
        for port in container.get("ports") or ():
            port.setdefault("protocol", "TCP")
        if limits := container["resources"].get("limits"):
            container["resources"]["requests"] = {**limits, **(container["resources"].get("requests") or {})}


def _pod(pod: Object) -> None:
    spec = pod["spec"]
    _default_pod_spec(spec)
    account = spec.get("serviceAccountName", "default")
    priority = _SYSTEM_PRIORITIES.get(spec.get("priorityClassName", ""), 0)
    defaults = {"priority": priority, "preemptionPolicy": "PreemptLowerPriority", "enableServiceLinks": True}
    spec.update({**defaults, **spec, "serviceAccountName": account, "serviceAccount": account})
    tolerations = spec.get("tolerations") or []
    for key in (NOT_READY, UNREACHABLE):
        if not any(t.get("key") in {key, None} and t.get("effect") in {"NoExecute", None} for t in tolerations):
            own = {"key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": _TOLERATION_SECONDS}
            tolerations = [*tolerations, own]
    spec["tolerations"] = tolerations
    pod["status"] = {"phase": "Pending", "qosClass": _qos(spec)}


def _qos(spec: Object) -> str:
    parts = [container["resources"] for container in spec.get("containers") or ()]
    if not any(part.get("requests") or part.get("limits") for part in parts):
        return "BestEffort"
    whole = all({"cpu", "memory"} <= (part.get("limits") or {}).keys() for part in parts)
    return "Guaranteed" if whole and all(part["requests"] == part["limits"] for part in parts) else "Burstable"


def _node(node: Object) -> None:
    # Plugin TaintNodesByCondition: nothing is put on a node before it is known to be Ready.
    spec = node.setdefault("spec", {})
    taints = spec.get("taints") or []
    if not any(taint["key"] == NOT_READY and taint.get("effect") == "NoSchedule" for taint in taints):
        spec["taints"] = [*taints, {"key": NOT_READY, "effect": "NoSchedule"}]
    _node_status(node)


def _node_status(node: Object) -> None:
    status = node.setdefault("status", {})
    if "capacity" in status:
        status.setdefault("allocatable", status["capacity"])
    status.setdefault("daemonEndpoints", {"kubeletEndpoint": {"Port": 0}})


def _namespace(namespace: Object) -> None:
    metadata = namespace["metadata"]
    metadata["labels"] = {**(metadata.get("labels") or {}), "kubernetes.io/metadata.name": name_of(namespace)}
    namespace["spec"] = {"finalizers": ["kubernetes"]}
    namespace["status"] = {"phase": "Active"}


def _job(job: Object) -> None:
    spec = job.setdefault("spec", {})
    spec.update({"parallelism": 1, "backoffLimit": 6, "completionMode": "NonIndexed", "suspend": False, **spec})
    if "parallelism" not in spec or spec["parallelism"] == 1:
        spec.setdefault("completions", 1)
    uid, metadata = uid_of(job), spec.setdefault("template", {}).setdefault("metadata", {})
    own = {"controller-uid": uid, "job-name": name_of(job)}
    own |= {f"batch.kubernetes.io/{key}": value for key, value in own.items()}
    metadata["labels"] = {**(metadata.get("labels") or {}), **own}
    job["metadata"]["labels"] = job["metadata"].get("labels") or own
    spec["selector"] = {"matchLabels": {"batch.kubernetes.io/controller-uid": uid}}


def _replicated(item: Object) -> None:
    item["spec"].setdefault("replicas", 1)


def _deployment(item: Object) -> None:
    _replicated(item)
    rolling = {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": "25%", "maxSurge": "25%"}}
    defaults = {"strategy": rolling, "revisionHistoryLimit": 10, "progressDeadlineSeconds": 600}
    item["spec"].update({**defaults, **item["spec"]})


def _stateful_set(item: Object) -> None:
    _replicated(item)
    rolling = {"type": "RollingUpdate", "rollingUpdate": {"partition": 0}}
    defaults = {"podManagementPolicy": "OrderedReady", "updateStrategy": rolling, "revisionHistoryLimit": 10}
    item["spec"].update({**defaults, **item["spec"]})
    for claim in item["spec"].get("volumeClaimTemplates") or ():
        claim.update({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "status": {"phase": "Pending"}})


def _daemon_set(item: Object) -> None:
    rolling = {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 1, "maxSurge": 0}}
    item["spec"].update({"updateStrategy": rolling, "revisionHistoryLimit": 10, **item["spec"]})


def _service(service: Object) -> None:
    spec = service.setdefault("spec", {})
    spec.update({"type": "ClusterIP", "sessionAffinity": "None", "internalTrafficPolicy": "Cluster", **spec})
    if spec["type"] != "ExternalName" and "clusterIP" not in spec:
        number = next(_addresses)
        spec["clusterIP"] = f"10.0.{number // 256}.{number % 256}"
    spec.setdefault("clusterIPs", [spec["clusterIP"]] if "clusterIP" in spec else [])
    for port in spec.get("ports") or ():
        port.update({"protocol": "TCP", "targetPort": port["port"], **port})


def _secret(secret: Object) -> None:
    secret.setdefault("type", "Opaque")
    plain = secret.pop("stringData", None) or {}
    if plain:
        coded = {key: base64.b64encode(value.encode()).decode() for key, value in plain.items()}
        secret["data"] = {**(secret.get("data") or {}), **coded}


def _claim(claim: Object) -> None:
    claim.setdefault("spec", {}).setdefault("volumeMode", "Filesystem")
    claim["status"] = {"phase": "Pending"}


_CREATE: Final[Mapping[str, Callable[[Object], None]]] = {
    kinds.CRDS: kinds.complete_crd,
    "daemonsets": _daemon_set,
    "deployments": _deployment,
    "jobs": _job,
    "namespaces": _namespace,
    "nodes": _node,
    "persistentvolumeclaims": _claim,
    "pods": _pod,
    "replicasets": _replicated,
    "secrets": _secret,
    "services": _service,
    "statefulsets": _stateful_set,
}


def _check_pod(pod: Object, old: Object | None) -> Iterator[Cause]:
    if not pod["spec"].get("containers"):
        yield problems.required("spec.containers")
    if old is not None and _fixed(pod["spec"]) != _fixed(old["spec"]):
        yield problems.forbidden("spec", _POD_UPDATE)
    elif old is not None:
        lost = [t for t in old["spec"].get("tolerations") or () if t not in (pod["spec"].get("tolerations") or ())]
        if lost:
            yield problems.forbidden(
                "spec.tolerations", "existing toleration can not be modified except its tolerationSeconds"
            )


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
            text = f"Duplicate value: {problems.shown(taint)}: taints must be unique by key and effect pair"
            yield Cause("FieldValueDuplicate", text, f"metadata.taints[{index}]")
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
    if dig(job, "spec", "template", "spec", "restartPolicy") not in {"OnFailure", "Never"}:
        policy = dig(job, "spec", "template", "spec", "restartPolicy")
        yield problems.unsupported("spec.template.spec.restartPolicy", policy, ("OnFailure", "Never"))
    for field in ("template", "selector", "completions", "completionMode") if old is not None else ():
        if job["spec"].get(field) != dig(old, "spec", field):
            yield problems.wrong(f"spec.{field}", job["spec"].get(field), "field is immutable")


def _check_workload(item: Object, old: Object | None) -> Iterator[Cause]:
    selector = item["spec"].get("selector")
    labels = dig(item, "spec", "template", "metadata", "labels") or {}
    if not matches(selector, labels):
        text = "`selector` does not match template `labels`"
        yield problems.wrong("spec.template.metadata.labels", labels, text)
    if old is not None and selector != old["spec"].get("selector"):
        yield problems.wrong("spec.selector", selector, "field is immutable")


def _check_crd(crd: Object, _old: Object | None) -> Iterator[Cause]:
    return kinds.check_crd(crd)


_CHECK: Final[Mapping[str, Callable[[Object, Object | None], Iterator[Cause]]]] = {
    kinds.CRDS: _check_crd,
    "daemonsets": _check_workload,
    "deployments": _check_workload,
    "events": _check_event,
    "jobs": _check_job,
    "nodes": _check_node,
    "pods": _check_pod,
    "replicasets": _check_workload,
    "statefulsets": _check_workload,
}
