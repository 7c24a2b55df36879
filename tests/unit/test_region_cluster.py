"""How often the cluster itself is read, and which version of Kubernetes nodes are measured by."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any, cast

import pytest

from provisioner.apis.failure import Failure, FailureClass
from provisioner.azure.agentpools import ArmFailure, ManagedCluster
from provisioner.nodeclaim.region import Region
from tests.unit.virtual_time import now, virtual_time

HOUR = 3600.0
CLUSTER = ManagedCluster(
    location="eastus",
    node_resource_group="mc_rg",
    provisioning_state="Succeeded",
    power_state="Running",
    kubernetes_version="1.34.2",
)


@dataclass
class Azure:
    """A cluster as a test wants it to be, and lists of sizes and prices that are always there."""

    cluster_now: ManagedCluster = CLUSTER
    failure: Failure | None = None
    reads: list[float] = field(default_factory=list)
    news: int = 0
    is_on = False

    async def cluster(self) -> ManagedCluster:
        self.reads.append(now())
        if self.failure is not None:
            raise ArmFailure(self.failure)
        return self.cluster_now

    async def refresh(self) -> None:
        """Nothing is new."""

    def tell(self) -> None:
        self.news += 1


@asynccontextmanager
async def running(azure: Azure) -> AsyncIterator[Region]:
    lists = cast("Any", azure)
    region = Region(arm=lists, sizes_of=lambda _: lists, prices_of=lambda _: lists, on_news=azure.tell)
    task = asyncio.create_task(region.run())
    await region.located.wait()
    await asyncio.sleep(1)
    yield region
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


@virtual_time
async def test_cluster_is_read_once_an_hour_and_a_new_version_is_news() -> None:
    azure = Azure()
    async with running(azure) as region:
        assert (region.kubernetes_version, azure.reads) == ("1.34.2", [0.0])
        before = azure.news
        await asyncio.sleep(HOUR)
        assert (len(azure.reads), azure.news) == (2, before)
        azure.cluster_now = replace(CLUSTER, kubernetes_version="1.35.1")
        await asyncio.sleep(HOUR)
        assert (len(azure.reads), azure.news) == (3, before + 1)
        assert region.kubernetes_version == "1.35.1"
        await asyncio.sleep(10 * HOUR)
        assert len(azure.reads) == 13


@virtual_time
async def test_what_somebody_else_has_read_is_not_read_again() -> None:
    azure = Azure()
    async with running(azure) as region:
        for _ in range(10):
            await asyncio.sleep(HOUR / 2)
            region.note(replace(CLUSTER, kubernetes_version="1.35.1"))
        assert (len(azure.reads), region.kubernetes_version) == (1, "1.35.1")


@pytest.mark.parametrize(
    ("state", "power", "version"),
    [
        ("Succeeded", "Running", "1.34.2"),
        ("Failed", "Running", "1.34.2"),
        ("Upgrading", "Running", ""),
        ("Updating", "Running", ""),
        ("Succeeded", "Stopped", ""),
    ],
)
def test_version_is_not_told_while_the_cluster_is_on_its_way_to_another(state: str, power: str, version: str) -> None:
    @virtual_time
    async def look() -> None:
        azure = Azure(replace(CLUSTER, provisioning_state=state, power_state=power))
        async with running(azure) as region:
            assert region.kubernetes_version == version
            azure.cluster_now = replace(CLUSTER, kubernetes_version="1.35.1")
            # Minutes later, not an hour, where it was not settled.
            await asyncio.sleep(HOUR / 10)
            assert region.kubernetes_version == (version or "1.35.1")

    look()


@virtual_time
async def test_what_was_known_stays_where_the_cluster_cannot_be_read() -> None:
    azure = Azure()
    async with running(azure) as region:
        azure.failure = Failure(kind=FailureClass.INTERNAL, message="no")
        await asyncio.sleep(3 * HOUR)
        assert (region.kubernetes_version, region.location) == ("1.34.2", "eastus")
        assert len(azure.reads) == 4
