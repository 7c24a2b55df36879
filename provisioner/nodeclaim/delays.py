"""Sizes whose nodes do not register: each further launch waits a little longer. In memory, a restart forgets it."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

# A node that never registers costs its VM for the whole registration timeout, and its client asks again at once.
FIRST: Final = timedelta(minutes=1)
LONGEST: Final = timedelta(minutes=30)
_MAX_DOUBLINGS: Final = 16


@dataclass(frozen=True, kw_only=True)
class Delay:
    """How often in a row nodes of a size have not registered, and until when no more of it is asked for."""

    failures: int
    until: datetime


class SizeDelays:
    """The delays by VM size. `on_forgotten` is called when one ends before its time."""

    def __init__(self, *, on_forgotten: Callable[[], None]) -> None:
        self._delays: dict[str, Delay] = {}
        self._on_forgotten = on_forgotten

    def of(self, size: str, *, now: datetime) -> Delay | None:
        """Return the delay that holds for the size now."""
        delay = self._delays.get(size.lower())
        return delay if delay is not None and now < delay.until else None

    def failed(self, size: str, *, now: datetime) -> None:
        """Note that a node has not registered. Those of the same time count once: they have one cause."""
        if not size or self.of(size, now=now) is not None:
            return
        old = self._delays.get(size.lower())
        failures = old.failures + 1 if old else 1
        wait = min(FIRST * (1 << min(failures - 1, _MAX_DOUBLINGS)), LONGEST)
        self._delays[size.lower()] = Delay(failures=failures, until=now + wait)

    def succeeded(self, size: str) -> None:
        """Note that a node has registered."""
        if self._delays.pop(size.lower(), None) is not None:
            self._on_forgotten()
