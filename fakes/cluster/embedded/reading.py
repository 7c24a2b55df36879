"""Lists, page by page, and watches."""

import asyncio
import json
import secrets
from collections import OrderedDict, deque
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from fakes.cluster.embedded import problems, tables
from fakes.cluster.embedded.objects import Object, labels_of
from fakes.cluster.embedded.problems import Problem, bad_request
from fakes.cluster.embedded.resources import Resource
from fakes.cluster.embedded.selectors import by_fields, by_labels, fulfils, has_field
from fakes.cluster.embedded.store import Event, Item, Key, Store

# Seconds. The real one sends a bookmark about once a minute; nobody may rely on either.
_BOOKMARKS: Final = 5.0
# A client that does not say how long it wants to watch is cut off after half an hour to an hour, as by the real one.
_LONGEST_WATCH: Final = 1800
# A watcher that is so many events behind does not listen any more.
_MOST_PENDING: Final = 10_000
# Lists that somebody may be in the middle of.
_OPEN_LISTS: Final = 200
_YES: Final = ("true", "1")

Query = Mapping[str, str]
Selected = Callable[[Item], bool]


@dataclass(frozen=True, kw_only=True)
class Target:
    """A collection, or an object where there is a name, or a subresource of one."""

    resource: Resource
    namespace: str
    name: str
    subresource: str

    @property
    def key(self) -> Key:
        """The key of the object."""
        return self.namespace, self.name


@dataclass(frozen=True)
class View:
    """Renders objects of a resource, as tables where the client prefers them, as kubectl does."""

    resource: Resource
    as_table: bool

    def one(self, item: Item) -> bytes:
        """Return one object."""
        if self.as_table:
            return json.dumps(tables.table(self.resource, [item.object])).encode()
        return json.dumps(self.resource.head).encode()[:-1] + b"," + item.json[1:]

    def many(self, items: Iterable[Item], metadata: Object) -> bytes:
        """Return a list of objects."""
        if self.as_table:
            found = tables.table(self.resource, [item.object for item in items])
            return json.dumps({**found, "metadata": metadata}).encode()
        head = {"kind": self.resource.list_kind, "apiVersion": self.resource.api_version, "metadata": metadata}
        # Items of built-in kinds carry no kind of their own in a list, those of custom resources do.
        texts = (self.one(item) if self.resource.custom else item.json for item in items)
        return json.dumps(head).encode()[:-1] + b',"items":[' + b",".join(texts) + b"]}"

    def event(self, change: str, item: Item) -> bytes:
        """Return a line of a watch."""
        return b'{"type":"%s","object":%s}\n' % (change.encode(), self.one(item))

    def bookmark(self, version: int, *, initial: bool = False) -> bytes:
        """Return the line that tells up to which version a watch has come."""
        metadata: Object = {"resourceVersion": str(version)}
        if initial:
            metadata["annotations"] = {"k8s.io/initial-events-end": "true"}
        item = {**self.resource.head, "metadata": metadata}
        return json.dumps({"type": "BOOKMARK", "object": item}).encode() + b"\n"


