"""What is not sent: the budget in front of the real SDK, and an Azure that throttles as AKS documents it."""

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from fakes.azure import Answer
from provisioner.apis.failure import FailureClass
from provisioner.azure.agentpools import AgentPools
from provisioner.azure.budget import Budget, Wait
from provisioner.azure.errors import ArmFailure, Postponed
from provisioner.azure.session import AzureSession
from provisioner.azure.skus import SkuCatalogue
from tests.scenarios.arm_bench import BODY, Bench, arm_bench, refused


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


class Throttled:
    """A gateway behind a budget in a time that a test moves."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.clock = Clock()
        self.waits: list[tuple[str, Wait]] = []
        self.session = AzureSession(
            bench.target,
            cloud=bench.session().cloud,
            credentials=bench.credentials,
            on_call=bench.records.append,
            budget=Budget(clock=self.clock),
            on_wait=lambda operation, wait: self.waits.append((operation, wait)),
        )
        self.pools = AgentPools(self.session)

    def sent(self, operation: str) -> list[int | None]:
        """Return how the calls of an operation were answered."""
        return [call.status for call in self.bench.azure.calls if call.operation == operation]


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    async with arm_bench(tmp_path / "azure") as running:
        yield running


@pytest.fixture
async def arm(bench: Bench) -> AsyncIterator[Throttled]:
    throttled = Throttled(bench)
    async with throttled.session:
        yield throttled


async def put(arm: Throttled, name: str) -> ArmFailure | None:
    try:
        await arm.pools.create(name, BODY)
    except ArmFailure as failure:
        return failure
    return None


async def test_what_exceeds_our_share_is_not_sent(arm: Throttled) -> None:
    for _ in range(30):
        await arm.pools.cluster()
    error = await refused(arm.pools.cluster())
    assert isinstance(error, Postponed)
    assert (error.failure.kind, error.failure.retry_after) == (FailureClass.THROTTLED, 2.0)
    assert (error.outcome_unknown, error.status, error.by_azure) == (False, None, False)
    assert arm.sent("managedClusters.get") == [200] * 30
    assert arm.waits == [("managedclusters.get", Wait(seconds=2.0, by_azure=False))]
    assert len(arm.bench.records) == 30
    arm.clock.now += 2
    await arm.pools.cluster()


async def test_a_pause_is_kept_by_all_who_share_the_limit(arm: Throttled) -> None:
    message = "The DeleteAgentPoolHandler.DELETE request limit has been exceeded for SubID='s', please retry again."
    body = {"code": "Throttled", "details": None, "message": message, "subcode": ""}
    arm.bench.azure.add_fault(
        Answer(operation="agentPools.delete", status=429, body=body, headers={"Retry-After": "30"}, times=None)
    )
    assert not isinstance(await refused(arm.pools.delete("gpu1")), Postponed)
    calls: tuple[Callable[[], object], ...] = (
        arm.pools.list,
        lambda: arm.pools.delete("gpu2"),
        lambda: arm.pools.machines("gpu1"),
    )
    for call in calls:
        error = await refused(call())
        assert isinstance(error, Postponed)
        assert error.by_azure
        assert error.failure.message.startswith("Azure throttles its API for another ")
    assert arm.sent("agentPools.list") == arm.sent("machines.list") == []
    assert arm.sent("agentPools.delete") == [429]
    await arm.pools.create("gpu1", BODY)
    arm.clock.now += 30
    assert {pool.name for pool in await arm.pools.list()} == {"systempool", "gpu1"}


async def test_where_each_pool_has_a_limit_twenty_five_are_created_at_once(arm: Throttled) -> None:
    results = await asyncio.gather(*(put(arm, f"gpu{number}") for number in range(25)))
    assert results == [None] * 25
    assert arm.sent("agentPools.put") == [201] * 25


async def test_where_the_cluster_has_one_limit_the_first_429_is_the_last(arm: Throttled) -> None:
    # Simulated time as slow as ours, which a test does not wait for: nothing refills.
    arm.bench.azure.settings.change({"put_pool_scope": "cluster", "scale": 1.0})
    refusals = [failure for number in range(40) if (failure := await put(arm, f"gpu{number}"))]
    assert arm.sent("agentPools.put") == [201] * 20 + [429]
    assert len(refusals) == 20
    asked, *kept_back = refusals
    assert not isinstance(asked, Postponed)
    assert asked.failure.retry_after is not None
    assert asked.failure.retry_after > 50
    told = [failure.failure.retry_after or 0.0 for failure in kept_back]
    assert all(isinstance(failure, Postponed) for failure in kept_back)
    # The first comes when Azure said, the others one by one after it.
    assert told[0] == asked.failure.retry_after
    assert told[1] - told[0] == pytest.approx(asked.failure.retry_after)

    # Lists and deletes go on.
    assert len(await arm.pools.list()) == 21
    assert await arm.pools.delete("gpu0")

    arm.bench.azure.throttle.reset()
    arm.clock.now += told[0]
    assert await put(arm, "gpu30") is None
    assert isinstance(await put(arm, "gpu31"), Postponed)
    assert arm.sent("agentPools.put") == [201] * 20 + [429, 201]


async def test_a_429_without_a_body_is_about_one_pool(arm: Throttled) -> None:
    arm.bench.azure.add_fault(
        Answer(operation="agentPools.put", pool="gpu1", status=429, headers={"Retry-After": "60"}, times=None)
    )
    assert await put(arm, "gpu1") is not None
    assert isinstance(await put(arm, "gpu1"), Postponed)
    assert await put(arm, "gpu2") is None
    assert arm.sent("agentPools.put") == [429, 201]


async def test_a_list_of_many_pages_is_not_cut_off_in_the_middle(arm: Throttled) -> None:
    arm.bench.azure.settings.change({"sku_page_size": 5})
    sizes = SkuCatalogue(arm.session, location="eastus", clock=arm.clock)
    await sizes.refresh()
    pages = len(arm.sent("skus.list"))
    assert pages > 10
    assert isinstance(await refused(sizes.refresh()), Postponed)
    assert len(arm.sent("skus.list")) == pages
