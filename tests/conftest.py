"""What all tests share: the real control plane, a whole AKS around it, and the controller as its users run it."""

import os
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

from fakes.aks import FakeAks
from fakes.azure.settings import Settings as AzureSettings
from fakes.cluster.binaries import skip_reason
from fakes.cluster.real import RealCluster
from fakes.controller import ControllerProcess
from fakes.nodes import NodeSettings
from tests.kube import Kube

# Simulated seconds a real second: five minutes of Azure in a second and a half.
SCALE = 200.0
_LOG_TAIL = 20_000


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what needs the control plane where there is none; under CI it must be there."""
    reason = skip_reason()
    if reason is None or os.environ.get("CI") == "true":
        return
    for item in items:
        if item.get_closest_marker("real"):
            item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(scope="session")
def control_plane() -> Iterator[RealCluster]:
    with RealCluster() as cluster:
        yield cluster


@pytest.fixture
def azure_settings() -> AzureSettings:
    return AzureSettings(scale=SCALE)


@pytest.fixture
def node_settings() -> NodeSettings:
    return NodeSettings()


@pytest.fixture
async def aks(
    control_plane: RealCluster, azure_settings: AzureSettings, node_settings: NodeSettings
) -> AsyncIterator[FakeAks]:
    """A whole AKS with nothing in it but its system pool; what a test leaves behind is taken away."""
    async with FakeAks(control_plane, azure=azure_settings, nodes=node_settings) as running:
        yield running
    async with Kube(control_plane) as kube:
        await kube.clear()


@pytest.fixture
async def kube(aks: FakeAks) -> AsyncIterator[Kube]:
    async with Kube(aks.cluster) as client:
        yield client


@pytest.fixture
def make_controller(aks: FakeAks, tmp_path: Path) -> Callable[..., ControllerProcess]:
    """Return a maker of controllers; settings are given by their environment names."""

    def make(**settings: str) -> ControllerProcess:
        environment = {
            **aks.environment(),
            "INVENTORY_BUSY_SECONDS": "1",
            "INVENTORY_IDLE_SECONDS": "2",
            "GARBAGE_SECONDS": "2",
            "LOG_LEVEL": "debug",
            **settings,
        }
        return ControllerProcess(environment, log=tmp_path / "controller.log")

    return make


@pytest.fixture
async def controller(make_controller: Callable[..., ControllerProcess]) -> AsyncIterator[ControllerProcess]:
    async with make_controller() as running:
        yield running
        # Shown by pytest where the test has failed.
        sys.stdout.write(running.log_text()[-_LOG_TAIL:])
