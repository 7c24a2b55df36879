"""Configuration files: YAML that anybody may have written."""

from pathlib import Path
from typing import Any, Final

import yaml

from provisioner.serving.problem import Problem

# Bytes; a ConfigMap holds 1 MiB, and nobody needs that much to configure a server.
_LARGEST: Final = 64 << 10


def read(path: Path) -> dict[str, Any]:
    """Return the map in the file, an empty one where there is no file. Raises Problem."""
    try:
        with path.open(encoding="utf-8") as file:
            text = file.read(_LARGEST + 1)
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError) as error:
        raise Problem(f"{path.name} cannot be read: {error}") from error
    if len(text) > _LARGEST:
        raise Problem(f"{path.name} is larger than {_LARGEST >> 10} KiB")
    try:
        document = yaml.safe_load(text)
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f" in line {mark.line + 1}" if mark is not None else ""
        raise Problem(f"{path.name} is no YAML{where}") from error
    if document is None:
        return {}
    return section({"": document}, "", file=path.name)


def section(document: dict[str, Any], key: str, *, file: str) -> dict[str, Any]:
    """Return the map under a key, an empty one where it is left out. Raises Problem."""
    value = document.get(key)
    if value is None:
        return {}
    if not isinstance(value, dict) or not all(isinstance(name, str) for name in value):
        raise Problem(f"{file}: {key or 'the document'} must be a map of names to values")
    return value
