"""How often Azure is asked: our share of its request limits, and the pauses that it asks for, for all callers at once.

AKS counts per subscription, so what one controller uses up is missing for every other in it: reads, lists and deletes
of agent pools have 60 tokens and one more a second, for all of them together
(https://learn.microsoft.com/azure/aks/quotas-skus-regions#throttling-limits-on-aks-resource-provider-apis). We take
half of that unless told otherwise. Nothing is slept here: who comes too early is told when to come again, each caller
a moment of its own.
"""

import re
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Final, Literal

from provisioner.apis.failure import Failure
from provisioner.azure.buckets import Bucket, fill

# Half of Azure's limits. The bounds below are Azure's own, and multiplied by the share.
SHARE: Final = 0.5
# Seconds to keep still after a 429 that does not say for how long.
PAUSE: Final = 10.0
# Seconds between two PUTs once the limit of the whole cluster is used up: what AKS documents. A shorter Retry-After
# shows a shorter one.
PUT_INTERVAL: Final = 60.0
_SHORTEST_INTERVAL: Final = 1.0
# Seconds after which a caller asks again, however long the queue: it may be gone by then.
_LONGEST_WAIT: Final = 300.0
# So many intervals without a 429, and PUTs are sent freely again.
_CALM: Final = 5
# Seconds in which two pools that are refused with 429 mean that they share a limit.
_TOGETHER: Final = 60.0
# Paths that are remembered; the pools of a cluster are 100 (https://learn.microsoft.com/azure/aks/quotas-skus-regions).
_PATHS: Final = 1000

_SHARED: Final = re.compile(r"exceeded for (?:subid|subscription|managed ?cluster)\b", re.IGNORECASE)
_OF_ONE: Final = re.compile(r"exceeded for agent ?pool\b", re.IGNORECASE)
# SubscriptionRequestsThrottled and the like: of ARM itself, which counts by kind of request.
_ARM_CODE: Final = "requeststhrottled"

_Verb = Literal["read", "write", "delete"]


@dataclass(frozen=True, kw_only=True)
class Wait:
    """A call that is not to be sent for another `seconds`; `by_azure` where Azure has asked for that pause."""

    seconds: float
    by_azure: bool

    @property
    def message(self) -> str:
        """Return what a user is told."""
        if self.by_azure:
            return f"Azure throttles its API for another {max(self.seconds, 1.0):.0f} s; it is tried again then."
        return (
            f"Held back for {max(self.seconds, 1.0):.0f} s to leave others in the subscription their share of Azure's "
            "request limit; it is tried again then."
        )


@dataclass
class _Lane:
    """What one kind of call may use. `waiting` has the moments that callers, by path, were told to come again at."""

    group: str
    verb: _Verb
    bucket: Bucket
    closed_until: float = 0.0
    waiting: dict[str, float] = field(default_factory=dict)
    # Set while calls are let through one by one, this many seconds apart.
    interval: float | None = None
    throttled_at: float = 0.0


@dataclass
class _Group:
    """Lanes that one limit of Azure's is for. What one of them does not need is another's."""

    # Azure documents the limit as shared by all that is asked for; that of PUT is for each agent pool.
    is_shared: bool
    lanes: list[_Lane] = field(default_factory=list)
    # The path that was refused with 429 last, and until when another one makes the limit a shared one.
    struck: tuple[str, float] = ("", 0.0)


