"""Node selector requirements as sets of values: several requirements of one key hold together."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Final

from provisioner.apis import names
from provisioner.apis.nodeclaim import Requirement

# Azure compares VM sizes without regard to case and people write them so.
_CASELESS_KEYS: Final = frozenset({names.INSTANCE_TYPE_LABEL, names.SKU_NAME_LABEL})


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
        if self.must_be_absent or value in self.excluded or (self.listed is not None and value not in self.listed):
            return False
        if self.above is None and self.below is None:
            return True
        try:
            number = int(value)
        except ValueError:
            return False
        return (self.above is None or number > self.above) and (self.below is None or number < self.below)

    @property
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

    def narrowed(self, requirement: Requirement, *, fold: bool) -> "Values":
        """Return what is left when the requirement holds as well. Raises ValueError on a bound that is no integer."""
        values = tuple(value.lower() for value in requirement.values) if fold else requirement.values
        match requirement.operator:
            case "In":
                listed = values if self.listed is None else tuple(v for v in self.listed if v in values)
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
            raise ValueError(f"{requirement.key} {requirement.operator} takes one integer")
        try:
            bound = int(requirement.values[0])
        except ValueError:
            raise ValueError(
                f"{requirement.key} {requirement.operator} takes an integer, not {requirement.values[0]!r}"
            ) from None
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
    """All requirements of a claim, by key."""

    by_key: Mapping[str, Values]

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


def combine(requirements: Iterable[Requirement]) -> Requirements:
    """Combine a claim's requirements. Raises Contradiction, with a text for the user."""
    by_key: dict[str, Values] = {}
    written: dict[str, list[str]] = {}
    for requirement in requirements:
        key = requirement.key
        shown = f" [{', '.join(requirement.values)}]" if requirement.values else ""
        written.setdefault(key, []).append(requirement.operator + shown)
        try:
            by_key[key] = by_key.get(key, ANY).narrowed(requirement, fold=key in _CASELESS_KEYS)
        except ValueError as error:
            raise Contradiction(str(error)) from None
    for key, values in by_key.items():
        if values.is_contradictory:
            raise Contradiction(f"no value of {key} satisfies {' and '.join(written[key])}")
    return Requirements(by_key)
