"""Tables and values for a terminal, and that nothing in them steers it."""

import json
from datetime import timedelta
from decimal import Decimal

import pytest
import yaml

from provisioner.commands import output
from provisioner.commands.text import age, clean, cut, fields, money, table

HOSTILE = "a\x1b[2J\x1b]0;owned\x07\r\nb\u202ec\u200bd\x9b31m\u2028e\ttail"


def test_hostile_text_is_one_line_without_what_a_terminal_obeys() -> None:
    cleaned = clean(HOSTILE)

    assert cleaned == "a [2J ]0;owned b c d 31m e tail"
    assert cleaned.isprintable()


@pytest.mark.parametrize("form", ["json", "yaml"])
def test_documents_escape_what_a_terminal_obeys_and_keep_it(form: output.Format) -> None:
    text = output.document({"message": HOSTILE}, form=form)

    assert not set(text) - {"\n"} - set(map(chr, range(0x20, 0x7F)))
    assert (json.loads if form == "json" else yaml.safe_load)(text) == {"message": HOSTILE}


def test_columns_are_aligned() -> None:
    assert table(("NAME", "N", "NOTE"), [("a", "1", ""), ("long", "100", "x")], right=("N",)) == [
        "NAME    N  NOTE",
        "a       1",
        "long  100  x",
    ]


def test_cells_are_cleaned() -> None:
    assert table(("A", "B"), [("\x1b[31mred", "x\ny")]) == ["A        B", "[31mred  x y"]
    assert all(line.isprintable() for line in table(("A", "B"), [(HOSTILE, HOSTILE)]))


def test_last_column_is_cut_at_the_width() -> None:
    lines = table(("A", "B"), [("x", "y" * 100)], width=20)

    assert lines[1] == "x  " + "y" * 16 + "…"


def test_optional_columns_go_one_by_one_until_the_last_has_room() -> None:
    rows = [("a" * 10, "b" * 10, "c" * 10, "d" * 100)]
    header = ("A", "B", "C", "D")

    def columns(width: int | None) -> str:
        return table(header, rows, width=width, optional=("B", "C"))[0].replace(" ", "")

    assert columns(None) == "ABCD"
    assert columns(60) == "ABCD"
    assert columns(59) == "ACD"
    assert columns(40) == "AD"


def test_a_list_of_fields_goes_on_under_its_name() -> None:
    assert fields([("offer", "x"), ("left out", "y"), ("", "z\x1b")]) == [
        "  offer     x",
        "  left out  y",
        "            z",
    ]


@pytest.mark.parametrize(
    ("text", "width", "shown"), [("abc", 3, "abc"), ("abcd", 3, "ab…"), ("abc", 1, "…"), ("abc", 0, "")]
)
def test_text_is_cut_with_a_mark(text: str, width: int, shown: str) -> None:
    assert cut(text, width) == shown


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (-5, "0s"),
        (0.9, "0s"),
        (119, "119s"),
        (120, "2m"),
        (150, "2m30s"),
        (3600, "60m"),
        (3 * 3600, "3h"),
        (3 * 3600 + 300, "3h5m"),
        (30 * 3600 + 300, "30h"),
        (48 * 3600, "2d"),
    ],
)
def test_time_spans_are_shown_as_kubectl_shows_them(seconds: float, shown: str) -> None:
    assert age(timedelta(seconds=seconds)) == shown


@pytest.mark.parametrize(("price", "shown"), [(Decimal("3.673"), "3.673"), (Decimal(7), "7.000"), (None, "?")])
def test_money_has_three_decimals_and_unknown_is_no_zero(price: Decimal | None, shown: str) -> None:
    assert money(price) == shown