# Group, verb, operation; tokens and tokens a second, of which we take our share. The first four are AKS's bucket for
# "all other APIs", divided so that none starves: claims that go by the dozen need deletes, and everybody needs the
# LIST. GET of a cluster has a bucket of its own. A PUT counts against its agent pool (20, one a minute), which is
# bounded below, and against ARM's writes
# (https://learn.microsoft.com/azure/azure-resource-manager/management/request-limits-and-throttling). Compute counts
# reads by the hundred in minutes, and so does Network.
_LANES: Final[tuple[tuple[str, _Verb, str, float, float], ...]] = (
    ("agentpools", "read", "agentpools.list", 16, 0.4),
    ("agentpools", "delete", "agentpools.delete", 38, 0.4),
    ("agentpools", "read", "machines.list", 4, 0.18),
    ("agentpools", "read", "upgradeprofiles.get", 2, 0.02),
    ("cluster", "read", "managedclusters.get", 60, 1.0),
    ("put", "write", "agentpools.create", 200, 10.0),
    ("compute", "read", "skus.list", 20, 0.2),
    ("compute", "read", "usages.list", 20, 0.2),
    ("compute", "read", "capacityreservations.list", 20, 0.2),
    ("network", "read", "subnets.get", 20, 0.2),
)
_PUT: Final = "put"
_PUT_SIZE: Final = 20
_PUT_REFILL: Final = 1 / 60
# Of a call that is not in the table.
_ANY_OTHER: Final = "machines.list"


