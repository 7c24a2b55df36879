"""What everything in a simulation shares: its loop, its clock, its dice, its time line, and the verdict."""

import random
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Final, TypeVar

from tests.chaos.loop import Action, SimulatedLoop

_START: Final = datetime(2026, 11, 21, 4, 0, 0, tzinfo=UTC)

T = TypeVar("T")


class Dice:
    """Chance, from a seed and a name, so that one more throw in one place changes nothing in another."""

    def __init__(self, seed: int, name: str) -> None:
        self.rng = random.Random(f"{seed}:{name}")  # noqa: S311 -- the same for the same seed, that is its use

    def chance(self, likelihood: float) -> bool:
        """Tell whether something happens that likely."""
        return self.rng.random() < likelihood

    def between(self, low: float, high: float) -> float:
        """Return a number, small ones as likely as large ones."""
        return low + (high - low) * self.rng.random()

    def short(self, low: float, high: float) -> float:
        """Return a number, mostly a small one."""
        return low + (high - low) * self.rng.random() ** 4

    def whole(self, low: int, high: int) -> int:
        """Return a whole number, bounds included."""
        return low + int(self.rng.random() * (high - low + 1))

    def pick(self, among: Sequence[T]) -> T:
        """Return one of several."""
        return among[int(self.rng.random() * len(among))]


class World:
    """One history. `tell`, where given, takes the lines of its time line."""

    def __init__(self, seed: int, *, tell: Callable[[str], None] | None = None) -> None:
        self.seed = seed
        self._tell = tell
        self.counts: Counter[str] = Counter()
        self.broken = ""
        self.faults_on = False
        # How much more often than usual requests fail in this history.
        self.mood = self.dice("mood").pick((0.3, 1.0, 1.0, 4.0))
        self.loop = SimulatedLoop(self.dice("scheduler").rng, on_defect=self._on_defect)

    def dice(self, name: str) -> Dice:
        """Return chance for one use."""
        return Dice(self.seed, name)

    @property
    def is_traced(self) -> bool:
        """Tell whether anybody reads the time line."""
        return self._tell is not None

    def now(self) -> datetime:
        """Return the wall clock's time."""
        return _START + timedelta(seconds=self.loop.time())

    def after(self, delay: float, action: Action) -> None:
        """Have something happen, whatever becomes of those who have caused it."""
        self.loop.outside(delay, action)

    def trace(self, who: str, text: str) -> None:
        """Write a line of the time line."""
        if self._tell is not None:
            seconds = self.loop.time()
            minutes, rest = divmod(seconds, 60)
            hours, minutes = divmod(int(minutes), 60)
            self._tell(f"{hours:02d}:{minutes:02d}:{rest:06.3f} {who:<11} {text}")

    def fault(self, kind: str, where: str) -> None:
        """Count something that goes wrong on purpose."""
        self.counts[f"fault {kind}"] += 1
        self.trace("fault", f"{kind}: {where}")

    def violate(self, text: str) -> None:
        """Note that what must never happen has happened; the history ends with this."""
        if not self.broken:
            self.broken = text
            self.trace("BROKEN", text)
        self.loop.stopping = True

    def _on_defect(self, message: str, error: BaseException | None) -> None:
        self.violate(f"an exception that nobody handles: {message}: {error!r}")
