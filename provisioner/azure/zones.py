"""The availability zones that Azure's errors speak of, and those that they offer instead."""

import re
from typing import Final

# One zone, or some: `2`, `'1,3'`, `1, 2 and 3`. A zone is a number; names such as eastus-1 are Kubernetes's.
_SOME: Final = r"'?(?P<zones>[1-9](?:(?: ?, ?| and | or )[1-9]){0,8})'?(?!\w)"
_NAMED: Final = re.compile(rf"\b(?:zone\(s\)|in zones?|zones) {_SOME}", re.IGNORECASE)
_SUPPORTED: Final = re.compile(
    r"supported zones for location '?\w{1,60}'? are '?(?P<zones>[\w, ()]{1,60})", re.IGNORECASE
)


def read_zones(text: str) -> tuple[str, ...]:
    """Return the zones that an error is about, in order; none where it names none."""
    match = _NAMED.search(text)
    return tuple(sorted(set(re.findall(r"[1-9]", match["zones"])))) if match else ()


def read_supported(text: str) -> str | None:
    """Return the zones that AKS would take, as it writes them: `1,3`, or `empty`. None where it does not say."""
    match = _SUPPORTED.search(text)
    return match["zones"].strip(" .()'") if match else None
