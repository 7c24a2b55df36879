"""The watches of one run of the controller: late, in order for each object, at times twice, and with gaps.

What happens in a gap is never told of. The list that ends it shows what is there, and not what went.
"""

from collections.abc import Callable, Iterable
from typing import Any, Final

from provisioner.kube.watch import EventType, Watched
from tests.chaos.loop import Life
from tests.chaos.objects import Change, Objects, Raw
from tests.chaos.world import World

_LATEST: Final = 8.0


class Watches:
    """Told of every change from `start` on, for as long as the run lives."""

    def __init__(self, world: World, objects: Objects, life: Life) -> None:
        self._world = world
        self._objects = objects
        self._life = life
        self._dice = world.dice(f"watches {life.number}")
        self._handlers: dict[str, Callable[[EventType, dict[str, Any]], None]] = {}
        self._told_at: dict[str, float] = {}
        self._gaps: set[str] = set()

    def start(self, watched: Iterable[Watched]) -> None:
        """List what is there, and watch from there on."""
        self._handlers = {each.plural: each.handler for each in watched}
        self._objects.on_change.append(self._on_change)
        for plural in self._handlers:
            self._list(plural)

    def stop(self) -> None:
        """Tell nothing any more."""
        if self._handlers:
            self._handlers = {}
            self._objects.on_change.remove(self._on_change)

    def interrupt(self, plural: str, seconds: float) -> None:
        """Lose what happens to a kind for so long."""
        if plural in self._gaps or not self._handlers:
            return
        self._gaps.add(plural)
        self._world.fault("watch gap", f"{plural} for {seconds:.1f} s")

        def end() -> None:
            self._gaps.discard(plural)
            if self._life.is_alive and self._handlers:
                self._list(plural)

        self._world.after(seconds, end)

    def _list(self, plural: str) -> None:
        for raw in self._objects.all(plural):
            self._send(plural, "ADDED", raw)

    def _on_change(self, change: Change) -> None:
        if change.plural not in self._handlers or not self._life.is_alive:
            return
        if change.plural in self._gaps:
            return
        kind: EventType = "DELETED" if change.after is None else "ADDED" if change.before is None else "MODIFIED"
        self._send(change.plural, kind, change.last)

    def _send(self, plural: str, kind: EventType, raw: Raw) -> None:
        # One worker for each object, by its UID: two that had one name are not told of in any order.
        uid, loop = raw["metadata"]["uid"], self._world.loop
        slow = self._world.faults_on and self._dice.chance(0.1)
        delay = self._dice.short(0.0, _LATEST) if slow else self._dice.short(0.0, 0.3)
        when = max(loop.time() + delay, self._told_at.get(uid, 0.0) + 1e-6)
        if self._world.faults_on and self._dice.chance(0.03):
            self._world.counts["fault watch event twice"] += 1
            loop.call_at(when, self._tell, plural, kind, raw, context=loop.within(self._life))
            when += 1e-6
        self._told_at[uid] = when
        loop.call_at(when, self._tell, plural, kind, raw, context=loop.within(self._life))

    def _tell(self, plural: str, kind: EventType, raw: Raw) -> None:
        metadata, handler = raw["metadata"], self._handlers.get(plural)
        if handler is None:
            return
        if self._world.is_traced:
            text = f"{kind} {plural} {metadata['name']} version {metadata['resourceVersion']}"
            self._world.trace(f"watch{self._life.number}", text)
        handler(kind, raw)
