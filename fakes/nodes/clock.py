"""Simulated time: everything a machine or a pod takes is told in simulated seconds."""

import math
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Protocol


class Clock(Protocol):
    """Simulated time; the fake Azure's clock is one, so that both can live in the same time."""

    def now(self) -> float:
        """Return the simulated seconds since some moment."""

    def real(self, simulated: float) -> float:
        """Return the real seconds that a span of simulated seconds takes; never negative."""


class SimClock:
    """Simulated seconds that run `scale` times as fast as real ones."""

    def __init__(self, *, scale: float = 1.0, source: Callable[[], float] = time.monotonic) -> None:
        if not (scale > 0 and math.isfinite(scale)):
            raise ValueError(f"the scale of a clock must be positive, not {scale}")
        self._scale = scale
        self._source = source
        self._start = source()

    def now(self) -> float:
        """Return the simulated seconds since the clock was made."""
        return (self._source() - self._start) * self._scale

    def real(self, simulated: float) -> float:
        """Return the real seconds that a span of simulated seconds takes; never negative."""
        return max(simulated, 0.0) / self._scale


def timestamp() -> str:
    """Return the wall clock as Kubernetes writes `metav1.Time`.

    Timestamps in objects are never simulated: the node lifecycle controller, the Job controller and every client
    compare them with their own clocks.
    """
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def micro_timestamp() -> str:
    """Return the wall clock as Kubernetes writes `metav1.MicroTime` (Leases)."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
