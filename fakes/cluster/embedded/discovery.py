"""What clients ask to find their way: groups, versions, resources, and schemas."""

import hashlib
from typing import Final

from fakes.cluster.embedded.objects import Object
from fakes.cluster.embedded.resources import Registry, Resource

# The version of Kubernetes that the real control plane has; the behaviour is held against it.
VERSION: Final = {"major": "1", "minor": "36", "gitVersion": "v1.36.3-embedded", "platform": "python"}

_VERBS: Final = ("create", "delete", "deletecollection", "get", "list", "patch", "update", "watch")
_ACTION: Final = "x-kubernetes-group-version-kind"
# Resource -> subresource, its kind and what that is of, and its verb.
_SUBRESOURCES: Final[dict[str, tuple[tuple[str, str, str, str], ...]]] = {
    "pods": (("eviction", "Eviction", "policy", "create"), ("log", "Pod", "", "get")),
    "serviceaccounts": (("token", "TokenRequest", "authentication.k8s.io", "create"),),
}


def discover(registry: Registry, parts: list[str]) -> Object | None:
    """Return what is under a path, None where it does not lead to groups, resources or schemas."""
    match parts:
        case ["api"]:
            return {"kind": "APIVersions", "versions": ["v1"]}
        case ["apis"]:
            listed = [_group(*entry) for entry in _groups(registry).items()]
            return {"kind": "APIGroupList", "apiVersion": "v1", "groups": listed}
        case ["apis", group] if group in _groups(registry):
            return {"kind": "APIGroup", "apiVersion": "v1", **_group(group, _groups(registry)[group])}
        case ["api", version]:
            return _resources(registry, "", version)
        case ["apis", group, version]:
            return _resources(registry, group, version)
        case ["openapi", "v3"]:
            return {"paths": dict(_index(resource, registry) for resource in registry)}
        case ["openapi", "v3", "api", version]:
            return _openapi(registry, "", version)
        case ["openapi", "v3", "apis", group, version]:
            return _openapi(registry, group, version)
    return None


def _groups(registry: Registry) -> dict[str, list[str]]:
    return {group: versions for group, versions in registry.groups().items() if group}


def _group(name: str, versions: list[str]) -> Object:
    listed = [{"groupVersion": f"{name}/{version}", "version": version} for version in versions]
    return {"name": name, "versions": listed, "preferredVersion": listed[0]}


def _resources(registry: Registry, group: str, version: str) -> Object | None:
    entries = []
    for resource in registry.of(group, version):
        about = {"namespaced": resource.namespaced, "kind": resource.kind}
        short = {"shortNames": list(resource.short_names), "categories": list(resource.categories)}
        entries.append(
            {
                "name": resource.plural,
                "singularName": resource.singular,
                **about,
                "verbs": list(_VERBS),
                **{key: value for key, value in short.items() if value},
            }
        )
        if resource.has_status:
            verbs = ["get", "patch", "update"]
            entries.append({"name": f"{resource.plural}/status", "singularName": "", **about, "verbs": verbs})
        for name, kind, of, verb in () if resource.custom else _SUBRESOURCES.get(resource.plural, ()):
            entry = {"name": f"{resource.plural}/{name}", "singularName": "", **about, "kind": kind, "verbs": [verb]}
            entries.append({**entry, "group": of, "version": "v1"})
    group_version = f"{group}/{version}" if group else version
    listed = {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": group_version, "resources": entries}
    return listed if entries else None


def _index(resource: Resource, registry: Registry) -> tuple[str, Object]:
    """Return the path under which schemas are to be had, with a hash that changes with them."""
    path = f"apis/{resource.api_version}" if resource.group else f"api/{resource.version}"
    about = [(each.plural, each.custom_schema) for each in registry.of(resource.group, resource.version)]
    digest = hashlib.sha256(repr(about).encode()).hexdigest()[:16].upper()
    return path, {"serverRelativeURL": f"/openapi/v3/{path}?hash={digest}"}


def _openapi(registry: Registry, group: str, version: str) -> Object | None:
    """Return the schemas of a group and version, and as much of the paths as kubectl looks at."""
    schemas, paths = {}, {}
    for resource in registry.of(group, version):
        kind = {"group": group, "version": version, "kind": resource.kind}
        name = ".".join([*reversed((group or "core.api.k8s.io").split(".")), version, resource.kind])
        schemas[name] = {**resource.schema, _ACTION: [kind]}
        reference = {"content": {"application/json": {"schema": {"$ref": f"#/components/schemas/{name}"}}}}
        options = [
            {"name": option, "in": "query", "schema": {"type": "string"}} for option in ("fieldValidation", "dryRun")
        ]
        answers = {"200": {"description": "OK", **reference}}
        operation = {_ACTION: kind, "parameters": options, "responses": answers}
        place = f"/apis/{group}/{version}" if group else f"/api/{version}"
        place += f"{'/namespaces/{namespace}' if resource.namespaced else ''}/{resource.plural}"
        verbs = {verb: {**operation, "x-kubernetes-action": verb} for verb in ("get", "put", "patch", "delete")}
        paths[f"{place}/{{name}}"] = verbs
        paths[place] = {"post": {**operation, "x-kubernetes-action": "post"}}
    info = {"title": "Kubernetes", "version": VERSION["gitVersion"]}
    document = {"openapi": "3.0.0", "info": info, "paths": paths, "components": {"schemas": schemas}}
    return document if schemas else None
