"""Faults on request: what goes wrong, with which calls, how often."""

import fnmatch
import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Final, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from fakes.azure.outcomes import Outcome


class _Matching(BaseModel):
    """Which calls are hit: globs on the operation (`agentPools.put`), the method and the pool, and how many times.

    Calls that concern no pool have an empty pool name, which `*` matches. `times` is None for "until cleared".
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    operation: str = "*"
    method: str = "*"
    pool: str = "*"
    times: int | None = Field(default=1, ge=1)

    def matches(self, operation: str, *, method: str, pool: str) -> bool:
        """Tell whether a call is hit."""
        return (
            fnmatch.fnmatchcase(operation, self.operation)
            and fnmatch.fnmatchcase(method, self.method.upper())
            and fnmatch.fnmatchcase(pool, self.pool)
        )


class Answer(_Matching):
    """Another answer: a status with a JSON body, a text (HTML, say), or none.

    It replaces the call, or with `after_effect` only the true answer. `retry_after` is in simulated seconds.
    """

    kind: Literal["answer"] = "answer"
    status: int = Field(ge=100, le=599)
    body: dict[str, Any] | list[Any] | str | None = None
    content_type: str | None = None
    headers: Mapping[str, str] = Field(default_factory=dict)
    retry_after: float | None = Field(default=None, gt=0)
    after_effect: bool = False


class Disconnect(_Matching):
    """The connection is torn down instead of an answer: before the call has had an effect, or after."""

    kind: Literal["disconnect"] = "disconnect"
    after_effect: bool = False


class Delay(_Matching):
    """The answer comes so many simulated seconds late; the effect too, unless it came before."""

    kind: Literal["delay"] = "delay"
    seconds: float = Field(ge=0)
    after_effect: bool = True


class OperationFault(_Matching):
    """The operation that a call starts does not succeed: see `Outcome`. Matched when the operation starts."""

    kind: Literal["operation"] = "operation"
    outcome: Literal["Failed", "Canceled", "Stuck"] = "Failed"
    after: float | None = Field(default=None, ge=0)
    error: Mapping[str, Any] | None = None
    machines: bool = True


# One fault of each kind may hit a call; the first that was added does.
Fault = Answer | Disconnect | Delay | OperationFault
FAULT: Final[TypeAdapter[Fault]] = TypeAdapter(Annotated[Fault, Field(discriminator="kind")])

_F = TypeVar("_F", Answer, Disconnect, Delay, OperationFault)


@dataclass
class _Entry:
    id: str
    fault: Fault
    hits: int = 0

    @property
    def spent(self) -> bool:
        return self.fault.times is not None and self.hits >= self.fault.times


class FaultBook:
    """The faults that wait for their calls, in the order they were added."""

    def __init__(self) -> None:
        self._entries: dict[str, _Entry] = {}
        self._ids = itertools.count(1)

    def add(self, fault: Fault) -> str:
        """Add a fault and return its ID."""
        entry = _Entry(f"fault-{next(self._ids)}", fault)
        self._entries[entry.id] = entry
        return entry.id

    def remove(self, fault_id: str) -> bool:
        """Remove a fault; False if there is none of that ID."""
        return self._entries.pop(fault_id, None) is not None

    def clear(self) -> None:
        """Remove all faults."""
        self._entries.clear()

    def listing(self) -> list[dict[str, Any]]:
        """Return all faults, spent ones too, with how many calls each has hit."""
        return [
            {"id": entry.id, "hits": entry.hits, "spent": entry.spent, "fault": entry.fault.model_dump(mode="json")}
            for entry in self._entries.values()
        ]

    def claim(
        self, operation: str, kind: type[_F], *, method: str, pool: str, after_effect: bool | None = None
    ) -> _F | None:
        """Return the fault of a kind that hits a call, and count it; None if none does."""
        for entry in self._entries.values():
            fault = entry.fault
            if not isinstance(fault, kind) or entry.spent:
                continue
            if after_effect is not None and getattr(fault, "after_effect", None) != after_effect:
                continue
            if fault.matches(operation, method=method, pool=pool):
                entry.hits += 1
                return fault
        return None

    def outcome(self, operation: str, *, pool: str) -> Outcome | None:
        """Return how an operation turns out that starts now; see `outcomes.Fate`."""
        method = {"agentPools.put": "PUT", "agentPools.delete": "DELETE"}.get(operation, "POST")
        fault = self.claim(operation, OperationFault, method=method, pool=pool)
        if fault is None:
            return None
        return Outcome(status=fault.outcome, after=fault.after, error=fault.error, machines=fault.machines)
