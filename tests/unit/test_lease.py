"""Who holds the Lease: hand-over, crashes, and never two at once whatever becomes of answers."""

import asyncio
import copy
import itertools
import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from types import TracebackType
from typing import Any, Self

import pytest

from provisioner.kube.errors import Conflict, Gone, Unavailable
from provisioner.kube.lease import DURATION, LOOK, RENEW_DEADLINE, LeaderElection, LeadershipLost
from provisioner.kube.metrics import Registry
from provisioner.kube.objects import Objects
from tests.unit.virtual_time import now, virtual_time

EPOCH = datetime(2026, 11, 21, tzinfo=UTC)
# Seconds that an exact moment may be missed by: requests take this long at least.
LATENCY = 0.01


class Leases:
    """An API server with one Lease. `faults` is asked about each write: what becomes of it and of its answer."""

    def __init__(self, rng: random.Random | None = None, *, faults: float = 0.0) -> None:
        self.stored: dict[str, Any] | None = None
        self.is_away = False
        self._version = 0
        self._rng = rng or random.Random(0)  # noqa: S311 -- repeatable bad luck
        self._faults = faults
        self._carrying: set[asyncio.Task[dict[str, Any]]] = set()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None

    async def read(self, path: str, *, query: Mapping[str, str | int] | None = None) -> dict[str, Any]:
        await asyncio.sleep(self._latency())
        if self.is_away or self._is_unlucky():
            raise Unavailable("GET: no answer")
        if self.stored is None:
            raise Gone("404", status=404)
        return copy.deepcopy(self.stored)

    async def call(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str | int] | None = None,
        body: Mapping[str, Any] | None = None,
        content_type: str = "application/json",
    ) -> dict[str, Any]:
        assert body is not None
        if self.is_away or self._is_unlucky():
            raise Unavailable("no connection")
        # What has been sent is carried out whether or not whoever sent it still waits.
        task = asyncio.create_task(self._carry_out(method, copy.deepcopy(dict(body))))
        self._carrying.add(task)
        task.add_done_callback(self._carried)
        answer = await asyncio.shield(task)
        if self._is_unlucky():
            raise Unavailable("the answer is lost", lost=True)
        await asyncio.sleep(self._latency())
        return answer

    def _carried(self, task: asyncio.Task[dict[str, Any]]) -> None:
        self._carrying.discard(task)
        if not task.cancelled():
            # Looked at even where nobody waits for the answer any more.
            task.exception()

    async def _carry_out(self, method: str, body: dict[str, Any]) -> dict[str, Any]:
        await asyncio.sleep(self._latency())
        if method == "POST":
            if self.stored is not None:
                raise Conflict("exists", status=409)
            self.stored = {"metadata": {**body["metadata"]}, "spec": {**body["spec"]}}
        else:
            if self.stored is None:
                raise Gone("404", status=404)
            expected = body["metadata"]["resourceVersion"]
            if expected != self.stored["metadata"]["resourceVersion"]:
                raise Conflict("changed", status=409)
            self.stored["spec"] |= body["spec"]
        self._version += 1
        self.stored["metadata"]["resourceVersion"] = str(self._version)
        return copy.deepcopy(self.stored)

    def _latency(self) -> float:
        return self._rng.uniform(0, 25) if self._is_unlucky() else LATENCY

    def _is_unlucky(self) -> bool:
        return self._rng.random() < self._faults

    def somebody_labels_it(self) -> None:
        assert self.stored is not None
        self._version += 1
        self.stored["metadata"] |= {"resourceVersion": str(self._version), "labels": {"seen": "yes"}}


@dataclass
class Instance:
    """A process with a controller in it; `acted` are the spans in which it took itself for the leader."""

    api: Leases
    name: str
    skew: timedelta = timedelta()
    acted: list[list[float]] = field(default_factory=list)
    stop: asyncio.Event = field(default_factory=asyncio.Event)
    task: asyncio.Task[None] | None = None
    end: str = ""

    def start(self) -> Self:
        self.task = asyncio.create_task(self._run())
        return self

    async def _run(self) -> None:
        election = LeaderElection(
            Objects(self.api),
            namespace="kube-system",
            name="controller",
            identity=self.name,
            now=lambda: EPOCH + self.skew + timedelta(seconds=now()),
            metrics=Registry(),
        )
        if not await election.acquire(self.stop):
            return
        span = [now(), float("inf")]
        self.acted.append(span)
        keeping = asyncio.create_task(election.keep())
        stopped = asyncio.create_task(self.stop.wait())
        try:
            await asyncio.wait([keeping, stopped], return_when=asyncio.FIRST_COMPLETED)
            if keeping.done():
                keeping.result()
        except LeadershipLost as error:
            self.end = str(error)
            assert not election.is_leader
        finally:
            keeping.cancel()
            stopped.cancel()
            span[1] = now()
        await election.release()

    async def crash(self) -> None:
        assert self.task is not None
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)

    @property
    def acts(self) -> bool:
        return bool(self.acted) and self.acted[-1][1] == float("inf")


async def until(instance: Instance) -> float:
    """Wait until it acts; return since when."""
    while not instance.acts:
        assert now() < 1000, f"{instance.name} never acts"
        await asyncio.sleep(0.05)
    return instance.acted[-1][0]


