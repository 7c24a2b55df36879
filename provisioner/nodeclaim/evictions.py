"""Makes pods leave the Nodes that are taken down: by evictions, and by deletions once time is up.

The state machine says at each look which pods are to go; what is kept here is only how often and how lately that was
tried. A restart forgets it, and the first look after it says it all anew.
"""

import asyncio
import logging
import random
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Final, Protocol

from provisioner.apis.node import Node
from provisioner.apis.pod import Pod
from provisioner.kube.errors import Conflict, Gone, KubeError, Unavailable
from provisioner.kube.events import EventRecorder, ObjectRef
from provisioner.kube.metrics import Registry
from provisioner.kube.queue import WorkQueue
from provisioner.kube.watchdog import stuck_workers
from provisioner.nodeclaim.node_metrics import NodeMetrics
from provisioner.nodeclaim.view import Eviction

_log: Final = logging.getLogger(__name__)

# Pods that are dealt with side by side, of the 100 connections that the client library allows itself.
WORKERS: Final = 20
# Seconds. First and longest pause after a refusal, as Karpenter's eviction queue has them.
_RETRY_BASE: Final = 0.1
_RETRY_CAP: Final = 10.0
# Seconds after which a pod that is still wanted gone is asked to go once more. An accepted eviction shows at the next
# look as a pod that is being deleted, which is no longer wanted evicted; looks that began before are to be outlasted.
_SETTLED: Final = 10.0
# Seconds by which a deadline has to be earlier to be another one: graces are whole seconds, rounded at each look.
_ROUNDING: Final = 1.0

# A Node's name and a pod's UID: a pod that was made anew under its name is another one.
Key = tuple[str, str]


class PodRemover(Protocol):
    """What is asked of the Kubernetes API; the gateway is one."""

    async def evict_pod(self, namespace: str, name: str, *, uid: str) -> None:
        """Evict a pod. Raises Gone, Conflict where it is another one, Unavailable where budgets forbid."""
        ...

    async def delete_pod(self, namespace: str, name: str, *, uid: str, grace_seconds: int) -> None:
        """Delete a pod. Raises Gone, Conflict where it is another one."""
        ...


@dataclass
class _Wish:
    """A pod that is to go, and what has come of it. Deadlines and moments are by the event loop's clock."""

    node: Node
    pod: Pod
    reason: str
    deadline: float | None = None
    done_at: float | None = None
    done_with: float | None = None
    blocked: str = ""

    def is_settled(self, *, now: float) -> bool:
        """Tell whether the API server has lately taken what would be asked of it."""
        return self.done_at is not None and self.done_with == self.deadline and now - self.done_at < _SETTLED

    def hasten(self, deadline: float) -> bool:
        """Take the deadline unless it is later than one that is known; tell whether it was taken."""
        if self.deadline is not None and deadline > self.deadline - _ROUNDING:
            return False
        self.deadline = deadline
        return True


