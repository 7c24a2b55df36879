"""A model that is served: what clients of vLLM's API and of KAITO's older one are answered, until it is told to end."""

import asyncio
import json
import re
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
import pytest_asyncio

from fakes.serving.process import ServingProcess, still_alive
from provisioner.gpus.memory import kv_cache_bytes, page_bytes
from provisioner.gpus.model_config import parse_config
from tests.serving.conftest import Maker
from tests.serving.streams import TOKENS, parts, read, stream_of

pytestmark = pytest.mark.asyncio(loop_scope="module")
LABEL = re.compile(r'(\w+)="([^"]*)"')
HELLO = [{"role": "user", "content": "hello"}]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def server(make_server: Maker, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[ServingProcess]:
    async with make_server(tmp_path_factory.mktemp("serve")) as running:
        await running.wait_serving()
        yield running


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def client(server: ServingProcess) -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(server.url) as session:
        yield session


async def test_completion_is_the_same_each_time(client: aiohttp.ClientSession) -> None:
    body = {"model": "tiny", "prompt": "A node", "max_tokens": 8, "temperature": 0}
    texts = set()
    for _ in range(2):
        async with client.post("/v1/completions", json=body) as answer:
            assert answer.status == 200
            found = await answer.json()
            texts.add(found["choices"][0]["text"])
            assert found["usage"]["completion_tokens"] == 8
    assert len(texts) == 1


async def test_chat_streams_what_it_answers_at_once(client: aiohttp.ClientSession) -> None:
    body = {"model": "tiny", "messages": HELLO, "max_tokens": 8, "temperature": 0}
    async with client.post("/v1/chat/completions", json=body) as answer:
        whole = (await answer.json())["choices"][0]["message"]["content"]

    parts, last = [], ""
    async with client.post("/v1/chat/completions", json={**body, "stream": True}) as answer:
        assert answer.content_type == "text/event-stream"
        async for line in answer.content:
            if line.startswith(b"data: "):
                last = line.removeprefix(b"data: ").strip().decode()
                if last != "[DONE]":
                    parts.append(json.loads(last)["choices"][0]["delta"].get("content") or "")

    assert last == "[DONE]"
    assert "".join(parts) == whole != ""


async def test_older_chat_is_answered_as_by_kaito(client: aiohttp.ClientSession) -> None:
    async with client.post("/chat", json={"prompt": "A node", "generate_kwargs": {"max_length": 20}}) as answer:
        assert answer.status == 200
        found = await answer.json()

    assert list(found) == ["Result"]
    assert found["Result"].startswith("A node")


async def test_metrics_are_vllms(client: aiohttp.ClientSession) -> None:
    async with client.get("/metrics") as answer:
        text = await answer.text()

    for name in ("num_requests_waiting", "num_requests_running", "kv_cache_usage_perc", "generation_tokens_total"):
        assert f"vllm:{name}{{" in text


async def test_cache_holds_as_many_tokens_as_are_reckoned(client: aiohttp.ClientSession, tiny: Path) -> None:
    async with client.get("/metrics") as answer:
        (line,) = [line for line in (await answer.text()).splitlines() if line.startswith("vllm:cache_config_info{")]
    said = dict(LABEL.findall(line))

    facts = parse_config(json.loads((tiny / "config.json").read_text()), name="tiny", weights_bytes=1)
    tokens, block = int(said["kv_cache_size_tokens"]), int(said["block_size"])
    assert kv_cache_bytes(facts, tokens=tokens, flight=0, block=block) == 16 * 2**20
    assert page_bytes(facts, block=block) * int(said["num_gpu_blocks"]) == 16 * 2**20


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"model": "another", "messages": HELLO}, 404),
        ({"model": "tiny", "messages": HELLO, "max_tokens": 100_000}, 400),
    ],
    ids=["unknown model", "too many tokens"],
)
async def test_error_of_vllm_reaches_the_client(
    client: aiohttp.ClientSession, body: dict[str, object], status: int
) -> None:
    async with client.post("/v1/chat/completions", json=body) as answer:
        assert answer.status == status
        assert (await answer.json())["error"]["message"]


async def test_what_is_in_flight_is_answered_in_full_when_it_is_told_to_end(
    server: ServingProcess, client: aiohttp.ClientSession
) -> None:
    everything = server.descendants()
    answers = [await client.post("/v1/completions", json=stream_of()) for _ in range(3)]
    # The others wait for their turn behind it.
    await anext(parts(answers[0]))

    server.terminate()
    while (await server.health())[1]["state"] != "draining":  # noqa: ASYNC110 -- another process
        await asyncio.sleep(0.02)
    # A second one is no reason to hurry.
    server.terminate()
    async with client.post("/v1/completions", json=stream_of(1)) as late:
        assert (late.status, late.headers["Retry-After"]) == (503, "5")
    assert (await server.health())[0] == 503

    assert [await read(answer) for answer in answers] == [(TOKENS, "[DONE]")] * 3
    assert await server.wait() == 0
    # Some may have been answered before it was told.
    assert re.search(r"draining: [123] requests? in flight", server.log_text())
    assert "cut short" not in server.log_text()
    assert server.termination_message() == ""
    assert await still_alive(everything) == []
