"""All objects of one resource, kept up to date by list and watch."""

import asyncio
import logging
from collections.abc import Callable, Iterable

from fakes.nodes.api import TRANSIENT, KubeApi, Object, backoff

logger = logging.getLogger(__name__)

WATCH_SECONDS = 60
# A watch that ends sooner, without an error, comes from a server on its way down: to open the next one at once would
# spin.
SHORT_WATCH = 1.0

OnChange = Callable[[str, Object | None, Object | None], None]


def key_of(item: Object) -> str:
    """`name`, or `namespace/name`."""
    metadata = item["metadata"]
    namespace = metadata.get("namespace")
    return f"{namespace}/{metadata['name']}" if namespace else str(metadata["name"])


class Reflector:
    """Calls `on_change(key, old, new)` for every change seen, in the task of `run`.

    Answers to own writes may be `put` in, so that a writer never works on a state older than its last write. Resource
    versions are compared as numbers to tell late events from news, which Kubernetes documents as valid since 1.35.
    """

    def __init__(self, api: KubeApi, path: str, *, on_change: OnChange) -> None:
        self._api = api
        self._path = path
        self._on_change = on_change
        self._items: dict[str, Object] = {}
        self._synced = asyncio.Event()

    def get(self, key: str) -> Object | None:
        """Return the object as last seen; not to be changed."""
        return self._items.get(key)

    def keys(self) -> Iterable[str]:
        """Keys of all objects."""
        return tuple(self._items)

    async def synced(self) -> None:
        """Return when the first list has been taken in."""
        await self._synced.wait()

    def put(self, item: Object) -> None:
        """Take in an object, unless a newer state of it is there."""
        key = key_of(item)
        old = self._items.get(key)
        if old is not None and _version(old) >= _version(item):
            return
        self._items[key] = item
        self._on_change(key, old, item)

    async def run(self) -> None:
        """List and watch until cancelled, through any outage of the server."""
        loop = asyncio.get_running_loop()
        version: str | None = None
        failures = 0
        while True:
            began = loop.time()
            try:
                if version is None:
                    version = await self._list()
                version = await self._watch(version)
            except TRANSIENT as error:
                logger.debug("%s: %s", self._path, error)
                version = None
                failures += 1
            else:
                failures = 0 if loop.time() - began >= SHORT_WATCH else failures + 1
            if failures:
                # A long watch that broke counts as the first failure, however many there were before it.
                failures = 1 if loop.time() - began >= SHORT_WATCH else failures
                await backoff(failures)

    async def _list(self) -> str:
        answer = await self._api.call("GET", self._path)
        version = str(answer["metadata"]["resourceVersion"])
        items = {key_of(item): item for item in answer.get("items") or ()}
        for key in self.keys():
            # What a write of ours has put in after the list was taken is not missing, only younger.
            if key not in items and _version(self._items[key]) <= int(version):
                self._remove(key)
        for item in items.values():
            self.put(item)
        self._synced.set()
        return version

    async def _watch(self, version: str) -> str:
        async for kind, item in self._api.watch(self._path, version=version, seconds=WATCH_SECONDS):
            version = str(item["metadata"]["resourceVersion"])
            if kind == "DELETED":
                key = key_of(item)
                known = self._items.get(key)
                if known is not None and _version(known) <= int(version):
                    self._remove(key)
            elif kind != "BOOKMARK":
                self.put(item)
        return version

    def _remove(self, key: str) -> None:
        self._on_change(key, self._items.pop(key), None)


def _version(item: Object) -> int:
    return int(item["metadata"]["resourceVersion"])
