"""Helm for the tests in here."""

import os

import pytest

from tests.charts.binary import HELM
from tests.charts.helm import Helm


def pytest_runtest_setup() -> None:
    """Skip all of it where Helm has not been built; under CI it must be there."""
    if os.environ.get("CI") != "true" and (reason := HELM.skip_reason()):
        # From here and not from the fixture: pytest then tells of all of them in one line.
        pytest.skip(reason)


@pytest.fixture(scope="session")
def helm(tmp_path_factory: pytest.TempPathFactory) -> Helm:
    """Return Helm without a cluster. Raises BinariesMissing."""
    return Helm(binary=HELM.find(), home=tmp_path_factory.mktemp("helm"))
