"""Probes of a container, really asked."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

import aiohttp

from fakes.nodes.api import Object

Execute = Callable[[Sequence[str]], Awaitable[int]]
"""Runs a command in the container and returns its exit code."""


@dataclass(frozen=True, kw_only=True)
class Probe:
    """One probe; seconds are real ones. `action` is its httpGet, exec or tcpSocket as the pod has it."""

    action: Object
    initial_delay: float
    period: float
    timeout: float
    successes: int
    failures: int

    @classmethod
    def read(cls, raw: Object) -> "Probe":
        """Read it as the API server has it, with Kubernetes' defaults."""
        return cls(
            action={kind: raw[kind] for kind in ("httpGet", "exec", "tcpSocket") if kind in raw},
            initial_delay=float(raw.get("initialDelaySeconds", 0)),
            period=float(raw.get("periodSeconds", 10)),
            timeout=float(raw.get("timeoutSeconds", 1)),
            successes=int(raw.get("successThreshold", 1)),
            failures=int(raw.get("failureThreshold", 3)),
        )

    async def follow(self, asks: Callable[[], Awaitable[bool]], *, tell: Callable[[bool], bool]) -> None:
        """Ask again and again; `tell` is given each verdict, once it is one, and ends this by returning True."""
        await asyncio.sleep(self.initial_delay)
        last, in_a_row = False, 0
        while True:
            found = await asks()
            in_a_row = in_a_row + 1 if found is last else 1
            last = found
            if in_a_row >= (self.successes if found else self.failures) and tell(found):
                return
            await asyncio.sleep(self.period)


async def ask(
    action: Object, *, address: str, ports: Sequence[Object], execute: Execute, timeout: float | None
) -> bool:
    """Return whether the container is as the probe or hook wants it; one that does not answer in time is not."""
    try:
        async with asyncio.timeout(timeout):
            if "exec" in action:
                return await execute(action["exec"]["command"]) == 0
            if "tcpSocket" in action:
                port = _port(action["tcpSocket"]["port"], ports)
                _, writer = await asyncio.open_connection(action["tcpSocket"].get("host") or address, port)
                writer.close()
                return True
            get = action["httpGet"]
            url = f"{get.get('scheme', 'HTTP').lower()}://{get.get('host') or address}:{_port(get['port'], ports)}"
            headers = {one["name"]: one["value"] for one in get.get("httpHeaders") or ()}
            async with (
                aiohttp.ClientSession(headers=headers) as session,
                session.get(url + get.get("path", "/"), ssl=False) as answer,
            ):
                return 200 <= answer.status < 400
    except (aiohttp.ClientError, OSError, TimeoutError):
        return False


def _port(port: int | str, ports: Sequence[Object]) -> int:
    if isinstance(port, int):
        return port
    return next((int(one["containerPort"]) for one in ports if one.get("name") == port), 0)
