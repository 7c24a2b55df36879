"""Tables for people: which columns `kubectl get` shows of which kind.

https://kubernetes.io/docs/reference/using-api/api-concepts/#receiving-resources-as-tables
"""

from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from typing import Any, Final

from fakes.cluster.embedded import jsonpath
from fakes.cluster.embedded.kinds import Resource
from fakes.cluster.embedded.objects import Object, condition, dig, is_deleting, labels_of, name_of

Cell = Callable[[Object], Any]
_NONE: Final = "<none>"
_UNKNOWN: Final = "<unknown>"


def table(resource: Resource, version: str, items: Iterable[Object]) -> Object:
    """Return a Table of objects."""
    columns = _columns(resource, version)
    kind = {"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1"}
    return {
        "kind": "Table",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": {},
        "columnDefinitions": [
            {
                "name": name,
                "type": kind,
                "format": "name" if name == "Name" else "",
                "description": "",
                "priority": wide,
            }
            for name, kind, wide, _ in columns
        ],
        "rows": [
            {"cells": [cell(item) for *_, cell in columns], "object": {**kind, "metadata": item["metadata"]}}
            for item in items
        ],
    }


def _columns(resource: Resource, version: str) -> list[tuple[str, str, int, Cell]]:
    """Return name, type, priority (0 or 1 for `-o wide`) and cell of each column."""
    made: list[tuple[str, str, int, Cell]] = [("Name", "string", 0, name_of)]
    if resource.custom:
        if not resource.versions[version].columns:
            return [*made, ("Age", "date", 0, _age)]
        return made + [
            (column["name"], column["type"], int(column.get("priority", 0)), _at(column["jsonPath"], column["type"]))
            for column in resource.versions[version].columns
        ]
    for name, cell in _CELLS.get(resource.plural, {"Age": None}).items():
        own = _age if cell is None else _at(cell, "string") if isinstance(cell, str) else cell
        made.append((name.rstrip("+"), "string", int(name.endswith("+")), own))
    return made if resource.plural != "events" else made[1:]


def _at(path: str, kind: str) -> Cell:
    def cell(item: Object) -> Any:
        found = jsonpath.find(item, path)
        if not found:
            return None
        if kind == "date":
            return _since(found[0])
        return found[0] if kind in {"integer", "number", "boolean"} else _text(found)

    return cell


def _text(found: list[Any]) -> str:
    return ",".join(str(value).lower() if isinstance(value, bool) else str(value) for value in found)


def _age(item: Object) -> str:
    return _since(item["metadata"]["creationTimestamp"])


def _since(moment: object, until: object = None) -> str:
    """Return a time as the age that kubectl shows (k8s.io/apimachinery, pkg/util/duration)."""
    try:
        end = datetime.fromisoformat(str(until)) if until else datetime.now(UTC)
        seconds = int((end - datetime.fromisoformat(str(moment))).total_seconds())
    except (ValueError, TypeError):
        return _UNKNOWN
    for limit, size, unit in ((120, 1, "s"), (7200, 60, "m"), (172800, 3600, "h")):
        if seconds < limit:
            return f"{max(seconds, 0) // size}{unit}"
    return f"{seconds // 86400}d"


def _node_status(node: Object) -> str:
    ready = condition(node, "Ready").get("status")
    words = {"True": "Ready", "False": "NotReady"}.get(str(ready), "NotReady" if ready else "Unknown")
    return words + (",SchedulingDisabled" if dig(node, "spec", "unschedulable") else "")


def _node_roles(node: Object) -> str:
    prefix = "node-role.kubernetes.io/"
    return ",".join(sorted(key.removeprefix(prefix) for key in labels_of(node) if key.startswith(prefix))) or _NONE


def _address(kind: str) -> Cell:
    def cell(node: Object) -> str:
        entries = dig(node, "status", "addresses") or ()
        return next((str(entry["address"]) for entry in entries if entry["type"] == kind), _NONE)

    return cell


def _pod_status(pod: Object) -> str:
    status = pod["status"]
    if is_deleting(pod):
        return "Terminating"
    for entry in status.get("containerStatuses") or ():
        state = entry.get("state") or {}
        if reason := dig(state, "waiting", "reason") or dig(state, "terminated", "reason"):
            return str(reason)
    return str(status.get("reason") or status.get("phase"))


def _pod_ready(pod: Object) -> str:
    statuses = pod["status"].get("containerStatuses") or ()
    return f"{sum(bool(entry.get('ready')) for entry in statuses)}/{len(pod['spec'].get('containers') or ())}"


def _restarts(pod: Object) -> str:
    return str(sum(int(entry.get("restartCount", 0)) for entry in pod["status"].get("containerStatuses") or ()))


