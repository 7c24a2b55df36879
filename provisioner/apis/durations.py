"""Durations as Go writes them, which is how Karpenter's fields hold them: `720h`, `1h30m`."""

import re
from datetime import timedelta
from decimal import Decimal
from typing import Final

_PART: Final = re.compile(r"(?P<number>[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?P<unit>ns|us|µs|ms|s|m|h)", re.ASCII)
_SECONDS: Final = {
    "ns": Decimal("1e-9"),
    "us": Decimal("1e-6"),
    "µs": Decimal("1e-6"),
    "ms": Decimal("1e-3"),
    "s": Decimal(1),
    "m": Decimal(60),
    "h": Decimal(3600),
}
_MAX_LENGTH: Final = 64
# Go's own are int64 of nanoseconds, 292 years; sums with longer ones leave the calendar.
_LONGEST: Final = timedelta(days=292 * 365)


def parse_duration(value: object) -> timedelta | None:
    """Return the duration, None where the value is none that Go could hold; `Never` is none."""
    if not isinstance(value, str) or not 0 < len(value) <= _MAX_LENGTH:
        return None
    seconds, end = Decimal(0), 0
    for part in _PART.finditer(value):
        if part.start() != end:
            return None
        seconds += Decimal(part["number"]) * _SECONDS[part["unit"]]
        end = part.end()
    if end != len(value) or seconds > Decimal(_LONGEST.total_seconds()):
        return None
    return timedelta(seconds=float(seconds))


def format_duration(time: timedelta) -> str:
    """Return the duration for people: `45 s`, `15 min`."""
    seconds = time.total_seconds()
    return f"{seconds:g} s" if seconds < 60 else f"{seconds / 60:g} min"
