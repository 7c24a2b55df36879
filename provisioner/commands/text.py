"""Text for a terminal. What comes from objects is written by others: nothing of it may steer the terminal."""

from collections.abc import Sequence
from datetime import timedelta
from decimal import Decimal
from typing import Final

_GAP: Final = "  "
_CUT: Final = "…"
# Characters of a last column that say something.
_ENOUGH: Final = 24
_MINUTE: Final = 60
_HOUR: Final = 3600
_DAY: Final = 86400


def clean(text: object) -> str:
    """Return the text in one line and without what a terminal would obey or hide: escapes, bidi marks and the like."""
    return " ".join("".join(c if c.isprintable() else " " for c in str(text)).split())


def cut(text: str, width: int) -> str:
    """Return the text in at most `width` characters, marked where something is missing."""
    return text if len(text) <= width else text[: max(width - 1, 0)] + _CUT[: max(width, 0)]


def table(
    header: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    right: Sequence[str] = (),
    width: int | None = None,
    optional: Sequence[str] = (),
) -> list[str]:
    """Return the lines of a table, header first, cells cleaned. `right` names the columns that align to the right.

    The last column is cut where `width` ends. Those that are `optional` are left out one after the other until it has
    some room.
    """
    columns = [[clean(cell) for cell in column] for column in zip(header, *rows, strict=True)]
    for name in optional if width is not None else ():
        sizes = [max(map(len, column)) for column in columns]
        sizes[-1] = min(sizes[-1], _ENOUGH)
        if sum(sizes) + len(_GAP) * (len(sizes) - 1) <= (width or 0):
            break
        columns = [column for column in columns if column[0] != name]
    padded = [_padded(column, right=column[0] in right) for column in columns]
    lines = [_GAP.join(cells).rstrip() for cells in zip(*padded, strict=True)]
    return lines if width is None else [cut(line, width) for line in lines]


def _padded(column: Sequence[str], *, right: bool) -> list[str]:
    size = max(map(len, column))
    return [cell.rjust(size) if right else cell.ljust(size) for cell in column]


def fields(rows: Sequence[tuple[str, str]], *, indent: str = "  ") -> list[str]:
    """Return the lines of a list of names with values; an empty name goes on with the one above."""
    size = max((len(name) for name, _ in rows), default=0)
    return [f"{indent}{name.ljust(size)}{_GAP}{clean(value)}".rstrip() for name, value in rows]


def money(price: Decimal | None) -> str:
    """Return US dollars an hour with three decimals, as Azure's price list has them; unknown is a question mark."""
    return "?" if price is None else f"{price:.3f}"


def number(value: float) -> str:
    """Return the number without needless decimals."""
    return f"{value:g}"


def age(span: timedelta) -> str:
    """Return a time span as kubectl does: in its two largest units, one where that is precise enough."""
    seconds = max(int(span.total_seconds()), 0)
    if seconds < 2 * _MINUTE:
        return f"{seconds}s"
    if seconds < 10 * _MINUTE:
        minutes, rest = divmod(seconds, _MINUTE)
        return f"{minutes}m{rest}s" if rest else f"{minutes}m"
    if seconds < 3 * _HOUR:
        return f"{seconds // _MINUTE}m"
    if seconds < 2 * _DAY:
        hours, rest = divmod(seconds, _HOUR)
        minutes = rest // _MINUTE
        return f"{hours}h{minutes}m" if minutes and hours < 10 else f"{hours}h"
    return f"{seconds // _DAY}d"
