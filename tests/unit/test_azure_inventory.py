import asyncio
from collections.abc import Collection

import pytest

from provisioner.apis.agentpool import AgentPool
from provisioner.apis.failure import Failure, FailureClass
from provisioner.azure.budget import Wait
from provisioner.azure.errors import ArmFailure, Postponed
from provisioner.azure.inventory import Inventory, Lookup
from tests.unit.virtual_time import now, virtual_time


def pool(name: str, state: str = "Succeeded") -> AgentPool:
    return AgentPool(name=name, state=state, vm_size="Standard_NC24ads_A100_v4", count=1, tags={}, node_labels={})


def failure(kind: FailureClass = FailureClass.THROTTLED, *, retry_after: float | None = None) -> ArmFailure:
    return ArmFailure(Failure(kind=kind, message="no", retry_after=retry_after))


class Azure:
    """Lists what it is told to, when it is told to."""

    def __init__(self) -> None:
        self.pools: tuple[AgentPool, ...] = ()
        self.error: ArmFailure | None = None
        self.times: list[float] = []
        self.gate: asyncio.Event | None = None

    async def list(self) -> tuple[AgentPool, ...]:
        self.times.append(now())
        pools, error, gate = self.pools, self.error, self.gate
        if gate is not None:
            await gate.wait()
        if error is not None:
            raise error
        return pools


class Bench:
    """An inventory on a fake Azure, and what it said."""

    def __init__(self, *, busy: bool = False) -> None:
        self.azure = Azure()
        self.busy = busy
        self.changes: list[set[str]] = []
        self.inventory = Inventory(
            self.azure,
            clock=now,
            busy=lambda: self.busy,
            on_change=self._changed,
            busy_interval=5.0,
            idle_interval=60.0,
            settle=4.0,
            jitter=lambda: 1.0,
        )

    def _changed(self, names: Collection[str]) -> None:
        self.changes.append(set(names))

    async def refresh(self, *pools: AgentPool) -> None:
        self.azure.pools = pools
        await self.inventory.refresh()

    async def slow_refresh(self, *pools: AgentPool) -> "SlowList":
        """Send a LIST that answers with these pools when it is let through."""
        self.azure.pools, self.azure.gate = pools, asyncio.Event()
        gate = self.azure.gate
        task = asyncio.create_task(self.inventory.refresh())
        await asyncio.sleep(0.1)
        self.azure.gate = None
        return SlowList(task, gate)


class SlowList:
    def __init__(self, task: asyncio.Task[None], gate: asyncio.Event) -> None:
        self._task, self._gate = task, gate

    async def arrive(self) -> None:
        self._gate.set()
        await self._task


# What is known


@virtual_time
async def test_nothing_is_known_before_the_first_list() -> None:
    bench = Bench()
    assert bench.inventory.lookup("a") is Lookup.UNKNOWN
    assert bench.inventory.listed_at is None
    await bench.refresh(pool("a"))
    assert bench.inventory.lookup("a") == pool("a")
    assert bench.inventory.lookup("b") is Lookup.ABSENT
    assert bench.inventory.listed_at == 0.0
    assert dict(bench.inventory.pools) == {"a": pool("a")}


@virtual_time
async def test_the_first_lists_may_miss_what_an_earlier_run_has_asked_for() -> None:
    bench = Bench()
    assert not bench.inventory.is_settled
    await asyncio.sleep(3.9)
    await bench.refresh()
    assert not bench.inventory.is_settled
    await asyncio.sleep(0.1)
    await bench.refresh()
    assert bench.inventory.is_settled


@virtual_time
async def test_absence_is_confirmed_by_a_list_that_begins_after_it_was_asked_for() -> None:
    bench = Bench()
    await bench.refresh()
    on_its_way = await bench.slow_refresh()
    assert not bench.inventory.is_confirmed("uid-1", name="a")
    await on_its_way.arrive()
    assert not bench.inventory.is_confirmed("uid-1", name="a")
    bench.azure.error = failure()
    with pytest.raises(ArmFailure):
        await bench.inventory.refresh()
    assert not bench.inventory.is_confirmed("uid-1", name="a")
    bench.azure.error = None
    bench.changes.clear()
    await bench.refresh()
    assert {"a"} in bench.changes, "whoever asked is told"
    assert bench.inventory.is_confirmed("uid-1", name="a")
    assert not bench.inventory.is_confirmed("uid-2", name="a"), "another claim of that name has asked only now"
    bench.changes.clear()
    await bench.refresh()
    await bench.refresh()
    assert bench.changes == [{"a"}], "once"


