"""What is known before vLLM runs, what probes find, and what the old API means."""

import asyncio
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from provisioner.serving import chat, group, hub, preflight
from provisioner.serving.check import Health, check
from provisioner.serving.environment import GROUP_PORT, ServeEnvironment
from provisioner.serving.options import Options
from provisioner.serving.places import Places
from provisioner.serving.preflight import Findings
from provisioner.serving.problem import Problem, one_line, write_termination_message
from provisioner.serving.state import State
from tests.unit.serving_support import CONFIG, make_model, make_places

NONE = Options(values={})


def examine(places: Places, model: str, variables: Mapping[str, str] | None = None, **fields: Any) -> Findings:
    return preflight.examine(
        ServeEnvironment(model=model, **fields),
        options=NONE,
        places=places,
        variables={"HF_HUB_OFFLINE": "1"} if variables is None else variables,
    )


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-1])


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda m: shutil.rmtree(m), "is not there or cannot be read"),
        (lambda m: (m / "config.json").unlink(), "has no config.json"),
        (lambda m: (m / "tokenizer.json").unlink(), "has no tokenizer"),
        (lambda m: (m / "model.safetensors").unlink(), "has no weights"),
        (lambda m: (m / "config.json").write_text("{"), "config.json cannot be read"),
        (lambda m: cut(m / "model.safetensors"), r"cannot be served: model\.safetensors is incomplete: \d+ bytes of"),
    ],
)
def test_a_model_directory_that_lacks_something_is_refused(tmp_path: Path, spoil: Any, says: str) -> None:
    model = make_model(tmp_path / "model")
    spoil(model)

    with pytest.raises(Problem, match=says):
        examine(make_places(tmp_path), str(model))


class Hub(NamedTuple):
    """What a Hub on loopback answers."""

    info: Any
    status: int = 200


async def ask_hub(tmp_path: Path, hub: Hub, **fields: Any) -> tuple[Findings, list[web.Request]]:
    asked: list[web.Request] = []

    async def answer(request: web.Request) -> web.StreamResponse:
        asked.append(request)
        if request.path.endswith("/config.json"):
            return web.json_response(CONFIG)
        return web.json_response(hub.info, status=hub.status)

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", answer)
    async with TestServer(app) as server:
        variables = {"HF_ENDPOINT": f"http://127.0.0.1:{server.port}", "HF_TOKEN": fields.pop("token", "")}
        places = make_places(tmp_path)
        return await asyncio.to_thread(examine, places, "org/m", variables, **fields), asked


def files(**sizes: int) -> dict[str, Any]:
    return {"siblings": [{"rfilename": name.replace("__", "."), "size": size} for name, size in sizes.items()]}


async def test_the_hub_is_asked_once_for_what_is_to_be_downloaded(tmp_path: Path) -> None:
    info = files(model__safetensors=1000, pytorch_model__bin=1000, config__json=10, README__md=5)

    found, asked = await ask_hub(tmp_path, Hub(info), revision="abc", token="hf_secret")

    assert found.download_bytes == 1010
    assert [request.path for request in asked] == ["/api/models/org/m/revision/abc", "/org/m/resolve/abc/config.json"]
    assert asked[0].headers["Authorization"] == "Bearer hf_secret"


async def test_the_token_goes_along_within_the_hub_and_to_nobody_else(tmp_path: Path) -> None:
    seen: list[tuple[str, bool]] = []

    async def answer(request: web.Request) -> web.StreamResponse:
        seen.append((request.path, "Authorization" in request.headers))
        if request.path.startswith("/api/"):
            return web.json_response({"siblings": [{"rfilename": "config.json", "size": 1}]})
        if request.path.startswith("/org/"):
            raise web.HTTPTemporaryRedirect("/within")
        if request.path == "/within":
            raise web.HTTPTemporaryRedirect(f"http://localhost:{server.port}/elsewhere")
        return web.json_response(CONFIG)

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", answer)
    async with TestServer(app) as server:
        found = await asyncio.to_thread(
            hub.look_up, "org/m", revision="", endpoint=f"http://127.0.0.1:{server.port}", token="hf_secret"
        )

    assert found.config == CONFIG
    assert seen == [
        ("/api/models/org/m/revision/main", True),
        ("/org/m/resolve/main/config.json", True),
        ("/within", True),
        ("/elsewhere", False),
    ]


