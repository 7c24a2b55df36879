"""What the cluster does is asked for once, however many Nodes are unwell, and again when that is old."""

import asyncio

import pytest

from provisioner.apis.failure import FailureClass
from provisioner.azure.agentpools import ArmFailure, ManagedCluster
from provisioner.nodeclaim.cluster_state import ClusterState
from tests.unit.builders import failure


class Azure:
    """A cluster whose state can be set, or that cannot be read."""

    def __init__(self) -> None:
        self.state = "Succeeded"
        self.fails = False
        self.calls = 0
        self.time = 0.0

    async def cluster(self) -> ManagedCluster:
        self.calls += 1
        await asyncio.sleep(0)
        if self.fails:
            raise ArmFailure(failure(FailureClass.INTERNAL, "no answer"))
        return ManagedCluster(
            location="eastus",
            node_resource_group="MC_rg",
            provisioning_state=self.state,
            power_state="Running",
            kubernetes_version="1.34.1",
        )


@pytest.fixture
def azure() -> Azure:
    return Azure()


@pytest.fixture
def cluster(azure: Azure) -> ClusterState:
    return ClusterState(azure, clock=lambda: azure.time)


async def test_nothing_is_known_until_somebody_asks(azure: Azure, cluster: ClusterState) -> None:
    assert cluster.is_settled is None
    assert azure.calls == 0


@pytest.mark.parametrize(("state", "is_settled"), [("Succeeded", True), ("Upgrading", False), ("Starting", False)])
async def test_state_is_told(azure: Azure, cluster: ClusterState, state: str, is_settled: bool) -> None:
    azure.state = state
    assert await cluster.refresh()
    assert cluster.is_settled is is_settled


async def test_many_who_ask_at_once_are_one_call(azure: Azure, cluster: ClusterState) -> None:
    assert all(await asyncio.gather(*(cluster.refresh() for _ in range(20))))
    assert azure.calls == 1


async def test_answer_gets_old(azure: Azure, cluster: ClusterState) -> None:
    await cluster.refresh()
    azure.time, azure.state = 29.0, "Upgrading"
    await cluster.refresh()
    assert cluster.is_settled is True
    assert azure.calls == 1
    azure.time = 30.0
    assert not cluster.is_settled
    await cluster.refresh()
    assert cluster.is_settled is False
    assert azure.calls == 2


async def test_cluster_that_cannot_be_read_is_not_asked_by_everybody(azure: Azure, cluster: ClusterState) -> None:
    azure.fails = True
    assert not any(await asyncio.gather(*(cluster.refresh() for _ in range(20))))
    assert (cluster.is_settled, azure.calls) == (None, 1)
    azure.time, azure.fails = 30.0, False
    assert await cluster.refresh()
