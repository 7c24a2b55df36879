"""What clients ask to find their way: groups, versions, resources, and schemas."""

import hashlib
import json
from collections.abc import Iterator
from typing import Any, Final

from fakes.cluster.embedded.kinds import Registry, Resource
from fakes.cluster.embedded.objects import Object

# The version of Kubernetes that the real control plane has; the behaviour is held against it.
VERSION: Final = {"major": "1", "minor": "36", "gitVersion": "v1.36.3-embedded", "platform": "python"}
AGGREGATED: Final = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"

_VERBS: Final = ("create", "delete", "deletecollection", "get", "list", "patch", "update", "watch")
_ACTION = "x-kubernetes-group-version-kind"
# Resource -> subresource, its kind, its group and version where they are not the resource's, and its verbs.
_SUBRESOURCES: Final[dict[str, tuple[tuple[str, str, str, str, tuple[str, ...]], ...]]] = {
    "pods": (
        ("eviction", "Eviction", "policy", "v1", ("create",)),
        ("binding", "Binding", "", "v1", ("create",)),
        ("log", "Pod", "", "v1", ("get",)),
    ),
    "serviceaccounts": (("token", "TokenRequest", "authentication.k8s.io", "v1", ("create",)),),
}
_VIRTUAL: Final = (
    ("authentication.k8s.io", "selfsubjectreviews", "SelfSubjectReview"),
    ("authorization.k8s.io", "selfsubjectaccessreviews", "SelfSubjectAccessReview"),
    ("authorization.k8s.io", "selfsubjectrulesreviews", "SelfSubjectRulesReview"),
)


def subresources(resource: Resource, version: str) -> set[str]:
    """Return the names of what is served below objects of a resource."""
    return {name for name, *_ in _subresources(resource, version)}


def groups(registry: Registry) -> dict[str, list[str]]:
    """Return all named groups and their versions, also those that only answer questions."""
    named = {group: versions for group, versions in registry.groups().items() if group}
    return {**named, **{group: ["v1"] for group, _, _ in _VIRTUAL}}


def group(name: str, versions: list[str]) -> Object:
    """Return an APIGroup."""
    listed = [{"groupVersion": f"{name}/{version}", "version": version} for version in versions]
    return {"name": name, "versions": listed, "preferredVersion": listed[0]}


