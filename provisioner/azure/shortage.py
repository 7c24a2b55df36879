"""The numbers in Azure's quota errors, of which AKS and Compute know at least five wordings."""

import re
from typing import Final

from provisioner.apis.quota import Scope, Shortage

# AKS checks before it starts. Numbers are bounded, so that a hostile text makes no giant integer.
_PREFLIGHT: Final = re.compile(
    r"insufficient vcpu quota requested (?P<needed>\d{1,9}), remaining (?P<left>-?\d{1,9}) "
    r"for family (?P<family>.{1,80}?) for region (?P<region>\w{1,60})",
    re.IGNORECASE,
)
_PREFLIGHT_REGIONAL: Final = re.compile(
    r"insufficient regional vcpu quota left for location (?P<region>\w{1,60})\.? ?"
    r"left regional vcpu quota (?P<left>-?\d{1,9}), requested quota (?P<needed>\d{1,9})",
    re.IGNORECASE,
)
# Compute refuses while AKS is already at work.
_APPROVED: Final = re.compile(r"exceeding approved (?P<name>.{1,80}?) (?:cores )?quota", re.IGNORECASE)
_LIMITS_OF: Final = re.compile(r"exceeding quota limits of (?P<name>.{1,80}?)\.", re.IGNORECASE)
_LOCATION: Final = re.compile(r"\blocation: ?(?P<value>\w{1,60})", re.IGNORECASE)
_LIMIT: Final = re.compile(r"\b(?:current limit|maximum allowed): ?(?P<value>\d{1,9})", re.IGNORECASE)
_USAGE: Final = re.compile(r"\b(?:current usage|current in use): ?(?P<value>\d{1,9})", re.IGNORECASE)
_REQUIRED: Final = re.compile(r"\badditional (?:required|requested): ?(?P<value>\d{1,9})", re.IGNORECASE)


def read_shortage(text: str) -> Shortage | None:
    """Return what Azure's message says about a vCPU quota, None where it speaks of none."""
    if match := _PREFLIGHT.search(text):
        family = match["family"].strip("'\" ")
        scope = _scope(family)
        return Shortage(
            scope=scope,
            region=match["region"],
            family=family if scope is Scope.FAMILY else "",
            needed=int(match["needed"]),
            left=max(int(match["left"]), 0),
        )
    if match := _PREFLIGHT_REGIONAL.search(text):
        return Shortage(
            scope=Scope.REGIONAL,
            region=match["region"],
            needed=int(match["needed"]),
            left=max(int(match["left"]), 0),
        )
    if match := _APPROVED.search(text) or _LIMITS_OF.search(text):
        return _read_compute(match["name"], text)
    return Shortage(scope=Scope.UNKNOWN) if "vcpu quota" in text.lower() else None


def _read_compute(name: str, text: str) -> Shortage:
    limit, usage = _number(_LIMIT, text), _number(_USAGE, text)
    scope = _scope(name)
    location = _LOCATION.search(text)
    return Shortage(
        scope=scope,
        region=location["value"] if location else "",
        family=name.strip("'\" ") if scope is Scope.FAMILY else "",
        needed=_number(_REQUIRED, text),
        left=max(limit - usage, 0) if limit is not None and usage is not None else None,
        limit=limit,
    )


def _scope(name: str) -> Scope:
    lowered = name.lower().replace(" ", "").replace("-", "")
    if "lowpriority" in lowered or "spot" in lowered:
        return Scope.SPOT
    if "totalregional" in lowered or lowered in ("core", "cores"):
        return Scope.REGIONAL
    return Scope.FAMILY


def _number(pattern: re.Pattern[str], text: str) -> int | None:
    match = pattern.search(text)
    return int(match["value"]) if match else None
