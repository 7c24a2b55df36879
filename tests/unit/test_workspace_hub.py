"""Looking models up at a Hub on loopback, a friendly one and all others."""

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from provisioner.workspace import hub as hub_module
from provisioner.workspace.hub import Hub
from provisioner.workspace.recorded_model import from_status, to_status
from provisioner.workspace.view import Model, Problem

NAME = "acme/Tiny-1.0"
SHA = "0123456789abcdef0123456789abcdef01234567"
TOKEN = "hf_not-to-be-seen"
LLAMA = {
    "architectures": ["LlamaForCausalLM"],
    "hidden_size": 4096,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "max_position_embeddings": 131072,
}
MISTRAL = {"dim": 4096, "n_layers": 32, "n_heads": 32, "n_kv_heads": 8, "head_dim": 128, "max_seq_len": 32768}
Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]


def listing(*files: tuple[str, int], sha: object = SHA) -> dict[str, Any]:
    return {"sha": sha, "siblings": [{"rfilename": name, "size": size} for name, size in files]}


SHARDED = listing(("config.json", 700), ("model-1.safetensors", 3 << 30), ("model-2.safetensors", 1 << 30))


def says(document: object, *, status: int = 200) -> Answer:
    async def answer(request: web.Request) -> web.StreamResponse:
        return web.json_response(document, status=status)

    return answer