@pytest.mark.parametrize(
    ("status", "token", "says"),
    [
        (401, "", "gated, private or does not exist"),
        (403, "hf_x", "the token in HF_TOKEN may not read it"),
        (404, "", "has no model org/m"),
    ],
)
async def test_a_model_that_is_not_handed_out_is_told_of_at_once(
    tmp_path: Path, status: int, token: str, says: str
) -> None:
    with pytest.raises(Problem, match=says):
        await ask_hub(tmp_path, Hub({}, status), token=token)


@pytest.mark.parametrize("hub", [Hub({}, 500), Hub([]), Hub({"siblings": "x"}), Hub({"siblings": [1]})])
async def test_a_hub_that_does_not_answer_stops_nothing(tmp_path: Path, hub: Hub) -> None:
    found, _ = await ask_hub(tmp_path, hub)

    assert found.download_bytes == 0


async def test_a_disk_that_is_too_small_is_told_of_before_the_download(tmp_path: Path) -> None:
    with pytest.raises(Problem, match=r"no space for the model: 1048576\.0 GiB are to be downloaded"):
        await ask_hub(tmp_path, Hub(files(model__safetensors=1 << 50)))


def gpus(directory: Path, monkeypatch: pytest.MonkeyPatch, *mib: int) -> None:
    program = directory / "nvidia-smi"
    program.write_text("#!/bin/sh\nprintf '" + "".join(f"{size}\\n" for size in mib) + "'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(directory), prepend=":")


def test_fewer_gpus_than_the_model_is_split_over_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gpus(tmp_path, monkeypatch, 16384)

    with pytest.raises(Problem, match="the pod sees 1 GPUs, the model is to be run on 2"):
        examine(make_places(tmp_path), str(make_model(tmp_path / "model")), tensor_parallel=2)


@pytest.mark.parametrize(("mib", "noted"), [(1024, True), (16384, False)])
def test_memory_that_may_not_do_is_noted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mib: int, noted: bool
) -> None:
    gpus(tmp_path, monkeypatch, mib)

    found = examine(make_places(tmp_path), str(make_model(tmp_path / "model")))

    assert any("it may not fit" in note for note in found.notes) is noted


def test_secrets_are_in_no_message(tmp_path: Path) -> None:
    path = tmp_path / "termination-log"
    write_termination_message(path, "a\nb https://user:pw@h/x?sig=abc&y=1 Bearer xyz hf_0123456789")

    assert path.read_text() == "a b https://***h/x?sig=***&y=1 Bearer *** ***\n"
    assert one_line("a\x00\x1b[0mb") == "a [0mb"


def test_where_there_is_nothing_to_say_the_file_is_empty_and_the_log_is_shown(tmp_path: Path) -> None:
    path = tmp_path / "termination-log"
    path.write_text("of the container before")

    write_termination_message(path, "")

    assert path.read_text() == ""


LEADER = ServeEnvironment(model="m", nodes=2, rank=0, leader="w-0.h")
WORKER = ServeEnvironment(model="m", nodes=2, rank=1, leader="w-0.h")


@pytest.mark.parametrize(
    ("pod", "own", "leader", "reachable", "expected"),
    [
        # pod, its own gate, the leader's, the group's port; started, alive, ready
        (LEADER, Health(), Health(), True, (False, False, False)),
        (LEADER, Health(status=503, phase="loading"), Health(), True, (False, True, False)),
        (LEADER, Health(status=200, phase="serving"), Health(), True, (True, True, True)),
        (LEADER, Health(status=503, phase="serving"), Health(), True, (False, False, False)),
        (LEADER, Health(status=503, phase="draining"), Health(), True, (False, True, False)),
        (LEADER, Health(status=503, phase="failed"), Health(), True, (False, False, False)),
        (WORKER, Health(), Health(), True, (False, False, False)),
        (WORKER, Health(status=503, phase="gathering"), Health(), False, (True, True, True)),
        (WORKER, Health(status=503, phase="serving"), Health(status=503, phase="loading"), False, (True, True, True)),
        (WORKER, Health(status=503, phase="serving"), Health(status=503, phase="draining"), True, (True, True, True)),
        (WORKER, Health(status=503, phase="serving"), Health(status=200, phase="serving"), True, (True, True, True)),
        (WORKER, Health(status=503, phase="serving"), Health(status=200, phase="serving"), False, (True, False, True)),
        (WORKER, Health(status=503, phase="serving"), Health(status=503, phase="serving"), True, (True, False, True)),
        (WORKER, Health(status=503, phase="serving"), Health(), True, (True, False, True)),
        (WORKER, Health(status=503, phase="failed"), Health(status=200), True, (False, False, False)),
    ],
)
def test_what_the_probes_of_a_group_find(
    pod: ServeEnvironment, own: Health, leader: Health, reachable: bool, expected: tuple[bool, bool, bool]
) -> None:
    def ask(host: str, port: int) -> Health:
        return own if host == "127.0.0.1" else leader

    def reach(host: str, port: int) -> bool:
        assert (host, port) == ("w-0.h", GROUP_PORT)
        return reachable

    found = [check(what, environment=pod, ask=ask, reach=reach) for what in ("started", "alive", "ready")]

    assert tuple(result.ok for result in found) == expected
    assert all(result.line for result in found)


