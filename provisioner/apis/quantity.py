"""Kubernetes resource quantities (`87Gi`, `1Ti`, `500m`, `1e3`) as exact numbers."""

import re
from decimal import Decimal
from typing import Final

_QUANTITY: Final = re.compile(
    r"^(?P<number>[+-]?(?:\d+(?:\.\d*)?|\.\d+))(?P<suffix>[numkMGTPE]|[KMGTPE]i|[eE][+-]?\d{1,2})?$", re.ASCII
)
_DECIMAL: Final = {"n": -9, "u": -6, "m": -3, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}
_BINARY: Final = {"Ki": 10, "Mi": 20, "Gi": 30, "Ti": 40, "Pi": 50, "Ei": 60}
# A quantity is at most an int64 and prints in far fewer characters; longer input is not a quantity but an attack.
_MAX_LENGTH: Final = 64


def parse_quantity(value: str | float) -> Decimal:
    """Return the quantity in its base unit (bytes, cores, pieces).

    Raises ValueError, naming the value, where it is not a quantity as
    https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/quantity/ defines it.
    """
    text = str(value).strip()
    match = _QUANTITY.match(text) if len(text) <= _MAX_LENGTH else None
    if match is None:
        raise ValueError(f"{text[:_MAX_LENGTH]!r} is not a Kubernetes quantity such as 87Gi or 1Ti")
    number, suffix = Decimal(match["number"]), match["suffix"]
    if not suffix:
        return number
    if suffix in _BINARY:
        return number * (1 << _BINARY[suffix])
    exponent = _DECIMAL[suffix] if suffix in _DECIMAL else int(suffix[1:])
    return number.scaleb(exponent)
