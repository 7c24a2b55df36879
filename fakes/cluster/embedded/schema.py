"""Structural schemas of custom resources and built-in kinds: pruning, defaulting and validation.

https://kubernetes.io/docs/tasks/extend-kubernetes/custom-resources/custom-resource-definitions/#specifying-a-structural-schema
"""

import json
import re
from collections.abc import Callable, Iterator
from datetime import datetime
from decimal import ROUND_CEILING, Decimal
from functools import lru_cache
from typing import Any, Final

from kubernetes.utils.quantity import format_quantity, parse_quantity

from fakes.cluster.embedded import problems
from fakes.cluster.embedded.objects import Object
from fakes.cluster.embedded.problems import Cause

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


@lru_cache(1024)
def _pattern(pattern: str) -> re.Pattern[str]:
    # Go's $ is the very end, Python's also stands before a last newline.
    return re.compile(re.sub(r"(?<!\\)\$", r"\\Z", pattern))


_TYPES: Final = {dict: "object", list: "array", str: "string", bool: "boolean", int: "integer", float: "number"}
_NUMBERS: Final = ("integer", "number")
_INVALID: Final = "FieldValueInvalid"
_WRONG: Final = "Invalid value: {shown}: {path} in body should "
_MANY: Final = "Too many: {size}: must have at most {limit} items"
# Keyword -> types that it is for, when it is broken, and what is said then.
_KEYWORDS: Final[dict[str, tuple[tuple[str, ...], Callable[[Any, Any], bool], str, str]]] = {
    "minimum": (_NUMBERS, lambda value, limit: value < limit, _INVALID, "be greater than or equal to {limit}"),
    "maximum": (_NUMBERS, lambda value, limit: value > limit, _INVALID, "be less than or equal to {limit}"),
    "minLength": (("string",), lambda value, limit: len(value) < limit, _INVALID, "be at least {limit} chars long"),
    "pattern": (("string",), lambda value, limit: not _pattern(limit).search(value), _INVALID, "match '{limit}'"),
    "minItems": (("array",), lambda value, limit: len(value) < limit, _INVALID, "have at least {limit} items"),
    "maxLength": (
        ("string",),
        lambda value, limit: len(value) > limit,
        "FieldValueTooLong",
        "Too long: may not be more than {limit} bytes",
    ),
    "maxItems": (("array",), lambda value, limit: len(value) > limit, "FieldValueTooMany", _MANY),
    "maxProperties": (("object",), lambda value, limit: len(value) > limit, "FieldValueTooMany", _MANY),
}


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
        yield _mistyped(path, kind, wanted)
        return
    if "enum" in schema and value not in schema["enum"]:
        yield problems.unsupported(path, value, schema["enum"])
    for keyword, (kinds, is_broken, reason, text) in _KEYWORDS.items():
        if keyword in schema and kind in kinds and is_broken(value, schema[keyword]):
            yield _broken(path, value, limit=schema[keyword], reason=reason, text=text)
    if kind == "string" and schema.get("format") == "date-time" and not _is_time(value):
        yield _mistyped(path, value, "date-time")
    if kind == "object":
        yield from _check_object(schema, value, path, old)
    elif kind == "array":
        yield from _check_list(schema, value, path, old)
    for rule in schema.get(RULES) or () if old is not ABSENT else ():
        if rule["rule"].strip() == IMMUTABLE:
            # The API server does not show what is more than a plain value.
            shown = "" if kind in {"object", "array"} else f"{problems.shown(value)}: "
            yield Cause(_INVALID, f"Invalid value: {shown}{rule.get('message', IMMUTABLE)}", path)


def _check_object(schema: Object, value: Object, path: str, old: Any) -> Iterator[Cause]:
    prefix = f"{path}." if path else ""
    for key in schema.get("required") or ():
        if key not in value:
            yield problems.required(prefix + key)
    for key, inner in value.items():
        found = child(schema, key)
        if found is not None:
            before = old.get(key, ABSENT) if isinstance(old, dict) else ABSENT
            yield from check(found, inner, path=prefix + key, old=before)


def _check_list(schema: Object, value: list[Any], path: str, old: Any) -> Iterator[Cause]:
    is_keyed = schema.get(LIST_TYPE) == "map"
    before = {identity(schema, inner): inner for inner in old} if is_keyed and isinstance(old, list) else {}
    seen = set()
    for index, inner in enumerate(value):
        key, place = identity(schema, inner), f"{path}[{index}]"
        yield from check(schema.get("items") or {}, inner, path=place, old=before.get(key, ABSENT))
        if schema.get(LIST_TYPE) in {"map", "set"} and key in seen:
            is_object = is_keyed and isinstance(inner, dict)
            yield problems.duplicate(place, {k: inner.get(k) for k in schema[LIST_KEYS]} if is_object else inner)
        seen.add(key)


def identity(schema: Object, item: Any) -> str:
    """Return what tells an item of a list of type map or set from the others."""
    keys = schema.get(LIST_KEYS)
    if not keys or not isinstance(item, dict):
        return json.dumps(item, sort_keys=True)
    defaults = (schema.get("items") or {}).get("properties") or {}
    # Ports are told apart by their protocol too, which is TCP where it is left out.
    implied = {"protocol": "TCP"}
    values = {key: item.get(key, defaults.get(key, {}).get("default", implied.get(key))) for key in keys}
    return ",".join(f"{key}={problems.shown(value)}" for key, value in values.items())


@lru_cache(4096)
def canonical(text: str) -> str:
    """Return an amount with the largest unit in which it is whole, as the API server stores it. Raises ValueError.

    https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/quantity/
    """
    amount = parse_quantity(text)
    units = ("Ei", "Pi", "Ti", "Gi", "Mi", "Ki") if text.endswith("i") else ("E", "P", "T", "G", "M", "k", "", "m", "u")
    for unit in units if amount else ():
        found = format_quantity(amount, unit).removesuffix(unit)
        if Decimal(found) % 1 == 0:
            return f"{int(Decimal(found))}{unit}"
    return str(int(amount.to_integral_value(ROUND_CEILING)))


def _broken(path: str, value: Any, *, limit: Any, reason: str, text: str) -> Cause:
    size = len(value) if isinstance(value, list | dict) else None
    shown = problems.shown(value if size is None else size)
    template = _WRONG + text if reason == _INVALID else text
    return Cause(reason, template.format(shown=shown, path=path, limit=limit, size=size), path)


def _mistyped(path: str, found: Any, wanted: str) -> Cause:
    text = f"{path} in body must be of type {wanted}: {problems.shown(found)}"
    return Cause(problems.TYPE_INVALID, f"Invalid value: {problems.shown(found)}: {text}", path)


def _is(kind: str, value: Any, wanted: str) -> bool:
    if wanted == "integer":
        return kind == "integer" or (kind == "number" and value.is_integer())
    if wanted == "number":
        return kind in {"integer", "number"}
    return kind in wanted.split(",")


@lru_cache(4096)
def _is_time(value: str) -> bool:
    try:
        return datetime.fromisoformat(value).tzinfo is not None
    except ValueError:
        return False
