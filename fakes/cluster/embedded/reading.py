"""Lists, page by page, and watches."""

import asyncio
import json
import secrets
import time
from collections import OrderedDict, deque
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Final

from fakes.cluster.embedded import problems
from fakes.cluster.embedded.objects import Object
from fakes.cluster.embedded.problems import Problem, bad_request, expired
from fakes.cluster.embedded.requests import Target, number
from fakes.cluster.embedded.selectors import Predicate, by_fields, by_labels
from fakes.cluster.embedded.store import Event, Item, Store
from fakes.cluster.embedded.views import View

# Seconds. The real one sends a bookmark about once a minute; nobody may rely on either.
_BOOKMARKS: Final = 5.0
# A client that does not say how long it wants to watch is cut off after half an hour to an hour, as by the real one.
_LONGEST_WATCH: Final = 1800.0
# Lists that somebody may be in the middle of.
_OPEN_LISTS: Final = 200

Selected = Callable[[Item], bool]


class Lists:
    """Answers lists. Pages after the first come from the state of the first: objects never change, lists of them do."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._open: OrderedDict[str, tuple[int, list[Item]]] = OrderedDict()

    def forget(self) -> None:
        """Drop all lists that somebody is in the middle of."""
        self._open.clear()

    def select(self, target: Target, query: Mapping[str, str]) -> list[Item]:
        """Return the objects that a query selects, sorted by namespace and name."""
        selected = selection(target, query)
        items = self._store.collection(target.resource).items
        return [items[key] for key in sorted(items) if selected(items[key])]

    def answer(self, target: Target, query: Mapping[str, str], view: View) -> bytes:
        """Return a list, or a page of one. Raises Problem."""
        limit = number(query.get("limit") or 0)
        self._check_version(query)
        start = 0
        if token := query.get("continue"):
            name, _, offset = token.partition(".")
            if not offset.isdigit():
                raise bad_request("invalid continue token: continue key is not valid")
            if name not in self._open:
                text = "The provided continue parameter is too old to display a consistent list result."
                raise expired(text)
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

    def _check_version(self, query: Mapping[str, str]) -> None:
        version = query.get("resourceVersion") or "0"
        if not version.isdigit():
            cause = (
                f'resourceVersion: Invalid value: "{version}": strconv.ParseUint: parsing "{version}": invalid syntax'
            )
            raise bad_request(f"invalid resource version: {cause}")
        if int(version) > self._store.version:
            text = f"Too large resource version: {version}, current: {self._store.version}"
            raise Problem(504, "Timeout", text, retry_after=1)


async def watch(store: Store, target: Target, query: Mapping[str, str], view: View) -> AsyncIterator[bytes]:
    """Yield the lines of a watch, several at once where they are there, until its time is over. Raises Problem."""
    initial = _wants_initial_events(query)
    version = query.get("resourceVersion") or "0"
    if not version.isdigit():
        raise bad_request(f"invalid resource version: {version}")
    selected, bookmarks = selection(target, query), query.get("allowWatchBookmarks") in {"true", "1"}
    collection = store.collection(target.resource)
    pending: deque[Event] = deque()
    news, ended = asyncio.Event(), asyncio.Event()

    def take(event: Event | None) -> None:
        if event is None:
            ended.set()
        else:
            pending.append(event)
        news.set()

    if initial or (initial is None and version == "0"):
        now = (Event("ADDED", item, None) for _, item in sorted(collection.items.items()))
        pending.extend(event for event in now if selected(event.item))
    elif initial is None:
        missed = collection.since(int(version))
        if missed is None:
            text = f"too old resource version: {version} ({collection.oldest})"
            error = expired(text).body()
            yield json.dumps({"type": "ERROR", "object": error}).encode() + b"\n"
            return
        pending.extend(missed)
    collection.watchers.add(take)
    try:
        if initial:
            yield b"".join(_lines(pending, selected, view)) + view.bookmark(store.version, initial=True)
        end = time.monotonic() + min(number(query.get("timeoutSeconds") or 0) or 1e9, _LONGEST_WATCH)
        while True:
            yield b"".join(_lines(pending, selected, view))
            news.clear()
            left = end - time.monotonic()
            if left <= 0 or ended.is_set():
                return
            try:
                async with asyncio.timeout(min(left, _BOOKMARKS)):
                    await news.wait()
            except TimeoutError:
                if bookmarks:
                    yield view.bookmark(store.version)
    finally:
        collection.watchers.discard(take)


def selection(target: Target, query: Mapping[str, str]) -> Selected:
    """Return the predicate of namespace, name, labels and fields. Raises Problem: 400."""
    predicates: list[Predicate] = [
        predicate
        for predicate in (
            by_labels(query.get("labelSelector") or ""),
            by_fields(query.get("fieldSelector") or "", target.resource),
        )
        if predicate is not None
    ]
    namespace, name = target.namespace, target.name

    def selected(item: Item) -> bool:
        return (
            (not namespace or item.key[0] == namespace)
            and (not name or item.key[1] == name)
            and all(predicate(item.object) for predicate in predicates)
        )

    return selected


def _lines(pending: deque[Event], selected: Selected, view: View) -> list[bytes]:
    """Empty the queue into lines. An object that begins to match is ADDED, one that ceases to is DELETED."""
    lines = []
    while pending:
        event = pending.popleft()
        is_in = event.change != "DELETED" and selected(event.item)
        was_in = event.old is not None and selected(event.old)
        if is_in:
            lines.append(view.event("MODIFIED" if was_in else "ADDED", event.item))
        elif was_in:
            lines.append(view.event("DELETED", event.item))
    return lines


def _wants_initial_events(query: Mapping[str, str]) -> bool | None:
    if (said := query.get("sendInitialEvents")) is None:
        return None
    if query.get("resourceVersionMatch") != "NotOlderThan":
        text = "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan"
        cause = problems.forbidden("resourceVersionMatch", text)
        raise problems.invalid("ListOptions", "", [cause], group="meta.k8s.io")
    return said in {"true", "1"}