def resource_list(registry: Registry, group_name: str, version: str) -> Object | None:
    """Return an APIResourceList, None where there is no such group and version."""
    entries = []
    for resource in _of(registry, group_name, version):
        entries.append(
            {
                "name": resource.plural,
                "singularName": resource.singular,
                "namespaced": resource.namespaced,
                "kind": resource.kind,
                "verbs": list(_VERBS),
                **({"shortNames": list(resource.short_names)} if resource.short_names else {}),
                **({"categories": list(resource.categories)} if resource.categories else {}),
            }
        )
        for name, kind, other_group, other_version, verbs in _subresources(resource, version):
            entry = {"name": f"{resource.plural}/{name}", "singularName": "", "namespaced": resource.namespaced}
            entries.append(
                {**entry, "kind": kind, "group": other_group, "version": other_version, "verbs": list(verbs)}
            )
    for virtual_group, plural, kind in _VIRTUAL:
        if (virtual_group, "v1") == (group_name, version):
            entries.append({"name": plural, "singularName": "", "namespaced": False, "kind": kind, "verbs": ["create"]})
    if not entries:
        return None
    group_version = f"{group_name}/{version}" if group_name else version
    return {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": group_version, "resources": entries}


def aggregated(registry: Registry, *, core: bool) -> Object:
    """Return all groups with all their resources, as newer clients ask for them."""
    wanted = {"": ["v1"]} if core else groups(registry)
    items = [
        {
            "metadata": {"name": name, "creationTimestamp": None},
            "versions": [
                {"version": version, "resources": list(_discovered(registry, name, version)), "freshness": "Current"}
                for version in versions
            ],
        }
        for name, versions in wanted.items()
    ]
    return {"kind": "APIGroupDiscoveryList", "apiVersion": "apidiscovery.k8s.io/v2", "metadata": {}, "items": items}


def openapi_index(registry: Registry) -> Object:
    """Return the paths under which schemas are to be had, with a hash each that changes with them."""
    paths = {}
    for resource in registry:
        for version in resource.versions:
            path = f"apis/{resource.group}/{version}" if resource.group else f"api/{version}"
            digest = hashlib.sha256(repr([(r, r.versions) for r in _of(registry, resource.group, version)]).encode())
            paths[path] = {"serverRelativeURL": f"/openapi/v3/{path}?hash={digest.hexdigest()[:16].upper()}"}
    return {"paths": paths}


def openapi(registry: Registry, group_name: str, version: str) -> Object | None:
    """Return the schemas of a group and version, and as much of the paths as kubectl looks at."""
    schemas, paths = {}, {}
    for resource in _of(registry, group_name, version):
        kind = {"group": group_name, "version": version, "kind": resource.kind}
        name = ".".join([*reversed((group_name or "core.api.k8s.io").split(".")), version, resource.kind])
        schemas[name] = {**resource.schema(version), _ACTION: [kind]}
        reference = {"content": {"application/json": {"schema": {"$ref": f"#/components/schemas/{name}"}}}}
        operation = {
            _ACTION: kind,
            "parameters": [
                {"name": option, "in": "query", "schema": {"type": "string"}}
                for option in ("fieldValidation", "dryRun")
            ],
            "responses": {"200": {"description": "OK", **reference}},
        }
        base = f"/apis/{group_name}/{version}" if group_name else f"/api/{version}"
        place = f"{base}/namespaces/{{namespace}}" if resource.namespaced else base
        verbs = {verb: {**operation, "x-kubernetes-action": verb} for verb in ("get", "put", "patch", "delete")}
        paths[f"{place}/{resource.plural}/{{name}}"] = verbs
        paths[f"{place}/{resource.plural}"] = {"post": {**operation, "x-kubernetes-action": "post"}}
    if not schemas:
        return None
    info = {"title": "Kubernetes", "version": VERSION["gitVersion"]}
    return {"openapi": "3.0.0", "info": info, "paths": paths, "components": {"schemas": schemas}}


def _of(registry: Registry, group_name: str, version: str) -> list[Resource]:
    found = (resource for resource in registry if resource.group == group_name and version in resource.versions)
    return sorted(found, key=lambda resource: resource.plural)


def _subresources(resource: Resource, version: str) -> Iterator[tuple[str, str, str, str, tuple[str, ...]]]:
    change = ("get", "patch", "update")
    if resource.versions[version].has_status:
        yield "status", resource.kind, resource.group, version, change
    if resource.versions[version].scale:
        yield "scale", "Scale", "autoscaling", "v1", change
    yield from () if resource.custom else _SUBRESOURCES.get(resource.plural, ())


def _discovered(registry: Registry, group_name: str, version: str) -> Iterator[Object]:
    listed = resource_list(registry, group_name, version) or {"resources": ()}
    found: dict[str, Any] = {}
    for entry in listed["resources"]:
        plural, _, sub = entry["name"].partition("/")
        kind = {
            "group": entry.get("group", group_name),
            "version": entry.get("version", version),
            "kind": entry["kind"],
        }
        if sub:
            part = {"subresource": sub, "responseKind": kind, "verbs": entry["verbs"]}
            found[plural].setdefault("subresources", []).append(part)
            continue
        found[plural] = {
            "resource": plural,
            "responseKind": kind,
            "scope": "Namespaced" if entry["namespaced"] else "Cluster",
            "singularResource": entry["singularName"],
            **{key: entry[key] for key in ("verbs", "shortNames", "categories") if key in entry},
        }
    yield from found.values()


def dumps(value: Object) -> bytes:
    """Return JSON."""
    return json.dumps(value, separators=(",", ":")).encode()