@virtual_time
async def test_what_was_to_be_confirmed_for_a_claim_that_is_gone_is_forgotten() -> None:
    bench = Bench()
    for uid in ("1", "2", "3"):
        assert not bench.inventory.is_confirmed(uid, name="a")
    await bench.refresh()
    bench.inventory.forget("1")
    bench.inventory.retain({"2"})
    assert [bench.inventory.is_confirmed(uid, name="a") for uid in ("1", "2", "3")] == [False, True, False]


@virtual_time
async def test_a_list_that_fails_makes_nothing_known_and_forgets_nothing() -> None:
    bench = Bench()
    bench.azure.error = failure()
    with pytest.raises(ArmFailure):
        await bench.inventory.refresh()
    assert bench.inventory.lookup("a") is Lookup.UNKNOWN
    bench.azure.error = None
    await bench.refresh(pool("a"))
    bench.azure.error = failure()
    with pytest.raises(ArmFailure):
        await bench.inventory.refresh()
    assert bench.inventory.lookup("a") == pool("a")
    assert bench.inventory.failure is not None
    assert bench.inventory.failure.kind is FailureClass.THROTTLED


@virtual_time
async def test_the_time_of_a_list_is_that_of_its_start() -> None:
    bench = Bench()
    listing = await bench.slow_refresh(pool("a"))
    await asyncio.sleep(7)
    await listing.arrive()
    assert bench.inventory.listed_at == 0.0


@virtual_time
async def test_an_older_list_that_arrives_late_is_dropped() -> None:
    bench = Bench()
    older = await bench.slow_refresh(pool("a", "Creating"))
    await bench.refresh(pool("a", "Succeeded"))
    await older.arrive()
    assert bench.inventory.lookup("a") == pool("a", "Succeeded")


@virtual_time
async def test_an_older_list_that_fails_late_is_dropped() -> None:
    bench = Bench()
    bench.azure.error = failure()
    older = await bench.slow_refresh()
    bench.azure.error = None
    await bench.refresh(pool("a"))
    with pytest.raises(ArmFailure):
        await older.arrive()
    assert bench.inventory.failure is None


# Own writes


@virtual_time
async def test_a_created_pool_is_there_before_any_list() -> None:
    bench = Bench()
    bench.inventory.note_created(pool("a", "Creating"))
    assert bench.inventory.lookup("a") == pool("a", "Creating")
    assert "a" in bench.inventory.pools


@virtual_time
async def test_a_list_that_was_under_way_does_not_undo_a_creation() -> None:
    bench = Bench()
    listing = await bench.slow_refresh()
    bench.inventory.note_created(pool("a", "Creating"))
    await asyncio.sleep(100)
    await listing.arrive()
    assert bench.inventory.lookup("a") == pool("a", "Creating")


@virtual_time
async def test_a_list_from_just_after_a_creation_may_miss_the_pool() -> None:
    bench = Bench()
    bench.inventory.note_created(pool("a", "Creating"))
    await asyncio.sleep(3.9)
    await bench.refresh()
    assert bench.inventory.lookup("a") == pool("a", "Creating")
    await asyncio.sleep(0.1)
    await bench.refresh()
    assert bench.inventory.lookup("a") is Lookup.ABSENT


@virtual_time
async def test_what_a_later_list_says_of_a_created_pool_counts() -> None:
    bench = Bench()
    bench.inventory.note_created(pool("a", "Creating"))
    await bench.refresh(pool("a", "Failed"))
    assert bench.inventory.lookup("a") == pool("a", "Failed")


