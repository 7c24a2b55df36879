"""A key guards all that the real vLLM answers to, by whatever way it is asked for."""

import asyncio
import json
import re
from collections.abc import Mapping
from typing import Any

import aiohttp
import pytest
from yarl import URL

from fakes.serving.process import ServingProcess
from tests.serving.conftest import KEY, Guarded

pytestmark = pytest.mark.asyncio(loop_scope="session")
COMPLETION = {"model": "tiny", "prompt": "A node", "max_tokens": 1}
BEARER = {"Authorization": f"Bearer {KEY}"}
WEBSOCKET = {
    "Connection": "close, Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "a" * 22,
}
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "PROPFIND", "QUERY", "get")


async def ask(server: ServingProcess, method: str, path: str, **more: Any) -> tuple[int, str]:
    url = URL(f"{server.url}{path}", encoded=True)
    async with aiohttp.ClientSession() as session, session.request(method, url, **more) as answer:
        return answer.status, await answer.text()


async def raw(server: ServingProcess, target: str, *, method: str = "GET", headers: Mapping[str, str] = {}) -> bytes:
    """Return what is answered to a request that no client library would send."""
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    body = json.dumps(COMPLETION)
    fields = {"Host": "x", "Connection": "close", "Content-Type": "application/json", **headers}
    lines = [f"{method} {target} HTTP/1.1", *(f"{n}: {v}" for n, v in fields.items()), f"Content-Length: {len(body)}"]
    writer.write(("\r\n".join(lines) + "\r\n\r\n" + body).encode("latin-1"))
    try:
        return await asyncio.wait_for(reader.read(), 30)
    finally:
        writer.close()


async def test_every_path_of_the_api_needs_the_key(guarded: Guarded) -> None:
    status, text = await ask(guarded.server, "GET", "/openapi.json", headers=BEARER)
    assert status == 200
    paths = json.loads(text)["paths"]
    assert {"/v1/chat/completions", "/invocations", "/tokenize", "/v1/responses", "/v1/messages"} <= set(paths)
    found = [(method.upper(), path) for path, methods in paths.items() for method in methods]
    beside = ("/", "/metrics", "/metrics/", "/docs", "/redoc", "/openapi.json", "/docs/oauth2-redirect", "/chat")
    asked = [(method, re.sub(r"\{.*?\}", "x", path)) for method, path in found if path != "/health"]
    asked += [(method, path) for path in beside for method in ("GET", "POST", "OPTIONS")]

    answers = {pair: await ask(guarded.server, *pair, json=COMPLETION) for pair in asked}

    assert {pair: status for pair, (status, _) in answers.items() if status != 401} == {}
    assert all("a valid key is needed" in text for (_, text) in answers.values())


@pytest.mark.parametrize("method", METHODS)
async def test_no_method_goes_without_the_key(guarded: Guarded, method: str) -> None:
    for path in ("/v1/completions", "/metrics", "/v1/models", "/health/"):
        status = (await raw(guarded.server, path, method=method)).split()[1]
        # Those that HTTP itself does not know are not even read.
        assert status in (b"401", b"400"), path


@pytest.mark.parametrize(
    "target",
    [
        "//v1/completions", "/./v1/completions", "/health/../v1/completions", "/%76%31/completions",
        "/%2e%2e/v1/completions", "/health%2f..%2fv1/completions", "/v1/completions?path=/health",
        "/v1/completions#/health", "/health;/../v1/completions", "/V1/COMPLETIONS", "/v1/completions/", "/health\\",
        "http://x/v1/completions", "http://127.0.0.1/health/../v1/completions", "http://x//v1/completions",
        "/health%00", "/health%20", "/health%0d%0aX:1", "*", "v1/completions", "health/../v1/completions",
        "/metrics?/health", "//health/../metrics", "http://health/metrics",
    ],
)  # fmt: skip
async def test_no_way_to_write_a_path_goes_round_the_key(guarded: Guarded, target: str) -> None:
    for method in ("GET", "POST", "OPTIONS"):
        answer = await raw(guarded.server, target, method=method)

        assert answer.partition(b"\r\n")[0].split()[1] in (b"401", b"400", b"404"), answer[:300]
        assert b"text_completion" not in answer
        assert b"vllm" not in answer.lower()


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": "Bearer"},
        {"Authorization": "Bearer "},
        {"Authorization": f"Basic {KEY}"},
        {"Authorization": KEY},
        {"Authorization": f"Bearer {KEY[:-1]}"},
        {"Authorization": f"Bearer {KEY}s"},
        {"Authorization": f"Bearer {KEY.upper()}"},
        {"Authorization": "Bearer wrong", "x-api-key": KEY},
        {"Authorization": f"Bearer {KEY}\xff"},
        {"x-api-key": ""},
        {"Cookie": f"key={KEY}"},
        WEBSOCKET,
        {"Origin": "https://x.example"},
        {"X-Original-URL": "/health", "X-Rewrite-URL": "/health", "X-Forwarded-Prefix": "/health"},
        {"X-HTTP-Method-Override": "OPTIONS"},
    ],
)
async def test_nothing_but_the_key_is_the_key(guarded: Guarded, headers: dict[str, str]) -> None:
    for target in ("/v1/completions", "/v1/realtime", "/invocations"):
        assert (await raw(guarded.server, target, method="POST", headers=headers)).startswith(b"HTTP/1.1 401 ")


@pytest.mark.parametrize("headers", [BEARER, {"Authorization": f"bearer  {KEY}"}, {"x-api-key": KEY}])
async def test_with_the_key_the_model_answers(guarded: Guarded, headers: dict[str, str]) -> None:
    for path in ("/v1/completions", "/invocations"):
        status, text = await ask(guarded.server, "POST", path, json=COMPLETION, headers=headers)
        assert (status, json.loads(text)["usage"]["completion_tokens"]) == (200, 1)
    assert (await ask(guarded.server, "GET", "/metrics", headers=headers))[0] == 200


async def test_a_request_behind_another_on_one_connection_needs_the_key_too(guarded: Guarded) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", guarded.server.port)
    first = f"GET /v1/models HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {KEY}\r\n\r\n"
    writer.write((first + "GET /v1/models HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").encode())
    answers = await asyncio.wait_for(reader.read(), 30)
    writer.close()

    assert re.findall(rb"HTTP/1\.1 (\d+)", answers) == [b"200", b"401"]


async def test_a_body_that_could_hide_another_request_is_refused(guarded: Guarded) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", guarded.server.port)
    hidden = "0\r\n\r\nGET /v1/models HTTP/1.1\r\nHost: x\r\n\r\n"
    writer.write(
        f"POST /v1/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {KEY}\r\n"
        f"Content-Length: {len(hidden)}\r\nTransfer-Encoding: chunked\r\n\r\n{hidden}".encode()
    )
    answers = await asyncio.wait_for(reader.read(), 30)
    writer.close()

    assert re.findall(rb"HTTP/1\.[01] (\d+)", answers) == [b"400"]


async def test_health_is_open_and_says_nothing_of_the_key(guarded: Guarded) -> None:
    status, text = await ask(guarded.server, "GET", "/health")

    assert status == 200
    assert KEY not in text
    assert KEY not in guarded.server.log_text()


async def test_a_browser_may_ask_whether_it_may_ask(guarded: Guarded) -> None:
    headers = {
        "Origin": "https://x.example",
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "authorization",
    }
    for path in ("/v1/chat/completions", "/metrics"):
        status, text = await ask(guarded.server, "OPTIONS", path, headers=headers)
        assert (status, text) == (200, "OK")
