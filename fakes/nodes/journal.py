"""What happened on the nodes, in order: for tables, logs and tests that wait for it."""

import asyncio
import logging
from collections import deque
from dataclasses import dataclass
from enum import StrEnum
from fnmatch import fnmatchcase

from fakes.nodes.clock import Clock

logger = logging.getLogger(__name__)

KEPT = 10_000


class What(StrEnum):
    """Kinds of happenings."""

    JOINED = "joined"
    ADOPTED = "adopted"
    READY = "ready"
    NOT_READY = "not-ready"
    GPUS = "gpus"
    SILENT = "silent"
    VM_GONE = "vm-gone"
    NODE_REMOVED = "node-removed"
    NODE_DELETED = "node-deleted"
    POD_RUNNING = "pod-running"
    POD_FINISHED = "pod-finished"
    POD_ENDED = "pod-ended"


@dataclass(frozen=True, kw_only=True)
class Happening:
    """One line of the journal; `at` in simulated seconds."""

    at: float
    node: str
    what: What
    detail: str = ""


class Journal:
    """The last happenings, and a way to wait for one."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._kept: deque[Happening] = deque(maxlen=KEPT)
        self._waiters: list[tuple[What, str, asyncio.Future[Happening]]] = []

    @property
    def happenings(self) -> tuple[Happening, ...]:
        """Oldest first."""
        return tuple(self._kept)

    def record(self, what: What, node: str, detail: str = "") -> None:
        """Write one line."""
        happening = Happening(at=self._clock.now(), node=node, what=what, detail=detail)
        self._kept.append(happening)
        logger.info("%s %s %s", node, what, detail)
        for wanted, glob, waiter in self._waiters:
            if wanted is what and fnmatchcase(node, glob) and not waiter.done():
                waiter.set_result(happening)
        self._waiters = [entry for entry in self._waiters if not entry[2].done()]

    async def wait(self, what: What, *, node: str = "*") -> Happening:
        """Return the latest line of a kind on a node (a glob); wait for the first one if there is none."""
        for happening in reversed(self._kept):
            if happening.what is what and fnmatchcase(happening.node, node):
                return happening
        waiter: asyncio.Future[Happening] = asyncio.get_running_loop().create_future()
        self._waiters.append((what, node, waiter))
        return await waiter
