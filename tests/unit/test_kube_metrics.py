"""Prometheus' text format."""

import math

import pytest

from provisioner.kube.metrics import MAX_SERIES, OVERFLOW, SUMMARY_WINDOW, Registry


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


def test_summary_has_quantiles_of_what_was_measured_lately_and_counts_all() -> None:
    now, registry = 0.0, Registry()
    summary = registry.summary(
        "t_seconds", text="Time.", labels=("pool",), quantiles=(0, 0.5, 0.9, 0.99, 1), clock=lambda: now
    )
    for measure in (5, 1, 4, 2, 3):
        summary.observe(measure, pool="a")
    summary.observe(7.5, pool="b")
    assert registry.expose().splitlines()[1:] == [
        "# TYPE t_seconds summary",
        't_seconds{pool="a",quantile="0"} 1',
        't_seconds{pool="a",quantile="0.5"} 3',
        't_seconds{pool="a",quantile="0.9"} 5',
        't_seconds{pool="a",quantile="0.99"} 5',
        't_seconds{pool="a",quantile="1"} 5',
        't_seconds_sum{pool="a"} 15',
        't_seconds_count{pool="a"} 5',
        *(f't_seconds{{pool="b",quantile="{quantile}"}} 7.5' for quantile in ("0", "0.5", "0.9", "0.99", "1")),
        't_seconds_sum{pool="b"} 7.5',
        't_seconds_count{pool="b"} 1',
    ]
    now = SUMMARY_WINDOW - 1
    summary.observe(100, pool="a")
    now = SUMMARY_WINDOW + 1
    lines = registry.expose()
    assert 't_seconds{pool="a",quantile="0"} 100\n' in lines
    assert 't_seconds_count{pool="a"} 6\n' in lines
    assert 't_seconds{pool="b",quantile="0.5"} NaN\n' in lines
    assert 't_seconds_sum{pool="b"} 7.5\n' in lines
    assert summary.count(pool="a") == 6
    assert summary.count(pool="c") == 0


def test_summary_remembers_the_newest_of_a_burst() -> None:
    registry = Registry()
    summary = registry.summary("t_seconds", text="Time.", quantiles=(0, 1), clock=lambda: 0.0)
    for measure in range(5000):
        summary.observe(measure)
    assert registry.expose().splitlines()[2:] == [
        't_seconds{quantile="0"} 4000',
        't_seconds{quantile="1"} 4999',
        "t_seconds_sum 12497500",
        "t_seconds_count 5000",
    ]


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


def test_gauge_of_objects_may_have_more_series() -> None:
    registry = Registry()
    gauge = registry.gauge("g", text="x", labels=("name",), limit=MAX_SERIES + 10)
    for number in range(MAX_SERIES + 20):
        gauge.set(1, name=f"w{number}")
    assert len(registry.expose().splitlines()) == 2 + MAX_SERIES + 11


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
    with pytest.raises(ValueError, match="label name"):
        registry.counter("b_total", text="x", labels=("quantile",))
    with pytest.raises(ValueError, match="between 0 and 1"):
        registry.summary("s", text="x", quantiles=(0.5, 99), clock=lambda: 0.0)
