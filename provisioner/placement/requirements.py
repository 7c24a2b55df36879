"""Node selector requirements as sets of values: several requirements of one key hold together."""

import functools
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from provisioner.apis import names
from provisioner.apis.nodeclaim import Requirement

# Values are compared as this makes them, by key; of other keys as they are. Azure compares VM sizes without regard to
# case and people write them so.
Folds = Mapping[str, Callable[[str], str]]
NAME_FOLDS: Final[Folds] = {names.INSTANCE_TYPE_LABEL: str.lower, names.SKU_NAME_LABEL: str.lower}

# As Kubernetes reads a bound (strconv.ParseInt), less what no label value can hold; int() takes far more than that.
_INTEGER: Final = re.compile(r"[+-]?[0-9]{1,18}", re.ASCII)
# A condition's message has an upper limit, a list of values has none.
_SHOWN_VALUES: Final = 8
_SHOWN_REQUIREMENTS: Final = 6
_SHOWN_LENGTH: Final = 80


@dataclass(frozen=True, kw_only=True)
class Values:
    """The values that a label may have: those listed, or all but those excluded, within numeric bounds.

    `listed` keeps the order in which the user wrote them. `above` and `below` are exclusive bounds.
    `may_be_absent` is False once a requirement needs the label to exist.
    """

    listed: tuple[str, ...] | None = None
    excluded: frozenset[str] = frozenset()
    above: int | None = None
    below: int | None = None
    may_be_absent: bool = True
    must_be_absent: bool = False

    def allows(self, value: str) -> bool:
        """Tell whether a label of that value satisfies all requirements."""
        if self.must_be_absent or value in self.excluded or (self.listed is not None and value not in self._listed):
            return False
        if self.above is None and self.below is None:
            return True
        number = _integer(value)
        if number is None:
            return False
        return (self.above is None or number > self.above) and (self.below is None or number < self.below)

    @functools.cached_property
    def _listed(self) -> frozenset[str]:
        return frozenset(self.listed or ())

    @functools.cached_property
    def candidates(self) -> tuple[str, ...] | None:
        """Return the allowed values in the user's order, None where they are not enumerable."""
        if self.must_be_absent:
            return ()
        return None if self.listed is None else tuple(value for value in self.listed if self.allows(value))

    @property
    def is_contradictory(self) -> bool:
        """Tell whether no label at all, present or absent, can satisfy the requirements."""
        if self.must_be_absent:
            return not self.may_be_absent
        if self.candidates == () and not self.may_be_absent:
            return True
        return self.above is not None and self.below is not None and self.below - self.above < 2

    def narrowed(self, requirement: Requirement, *, fold: Callable[[str], str] | None = None) -> "Values":
        """Return what is left when the requirement holds as well. Raises ValueError on a bound that is no integer."""
        values = tuple(map(fold, requirement.values)) if fold is not None else requirement.values
        match requirement.operator:
            case "In":
                also = frozenset(values)
                listed = values if self.listed is None else tuple(v for v in self.listed if v in also)
                return replace(self, listed=tuple(dict.fromkeys(listed)), may_be_absent=False)
            case "NotIn":
                return replace(self, excluded=self.excluded | set(values))
            case "Exists":
                return replace(self, may_be_absent=False)
            case "DoesNotExist":
                return replace(self, must_be_absent=True)
            case "Gt" | "Gte" | "Lt" | "Lte":
                return self._bounded(requirement)

    def _bounded(self, requirement: Requirement) -> "Values":
        if len(requirement.values) != 1:
            raise ValueError(f"{clipped(requirement.key)} {requirement.operator} takes one integer")
        bound = _integer(requirement.values[0])
        if bound is None:
            written = clipped(requirement.values[0])
            raise ValueError(f"{clipped(requirement.key)} {requirement.operator} takes an integer, not {written!r}")
        if requirement.operator in ("Gt", "Gte"):
            above = bound if requirement.operator == "Gt" else bound - 1
            return replace(self, above=max(above, self.above if self.above is not None else above), may_be_absent=False)
        below = bound if requirement.operator == "Lt" else bound + 1
        return replace(self, below=min(below, self.below if self.below is not None else below), may_be_absent=False)


ANY: Final = Values()


class Contradiction(Exception):
    """The requirements of one key cannot hold together."""


@dataclass(frozen=True)
class Requirements:
    """All requirements of a claim, by key.

    `written` is how the claim puts those of a key, for messages. `min_values` are the numbers of distinct values that
    the claim wants to have a choice of.
    """

    by_key: Mapping[str, Values]
    written: Mapping[str, str] = field(default_factory=dict)
    min_values: Mapping[str, int] = field(default_factory=dict)

    def __getitem__(self, key: str) -> Values:
        return self.by_key.get(key, ANY)

    @property
    def single_values(self) -> dict[str, str]:
        """Return the labels whose value the requirements leave no choice of."""
        return {
            key: values.candidates[0]
            for key, values in self.by_key.items()
            if values.candidates is not None and len(values.candidates) == 1
        }


def combine(requirements: Iterable[Requirement], *, folds: Folds = NAME_FOLDS) -> Requirements:
    """Combine a claim's requirements. Raises Contradiction, with a text for the user."""
    by_key: dict[str, Values] = {}
    written: dict[str, list[str]] = {}
    min_values: dict[str, int] = {}
    for requirement in requirements:
        key = requirement.key
        written.setdefault(key, []).append(_shown(requirement))
        if requirement.min_values is not None:
            min_values[key] = max(requirement.min_values, min_values.get(key, 0))
        try:
            by_key[key] = by_key.get(key, ANY).narrowed(requirement, fold=folds.get(key))
        except ValueError as error:
            raise Contradiction(str(error)) from None
    texts = {key: _joined(parts) for key, parts in written.items()}
    for key, values in by_key.items():
        if values.is_contradictory:
            raise Contradiction(f"no value of {clipped(key)} satisfies {texts[key]}")
    return Requirements(by_key, texts, min_values)


def clipped(text: str) -> str:
    """Return a text of the user's at a length that a message can hold."""
    return text if len(text) <= _SHOWN_LENGTH else f"{text[:_SHOWN_LENGTH]}..."


def enumerated(texts: Iterable[str]) -> str:
    """Return texts of the user's, or of many sizes, as a list that a message can hold."""
    shown = [clipped(text) for text in texts]
    more = len(shown) - _SHOWN_VALUES
    return ", ".join(shown) if more <= 0 else f"{', '.join(shown[:_SHOWN_VALUES])} and {more} more"


def _shown(requirement: Requirement) -> str:
    return requirement.operator + (f" [{enumerated(requirement.values)}]" if requirement.values else "")


def _joined(parts: list[str]) -> str:
    more = len(parts) - _SHOWN_REQUIREMENTS
    return " and ".join(parts if more <= 0 else [*parts[:_SHOWN_REQUIREMENTS], f"{more} more"])


def _integer(text: str) -> int | None:
    return int(text) if _INTEGER.fullmatch(text) else None
