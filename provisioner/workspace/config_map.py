"""The ConfigMap that `inference.config` or `tuning.config` names, as far as it concerns anything but the pods. Pure."""

from collections.abc import Mapping
from typing import Any, Final

import yaml

from provisioner.serving.environment import INFERENCE_CONFIG
from provisioner.workspace.view import Problem

# As KAITO writes it, and as vLLM's own flag.
_MAX_MODEL_LEN: Final = ("max-model-len", "max_model_len")
_MOST_TOKENS: Final = 10**8
# Bytes; a ConfigMap holds 1 MiB, and nobody needs that much to configure a server.
_LARGEST: Final = 64 << 10


# What a loader raises over text that is anybody's: `!!int ""`, `!!bool x` and `!!timestamp x` are the last three.
_UNREADABLE: Final = (yaml.YAMLError, RecursionError, ValueError, TypeError, LookupError, AttributeError)


class _Plain(yaml.SafeLoader):
    """Reads no aliases: merged into each other, a page of them takes all memory there is.

    Not libyaml's, which composes without a limit of depth.
    """

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            raise yaml.MarkedYAMLError(problem="an alias")
        return super().compose_node(parent, index)


def max_model_len(name: str, data: Mapping[str, str]) -> int | Problem:
    """Return the sequence length that the ConfigMap asks for, 0 where it does not, or what is wrong with it."""
    document = read_document(name, data, key=INFERENCE_CONFIG, field="inference.config")
    if isinstance(document, Problem):
        return document
    section = document.get("vllm")
    if section is None:
        return 0
    if not isinstance(section, dict):
        return _malformed(name, "inference.config", f"{INFERENCE_CONFIG}: vllm must be a map of options")
    value = next((section[key] for key in _MAX_MODEL_LEN if key in section), 0)
    if value in ("auto", -1):
        return 0
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= _MOST_TOKENS:
        return _malformed(
            name, "inference.config", f"{INFERENCE_CONFIG}: vllm.max-model-len must be a whole number or auto"
        )
    return value


def read_document(name: str, data: Mapping[str, str], *, key: str, field: str) -> dict[str, Any] | Problem:
    """Return the YAML map under that key of a ConfigMap, or what is wrong with it."""
    text = data.get(key)
    if text is None:
        return _malformed(name, field, f"it has no key {key}")
    if len(text) > _LARGEST:
        return _malformed(name, field, f"{key} is larger than {_LARGEST >> 10} KiB")
    try:
        document = yaml.load(text, Loader=_Plain)  # noqa: S506 -- a safe loader, less aliases
    except _UNREADABLE as error:
        where = getattr(error, "problem_mark", None)
        line = f" in line {where.line + 1}" if where is not None else ""
        return _malformed(name, field, f"{key} is no YAML{line} (anchors are not read)")
    if document is None:
        return {}
    if not isinstance(document, dict):
        return _malformed(name, field, f"{key} must be a map")
    return document


def _malformed(name: str, field: str, what: str) -> Problem:
    return Problem(reason="InvalidConfig", message=f"{field}: ConfigMap {name}: {what}.")
