"""The pods that a model is split over: one leads and answers, the others work for it.

What vLLM itself does when one of them goes is not enough: a leader stays healthy until a request hangs, and a worker
outlives its leader. So each pod's program looks at the others over HTTP, and ends when one that it has begun with is
gone or has been started anew; its kubelet starts it again. To come together they go by `instance`, which is another one
after each start:

    the leader waits until every worker says that it gathers, notes their instances (`members`), then starts vLLM
    a worker waits until the leader has noted it, then starts vLLM

A worker that comes back finds itself not among the leader's members and waits; the leader sees that its worker is
another one, ends, and comes back to gather. Without that order the two would go on ending because of each other.
"""

import asyncio
import json
import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import aiohttp

from provisioner.serving import bodies
from provisioner.serving.environment import PORT
from provisioner.serving.problem import Problem
from provisioner.serving.state import Phase, State

_log: Final = logging.getLogger(__name__)
# Seconds between looks, and without an answer until a pod counts as gone: a busy one may be late, one whose Node has
# failed is not back sooner.
PERIOD: Final = 2.0
LOST: Final = 30.0
# Looks in a row without an answer until a leader that drains counts as ended.
_SILENT: Final = 3
_TIMEOUT: Final = 5.0
_LARGEST: Final = 1 << 16


@dataclass(frozen=True, kw_only=True)
class Peer:
    """What another pod of the group says of itself; empty where it does not answer."""

    instance: str = ""
    phase: str = ""
    members: Mapping[str, str] | None = None


class Group:
    """The other pods of a pod's group. `urls` are their gates by rank: all workers' for the leader, 0 for a worker."""

    def __init__(self, *, state: State, urls: Mapping[int, str], period: float = PERIOD, lost: float = LOST) -> None:
        self._state = state
        self._urls = dict(urls)
        self._period = period
        self._lost = lost

    async def gather(self) -> None:
        """Return when the group is complete and vLLM may be started."""
        self._state.enter(Phase.GATHERING)
        async with aiohttp.ClientSession() as session:
            while True:
                peers = await self._look(session)
                if self._state.rank:
                    leader = peers[0]
                    if (leader.members or {}).get(str(self._state.rank)) == self._state.instance:
                        self._state.members = {0: leader.instance}
                        return
                    missing = ["the leader"]
                else:
                    missing = [f"worker {rank}" for rank, peer in peers.items() if peer.phase != Phase.GATHERING]
                    if not missing:
                        self._state.members = {rank: peer.instance for rank, peer in peers.items()}
                        return
                self._state.progress = f"waiting for {', '.join(missing)}"
                await asyncio.sleep(self._period)

    async def watch(self) -> None:
        """Return never. Raises Problem when the group has come apart."""
        seen = dict.fromkeys(self._urls, time.monotonic())
        async with aiohttp.ClientSession() as session:
            while True:
                for rank, peer in (await self._look(session)).items():
                    who = f"worker {rank}" if rank else "the leader"
                    if peer.instance and peer.instance != self._state.members.get(rank):
                        raise Problem(f"{who} was started anew: the group begins again")
                    if peer.instance and peer.phase != Phase.FAILED:
                        seen[rank] = time.monotonic()
                    elif time.monotonic() - seen[rank] > self._lost:
                        raise Problem(f"{who} ({self._urls[rank]}) has not answered for {self._lost:.0f} s")
                await asyncio.sleep(self._period)

    async def until_leader_has_ended(self, *, seconds: float) -> None:
        """Wait as long as the leader answers what it has taken, at most `seconds`: it needs this worker for that."""
        end, silent = time.monotonic() + seconds, 0
        async with aiohttp.ClientSession() as session:
            while time.monotonic() < end:
                leader = (await self._look(session))[0]
                silent = 0 if leader.instance else silent + 1
                if silent >= _SILENT or leader.phase == Phase.FAILED:
                    return
                if leader.instance and leader.instance != self._state.members.get(0):
                    return
                await asyncio.sleep(min(self._period, max(end - time.monotonic(), 0)))

    async def _look(self, session: aiohttp.ClientSession) -> dict[int, Peer]:
        found = await asyncio.gather(*(_ask(session, url) for url in self._urls.values()))
        return dict(zip(self._urls, found, strict=True))


def urls(leader: str, *, nodes: int, rank: int, port: int = PORT, workers: tuple[str, ...] = ()) -> dict[int, str]:
    """Return where the other pods' gates are. `workers` are their hosts where they are no pods of a StatefulSet.

    Raises Problem for a leader that is not a StatefulSet's first pod, and for too few or too many workers.
    """
    if rank:
        return {0: f"http://{leader}:{port}"}
    if workers:
        if len(workers) != nodes - 1:
            raise Problem(f"WORKER_ADDRESSES names {len(workers)} workers of a group of {nodes}")
        return {number: f"http://{host}:{port}" for number, host in enumerate(workers, start=1)}
    host, dot, rest = leader.partition(".")
    if not host.endswith("-0"):
        raise Problem(f"LEADER_ADDRESS is {leader[:100]!r}: must be the name of a StatefulSet's first pod")
    return {number: f"http://{host[:-1]}{number}{dot}{rest}:{port}" for number in range(1, nodes)}


async def _ask(session: aiohttp.ClientSession, url: str) -> Peer:
    try:
        async with session.get(f"{url}/health", timeout=aiohttp.ClientTimeout(total=_TIMEOUT)) as answer:
            said: Any = json.loads(await bodies.read(answer.content, _LARGEST))
    except (aiohttp.ClientError, OSError, TimeoutError, ValueError, RecursionError):
        return Peer()
    if not isinstance(said, dict):
        return Peer()
    members = said.get("members")
    return Peer(
        instance=str(said.get("instance", "")),
        phase=str(said.get("state", "")),
        members=members if isinstance(members, dict) else None,
    )
