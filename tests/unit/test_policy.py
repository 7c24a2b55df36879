"""How long to wait after a refusal: longer each time, at most as its class allows, at least as Azure asks."""

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from provisioner.apis.failure import Failure, FailureClass
from provisioner.nodeclaim.policy import retry_delay


def delay(kind: FailureClass, *, attempts: int = 1, luck: float = 0.0, retry_after: float | None = None) -> timedelta:
    return retry_delay(Failure(kind=kind, message="no", retry_after=retry_after), attempts=attempts, luck=luck)


@pytest.mark.parametrize(
    ("kind", "first", "longest"),
    [
        (FailureClass.QUOTA, 60, 600),
        (FailureClass.SKU_RESTRICTED, 300, 3600),
        (FailureClass.CAPACITY, 120, 1800),
        (FailureClass.ZONE, 300, 3600),
        (FailureClass.THROTTLED, 10, 300),
        (FailureClass.CONFLICT, 5, 60),
        (FailureClass.AUTH, 30, 300),
        (FailureClass.POLICY, 300, 3600),
        (FailureClass.INVALID, 300, 3600),
        (FailureClass.INTERNAL, 5, 120),
    ],
)
def test_each_class_has_its_first_and_its_longest_wait(kind: FailureClass, first: int, longest: int) -> None:
    assert delay(kind) == timedelta(seconds=first)
    assert delay(kind, attempts=2) == timedelta(seconds=min(2 * first, longest))
    assert delay(kind, attempts=100_000) == timedelta(seconds=longest)


@pytest.mark.parametrize(("retry_after", "seconds"), [(None, 60), (0.0, 60), (7.5, 60), (61.0, 61), (7200.0, 7200)])
def test_azures_own_wait_counts_where_it_is_longer_even_than_the_longest(
    retry_after: float | None, seconds: float
) -> None:
    assert delay(FailureClass.QUOTA, retry_after=retry_after) == timedelta(seconds=seconds)


def test_claims_that_were_refused_together_part_ways() -> None:
    assert delay(FailureClass.QUOTA, luck=0.5) == timedelta(seconds=66)


_WAITS = st.none() | st.floats(0, 86_400)


@given(kind=st.sampled_from(FailureClass), attempts=st.integers(1, 1000), luck=st.floats(0, 0.999), retry_after=_WAITS)
def test_wait_grows_with_each_attempt_and_never_undercuts_azure(
    kind: FailureClass, attempts: int, luck: float, retry_after: float | None
) -> None:
    now = delay(kind, attempts=attempts, luck=luck, retry_after=retry_after)
    assert now >= timedelta(seconds=retry_after or 0)
    assert now <= delay(kind, attempts=attempts + 1, luck=luck, retry_after=retry_after)
    assert now < 1.2 * max(delay(kind, attempts=100), timedelta(seconds=retry_after or 0)) + timedelta(seconds=1)
