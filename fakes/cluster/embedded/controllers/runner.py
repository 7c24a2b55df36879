"""Calls controllers when what they look after has changed."""

import asyncio
import logging
from collections.abc import Iterable
from typing import Final, Protocol

from fakes.cluster.embedded.api import Api
from fakes.cluster.embedded.controllers.disruption import Budgets
from fakes.cluster.embedded.controllers.garbage import Collections, Expiry, Garbage
from fakes.cluster.embedded.controllers.nodes import Nodes
from fakes.cluster.embedded.controllers.scheduler import Placement, Scheduler
from fakes.cluster.embedded.controllers.workloads import DaemonSets, Jobs, StatefulSets
from fakes.cluster.embedded.problems import Problem
from fakes.cluster.embedded.store import Event, Key

_log = logging.getLogger(__name__)

# Seconds after which what was refused is tried again.
_AGAIN: Final = 1.0


class Controller(Protocol):
    """Brings objects of one kind one step on; told which by a key."""

    def keys(self, event: Event) -> Iterable[Key]:
        """Return the keys that a change concerns."""

    def sync(self, key: Key) -> None:
        """Do what is due. Raises Problem: to be tried again."""


Entry = tuple[Controller, Key]


class Runner:
    """A queue for all controllers: each key of each is in it once."""

    def __init__(self, api: Api) -> None:
        placement = Placement()
        self._controllers: tuple[Controller, ...] = (
            Collections(api),
            Garbage(api),
            Expiry(api),
            Nodes(api, placement),
            Scheduler(api, placement),
            *(workload(api) for workload in (DaemonSets, StatefulSets, Jobs)),
            Budgets(api),
        )
        self._queue: dict[Entry, None] = {}
        self._news = asyncio.Event()
        api.store.listeners += [placement.note, self._note]

    async def run(self) -> None:
        """Serve the queue until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            await self._news.wait()
            self._news.clear()
            while self._queue:
                controller, key = entry = next(iter(self._queue))
                del self._queue[entry]
                try:
                    controller.sync(key)
                except Problem as problem:
                    _log.info("%s %s: %s", type(controller).__name__, key, problem)
                    loop.call_later(_AGAIN, self._add, entry)
                except Exception:  # noqa: BLE001 -- one controller's bug is not to stop the others
                    _log.exception("%s %s", type(controller).__name__, key)
                # Requests get their turn between any two steps.
                await asyncio.sleep(0)

    def _note(self, event: Event) -> None:
        for controller in self._controllers:
            for key in controller.keys(event):
                self._add((controller, key))

    def _add(self, entry: Entry) -> None:
        self._queue[entry] = None
        self._news.set()
