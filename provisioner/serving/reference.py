"""Names of images: registry/repository:tag@digest, with Docker's rules for what is left out. Pure."""

import ipaddress
import re
from dataclasses import dataclass
from typing import Final

from provisioner.serving.problem import Problem

_HOST: Final = re.compile(r"(?=.{1,255}$)([A-Za-z0-9.-]+|\[[0-9a-fA-F:]+\])(:\d{1,5})?")
_REPOSITORY: Final = re.compile(r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*)*")
_TAG: Final = re.compile(r"\w[\w.-]{0,127}", re.ASCII)
_DIGEST: Final = re.compile(r"sha256:[0-9a-f]{64}")
_DOCKER: Final = "docker.io"
# Where Docker's own registry answers.
_DOCKER_HOST: Final = "registry-1.docker.io"


@dataclass(frozen=True, kw_only=True)
class Reference:
    """An image. `version` is its digest, or its tag where it has none."""

    registry: str
    repository: str
    tag: str = "latest"
    digest: str = ""

    @property
    def version(self) -> str:
        """Return what the registry is asked for."""
        return self.digest or self.tag

    @property
    def url(self) -> str:
        """Return where the repository's API is: HTTPS, but on this machine itself."""
        host = _DOCKER_HOST if self.registry == _DOCKER else self.registry
        scheme = "http" if is_loopback(self.registry) else "https"
        return f"{scheme}://{host}/v2/{self.repository}"

    def __str__(self) -> str:
        return f"{self.registry}/{self.repository}{'@' + self.digest if self.digest else ':' + self.tag}"


def parse(text: str) -> Reference:
    """Return what an image's name says. Raises Problem."""
    rest, _, digest = text.strip().partition("@")
    first, slash, tail = rest.partition("/")
    if slash and ("." in first or ":" in first or first == "localhost"):
        registry, rest = first, tail
    else:
        registry, rest = _DOCKER, rest if slash else f"library/{rest}"
    repository, colon, tag = rest.partition(":")
    ok = (
        _HOST.fullmatch(registry)
        and _REPOSITORY.fullmatch(repository)
        and len(repository) <= 255
        and (not colon or _TAG.fullmatch(tag))
        and ("@" not in text or _DIGEST.fullmatch(digest))
    )
    if not ok:
        raise Problem(f"{text[:120]!r} is no name of an image: must be REGISTRY/REPOSITORY:TAG")
    return Reference(registry=registry.lower(), repository=repository, tag=tag if colon else "latest", digest=digest)


def is_loopback(registry: str) -> bool:
    """Tell whether the registry is on this machine, the only place that may be spoken to without TLS."""
    host = registry.rpartition(":")[0] if registry.rpartition(":")[2].isdecimal() else registry
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False
