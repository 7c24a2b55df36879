"""How a long-running operation turns out other than well."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What becomes of an operation that is accepted and does not succeed.

    `after` is in simulated seconds from its start, None for when it would have succeeded. A `Stuck` one never ends.
    Without `machines` no VM comes or goes. Without `error` the operation says no more than its status.
    """

    status: Literal["Failed", "Canceled", "Stuck"]
    after: float | None = None
    error: Mapping[str, Any] | None = None
    machines: bool = True


class Fate(Protocol):
    """Decides how operations turn out."""

    def __call__(self, operation: str, *, pool: str) -> Outcome | None:
        """Return the outcome of an operation (`agentPools.put`, ...) that starts now, None for success."""
