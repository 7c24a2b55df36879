"""Nothing is written to the API server by whoever may not act, wherever the request was when that came to be so."""

import asyncio
from collections.abc import AsyncIterator, Iterable
from pathlib import Path

import pytest
from aiohttp import web

from provisioner.kube.access import CONNECTIONS
from provisioner.kube.errors import Unavailable
from provisioner.kube.transport import Transport
from tests.unit.kube_support import write_kubeconfig

HELD = "/held"


class Server:
    """Answers everything; what is at `HELD` not before `release` is set."""

    def __init__(self) -> None:
        self.seen: list[str] = []
        self.is_full = asyncio.Event()
        self.release = asyncio.Event()

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.seen.append(f"{request.method} {request.path}")
        if len(self.seen) == CONNECTIONS:
            self.is_full.set()
        await request.read()
        if request.path == HELD:
            await self.release.wait()
        return web.json_response({})


@pytest.fixture
async def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Server]:
    server = Server()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", server.handle)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    write_kubeconfig(tmp_path / "kubeconfig", f"http://127.0.0.1:{runner.addresses[0][1]}", token="t")
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "kubeconfig"))
    yield server
    await runner.cleanup()


class Leave:
    """Leave to act: given so many times as one is asked, then never again."""

    def __init__(self, answers: Iterable[bool]) -> None:
        self._answers = iter(answers)

    def __call__(self) -> bool:
        return next(self._answers, False)


@pytest.mark.parametrize("body", [None, {"a": 1}], ids=["empty", "body"])
@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
async def test_writes_are_not_sent_and_reads_are(server: Server, method: str, body: dict[str, int] | None) -> None:
    async with Transport(may_act=lambda: False) as transport:
        with pytest.raises(Unavailable, match=f"{method} /a: not sent, another instance may hold the Lease by now"):
            await transport.call(method, "/a", body=body)
        assert await transport.read("/a") == {}

    assert server.seen == ["GET /a"]


async def test_whoever_may_act_writes(server: Server) -> None:
    async with Transport(may_act=lambda: True) as transport:
        assert await transport.call("PATCH", "/a", body={"a": 1}) == {}

    assert server.seen == ["PATCH /a"]


async def test_leave_that_goes_while_a_free_connection_is_waited_for_is_noticed(server: Server) -> None:
    may_act = True
    async with Transport(may_act=lambda: may_act) as transport, asyncio.TaskGroup() as group:
        for _ in range(CONNECTIONS):
            group.create_task(transport.call("GET", HELD))
        await server.is_full.wait()
        late = asyncio.create_task(transport.call("PATCH", "/a", body={"a": 1}))
        # It has all the time that it could need to find a connection.
        assert not (await asyncio.wait([late], timeout=0.1))[0]
        may_act = False
        server.release.set()

        with pytest.raises(Unavailable, match="not sent"):
            await late

    assert set(server.seen) == {f"GET {HELD}"}


async def test_leave_that_goes_between_headers_and_body_is_noticed(server: Server) -> None:
    async with Transport(may_act=Leave([True])) as transport:
        with pytest.raises(Unavailable, match="not sent"):
            await transport.call("PATCH", "/a", body={"a": 1})

    assert server.seen == []
