"""What Kubernetes takes for the key and the value of a label or a taint."""

import re
from typing import Final

_NAME: Final = r"[A-Za-z0-9](?:[-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?"
_SUBDOMAIN: Final = r"(?=.{1,253}/)[a-z0-9](?:[-a-z0-9]*[a-z0-9])?(?:\.[a-z0-9](?:[-a-z0-9]*[a-z0-9])?)*"
_KEY: Final = re.compile(rf"(?:{_SUBDOMAIN}/)?{_NAME}", re.ASCII)
_VALUE: Final = re.compile(rf"(?:{_NAME})?", re.ASCII)
_MAX_KEY: Final = 253 + 1 + 63


def is_key(text: str) -> bool:
    """Tell whether the text can be the key of a label or a taint."""
    # The length first: the pattern takes its time over what is far too long.
    return len(text) <= _MAX_KEY and _KEY.fullmatch(text) is not None


def is_value(text: str) -> bool:
    """Tell whether the text can be the value of a label or a taint."""
    return _VALUE.fullmatch(text) is not None


def is_within(key: str, *domains: str) -> bool:
    """Tell whether a key has one of these domains, or one below, for its prefix."""
    prefix = key.partition("/")[0] if "/" in key else ""
    return any(prefix == domain or prefix.endswith(f".{domain}") for domain in domains)
