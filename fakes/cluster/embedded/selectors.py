"""Label selectors and field selectors.

https://kubernetes.io/docs/concepts/overview/working-with-objects/labels/#label-selectors
"""

import re
from collections.abc import Callable, Mapping
from typing import Any, Final

from fakes.cluster.embedded.kinds import Resource
from fakes.cluster.embedded.objects import Object, dig, labels_of
from fakes.cluster.embedded.problems import bad_request

Predicate = Callable[[Object], bool]

_REQUIREMENT: Final = re.compile(
    r"\s*(?:(?P<absent>!\s*)?(?P<name>[\w./-]+))\s*"
    r"(?:(?P<equality>==|=|!=)\s*(?P<value>[\w.-]*)|(?P<set>in|notin)\s*\((?P<values>[^()]*)\))?\s*(?:,|$)"
)
_EVERYWHERE: Final = ("metadata.name", "metadata.namespace")
# What the API server can select by, beside name and namespace (k8s.io/kubernetes, pkg/apis/*/v1/conversion.go).
_FIELDS: Final[Mapping[str, tuple[str, ...]]] = {
    "events": (
        *(f"involvedObject.{field}" for field in ("kind", "namespace", "name", "uid", "apiVersion", "resourceVersion")),
        *("involvedObject.fieldPath", "reason", "reportingComponent", "source", "type"),
    ),
    "jobs": ("status.successful",),
    "namespaces": ("status.phase",),
    "nodes": ("spec.unschedulable",),
    "pods": (
        *("spec.nodeName", "spec.restartPolicy", "spec.schedulerName", "spec.serviceAccountName", "spec.hostNetwork"),
        *("status.phase", "status.podIP", "status.nominatedNodeName"),
    ),
    "secrets": ("type",),
}


def by_labels(text: str) -> Predicate | None:
    """Return a predicate for a label selector, None where it selects everything. Raises Problem."""
    checks = []
    position = 0
    while position < len(text):
        match = _REQUIREMENT.match(text, position)
        if match is None:
            raise bad_request(f"unable to parse requirement: found {text[position:]!r}")
        position = match.end()
        checks.append(_requirement(match))
    return _all(checks, labels_of)


def matches(selector: Object | None, labels: Mapping[str, str]) -> bool:
    """Tell whether labels match a LabelSelector; an absent one matches nothing, an empty one everything."""
    if selector is None:
        return False
    wanted = (selector.get("matchLabels") or {}).items()
    return all(labels.get(key) == value for key, value in wanted) and all(
        relation(labels, entry) for entry in selector.get("matchExpressions") or ()
    )


def relation(labels: Mapping[str, str], entry: Object) -> bool:
    """Tell whether labels fulfil one key, operator and values."""
    value, values = labels.get(entry["key"]), list(entry.get("values") or ())
    match entry["operator"]:
        case "In":
            return value in values
        case "NotIn":
            return value not in values
        case "Exists":
            return value is not None
        case "DoesNotExist":
            return value is None
        case "Gt" | "Lt" as operator:
            if value is None or not value.lstrip("-").isdigit():
                return False
            return int(value) > int(values[0]) if operator == "Gt" else int(value) < int(values[0])
    return False


def by_fields(text: str, resource: Resource) -> Predicate | None:
    """Return a predicate for a field selector, None where it selects everything. Raises Problem."""
    known: tuple[str, ...] = _EVERYWHERE if resource.custom else (*_EVERYWHERE, *_FIELDS.get(resource.plural, ()))
    checks: list[Callable[[Object], bool]] = []
    for part in filter(None, text.split(",")):
        match = re.fullmatch(r"([^=!]+)(==|=|!=)(.*)", part.strip())
        if match is None:
            raise bad_request(f"invalid selector: {text!r}; can't understand {part!r}")
        field, operator, value = match[1], match[2], match[3]
        if field not in known:
            raise bad_request(f"field label not supported: {field}")
        checks.append(_field(tuple(field.split(".")), value, equal=operator != "!="))
    return _all(checks, lambda item: item)


def _requirement(match: re.Match[str]) -> Callable[[Any], bool]:
    name, value = match["name"], match["value"]
    if match["set"]:
        values = {entry.strip() for entry in match["values"].split(",")}
        if match["set"] == "in":
            return lambda labels: labels.get(name) in values
        return lambda labels: labels.get(name) not in values
    if match["equality"] == "!=":
        return lambda labels: labels.get(name) != value
    if match["equality"]:
        return lambda labels: labels.get(name) == value
    if match["absent"]:
        return lambda labels: name not in labels
    return lambda labels: name in labels


def _field(path: tuple[str, ...], value: str, *, equal: bool) -> Callable[[Any], bool]:
    def check(item: Any) -> bool:
        found = dig(item, *path)
        if isinstance(found, dict):
            found = found.get("component")
        text = str(found).lower() if isinstance(found, bool) else "" if found is None else str(found)
        # An absent flag reads as false.
        return (text == value or (found is None and value == "false")) is equal

    return check


def _all(checks: list[Callable[[Any], bool]], of: Callable[[Object], Any]) -> Predicate | None:
    if not checks:
        return None

    def predicate(item: Object) -> bool:
        looked_at = of(item)
        return all(check(looked_at) for check in checks)

    return predicate
