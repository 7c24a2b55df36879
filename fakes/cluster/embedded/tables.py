"""Tables for people: which columns `kubectl get` shows of which kind.

https://kubernetes.io/docs/reference/using-api/api-concepts/#receiving-resources-as-tables
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, Final

from fakes.cluster.embedded.objects import Object, condition, dig, is_deleting, labels_of, name_of
from fakes.cluster.embedded.resources import Resource

Cell = Callable[[Object], Any]
_NONE: Final = "<none>"
_UNKNOWN: Final = "<unknown>"
# As much of JSONPath as printer columns use (https://kubernetes.io/docs/reference/kubectl/jsonpath/).
_STEP: Final = re.compile(
    r"\.(?P<field>(?:\\.|[^.\[\]\\])+)"
    r"|\[\s*(?P<quote>['\"])(?P<quoted>.*?)(?P=quote)\s*\]"
    r"|\[(?P<index>-?\d+|\*)\]"
    r"|\[\?\(\s*@\.(?P<key>[\w.-]+)\s*==\s*['\"]?(?P<value>.*?)['\"]?\s*\)\]"
)


def table(resource: Resource, items: Iterable[Object]) -> Object:
    """Return a Table of objects."""
    columns = list(_columns(resource))
    kind = {"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1"}
    return {
        "kind": "Table",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": {},
        "columnDefinitions": [
            {
                "name": name,
                "type": type_,
                "format": "name" if name == "Name" else "",
                "description": "",
                "priority": wide,
            }
            for name, type_, wide, _ in columns
        ],
        "rows": [
            {"cells": [cell(item) for *_, cell in columns], "object": {**kind, "metadata": item["metadata"]}}
            for item in items
        ],
    }


def find(item: Any, path: str) -> list[Any]:
    """Return everything that a JSONPath leads to: fields, indexes, wildcards and filters by equality, nothing else."""
    found = [item]
    for match in _steps(path.strip().strip("{}")):
        found = [result for value in found for result in _step(value, match)]
    return found


def _columns(resource: Resource) -> Iterator[tuple[str, str, int, Cell]]:
    """Yield name, type, priority (0, or 1 for `-o wide`) and cell of each column."""
    if resource.plural != "events":
        yield "Name", "string", 0, name_of
    if not resource.custom or not resource.columns:
        own: Mapping[str, str | Cell] = {} if resource.custom else _COLUMNS.get(resource.plural, {})
        for name, cell in own.items():
            yield name.rstrip("+"), "string", int(name.endswith("+")), _at(cell) if isinstance(cell, str) else cell
        if "Age" not in own and resource.plural != "events":
            yield "Age", "string", 0, _age
    for column in resource.columns:
        yield column["name"], column["type"], int(column.get("priority", 0)), _at(column["jsonPath"], column["type"])


@lru_cache(1024)
def _steps(path: str) -> tuple[re.Match[str], ...]:
    steps: list[re.Match[str]] = []
    while (position := steps[-1].end() if steps else 0) < len(path):
        match = _STEP.match(path, position)
        if match is None:
            # A column that is not understood is empty, as the API server has it.
            return ()
        steps.append(match)
    return tuple(steps)


def _step(value: Any, match: re.Match[str]) -> list[Any]:
    if "*" in {match["field"], match["index"]}:
        return list(value.values()) if isinstance(value, dict) else list(value) if isinstance(value, list) else []
    if isinstance(value, dict):
        field = match["quoted"] or re.sub(r"\\(.)", r"\1", match["field"] or "")
        return [value[field]] if field in value else []
    if not isinstance(value, list):
        return []
    if match["index"]:
        index = int(match["index"])
        return value[index : index + 1 or None]
    path = (match["key"] or "").split(".")
    return [entry for entry in value if match["key"] and str(dig(entry, *path)) == match["value"]]


def _at(path: str, kind: str = "string", *, default: Any = None) -> Cell:
    def cell(item: Object) -> Any:
        found = find(item, path)
        if not found:
            return default
        if kind == "date":
            return _since(found[0])
        if kind in {"integer", "number", "boolean"}:
            return found[0]
        return ",".join(str(value).lower() if isinstance(value, bool) else str(value) for value in found)

    return cell


def _of(ready: str, wanted: str) -> Cell:
    return lambda item: "/".join(str(next(iter(find(item, path)), 0)) for path in (ready, wanted))


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
    word = "Ready" if ready == "True" else "NotReady" if ready else "Unknown"
    return word + (",SchedulingDisabled" if dig(node, "spec", "unschedulable") else "")


def _node_roles(node: Object) -> str:
    prefix = "node-role.kubernetes.io/"
    return ",".join(sorted(key.removeprefix(prefix) for key in labels_of(node) if key.startswith(prefix))) or _NONE


def _pod_status(pod: Object) -> str:
    if is_deleting(pod):
        return "Terminating"
    for kind in ("waiting", "terminated"):
        if reasons := find(pod, f".status.containerStatuses[*].state.{kind}.reason"):
            return str(reasons[0])
    return str(pod["status"].get("reason") or pod["status"].get("phase"))


def _pod_ready(pod: Object) -> str:
    ready = find(pod, ".status.containerStatuses[*].ready")
    return f"{sum(map(bool, ready))}/{len(pod['spec'].get('containers') or ())}"


def _job_status(job: Object) -> str:
    ended = (kind for kind in ("Complete", "Failed") if condition(job, kind).get("status") == "True")
    return next(ended, "Suspended" if job["spec"].get("suspend") else "Running")


def _event_object(event: Object) -> str:
    about = event.get("involvedObject") or {}
    return f"{about.get('kind')}/{about.get('name')}".lower()


def _ports(service: Object) -> str:
    return ",".join(f"{port['port']}/{port['protocol']}" for port in service["spec"].get("ports") or ()) or _NONE


# Plural -> column -> path or function; `+` marks those that only `-o wide` shows. Name and age are everybody's.
_COLUMNS: Final[Mapping[str, Mapping[str, str | Cell]]] = {
    "configmaps": {"Data": lambda item: len(item.get("data") or {}) + len(item.get("binaryData") or {})},
    "daemonsets": {
        "Desired": ".status.desiredNumberScheduled",
        "Current": ".status.currentNumberScheduled",
        "Ready": ".status.numberReady",
    },
    "events": {
        "Last Seen": lambda event: _since(event.get("lastTimestamp") or event.get("eventTime")),
        "Type": ".type",
        "Reason": ".reason",
        "Object": _event_object,
        "Message": lambda event: str(event.get("message", "")).strip(),
        "Count+": ".count",
        "Name+": ".metadata.name",
    },
    "jobs": {
        "Status": _job_status,
        "Completions": _of(".status.succeeded", ".spec.completions"),
        "Duration": lambda job: _since(dig(job, "status", "startTime"), dig(job, "status", "completionTime")),
    },
    "leases": {"Holder": ".spec.holderIdentity"},
    "namespaces": {"Status": ".status.phase"},
    "nodes": {
        "Status": _node_status,
        "Roles": _node_roles,
        "Age": _age,
        "Version": ".status.nodeInfo.kubeletVersion",
        "Internal-IP+": _at('.status.addresses[?(@.type=="InternalIP")].address', default=_NONE),
        "External-IP+": _at('.status.addresses[?(@.type=="ExternalIP")].address', default=_NONE),
        "OS-Image+": ".status.nodeInfo.osImage",
        "Kernel-Version+": ".status.nodeInfo.kernelVersion",
        "Container-Runtime+": ".status.nodeInfo.containerRuntimeVersion",
    },
    "poddisruptionbudgets": {
        "Min Available": _at(".spec.minAvailable", default="N/A"),
        "Max Unavailable": _at(".spec.maxUnavailable", default="N/A"),
        "Allowed Disruptions": ".status.disruptionsAllowed",
    },
    "pods": {
        "Ready": _pod_ready,
        "Status": _pod_status,
        "Restarts": lambda pod: str(sum(find(pod, ".status.containerStatuses[*].restartCount"))),
        "Age": _age,
        "IP+": _at(".status.podIP", default=_NONE),
        "Node+": _at(".spec.nodeName", default=_NONE),
    },
    "secrets": {"Type": ".type", "Data": lambda item: len(item.get("data") or ())},
    "services": {"Type": ".spec.type", "Cluster-IP": _at(".spec.clusterIP", default=_NONE), "Port(s)": _ports},
    "statefulsets": {"Ready": _of(".status.readyReplicas", ".spec.replicas")},
}
