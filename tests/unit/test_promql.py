"""The reader of PromQL that the tests of alerts and dashboard stand on: what it reads, and what it refuses."""

import pytest

from tests.unit.promql import names_in


def test_metrics_matchers_and_grouping_labels_are_read() -> None:
    named = names_in(
        'histogram_quantile(0.9, sum by (cluster, le) (rate(t_seconds_bucket{type=~"A|B",status!="True"}[15m]))) > 5'
        " and on (name) max by (name) (g) == 1"
    )

    assert named.metrics == [("t_seconds_bucket", [("type", "=~", "A|B"), ("status", "!=", "True")]), ("g", [])]
    assert named.grouping == {"cluster", "le", "name"}


@pytest.mark.parametrize(
    "expression",
    [
        "sum(a",
        "sum(a))",
        "sum by (x) (rate(a[5m)])",
        "sumx(a)",
        "sum + a",
        "a{b=c}",
        'a{b="c" d="e"}',
        'a{b>"c"}',
        "a @ 1",
        'a{b="c}',
    ],
)
def test_what_is_no_expression_is_refused(expression: str) -> None:
    with pytest.raises(ValueError):
        names_in(expression)
