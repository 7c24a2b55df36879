"""Counters, gauges, histograms and summaries in Prometheus' text format 0.0.4.

https://prometheus.io/docs/instrumenting/exposition_formats/#text-based-format. There is no global registry: whoever
counts is handed one. Not thread safe; all of it happens on the event loop.
"""

import math
import re
from bisect import bisect_left
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Final, Literal, TypeVar

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"

# Seconds; Prometheus' own defaults (client_golang, DefBuckets).
DEFAULT_BUCKETS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
# Series a metric. A label value that comes from outside (a zone, an error code) must not fill our memory nor the
# scraper's: from there on, new combinations are counted together under the value below.
MAX_SERIES: Final = 1000
# The same for a gauge that has a few series for each object of ours: a thousand claims with twenty conditions each.
MAX_OBJECT_SERIES: Final = 20_000
OVERFLOW: Final = "other"

# Seconds for which a summary remembers a measure, as client_golang does (DefMaxAge), and how many of a series at most.
SUMMARY_WINDOW: Final = 600.0
_SUMMARY_MEASURES: Final = 1000

_NAME: Final = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*", re.ASCII)
_LABEL: Final = re.compile(r"(?!__)[a-zA-Z_][a-zA-Z0-9_]*", re.ASCII)
# What the format itself adds.
_RESERVED: Final = frozenset({"le", "quantile"})

Series = TypeVar("Series")
Values = tuple[str, ...]


class _Metric:
    """A name, its help and its labels."""

    kind: Literal["counter", "gauge", "histogram", "summary"]

    def __init__(self, name: str, *, text: str, labels: Sequence[str], limit: int = MAX_SERIES) -> None:
        if not _NAME.fullmatch(name):
            raise ValueError(f"{name!r} is not a metric name")
        for label in labels:
            if not _LABEL.fullmatch(label) or label in _RESERVED:
                raise ValueError(f"{label!r} is not a label name for {name}")
        self.name, self.text, self.labels, self._limit = name, text, tuple(labels), limit
        self._label_set = frozenset(labels)

    def _values(self, given: dict[str, str], present: dict[Values, Series]) -> Values:
        if given.keys() != self._label_set:
            raise ValueError(f"{self.name} has the labels {self.labels}, not {tuple(given)}")
        values = tuple(given[label] for label in self.labels)
        if values not in present and len(present) >= self._limit:
            return (OVERFLOW,) * len(self.labels)
        return values

    def samples(self) -> Iterable[str]:
        """Return the lines of the present values."""
        raise NotImplementedError

    def _line(self, values: Values, number: float, *, suffix: str = "", extra: tuple[str, float] | None = None) -> str:
        pairs = [f'{label}="{_escape(value)}"' for label, value in zip(self.labels, values, strict=True)]
        if extra is not None:
            pairs.append(f'{extra[0]}="{_number(extra[1])}"')
        labels = f"{{{','.join(pairs)}}}" if pairs else ""
        return f"{self.name}{suffix}{labels} {_number(number)}"


class Counter(_Metric):
    """A number that only grows."""

    kind = "counter"

    def __init__(self, name: str, *, text: str, labels: Sequence[str] = ()) -> None:
        super().__init__(name, text=text, labels=labels)
        self._series: dict[Values, float] = {} if labels else {(): 0.0}

    def inc(self, amount: float = 1.0, /, **labels: str) -> None:
        """Add to the series with these label values."""
        if amount < 0:
            raise ValueError(f"{self.name} only grows, not by {amount}")
        values = self._values(labels, self._series)
        self._series[values] = self._series.get(values, 0.0) + amount

    def value(self, **labels: str) -> float:
        """Return the present value."""
        return self._series.get(self._values(labels, self._series), 0.0)

    def samples(self) -> Iterable[str]:
        """Return the lines of the present values."""
        return [self._line(values, number) for values, number in self._series.items()]


class Gauge(_Metric):
    """A number that goes up and down."""

    kind = "gauge"

    def __init__(self, name: str, *, text: str, labels: Sequence[str] = (), limit: int = MAX_SERIES) -> None:
        super().__init__(name, text=text, labels=labels, limit=limit)
        self._series: dict[Values, float] = {} if labels else {(): 0.0}

    def set(self, number: float, /, **labels: str) -> None:
        """Set the series with these label values."""
        self._series[self._values(labels, self._series)] = number

    def value(self, **labels: str) -> float:
        """Return the present value, 0 where it was never set."""
        return self._series.get(self._values(labels, self._series), 0.0)

    def clear(self) -> None:
        """Forget all series: for a gauge that is counted anew at each scrape."""
        self._series.clear()

    def samples(self) -> Iterable[str]:
        """Return the lines of the present values."""
        return [self._line(values, number) for values, number in self._series.items()]


class Histogram(_Metric):
    """How often a measure fell below each bound, with sum and count."""

    kind = "histogram"

    def __init__(
        self, name: str, *, text: str, labels: Sequence[str] = (), buckets: Sequence[float] = DEFAULT_BUCKETS
    ) -> None:
        super().__init__(name, text=text, labels=labels)
        self.buckets = tuple(buckets)
        if list(self.buckets) != sorted(set(self.buckets)) or math.inf in self.buckets:
            raise ValueError(f"the bounds of {name} must rise and leave out +Inf")
        self._series: dict[Values, tuple[list[int], float]] = {}  # hits by bucket, not yet cumulated; sum

    def observe(self, measure: float, /, **labels: str) -> None:
        """Count a measure into the series with these label values."""
        values = self._values(labels, self._series)
        hits, total = self._series.get(values) or ([0] * (len(self.buckets) + 1), 0.0)
        hits[bisect_left(self.buckets, measure)] += 1
        self._series[values] = (hits, total + measure)

    def count(self, **labels: str) -> int:
        """Return how many measures were counted."""
        hits, _ = self._series.get(self._values(labels, self._series), ([], 0.0))
        return sum(hits)

    def samples(self) -> Iterable[str]:
        """Return the lines of the present values."""
        for values, (hits, total) in self._series.items():
            below = 0
            for bound, number in zip((*self.buckets, math.inf), hits, strict=True):
                below += number
                yield self._line(values, below, suffix="_bucket", extra=("le", bound))
            yield self._line(values, total, suffix="_sum")
            yield self._line(values, below, suffix="_count")


