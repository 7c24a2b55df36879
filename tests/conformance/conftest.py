"""Karpenter's suite for the tests in here."""

import os

import pytest

from tests.conformance.suite import Suite, find, skip_reason


@pytest.fixture(scope="session")
def karpenter() -> Suite:
    """Return what was built of Karpenter; skip where that was not done, but under CI it must be there."""
    if os.environ.get("CI") != "true" and (reason := skip_reason()):
        pytest.skip(reason)
    return find()
