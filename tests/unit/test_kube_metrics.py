"""Prometheus' text format."""

import math

import pytest

from provisioner.kube.metrics import MAX_SERIES, OVERFLOW, Registry


def test_exposition_is_sorted_typed_and_explained() -> None:
    registry = Registry()
    registry.gauge("b_depth", text="How deep.").set(2.5)
    counter = registry.counter("a_total", text="How many.", labels=("zone", "reason"))
    counter.inc(zone="1", reason="quota")
    counter.inc(2, reason="quota", zone="1")
    assert registry.expose() == (
        "# HELP a_total How many.\n"
        "# TYPE a_total counter\n"
        'a_total{zone="1",reason="quota"} 3\n'
        "# HELP b_depth How deep.\n"
        "# TYPE b_depth gauge\n"
        "b_depth 2.5\n"
    )


def test_counter_without_labels_is_there_from_the_start() -> None:
    registry = Registry()
    registry.counter("a_total", text="x")
    registry.counter("b_total", text="x", labels=("zone",))
    assert "a_total 0\n" in registry.expose()
    assert "b_total{" not in registry.expose()


def test_histogram_buckets_are_cumulative_and_bounds_inclusive() -> None:
    registry = Registry()
    histogram = registry.histogram("t_seconds", text="Time.", labels=("m",), buckets=(0.5, 1, 10))
    for measure in (0.1, 0.5, 0.7, 10, 99):
        histogram.observe(measure, m="GET")
    assert registry.expose().splitlines()[2:] == [
        't_seconds_bucket{m="GET",le="0.5"} 2',
        't_seconds_bucket{m="GET",le="1"} 3',
        't_seconds_bucket{m="GET",le="10"} 4',
        't_seconds_bucket{m="GET",le="+Inf"} 5',
        't_seconds_sum{m="GET"} 110.3',
        't_seconds_count{m="GET"} 5',
    ]
    assert histogram.count(m="GET") == 5
    assert histogram.count(m="PUT") == 0


def test_label_values_and_help_are_escaped() -> None:
    registry = Registry()
    registry.gauge("g", text="back\\slash\nline", labels=("v",)).set(1, v='quote" back\\slash\nline')
    assert registry.expose() == (
        '# HELP g back\\\\slash\\nline\n# TYPE g gauge\ng{v="quote\\" back\\\\slash\\nline"} 1\n'
    )


@pytest.mark.parametrize(
    ("number", "text"),
    [(math.inf, "+Inf"), (-math.inf, "-Inf"), (math.nan, "NaN"), (1e18, "1e+18"), (-3.0, "-3"), (0.1, "0.1")],
)
def test_numbers_are_written_as_prometheus_reads_them(number: float, text: str) -> None:
    registry = Registry()
    registry.gauge("g", text="x").set(number)
    assert registry.expose().splitlines()[-1] == f"g {text}"


def test_series_beyond_the_limit_are_counted_together() -> None:
    registry = Registry()
    counter = registry.counter("a_total", text="x", labels=("code", "zone"))
    for number in range(MAX_SERIES + 50):
        counter.inc(code=f"Error{number}", zone="1")
    counter.inc(code="Error0", zone="1")
    assert counter.value(code="Error0", zone="1") == 2
    assert counter.value(code=OVERFLOW, zone=OVERFLOW) == 50
    assert len(registry.expose().splitlines()) == 2 + MAX_SERIES + 1


def test_name_registered_again_is_the_same_metric() -> None:
    registry = Registry()
    registry.counter("a_total", text="x", labels=("l",)).inc(l="1")
    registry.counter("a_total", text="x", labels=("l",)).inc(l="1")
    assert 'a_total{l="1"} 2' in registry.expose()


def test_gauges_can_be_counted_anew_for_each_scrape() -> None:
    registry = Registry()
    gauge = registry.gauge("claims", text="x", labels=("phase",))
    phases = ["pending", "pending", "ready"]

    def refresh() -> None:
        gauge.clear()
        for phase in set(phases):
            gauge.set(phases.count(phase), phase=phase)

    registry.before_scrape(refresh)
    assert 'claims{phase="pending"} 2' in registry.expose()
    phases[:] = ["ready"]
    assert registry.expose().splitlines()[2:] == ['claims{phase="ready"} 1']


def test_misuse_is_told_at_once() -> None:
    registry = Registry()
    counter = registry.counter("a_total", text="x", labels=("zone",))
    with pytest.raises(ValueError, match="labels"):
        counter.inc()
    with pytest.raises(ValueError, match="labels"):
        counter.inc(zone="1", other="2")
    with pytest.raises(ValueError, match="only grows"):
        counter.inc(-1, zone="1")
    with pytest.raises(ValueError, match="registered already"):
        registry.gauge("a_total", text="x", labels=("zone",))
    with pytest.raises(ValueError, match="registered already"):
        registry.counter("a_total", text="x")
    with pytest.raises(ValueError, match="metric name"):
        registry.counter("a-total", text="x")
    with pytest.raises(ValueError, match="label name"):
        registry.counter("b_total", text="x", labels=("a.b",))
    with pytest.raises(ValueError, match="bounds"):
        registry.histogram("h", text="x", buckets=(2, 1))
