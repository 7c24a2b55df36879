"""Server-side apply: who owns which field, what an applied configuration changes, and where it meets others.

Simplified: owners are kept beside the object and not shown as managedFields; a field of an object that nobody has
applied yet belongs to its last writer as a whole; a map or list that is atomic for one and granular for another
version is not converted; and the kubelet's or a controller's writes count as everybody else's.

https://kubernetes.io/docs/reference/using-api/server-side-apply/
"""

from typing import Any, Final

from fakes.cluster.embedded.objects import Object
from fakes.cluster.embedded.problems import Problem
from fakes.cluster.embedded.schema import LIST_TYPE, child, identity
from fakes.cluster.embedded.store import Item, Owner, Path

Owners = dict[Owner, frozenset[Path]]

APPLY: Final = "Apply"
UPDATE: Final = "Update"
# kubectl takes over what it applied by itself before, so it never conflicts with its own former way.
_CLIENT_SIDE: Final = "kubectl-client-side-apply"
# What identifies an object is nobody's.
_IDENTITY: Final = {
    ("." + field,)
    for field in ("name", "namespace", "uid", "resourceVersion", "generation", "creationTimestamp", "generateName")
}


def leaves(schema: Object, value: Any, path: Path = ()) -> dict[Path, Any]:
    """Return the fields that can be owned and their values; items of a list are named by their keys."""
    kind = schema.get(LIST_TYPE)
    if isinstance(value, dict) and value and schema.get("x-kubernetes-map-type") != "atomic":
        found: dict[Path, Any] = {}
        for key, inner in value.items():
            found |= leaves(child(schema, key) or {}, inner, (*path, f".{key}"))
        return found
    if isinstance(value, list) and kind in {"map", "set"}:
        found = {}
        for item in value:
            step = (*path, f"[{identity(schema, item)[1]}]")
            found |= leaves(schema.get("items") or {}, item, step) if kind == "map" else {step: item}
        return found
    return {path: value}


def apply(
    schema: Object, live: Object, config: Object, *, owners: Owners, me: Owner, force: bool
) -> tuple[Object, Owners]:
    """Return what becomes of the live object, and who owns what then. Raises Problem: 409 with the conflicts."""
    wanted, present = _owned(schema, config), leaves(schema, live)
    changed = {path for path, value in wanted.items() if path in present and present[path] != value}
    conflicts = {
        (owner, path)
        for owner, paths in owners.items()
        if owner != me and owner[0] != _CLIENT_SIDE
        for path in paths & changed
    }
    if conflicts and not force:
        raise _conflict(sorted(conflicts), config["apiVersion"])
    others = frozenset().union(*(paths for owner, paths in owners.items() if owner != me))
    given_up = owners.get(me, frozenset()) - wanted.keys() - others
    made = _merge(schema, _without(schema, live, given_up), config)
    kept = {owner: paths - changed for owner, paths in owners.items() if owner != me}
    return made, {**{owner: paths for owner, paths in kept.items() if paths}, me: frozenset(wanted)}


def applied(schema: Object, config: Object, me: Owner) -> Owners:
    """Return the owners of an object that somebody has made by applying it."""
    return {me: frozenset(_owned(schema, config))}


def owners_of(item: Item, schema: Object) -> Owners:
    """Return who owns what of an object."""
    if item.owners is not None:
        return item.owners
    return {(item.writer, UPDATE, ""): frozenset(_owned(schema, item.object))}


def after_update(schema: Object, old: Item, new: Object, me: Owner) -> Owners | None:
    """Return the owners after somebody has written without applying: what he changed is his."""
    if old.owners is None:
        return None
    before, after = _owned(schema, old.object), _owned(schema, new)
    changed = frozenset(path for path in {**before, **after} if before.get(path) != after.get(path))
    owners = {owner: paths - changed for owner, paths in old.owners.items()}
    owners[me] = owners.get(me, frozenset()) | (changed & after.keys())
    return {owner: paths for owner, paths in owners.items() if paths or owner[1] == APPLY}


def _owned(schema: Object, value: Object) -> dict[Path, Any]:
    return {
        path: inner
        for path, inner in leaves(schema, value).items()
        if path[0] not in {".apiVersion", ".kind"} and not (path[0] == ".metadata" and path[1:2] in _IDENTITY)
    }


def _merge(schema: Object, live: Any, config: Any) -> Any:
    if isinstance(config, dict) and isinstance(live, dict) and schema.get("x-kubernetes-map-type") != "atomic":
        return {**live, **{key: _merge(child(schema, key) or {}, live.get(key), new) for key, new in config.items()}}
    if isinstance(config, list) and isinstance(live, list) and schema.get(LIST_TYPE) in {"map", "set"}:
        items = {identity(schema, item): item for item in live}
        for item in config:
            key = identity(schema, item)
            items[key] = _merge(schema.get("items") or {}, items.get(key), item)
        return list(items.values())
    return config


def _without(schema: Object, value: Any, gone: frozenset[Path]) -> Any:
    """Return the value without some of its leaves, and without what is empty for it."""
    if not gone:
        return value
    below: dict[str, set[Path]] = {}
    for path in gone:
        below.setdefault(path[0], set()).add(path[1:])
    if isinstance(value, dict):
        pairs = [(f".{key}", key, child(schema, key) or {}, inner) for key, inner in value.items()]
        made = {}
        for step, key, inner_schema, inner in pairs:
            left = _left(inner_schema, inner, below.get(step))
            if left is not None:
                made[key] = left
        return made
    kept = ((item, below.get(f"[{identity(schema, item)[1]}]")) for item in value)
    return [left for item, paths in kept if (left := _left(schema.get("items") or {}, item, paths)) is not None]


def _left(schema: Object, value: Any, paths: set[Path] | None) -> Any:
    if not paths:
        return value
    if () in paths:
        return None
    return _without(schema, value, frozenset(paths)) or None


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