def _job_status(job: Object) -> str:
    for kind in ("Complete", "Failed", "Suspended"):
        if condition(job, kind).get("status") == "True":
            return kind
    return "Running"


def _of(ready: str, wanted: str) -> Cell:
    return lambda item: f"{_path(item, ready) or 0}/{_path(item, wanted) or 0}"


def _count(path: str) -> Cell:
    return lambda item: _path(item, path) or 0


def _size(path: str) -> Cell:
    return lambda item: len(_path(item, path) or ())


def _or_none(path: str) -> Cell:
    return lambda item: _text(jsonpath.find(item, path)) or _NONE


def _path(item: Object, path: str) -> Any:
    return dig(item, *path.split("."))


def _ports(service: Object) -> str:
    return ",".join(f"{port['port']}/{port['protocol']}" for port in service["spec"].get("ports") or ()) or _NONE


# Plural -> column -> path or function, None for the age; `+` marks those that only `-o wide` shows.
_CELLS: Final[Mapping[str, Mapping[str, str | Cell | None]]] = {
    "configmaps": {"Data": lambda item: len(item.get("data") or {}) + len(item.get("binaryData") or {}), "Age": None},
    "customresourcedefinitions": {"Created At": ".metadata.creationTimestamp"},
    "daemonsets": {
        "Desired": _count("status.desiredNumberScheduled"),
        "Current": _count("status.currentNumberScheduled"),
        "Ready": _count("status.numberReady"),
        "Up-to-date": _count("status.updatedNumberScheduled"),
        "Available": _count("status.numberAvailable"),
        "Age": None,
    },
    "deployments": {
        "Ready": _of("status.readyReplicas", "spec.replicas"),
        "Up-to-date": _count("status.updatedReplicas"),
        "Available": _count("status.availableReplicas"),
        "Age": None,
    },
    "events": {
        "Last Seen": lambda event: _since(event.get("lastTimestamp") or event.get("eventTime")),
        "Type": ".type",
        "Reason": ".reason",
        "Object": lambda event: f"{_path(event, 'involvedObject.kind')}/{_path(event, 'involvedObject.name')}".lower(),
        "Subobject+": _or_none(".involvedObject.fieldPath"),
        "Source+": _or_none(".source.component"),
        "Message": lambda event: str(event.get("message", "")).strip(),
        "Count+": ".count",
        "Name+": ".metadata.name",
    },
    "jobs": {
        "Status": _job_status,
        "Completions": _of("status.succeeded", "spec.completions"),
        "Duration": lambda job: _since(_path(job, "status.startTime"), _path(job, "status.completionTime")),
        "Age": None,
    },
    "leases": {"Holder": ".spec.holderIdentity", "Age": None},
    "namespaces": {"Status": ".status.phase", "Age": None},
    "nodes": {
        "Status": _node_status,
        "Roles": _node_roles,
        "Age": None,
        "Version": ".status.nodeInfo.kubeletVersion",
        "Internal-IP+": _address("InternalIP"),
        "External-IP+": _address("ExternalIP"),
        "OS-Image+": ".status.nodeInfo.osImage",
        "Kernel-Version+": ".status.nodeInfo.kernelVersion",
        "Container-Runtime+": ".status.nodeInfo.containerRuntimeVersion",
    },
    "persistentvolumeclaims": {"Status": ".status.phase", "StorageClass": ".spec.storageClassName", "Age": None},
    "poddisruptionbudgets": {
        "Min Available": lambda item: str(_path(item, "spec.minAvailable") or "N/A"),
        "Max Unavailable": lambda item: str(_path(item, "spec.maxUnavailable") or "N/A"),
        "Allowed Disruptions": _count("status.disruptionsAllowed"),
        "Age": None,
    },
    "pods": {
        "Ready": _pod_ready,
        "Status": _pod_status,
        "Restarts": _restarts,
        "Age": None,
        "IP+": _or_none(".status.podIP"),
        "Node+": _or_none(".spec.nodeName"),
        "Nominated Node+": _or_none(".status.nominatedNodeName"),
        "Readiness Gates+": lambda _: _NONE,
    },
    "replicasets": {
        "Desired": _count("spec.replicas"),
        "Current": _count("status.replicas"),
        "Ready": _count("status.readyReplicas"),
        "Age": None,
    },
    "secrets": {"Type": ".type", "Data": _size("data"), "Age": None},
    "services": {
        "Type": ".spec.type",
        "Cluster-IP": _or_none(".spec.clusterIP"),
        "External-IP": lambda _: _NONE,
        "Port(s)": _ports,
        "Age": None,
    },
    "statefulsets": {"Ready": _of("status.readyReplicas", "spec.replicas"), "Age": None},
}
