"""Versions of Kubernetes and of AKS node images, for the one question which of two is older."""

import re
from typing import Final

_VERSION: Final = re.compile(r"v?(\d{1,6}(?:\.\d{1,6}){1,3})", re.ASCII)
# `AKSUbuntu-2204gen2containerd-202611.04.0`; upgrade profiles have also been seen to put colons: `AKSUbuntu:1604:...`.
_IMAGE: Final = re.compile(r"(?P<name>[A-Za-z].{0,200})[-:](?P<release>\d{1,6}(?:\.\d{1,6}){1,3})", re.ASCII)


def kubernetes_version(text: str) -> tuple[int, ...]:
    """Return the numbers of a version such as `1.34.2`, empty for what is none."""
    return _numbers(text)


def image_name(text: str) -> str:
    """Return what a node image is called without its release, comparable; empty for what is no node image."""
    match = _IMAGE.fullmatch(text)
    return match["name"].replace(":", "-").lower() if match else ""


def is_older_image(running: str, newest: str) -> bool:
    """Tell whether both are releases of the same node image, and `running` the older one.

    Releases are dates. Those of another image (another distribution, another generation of VMs) say nothing.
    """
    name = image_name(running)
    return bool(name) and name == image_name(newest) and _release(running) < _release(newest)


def is_older_kubernetes(running: str, newest: str) -> bool:
    """Tell whether `running` is an older version; where it has no patch version, an older minor one."""
    old, new = _numbers(running), _numbers(newest)
    return bool(old and new) and old < new[: len(old)]


def _numbers(text: str) -> tuple[int, ...]:
    match = _VERSION.fullmatch(text)
    return tuple(int(number) for number in match[1].split(".")) if match else ()


def _release(image: str) -> tuple[int, ...]:
    match = _IMAGE.fullmatch(image)
    return _numbers(match["release"]) if match else ()
