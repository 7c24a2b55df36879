"""The user's own options of vLLM: inference_config.yaml, as KAITO's users write it. Pure but for reading the file.

What is under `vllm` becomes options of `vllm serve` and wins over ours. An option that would take the server away from
those who rely on where it is and whom it answers is refused by name: addresses are the gate's, keys come from Secrets,
and which pods work together is the controller's to say. vLLM's parser takes any unambiguous beginning of an option's
name, so beginnings of those are refused as well.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from provisioner.serving import config_file
from provisioner.serving.problem import Problem

Value = bool | str | tuple[str, ...]

# KAITO's, beside `vllm`; neither has a meaning for vLLM as it is today.
_IGNORED: Final = {
    "max_probe_steps": "vLLM finds the longest sequence that fits by itself",
    "kv_cache_cpu_memory_utilization": "set kv-offloading-size (GiB) under vllm to keep a part of the KV cache in RAM",
}
_PLACE: Final = "where the server listens is not the configuration's to say"
_GROUP: Final = "which pods form a group follows from the Workspace"
_REFUSED: Final[Mapping[str, str]] = {
    "host": _PLACE,
    "port": _PLACE,
    "uds": _PLACE,
    "fd": _PLACE,
    "grpc": _PLACE,
    "ssl-keyfile": _PLACE,
    "ssl-certfile": _PLACE,
    "ssl-ca-certs": _PLACE,
    "ssl-cert-reqs": _PLACE,
    "ssl-ciphers": _PLACE,
    "enable-ssl-refresh": _PLACE,
    "root-path": _PLACE,
    "shutdown-timeout": "how long a server may take to end follows from its pod",
    "api-key": "a ConfigMap is no place for a key; set the variable API_KEY from a Secret",
    "hf-token": "a ConfigMap is no place for a token; name a Secret with it in presetOptions.modelAccessSecret",
    "config": "the options themselves belong here, not the name of another file with some",
    "model": "the Workspace names the model",
    "model-tag": "the Workspace names the model",
    "revision": "the Workspace names the model",
    "lora-modules": "adapters belong into inference.adapters of the Workspace",
    "nnodes": _GROUP,
    "node-rank": _GROUP,
    "master-addr": _GROUP,
    "master-port": _GROUP,
    "headless": _GROUP,
    "data-parallel-address": _GROUP,
    "data-parallel-rpc-port": _GROUP,
    "data-parallel-rank": _GROUP,
    "data-parallel-start-rank": _GROUP,
    "data-parallel-size-local": _GROUP,
    "data-parallel-hybrid-lb": _GROUP,
    "data-parallel-external-lb": _GROUP,
}
# Lists that vLLM takes as one word of JSON: all others are words.
_JSON_LISTS: Final = frozenset({"allowed-origins", "allowed-methods", "allowed-headers"})
# Allowed, and said aloud in the log.
_NOTED: Final = {
    "trust-remote-code": "code from the model's repository runs in this pod",
    "served-model-name": "clients that go by the names in the Workspace's status will not find the model",
}
_NAME: Final = re.compile(r"[a-z][a-z0-9-]*(\.[A-Za-z0-9_.-]+)?")


@dataclass(frozen=True, kw_only=True)
class Options:
    """Options by their name without dashes in front; `notes` are what the user should know of them."""

    values: Mapping[str, Value]
    notes: tuple[str, ...] = ()


def read(path: Path) -> Options:
    """Return the options in the file, none where there is no file. Raises Problem."""
    document = config_file.read(path)
    notes = []
    for key in document:
        if key in _IGNORED:
            notes.append(f"{key} has no effect: {_IGNORED[key]}")
        elif key != "vllm":
            notes.append(f"{key[:60]} has no effect: only what is under vllm is read")
    values: dict[str, Value] = {}
    for key, value in config_file.section(document, "vllm", file=path.name).items():
        name, is_off = normalise(key)
        refuse(name, file=path.name)
        if name in values:
            raise Problem(f"{path.name}: vllm.{name} is there twice")
        values[name] = _value(name, not value if is_off and isinstance(value, bool) else value, file=path.name)
        if name in _NOTED:
            notes.append(f"vllm.{name}: {_NOTED[name]}")
    return Options(values=values, notes=tuple(notes))


def normalise(key: str) -> tuple[str, bool]:
    """Return an option's name with dashes, and whether it is the negation of that option."""
    head, dot, rest = key.strip().lstrip("-").partition(".")
    head = head.replace("_", "-").lower()
    is_off = False
    while head.startswith("no-"):
        # Of two of them the second is none of vLLM's: what is behind it is looked at all the same.
        head, is_off = head.removeprefix("no-"), not is_off
    return head + dot + rest, is_off


def refuse(name: str, *, file: str) -> None:
    """Raise Problem if the option is not the user's to set, or no name at all."""
    if not _NAME.fullmatch(name):
        raise Problem(f"{file}: vllm.{name[:60]} is no name of an option")
    head = name.partition(".")[0]
    for refused, why in _REFUSED.items():
        if refused.startswith(head):
            raise Problem(f"{file}: remove vllm.{name}: {why}")


def to_arguments(options: Mapping[str, Value]) -> list[str]:
    """Return the options as vLLM takes them, in the order of their names."""
    arguments = []
    for name, value in sorted(options.items()):
        if value is True:
            arguments.append(f"--{name}")
        elif value is False:
            arguments.append(f"--no-{name}")
        elif isinstance(value, str):
            # With an equals sign: what begins with a dash would be taken for an option.
            arguments.append(f"--{name}={value}")
        else:
            arguments += [f"--{name}", *value]
    return arguments


def _value(name: str, value: Any, *, file: str) -> Value:
    if value is None:
        return True
    if isinstance(value, bool):
        return value
    if isinstance(value, Mapping) or (isinstance(value, list) and name in _JSON_LISTS):
        return _json(name, value, file=file)
    if isinstance(value, Sequence) and not isinstance(value, str):
        return tuple(_item(name, item, file=file) for item in value)
    return _scalar(name, value, file=file)


def _item(name: str, value: Any, *, file: str) -> str:
    text = _json(name, value, file=file) if isinstance(value, (Mapping, list)) else _scalar(name, value, file=file)
    if text.startswith("-"):
        raise Problem(f"{file}: an item of vllm.{name} begins with a dash, which would make it an option of its own")
    return text


def _scalar(name: str, value: Any, *, file: str) -> str:
    text = str(value)
    if "\0" in text:
        raise Problem(f"{file}: vllm.{name} has a NUL character in it")
    return text


def _json(name: str, value: Any, *, file: str) -> str:
    try:
        return json.dumps(value, sort_keys=True)
    except (TypeError, ValueError) as error:
        raise Problem(f"{file}: vllm.{name} cannot be written as JSON: {error}") from error
