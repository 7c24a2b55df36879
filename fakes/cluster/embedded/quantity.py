"""Amounts of resources as Kubernetes writes them: 250m, 1Gi, 4."""

import re
from fractions import Fraction
from functools import lru_cache
from typing import Final

# https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/quantity/
_DECIMAL: Final = {"n": -3, "u": -2, "m": -1, "": 0, "k": 1, "M": 2, "G": 3, "T": 4, "P": 5, "E": 6}
_BINARY: Final = {"Ki": 1, "Mi": 2, "Gi": 3, "Ti": 4, "Pi": 5, "Ei": 6}
_FORM: Final = re.compile(r"([+-]?(?:\d+\.?\d*|\.\d+))([KMGTPE]i|[numkMGTPE]?|[eE][+-]?\d+)")


def parse(value: object) -> Fraction:
    """Return the exact amount. Raises ValueError."""
    return _split(str(value))[0]


@lru_cache(4096)
def canonical(text: str) -> str:
    """Return the amount with the largest unit in which it is whole, as the API server stores it. Raises ValueError."""
    number, suffix = _split(text)
    if number == 0:
        return "0"
    units = [(suffix, Fraction(1024) ** power) for suffix, power in _BINARY.items()] if suffix in _BINARY else []
    units = units or [(suffix, Fraction(1000) ** power) for suffix, power in _DECIMAL.items()]
    for name, unit in sorted(units, key=lambda entry: -entry[1]):
        if (number / unit).denominator == 1:
            return f"{number // unit}{name}"
    return str(number.__ceil__())


@lru_cache(4096)
def _split(text: str) -> tuple[Fraction, str]:
    match = _FORM.fullmatch(text)
    if match is None:
        raise ValueError("quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'")
    digits, suffix = match.groups()
    if suffix in _BINARY:
        return Fraction(digits) * Fraction(1024) ** _BINARY[suffix], suffix
    if suffix in _DECIMAL:
        return Fraction(digits) * Fraction(1000) ** _DECIMAL[suffix], suffix
    return Fraction(f"{digits}{suffix}"), ""
