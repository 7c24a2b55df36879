"""Every state of every claim as a watch tells of it, through restarts of the API server."""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from fakes.nodes.api import TRANSIENT, ApiError, KubeApi, Object, backoff, uid_of
from tests.kube import CLAIMS

_WATCH_SECONDS = 60


@dataclass(frozen=True)
class History:
    """What was seen of claims, by UID, with the simulated seconds at which it was seen.

    States between a watch that broke and the list after it may be missing, none is out of order.
    """

    states: defaultdict[str, list[tuple[float, Object]]] = field(default_factory=lambda: defaultdict(list))
    gone: dict[str, float] = field(default_factory=dict)

    def name(self, uid: str) -> str:
        """Return the claim's name; its UID where it was never seen."""
        return str(self.states[uid][0][1]["metadata"]["name"]) if uid in self.states else uid


@asynccontextmanager
async def observing(kubeconfig: Path, *, now: Callable[[], float]) -> AsyncIterator[History]:
    """Observe all claims meanwhile."""
    history = History()
    async with KubeApi(kubeconfig, connections=4) as api:
        task = asyncio.create_task(_observe(api, history, now))
        try:
            yield history
        finally:
            task.cancel()
            (result,) = await asyncio.gather(task, return_exceptions=True)
            if isinstance(result, Exception):
                raise result


async def _observe(api: KubeApi, history: History, now: Callable[[], float]) -> None:
    version, failures = "", 0
    while True:
        try:
            if not version:
                answer = await api.call("GET", CLAIMS)
                version = answer["metadata"]["resourceVersion"]
                for uid in set(history.states) - {uid_of(claim) for claim in answer["items"]}:
                    history.gone.setdefault(uid, now())
                for claim in answer["items"]:
                    _take(history, claim, at=now())
            async for kind, claim in api.watch(CLAIMS, version=version, seconds=_WATCH_SECONDS):
                version, failures = claim["metadata"]["resourceVersion"], 0
                if kind == "DELETED":
                    history.gone.setdefault(uid_of(claim), now())
                if kind != "BOOKMARK":
                    _take(history, claim, at=now())
        except ApiError:
            # Too old a version to go on from.
            version, failures = "", failures + 1
        except TRANSIENT:
            failures += 1
        await backoff(max(failures, 1))


def _take(history: History, claim: Object, *, at: float) -> None:
    states = history.states[uid_of(claim)]
    if not states or states[-1][1]["metadata"]["resourceVersion"] != claim["metadata"]["resourceVersion"]:
        states.append((at, claim))
