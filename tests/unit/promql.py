"""As much of PromQL as it takes to say which metrics and labels an expression names. No parser, and strict where it is
one: what it does not know is an error, so that a rule cannot slip past it unread."""

import re
from dataclasses import dataclass, field

_TOKEN = re.compile(
    r"""\s+
    | (?P<string>"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')
    | (?P<number>\d+(?:\.\d+)?(?:ms|[smhdwy])?)
    | (?P<variable>\$__rate_interval)
    | (?P<name>[a-zA-Z_:][a-zA-Z0-9_:]*)
    | (?P<matcher>=~|!~|==|!=|>=|<=)
    | (?P<sign>[-+*/%^(){}\[\],=<>])
    """,
    re.VERBOSE,
)
_FUNCTIONS = frozenset({"absent", "histogram_quantile", "increase", "rate"})
_AGGREGATIONS = frozenset({"count", "max", "min", "sum"})
_GROUPING = frozenset({"by", "on", "without", "ignoring"})
_OPERATORS = frozenset({"and", "or", "unless"})
_CLOSING = {")": "(", "]": "[", "}": "{"}


@dataclass
class Named:
    """What an expression names: its metrics with their matchers, as (label, operator, value), and grouping labels."""

    metrics: list[tuple[str, list[tuple[str, str, str]]]] = field(default_factory=list)
    grouping: set[str] = field(default_factory=set)


def tokens(expression: str) -> list[str]:
    """Return the tokens, white space left out. Raises ValueError at what is none."""
    found, position = [], 0
    while position < len(expression):
        match = _TOKEN.match(expression, position)
        if match is None:
            raise ValueError(f"no PromQL at {expression[position : position + 20]!r}")
        position = match.end()
        if match.lastgroup is not None:
            found.append(match.group())
    return found


def names_in(expression: str) -> Named:
    """Return what the expression names. Raises ValueError where its parts do not fit together."""
    found, named = tokens(expression), Named()
    _balance(found)
    position = 0
    while position < len(found):
        token, following = found[position], found[position + 1] if position + 1 < len(found) else ""
        position += 1
        if not re.match(r"[a-zA-Z_:]", token) or token in _OPERATORS:
            continue
        if token in _GROUPING:
            end = found.index(")", position)
            named.grouping |= set(found[position + 1 : end]) - {","}
            position = end + 1
        elif token in _FUNCTIONS | _AGGREGATIONS:
            if following not in ("(", "by", "without"):
                raise ValueError(f"{token} is not applied to anything")
        elif following == "(":
            raise ValueError(f"{token} is no known function")
        else:
            matchers, position = _matchers(found, position)
            named.metrics.append((token, matchers))
    return named


def _balance(found: list[str]) -> None:
    opened: list[str] = []
    for token in found:
        if token in _CLOSING.values():
            opened.append(token)
        elif token in _CLOSING and (not opened or opened.pop() != _CLOSING[token]):
            raise ValueError(f"{token} closes nothing")
    if opened:
        raise ValueError(f"{opened[-1]} is not closed")


def _matchers(found: list[str], position: int) -> tuple[list[tuple[str, str, str]], int]:
    """Return the matchers in braces at that position, if there are any, and the position behind them."""
    if position >= len(found) or found[position] != "{":
        return [], position
    end = found.index("}", position)
    inside = found[position + 1 : end]
    matchers = []
    for number in range(0, len(inside), 4):
        label, operator, value, *comma = inside[number : number + 4]
        if operator not in ("=", "!=", "=~", "!~") or value[0] != '"' or comma not in ([","], []):
            raise ValueError(f"{''.join(inside)} are no matchers")
        matchers.append((label, operator, value[1:-1]))
    return matchers, end + 1
