"""Karpenter's suite for the tests in here."""

import os

import pytest

from tests.conformance.suite import SUITE, Suite, find


def pytest_runtest_setup() -> None:
    """Skip all of it where the suite has not been built; under CI it must be there."""
    if os.environ.get("CI") != "true" and (reason := SUITE.skip_reason()):
        # From here and not from the fixture: pytest then tells of all of them in one line.
        pytest.skip(reason)


@pytest.fixture(scope="session")
def karpenter() -> Suite:
    """Return what was built of Karpenter. Raises BinariesMissing."""
    return find()
