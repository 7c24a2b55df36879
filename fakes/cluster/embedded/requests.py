"""What a request asks for: its path, its query and its body."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import yaml

from fakes.cluster.embedded import problems, protobuf
from fakes.cluster.embedded.kinds import Registry, Resource
from fakes.cluster.embedded.objects import Object
from fakes.cluster.embedded.problems import bad_request
from fakes.cluster.embedded.rest import Call, Deletion
from fakes.cluster.embedded.store import Key

_ACCEPTED: Final = ("application/json", "application/yaml")
_OF_NAMESPACES: Final = ("status", "finalize")


@dataclass(frozen=True, kw_only=True)
class Target:
    """A collection, or an object where there is a name, or a subresource of one."""

    resource: Resource
    version: str
    namespace: str
    name: str
    subresource: str

    @property
    def key(self) -> Key:
        """The key of the object."""
        return self.namespace, self.name


def locate(registry: Registry, parts: list[str]) -> Target:
    """Return what a path below /api or /apis names, from group and version on. Raises Problem: 404."""
    group, version, *rest = parts
    namespace = ""
    if rest[0] == "namespaces" and len(rest) > 2 and rest[2] not in _OF_NAMESPACES:
        _, namespace, *rest = rest
    plural, name, subresource, *more = [*rest, *("" for _ in range(3 - len(rest)))]
    resource = registry.get(group, plural)
    if resource is None or version not in resource.versions or more:
        raise problems.not_served()
    if (namespace and not resource.namespaced) or (name and resource.namespaced and not namespace):
        raise problems.not_served()
    return Target(resource=resource, version=version, namespace=namespace, name=name, subresource=subresource)


def parse(text: bytes, content_type: str) -> Any:
    """Return the parsed body. Raises Problem: 415 or 400."""
    if content_type == protobuf.MEDIA_TYPE:
        return protobuf.decode(text)
    if content_type not in _ACCEPTED and not content_type.endswith(("+json", "+yaml")):
        raise problems.unsupported_media(*_ACCEPTED)
    try:
        # Applied configurations are called YAML and nearly always written as JSON, which is parsed faster.
        return yaml.safe_load(text) if text.lstrip()[:1] not in b"{[" else json.loads(text)
    except (ValueError, yaml.YAMLError) as error:
        raise bad_request(f"the object provided is unrecognized: {error}") from error


def check_kind(target: Target, body: Any) -> Object:
    """Return the body where it is an object of the target's kind. Raises Problem."""
    resource, api_version = target.resource, target.resource.api_version(target.version)
    if not isinstance(body, dict):
        raise bad_request(f"the object provided is unrecognized (must be of type {resource.kind})")
    kind, version = body.get("kind"), body.get("apiVersion")
    if resource.custom:
        if not kind:
            text = f"the object provided is unrecognized (must be of type {resource.kind}): Object 'Kind' is missing"
            raise bad_request(text)
        if version != api_version:
            text = (
                f"the API version in the data ({version or ''}) does not match the expected API version ({api_version})"
            )
            raise bad_request(text)
        if kind != resource.kind:
            cause = problems.wrong("kind", kind, f"must be {resource.kind}")
            name = str((body.get("metadata") or {}).get("name", ""))
            raise problems.invalid(kind, name, [cause], group=resource.group)
    elif (kind or resource.kind) != resource.kind or (version or api_version) != api_version:
        last = (version or api_version).rpartition("/")[2]
        raise bad_request(f'{kind} in version "{last}" cannot be handled as a {resource.kind}')
    return body


def write_options(query: Mapping[str, str], agent: str, **more: Any) -> Call:
    """Return how a write is meant. The manager is the first word of the client's name where it does not say."""
    dry_run = query.get("dryRun")
    if dry_run not in {None, "", "All"}:
        cause = problems.unsupported("dryRun", dry_run, ("All",))
        raise problems.invalid("PatchOptions", "", [cause], group="meta.k8s.io")
    return Call(
        manager=query.get("fieldManager") or agent.split("/")[0] or "unknown",
        dry_run=dry_run == "All",
        validation=query.get("fieldValidation") or "Warn",
        **more,
    )


def delete_options(query: Mapping[str, str], body: Any) -> Deletion:
    """Return how a deletion is meant, by its query or its body. Raises Problem."""
    said = {**query, **(body if isinstance(body, dict) else {})}
    preconditions = said.get("preconditions") or {}
    grace, propagation = said.get("gracePeriodSeconds"), said.get("propagationPolicy")
    if propagation is None and (orphan := said.get("orphanDependents")) is not None:
        propagation = "Orphan" if orphan in {True, "true"} else "Background"
    if propagation not in {None, "Background", "Foreground", "Orphan"}:
        cause = problems.unsupported("propagationPolicy", propagation, ("Foreground", "Background", "Orphan"))
        raise problems.invalid("DeleteOptions", "", [cause], group="meta.k8s.io")
    return Deletion(
        uid=preconditions.get("uid"),
        version=preconditions.get("resourceVersion"),
        grace=None if grace is None else number(grace),
        propagation=propagation,
        dry_run=bool(said.get("dryRun")),
    )


def number(value: object) -> int:
    """Return a whole number of the query. Raises Problem: 400."""
    try:
        return int(str(value))
    except ValueError as error:
        raise bad_request(f'strconv.ParseInt: parsing "{value}": invalid syntax') from error
