"""As much of JSONPath as printer columns use: fields, quoted fields, indexes, wildcards and filters by equality.

https://kubernetes.io/docs/reference/kubectl/jsonpath/
"""

import re
from functools import lru_cache
from typing import Any, Final

_STEP: Final = re.compile(
    r"\.(?P<field>(?:\\.|[^.\[\]\\])+)"
    r"|\[\s*(?P<quote>['\"])(?P<quoted>.*?)(?P=quote)\s*\]"
    r"|\[(?P<index>-?\d+)\]"
    r"|\[(?P<all>\*)\]"
    r"|\[\?\(\s*@\.(?P<key>[\w.-]+)\s*==\s*['\"]?(?P<value>.*?)['\"]?\s*\)\]"
)


def find(item: Any, path: str) -> list[Any]:
    """Return everything that a path leads to. Raises ValueError for a path that is not understood."""
    found = [item]
    for kind, argument in _steps(path.strip().strip("{}")):
        found = [result for value in found for result in _step(value, kind, argument)]
    return found


@lru_cache(1024)
def _steps(path: str) -> tuple[tuple[str, Any], ...]:
    steps: list[tuple[str, Any]] = []
    position = 0
    while position < len(path):
        match = _STEP.match(path, position)
        if match is None:
            raise ValueError(f"{path}: not understood from {path[position:]!r} on")
        position = match.end()
        if match["field"] is not None:
            field = re.sub(r"\\(.)", r"\1", match["field"])
            steps.append(("all", None) if field == "*" else ("field", field))
        elif match["quoted"] is not None:
            steps.append(("field", match["quoted"]))
        elif match["index"] is not None:
            steps.append(("index", int(match["index"])))
        elif match["key"] is not None:
            steps.append(("filter", (match["key"].split("."), match["value"])))
        else:
            steps.append(("all", None))
    return tuple(steps)


def _step(value: Any, kind: str, argument: Any) -> list[Any]:
    if kind == "field":
        return [value[argument]] if isinstance(value, dict) and argument in value else []
    if kind == "all":
        return list(value.values()) if isinstance(value, dict) else list(value) if isinstance(value, list) else []
    if not isinstance(value, list):
        return []
    if kind == "index":
        return value[argument : argument + 1 or None]
    path, wanted = argument
    return [entry for entry in value if str(_dig(entry, path)) == wanted]


def _dig(entry: Any, path: list[str]) -> Any:
    for step in path:
        entry = entry.get(step) if isinstance(entry, dict) else None
    return entry