@virtual_time
async def test_a_list_from_a_replica_behind_the_one_before_does_not_make_a_new_pool_absent() -> None:
    bench = Bench()
    bench.inventory.note_created(pool("a", "Creating"))
    await asyncio.sleep(1)
    await bench.refresh(pool("a", "Deleting"))
    await asyncio.sleep(1)
    await bench.refresh()
    assert bench.inventory.lookup("a") == pool("a", "Deleting")
    await asyncio.sleep(2)
    await bench.refresh()
    assert bench.inventory.lookup("a") is Lookup.ABSENT


@virtual_time
async def test_a_deleted_pool_is_deleting_whatever_an_earlier_list_says() -> None:
    bench = Bench()
    await bench.refresh(pool("a"))
    listing = await bench.slow_refresh(pool("a"))
    bench.inventory.note_deleting("a")
    await listing.arrive()
    assert bench.inventory.lookup("a") == pool("a", "Deleting")
    await bench.refresh()
    assert bench.inventory.lookup("a") is Lookup.ABSENT


@virtual_time
async def test_an_earlier_list_without_a_deleting_pool_does_not_make_it_absent() -> None:
    bench = Bench()
    await bench.refresh(pool("a"))
    listing = await bench.slow_refresh()
    bench.inventory.note_deleting("a")
    await listing.arrive()
    assert bench.inventory.lookup("a") == pool("a", "Deleting")


@virtual_time
async def test_a_later_list_may_show_that_a_pool_is_not_deleting() -> None:
    bench = Bench()
    await bench.refresh(pool("a"))
    bench.inventory.note_deleting("a")
    await bench.refresh(pool("a", "Failed"))
    assert bench.inventory.lookup("a") == pool("a", "Failed")


@virtual_time
async def test_deleting_a_pool_that_was_just_created_shows_it_deleting() -> None:
    bench = Bench()
    bench.inventory.note_created(pool("a", "Creating"))
    bench.inventory.note_deleting("a")
    assert bench.inventory.lookup("a") == pool("a", "Deleting")


@virtual_time
async def test_a_list_that_may_miss_a_creation_does_not_tell_of_the_end_of_the_deletion_that_followed() -> None:
    bench = Bench()
    bench.inventory.note_created(pool("a", "Creating"))
    await asyncio.sleep(1)
    bench.inventory.note_deleting("a")
    await asyncio.sleep(2)
    await bench.refresh()
    assert bench.inventory.lookup("a") == pool("a", "Deleting")
    await asyncio.sleep(1)
    await bench.refresh()
    assert bench.inventory.lookup("a") is Lookup.ABSENT


@virtual_time
async def test_deleting_a_pool_that_nobody_has_seen_makes_it_doubtful() -> None:
    bench = Bench()
    await bench.refresh()
    bench.inventory.note_deleting("a")
    assert bench.inventory.lookup("a") is Lookup.UNKNOWN


@virtual_time
async def test_a_doubtful_pool_is_unknown_until_a_later_list() -> None:
    bench = Bench()
    await bench.refresh(pool("a"))
    listing = await bench.slow_refresh(pool("a"))
    bench.inventory.note_doubtful("a")
    await listing.arrive()
    assert bench.inventory.lookup("a") is Lookup.UNKNOWN
    assert "a" not in bench.inventory.pools
    await bench.refresh(pool("a", "Creating"))
    assert bench.inventory.lookup("a") == pool("a", "Creating")


@virtual_time
async def test_a_doubtful_pool_is_absent_only_when_azure_has_had_time_to_show_it() -> None:
    bench = Bench()
    bench.inventory.note_doubtful("a")
    await bench.refresh()
    assert bench.inventory.lookup("a") is Lookup.UNKNOWN
    await asyncio.sleep(4)
    await bench.refresh()
    assert bench.inventory.lookup("a") is Lookup.ABSENT


@virtual_time
async def test_a_note_in_the_same_instant_as_a_list_is_newer_than_it() -> None:
    bench = Bench()
    listing = asyncio.create_task(bench.inventory.refresh())
    await asyncio.sleep(0)
    bench.inventory.note_created(pool("a", "Creating"))
    await listing
    assert bench.inventory.lookup("a") == pool("a", "Creating")
    assert now() == 0.0


# Who is told


