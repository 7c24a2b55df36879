"""Durations as Go writes them."""

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from provisioner.apis.durations import parse_duration


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("720h", timedelta(days=30)),
        ("1h30m", timedelta(minutes=90)),
        ("12h30m15s", timedelta(hours=12, minutes=30, seconds=15)),
        ("1.5h", timedelta(minutes=90)),
        ("500ms", timedelta(milliseconds=500)),
        ("0s", timedelta(0)),
    ],
)
def test_duration_is_read(text: str, expected: timedelta) -> None:
    assert parse_duration(text) == expected


@pytest.mark.parametrize(
    "value",
    ["Never", "", "h", "5", "-1h", "1d", "1h 30m", "1h30", "x1h", "1hx", "99999999999h", "9" * 60 + "h", None, 5, []],
)
def test_what_is_no_duration_is_none(value: object) -> None:
    assert parse_duration(value) is None


@given(st.text(alphabet="0123456789.hmsnuµ", max_size=70))
def test_any_text_is_read_or_not_and_never_fails(text: str) -> None:
    found = parse_duration(text)
    assert found is None or found >= timedelta(0)
