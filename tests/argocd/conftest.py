"""An interpreter for the tests in here."""

import os
from pathlib import Path

import pytest

from tests.argocd.binary import LUA


def pytest_runtest_setup() -> None:
    """Skip all of it where the interpreter has not been built; under CI it must be there."""
    if os.environ.get("CI") != "true" and (reason := LUA.skip_reason()):
        pytest.skip(reason)


@pytest.fixture(scope="session")
def interpreter() -> Path:
    """Return the interpreter. Raises BinariesMissing."""
    return LUA.find()
