"""The objects, their versions and who watches them. Everything here happens at once: nothing in it waits."""

import json
from collections import defaultdict, deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from itertools import takewhile
from typing import Final, Literal

from fakes.cluster.embedded.objects import Object, name_of, namespace_of, uid_of, with_metadata
from fakes.cluster.embedded.problems import not_served
from fakes.cluster.embedded.resources import Resource

# Events a resource that a watch can go back to; etcd keeps five minutes, which this is about for a busy resource.
_LOG: Final = 5_000

Key = tuple[str, str]
"""Namespace and name."""
# Field manager, operation and subresource.
Owner = tuple[str, str, str]
Path = tuple[str, ...]


class Item:
    """One object in one version, without apiVersion and kind. For `owners` see `fakes.cluster.embedded.ownership`."""

    def __init__(
        self, resource: Resource, content: Object, *, writer: str, owners: dict[Owner, frozenset[Path]] | None
    ) -> None:
        self.resource = resource
        self.object = content
        self.writer = writer
        self.owners = owners
        self.key: Key = (namespace_of(content), name_of(content))
        self.version = int(content["metadata"].get("resourceVersion") or 0)

    def become(self, content: Object) -> "Item":
        """Return the same object with another content, which nobody in particular has written."""
        return Item(self.resource, content, writer=self.writer, owners=self.owners)

    @cached_property
    def json(self) -> bytes:
        """The object as text, made once however many read and watch it."""
        return json.dumps(self.object, separators=(",", ":"), ensure_ascii=False).encode()


@dataclass(frozen=True)
class Event:
    """A change. `old` is what was there before; for DELETED `item` is the last state, in the version of its end."""

    change: Literal["ADDED", "MODIFIED", "DELETED"]
    item: Item
    old: Item | None


class Collection:
    """All objects of one resource, and the latest changes to them."""

    def __init__(self, version: int) -> None:
        self.items: dict[Key, Item] = {}
        self.log: deque[Event] = deque(maxlen=_LOG)
        # Called with None when there is nothing more to watch.
        self.watchers: set[Callable[[Event | None], None]] = set()
        # A watch can begin at this version and later.
        self.oldest = version

    def since(self, version: int) -> list[Event] | None:
        """Return the changes after a version, None where they are forgotten."""
        if version < self.oldest:
            return None
        later = list(takewhile(lambda event: event.item.version > version, reversed(self.log)))
        return later[::-1]

    def publish(self, event: Event) -> None:
        """Remember a change and tell it to the watchers."""
        if len(self.log) == _LOG:
            self.oldest = self.log[0].item.version
        self.log.append(event)
        for watcher in tuple(self.watchers):
            watcher(event)


class Store:
    """All objects. `listeners` are told of every change after it was made."""

    def __init__(self) -> None:
        self.version = 1
        self.listeners: list[Callable[[Event], None]] = []
        self._collections: dict[str, Collection] = {}
        self._by_uid: dict[str, Item] = {}
        self._dependents: defaultdict[str, dict[str, Item]] = defaultdict(dict)

    def open(self, path: str) -> None:
        """Begin to keep objects of a resource; its past is unknown. Opening what is open does nothing."""
        self._collections.setdefault(path, Collection(self.version))

    def drop(self, path: str) -> None:
        """Forget a resource that is served no more, and end its watches."""
        gone = self._collections.pop(path)
        for watcher in tuple(gone.watchers):
            watcher(None)

    def collection(self, resource: Resource) -> Collection:
        """Return the objects of a resource. Raises Problem: 404 when it is served no more."""
        found = self._collections.get(resource.path)
        if found is None:
            raise not_served()
        return found

    def get(self, resource: Resource, key: Key) -> Item | None:
        """Return the object, None where there is none. Raises Problem as `collection`."""
        return self.collection(resource).items.get(key)

    def by_uid(self, uid: str) -> Item | None:
        """Return the object of a UID, None where there is none."""
        return self._by_uid.get(uid)

    def dependents(self, uid: str) -> list[Item]:
        """Return the objects that name an owner of that UID."""
        return list(self._dependents.get(uid, {}).values())

    def in_namespace(self, namespace: str) -> list[Item]:
        """Return all objects of a namespace."""
        everything = (item for collection in self._collections.values() for item in collection.items.values())
        return [item for item in everything if item.key[0] == namespace]

    def put(self, item: Item) -> Item:
        """Keep an object, in the next version, and tell of it."""
        made = self._next(item)
        items = self.collection(item.resource).items
        old = items.get(made.key)
        items[made.key] = made
        self._index(old, made)
        self._publish(Event("ADDED" if old is None else "MODIFIED", made, old))
        return made

    def remove(self, item: Item) -> Item:
        """Take an object out and tell of it; `item` is its last state."""
        made = self._next(item)
        old = self.collection(item.resource).items.pop(made.key)
        self._index(old, None)
        self._publish(Event("DELETED", made, old))
        return made

    def forget(self) -> None:
        """Make it impossible to watch from any version of the past, as after a restart."""
        for collection in self._collections.values():
            collection.log.clear()
            collection.oldest = self.version

    def _next(self, item: Item) -> Item:
        self.version += 1
        return item.become(with_metadata(item.object, resourceVersion=str(self.version)))

    def _index(self, old: Item | None, new: Item | None) -> None:
        if old is not None:
            uid = uid_of(old.object)
            del self._by_uid[uid]
            for owner in old.object["metadata"].get("ownerReferences") or ():
                self._dependents[owner["uid"]].pop(uid, None)
                if not self._dependents[owner["uid"]]:
                    del self._dependents[owner["uid"]]
        if new is not None:
            uid = uid_of(new.object)
            self._by_uid[uid] = new
            for owner in new.object["metadata"].get("ownerReferences") or ():
                self._dependents[owner["uid"]][uid] = new

    def _publish(self, event: Event) -> None:
        self.collection(event.item.resource).publish(event)
        for listener in self.listeners:
            listener(event)
