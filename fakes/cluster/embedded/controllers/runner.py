"""Calls controllers when what they look after has changed."""

import asyncio
import logging
from collections.abc import Iterable
from typing import Final, Protocol

from fakes.cluster.embedded.controllers import (
    collections,
    daemonsets,
    deployments,
    garbage,
    jobs,
    nodes,
    replicasets,
    scheduler,
    statefulsets,
)
from fakes.cluster.embedded.controllers.placement import Placement
from fakes.cluster.embedded.disruption import Budgets
from fakes.cluster.embedded.problems import Problem
from fakes.cluster.embedded.rest import Api
from fakes.cluster.embedded.store import Event, Key

_log = logging.getLogger(__name__)

# Seconds after which what was refused is tried again.
_AGAIN: Final = 1.0


class Controller(Protocol):
    """Brings objects of one kind one step on; told which by a key."""

    def keys(self, event: Event) -> Iterable[Key]:
        """Return the keys that a change concerns."""

    def sync(self, key: Key) -> float | None:
        """Do what is due; return in how many seconds something is due again, None when only a change can make it so."""


class Runner:
    """A queue for all controllers: each key of each is in it once."""

    def __init__(self, api: Api) -> None:
        placement = Placement()
        self._controllers: tuple[Controller, ...] = (
            collections.Collections(api),
            garbage.Garbage(api),
            nodes.Nodes(api, placement),
            scheduler.Scheduler(api, placement),
            daemonsets.DaemonSets(api, placement),
            deployments.Deployments(api),
            replicasets.ReplicaSets(api),
            statefulsets.StatefulSets(api),
            jobs.Jobs(api),
            Budgets(api),
        )
        self._queue: dict[tuple[Controller, Key], None] = {}
        self._news = asyncio.Event()
        api.store.listeners += [placement.note, self._note]

    async def run(self) -> None:
        """Serve the queue until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            await self._news.wait()
            while self._queue:
                controller, key = entry = next(iter(self._queue))
                del self._queue[entry]
                try:
                    again = controller.sync(key)
                except Problem as problem:
                    _log.info("%s %s: %s", type(controller).__name__, key, problem)
                    again = _AGAIN
                except Exception:  # noqa: BLE001 -- one controller's bug is not to stop the others
                    _log.exception("%s %s", type(controller).__name__, key)
                    again = None
                if again is not None:
                    loop.call_later(again, self._add, controller, key)
                # Requests get their turn between any two steps.
                await asyncio.sleep(0)
            self._news.clear()

    def _note(self, event: Event) -> None:
        for controller in self._controllers:
            for key in controller.keys(event):
                self._add(controller, key)

    def _add(self, controller: Controller, key: Key) -> None:
        self._queue[(controller, key)] = None
        self._news.set()
