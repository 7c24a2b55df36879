"""Objects of one kind as watches, full lists and the answers to our own patches told of them.

Those three arrive in any order. What is older than what is here is dropped, and an object that was seen to go does
not come back by a late answer. Nothing here waits: all of it happens between two awaits.
"""

import logging
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any, ClassVar, Final, Generic, Protocol, TypeVar

_log = logging.getLogger(__name__)

Raw = Mapping[str, Any]

# UIDs of objects that went. An answer is late by seconds at most; so many do not go within that time.
_TOMBSTONES: Final = 4096
# What a parser can stumble over in an object that no API server should have accepted.
_UNREADABLE: Final = (KeyError, TypeError, ValueError, AttributeError, ArithmeticError)


class Stored(Protocol):
    """A frozen dataclass of what is read of an object. `key` is its name, with its namespace where it has one."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    @property
    def key(self) -> str:
        """Return `name`, or `namespace/name`."""
        ...

    @property
    def uid(self) -> str:
        """Return metadata.uid."""
        ...

    @property
    def resource_version(self) -> str:
        """Return metadata.resourceVersion."""
        ...


Item = TypeVar("Item", bound=Stored)


class Table(Generic[Item]):
    """Objects of one kind by key, with indexes; what an index says nothing about is not in it. Not thread safe."""

    def __init__(self, parse: Callable[[Raw], Item], indexes: Mapping[str, Callable[[Item], str]]) -> None:
        self._parse: Callable[[Raw], Item] = parse
        self._indexes: Mapping[str, Callable[[Item], str]] = indexes
        self._index: dict[str, defaultdict[str, set[str]]] = {index: defaultdict(set) for index in indexes}
        self._gone: OrderedDict[str, None] = OrderedDict()
        self.items: dict[str, Item] = {}
        self.listed = False

    def find(self, index: str, entry: str) -> list[Item]:
        """Return the objects under an entry of an index, by key."""
        return [self.items[key] for key in sorted(self._index[index].get(entry, ()))]

    def put(self, raw: Raw) -> bool:
        """Take an object; returns whether what we read of it is new."""
        try:
            new = self._parse(raw)
        except _UNREADABLE as error:
            # Not the object itself: it may be of any size and hold anything.
            _log.warning("An object that cannot be read is left out: %s (%r)", object_key(raw), error)
            return False
        old = self.items.get(new.key)
        if new.uid in self._gone or (old is not None and _is_older(new.resource_version, old.resource_version)):
            return False
        if old is not None:
            if old.uid != new.uid:
                self._bury(old.uid)
            self._unindex(old)
        self.items[new.key] = new
        for index, entry_of in self._indexes.items():
            if entry := entry_of(new):
                self._index[index][entry].add(new.key)
        return old is None or replace(new, resource_version=old.resource_version) != old

    def remove(self, key: str, uid: str) -> Item | None:
        """Drop an object for good. Returns it, None where one with that UID is not here."""
        self._bury(uid)
        old = self.items.get(key)
        if old is None or old.uid != uid:
            return None
        self._unindex(old)
        return self.items.pop(key)

    def replace(self, raws: Iterable[Raw], version: str) -> dict[str, Item]:
        """Take a full list, read at that version. Returns by key what is new, different or (as last seen) gone."""
        changed: dict[str, Item] = {}
        listed = set()
        for raw in raws:
            listed.add(key := object_key(raw))
            if self.put(raw):
                changed[key] = self.items[key]
        # An object that is newer than the list was made after it was read, or has been patched since.
        ghosts = [
            item
            for item in self.items.values()
            if item.key not in listed and not _is_older(version, item.resource_version)
        ]
        for ghost in ghosts:
            self._unindex(ghost)
            changed[ghost.key] = self.items.pop(ghost.key)
            if _are_comparable(version, ghost.resource_version):
                self._bury(ghost.uid)
        self.listed = True
        return changed

    def _bury(self, uid: str) -> None:
        self._gone[uid] = None
        while len(self._gone) > _TOMBSTONES:
            self._gone.popitem(last=False)

    def _unindex(self, item: Item) -> None:
        for index, entry_of in self._indexes.items():
            if entry := entry_of(item):
                keys = self._index[index][entry]
                keys.discard(item.key)
                if not keys:
                    del self._index[index][entry]


def _is_older(version: str, than: str) -> bool:
    # Comparable by Kubernetes' own promise since 1.35 and in fact ever since: etcd's revision. Anything else (another
    # storage) is not compared but taken as it comes.
    return _are_comparable(version, than) and int(version) < int(than)


def _are_comparable(*versions: str) -> bool:
    return all(version.isdecimal() for version in versions)


def object_key(raw: Raw) -> str:
    """Return `name` or `namespace/name` of an object as the API server sent it, empty where it has none."""
    metadata = raw.get("metadata")
    if not isinstance(metadata, Mapping):
        return ""
    name, namespace = str(metadata.get("name", "")), metadata.get("namespace")
    return f"{namespace}/{name}" if namespace else name
