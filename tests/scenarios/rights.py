"""What the charts let their controllers do, and a service account that may do just that."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

import yaml

from fakes.proxy import Call

CHARTS: Final = Path(__file__).resolve().parents[2] / "charts"
# Where the service account lives, and the Lease.
NAMESPACE: Final = "default"
_RBAC: Final = "rbac.authorization.k8s.io"

# Namespace (empty for the whole cluster), API group, resource, verb.
Right = tuple[str, str, str, str]


def rules(chart: str) -> dict[str, list[dict[str, Any]]]:
    """Return the rules of a chart, those for the whole `cluster` and those for its own `namespace`."""
    loaded: dict[str, list[dict[str, Any]]] = yaml.safe_load((CHARTS / chart / "files" / "rules.yaml").read_text())
    return loaded


def granted(chart: str) -> set[Right]:
    """Return what a chart grants, whatever the names of the objects."""
    return {
        ("" if where == "cluster" else NAMESPACE, group, resource, verb)
        for where, found in rules(chart).items()
        for rule in found
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }


def used(calls: Iterable[Call], *, chart: str) -> set[Right]:
    """Return the rights that calls have taken, and those they have lacked."""
    rights = granted(chart)

    def right(call: Call, verb: str) -> Right:
        everywhere = ("", call.group, call.resource, verb)
        return everywhere if everywhere in rights else (call.namespace, call.group, call.resource, verb)

    # Refused for the state of an object counts too: rights are looked at first.
    answered = [call for call in calls if call.resource and call.status is not None and not call.spoiled]
    # What is applied and was not there is created, and that is a right of its own.
    created = {right(call, "create") for call in answered if call.status == 201}
    return {right(call, call.verb) for call in answered} | created


def write_account(chart: str, folder: Path) -> Path:
    """Write a service account of the chart's name in the namespace, with its rights, as a manifest to apply."""
    found = rules(chart)
    metadata = {"name": chart, "namespace": NAMESPACE}
    subjects = [{"kind": "ServiceAccount", **metadata}]
    documents: list[dict[str, Any]] = [{"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata}]
    for kind, where in (("ClusterRole", "cluster"), ("Role", "namespace")):
        documents += [
            {"apiVersion": f"{_RBAC}/v1", "kind": kind, "metadata": metadata, "rules": found[where]},
            {
                "apiVersion": f"{_RBAC}/v1",
                "kind": f"{kind}Binding",
                "metadata": metadata,
                "roleRef": {"apiGroup": _RBAC, "kind": kind, "name": chart},
                "subjects": subjects,
            },
        ]
    for document in documents:
        if document["kind"].startswith("Cluster"):
            document["metadata"] = {"name": chart}
    path = folder / f"{chart}.yaml"
    path.write_text(yaml.safe_dump_all(documents))
    return path