@virtual_time
async def test_changed_new_and_vanished_pools_are_told_and_no_others() -> None:
    bench = Bench()
    await bench.refresh(pool("same"), pool("grown", "Creating"), pool("gone"))
    assert bench.changes == [{"same", "grown", "gone"}]
    await bench.refresh(pool("same"), pool("grown"), pool("new"))
    assert bench.changes[1:] == [{"grown", "gone", "new"}]
    await bench.refresh(pool("same"), pool("grown"), pool("new"))
    assert len(bench.changes) == 2


@virtual_time
async def test_whoever_was_told_unknown_hears_of_the_answer() -> None:
    bench = Bench()
    bench.inventory.lookup("asked")
    await bench.refresh()
    assert bench.changes == [{"asked"}]
    await bench.refresh()
    assert len(bench.changes) == 1


@virtual_time
async def test_the_end_of_a_doubt_is_told() -> None:
    bench = Bench()
    await bench.refresh(pool("a"))
    bench.inventory.note_doubtful("a")
    bench.inventory.lookup("a")
    await bench.refresh(pool("a"))
    assert bench.changes == [{"a"}, {"a"}]


@virtual_time
async def test_everybody_is_told_when_lists_begin_to_fail_fail_differently_and_work_again() -> None:
    bench = Bench()
    await bench.refresh(pool("a"))
    bench.inventory.note_doubtful("b")
    for error in (failure(), failure(), failure(FailureClass.AUTH)):
        bench.azure.error = error
        with pytest.raises(ArmFailure):
            await bench.inventory.refresh()
    assert bench.changes[1:] == [{"a", "b"}, {"a", "b"}]
    bench.azure.error = None
    await bench.refresh(pool("c"))
    assert bench.changes[3:] == [{"a", "b", "c"}]
    assert bench.inventory.failure is None


# When


async def run_for(bench: Bench, seconds: float) -> list[float]:
    """Run the loop for a while and return when it listed."""
    task = asyncio.create_task(bench.inventory.run())
    await asyncio.sleep(seconds)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    return bench.azure.times


@virtual_time
async def test_it_lists_slowly_when_idle() -> None:
    assert await run_for(Bench(), 130) == [0, 60, 120]


@virtual_time
async def test_it_lists_fast_when_busy() -> None:
    assert await run_for(Bench(busy=True), 12) == [0, 5, 10]


@pytest.mark.parametrize("state", ["Creating", "Deleting"])
def test_it_lists_fast_while_azure_is_at_work(state: str) -> None:
    @virtual_time
    async def run() -> None:
        bench = Bench()
        bench.azure.pools = (pool("a", state),)
        assert await run_for(bench, 12) == [0, 5, 10]

    run()


@virtual_time
async def test_a_note_shortens_an_idle_pause_to_a_busy_one() -> None:
    bench = Bench()
    asyncio.get_running_loop().call_later(20, bench.inventory.note_doubtful, "a")
    # 20 is later than 5 after the LIST at 0, so at once; 25 tells that the pool is absent; then it is idle again.
    assert await run_for(bench, 90) == [0, 20, 25, 85]


@virtual_time
async def test_wakes_are_coalesced_to_one_list_a_second() -> None:
    bench = Bench()
    for delay in (10.0, 10.1, 10.2, 10.9):
        asyncio.get_running_loop().call_later(delay, bench.inventory.wake)
    assert await run_for(bench, 40) == [0, 10, 11]


@virtual_time
async def test_a_wake_during_a_list_brings_another_one() -> None:
    bench = Bench()
    bench.azure.gate = asyncio.Event()
    asyncio.get_running_loop().call_later(0.5, bench.inventory.wake)
    asyncio.get_running_loop().call_later(3.0, bench.azure.gate.set)
    assert await run_for(bench, 40) == [0, 3]


@virtual_time
async def test_failed_lists_are_repeated_ever_more_slowly() -> None:
    bench = Bench(busy=True)
    bench.azure.error = failure(FailureClass.INTERNAL)
    assert await run_for(bench, 200) == [0, 1, 3, 7, 15, 31, 63, 123, 183]