@dataclass
class _Measures:
    """What a summary knows of one series: its newest measures with their moments, and count and sum of all."""

    newest: deque[tuple[float, float]] = field(default_factory=lambda: deque(maxlen=_SUMMARY_MEASURES))
    count: int = 0
    total: float = 0.0


class Summary(_Metric):
    """Quantiles of the measures of the last `SUMMARY_WINDOW` seconds, with sum and count of all.

    Where a dashboard asks for quantiles by the label of that name; everything else is better off with a histogram,
    whose buckets can be added up.
    """

    kind = "summary"

    def __init__(
        self,
        name: str,
        *,
        text: str,
        quantiles: Sequence[float],
        clock: Callable[[], float],
        labels: Sequence[str] = (),
    ) -> None:
        super().__init__(name, text=text, labels=labels)
        self.quantiles = tuple(quantiles)
        if not all(0 <= quantile <= 1 for quantile in self.quantiles):
            raise ValueError(f"the quantiles of {name} must be between 0 and 1")
        self._clock = clock
        self._series: dict[Values, _Measures] = {}

    def observe(self, measure: float, /, **labels: str) -> None:
        """Count a measure into the series with these label values."""
        measures = self._series.setdefault(self._values(labels, self._series), _Measures())
        measures.newest.append((self._clock(), measure))
        measures.count += 1
        measures.total += measure

    def count(self, **labels: str) -> int:
        """Return how many measures were counted."""
        return self._series.get(self._values(labels, self._series), _Measures()).count

    def samples(self) -> Iterable[str]:
        """Return the lines of the present values; a quantile of no measures is NaN."""
        oldest = self._clock() - SUMMARY_WINDOW
        for values, measures in self._series.items():
            while measures.newest and measures.newest[0][0] < oldest:
                measures.newest.popleft()
            ranked = sorted(measure for _, measure in measures.newest)
            for quantile in self.quantiles:
                yield self._line(values, _ranked(ranked, quantile), extra=("quantile", quantile))
            yield self._line(values, measures.total, suffix="_sum")
            yield self._line(values, measures.count, suffix="_count")


Metric = TypeVar("Metric", Counter, Gauge, Histogram, Summary)


class Registry:
    """The metrics of one process. Asking for a name again returns the same metric."""

    def __init__(self) -> None:
        self._metrics: dict[str, Counter | Gauge | Histogram | Summary] = {}
        self._before_scrape: list[Callable[[], None]] = []

    def counter(self, name: str, *, text: str, labels: Sequence[str] = ()) -> Counter:
        """Return the counter of that name; by convention it ends in `_total`."""
        return self._register(Counter(name, text=text, labels=labels))

    def gauge(self, name: str, *, text: str, labels: Sequence[str] = (), limit: int = MAX_SERIES) -> Gauge:
        """Return the gauge of that name; `limit` is how many series it may have."""
        return self._register(Gauge(name, text=text, labels=labels, limit=limit))

    def histogram(
        self, name: str, *, text: str, labels: Sequence[str] = (), buckets: Sequence[float] = DEFAULT_BUCKETS
    ) -> Histogram:
        """Return the histogram of that name."""
        return self._register(Histogram(name, text=text, labels=labels, buckets=buckets))

    def summary(
        self,
        name: str,
        *,
        text: str,
        quantiles: Sequence[float],
        clock: Callable[[], float],
        labels: Sequence[str] = (),
    ) -> Summary:
        """Return the summary of that name; `clock` tells seconds, of which only differences count."""
        return self._register(Summary(name, text=text, quantiles=quantiles, clock=clock, labels=labels))

    def before_scrape(self, refresh: Callable[[], None]) -> None:
        """Have something called before each exposition: gauges that are counted from a store are set there."""
        self._before_scrape.append(refresh)

    def _register(self, metric: Metric) -> Metric:
        known = self._metrics.setdefault(metric.name, metric)
        if not isinstance(known, type(metric)) or known.labels != metric.labels:
            raise ValueError(f"{metric.name} is registered already, as a {known.kind} with the labels {known.labels}")
        return known

    def expose(self) -> str:
        """Return all metrics as text."""
        for refresh in self._before_scrape:
            refresh()
        lines = []
        for metric in sorted(self._metrics.values(), key=lambda metric: metric.name):
            text = metric.text.replace("\\", r"\\").replace("\n", r"\n")
            lines += [f"# HELP {metric.name} {text}", f"# TYPE {metric.name} {metric.kind}", *metric.samples()]
        return "".join(line + "\n" for line in lines)


# A scrape renders thousands of values, most of them the same few reasons, zones and classes.
@lru_cache(maxsize=4096)
def _escape(value: str) -> str:
    return value.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")


def _ranked(ranked: Sequence[float], quantile: float) -> float:
    """Return the least measure that so large a part of all do not exceed."""
    return ranked[max(math.ceil(quantile * len(ranked)) - 1, 0)] if ranked else math.nan


def _number(number: float) -> str:
    if math.isinf(number):
        return "+Inf" if number > 0 else "-Inf"
    if math.isnan(number):
        return "NaN"
    return str(int(number)) if number == int(number) and abs(number) < 1e15 else repr(number)
