"""Kubernetes Events about claims and nodes: what happened, for people who run `kubectl describe`.

Recording never waits and never fails: an Event is a courtesy, and the conditions carry the state.
"""

import asyncio
import hashlib
import logging
import zlib
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from types import TracebackType
from typing import Any, Final, Literal, Protocol, Self

from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type, stop_after_attempt

from provisioner.apis.times import format_time
from provisioner.kube.errors import Conflict, Unavailable

_log = logging.getLogger(__name__)

EventType = Literal["Normal", "Warning"]

COMPONENT: Final = "gpu-provisioner"
# Where Events about cluster-scoped objects have to be (kubernetes, pkg/apis/core/validation/events.go).
CLUSTER_NAMESPACE: Final = "default"
# Bytes. The limit of events.k8s.io, which shows the same objects (validation/events.go, NoteLengthLimit).
MAX_MESSAGE: Final = 1024
# Seconds within which the same thing is said about the same object only once, as Karpenter does.
DEDUPE_WINDOW: Final = 120.0
# Seconds that `close` gives to what is still queued.
FLUSH_TIMEOUT: Final = 5.0

# Events that are written side by side, of the connections that all requests share (kube/access.py). One at a time, a
# burst of 1,000 lags minutes behind as soon as an API server takes 100 ms for each.
_WORKERS: Final = 8
# Events that wait or are being written, over all workers.
_QUEUE: Final = 1000
# How often an Event is tried, and the seconds after the first failure; they double. An API server that is short of
# seats answers 429 with a Retry-After of seconds, one behind a load balancer is back within ten.
_ATTEMPTS: Final = 5
_PAUSE: Final = 1.0
# Seconds. A longer Retry-After is cut to it: all that is behind this Event in its worker's queue waits as well.
_MAX_PAUSE: Final = 60.0
_REMEMBERED: Final = 10_000


