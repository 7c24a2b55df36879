"""Credentials of registries, from Docker's configuration files as Secrets of the cluster hold them."""

import base64
import binascii
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

_LARGEST: Final = 1 << 20
_DOCKER: Final = frozenset({"docker.io", "index.docker.io", "registry-1.docker.io"})


@dataclass(frozen=True, kw_only=True)
class Credential:
    """A user and a password, or a token to be exchanged for others; what none is, is nobody."""

    user: str = ""
    password: str = field(default="", repr=False)
    refresh_token: str = field(default="", repr=False)

    @property
    def basic(self) -> str:
        """Return the header of basic authentication."""
        return "Basic " + base64.b64encode(f"{self.user}:{self.password}".encode()).decode()


ANONYMOUS: Final = Credential()


def find(directory: Path, registry: str) -> tuple[Credential, ...]:
    """Return what the directory's files have for the registry, in the order of their names, and nobody last."""
    found: list[Credential] = []
    for path in sorted(directory.glob("*.json")) if directory.is_dir() else ():
        found += [credential for credential in _read(path, registry) if credential not in found]
    return (*found, ANONYMOUS)


def _read(path: Path, registry: str) -> Iterator[Credential]:
    try:
        with path.open("rb") as file:
            document = json.loads(file.read(_LARGEST))
    except (OSError, ValueError, RecursionError):
        return
    # What kubernetes.io/dockercfg has at the top, kubernetes.io/dockerconfigjson has under auths.
    entries = document.get("auths", document) if isinstance(document, dict) else None
    for server, entry in entries.items() if isinstance(entries, dict) else ():
        if _host(str(server)) == registry or {_host(str(server)), registry} <= _DOCKER:
            credential = _credential(entry) if isinstance(entry, dict) else None
            if credential is not None:
                yield credential


def _host(server: str) -> str:
    return server.removeprefix("https://").removeprefix("http://").partition("/")[0].lower()


def _credential(entry: Mapping[str, Any]) -> Credential | None:
    if token := entry.get("identitytoken"):
        return Credential(refresh_token=str(token))
    user, password = entry.get("username"), entry.get("password")
    if not (user and password):
        try:
            decoded = base64.b64decode(str(entry.get("auth", "")), validate=True).decode()
        except (binascii.Error, UnicodeDecodeError):
            return None
        user, _, password = decoded.partition(":")
    return Credential(user=str(user), password=str(password)) if user and password else None
