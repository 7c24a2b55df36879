"""What a container is told: its variables and its command, with all references resolved. Pure but for what `read` does.

A reference that leads nowhere keeps the container from starting, in the words of the kubelet.
"""

import base64
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from fakes.containers.image import Image
from fakes.nodes.api import ApiError, Object
from fakes.nodes.running import Read

_REFERENCE: Final = re.compile(r"\$\$|\$\(([A-Za-z_.-][A-Za-z0-9_.-]*)\)")
_SUBSCRIPT: Final = re.compile(r"metadata\.(labels|annotations)\['([^']+)'\]")


class ConfigError(Exception):
    """The container cannot be started as it is written; the message is what `kubectl describe` would show."""


class References:
    """Reads the Secrets and ConfigMaps that a pod refers to, each once."""

    def __init__(self, namespace: str, read: Read) -> None:
        self._namespace = namespace
        self._read = read
        self._known: dict[tuple[str, str], Mapping[str, bytes] | None] = {}

    async def data(self, kind: str, name: str, *, optional: bool = False) -> Mapping[str, bytes]:
        """Return what is in the object, `kind` being secrets or configmaps. Raises ConfigError."""
        if (kind, name) not in self._known:
            self._known[kind, name] = await self._fetch(kind, name)
        found = self._known[kind, name]
        if found is None and not optional:
            raise ConfigError(f'{kind.removesuffix("s")} "{name}" not found')
        return found or {}

    async def value(self, kind: str, reference: Object) -> str | None:
        """Return what is under a key, None where it is optional and not there. Raises ConfigError."""
        optional = bool(reference.get("optional"))
        data = await self.data(kind, reference["name"], optional=optional)
        if reference["key"] not in data:
            if optional:
                return None
            raise ConfigError(f"couldn't find key {reference['key']} in {kind} {self._namespace}/{reference['name']}")
        return data[reference["key"]].decode(errors="replace")

    def forget(self) -> None:
        """Read everything anew the next time."""
        self._known.clear()

    async def _fetch(self, kind: str, name: str) -> Mapping[str, bytes] | None:
        try:
            found = await self._read(f"/api/v1/namespaces/{self._namespace}/{kind}/{name}")
        except ApiError as error:
            if error.status != 404:
                raise
            return None
        plain = found.get("data") or {}
        if kind == "secrets":
            return {key: base64.b64decode(value) for key, value in plain.items()}
        binary = {key: base64.b64decode(value) for key, value in (found.get("binaryData") or {}).items()}
        return {key: value.encode() for key, value in plain.items()} | binary


async def environment(container: Object, *, pod: Object, references: References) -> dict[str, str]:
    """Return the variables that the pod's author sets. Raises ConfigError."""
    found: dict[str, str] = {}
    for source in container.get("envFrom") or ():
        kind = "secrets" if "secretRef" in source else "configmaps"
        reference = source.get("secretRef") or source["configMapRef"]
        data = await references.data(kind, reference["name"], optional=bool(reference.get("optional")))
        found |= {source.get("prefix", "") + key: value.decode(errors="replace") for key, value in data.items()}
    for entry in container.get("env") or ():
        value = await _value(entry, pod=pod, references=references, known=found)
        if value is not None:
            found[entry["name"]] = value
    return found


async def _value(entry: Object, *, pod: Object, references: References, known: Mapping[str, str]) -> str | None:
    source = entry.get("valueFrom")
    if not source:
        return expand(entry.get("value", ""), known)
    if "fieldRef" in source:
        return field_of(pod, source["fieldRef"]["fieldPath"])
    for kind, key in (("secrets", "secretKeyRef"), ("configmaps", "configMapKeyRef")):
        if key in source:
            return await references.value(kind, source[key])
    raise ConfigError(f"{entry['name']}: {', '.join(source)} is not known to this kubelet")


def field_of(pod: Object, path: str) -> str:
    """Return a field of the pod by its path in the downward API. Raises ConfigError."""
    if found := _SUBSCRIPT.fullmatch(path):
        return str((pod["metadata"].get(found[1]) or {}).get(found[2], ""))
    part: Any = pod
    for name in path.split("."):
        part = part.get(name) if isinstance(part, dict) else None
    if not isinstance(part, str):
        raise ConfigError(f"field {path} is not known to this kubelet")
    return part


def expand(text: str, values: Mapping[str, str]) -> str:
    """Return the text with variables put in for `$(NAME)`; `$$` is a dollar, and what is not known stays."""
    return _REFERENCE.sub(lambda at: "$" if at[0] == "$$" else values.get(at[1], at[0]), text)


def command(container: Object, image: Image, values: Mapping[str, str]) -> list[str]:
    """Return what is to be run: the pod's command and arguments where it names them, else the image's."""
    own = container.get("command")
    entrypoint = [expand(part, values) for part in own] if own else list(image.entrypoint)
    given = container.get("args")
    if given:
        return [*entrypoint, *(expand(part, values) for part in given)]
    return entrypoint if own else [*entrypoint, *image.command]


def at_root(text: str, *, root: Path, mounts: Sequence[str]) -> str:
    """Return the text, or where it is if it is a path in one of the mounts."""
    if any(text == mount or text.startswith(f"{mount.rstrip('/')}/") for mount in mounts):
        return str(root / text.lstrip("/"))
    return text