class EventSink(Protocol):
    """What the recorder needs of the gateway."""

    async def get_event(self, namespace: str, name: str) -> dict[str, Any] | None:
        """Return the Event, or None."""

    async def create_event(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """Create an Event; raises `Conflict` where the name exists."""

    async def patch_event(self, namespace: str, name: str, patch: Mapping[str, Any]) -> dict[str, Any]:
        """Merge-patch an Event."""


@dataclass(frozen=True, kw_only=True)
class ObjectRef:
    """The object that an Event is about; `namespace` is empty for cluster-scoped ones."""

    kind: str
    name: str
    uid: str
    api_version: str
    namespace: str = ""


class EventRecorder:
    """Writes Events in tasks of its own. Use as `async with`: leaving flushes, for `FLUSH_TIMEOUT` at most, unless by
    an exception.

    The name of an Event follows from object, reason and message: the same said again, by this process or by the one
    after a restart, counts up the Event that is there. What is said about one object is written by one worker, so that
    it stays in its order and nothing is counted up by two at once; between objects there is no order.
    """

    def __init__(self, sink: EventSink, *, clock: Callable[[], datetime], instance: str) -> None:
        """Take the wall clock for timestamps and the name of this process (its pod) as the reporting instance."""
        self._sink = sink
        self._clock = clock
        self._instance = instance
        self._queues = tuple(asyncio.Queue[dict[str, Any]]() for _ in range(_WORKERS))
        self._unwritten = 0
        self._all_written = asyncio.Event()
        self._all_written.set()
        self._said: OrderedDict[tuple[str, str, str], float] = OrderedDict()
        self._complained: set[str] = set()
        self._workers: tuple[asyncio.Task[None], ...] = ()

    async def __aenter__(self) -> Self:
        self._workers = tuple(
            asyncio.create_task(self._run(queue), name=f"event recorder {number}")
            for number, queue in enumerate(self._queues)
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # An exception ends the process: what there was to say is not waited for, least of all where it may not be said.
        await self.close(timeout=FLUSH_TIMEOUT if kind is None else 0.0)

    def record(self, regarding: ObjectRef, *, type: EventType, reason: str, message: str) -> None:  # noqa: A002
        """Say something about an object. Returns at once; what was said within `DEDUPE_WINDOW` is dropped."""
        message = _cut(message)
        if self._was_said((regarding.uid, reason, message)):
            return
        if self._unwritten >= _QUEUE:
            self._complain("queue full", "Events are lost: more are recorded than the API server takes")
            return
        worker = zlib.crc32(regarding.uid.encode()) % _WORKERS
        self._queues[worker].put_nowait(self._event(regarding, type, reason, message))
        self._unwritten += 1
        self._all_written.clear()

    async def close(self, *, timeout: float = FLUSH_TIMEOUT) -> None:
        """Write what is queued, within so many seconds, and stop."""
        workers, self._workers = self._workers, ()
        if not workers:
            return
        try:
            async with asyncio.timeout(timeout):
                await self._all_written.wait()
        except TimeoutError:
            self._complain("flush", f"Events are lost: {self._unwritten} could not be written before the end")
        finally:
            for worker in workers:
                worker.cancel()
            await asyncio.wait(workers)

    def _was_said(self, key: tuple[str, str, str]) -> bool:
        now = asyncio.get_running_loop().time()
        while self._said and next(iter(self._said.values())) <= now - DEDUPE_WINDOW:
            self._said.popitem(last=False)
        if key in self._said:
            return True
        self._said[key] = now
        if len(self._said) > _REMEMBERED:
            self._said.popitem(last=False)
        return False

    def _event(self, regarding: ObjectRef, kind: EventType, reason: str, message: str) -> dict[str, Any]:
        now = format_time(self._clock())
        digest = hashlib.sha256("\0".join((regarding.uid, reason, message)).encode()).hexdigest()
        return {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {
                # A name has 253 characters at most, and no dash or dot before the dot.
                "name": f"{regarding.name[:230].rstrip('-.')}.{digest[:16]}",
                "namespace": regarding.namespace or CLUSTER_NAMESPACE,
            },
            "involvedObject": {
                "apiVersion": regarding.api_version,
                "kind": regarding.kind,
                "name": regarding.name,
                "uid": regarding.uid,
                **({"namespace": regarding.namespace} if regarding.namespace else {}),
            },
            "type": kind,
            "reason": reason,
            "message": message,
            "source": {"component": COMPONENT},
            "reportingComponent": COMPONENT,
            "reportingInstance": self._instance,
            "firstTimestamp": now,
            "lastTimestamp": now,
            "count": 1,
        }

    async def _run(self, queue: asyncio.Queue[dict[str, Any]]) -> None:
        retrying = AsyncRetrying(
            retry=retry_if_exception_type(Unavailable), stop=stop_after_attempt(_ATTEMPTS), wait=_pause, reraise=True
        )
        while True:
            event = await queue.get()
            try:
                async for attempt in retrying:
                    with attempt:
                        await self._write(event, is_repeated=attempt.retry_state.attempt_number > 1)
            except Exception as error:  # noqa: BLE001 -- whatever it is, the next Event deserves its chance
                self._complain(type(error).__name__, f"Events are lost: {error!r}")
            finally:
                self._unwritten -= 1
                if not self._unwritten:
                    self._all_written.set()

    async def _write(self, event: dict[str, Any], *, is_repeated: bool) -> None:
        namespace, name = event["metadata"]["namespace"], event["metadata"]["name"]
        try:
            await self._sink.create_event(event)
        except Conflict:
            present = await self._sink.get_event(namespace, name) or {}
            if is_repeated and present.get("lastTimestamp") == event["lastTimestamp"]:
                # The write that seemed to fail was carried out. Nobody else says the same in the same second.
                return
            count = int(present.get("count") or 1) + 1
            await self._sink.patch_event(namespace, name, {"count": count, "lastTimestamp": event["lastTimestamp"]})

    def _complain(self, about: str, message: str) -> None:
        # Once a kind of trouble: a role without `create events` would fill the log with one line an Event.
        if about not in self._complained:
            self._complained.add(about)
            _log.warning("%s (said only once)", message)


def _pause(state: RetryCallState) -> float:
    error = state.outcome.exception() if state.outcome else None
    wanted = error.retry_after if isinstance(error, Unavailable) else None
    return min(_MAX_PAUSE, max(wanted or 0.0, _PAUSE * 2.0 ** (state.attempt_number - 1)))


def _cut(message: str) -> str:
    encoded = message.encode()
    if len(encoded) <= MAX_MESSAGE:
        return message
    return encoded[: MAX_MESSAGE - 3].decode(errors="ignore") + "..."
