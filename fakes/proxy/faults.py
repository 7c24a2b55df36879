"""What can go wrong between a client and the API server, with which calls, and how often."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, Generic, TypeVar

from fakes.proxy.calls import Call


@dataclass(frozen=True, kw_only=True)
class Fault:
    """Which calls are hit: globs on verb, resource (`nodeclaims*` has the status too) and name, and how many.

    `times` counts calls, or events where the fault is one of events; None is "until cleared". A collection has an
    empty name, which `*` matches.
    """

    verb: str = "*"
    resource: str = "*"
    name: str = "*"
    times: int | None = 1

    def matches(self, call: Call, *, name: str | None = None) -> bool:
        """Tell whether a call is hit, or an event in it about an object of that name."""
        return (
            fnmatchcase(call.verb, self.verb)
            and fnmatchcase(call.resource, self.resource)
            and fnmatchcase(call.name if name is None else name, self.name)
        )


@dataclass(frozen=True, kw_only=True)
class Delay(Fault):
    """The answer comes so many seconds late; with `after_effect` off, so does what was asked for."""

    seconds: float
    after_effect: bool = True


@dataclass(frozen=True, kw_only=True)
class Disconnect(Fault):
    """The connection is reset instead of an answer: before the call has had an effect, or after."""

    after_effect: bool = False


@dataclass(frozen=True, kw_only=True)
class Answer(Fault):
    """A Status object of that code instead of the call, or with `after_effect` of its answer.

    `reason` is the machine-readable one, such as `Conflict`. `retry_after` is in whole seconds.
    """

    status: int
    reason: str = ""
    message: str = "spoiled"
    retry_after: int | None = None
    after_effect: bool = False


@dataclass(frozen=True, kw_only=True)
class DropEvents(Fault):
    """Events of watches are left out, of a type (a glob). Bookmarks pass, so that no new watch makes up for it."""

    event: str = "*"

    def concerns(self, event: str) -> bool:
        """Tell whether events of that type are left out."""
        return fnmatchcase(event, self.event)


@dataclass(frozen=True, kw_only=True)
class DelayEvents(Fault):
    """Events of watches come so many seconds late, in their order."""

    seconds: float


@dataclass(frozen=True, kw_only=True)
class StallWatch(Fault):
    """Watches stay open and say nothing; what they have to say follows once the fault is cleared."""


@dataclass(frozen=True, kw_only=True)
class CutWatch(Fault):
    """Watches are torn down: those that are open, and those to come as soon as they have begun."""


@dataclass(frozen=True, kw_only=True)
class FailWatch(Fault):
    """Watches end with an ERROR event: by default the one that tells that the resourceVersion is too old."""

    status: int = 410
    reason: str = "Expired"


F = TypeVar("F", bound=Fault)


@dataclass
class Active(Generic[F]):
    """A fault in force, how often it has hit, and how many of the events that it holds back were handed on since."""

    fault: F
    hits: int = 0
    handed_on: int = 0
    cleared: bool = False

    @property
    def spent(self) -> bool:
        """Whether it hits no more."""
        return self.cleared or (self.fault.times is not None and self.hits >= self.fault.times)


class FaultBook:
    """The faults in force, in the order they were added; the first of a kind that matches is the one that hits."""

    def __init__(self) -> None:
        self._entries: list[Active[Any]] = []
        self._listeners: set[asyncio.Event] = set()

    def add(self, fault: F) -> Active[F]:
        """Put a fault in force."""
        active = Active(fault)
        self._entries.append(active)
        self._tell()
        return active

    def clear(self, active: Active[Any] | None = None) -> None:
        """Take a fault out of force; without one, all."""
        for entry in self._entries if active is None else [active]:
            entry.cleared = True
        self._entries = [entry for entry in self._entries if not entry.cleared]
        self._tell()

    def claim(
        self, kind: type[F], call: Call, *, name: str | None = None, where: Callable[[F], bool] = lambda _: True
    ) -> Active[F] | None:
        """Return the fault of a kind that hits a call, or an event about an object of that name; count the hit."""
        for entry in self._entries:
            fault = entry.fault
            if isinstance(fault, kind) and not entry.spent and fault.matches(call, name=name) and where(fault):
                entry.hits += 1
                return entry
        return None

    @contextmanager
    def listening(self) -> Iterator[asyncio.Event]:
        """Give what is set whenever a fault is added or cleared: watches are hit while they last."""
        self._listeners.add(changed := asyncio.Event())
        try:
            yield changed
        finally:
            self._listeners.discard(changed)

    def _tell(self) -> None:
        for changed in self._listeners:
            changed.set()
