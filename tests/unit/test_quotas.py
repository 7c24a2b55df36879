"""When usages are read, and what is made of those that cannot be."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from provisioner.apis.failure import Failure, FailureClass
from provisioner.apis.quota import Scope, Shortage, Usage
from provisioner.azure.agentpools import ArmFailure
from provisioner.kube.metrics import Registry
from provisioner.nodeclaim.quotas import Quotas
from tests.unit.builders import NOW

FAMILY = "Standard NCASv3_T4 Family"
INTERVAL = 60.0
SHORTAGE = Shortage(scope=Scope.FAMILY, family=FAMILY, needed=4, left=0)


@dataclass
class World:
    """An Azure whose usages change, and a clock that a test turns."""

    now: float = 1000.0
    used: int = 8
    refused: bool = False
    reads: int = 0
    news: int = 0
    freed: list[str] = field(default_factory=list)
    metrics: Registry = field(default_factory=Registry)

    @property
    def by_name(self) -> Mapping[str, Usage]:
        return {FAMILY.lower(): Usage(name=FAMILY, limit=8, used=self.used)}

    async def refresh(self) -> None:
        self.reads += 1
        if self.refused:
            raise ArmFailure(Failure(kind=FailureClass.AUTH, message="no"))

    async def reader(self) -> "World":
        return self

    def tell(self) -> None:
        self.news += 1

    def quotas(self) -> Quotas:
        return Quotas(
            reader=self.reader,
            clock=lambda: self.now,
            now=lambda: NOW,
            on_news=self.tell,
            on_freed=self.freed.append,
            interval=INTERVAL,
            metrics=self.metrics,
        )


@asynccontextmanager
async def running(world: World) -> AsyncIterator[Quotas]:
    quotas = world.quotas()
    task = asyncio.create_task(quotas.run())
    yield quotas
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def idle() -> None:
    """Let everything run that can."""
    for _ in range(10):
        await asyncio.sleep(0)


async def read(world: World, quotas: Quotas) -> None:
    quotas.want()
    await idle()


async def test_nothing_is_read_before_somebody_wants_to_know() -> None:
    world = World()
    async with running(world) as quotas:
        await idle()
        assert (world.reads, quotas.are_current) == (0, False)


async def test_first_wish_is_granted_at_once_and_told() -> None:
    world = World()
    async with running(world) as quotas:
        quotas.want()
        await read(world, quotas)
        assert (world.reads, world.news, quotas.are_current) == (1, 1, True)
        assert quotas.usages[FAMILY.lower()].used == 8


async def test_usages_do_for_twice_the_interval_and_are_not_read_again_within_it() -> None:
    world = World()
    async with running(world) as quotas:
        await read(world, quotas)
        world.now += INTERVAL - 1
        await read(world, quotas)
        assert (world.reads, quotas.are_current) == (1, True)
        world.now += INTERVAL + 1
        assert not quotas.are_current


async def test_usages_that_cannot_be_had_hold_nobody_up() -> None:
    world = World(refused=True)
    async with running(world) as quotas:
        await read(world, quotas)
        assert (quotas.usages, quotas.are_current, world.news) == ({}, True, 1)
        world.now += 10 * INTERVAL
        assert quotas.are_current


async def test_usages_that_could_not_be_had_are_asked_for_again_less_and_less_often() -> None:
    world = World(refused=True)
    pauses: list[float] = []
    async with running(world) as quotas:
        await read(world, quotas)
        for _ in range(6):
            before, started = world.reads, world.now
            while world.reads == before:
                world.now += 30
                quotas.distrust(SHORTAGE)
                await idle()
            pauses.append(world.now - started)
        world.refused, world.now = False, world.now + 900
        quotas.distrust(SHORTAGE)
        await idle()
        assert quotas.usages != {}
    assert pauses == [60, 120, 240, 480, 900, 900]


async def test_refusal_makes_usages_be_read_soon_and_freed_quota_be_told() -> None:
    world = World()
    async with running(world) as quotas:
        await read(world, quotas)
        quotas.distrust(SHORTAGE)
        world.used, world.now = 4, world.now + 5
        quotas.distrust(SHORTAGE)
        await idle()
        assert world.reads == 2
        assert world.freed == [FAMILY.lower()]


async def test_quota_of_which_there_is_no_more_than_at_the_refusal_is_not_freed() -> None:
    world = World(used=0)
    async with running(world) as quotas:
        await read(world, quotas)
        quotas.distrust(SHORTAGE)
        world.now += INTERVAL
        quotas.distrust(SHORTAGE)
        await idle()
        assert (world.reads, world.freed) == (2, [])


async def test_quota_that_was_taken_since_the_last_read_is_freed_when_it_is_given_back() -> None:
    world = World(used=0)
    async with running(world) as quotas:
        await read(world, quotas)
        world.used = 8
        quotas.distrust(SHORTAGE)
        world.now += INTERVAL
        await read(world, quotas)
        world.used, world.now = 0, world.now + INTERVAL
        await read(world, quotas)

        assert (world.reads, world.freed) == (3, [FAMILY.lower()])


async def test_quota_of_gpu_families_is_measured() -> None:
    world = World()
    async with running(world) as quotas:
        await read(world, quotas)
    text = world.metrics.expose()
    assert f'gpu_provisioner_quota_limit_vcpus{{quota="{FAMILY}"}} 8' in text
    assert f'gpu_provisioner_quota_used_vcpus{{quota="{FAMILY}"}} 8' in text