@virtual_time
async def test_one_of_two_acts() -> None:
    api = Leases()
    first, second = Instance(api, "first").start(), Instance(api, "second")
    await until(first)
    second.start()
    await asyncio.sleep(10 * DURATION)

    assert first.acts
    assert not second.acted
    assert api.stored is not None
    assert api.stored["spec"]["holderIdentity"] == "first"


@virtual_time
async def test_lease_is_handed_over_within_a_second() -> None:
    api = Leases()
    first, second = Instance(api, "first").start(), Instance(api, "second")
    await until(first)
    second.start()
    await asyncio.sleep(30)
    stopped = now()
    first.stop.set()

    assert await until(second) - stopped <= LOOK + 5 * LATENCY
    assert first.acted[-1][1] <= second.acted[-1][0]
    assert api.stored is not None
    assert api.stored["spec"]["leaseTransitions"] == 1
    assert api.stored["spec"]["leaseDurationSeconds"] == DURATION


@virtual_time
async def test_lease_of_a_crashed_instance_runs_out() -> None:
    api = Leases()
    first, second = Instance(api, "first").start(), Instance(api, "second")
    await until(first)
    second.start()
    await asyncio.sleep(30)
    await first.crash()
    crashed = now()
    took = await until(second) - crashed

    # Its last renewal was up to two seconds ago when it crashed.
    assert DURATION - 2.5 <= took <= DURATION + 2 * LOOK


@pytest.mark.parametrize("hours", [-48, -1, 1, 48])
def test_clocks_need_not_agree(hours: int) -> None:
    @virtual_time
    async def run() -> None:
        api = Leases()
        first, second = Instance(api, "first").start(), Instance(api, "second", skew=timedelta(hours=hours))
        await until(first)
        second.start()
        await asyncio.sleep(10 * DURATION)
        assert first.acts
        assert not second.acted
        await first.crash()
        crashed = now()
        assert await until(second) - crashed <= DURATION + 2 * LOOK

    run()


@virtual_time
async def test_leader_gives_up_before_another_may_begin() -> None:
    api = Leases()
    first = Instance(api, "first").start()
    await until(first)
    await asyncio.sleep(30)
    api.is_away = True
    away = now()
    assert first.task is not None
    await first.task

    assert first.acted[-1][1] - away <= RENEW_DEADLINE
    assert "could not be renewed for 10 s" in first.end


@virtual_time
async def test_short_outage_costs_nothing() -> None:
    api = Leases()
    first = Instance(api, "first").start()
    await until(first)
    api.is_away = True
    await asyncio.sleep(RENEW_DEADLINE - 3)
    api.is_away = False
    await asyncio.sleep(DURATION * 3)

    assert first.acts


@virtual_time
async def test_lease_that_somebody_has_labelled_stays_ours() -> None:
    api = Leases()
    first = Instance(api, "first").start()
    await until(first)
    for _ in range(5):
        api.somebody_labels_it()
        await asyncio.sleep(3)

    assert first.acts
    api.somebody_labels_it()
    first.stop.set()
    await asyncio.sleep(1)
    assert api.stored is not None
    assert api.stored["spec"]["holderIdentity"] == ""


@virtual_time
async def test_lease_that_somebody_deletes_ends_the_leader_at_once() -> None:
    api = Leases()
    first = Instance(api, "first").start()
    await until(first)
    api.stored = None
    await asyncio.sleep(3)

    assert first.end == "Lease controller was deleted"


@virtual_time
async def test_candidate_that_is_stopped_does_not_take_the_lease() -> None:
    api = Leases()
    first, second = Instance(api, "first").start(), Instance(api, "second")
    await until(first)
    second.start()
    await asyncio.sleep(5)
    second.stop.set()
    assert second.task is not None
    await asyncio.wait_for(second.task, timeout=LOOK)

    assert not second.acted


@pytest.mark.parametrize("seed", range(60))
def test_never_do_two_act_whatever_becomes_of_answers(seed: int) -> None:
    @virtual_time
    async def run() -> None:
        rng = random.Random(seed)  # noqa: S311 -- repeatable bad luck
        api = Leases(rng, faults=rng.choice([0.02, 0.1, 0.3]))
        instances: list[Instance] = []
        alive: list[Instance] = []
        for number in range(12):
            while len(alive) < 3:
                skew = timedelta(minutes=rng.uniform(-90, 90))
                alive.append(Instance(api, f"{number}-{len(instances)}", skew=skew).start())
                instances.append(alive[-1])
            await asyncio.sleep(rng.uniform(1, 60))
            leader = next((one for one in alive if one.acts), rng.choice(alive))
            if rng.random() < 0.5:
                leader.stop.set()
            elif rng.random() < 0.7:
                await leader.crash()
            alive = [one for one in alive if one.task is not None and not one.task.done() and not one.stop.is_set()]
        # Good times: somebody acts again.
        api._faults = 0.0
        survivor = Instance(api, "survivor").start()
        await asyncio.sleep(DURATION * 4)
        alive = [one for one in (*alive, survivor) if one.task is not None and not one.task.done()]
        assert sum(one.acts for one in alive) == 1
        for one in alive:
            await one.crash()
        spans = sorted(span for one in instances for span in one.acted)
        assert spans, "somebody has acted"
        for before, after in itertools.pairwise(spans):
            assert before[1] <= after[0], f"two at once: {before} and {after}"

    run()
