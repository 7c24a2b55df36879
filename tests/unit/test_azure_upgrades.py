"""The newest node images: of whom they are asked, how often, and what becomes of answers that are none."""

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, cast

import pytest

from provisioner.apis.agentpool import AgentPool
from provisioner.apis.failure import Failure, FailureClass
from provisioner.azure.caller import Caller
from provisioner.azure.errors import ArmFailure
from provisioner.azure.session import ArmResponse, AzureTarget
from provisioner.azure.upgrades import NodeImages
from tests.unit.builders import pool
from tests.unit.virtual_time import now, virtual_time

UBUNTU, LINUX = "AKSUbuntu-2204gen2containerd", "AKSAzureLinux-V3gen2"
OLD, NEW = "202611.04.0", "202612.01.0"
HOUR, DAY = 3600.0, 86400.0


def pool_of(name: str, *, image: str = UBUNTU, kubernetes: str = "1.34.2") -> AgentPool:
    return replace(pool(name), node_image_version=f"{image}-{OLD}", kubernetes_version=kubernetes)


@dataclass
class World:
    """An Azure that knows of newer images, a controller with pools, and a clock that a test turns."""

    pools: list[AgentPool] = field(default_factory=list)
    newest: str = f"{UBUNTU}-{NEW}"
    failure: Failure | None = None
    body: str = ""
    asked: list[str] = field(default_factory=list)
    news: int = 0
    now: float = 100.0
    target: AzureTarget = field(
        default_factory=lambda: AzureTarget(subscription_id="sub", resource_group="rg", cluster_name="c")
    )

    async def call(self, method: str, path: str, *, operation: str, query: Mapping[str, str], **_: Any) -> ArmResponse:
        assert (method, operation, dict(query)) == ("GET", "upgradeprofiles.get", {"api-version": "2026-08-01"})
        prefix, name, suffix = path.partition("/agentPools/")[0], *path.partition("/agentPools/")[2].split("/", 1)
        assert prefix == self.target.cluster_path
        assert suffix == "upgradeProfiles/default"
        self.asked.append(name)
        if self.failure is not None:
            raise ArmFailure(self.failure)
        profile = {"name": "default", "properties": {"osType": "Linux", "latestNodeImageVersion": self.newest}}
        return ArmResponse(status=200, text=self.body or json.dumps(profile))

    def images(self, *, interval: float = DAY) -> NodeImages:
        return NodeImages(
            cast("Caller", self),
            pools=lambda: self.pools,
            on_news=self.tell,
            clock=lambda: self.now,
            interval=interval,
        )

    def tell(self) -> None:
        self.news += 1

    def take(self) -> list[str]:
        asked, self.asked = self.asked, []
        return asked


async def test_one_pool_of_each_kind_is_asked_once_in_a_day() -> None:
    world = World(
        [
            pool_of("a1"),
            pool_of("a2"),
            pool_of("a3", kubernetes="1.34.9"),
            pool_of("b1", image=LINUX),
            pool_of("c1", kubernetes="1.33.2"),
        ]
    )
    images = world.images()
    await images.refresh()
    assert world.take() == ["a1", "b1", "c1"]
    for _ in range(23):
        world.now += HOUR
        await images.refresh()
    assert world.take() == []
    world.now += HOUR
    await images.refresh()
    assert world.take() == ["a1", "b1", "c1"]


async def test_whatever_pool_was_asked_all_of_its_kind_know() -> None:
    world = World([pool_of("a1")])
    images = world.images()
    assert images.newest(pool_of("a1")) == ""
    await images.refresh()
    assert images.newest(pool_of("a2", kubernetes="1.34.7")) == f"{UBUNTU}-{NEW}"
    assert images.newest(pool_of("a3", kubernetes="1.35.0")) == ""
    assert images.newest(pool_of("b1", image=LINUX)) == ""
    assert images.newest(replace(pool("d"), node_image_version="")) == ""


async def test_a_pool_that_does_not_tell_its_image_is_not_asked_about() -> None:
    world = World([pool("d")])
    await world.images().refresh()
    assert world.take() == []


async def test_news_are_told_once() -> None:
    world = World([pool_of("a1")])
    images = world.images()
    await images.refresh()
    world.now += DAY
    await images.refresh()
    assert world.news == 1
    world.newest = f"{UBUNTU}-202612.08.0"
    world.now += DAY
    await images.refresh()
    assert (world.news, images.newest(pool_of("a1"))) == (2, world.newest)


@pytest.mark.parametrize(
    "body",
    [
        "<html>",
        "[]",
        "{}",
        '{"properties": null}',
        '{"properties": []}',
        '{"properties": {}}',
        '{"properties": {"latestNodeImageVersion": null}}',
        '{"properties": {"latestNodeImageVersion": 7}}',
        '{"properties": {"latestNodeImageVersion": "newest"}}',
    ],
)
async def test_an_answer_that_names_no_image_changes_nothing(body: str) -> None:
    world = World([pool_of("a1")])
    images = world.images()
    await images.refresh()
    world.body = body
    world.now += DAY
    await images.refresh()
    assert (images.newest(pool_of("a1")), world.news) == (f"{UBUNTU}-{NEW}", 1)


@pytest.mark.parametrize(
    ("interval", "retry_after", "pause"),
    [(DAY, None, HOUR), (DAY, 30.0, HOUR), (DAY, 7200.0, 7200.0), (60.0, None, 60.0)],
)
async def test_what_azure_did_not_tell_is_asked_again_later(
    interval: float, retry_after: float | None, pause: float
) -> None:
    world = World([pool_of("a1")])
    images = world.images(interval=interval)
    world.failure = Failure(kind=FailureClass.THROTTLED, message="no", retry_after=retry_after)
    await images.refresh()
    world.now += pause - 1
    await images.refresh()
    assert world.take() == ["a1"]
    assert images.newest(pool_of("a1")) == ""
    world.failure = None
    world.now += 1
    await images.refresh()
    assert world.take() == ["a1"]
    assert images.newest(pool_of("a1")) == f"{UBUNTU}-{NEW}"


async def test_a_failure_is_logged_once_and_a_missing_right_with_what_to_do(caplog: pytest.LogCaptureFixture) -> None:
    world = World([pool_of("a1")], failure=Failure(kind=FailureClass.AUTH, message="no"))
    images = world.images()
    for _ in range(3):
        await images.refresh()
        world.now += DAY
    (record,) = (record for record in caplog.records if record.levelname == "WARNING")
    assert "agentPools/upgradeProfiles/read" in record.getMessage()
    assert "NODE_IMAGE_CHECK_SECONDS=0" in record.getMessage()


@virtual_time
async def test_a_kind_that_comes_later_is_asked_about_within_a_minute_and_none_twice_a_day() -> None:
    world = World([pool_of("a1")])
    images = NodeImages(cast("Caller", world), pools=lambda: world.pools, on_news=world.tell, clock=now, interval=DAY)
    running = asyncio.create_task(images.run())
    await asyncio.sleep(DAY - 100)
    world.pools.append(pool_of("b1", image=LINUX))
    await asyncio.sleep(61)
    assert world.take() == ["a1", "b1"]
    await asyncio.sleep(DAY - 200)
    assert world.take() == ["a1"]
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


@pytest.mark.parametrize(("interval", "is_on"), [(0.0, False), (1.0, True)])
def test_it_can_be_turned_off(interval: float, is_on: bool) -> None:
    assert World().images(interval=interval).is_on is is_on
