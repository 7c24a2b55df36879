"""The kinds of PATCH that change what is there: JSON patch, merge patch and strategic merge patch.

The old object is left as it is; what a patch does not touch is shared with the new one.
"""

import copy
from typing import Any

import jsonpatch
import jsonpointer

from fakes.cluster.embedded.objects import Object
from fakes.cluster.embedded.problems import Problem
from fakes.cluster.embedded.schema import LIST_KEYS, LIST_TYPE, child

_DELETE_FROM = "$deleteFromPrimitiveList/"


def json_patch(target: Object, patch: Any) -> Any:
    """Apply a JSON patch (RFC 6902). Raises Problem: 422, without an explanation, as the API server."""
    made = copy.deepcopy(target)
    try:
        for operation in patch:
            # The API server's library replaces what is not there, too.
            parent, _ = jsonpointer.JsonPointer(operation["path"]).to_last(made)
            is_set = operation["op"] == "replace" and isinstance(parent, dict)
            made = jsonpatch.apply_patch(made, [{**operation, "op": "add"} if is_set else operation], in_place=True)
    except (jsonpatch.JsonPatchException, jsonpointer.JsonPointerException, TypeError, KeyError) as error:
        text = "the server rejected our request due to an error in our request"
        raise Problem(422, "Invalid", text, details={}) from error
    return made


def merge_patch(target: Any, patch: Any) -> Any:
    """Apply a JSON merge patch (RFC 7386)."""
    if not isinstance(patch, dict):
        return patch
    made = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            made.pop(key, None)
        else:
            made[key] = merge_patch(made.get(key), value)
    return made


def strategic_merge(schema: Object, target: Any, patch: Any) -> Any:
    """Apply a strategic merge patch: as a merge patch, but lists with a merge key are merged item by item.

    The order of items that the patch wants is not looked at: new ones are at the end.

    https://github.com/kubernetes/community/blob/main/contributors/devel/sig-api-machinery/strategic-merge-patch.md
    """
    if not isinstance(patch, dict):
        return patch
    fields = {key: value for key, value in patch.items() if not key.startswith("$")}
    if patch.get("$patch") == "replace":
        return fields
    if patch.get("$patch") == "delete":
        return {}
    made = dict(target) if isinstance(target, dict) else {}
    if retained := patch.get("$retainKeys"):
        made = {key: value for key, value in made.items() if key in retained}
    for key, values in patch.items():
        if key.startswith(_DELETE_FROM) and isinstance(made.get(field := key.removeprefix(_DELETE_FROM)), list):
            made[field] = [value for value in made[field] if value not in values]
    for key, value in fields.items():
        inner = child(schema, key) or {}
        if value is None:
            made.pop(key, None)
        elif isinstance(value, list):
            made[key] = _merge_list(inner, made.get(key) or [], value)
        else:
            made[key] = strategic_merge(inner, made.get(key), value)
    return made


def _merge_list(schema: Object, target: list[Any], patch: list[Any]) -> list[Any]:
    if schema.get(LIST_TYPE) == "set":
        return [*target, *(value for value in patch if value not in target)]
    if LIST_KEYS not in schema:
        return patch
    key = schema[LIST_KEYS][0]
    if any(item.get("$patch") == "replace" for item in patch):
        return [item for item in patch if "$patch" not in item]
    made = list(target)
    for item in patch:
        place = next((index for index, old in enumerate(made) if old.get(key) == item.get(key)), None)
        if item.get("$patch") == "delete":
            made = [old for old in made if old.get(key) != item.get(key)]
        elif place is None:
            made.append(strategic_merge(schema.get("items") or {}, {}, item))
        else:
            made[place] = strategic_merge(schema.get("items") or {}, made[place], item)
    return made
