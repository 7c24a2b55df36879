"""The part of OData's filter language that the Retail Prices API takes: eq, and, or, contains, startswith, parentheses.

No `not`, no `in`, no other comparison, and no more than twenty comparisons in one filter: the API answers each with
400, so a client that grows a filter with its list of sizes works until the list is long.
https://docs.oasis-open.org/odata/odata/v4.01/odata-v4.01-part2-url-conventions.html#sec_SystemQueryOptionfilter
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

MAX_COMPARISONS: Final = 20
_MAX_DEPTH: Final = 50

Predicate = Callable[[Mapping[str, Any]], bool]

_TOKEN: Final = re.compile(
    r"\s*(?:(?P<text>'(?:[^']|'')*')|(?P<number>-?\d+(?:\.\d+)?)|(?P<word>[A-Za-z][A-Za-z0-9]*)|(?P<mark>[(),]))",
    re.ASCII,
)
_FUNCTIONS: Final[Mapping[str, Callable[[str, str], bool]]] = {
    "contains": lambda value, part: part in value,
    "startswith": lambda value, part: value.startswith(part),
}


class FilterError(ValueError):
    """The filter is none that the API takes."""


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """A field, as written in the filter, and the value that it is compared with."""

    field: str
    value: str | float | bool


@dataclass(frozen=True, kw_only=True)
class Filter:
    """A filter that was understood: what it selects, and everything that it compares."""

    selects: Predicate
    comparisons: tuple[Comparison, ...]


def parse(text: str, *, fields: Mapping[str, str], case_sensitive: bool) -> Filter:
    """Read a filter over rows. `fields` are the names in rows by lower-cased name in filters. Raises FilterError."""
    parser = _Parser(text, fields=fields, case_sensitive=case_sensitive)
    return Filter(selects=parser.whole(), comparisons=tuple(parser.comparisons))


class _Parser:
    """Recursive descent; `or` binds weaker than `and`."""

    def __init__(self, text: str, *, fields: Mapping[str, str], case_sensitive: bool) -> None:
        self._tokens = _tokens(text)
        self._fields = fields
        self._fold: Callable[[str], str] = str if case_sensitive else str.lower
        self._depth = 0
        self.comparisons: list[Comparison] = []

    def whole(self) -> Predicate:
        predicate = self._either()
        if self._tokens:
            raise FilterError(f"{self._tokens[0]} is not expected")
        if len(self.comparisons) > MAX_COMPARISONS:
            raise FilterError("too many comparisons")
        return predicate

    def _either(self) -> Predicate:
        terms = [self._both()]
        while self._takes("or"):
            terms.append(self._both())
        return lambda row: any(term(row) for term in terms)

    def _both(self) -> Predicate:
        terms = [self._term()]
        while self._takes("and"):
            terms.append(self._term())
        return lambda row: all(term(row) for term in terms)

    def _term(self) -> Predicate:
        token = self._next()
        if token == "(":
            self._depth += 1
            if self._depth > _MAX_DEPTH:
                raise FilterError("too many parentheses")
            inner = self._either()
            self._expect(")")
            self._depth -= 1
            return inner
        if token in _FUNCTIONS and self._takes("("):
            return self._call(_FUNCTIONS[token])
        self._expect("eq")
        return self._equal(token)

    def _call(self, function: Callable[[str, str], bool]) -> Predicate:
        field = self._next()
        self._expect(",")
        value = self._value(field)
        self._expect(")")
        name, wanted = self._field(field), self._fold(str(value))
        return lambda row: function(self._fold(str(row.get(name, ""))), wanted)

    def _equal(self, field: str) -> Predicate:
        value, name = self._value(field), self._field(field)
        if isinstance(value, str):
            wanted = self._fold(value)
            return lambda row: isinstance(row.get(name), str) and self._fold(row[name]) == wanted
        return lambda row: bool(row.get(name) == value)

    def _value(self, field: str) -> str | float | bool:
        token = self._next()
        value: str | float | bool
        if token.startswith("'"):
            value = token[1:-1].replace("''", "'")
        elif token in ("true", "false"):
            value = token == "true"
        else:
            try:
                value = float(token)
            except ValueError:
                raise FilterError(f"{token} is no value") from None
        self.comparisons.append(Comparison(field=field.lower(), value=value))
        return value

    def _field(self, name: str) -> str:
        if name.lower() not in self._fields:
            raise FilterError(f"{name} is no field")
        return self._fields[name.lower()]

    def _next(self) -> str:
        if not self._tokens:
            raise FilterError("the filter ends too early")
        return self._tokens.pop(0)

    def _takes(self, token: str) -> bool:
        if self._tokens and self._tokens[0] == token:
            self._tokens.pop(0)
            return True
        return False

    def _expect(self, token: str) -> None:
        if not self._takes(token):
            raise FilterError(f"{token} is expected")


def _tokens(text: str) -> list[str]:
    tokens, position = [], 0
    while position < len(text.rstrip()):
        match = _TOKEN.match(text, position)
        if match is None:
            raise FilterError(f"{text[position : position + 20]!r} is not understood")
        tokens.append(match[0].strip() if match["text"] is None else match["text"])
        position = match.end()
    return tokens
