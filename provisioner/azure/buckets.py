"""Token buckets, by a clock that is handed in: nothing here waits."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

# What was waited for is there, whatever floating point makes of the last digit.
_ALMOST = 1.0 - 1e-6


@dataclass
class Bucket:
    """Tokens up to `size`, `refill` more a second; `tokens`, which may be owed, are those at the moment `filled_at`."""

    size: float
    refill: float
    tokens: float
    filled_at: float

    @classmethod
    def full(cls, *, size: float, refill: float, now: float) -> Self:
        """Return a bucket that holds all it can."""
        return cls(size=size, refill=refill, tokens=size, filled_at=now)

    @property
    def has_one(self) -> bool:
        """Tell whether a token can be taken."""
        return self.tokens >= _ALMOST

    @property
    def is_full(self) -> bool:
        """Tell whether what comes in now is lost."""
        return self.tokens >= self.size

    @property
    def seconds_to_one(self) -> float:
        """Return how long it takes from `filled_at` until a token can be taken."""
        return max(1.0 - self.tokens, 0.0) / self.refill

    def take(self) -> None:
        """Take a token, also where there is none: it is owed then."""
        self.tokens -= 1.0

    def drain(self, *, until: float, leaving: float) -> None:
        """Let it have no more than so many tokens at a moment to come, and none before."""
        gained = max(until - self.filled_at, 0.0) * self.refill
        self.tokens = min(self.tokens + gained, leaving, self.size)
        self.filled_at = max(until, self.filled_at)


def fill(buckets: Sequence[Bucket], now: float) -> None:
    """Fill the buckets up to now. What one has no room for goes to the others, in that order.

    So they never hold more, and never gain more, than one bucket of all their sizes and refills together.
    """
    spare = 0.0
    for bucket in buckets:
        gained = max(now - bucket.filled_at, 0.0) * bucket.refill
        bucket.filled_at = max(now, bucket.filled_at)
        room = max(bucket.size - bucket.tokens, 0.0)
        bucket.tokens += min(gained, room)
        spare += max(gained - room, 0.0)
    for bucket in buckets:
        # One that was drained until a moment to come has to stay so.
        if bucket.filled_at <= now:
            more = min(spare, max(bucket.size - bucket.tokens, 0.0))
            bucket.tokens += more
            spare -= more
