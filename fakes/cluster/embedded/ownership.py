"""Server-side apply: who owns which field, what an applied configuration changes, and where it meets others.

Simplified: owners are kept beside the object and not shown as managedFields; a field of an object that nobody has
applied yet belongs to its last writer as a whole; what controllers of this control plane write is nobody's.

https://kubernetes.io/docs/reference/using-api/server-side-apply/
"""

from typing import Any, Final

from fakes.cluster.embedded.objects import Object
from fakes.cluster.embedded.problems import Problem
from fakes.cluster.embedded.resources import Resource
from fakes.cluster.embedded.schema import LIST_TYPE, child, identity
from fakes.cluster.embedded.store import Item, Owner, Path

Owners = dict[Owner, frozenset[Path]]

APPLY: Final = "Apply"
UPDATE: Final = "Update"
# kubectl takes over what it applied by itself before, so it never conflicts with its own former way.
_CLIENT_SIDE: Final = "kubectl-client-side-apply"
# What identifies an object is nobody's.
_IDENTITY: Final = {
    (".metadata", "." + field)
    for field in ("name", "namespace", "uid", "resourceVersion", "generation", "creationTimestamp", "generateName")
}


def apply(resource: Resource, live: Item, config: Object, *, me: Owner, force: bool) -> tuple[Object, Owners]:
    """Return what becomes of the live object, and who owns what then. Raises Problem: 409 with the conflicts."""
    schema, owners = resource.schema, live.owners
    if owners is None:
        owners = {(live.writer, UPDATE, ""): frozenset(_owned(schema, live.object))}
    wanted, present = _owned(schema, config), _owned(schema, live.object)
    changed = {path for path, value in wanted.items() if path in present and present[path] != value}
    others = {owner: paths for owner, paths in owners.items() if owner != me}
    conflicts = [(o, path) for o, paths in others.items() if o[0] != _CLIENT_SIDE for path in paths & changed]
    if conflicts and not force:
        raise _conflict(sorted(conflicts), resource.api_version)
    given_up = (owners.get(me, frozenset()) & present.keys()) - wanted.keys() - frozenset().union(*others.values())
    made = _merge(schema, _without(schema, live.object, given_up), config)
    kept = {owner: paths - changed for owner, paths in others.items()}
    return made, {**{owner: paths for owner, paths in kept.items() if paths}, me: frozenset(wanted)}


def applied(schema: Object, config: Object, me: Owner) -> Owners:
    """Return the owners of an object that somebody has made by applying it."""
    return {me: frozenset(_owned(schema, config))}


def after_update(schema: Object, owners: Owners, old: Object, new: Object, me: Owner) -> Owners:
    """Return the owners after somebody has written without applying: what he changed is his."""
    before, after = _owned(schema, old), _owned(schema, new)
    changed = frozenset(path for path in {**before, **after} if before.get(path) != after.get(path))
    made = {owner: paths - changed for owner, paths in owners.items()}
    made[me] = made.get(me, frozenset()) | (changed & after.keys())
    return {owner: paths for owner, paths in made.items() if paths or owner[1] == APPLY}


def _owned(schema: Object, value: Object) -> dict[Path, Any]:
    """Return the fields that can be owned and their values."""
    found = _leaves(schema, {key: inner for key, inner in value.items() if key not in {"apiVersion", "kind"}}, ())
    return {path: inner for path, inner in found.items() if path[:2] not in _IDENTITY}


def _leaves(schema: Object, value: Any, path: Path) -> dict[Path, Any]:
    """Return what lies below a path; items of a list are named by their keys."""
    if not value or not _is_granular(schema, value):
        return {path: value}
    found: dict[Path, Any] = {}
    for step, inner_schema, inner in _parts(schema, value):
        found |= _leaves(inner_schema, inner, (*path, step))
    return found


def _is_granular(schema: Object, value: Any) -> bool:
    if isinstance(value, dict):
        return schema.get("x-kubernetes-map-type") != "atomic"
    return isinstance(value, list) and schema.get(LIST_TYPE) in {"map", "set"}


def _parts(schema: Object, value: Any) -> list[tuple[str, Object, Any]]:
    """Return the parts of an object or a list, each with its step of a path and its schema."""
    if isinstance(value, dict):
        return [(f".{key}", child(schema, key) or {}, inner) for key, inner in value.items()]
    inner_schema = (
        (schema.get("items") or {}) if schema.get(LIST_TYPE) == "map" else {"x-kubernetes-map-type": "atomic"}
    )
    return [(f"[{identity(schema, item)}]", inner_schema, item) for item in value]


def _merge(schema: Object, live: Any, config: Any) -> Any:
    if type(live) is not type(config) or not _is_granular(schema, config):
        return config
    parts = {step: inner for step, _, inner in _parts(schema, live)}
    for step, inner_schema, inner in _parts(schema, config):
        parts[step] = _merge(inner_schema, parts.get(step), inner)
    return {step[1:]: inner for step, inner in parts.items()} if isinstance(config, dict) else list(parts.values())


def _without(schema: Object, value: Any, gone: frozenset[Path]) -> Any:
    """Return the value without some of its leaves, and without what is empty for it."""
    if not gone:
        return value
    parts = {}
    for step, inner_schema, inner in _parts(schema, value):
        below = frozenset(path[1:] for path in gone if path[0] == step)
        if () not in below:
            left = _without(inner_schema, inner, below)
            if left or not below:
                parts[step] = left
    return {step[1:]: inner for step, inner in parts.items()} if isinstance(value, dict) else list(parts.values())


def _conflict(conflicts: list[tuple[Owner, Path]], api_version: str) -> Problem:
    causes = [
        {
            "reason": "FieldManagerConflict",
            "message": f'conflict with "{owner[0]}"{_through(owner, api_version)}',
            "field": "".join(path),
        }
        for owner, path in conflicts
    ]
    count = f"{len(causes)} conflict{'s' if len(causes) > 1 else ''}"
    told = "\n".join(f"{cause['message']}: {cause['field']}" for cause in causes)
    return Problem(409, "Conflict", f"Apply failed with {count}: {told}", details={"causes": causes})


def _through(owner: Owner, api_version: str) -> str:
    subresource = f' with subresource "{owner[2]}"' if owner[2] else ""
    return subresource + (f" using {api_version}" if owner[1] == UPDATE else "")
