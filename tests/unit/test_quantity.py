"""Quantities are exact, and what is none is refused by its name."""

from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from provisioner.apis.quantity import parse_quantity

GIB = 1 << 30
SUFFIXES = {
    "": Fraction(1),
    "n": Fraction(1, 10**9),
    "u": Fraction(1, 10**6),
    "m": Fraction(1, 1000),
    **{letter: Fraction(1000**power) for power, letter in enumerate("kMGTPE", start=1)},
    **{f"{letter}i": Fraction(1024**power) for power, letter in enumerate("KMGTPE", start=1)},
}


@pytest.mark.parametrize(
    ("text", "amount"),
    [
        ("87Gi", 87 * GIB),
        ("1Ti", 1024 * GIB),
        ("512Mi", GIB // 2),
        ("100.5Gi", Decimal("100.5") * GIB),
        (".5Gi", GIB // 2),
        ("1.", 1),
        ("+3", 3),
        ("-5Gi", -5 * GIB),
        ("0", 0),
        ("500m", Decimal("0.5")),
        ("1E", 10**18),
        ("1e3", 1000),
        ("1E3", 1000),
        ("5e-1", Decimal("0.5")),
        ("50k", 50_000),
        (" 87Gi\n", 87 * GIB),
        (4, 4),
        (0.5, Decimal("0.5")),
        (1e22, 10**22),
    ],
)
def test_quantity_is_read_as_kubernetes_reads_it(text: str | float, amount: Decimal | int) -> None:
    assert parse_quantity(text) == amount


@pytest.mark.parametrize(
    "text",
    ["", "Gi", "87gi", "87GB", "87 Gi", "1,5Gi", "0x10", "1e", "1e3Gi", "--1", "nan", "inf", "٣Gi", "1" * 65, "None"],
)
def test_what_is_no_quantity_is_refused_by_name(text: str) -> None:
    with pytest.raises(ValueError, match="is not a Kubernetes quantity such as 87Gi or 1Ti") as refused:
        parse_quantity(text)
    assert repr(text[:64]) in str(refused.value)


@pytest.mark.parametrize("value", [True, False, float("nan"), float("inf")])
def test_number_that_is_none_is_refused(value: float) -> None:
    with pytest.raises(ValueError, match="is not a Kubernetes quantity"):
        parse_quantity(value)


@given(suffix=st.sampled_from(sorted(SUFFIXES)), data=st.data())
def test_no_digit_of_an_amount_that_kubernetes_takes_is_lost(suffix: str, data: st.DataObject) -> None:
    # Kubernetes cuts amounts off at what 64 bits hold.
    limit = int((2**63 - 1) / max(SUFFIXES[suffix], Fraction(1)))
    number = data.draw(st.integers(-limit, limit))
    assert Fraction(parse_quantity(f"{number}{suffix}")) == number * SUFFIXES[suffix]


@given(st.text(max_size=80))
def test_any_text_is_a_quantity_or_is_refused(text: str) -> None:
    try:
        amount = parse_quantity(text)
    except ValueError:
        return
    assert amount.is_finite()