def test_the_members_of_a_group_find_each_other_by_their_names() -> None:
    leader = "ws-0.ws-headless.ns.svc"

    assert group.urls(leader, nodes=3, rank=0) == {
        1: "http://ws-1.ws-headless.ns.svc:5000",
        2: "http://ws-2.ws-headless.ns.svc:5000",
    }
    assert group.urls(leader, nodes=3, rank=2) == {0: "http://ws-0.ws-headless.ns.svc:5000"}
    with pytest.raises(Problem, match="LEADER_ADDRESS"):
        group.urls("10.0.0.1", nodes=2, rank=0)


def test_the_members_of_a_group_may_be_anywhere_when_they_are_told_of() -> None:
    workers = ("10.0.0.2", "10.0.0.3")

    assert group.urls("10.0.0.1", nodes=3, rank=0, port=80, workers=workers) == {
        1: "http://10.0.0.2:80",
        2: "http://10.0.0.3:80",
    }
    assert group.urls("10.0.0.1", nodes=3, rank=2, port=80, workers=workers) == {0: "http://10.0.0.1:80"}
    with pytest.raises(Problem, match="WORKER_ADDRESSES names 2 workers of a group of 2"):
        group.urls("10.0.0.1", nodes=2, rank=0, workers=workers)


@pytest.mark.parametrize(
    ("said", "looks"),
    [
        # What the leader says of itself, look by look; "" is no answer, and the last is said for ever.
        (["a draining", "", "a draining", "", "", "a draining", ""], 9),
        (["a draining", "a failed"], 2),
        (["a draining", "b gathering"], 2),
    ],
)
async def test_a_worker_works_until_its_leader_has_ended(said: list[str], looks: int) -> None:
    seen = 0

    async def answer(request: web.Request) -> web.StreamResponse:
        nonlocal seen
        instance, _, phase = said[min(seen, len(said) - 1)].partition(" ")
        seen += 1
        return web.json_response({"instance": instance, "state": phase} if instance else [])

    app = web.Application()
    app.router.add_get("/health", answer)
    async with TestServer(app) as leader:
        urls = {0: f"http://127.0.0.1:{leader.port}"}
        worker = group.Group(state=State(rank=1, members={0: "a"}), urls=urls, period=0)
        await worker.until_leader_has_ended(seconds=60)

    assert seen == looks


@pytest.mark.parametrize(
    ("request_body", "path", "body"),
    [
        ({"prompt": "a"}, "/v1/completions", {"max_tokens": 200, "prompt": "a"}),
        (
            {"prompt": "a", "generate_kwargs": {"max_length": 9, "temperature": 0.5, "top_k": 3, "num_beams": 4}},
            "/v1/completions",
            {"max_tokens": 9, "prompt": "a", "temperature": 0.5, "top_k": 3},
        ),
        (
            {"messages": [{"role": "user", "content": "a"}], "generate_kwargs": {"do_sample": False, "stop": "x"}},
            "/v1/chat/completions",
            {"max_tokens": 200, "messages": [{"role": "user", "content": "a"}], "temperature": 0, "stop": "x"},
        ),
    ],
)
def test_the_old_api_in_terms_of_the_new(request_body: Any, path: str, body: Any) -> None:
    found = chat.translate(request_body, model="m")

    assert (found.path, found.body) == (path, {"model": "m", **body})


@pytest.mark.parametrize("body", [None, [], {}, {"prompt": ""}, {"prompt": 1}, {"prompt": "a", "generate_kwargs": "x"}])
def test_what_the_old_api_cannot_mean_is_refused(body: Any) -> None:
    with pytest.raises(chat.BadChat):
        chat.translate(body, model="m")


def test_the_full_text_is_returned_unless_it_is_not_wanted() -> None:
    answer = {"choices": [{"text": "b"}]}

    assert chat.result(chat.translate({"prompt": "a"}, model="m"), answer) == {"Result": "ab"}
    short = chat.translate({"prompt": "a", "return_full_text": False}, model="m")
    assert chat.result(short, answer) == {"Result": "b"}
    with pytest.raises(chat.BadChat):
        chat.result(short, {"choices": []})
