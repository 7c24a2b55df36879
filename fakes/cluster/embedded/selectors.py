"""Label selectors and field selectors.

https://kubernetes.io/docs/concepts/overview/working-with-objects/labels/#label-selectors
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

from fakes.cluster.embedded.objects import Object, dig
from fakes.cluster.embedded.problems import bad_request
from fakes.cluster.embedded.resources import Resource

_REQUIREMENT: Final = re.compile(
    r"\s*(?P<absent>!\s*)?(?P<key>[\w./-]+)\s*"
    r"(?:(?P<equality>==|=|!=)\s*(?P<value>[\w.-]*)|(?P<set>in|notin)\s*\((?P<values>[^()]*)\))?\s*(?:,|$)"
)
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


def by_labels(text: str) -> list[Object]:
    """Return the requirements of a label selector, each with key, operator and values. Raises Problem."""
    found = []
    position = 0
    while position < len(text):
        match = _REQUIREMENT.match(text, position)
        if match is None:
            raise bad_request(f"unable to parse requirement: found {text[position:]!r}")
        position = match.end()
        found.append(_requirement(match))
    return found


def by_fields(text: str, resource: Resource) -> list[tuple[tuple[str, ...], str, bool]]:
    """Return the requirements of a field selector: path, value, and whether it has to be that. Raises Problem."""
    own: tuple[str, ...] = () if resource.custom else _FIELDS.get(resource.plural, ())
    known = ("metadata.name", "metadata.namespace", *own)
    found = []
    for part in filter(None, text.split(",")):
        match = re.fullmatch(r"([^=!]+)(==|=|!=)(.*)", part.strip())
        if match is None:
            raise bad_request(f"invalid selector: {text!r}; can't understand {part!r}")
        if match[1] not in known:
            raise bad_request(f"field label not supported: {match[1]}")
        found.append((tuple(match[1].split(".")), match[3], match[2] != "!="))
    return found


def has_field(item: Object, path: tuple[str, ...], value: str) -> bool:
    """Tell whether a field of an object has a value, as field selectors write it."""
    found: Any = dig(item, *path)
    if isinstance(found, dict):
        found = found.get("component")
    text = str(found).lower() if isinstance(found, bool) else "" if found is None else str(found)
    # An absent flag reads as false.
    return text == value or (found is None and value == "false")


def matches(selector: Object | None, labels: Mapping[str, str]) -> bool:
    """Tell whether labels match a LabelSelector; an absent one matches nothing, an empty one everything."""
    return selector is not None and all(fulfils(labels, requirement) for requirement in _requirements(selector))


def fulfils(labels: Mapping[str, str], requirement: Object) -> bool:
    """Tell whether labels fulfil one key, operator and values."""
    value, values = labels.get(requirement["key"]), list(requirement.get("values") or ())
    match requirement["operator"]:
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


def _requirements(selector: Object) -> Iterator[Object]:
    for key, value in (selector.get("matchLabels") or {}).items():
        yield {"key": key, "operator": "In", "values": [value]}
    yield from selector.get("matchExpressions") or ()


def _requirement(match: re.Match[str]) -> Object:
    if match["set"]:
        values = [value.strip() for value in match["values"].split(",")]
        return {"key": match["key"], "operator": "In" if match["set"] == "in" else "NotIn", "values": values}
    if match["equality"]:
        operator = "NotIn" if match["equality"] == "!=" else "In"
        return {"key": match["key"], "operator": operator, "values": [match["value"]]}
    return {"key": match["key"], "operator": "DoesNotExist" if match["absent"] else "Exists"}
