"""The agent pools of the cluster as everybody reads them: one LIST for all claims, own writes visible at once.

AKS answers 60 reads plus one a second for a whole subscription (https://learn.microsoft.com/azure/aks/quotas-skus-regions),
so a GET per pool and claim is out of the question. One LIST at a time is read fast while something is going on and
slowly otherwise. What the controller itself has just asked for is laid over the last LIST as a note, because a LIST
that was on its way at that moment does not know of it yet.
"""

import asyncio
import math
import random
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from enum import Enum
from typing import Final, Protocol

from provisioner.apis.agentpool import AgentPool
from provisioner.apis.failure import Failure
from provisioner.azure.errors import ArmFailure, Postponed
from provisioner.azure.pool_index import PoolIndex

# Seconds between two LISTs however often they are asked for: the refill of AKS's read bucket.
MIN_INTERVAL: Final = 1.0
# Seconds. LISTs that fail are repeated after 1, 2, 4 ... seconds, and never less often than this.
MAX_BACKOFF: Final = 60.0
# Seconds in which a LIST may miss a pool whose PUT was accepted, or whose PUT has not been answered: ARM reads from
# replicas, and a request that was cut off is still being worked on. Taking such a pool for absent is not harmless: a
# claim that is being deleted would lose its finalizer, and the pool would stay and cost money.
SETTLE: Final = 5.0


class Lookup(Enum):
    """What is known of a pool that cannot be shown."""

    ABSENT = "absent"
    UNKNOWN = "unknown"


PoolState = AgentPool | Lookup


class PoolLister(Protocol):
    """The one call of the agent pool gateway that the inventory makes."""

    async def list(self) -> tuple[AgentPool, ...]:
        """Return all pools of the cluster. Raises ArmFailure."""


@dataclass(frozen=True, kw_only=True)
class _Note:
    """What is known of one pool better than from the last LIST; `pool` is None where it is known to be doubtful."""

    order: int
    pool: AgentPool | None
    settled_at: float