class Evictions:
    """The pods that are to go, each tried until it is accepted or no longer wanted.

    Level-triggered: `want` says what is wanted of a Node's pods, and whatever it does not name is wanted no more.
    """

    def __init__(
        self,
        kube: PodRemover,
        *,
        recorder: EventRecorder,
        rng: random.Random,
        metrics: Registry,
        node_metrics: NodeMetrics,
        workers: int = WORKERS,
    ) -> None:
        """Take the API, who is told of it, the source of jitter, and how many pods are dealt with side by side."""
        self._kube = kube
        self._recorder = recorder
        self._metrics = node_metrics
        self._workers = workers
        self._wishes: dict[str, dict[str, _Wish]] = {}
        self._queue: WorkQueue[Key] = WorkQueue(
            rng=rng, retry_base=_RETRY_BASE, retry_cap=_RETRY_CAP, name="eviction-queue", metrics=metrics
        )

    def want(self, node: Node, evictions: Collection[Eviction], *, reason: str) -> None:
        """Have these pods of the Node go, and no others. Returns at once; `reason` is why the Node is taken down.

        A grace makes a deletion out of an eviction that is still being tried, and counts from now. Of several
        deadlines for one pod the earliest counts.
        """
        now = asyncio.get_running_loop().time()
        before, wishes = self._wishes.pop(node.name, {}), {}
        for eviction in evictions:
            pod, key = eviction.pod, (node.name, eviction.pod.uid)
            wish = before.get(pod.uid) or _Wish(node=node, pod=pod, reason=reason)
            wish.node, wish.pod, wish.reason = node, pod, reason
            if eviction.grace_seconds is not None and wish.hasten(now + eviction.grace_seconds):
                # No pause that an eviction was told to make holds a deletion up.
                self._queue.forget(key)
                self._queue.add(key)
            elif pod.uid not in before or (wish.done_at is not None and not wish.is_settled(now=now)):
                self._queue.add(key)
            wishes[pod.uid] = wish
        if wishes:
            self._wishes[node.name] = wishes

    def forget(self, node_name: str) -> None:
        """Want nothing more of the Node's pods."""
        self._wishes.pop(node_name, None)

    def blocked(self, node_name: str) -> Mapping[str, str]:
        """Return by the pod's UID why pods of the Node could not be made to go when that was last tried."""
        wishes = self._wishes.get(node_name, {})
        return {uid: wish.blocked for uid, wish in wishes.items() if wish.blocked}

    def stuck(self) -> Iterator[str]:
        """Return the pods that a worker has been at for longer than any request takes."""
        return stuck_workers(self._queue)

    async def run(self) -> None:
        """Ask for what is wanted, until cancelled."""
        async with asyncio.TaskGroup() as group:
            for _ in range(self._workers):
                group.create_task(self._work())

    async def _work(self) -> None:
        while (key := await self._queue.get()) is not None:
            try:
                await self._handle(key)
            except Exception:  # noqa: BLE001 -- logged with its traceback and retried
                # A defect in the handling of one pod must not end the work for all others.
                _log.exception("eviction failed", extra={"node": key[0], "pod_uid": key[1]})
                self._queue.retry(key)
            finally:
                self._queue.done(key)

    async def _handle(self, key: Key) -> None:
        wish = self._wish(key)
        now = asyncio.get_running_loop().time()
        if wish is None or wish.is_settled(now=now):
            self._queue.forget(key)
            return
        deadline = wish.deadline
        try:
            if deadline is None:
                await self._evict(wish)
            else:
                await self._delete(wish, grace_seconds=max(1, round(deadline - now)))
        except (Gone, Conflict):
            # It is gone, and a new one of its name is not meant.
            pass
        except KubeError as error:
            if self._wish(key) is wish:
                self._refused(key, wish, error)
            else:
                self._queue.forget(key)
            return
        wish.done_at, wish.done_with, wish.blocked = asyncio.get_running_loop().time(), deadline, ""
        self._queue.forget(key)

    def _wish(self, key: Key) -> _Wish | None:
        node, uid = key
        return self._wishes.get(node, {}).get(uid)

    async def _evict(self, wish: _Wish) -> None:
        pod, reason = wish.pod, wish.reason
        try:
            await self._kube.evict_pod(pod.namespace, pod.name, uid=pod.uid)
        except KubeError as error:
            if error.status:
                self._metrics.eviction_answered(error.status)
            raise
        # It is 201 in fact; Karpenter's dashboards ask for this one.
        self._metrics.eviction_answered(200)
        self._metrics.pod_drained(reason=reason)
        self._recorder.record(_pod(pod), type="Normal", reason="Evicted", message=f"Evicted pod: {reason}")

    async def _delete(self, wish: _Wish, *, grace_seconds: int) -> None:
        pod, node, reason = wish.pod, wish.node, wish.reason
        await self._kube.delete_pod(pod.namespace, pod.name, uid=pod.uid, grace_seconds=grace_seconds)
        if wish.done_at is None or wish.done_with is None:
            self._recorder.record(
                _pod(pod),
                type="Normal",
                reason="Disrupted",
                message=f"Deleted with {grace_seconds} s of grace, of {pod.grace_seconds} s that the pod asks for, "
                f"because the termination grace period of Node {node.name} ends ({reason}). Neither "
                "PodDisruptionBudgets nor do-not-disrupt hold after that.",
            )

    def _refused(self, key: Key, wish: _Wish, error: KubeError) -> None:
        pod, is_news = wish.pod, wish.blocked != error.told
        wish.blocked = error.told
        self._queue.retry(key, at_least=(isinstance(error, Unavailable) and error.retry_after) or 0.0)
        if wish.deadline is None and _is_of_budgets(error):
            self._recorder.record(
                ObjectRef(kind="Node", name=wish.node.name, uid=wish.node.uid, api_version="v1"),
                type="Warning",
                reason="FailedDraining",
                message=f"Pod {pod.namespace}/{pod.name} cannot be evicted: {error.told}",
            )
        elif is_news:
            _log.warning(
                "pod not removed from its Node",
                extra={"node": wish.node.name, "pod": f"{pod.namespace}/{pod.name}", "error": str(error)},
            )


def _pod(pod: Pod) -> ObjectRef:
    return ObjectRef(kind="Pod", name=pod.name, uid=pod.uid, api_version="v1", namespace=pod.namespace)


def _is_of_budgets(error: KubeError) -> bool:
    # The API has no machine-readable sign for several budgets (kubernetes, pkg/registry/core/pod/storage/eviction.go).
    return error.status == 429 or (error.status == 500 and "more than one PodDisruptionBudget" in error.told)