@virtual_time
async def test_a_retry_after_is_kept_whoever_wakes_the_loop() -> None:
    bench = Bench(busy=True)
    bench.azure.error = failure(retry_after=30)
    for delay in (1.0, 5.0):
        asyncio.get_running_loop().call_later(delay, bench.inventory.wake)
    asyncio.get_running_loop().call_later(6.0, bench.inventory.note_doubtful, "a")
    assert await run_for(bench, 35) == [0, 30]


@virtual_time
async def test_the_loop_recovers_from_failures() -> None:
    bench = Bench()
    bench.azure.error = failure(FailureClass.INTERNAL)

    def mend() -> None:
        bench.azure.error = None

    asyncio.get_running_loop().call_later(2, mend)
    assert await run_for(bench, 70) == [0, 1, 3, 63]
    assert bench.inventory.lookup("a") is Lookup.ABSENT


# Kept back by our own budget


def postponed(seconds: float, *, by_azure: bool = False) -> Postponed:
    return Postponed(Wait(seconds=seconds, by_azure=by_azure))


def let_through(bench: Bench, *, at: float, pools: tuple[AgentPool, ...] = ()) -> None:
    def mend() -> None:
        bench.azure.error, bench.azure.pools = None, pools

    asyncio.get_running_loop().call_later(at, mend)


@virtual_time
async def test_a_list_that_is_kept_back_comes_later_and_is_no_failure() -> None:
    bench = Bench()
    bench.azure.error = postponed(3)
    let_through(bench, at=4, pools=(pool("a"),))
    await bench.inventory.refresh()
    assert bench.azure.times == [0, 3, 6]
    assert bench.inventory.lookup("a") == pool("a")
    assert bench.inventory.listed_at == 6
    assert bench.inventory.failure is None
    assert not bench.inventory.is_throttled
    assert bench.changes == [{"a"}]


@virtual_time
async def test_a_note_made_while_a_list_is_kept_back_is_older_than_the_list() -> None:
    bench = Bench()
    bench.azure.error = postponed(10)
    let_through(bench, at=9)
    bench.inventory.note_created(pool("a", "Creating"))
    await bench.inventory.refresh()
    assert bench.inventory.lookup("a") is Lookup.ABSENT


@virtual_time
async def test_a_pause_that_azure_wants_is_told_to_those_who_wait_for_the_list() -> None:
    bench = Bench()
    bench.inventory.lookup("a")
    bench.azure.error = postponed(30, by_azure=True)
    let_through(bench, at=10)
    refreshing = asyncio.create_task(bench.inventory.refresh())
    await asyncio.sleep(1)
    assert bench.inventory.failure is not None
    assert bench.inventory.failure.message == "Azure throttles its API for another 30 s; it is tried again then."
    assert bench.changes == [{"a"}]
    await refreshing
    assert bench.inventory.failure is None


@virtual_time
async def test_the_pace_counts_from_when_a_list_was_sent() -> None:
    bench = Bench(busy=True)
    bench.azure.error = postponed(7)
    let_through(bench, at=6)
    assert await run_for(bench, 20) == [0, 7, 12, 17]


# Whether the loop goes on


@virtual_time
async def test_loop_is_overdue_only_where_it_does_not_come_to_its_next_list() -> None:
    bench = Bench()
    await asyncio.sleep(1000)
    assert bench.inventory.overdue == 0.0, "nobody has started it"
    loop = asyncio.create_task(bench.inventory.run())
    for _ in range(20):
        await asyncio.sleep(10)
        assert bench.inventory.overdue == 0.0

    for error in (failure(retry_after=900.0), Postponed(Wait(seconds=900.0, by_azure=True))):
        bench.azure.error = error
        for _ in range(80):
            await asyncio.sleep(10)
            assert bench.inventory.overdue == 0.0, "Azure wants the pause"
        await asyncio.sleep(200)
    bench.azure.error, bench.azure.gate = None, asyncio.Event()
    await asyncio.sleep(2000)
    assert bench.inventory.overdue > 900.0
    bench.azure.gate.set()
    await asyncio.sleep(1)
    assert bench.inventory.overdue == 0.0
    loop.cancel()