class Lists:
    """Answers lists. Pages after the first come from the state of the first: objects never change, lists of them do."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._open: OrderedDict[str, tuple[int, list[Item]]] = OrderedDict()

    def forget(self) -> None:
        """Drop all lists that somebody is in the middle of."""
        self._open.clear()

    def select(self, target: Target, query: Query) -> list[Item]:
        """Return the objects that a query selects, sorted by namespace and name."""
        selected = _selection(target, query)
        items = self._store.collection(target.resource).items
        return [items[key] for key in sorted(items) if selected(items[key])]

    def answer(self, target: Target, query: Query, view: View) -> bytes:
        """Return a list, or a page of one. Raises Problem."""
        limit = number(query.get("limit") or 0)
        _version(query, self._store)
        start = 0
        if token := query.get("continue"):
            name, _, offset = token.partition(".")
            if not offset.isdigit():
                raise bad_request("invalid continue token: continue key is not valid")
            if name not in self._open:
                raise Problem(410, "Expired", "The provided continue parameter is too old to display a consistent list")
            version, items = self._open[name]
            start = int(offset)
        else:
            version, items, name = self._store.version, self.select(target, query), secrets.token_hex(8)
        metadata: Object = {"resourceVersion": str(version)}
        end = start + limit if limit else len(items)
        if end < len(items):
            metadata["continue"] = f"{name}.{end}"
            if not (query.get("labelSelector") or query.get("fieldSelector")):
                metadata["remainingItemCount"] = len(items) - end
            self._open[name] = version, items
            if len(self._open) > _OPEN_LISTS:
                self._open.popitem(last=False)
        return view.many(items[start:end], metadata)


class Watch:
    """A watch, and what it has to tell yet. `seconds` is how long it lasts. Raises Problem for an odd query."""

    def __init__(self, store: Store, target: Target, query: Query, view: View) -> None:
        self._store = store
        self._resource = target.resource
        self._view = view
        self._selected = _selection(target, query)
        self._version = _version(query, store)
        self._bookmarks = query.get("allowWatchBookmarks") in _YES
        self._initial = _wants_initial_events(query)
        self.seconds = min(number(query.get("timeoutSeconds") or 0) or _LONGEST_WATCH, _LONGEST_WATCH)
        self._pending: deque[Event] = deque()
        self._news = asyncio.Event()
        self._is_over = False

    async def run(self, write: Callable[[bytes], Awaitable[None]]) -> None:
        """Write the lines of the watch until its kind is gone; it is for the caller to end it when its time is over."""
        collection = self._store.collection(self._resource)
        if self._initial or (self._initial is None and self._version == 0):
            self._pending.extend(Event("ADDED", item, None) for _, item in sorted(collection.items.items()))
        elif self._initial is None:
            missed = collection.since(self._version)
            if missed is None:
                text = f"too old resource version: {self._version} ({collection.oldest})"
                error = {"type": "ERROR", "object": Problem(410, "Expired", text).body()}
                return await write(json.dumps(error).encode() + b"\n")
            self._pending.extend(missed)
        collection.watchers.add(self._take)
        try:
            if self._initial:
                await write(self._lines() + self._view.bookmark(self._store.version, initial=True))
            while self._pending or not self._is_over:
                if self._pending:
                    await write(self._lines())
                else:
                    await self._wait(write)
        finally:
            collection.watchers.discard(self._take)

    async def _wait(self, write: Callable[[bytes], Awaitable[None]]) -> None:
        self._news.clear()
        try:
            async with asyncio.timeout(_BOOKMARKS):
                await self._news.wait()
        except TimeoutError:
            # Never ahead of what has happened in this very moment: who comes back with it would miss that.
            if self._bookmarks and not self._pending:
                await write(self._view.bookmark(self._store.version))

    def _take(self, event: Event | None) -> None:
        if event is not None and len(self._pending) < _MOST_PENDING:
            self._pending.append(event)
        else:
            self._is_over = True
        self._news.set()

    def _lines(self) -> bytes:
        """Empty the queue into lines. An object that begins to match is ADDED, one that ceases to is DELETED."""
        lines = []
        while self._pending:
            event = self._pending.popleft()
            is_in = event.change != "DELETED" and self._selected(event.item)
            was_in = event.old is not None and self._selected(event.old)
            if is_in:
                lines.append(self._view.event("MODIFIED" if was_in else "ADDED", event.item))
            elif was_in:
                lines.append(self._view.event("DELETED", event.item))
        return b"".join(lines)


def number(value: object) -> int:
    """Return a whole number of the query. Raises Problem: 400."""
    try:
        return int(str(value))
    except ValueError as error:
        raise bad_request(f'strconv.ParseInt: parsing "{value}": invalid syntax') from error


def _selection(target: Target, query: Query) -> Selected:
    """Return the predicate of namespace, name, labels and fields. Raises Problem: 400."""
    labels = by_labels(query.get("labelSelector") or "")
    fields = by_fields(query.get("fieldSelector") or "", target.resource)
    namespace, name = target.namespace, target.name

    def selected(item: Item) -> bool:
        return (
            (not namespace or item.key[0] == namespace)
            and (not name or item.key[1] == name)
            and all(fulfils(labels_of(item.object), requirement) for requirement in labels)
            and all(has_field(item.object, path, value) is wanted for path, value, wanted in fields)
        )

    return selected


def _version(query: Query, store: Store) -> int:
    version = query.get("resourceVersion") or "0"
    if not version.isdigit():
        raise bad_request(f'invalid resource version: resourceVersion: Invalid value: "{version}"')
    if int(version) > store.version:
        raise Problem(504, "Timeout", f"Too large resource version: {version}, current: {store.version}", retry_after=1)
    return int(version)


def _wants_initial_events(query: Query) -> bool | None:
    if (said := query.get("sendInitialEvents")) is None:
        return None
    if query.get("resourceVersionMatch") != "NotOlderThan":
        text = "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan"
        raise problems.invalid("ListOptions", "", [problems.forbidden("resourceVersionMatch", text)])
    return said in _YES
