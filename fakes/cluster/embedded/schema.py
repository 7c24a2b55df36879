"""Structural schemas of custom resources and built-in kinds: pruning, defaulting and validation.

https://kubernetes.io/docs/tasks/extend-kubernetes/custom-resources/custom-resource-definitions/#specifying-a-structural-schema
"""

import json
import re
from collections.abc import Iterator
from datetime import datetime
from functools import lru_cache
from typing import Any, Final

from fakes.cluster.embedded import problems
from fakes.cluster.embedded.objects import Object
from fakes.cluster.embedded.problems import Cause
from fakes.cluster.embedded.quantity import canonical

PRESERVE: Final = "x-kubernetes-preserve-unknown-fields"
INT_OR_STRING: Final = "x-kubernetes-int-or-string"
LIST_TYPE: Final = "x-kubernetes-list-type"
LIST_KEYS: Final = "x-kubernetes-list-map-keys"
RULES: Final = "x-kubernetes-validations"
# Ours, in schemas of built-in kinds: a string that is an amount, and may be written as a number.
QUANTITY: Final = "x-quantity"
# The one rule in CEL that is understood.
IMMUTABLE: Final = "self == oldSelf"

ABSENT: Final = object()

_TYPES: Final = {dict: "object", list: "array", str: "string", bool: "boolean", int: "integer", float: "number"}


def child(schema: Object, key: str) -> Object | None:
    """Return the schema of a field of an object, None where the field is unknown."""
    found = (schema.get("properties") or {}).get(key)
    if found is None and isinstance(schema.get("additionalProperties"), dict):
        found = schema["additionalProperties"]
    if found is None and (schema.get(PRESERVE) or schema.get("additionalProperties") is True):
        found = {PRESERVE: True}
    return found


def shape(schema: Object, value: Any, *, unknown: list[str], defaults: bool = True, path: str = "") -> Any:
    """Return the value as it is stored: without unknown fields and nulls, and with the defaults unless told otherwise.

    The paths of unknown fields are added to `unknown`. Raises ValueError for an amount that is none.
    """
    if isinstance(value, dict):
        properties = schema.get("properties") or {}
        if schema.get(PRESERVE) and not properties:
            return value
        made = {}
        for key, inner in value.items():
            where = f"{path}.{key}" if path else key
            found = child(schema, key)
            if found is None:
                unknown.append(where)
            elif inner is not None or found.get("nullable"):
                made[key] = shape(found, inner, unknown=unknown, defaults=defaults, path=where)
        for key, found in properties.items() if defaults else ():
            if "default" in found and key not in made:
                made[key] = shape(found, found["default"], unknown=unknown, path=path)
        return made
    if isinstance(value, list) and "items" in schema:
        return [
            shape(schema["items"], inner, unknown=unknown, defaults=defaults, path=f"{path}[{index}]")
            for index, inner in enumerate(value)
        ]
    if QUANTITY in schema and not isinstance(value, list | bool):
        return canonical(str(value))
    return value


def check(schema: Object, value: Any, *, path: str = "", old: Any = ABSENT) -> Iterator[Cause]:
    """Yield what is wrong with a value; `old` is what was there before.

    What has not changed may stay, be it wrong by now: a schema can become stricter under its objects.
    """
    if (value is None and schema.get("nullable")) or value is old or value == old:
        return
    wanted = "integer,string" if schema.get(INT_OR_STRING) else schema.get("type")
    kind = _TYPES.get(type(value), "null")
    if wanted and not _is(kind, value, wanted):
        text = f"{path} in body must be of type {wanted}: {problems.shown(kind)}"
        yield Cause(problems.TYPE_INVALID, f"Invalid value: {problems.shown(kind)}: {text}", path)
        return
    if "enum" in schema and value not in schema["enum"]:
        yield problems.unsupported(path, value, schema["enum"])
    if kind == "object":
        yield from _check_object(schema, value, path, old)
    elif kind == "array":
        yield from _check_list(schema, value, path, old)
    elif kind == "string":
        yield from _check_string(schema, value, path)
    elif kind in {"integer", "number"}:
        yield from _check_number(schema, value, path)
    for rule in schema.get(RULES) or () if old is not ABSENT else ():
        if rule["rule"].strip() == IMMUTABLE:
            # The API server does not show what is more than a plain value.
            shown = "" if kind in {"object", "array"} else f"{problems.shown(value)}: "
            text = f"Invalid value: {shown}{rule.get('message', IMMUTABLE)}"
            yield Cause("FieldValueInvalid", text, path)


