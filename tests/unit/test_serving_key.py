"""The key of clients: what is it, and who may do without."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from provisioner.serving.gate import Gate
from provisioner.serving.problem import Problem
from provisioner.serving.state import Phase, State
from tests.unit.serving_support import PATIENCE, make_model, make_places, make_server

BROWSER = {"Origin": "https://x.example", "Access-Control-Request-Method": "POST"}


@asynccontextmanager
async def guarded(key: str) -> AsyncIterator[int]:
    """Yield the port of a gate with a key, in front of what answers all with 204."""

    async def answer(request: web.Request) -> web.StreamResponse:
        return web.Response(status=204)

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", answer)
    async with TestServer(app) as upstream:
        state = State(phase=Phase.SERVING)
        async with Gate(state=state, upstream=f"http://127.0.0.1:{upstream.port}", model="m", keys=(key,)) as gate:
            yield await gate.start(host="127.0.0.1", port=0)


@pytest.mark.parametrize(
    ("method", "headers", "status"),
    [
        ("OPTIONS", BROWSER, 204),
        ("OPTIONS", {}, 401),
        ("OPTIONS", {"Origin": "https://x.example"}, 401),
        ("OPTIONS", {"Access-Control-Request-Method": "POST"}, 401),
        ("POST", BROWSER, 401),
        ("POST", {**BROWSER, "x-api-key": "key"}, 204),
        ("POST", {"X-HTTP-Method-Override": "OPTIONS", **BROWSER}, 401),
    ],
)
async def test_only_what_a_browser_asks_beforehand_needs_no_key(
    method: str, headers: Mapping[str, str], status: int
) -> None:
    async with guarded("key") as port, aiohttp.ClientSession(f"http://127.0.0.1:{port}") as session:
        answer = await session.request(method, "/metrics", headers=headers)

        assert answer.status == status


@pytest.mark.parametrize(
    ("key", "sent", "status"),
    [
        ("k?", b"k?", b"204"),
        # Bytes that are no text must not become what a key may have in it.
        ("k?", b"k\xff", b"401"),
        ("k\N{EURO SIGN}", "k\N{EURO SIGN}".encode(), b"204"),
        ("k\N{EURO SIGN}", "k\N{EURO SIGN}".encode()[:-1], b"401"),
    ],
)
async def test_a_key_is_its_bytes(key: str, sent: bytes, status: bytes) -> None:
    async with guarded(key) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET /a HTTP/1.1\r\nHost: x\r\nConnection: close\r\nx-api-key: " + sent + b"\r\n\r\n")
        answer = await asyncio.wait_for(reader.read(), PATIENCE)
        writer.close()

    assert answer.split()[1] == status


@pytest.mark.parametrize("name", ["API_KEY", "VLLM_API_KEY"])
async def test_a_key_that_is_blank_is_no_key(tmp_path: Path, name: str) -> None:
    model = make_model(tmp_path / "model")
    server, _ = make_server(make_places(tmp_path), model, {}, variables={name: " \n"})

    with pytest.raises(Problem, match="the key in API_KEY or VLLM_API_KEY is blank"):
        await asyncio.wait_for(server.run(), PATIENCE)