class Budget:
    """What may be sent now. To be used from one event loop.

    `share` is the part of Azure's limits that is ours to use; more than 1 is for an Azure that has other limits. No
    token is put aside for the moment that was named to a caller: who does not come leaves it to the next.
    """

    def __init__(self, *, clock: Callable[[], float] = time.monotonic, share: float = SHARE) -> None:
        """Take a clock in monotonic seconds."""
        if not share > 0:
            raise ValueError(f"a share of Azure's request limits must be above 0, not {share}")
        self._clock = clock
        self._share = share
        self._groups: dict[str, _Group] = {}
        self._lanes: dict[str, _Lane] = {}
        for group, verb, operation, size, refill in _LANES:
            bucket = Bucket.full(size=max(size * share, 1.0), refill=refill * share, now=clock())
            lane = _Lane(group=group, verb=verb, bucket=bucket)
            self._lanes[operation] = lane
            self._groups.setdefault(group, _Group(is_shared=group != _PUT)).lanes.append(lane)
        # By path: pauses for one resource alone, and what its own PUTs have left.
        self._closed: dict[str, float] = {}
        self._pools: dict[str, Bucket] = {}

    def admit(self, operation: str, *, path: str = "") -> Wait | None:
        """Count a call that is about to be sent, or return how long to keep it back.

        The more callers wait, the later the moment that is named: they are spread as the calls may be sent.
        """
        now = self._clock()
        lane = self._lane(operation)
        path = _bare(path)
        alone_until = self._closed.get(path, 0.0)
        if alone_until > now:
            return Wait(seconds=alone_until - now, by_azure=True)
        own = self._own(path, now) if lane.group == _PUT else None
        if own is not None and not own.has_one:
            return Wait(seconds=own.seconds_to_one, by_azure=False)
        fill([each.bucket for each in self._groups[lane.group].lanes], now)
        if lane.closed_until <= now and lane.bucket.has_one:
            lane.bucket.take()
            lane.waiting.pop(path, None)
            if own is not None:
                own.take()
            return None
        return self._later(lane, path, now)

    def continue_with(self, operation: str) -> None:
        """Count the call for the next page of a list that was admitted: half a list is of no use to anybody."""
        lane = self._lane(operation)
        fill([each.bucket for each in self._groups[lane.group].lanes], self._clock())
        lane.bucket.take()

    def answered(self, operation: str) -> None:
        """Note that Azure has answered a call, and not with 429."""
        lane = self._lane(operation)
        if lane.interval is not None and self._clock() - lane.throttled_at >= _CALM * lane.interval:
            lane.interval = None
            lane.waiting.clear()
            self._resize(lane, operation)

    def throttled(self, operation: str, *, path: str, failure: Failure) -> None:
        """Keep still for as long as a 429 has asked for: with all that counts against the same limit.

        Which limit that is Azure says in its message, and where it does not, its documents do. They are at odds over
        PUT of an agent pool, whether each pool has a limit or the cluster has one. So a refused PUT is taken for that
        pool's own until another pool is refused, too; then for the cluster's.
        """
        now = self._clock()
        lane, path = self._lane(operation), _bare(path)
        seconds = PAUSE if failure.retry_after is None else failure.retry_after
        if failure.code.lower().endswith(_ARM_CODE):
            self._close((each for each in self._lanes.values() if each.verb == lane.verb), now, seconds)
        elif self._is_shared(lane, path, failure, until=now + max(seconds, _TOGETHER)):
            self._close(self._groups[lane.group].lanes, now, seconds)
            if lane.group == _PUT:
                self._slow_down(lane, now, seconds)
        else:
            self._closed = {path: moment for path, moment in self._closed.items() if moment > now}
            self._closed[path] = max(self._closed.get(path, 0.0), now + seconds)

    def _is_shared(self, lane: _Lane, path: str, failure: Failure, *, until: float) -> bool:
        """Tell whether a 429 is about more than the one resource. An answer without a code is some gateway's."""
        group = self._groups[lane.group]
        if _SHARED.search(failure.message) or (group.is_shared and failure.code):
            return True
        if _OF_ONE.search(failure.message):
            return False
        struck, struck_until = group.struck
        if lane.interval is not None or (struck and struck != path and self._clock() < struck_until):
            return True
        group.struck = (path, until)
        return False

    def _lane(self, operation: str) -> _Lane:
        return self._lanes.get(operation) or self._lanes[_ANY_OTHER]

    def _own(self, path: str, now: float) -> Bucket:
        """Return the bucket of one agent pool's PUTs, filled."""
        bucket = self._pools.get(path)
        if bucket is None:
            if len(self._pools) >= _PATHS:
                for each in self._pools.values():
                    fill([each], now)
                self._pools = {path: each for path, each in self._pools.items() if not each.is_full}
            bucket = Bucket.full(size=max(_PUT_SIZE * self._share, 1.0), refill=_PUT_REFILL * self._share, now=now)
            self._pools[path] = bucket
        fill([bucket], now)
        return bucket

    def _later(self, lane: _Lane, path: str, now: float) -> Wait:
        """Name the moment that was named to this caller before, or the next that nobody else was told to come at."""
        by_azure = lane.closed_until > now
        lane.waiting = {other: moment for other, moment in lane.waiting.items() if moment > now}
        if path not in lane.waiting:
            rate = lane.bucket.refill + self._spare(lane)
            moment = max(lane.closed_until, now + max(1.0 - lane.bucket.tokens, 0.0) / rate)
            if lane.waiting:
                moment = max(moment, max(lane.waiting.values()) + 1.0 / rate)
            lane.waiting[path] = moment
        longest = max(lane.closed_until - now, _LONGEST_WAIT)
        return Wait(seconds=min(lane.waiting[path] - now, longest), by_azure=by_azure or lane.interval is not None)

    def _spare(self, lane: _Lane) -> float:
        """Return what the lane gains a second of those of its group that are full: all where it is next, else none."""
        lanes = self._groups[lane.group].lanes
        is_next = all(other.bucket.is_full for other in lanes[: lanes.index(lane)])
        full = [other for other in lanes if other is not lane and other.bucket.is_full]
        return sum(other.bucket.refill for other in full) if is_next else 0.0

    def _close(self, lanes: Iterable[_Lane], now: float, seconds: float) -> None:
        for lane in lanes:
            lane.closed_until = max(lane.closed_until, now + seconds)
            lane.waiting.clear()
            # Whatever we believed to have left, Azure has not; one call each finds out.
            lane.bucket.drain(until=lane.closed_until, leaving=1.0)

    def _slow_down(self, lane: _Lane, now: float, seconds: float) -> None:
        # A Retry-After right after a call that was accepted is the whole interval; others are shorter.
        lane.interval = min(max(seconds, lane.interval or _SHORTEST_INTERVAL), PUT_INTERVAL)
        lane.throttled_at = now + seconds
        lane.bucket.size, lane.bucket.refill = 1.0, 1.0 / lane.interval

    def _resize(self, lane: _Lane, operation: str) -> None:
        size, refill = next((size, refill) for *_, name, size, refill in _LANES if name == operation)
        lane.bucket.size, lane.bucket.refill = max(size * self._share, 1.0), refill * self._share


def _bare(path: str) -> str:
    return path.partition("?")[0].lower()
