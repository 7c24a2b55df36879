"""What all tests share: the control planes, a whole AKS around it, and the controller as its users run it."""

import os
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from pathlib import Path

import pytest
from hypothesis import settings

from fakes.aks import FakeAks
from fakes.azure.settings import Settings as AzureSettings
from fakes.cluster.binaries import skip_reason
from fakes.cluster.embedded import EmbeddedCluster
from fakes.cluster.interface import ControlPlane
from fakes.cluster.real import RealCluster
from fakes.controller import ControllerProcess
from fakes.nodes import NodeSettings
from tests.kube import Kube, clear

# Simulated seconds a real second: five minutes of Azure in a second and a half.
SCALE = 200.0
# The settings of the controller in tests: as fast as they can be set, to go with an Azure at that scale.
PACE: Mapping[str, str] = {
    "INVENTORY_BUSY_SECONDS": "1",
    "INVENTORY_IDLE_SECONDS": "1",
    "GARBAGE_SECONDS": "1",
    "QUOTA_SECONDS": "1",
    # The limits of the fake Azure are as much faster as its time is.
    "AZURE_REQUEST_SHARE": "100",
    "LOG_LEVEL": "debug",
}
_LOG_TAIL = 20_000
_CONTROL_PLANES: Mapping[str, Callable[[], ControlPlane]] = {"embedded": EmbeddedCluster, "real": RealCluster}


# How long an example takes is the affair of the machine. Under CI Hypothesis has a profile of its own that says so too.
if os.environ.get("CI") != "true":
    settings.register_profile("unhurried", deadline=None)
    settings.load_profile("unhurried")


def pytest_configure(config: pytest.Config) -> None:
    """Tell what the marks of the tiers mean; a test that has none of the tiers' is a unit test."""
    for line in (
        "embedded: runs on the control plane in Python; set by the fixture `control_plane`",
        "real: runs on the real control plane; set by the fixture `control_plane`, or by `real_only`",
        "real_only(reason): on the real control plane only, for that reason",
        "embedded_only(reason): on the control plane in Python only, for that reason",
        "serving: runs vLLM on CPU; all of tests/serving",
    ):
        config.addinivalue_line("markers", line)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Have whatever uses a control plane run on both, unless it says why on one alone."""
    if "control_plane" in metafunc.fixturenames:
        alone = [kind for kind in _CONTROL_PLANES if metafunc.definition.get_closest_marker(f"{kind}_only")]
        kinds = alone or list(_CONTROL_PLANES)
        params = [pytest.param(kind, marks=getattr(pytest.mark, kind)) for kind in kinds]
        # The scope of the fixture: all tests on one come before the first one on the other.
        metafunc.parametrize("control_plane", params, indirect=True, scope="session")


def pytest_itemcollected(item: pytest.Item) -> None:
    """Mark those as well that bring a control plane of their own."""
    for kind in _CONTROL_PLANES:
        mark = item.get_closest_marker(f"{kind}_only")
        if mark is not None:
            assert mark.args, f"{item.nodeid} does not say why it is {kind}_only"
            item.add_marker(kind)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip what needs the real control plane where it has not been built; under CI it must be there."""
    if item.get_closest_marker("real") and os.environ.get("CI") != "true" and (reason := skip_reason()):
        # From here and not by a mark: pytest then tells of all of them in one line.
        pytest.skip(reason)


@pytest.fixture(scope="session")
def control_plane(request: pytest.FixtureRequest) -> Iterator[ControlPlane]:
    """Return one control plane for all tests that run on that kind."""
    with _CONTROL_PLANES[request.param]() as running:
        yield running


@pytest.fixture
def azure_settings() -> AzureSettings:
    return AzureSettings(scale=SCALE)


@pytest.fixture
def node_settings() -> NodeSettings:
    return NodeSettings()


@pytest.fixture
async def aks(
    control_plane: ControlPlane, azure_settings: AzureSettings, node_settings: NodeSettings
) -> AsyncIterator[FakeAks]:
    """A whole AKS with nothing in it but its system pool; what a test leaves behind is taken away."""
    async with FakeAks(control_plane, azure=azure_settings, nodes=node_settings) as running:
        yield running
    await clear(control_plane)


@pytest.fixture
async def kube(aks: FakeAks) -> AsyncIterator[Kube]:
    async with Kube(aks.cluster) as client:
        yield client


@pytest.fixture
def make_controller(aks: FakeAks, tmp_path: Path) -> Callable[..., ControllerProcess]:
    """Return a maker of controllers; settings are given by their environment names."""

    def make(**settings: str) -> ControllerProcess:
        return ControllerProcess({**aks.environment(), **PACE, **settings}, log=tmp_path / "controller.log")

    return make


@pytest.fixture
async def controller(make_controller: Callable[..., ControllerProcess]) -> AsyncIterator[ControllerProcess]:
    async with make_controller() as running:
        yield running
        # Shown by pytest where the test has failed.
        sys.stdout.write(running.log_text()[-_LOG_TAIL:])
