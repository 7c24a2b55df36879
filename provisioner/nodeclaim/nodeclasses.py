"""The latest KaitoNodeClasses, as the watch and full lists told of them, raw and by name."""

from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any

Raw = Mapping[str, Any]


class NodeClasses:
    """The classes by name. `listed` is False until they were listed once: before that, absence means nothing."""

    def __init__(self) -> None:
        self._raws: dict[str, Raw] = {}
        self._missed: frozenset[str] = frozenset()
        self.listed = False

    def get(self, name: str) -> Raw | None:
        """Return the class of that name."""
        return self._raws.get(name)

    def put(self, raw: Raw) -> None:
        """Take a class as the API server sent it."""
        self._raws[raw["metadata"]["name"]] = raw

    def remove(self, name: str) -> None:
        """Drop a class that was deleted."""
        self._raws.pop(name, None)

    async def relist(self, read: Callable[[], Awaitable[Iterable[Raw]]]) -> frozenset[str]:
        """Take a full list over; return the names of classes that came or went by it.

        A watch may miss a deletion and nothing else, so what it has told stays. A class goes when two lists in a row
        are without it and it was not written meanwhile: while an API server starts, it may not serve a CRD's kind yet,
        and a class may have come since the list was read.
        """
        before = dict(self._raws)
        found = {str(raw["metadata"]["name"]): raw for raw in await read()}
        missing = frozenset(name for name in before if name not in found and self._raws.get(name) is before[name])
        gone, self._missed = missing & self._missed, missing
        new = {name: raw for name, raw in found.items() if name not in before and name not in self._raws}
        for name in gone:
            del self._raws[name]
        self._raws |= new
        self.listed = True
        return gone | frozenset(new)