def _check_object(schema: Object, value: Object, path: str, old: Any) -> Iterator[Cause]:
    prefix = f"{path}." if path else ""
    for key in schema.get("required") or ():
        if key not in value:
            yield problems.required(prefix + key)
    if "maxProperties" in schema and len(value) > schema["maxProperties"]:
        text = f"Too many: {len(value)}: must have at most {schema['maxProperties']} items"
        yield Cause("FieldValueTooMany", text, path)
    for key, inner in value.items():
        found = child(schema, key)
        if found is not None:
            before = old.get(key, ABSENT) if isinstance(old, dict) else ABSENT
            yield from check(found, inner, path=prefix + key, old=before)


def _check_list(schema: Object, value: list[Any], path: str, old: Any) -> Iterator[Cause]:
    if "maxItems" in schema and len(value) > schema["maxItems"]:
        text = f"Too many: {len(value)}: must have at most {schema['maxItems']} items"
        yield Cause("FieldValueTooMany", text, path)
    if "minItems" in schema and len(value) < schema["minItems"]:
        yield problems.wrong(path, len(value), f"{path} in body should have at least {schema['minItems']} items")
    if "items" in schema:
        is_map = schema.get(LIST_TYPE) == "map" and isinstance(old, list)
        before = {identity(schema, inner): inner for inner in old} if is_map else {}
        for index, inner in enumerate(value):
            was = before.get(identity(schema, inner), ABSENT) if before else ABSENT
            yield from check(schema["items"], inner, path=f"{path}[{index}]", old=was)
    if schema.get(LIST_TYPE) in {"map", "set"}:
        seen = set()
        for index, inner in enumerate(value):
            key = identity(schema, inner)
            if key in seen:
                shown = problems.shown({name: inner.get(name) for name in schema[LIST_KEYS]} if key[0] else inner)
                yield Cause("FieldValueDuplicate", f"Duplicate value: {shown}", f"{path}[{index}]")
            seen.add(key)


def identity(schema: Object, item: Any) -> tuple[bool, str]:
    """Return what tells an item of a list of type map or set from the others, and whether that is its keys."""
    keys = schema.get(LIST_KEYS)
    if not keys or not isinstance(item, dict):
        return False, json.dumps(item, sort_keys=True)
    defaults = (schema.get("items") or {}).get("properties") or {}
    # Ports are told apart by their protocol too, which is TCP where it is left out.
    implied = {"protocol": "TCP"}
    values = {key: item.get(key, defaults.get(key, {}).get("default", implied.get(key))) for key in keys}
    return True, ",".join(f"{key}={problems.shown(value)}" for key, value in values.items())


def _check_string(schema: Object, value: str, path: str) -> Iterator[Cause]:
    if "maxLength" in schema and len(value) > schema["maxLength"]:
        yield Cause("FieldValueTooLong", f"Too long: may not be more than {schema['maxLength']} bytes", path)
    if "minLength" in schema and len(value) < schema["minLength"]:
        yield problems.wrong(path, value, f"{path} in body should be at least {schema['minLength']} chars long")
    if "pattern" in schema and not _pattern(schema["pattern"]).search(value):
        yield problems.wrong(path, value, f"{path} in body should match '{schema['pattern']}'")
    if schema.get("format") == "date-time" and not _is_time(value):
        text = f"{path} in body must be of type date-time: {problems.shown(value)}"
        yield Cause("FieldValueTypeInvalid", f"Invalid value: {problems.shown(value)}: {text}", path)


def _check_number(schema: Object, value: float, path: str) -> Iterator[Cause]:
    if "minimum" in schema and value < schema["minimum"]:
        yield problems.wrong(path, value, f"{path} in body should be greater than or equal to {schema['minimum']}")
    if "maximum" in schema and value > schema["maximum"]:
        yield problems.wrong(path, value, f"{path} in body should be less than or equal to {schema['maximum']}")


def _is(kind: str, value: Any, wanted: str) -> bool:
    if wanted == "integer":
        return kind == "integer" or (kind == "number" and value.is_integer())
    if wanted == "number":
        return kind in {"integer", "number"}
    return kind in wanted.split(",")


@lru_cache(1024)
def _pattern(pattern: str) -> re.Pattern[str]:
    # Go's $ is the very end, Python's also stands before a last newline.
    return re.compile(re.sub(r"(?<!\\)\$", r"\\Z", pattern))


@lru_cache(4096)
def _is_time(value: str) -> bool:
    try:
        return datetime.fromisoformat(value).tzinfo is not None
    except ValueError:
        return False