class Inventory:
    """The cache of agent pools, to be used from one event loop.

    `busy` tells whether the controller waits for something in Azure. `on_change` is called with the names of pools
    that changed, appeared, vanished or became known, and with all names when LIST begins to fail, fails differently
    or works again; it must not block. `busy_interval` and `idle_interval` are seconds between the starts of two LISTs.
    """

    def __init__(
        self,
        pools: PoolLister,
        *,
        clock: Callable[[], float],
        busy: Callable[[], bool],
        on_change: Callable[[Collection[str]], None],
        busy_interval: float,
        idle_interval: float,
        settle: float = SETTLE,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._gateway = pools
        self._clock = clock
        self._busy = busy
        self._on_change = on_change
        self._busy_interval = max(busy_interval, MIN_INTERVAL)
        self._idle_interval = max(idle_interval, self._busy_interval)
        self._settle = settle
        self._jitter = jitter
        self._listed: Mapping[str, AgentPool] = {}
        self._listed_at: float | None = None
        self._began_at = clock()
        self._notes: dict[str, _Note] = {}
        # What the two come to: kept up to date, because every look at a claim reads it.
        self._known = PoolIndex()
        # Names that somebody asked for and was told nothing about: they are told when there is something to tell.
        self._asked: set[str] = set()
        # By claim's UID: after which LIST absence was to be confirmed, and who is to be told of it.
        self._to_confirm: dict[str, tuple[int, str]] = {}
        # Notes and LISTs are ordered by a counter: two of them can happen within one tick of the clock.
        self._order = 0
        self._applied_order = 0
        self._failure: Failure | None = None
        self._failures = 0
        self._woken = False
        # Of the last LIST that was sent and answered, whoever wanted it.
        self._sent_at = 0.0
        self._not_before = 0.0
        # When the loop is to make its next LIST; before it runs, never.
        self._due = math.inf
        self._rethink = asyncio.Event()

    def lookup(self, name: str) -> PoolState:
        """Return the pool, or ABSENT, or UNKNOWN until a LIST that started late enough has told which."""
        state = self._state(name)
        if state is Lookup.UNKNOWN:
            self._asked.add(name)
        return state

    @property
    def pools(self) -> Mapping[str, AgentPool]:
        """Return all pools that `lookup` would show, by name; doubtful ones are not among them.

        A view, good until the next LIST or note: whoever awaits something while reading it takes a copy.
        """
        return self._known.by_name

    def of_claim(self, uid: str) -> tuple[AgentPool, ...]:
        """Return those of `pools` that carry our tag for the claim of that UID, whatever they are called."""
        return self._known.of_claim(uid)

    def is_confirmed(self, uid: str, *, name: str) -> bool:
        """Tell whether a LIST has begun since this was first asked for the claim of that UID, and has succeeded.

        What was asked for may take effect any time after its answer was lost, so that a pool that `lookup` has called
        absent for minutes may be there by now. Whoever is not to miss it asks here once more, and is told by the
        pool's `name` when to ask again.
        """
        order, _ = self._to_confirm.setdefault(uid, (self._order, name))
        return self._applied_order > order

    def forget(self, uid: str) -> None:
        """Drop what was asked for a claim that is gone."""
        self._to_confirm.pop(uid, None)

    def retain(self, uids: Collection[str]) -> None:
        """Drop what was asked for all claims but these."""
        for uid in self._to_confirm.keys() - uids:
            del self._to_confirm[uid]

    @property
    def listed_at(self) -> float | None:
        """Return when the last successful LIST was sent, in seconds of the clock; None before the first."""
        return self._listed_at

    @property
    def is_settled(self) -> bool:
        """Tell whether a LIST has begun late enough to show what was asked for before this inventory was made.

        By a run of the controller that was killed: of its requests there are no notes.
        """
        return self._listed_at is not None and self._listed_at >= self._began_at + self._settle

    @property
    def failure(self) -> Failure | None:
        """Return why the last LIST failed, None where it did not."""
        return self._failure

    @property
    def overdue(self) -> float:
        """Return for how many seconds the loop should have made the next LIST, 0 while it need not have."""
        return max(0.0, self._clock() - self._due)

    @property
    def is_throttled(self) -> bool:
        """Tell whether Azure has asked for a pause that is not over: no LIST is to be made before."""
        return self._clock() < self._not_before

    def note_created(self, pool: AgentPool) -> None:
        """Show a pool whose PUT was accepted, although no LIST has it yet."""
        self._note(pool.name, pool=pool, settle=self._settle)

    def note_deleting(self, name: str) -> None:
        """Show a pool whose DELETE was accepted as Deleting, although the last LIST does not."""
        state = self._state(name)
        if isinstance(state, AgentPool):
            # No settling of its own: from now on absence is what is expected. But a LIST that may still miss the pool's
            # creation says nothing about its end.
            old = self._notes.get(name)
            self._note(
                name,
                pool=replace(state, state="Deleting"),
                settle=max(old.settled_at - self._clock(), 0.0) if old else 0.0,
            )
        else:
            self.note_doubtful(name)

    def note_doubtful(self, name: str) -> None:
        """Forget what is known of a pool: a request for it may or may not have taken effect."""
        self._note(name, pool=None, settle=self._settle)

    def wake(self) -> None:
        """Ask for a LIST soon. Calls are coalesced, and a LIST that Azure wants to have delayed stays delayed."""
        self._woken = True
        self._rethink.set()

    async def refresh(self) -> None:
        """Make one LIST and take it over: now, or as soon as our share of Azure's request limits lets it be sent.

        Raises ArmFailure, which `failure` keeps too.
        """
        while (wait := await self._refresh()) is not None:
            if wait.by_azure:
                # Azure may have asked for a long pause, of others than the LIST too: claims that wait for it say so.
                self._announce(self._set_failure(wait.failure))
            pause = wait.failure.retry_after or MIN_INTERVAL
            self._due = self._clock() + pause
            await asyncio.sleep(pause)

    async def _refresh(self) -> Postponed | None:
        # A wake from here on is about something that this LIST may have missed.
        self._woken = False
        self._order += 1
        order, started = self._order, self._clock()
        try:
            pools = await self._gateway.list()
        except Postponed as wait:
            return wait
        except ArmFailure as error:
            self._not_before = self._clock() + (error.failure.retry_after or 0.0)
            # An old LIST that fails after a newer one has succeeded says nothing about now.
            if order > self._applied_order:
                self._failures += 1
                self._announce(self._set_failure(error.failure))
            raise
        self._sent_at = started
        if order > self._applied_order:
            confirmed = {name for asked, name in self._to_confirm.values() if self._applied_order <= asked < order}
            self._applied_order = order
            self._failures = 0
            everything = self._set_failure(None)
            self._announce(self._take_over(pools, order=order, started=started) | everything | confirmed)
        return None

    async def run(self) -> None:
        """List until cancelled. Failures of LIST are kept in `failure`; nothing but a defect ends the loop.

        Between two LISTs `busy` is asked only when something was noted: whoever becomes busy otherwise calls `wake`.
        """
        self._due = self._clock()
        while True:
            try:
                await self.refresh()
            except ArmFailure as error:
                await self._pause(until=self._clock() + self._backoff(error.failure))
            else:
                await self._pause(after=self._sent_at)

    def _state(self, name: str) -> PoolState:
        note = self._notes.get(name)
        if note is not None:
            return note.pool or Lookup.UNKNOWN
        pool = self._listed.get(name)
        if pool is not None:
            return pool
        return Lookup.UNKNOWN if self._listed_at is None else Lookup.ABSENT

    def _note(self, name: str, *, pool: AgentPool | None, settle: float) -> None:
        self._order += 1
        self._notes[name] = _Note(order=self._order, pool=pool, settled_at=self._clock() + settle)
        self._know(name, pool)
        # An idle pause has to become a busy one.
        self._rethink.set()

    def _know(self, name: str, pool: AgentPool | None) -> None:
        if pool is None:
            self._known.drop(name)
        else:
            self._known.put(pool)

    def _take_over(self, pools: tuple[AgentPool, ...], *, order: int, started: float) -> frozenset[str]:
        listed = {pool.name: pool for pool in pools}
        names = {*listed, *self._listed, *self._notes, *self._asked}
        before = {name: self._state(name) for name in names}
        notes = {}
        for name, note in self._notes.items():
            if note.order > order:
                notes[name] = note
            elif started < note.settled_at:
                # Another replica may be behind the one that has shown the pool: until then no absence is believed.
                notes[name] = replace(note, order=order, pool=listed[name]) if name in listed else note
        self._notes = notes
        self._listed = listed
        self._listed_at = started
        self._known = PoolIndex(listed.values())
        for name, note in self._notes.items():
            self._know(name, note.pool)
        # Whoever asked was answered UNKNOWN, perhaps before a note that `before` already counts in.
        resolved = {name for name in self._asked if self._state(name) is not Lookup.UNKNOWN}
        self._asked -= resolved
        return frozenset(resolved | {name for name in names if self._state(name) != before[name]})

    def _set_failure(self, failure: Failure | None) -> frozenset[str]:
        """Keep why LIST fails; return whom it concerns: everybody where the kind of failure has changed."""
        old, self._failure = self._failure, failure
        if (old.kind if old else None) == (failure.kind if failure else None):
            return frozenset()
        return frozenset({*self._listed, *self._notes, *self._asked})

    def _announce(self, names: frozenset[str]) -> None:
        if names:
            self._on_change(names)

    def _backoff(self, failure: Failure) -> float:
        exponential = min(MAX_BACKOFF, MIN_INTERVAL * 2.0 ** min(self._failures - 1, 10))
        # Half of it is random, so that the controllers of one subscription do not come back in step.
        return max(failure.retry_after or 0.0, MIN_INTERVAL, exponential * (0.5 + self._jitter() / 2))

    def _is_busy(self) -> bool:
        if self._notes or self._busy():
            return True
        return any(pool.state.lower() in ("creating", "deleting") for pool in self._listed.values())

    async def _pause(self, *, until: float | None = None, after: float = 0.0) -> None:
        """Wait until the next LIST is due: at a fixed time, which nothing shortens, or an interval after the last."""
        while True:
            self._rethink.clear()
            # Not before Azure wants it either, whoever's LIST it was that it has refused.
            due = max(after + self._interval() if until is None else until, self._not_before)
            self._due, remaining = due, due - self._clock()
            if remaining <= 0:
                return
            try:
                async with asyncio.timeout(remaining):
                    await self._rethink.wait()
            except TimeoutError:
                # The clock decides, not the timer: the two need not be the same.
                continue

    def _interval(self) -> float:
        if self._woken:
            return MIN_INTERVAL
        return self._busy_interval if self._is_busy() else self._idle_interval
