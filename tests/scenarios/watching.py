"""A watch as clients have it: every state of every object that was written, in order."""

import asyncio
import json
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import aiohttp
import yaml

from fakes.cluster.interface import ControlPlane
from tests.kube import Object, eventually

# No object comes near it; aiohttp cuts lines at 128 KiB by default.
_LONGEST_LINE = 4 << 20


@dataclass(frozen=True)
class Seen:
    """What a watch has told of one kind."""

    events: list[Object] = field(default_factory=list)

    def of(self, name: str) -> list[Object]:
        """Return the states of an object, oldest first; the last one may be that of its deletion."""
        return [event["object"] for event in self.events if event["object"]["metadata"]["name"] == name]

    async def wait_version(self, version: str) -> None:
        """Wait until the write of that resourceVersion, or a later one, has been told of."""

        async def newest() -> int:
            return max((version_of(event["object"]) for event in self.events), default=0)

        await eventually(newest, until=lambda seen: seen >= int(version), what=f"resourceVersion {version} was seen")

    async def wait_deleted(self, name: str) -> None:
        """Wait until the object's deletion has been told of."""

        async def deleted() -> bool:
            return any(e["type"] == "DELETED" and e["object"]["metadata"]["name"] == name for e in self.events)

        await eventually(deleted, what=f"deletion of {name} was seen")


def version_of(obj: Object) -> int:
    """Return the resourceVersion; those of all kinds are in one order, etcd's."""
    return int(obj["metadata"]["resourceVersion"])


@asynccontextmanager
async def watching(cluster: ControlPlane, path: str) -> AsyncIterator[Seen]:
    """Watch a collection: what is there comes first, as ADDED."""
    token = yaml.safe_load(cluster.kubeconfig.read_text())["users"][0]["user"]["token"]
    connector = aiohttp.TCPConnector(ssl=ssl.create_default_context(cafile=str(cluster.ca)))
    seen = Seen()
    async with (
        aiohttp.ClientSession(
            base_url=cluster.url,
            headers={"Authorization": f"Bearer {token}"},
            connector=connector,
            timeout=aiohttp.ClientTimeout(total=None),
            read_bufsize=_LONGEST_LINE,
        ) as session,
        session.get(path, params={"watch": "1"}) as response,
    ):
        response.raise_for_status()
        reading = asyncio.create_task(_read(response, seen))
        try:
            yield seen
        finally:
            reading.cancel()
            (result,) = await asyncio.gather(reading, return_exceptions=True)
            if isinstance(result, Exception):
                raise result


async def _read(response: aiohttp.ClientResponse, seen: Seen) -> None:
    async for line in response.content:
        event = json.loads(line)
        if event["type"] == "ERROR":
            raise AssertionError(f"the watch has failed: {event['object']}")
        seen.events.append(event)
    raise AssertionError("the watch has ended")