class FakeHub:
    """A Hub that answers what a test wants of it, and notes what it was asked with which token."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str]] = []
        self.listing: Answer = says(SHARDED)
        self.file: Answer = says(LLAMA)
        application = web.Application()
        application.router.add_get("/{path:.*}", self._answer)
        self.server = TestServer(application)

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        self.asked.append((request.raw_path, request.headers.get("Authorization", "")))
        return await (self.listing if request.path.startswith("/api/") else self.file)(request)

    @property
    def url(self) -> str:
        return str(self.server.make_url("")).rstrip("/")


class Client:
    """Our side."""

    def __init__(self, endpoint: str) -> None:
        self.news: asyncio.Queue[str] = asyncio.Queue()
        self.hub = Hub(endpoint=endpoint, on_news=self.news.put_nowait)

    async def find(self, name: str = NAME, *, token: str = "") -> Model | Problem:
        first = self.hub.find(name, token=token)
        if not isinstance(first, Problem | Model):
            await asyncio.wait_for(self.news.get(), timeout=30)
        found = self.hub.find(name, token=token)
        assert found is not None
        return found

    async def refused(self, name: str = NAME, *, token: str = "") -> Problem:
        found = await self.find(name, token=token)
        assert isinstance(found, Problem), found
        return found

    async def model(self, name: str = NAME, *, token: str = "") -> Model:
        found = await self.find(name, token=token)
        assert isinstance(found, Model), found
        return found


@pytest.fixture
async def fake() -> AsyncIterator[FakeHub]:
    fake = FakeHub()
    async with fake.server:
        yield fake


@pytest.fixture
async def client(fake: FakeHub) -> AsyncIterator[Client]:
    client = Client(fake.url)
    yield client
    await client.hub.close()


async def test_model_is_known_by_its_files_and_its_config(fake: FakeHub, client: Client) -> None:
    facts = (await client.model()).facts

    assert (facts.name, facts.revision, facts.weights_gib) == (NAME, SHA, 4.0)
    assert (facts.layers, facts.kv_heads, facts.head_dim, facts.context) == (32, 8, 128, 131072)
    assert [path for path, _ in fake.asked] == [
        f"/api/models/{NAME}/revision/main?blobs=true",
        f"/{NAME}/resolve/{SHA}/config.json",
    ]


async def test_what_was_found_is_not_asked_for_again_and_comes_back_from_a_status(
    fake: FakeHub, client: Client
) -> None:
    facts = (await client.model()).facts
    await client.model()

    assert len(fake.asked) == 2
    assert from_status(json.loads(json.dumps(to_status(facts))), name=NAME) == facts
    assert from_status(to_status(facts), name="acme/other") is None
    assert from_status({"name": NAME}, name=NAME) is None


@pytest.mark.parametrize(
    ("files", "config", "gib", "context"),
    [
        ([("params.json", 1), ("consolidated.safetensors", 2 << 30)], MISTRAL, 2.0, 32768),
        (
            [
                ("params.json", 1),
                ("config.json", 1),
                ("consolidated.safetensors", 4 << 30),
                ("model-1-of-2.safetensors", 3 << 30),
                ("model-2-of-2.safetensors", 1 << 30),
            ],
            LLAMA,
            4.0,
            131072,
        ),
        (
            [
                ("config.json", 1),
                ("model.safetensors", 2 << 30),
                ("original/model.safetensors", 9 << 30),
                ("pytorch_model.bin", 9 << 30),
            ],
            LLAMA,
            2.0,
            131072,
        ),
    ],
    ids=["Mistral's own layout", "both layouts", "other files"],
)
async def test_weights_are_counted_once(
    fake: FakeHub, client: Client, files: list[tuple[str, int]], config: object, gib: float, context: int
) -> None:
    fake.listing, fake.file = says(listing(*files)), says(config)
    facts = (await client.model()).facts

    assert (facts.weights_gib, facts.context) == (gib, context)


async def test_long_list_that_comes_in_pieces_is_read_to_its_end(fake: FakeHub, client: Client) -> None:
    async def slowly(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        await response.prepare(request)
        text = json.dumps({**SHARDED, "tags": ["x" * 100] * 5000}).encode()
        for start in range(0, len(text), 50_000):
            await response.write(text[start : start + 50_000])
            await asyncio.sleep(0)
        return response

    fake.listing = slowly

    assert (await client.model()).facts.weights_gib == 4.0


@pytest.mark.parametrize(("status", "gated"), [(401, True), (403, True), (404, False)])
async def test_model_that_is_not_to_be_had(fake: FakeHub, client: Client, status: int, gated: bool) -> None:
    fake.listing = says({"error": "no"}, status=status)
    problem = await client.refused()

    assert problem.reason == "ModelNotFound"
    assert f"(HTTP {status})" in problem.message
    assert ("gated" in problem.message) is gated
    assert "HF_TOKEN" in problem.message


async def test_gated_file_of_a_model_that_is_listed(fake: FakeHub, client: Client) -> None:
    fake.file = says({}, status=403)

    assert (await client.refused()).reason == "ModelNotFound"


async def test_token_that_is_given_later_is_used_at_once_and_serves_nobody_else(fake: FakeHub, client: Client) -> None:
    async def gated(request: web.Request) -> web.StreamResponse:
        known = request.headers.get("Authorization") == f"Bearer {TOKEN}"
        return await says(SHARDED if known else {}, status=200 if known else 401)(request)

    fake.listing = gated
    await client.refused()
    assert isinstance(await client.find(token=TOKEN), Model)
    assert (await client.refused()).reason == "ModelNotFound"
    assert (await client.refused(token="another")).reason == "ModelNotFound"


@pytest.mark.parametrize(
    ("files", "config", "said"),
    [
        ([("README.md", 1)], LLAMA, "has no config.json"),
        ([("config.json", 1), ("model.bin", 9)], LLAMA, "no weights in safetensors"),
        ([("config.json", 1), ("model.safetensors", 0)], LLAMA, "no weights in safetensors"),
        ([("config.json", 1), ("model.safetensors", -5)], LLAMA, "no weights in safetensors"),
        ([("config.json", 1), ("model.safetensors", 1 << 70)], LLAMA, "no weights in safetensors"),
        ([("config.json", 1), ("model.safetensors", 9)], {**LLAMA, "num_hidden_layers": "x"}, "num_hidden_layers"),
        ([("config.json", 1), ("model.safetensors", 9)], {**LLAMA, "num_attention_heads": 0}, "num_attention_heads"),
        ([("config.json", 1), ("model.safetensors", 9)], {}, "num_hidden_layers"),
    ],
)
async def test_model_that_cannot_be_served(
    fake: FakeHub, client: Client, files: list[tuple[str, int]], config: object, said: str
) -> None:
    fake.listing, fake.file = says(listing(*files)), says(config)
    problem = await client.refused()

    assert problem.reason == "UnsupportedModel"
    assert said in problem.message


def body(data: bytes) -> Answer:
    async def answer(request: web.Request) -> web.StreamResponse:
        return web.Response(body=data, content_type="application/json")

    return answer


async def hangs(request: web.Request) -> web.StreamResponse:
    await asyncio.sleep(60)
    return web.Response()


async def breaks_off(request: web.Request) -> web.StreamResponse:
    assert request.transport is not None
    request.transport.close()
    return web.Response()


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (says({}, status=500), "HTTP 500"),
        (says({}, status=503), "HTTP 503"),
        (says({}, status=429), "HTTP 429"),
        (says([1]), "ValueError"),
        (body(b"<html>"), "JSONDecodeError"),
        (body(b"\xff\xfe\x00"), "UnicodeDecodeError"),
        (body(b'{"a":' * 100_000), "RecursionError"),
        (body(b'{"a":' + b"1" * 10_000 + b"}"), "ValueError"),
        (body(b" " * ((8 << 20) + 1)), "ValueError"),
        (hangs, "TimeoutError"),
        (breaks_off, "ServerDisconnectedError"),
    ],
    ids=["500", "503", "429", "list", "html", "utf-16", "deep", "long number", "huge", "hangs", "breaks off"],
)
async def test_answer_that_is_none_is_told_and_asked_for_again(
    fake: FakeHub, client: Client, answer: Answer, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub_module, "_TIMEOUT", 0.3)
    monkeypatch.setattr(hub_module, "_AGAIN", 0.0)
    fake.listing = answer
    problem = await client.refused()
    monkeypatch.setattr(hub_module, "_TIMEOUT", 20.0)

    assert problem.reason == "ModelLookupFailed"
    assert f"{NAME} could not be looked up: {said} from {fake.url}" in problem.message

    fake.listing = says(SHARDED)
    while not isinstance(client.hub.find(NAME), Model):
        await asyncio.wait_for(client.news.get(), timeout=30)


async def test_model_that_nobody_asks_for_any_more_is_not_looked_up(
    fake: FakeHub, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub_module, "_AGAIN", 0.0)
    fake.listing = says({}, status=500)
    await client.find()
    # The second look has started the second look-up; a third one is for a third look.
    await asyncio.wait_for(client.news.get(), timeout=30)
    asked = len(fake.asked)
    await asyncio.sleep(0.1)

    assert asked == len(fake.asked) == 2


async def test_no_more_models_are_remembered_than_there_is_room_for(
    fake: FakeHub, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub_module, "_REMEMBERED", 2)
    for number in range(4):
        await client.model(f"acme/m{number}")
    asked = len(fake.asked)

    await client.model("acme/m3")
    assert len(fake.asked) == asked
    await client.model("acme/m0")
    assert len(fake.asked) == asked + 2


@pytest.mark.parametrize("sha", ["../../../admin", "main?x=1", "", None, 7])
async def test_revision_that_is_no_commit_is_not_used(fake: FakeHub, client: Client, sha: object) -> None:
    fake.listing = says(listing(("config.json", 1), ("model.safetensors", 9), sha=sha))

    assert (await client.model()).facts.revision == ""
    assert fake.asked[-1][0] == f"/{NAME}/resolve/main/config.json"


@pytest.mark.parametrize(
    "name", ["acme/../../admin", "../etc", "acme/..", "./x", "a/b/c", "acme/x?y=1", "acme/x#y", "acme/x%2f..", "x", ""]
)
async def test_name_that_is_none_leads_nowhere(fake: FakeHub, client: Client, name: str) -> None:
    assert (await client.refused(name)).reason == "UnknownPreset"
    assert fake.asked == []


async def test_nothing_is_looked_up_without_a_hub() -> None:
    problem = await Client("").refused()

    assert problem.reason == "UnknownPreset"
    assert "HF_ENDPOINT=none" in problem.message


async def test_redirect_to_another_host_does_not_carry_the_token(fake: FakeHub, client: Client) -> None:
    other = FakeHub()
    async with other.server:

        async def elsewhere(request: web.Request) -> web.StreamResponse:
            raise web.HTTPTemporaryRedirect(other.url + "/blob")

        fake.file = elsewhere
        await client.model(token=TOKEN)

    assert [token for _, token in fake.asked] == [f"Bearer {TOKEN}"] * 2
    assert other.asked == [("/blob", "")]


async def test_redirect_within_the_hub_carries_it(fake: FakeHub, client: Client) -> None:
    async def moved(request: web.Request) -> web.StreamResponse:
        if request.path.startswith("/cache/"):
            return await says(LLAMA)(request)
        raise web.HTTPTemporaryRedirect("/cache/config.json")

    fake.file = moved
    await client.model(token=TOKEN)

    assert fake.asked[-1] == ("/cache/config.json", f"Bearer {TOKEN}")


@pytest.mark.parametrize("token", [TOKEN, f"{TOKEN}\r\nX-Evil: 1"])
@pytest.mark.parametrize("status", [401, 500])
async def test_token_is_in_no_message_and_no_log(
    fake: FakeHub, client: Client, caplog: pytest.LogCaptureFixture, token: str, status: int
) -> None:
    caplog.set_level(logging.DEBUG)
    fake.listing = says({}, status=status)
    problem = await client.refused(token=token)

    assert TOKEN not in problem.message
    assert not any(TOKEN in str(vars(record)) for record in caplog.records)


async def test_looking_up_ends_with_the_controller(fake: FakeHub) -> None:
    fake.listing = hangs
    client = Client(fake.url)
    assert client.hub.find(NAME) is None
    await asyncio.wait_for(client.hub.close(), timeout=5)

    assert client.news.empty()
