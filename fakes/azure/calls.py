"""A log of all calls, bounded, and counts that are not."""

from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Call:
    """One call. `time` is in simulated seconds; `status` is None where the connection was torn down instead.

    No header but these two is kept, and no body: tokens are in them.
    """

    time: float
    method: str
    path: str
    operation: str
    pool: str
    status: int | None
    client_request_id: str
    user_agent: str


class CallLog:
    """The last calls, oldest first, and the number of all by operation and by operation and status."""

    def __init__(self, *, size: int = 10_000) -> None:
        self._calls: deque[Call] = deque(maxlen=size)
        self._counts: Counter[str] = Counter()
        self._statuses: Counter[tuple[str, int | None]] = Counter()

    def __iter__(self) -> Iterator[Call]:
        return iter(tuple(self._calls))

    def __len__(self) -> int:
        return len(self._calls)

    def add(self, call: Call) -> None:
        """Log a call."""
        self._calls.append(call)
        self._counts[call.operation] += 1
        self._statuses[call.operation, call.status] += 1

    def count(self, operation: str | None = None, *, status: int | None = None) -> int:
        """Return how many calls of an operation (all by default) came since the last reset, of one status if given."""
        if status is None:
            return self._counts[operation] if operation else self._counts.total()
        return sum(n for (name, code), n in self._statuses.items() if code == status and operation in (None, name))

    def reset(self) -> None:
        """Forget all calls."""
        self._calls.clear()
        self._counts.clear()
        self._statuses.clear()

    def dump(self) -> dict[str, Any]:
        """Return counts and calls as JSON has them."""
        return {"counts": dict(self._counts), "calls": [asdict(call) for call in self._calls]}
