"""The work queue between watches and workers, by client-go's rules.

A key is queued once however often it is added, and never handled twice at once: one that is added while a worker has it
comes back when the worker is done. Nothing is kept beside the key; the worker looks at the newest object.

Time is the event loop's, so that a loop with a virtual clock drives it. Not thread safe.
"""

import asyncio
import random
from collections.abc import Callable, Hashable, Iterator
from typing import Final, Generic, TypeVar

from provisioner.kube.metrics import Registry

Key = TypeVar("Key", bound=Hashable)

# Seconds. First and longest pause of `retry`: no hammering helps where Azure throttles or a person has to act.
RETRY_BASE: Final = 1.0
RETRY_CAP: Final = 300.0
# Seconds by which a timer may go off before its time.
_EARLY: Final = 0.01


class WorkQueue(Generic[Key]):
    """Keys to look at. `name` labels its metrics."""

    def __init__(
        self,
        *,
        rng: random.Random,
        retry_base: float = RETRY_BASE,
        retry_cap: float = RETRY_CAP,
        name: str = "nodeclaim",
        metrics: Registry | None = None,
    ) -> None:
        """Take the source of jitter and the first and longest retry pause in seconds."""
        self._rng = rng
        self._retry_base = retry_base
        self._retry_cap = retry_cap
        self._ready: asyncio.Queue[Key | None] = asyncio.Queue()
        self._added_at: dict[Key, float] = {}  # wants handling: in `_ready`, or else being handled right now
        self._started_at: dict[Key, float] = {}  # being handled
        self._timers: dict[Key, asyncio.TimerHandle] = {}
        self._failures: dict[Key, int] = {}
        self._held_until: dict[Key, float] = {}  # a server has asked for it, whatever else makes the key worth a look
        self._closed = False
        self._metrics = _Metrics(metrics or Registry(), name)

    def __len__(self) -> int:
        """Return how many keys wait for a worker; those with a delay are not counted before it has passed."""
        return 0 if self._closed else self._ready.qsize()

    def add(self, key: Key) -> None:
        """Have the key handled as soon as a worker is free, and no sooner than a server wants to hear of it again."""
        if self._closed or key in self._added_at:
            return
        held = self._held_until.get(key, 0.0) - asyncio.get_running_loop().time()
        if held > 0:
            self.add_after(key, held)
            return
        self._added_at[key] = asyncio.get_running_loop().time()
        self._metrics.adds.inc(name=self._metrics.name)
        if key not in self._started_at:
            self._put(key)

    def add_after(self, key: Key, delay: float) -> None:
        """Add the key in so many seconds. Of several delays for one key the earliest counts."""
        if self._closed:
            return
        if delay <= 0:
            self.add(key)
            return
        loop = asyncio.get_running_loop()
        when = loop.time() + delay
        timer = self._timers.get(key)
        if timer is not None:
            if timer.when() <= when:
                return
            timer.cancel()
        self._timers[key] = loop.call_at(when, self._expire, key)

    def retry(self, key: Key, *, at_least: float = 0.0) -> float:
        """Add the key after a pause that doubles with each failure since `forget`; return the pause in seconds.

        The pause is between half and all of its nominal length, so that claims that failed together part ways. What a
        server has asked for, `at_least` in seconds, is not undercut unless it is longer than the longest pause.
        """
        failures = self._failures.get(key, 0)
        self._failures[key] = failures + 1
        nominal = min(self._retry_cap, self._retry_base * 2.0 ** min(failures, 62))
        delay = max(min(at_least, self._retry_cap), nominal * (0.5 + 0.5 * self._rng.random()))
        if at_least > 0:
            self._held_until[key] = asyncio.get_running_loop().time() + min(at_least, self._retry_cap)
        self._metrics.retries.inc(name=self._metrics.name)
        self.add_after(key, delay)
        return delay

    def forget(self, key: Key) -> None:
        """Note that the key was handled well: its next failure starts with the shortest pause again."""
        self._failures.pop(key, None)
        self._held_until.pop(key, None)

    def retain(self, wanted: Callable[[Key], bool]) -> None:
        """Drop the delays and failures of keys that nobody wants any more; what is due already stays."""
        for key in [key for key in self._timers if not wanted(key)]:
            self._timers.pop(key).cancel()
        for key in [key for key in (*self._failures, *self._held_until) if not wanted(key)]:
            self.forget(key)

    async def get(self) -> Key | None:
        """Return the next key to handle, or None once the queue is shut down. `done` must follow for each key."""
        key = await self._ready.get()
        if self._closed or key is None:
            self._ready.put_nowait(None)  # for the next worker that waits
            return None
        now = asyncio.get_running_loop().time()
        self._started_at[key] = now
        self._metrics.waited.observe(now - self._added_at.pop(key), name=self._metrics.name)
        self._metrics.depth.set(len(self), name=self._metrics.name)
        return key

    def done(self, key: Key) -> None:
        """Note that the worker has finished with the key, well or not."""
        started = self._started_at.pop(key)
        self._metrics.worked.observe(asyncio.get_running_loop().time() - started, name=self._metrics.name)
        if key in self._added_at and not self._closed:
            self._put(key)

    @property
    def name(self) -> str:
        """Return what its metrics are labelled with."""
        return self._metrics.name

    def under_way(self) -> Iterator[tuple[Key, float]]:
        """Return the keys that workers are at, and for how many seconds."""
        now = asyncio.get_running_loop().time()
        for key, started in self._started_at.items():
            yield key, now - started

    def shutdown(self) -> None:
        """Let every `get`, waiting or to come, return None. What is queued is dropped: a restart sees it all again."""
        self._closed = True
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()
        self._ready.put_nowait(None)

    def _expire(self, key: Key) -> None:
        del self._timers[key]
        # Timers go off a little early by the clock that they are set by.
        if self._held_until.get(key, 0.0) - asyncio.get_running_loop().time() < _EARLY:
            self._held_until.pop(key, None)
        self.add(key)

    def _put(self, key: Key) -> None:
        self._ready.put_nowait(key)
        self._metrics.depth.set(len(self), name=self._metrics.name)


class _Metrics:
    """The names are client-go's, which dashboards for controllers know."""

    def __init__(self, registry: Registry, name: str) -> None:
        self.name = name
        labels = ("name",)
        self.depth = registry.gauge("workqueue_depth", text="Keys waiting for a worker.", labels=labels)
        self.adds = registry.counter("workqueue_adds_total", text="Keys added, repeats left out.", labels=labels)
        self.retries = registry.counter(
            "workqueue_retries_total", text="Keys added again after a failure.", labels=labels
        )
        self.waited = registry.histogram(
            "workqueue_queue_duration_seconds", text="Seconds a key waited for a worker.", labels=labels
        )
        self.worked = registry.histogram(
            "workqueue_work_duration_seconds", text="Seconds a worker took for a key.", labels=labels
        )
