"""The server as a whole: gate, supervisor and a process in place of vLLM that behaves as vLLM was measured to."""

import asyncio
import contextlib
import json
import os
import resource
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from yarl import URL

from provisioner.serving.environment import ServedAdapter
from provisioner.serving.gate import Gate
from provisioner.serving.places import Places
from provisioner.serving.problem import Problem
from provisioner.serving.state import Phase, State
from provisioner.serving.supervise import Server, Timing
from tests.unit.registry_double import Registry
from tests.unit.registry_double import serve as registry
from tests.unit.serving_support import (
    FAKE_VLLM,
    PATIENCE,
    QUICK,
    free_ports,
    make_adapter,
    make_model,
    make_places,
    make_server,
    until,
)

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def places(tmp_path: Path) -> Places:
    return make_places(tmp_path)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return make_model(tmp_path / "model")


@asynccontextmanager
async def running(server: Server) -> AsyncIterator[asyncio.Task[None]]:
    task = asyncio.create_task(server.run())
    try:
        yield task
    finally:
        server.end()
        with contextlib.suppress(Problem):
            await asyncio.wait_for(task, PATIENCE)


async def serving(server: Server, task: asyncio.Task[None]) -> None:
    await until(lambda: server.state.phase is Phase.SERVING or task.done())
    if task.done():
        await task


async def get(port: int, path: str, **more: Any) -> tuple[int, Any]:
    url = URL(f"http://127.0.0.1:{port}{path}", encoded=True)
    async with aiohttp.ClientSession() as session, session.get(url, **more) as answer:
        return answer.status, await answer.json()


async def post(port: int, path: str, body: Any, **more: Any) -> tuple[int, Any]:
    url = f"http://127.0.0.1:{port}{path}"
    async with aiohttp.ClientSession() as session, session.post(url, json=body, **more) as answer:
        return answer.status, await answer.json()


async def answers(port: int) -> bool:
    try:
        await get(port, "/health")
    except aiohttp.ClientError:
        return False
    return True


async def test_health_tells_of_loading_before_vllm_listens(places: Places, model: Path, tmp_path: Path) -> None:
    server, port = make_server(places, model, {"waits_for": str(tmp_path / "go")})
    async with running(server) as task:
        await until(lambda: server.state.phase is Phase.LOADING)
        await until(lambda: bool(server.state.progress))
        status, said = await get(port, "/health")
        refused, error = await post(port, "/v1/completions", {})
        told = json.loads(places.status.read_text())
        (tmp_path / "go").touch()
        await serving(server, task)

        assert (status, said["state"]) == (503, "loading")
        assert "GiB" in said["progress"]
        assert refused == 503
        assert "not served yet (loading" in error["error"]["message"]
        assert told["instance"] == said["instance"]
        assert (await get(port, "/health"))[0] == 200
        assert (await get(port, "/"))[0] == 200


async def test_what_is_sent_is_what_vllm_gets(places: Places, model: Path) -> None:
    server, port = make_server(places, model, {})
    async with running(server) as task:
        await serving(server, task)

        status, said = await get(
            port, "/v1/models?a=%2F&b=1", headers={"X-Mine": "yes", "Connection": "X-Hop", "X-Hop": "1"}
        )
        _, answer = await post(port, "/v1/completions", {"prompt": "é"})

        assert status == 200
        assert said["path"] == "/v1/models?a=%2F&b=1"
        assert said["headers"]["X-Mine"] == "yes"
        assert "X-Hop" not in said["headers"]
        assert answer["choices"][0]["text"] == 'to {"prompt": "\\u00e9"}'
        assert (await get(port, "/metrics"))[1]["path"] == "/metrics"


async def test_a_key_guards_every_path_but_health(places: Places, model: Path, tmp_path: Path) -> None:
    seen = tmp_path / "seen"
    server, port = make_server(places, model, {"seen": str(seen)}, variables={"API_KEY": "s3cret\n"})
    async with running(server) as task:
        await serving(server, task)

        for path in ("/", "/metrics", "/v1/models", "/invocations", "/tokenize", "/docs", "/health/", "//health"):
            assert (await get(port, path))[0] == 401, path
            assert (await get(port, path, headers={"Authorization": "Bearer s3cre"}))[0] == 401
            assert (await get(port, path, headers={"Authorization": "Bearer s3cret"}))[0] == 200
        assert (await get(port, "/health"))[0] == 200
        _, said = await get(port, "/v1/models", headers={"x-api-key": "s3cret"})
        # vLLM neither knows the key nor asks for it.
        assert "x-api-key" not in {name.lower() for name in said["headers"]}
        assert "s3cret" not in seen.read_text()


@pytest.mark.parametrize("chunked", [False, True])
async def test_a_large_request_goes_through(places: Places, model: Path, chunked: bool) -> None:
    server, port = make_server(places, model, {})
    body = json.dumps({"prompt": "x" * (20 << 20)}).encode()

    async def pieces() -> AsyncIterator[bytes]:
        for start in range(0, len(body), 1 << 20):
            yield body[start : start + (1 << 20)]

    async with running(server) as task:
        await serving(server, task)
        url = f"http://127.0.0.1:{port}/v1/completions"
        data = pieces() if chunked else body
        async with aiohttp.ClientSession() as session, session.post(url, data=data) as answer:
            assert answer.status == 200
            assert len((await answer.json())["choices"][0]["text"]) > 20 << 20


async def test_an_answer_that_breaks_off_does_not_look_whole(places: Places, model: Path) -> None:
    server, port = make_server(places, model, {"breaks": True})
    async with running(server) as task:
        await serving(server, task)
        url = f"http://127.0.0.1:{port}/v1/completions"
        async with aiohttp.ClientSession() as session:
            with pytest.raises(aiohttp.ClientError):
                async with session.post(url, json={}) as answer:
                    await answer.read()
        with pytest.raises(Problem, match="it ended with exit code 1"):
            await asyncio.wait_for(task, PATIENCE)


async def test_a_stream_comes_piece_by_piece(places: Places, model: Path, tmp_path: Path) -> None:
    server, port = make_server(places, model, {"stop_file": str(tmp_path / "stop")})
    url = f"http://127.0.0.1:{port}/v1/completions"
    async with running(server) as task:
        await serving(server, task)
        async with aiohttp.ClientSession() as session, session.post(url, json={"stream": True}) as answer:
            # It goes on until the file is there: what is read now has not waited for the end.
            assert await answer.content.readuntil(b"\n\n") == b"data: 0\n\n"
            assert answer.headers["Content-Type"] == "text/event-stream"
            (tmp_path / "stop").touch()
            assert (await answer.content.read()).endswith(b"data: [DONE]\n\n")


async def test_a_client_that_goes_ends_vllms_work_for_it(places: Places, model: Path, tmp_path: Path) -> None:
    how = {"stop_file": str(tmp_path / "never"), "cut_file": str(tmp_path / "cut")}
    server, port = make_server(places, model, how)
    url = f"http://127.0.0.1:{port}/v1/completions"
    async with running(server) as task:
        await serving(server, task)
        async with aiohttp.ClientSession() as session:
            answer = await session.post(url, json={"stream": True})
            await answer.content.readuntil(b"\n\n")
            answer.close()

        await until((tmp_path / "cut").exists)


async def test_a_client_that_does_not_wait_for_its_answer_ends_vllms_work_for_it(
    places: Places, model: Path, tmp_path: Path
) -> None:
    server, port = make_server(places, model, {"holds": str(tmp_path / "held"), "cut_file": str(tmp_path / "cut")})
    async with running(server) as task:
        await serving(server, task)
        asking = asyncio.create_task(post(port, "/v1/completions", {}))
        await until((tmp_path / "held").exists)
        asking.cancel()

        await until((tmp_path / "cut").exists)


async def test_what_is_in_flight_is_answered_before_vllm_is_told_to_end(
    places: Places, model: Path, tmp_path: Path
) -> None:
    how = {"stop_file": str(tmp_path / "stop"), "cut_file": str(tmp_path / "cut")}
    server, port = make_server(places, model, how)
    url = f"http://127.0.0.1:{port}/v1/completions"
    async with running(server) as task:
        await serving(server, task)
        async with aiohttp.ClientSession() as session, session.post(url, json={"stream": True}) as answer:
            await answer.content.readuntil(b"\n\n")
            other = await session.post(url, json={"stream": True})
            await other.content.readuntil(b"\n\n")
            os.kill(os.getpid(), signal.SIGTERM)
            await until(lambda: server.state.phase is Phase.DRAINING)
            async with session.post(url, json={}) as late:
                assert (late.status, late.headers["Retry-After"]) == (503, "5")
            assert (await get(port, "/health"))[1]["state"] == "draining"
            # One of two that ends is not the end.
            other.close()
            await until((tmp_path / "cut").exists)
            await answer.content.readuntil(b"\n\n")
            (tmp_path / "stop").touch()
            assert (await answer.content.read()).endswith(b"data: [DONE]\n\n")
        await asyncio.wait_for(task, PATIENCE)


async def test_the_gate_is_drained_when_the_last_is_answered() -> None:
    release = [asyncio.Event(), asyncio.Event()]

    async def answer(request: web.Request) -> web.StreamResponse:
        await release[int(request.path[1:])].wait()
        return web.json_response({})

    app = web.Application()
    app.router.add_get("/{number}", answer)
    async with TestServer(app) as upstream:
        gate = Gate(state=State(phase=Phase.SERVING), upstream=f"http://127.0.0.1:{upstream.port}", model="m")
        async with gate:
            port = await gate.start(host="127.0.0.1", port=0)
            asking = [asyncio.create_task(get(port, f"/{number}")) for number in range(2)]
            await until(lambda: gate.in_flight == 2)
            release[0].set()
            assert (await asking[0])[0] == 200
            await until(lambda: gate.in_flight == 1)

            assert not await gate.drain(seconds=0.01)
            release[1].set()
            assert await gate.drain(seconds=PATIENCE)
            assert (await asking[1])[0] == 200


async def test_a_server_that_does_not_end_is_killed_with_all_that_it_has_started(
    places: Places, model: Path, tmp_path: Path
) -> None:
    how = {"stop_file": str(tmp_path / "never"), "stubborn": True, "child": str(tmp_path / "child")}
    timing = Timing(drain=0.1, end=0.1, poll=0.02)
    server, port = make_server(places, model, how, timing=timing)
    url = f"http://127.0.0.1:{port}/v1/completions"
    async with running(server) as task:
        await serving(server, task)
        async with aiohttp.ClientSession() as session, session.post(url, json={"stream": True}) as answer:
            await answer.content.readuntil(b"\n\n")
            server.end()
            await asyncio.wait_for(task, PATIENCE)
            with pytest.raises(aiohttp.ClientError):
                await answer.content.read()

    await until(lambda: not alive(int((tmp_path / "child").read_text())))


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.parametrize(
    ("how", "says"),
    [
        (
            {"dies": "ValueError: No available memory for the cache blocks. Try increasing gpu_memory_utilization."},
            "No available memory for the cache blocks: choose a size with more GPU memory",
        ),
        ({"dies": "OSError: [Errno 28] No space left on device"}, "No space left on device: the Node's disk is full"),
        (
            {"dies": "ValueError: The supplied chat template ({{ x) could not be read"},
            r"The supplied chat template \(\{\{ x\) could not be read: correct vllm.chat-template",
        ),
        ({"dies": "RuntimeError: something new"}, "vLLM: RuntimeError: something new"),
        ({"dies": "nothing that is known"}, "it ended with exit code 1"),
        ({"broken": True}, "Unsupported CPU attention configuration: head_dim=16"),
        ({"hangs": True, "stubborn": True}, "Unsupported CPU attention configuration: head_dim=16"),
    ],
)
async def test_the_reason_why_vllm_ends_is_told_and_not_its_last_line(
    places: Places, model: Path, how: dict[str, Any], says: str
) -> None:
    server, _ = make_server(places, model, how, timing=replace(QUICK, end=0.2) if "hangs" in how else QUICK)

    with pytest.raises(Problem, match=says):
        await asyncio.wait_for(server.run(), PATIENCE)

    assert server.state.phase is Phase.FAILED


async def test_a_chat_template_that_cannot_be_used_is_found_before_the_first_client(
    places: Places, model: Path
) -> None:
    places.inference_config.write_text("vllm: {chat-template: '{% for %}'}")
    server, _ = make_server(places, model, {"template": "Encountered unknown tag"})

    with pytest.raises(Problem, match=r"vllm.chat-template cannot be used: Encountered unknown tag"):
        await asyncio.wait_for(server.run(), PATIENCE)


async def test_adapters_that_cannot_be_served_are_left_out_by_name(places: Places, model: Path, tmp_path: Path) -> None:
    make_adapter(places.adapters / "good")
    make_adapter(places.adapters / "half")
    make_adapter(places.adapters / "foreign", hidden=16)
    server, port = make_server(
        places,
        model,
        {"seen": str(tmp_path / "seen")},
        adapters=(
            ServedAdapter(name="good"),
            ServedAdapter(name="half", strength=Decimal("0.5")),
            ServedAdapter(name="foreign"),
            ServedAdapter(name="missing"),
            ServedAdapter(name="tiny"),
        ),
    )
    async with running(server) as task:
        await serving(server, task)

        argv = json.loads((tmp_path / "seen").read_text())["argv"]
        at = argv.index("--lora-modules")
        assert argv[at + 1 : at + 3] == [f"good={places.adapters}/good", f"half={places.cache}/adapters/half"]
        assert "--max-lora-rank=8" in argv
        left_out = (await get(port, "/health"))[1]["adapters_left_out"]
        assert list(left_out) == ["foreign", "missing", "tiny"]
        assert "another model" in left_out["foreign"]


async def test_with_no_adapter_that_can_be_served_the_model_is(places: Places, model: Path, tmp_path: Path) -> None:
    server, _ = make_server(places, model, {"seen": str(tmp_path / "seen")}, adapters=(ServedAdapter(name="missing"),))
    async with running(server) as task:
        await serving(server, task)

        assert "--enable-lora" not in json.loads((tmp_path / "seen").read_text())["argv"]


async def test_the_old_chat_api_is_answered(places: Places, model: Path) -> None:
    server, port = make_server(places, model, {})
    async with running(server) as task:
        await serving(server, task)

        _, text = await post(port, "/chat", {"prompt": "Hi", "generate_kwargs": {"max_new_tokens": 3}})
        _, chat = await post(port, "/chat", {"messages": [{"role": "user", "content": "Hi"}]})
        wrong, _ = await post(port, "/chat", {"generate_kwargs": {}})

        assert text == {"Result": 'Hito {"max_tokens": 3, "model": "tiny", "prompt": "Hi"}'}
        assert '"messages"' in chat["Result"]
        assert wrong == 400


async def test_a_group_comes_together_and_ends_when_a_member_is_another(
    places: Places, model: Path, tmp_path: Path
) -> None:
    ends = []

    async def pod(rank: int, server: Server) -> None:
        try:
            await server.run()
        except Problem as problem:
            ends.append((rank, str(problem)))

    def member(rank: int, name: str) -> Server:
        root = tmp_path / name
        root.mkdir()
        server, _ = make_server(
            make_places(root),
            model,
            {},
            fields={"nodes": 2, "rank": rank, "leader": "w-0.h", "pipeline_parallel": 2},
            peers=urls[rank],
            timing=replace(QUICK, drain=1),
        )
        server._port = ports[rank]
        server._upstream = f"http://127.0.0.1:{ports[rank] + 1}"
        return server

    ports = [free_ports(), free_ports()]
    urls = [{1: f"http://127.0.0.1:{ports[1]}"}, {0: f"http://127.0.0.1:{ports[0]}"}]
    leader, worker = member(0, "leader"), member(1, "worker")
    tasks = [asyncio.create_task(pod(0, leader))]
    await until(lambda: "waiting for worker 1" in leader.state.progress)
    assert leader.state.phase is Phase.GATHERING
    tasks.append(asyncio.create_task(pod(1, worker)))
    await until(lambda: leader.state.phase is Phase.SERVING and worker.state.phase is Phase.SERVING)
    assert (leader.state.progress, worker.state.progress) == ("", "")

    # The worker dies and is back before anybody has missed it.
    worker.end()
    await tasks[1]
    again = member(1, "again")
    tasks.append(asyncio.create_task(pod(1, again)))
    await tasks[0]
    assert ends == [(0, "worker 1 was started anew: the group begins again")]
    assert again.state.phase is Phase.GATHERING

    # The leader comes back, finds the worker waiting, and both serve.
    leader = member(0, "leader-again")
    tasks.append(asyncio.create_task(pod(0, leader)))
    await until(lambda: leader.state.phase is Phase.SERVING and again.state.phase is Phase.SERVING)

    # The leader is gone for good: its worker does not outlive it.
    leader.end()
    await asyncio.wait_for(asyncio.gather(*tasks), PATIENCE)
    assert ends[1][0] == 1
    assert "the leader" in ends[1][1]
    assert "has not answered" in ends[1][1]


class Program:
    """The program as the image starts it."""

    def __init__(self, process: asyncio.subprocess.Process, places: Places, port: int) -> None:
        self.process, self.places, self.port = process, places, port

    async def end(self) -> tuple[int, str, str]:
        """Return its exit code, its output, and what it has left for Kubernetes."""
        output, _ = await asyncio.wait_for(self.process.communicate(), PATIENCE)
        left = self.places.termination_message
        return self.process.returncode or 0, output.decode(), left.read_text() if left.exists() else ""


async def start(places: Places, variables: dict[str, str], *arguments: str, file_limit: int = 0) -> Program:
    port = free_ports()
    environment = {
        "PATH": f"{FAKE_VLLM.parent}:{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PYTHONPATH": os.environ.get("PYTHONPATH", ""),
        "SERVING_ROOT": str(places.root),
        "SERVING_PORT": str(port),
        "BIND_ADDRESS": "127.0.0.1",
        "HF_HUB_OFFLINE": "1",
        **variables,
    }
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "provisioner.serving",
        *arguments,
        env=environment,
        cwd=ROOT,
        preexec_fn=(lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (file_limit,) * 2)) if file_limit else None,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    return Program(process, places, port)


@pytest.mark.parametrize(
    ("config", "variables", "says"),
    [
        ("vllm: {no-such-option: 1}", {}, "--such-option=1: vLLM has no such option, remove it"),
        ("vllm: {api-key: s3cret}", {}, "remove vllm.api-key: a ConfigMap is no place for a key"),
        ("vllm: {chat-template: missing.jinja}", {}, "vllm.chat-template names the file missing.jinja"),
        ("", {"MODEL": "/nowhere"}, "the model directory /nowhere is not there"),
        ("", {"MODEL": ""}, "MODEL is missing"),
        ("", {"MODEL": "a b"}, "MODEL is 'a b'"),
        ("", {"NODES": "2", "RANK": "0"}, "LEADER_ADDRESS is missing"),
    ],
)
async def test_what_is_wrong_is_one_line_in_the_log_and_for_kubernetes(
    places: Places, model: Path, config: str, variables: dict[str, str], says: str
) -> None:
    places.inference_config.write_text(config)

    program = await start(places, {"MODEL": str(model), **variables}, "serve")
    code, output, message = await program.end()

    assert code == 1
    assert says in message
    assert message.count("\n") == 1
    assert sum(says in line for line in output.splitlines() if " ERROR " in line) == 1
    assert "Traceback" not in output
    assert "s3cret" not in output


async def test_a_model_without_a_tokenizer_is_told_of(places: Places, tmp_path: Path) -> None:
    model = make_model(tmp_path / "bare", tokenizer=False)

    _, _, message = await (await start(places, {"MODEL": str(model)}, "serve")).end()

    assert message == f"the model directory {model} has no tokenizer: put tokenizer.json there\n"


@pytest.mark.parametrize("call", ["fetch", "pull"])
async def test_no_room_for_what_is_brought_is_told_of(places: Places, call: str) -> None:
    data = b"[" + b"0," * 100_000 + b"0]"

    async def answer(request: web.Request) -> web.StreamResponse:
        return web.Response(body=data)

    app = web.Application()
    app.router.add_get("/a.json", answer)
    async with TestServer(app) as server, registry(Registry()) as held:
        held.add_image("1", {**held.add_blob(data), "annotations": {"org.opencontainers.image.title": "a.json"}})
        urls = json.dumps([f"http://127.0.0.1:{server.port}/a.json"])
        variables = {"DATA_URLS": urls, "FETCH_ANY_ADDRESS": "true"}
        image = (f"{held.host}/a:1",) if call == "pull" else ()
        # Files may not grow beyond that, which is as good as a full disk.
        program = await start(places, variables, call, *image, str(places.data), file_limit=64 << 10)
        code, output, message = await program.end()

    assert code == 1
    assert "File too large" in message
    assert str(places.data) in message
    assert "Traceback" not in output


@pytest.mark.parametrize("call", ["fetch", "pull"])
async def test_sigterm_ends_what_is_being_brought_and_leaves_no_scratch(places: Places, call: str) -> None:
    asked = asyncio.Event()

    async def answer(request: web.Request) -> web.StreamResponse:
        asked.set()
        await asyncio.Event().wait()
        raise AssertionError

    app = web.Application()
    app.router.add_get("/{path:.*}", answer)
    async with TestServer(app) as server:
        host = f"127.0.0.1:{server.port}"
        variables = {"DATA_URLS": json.dumps([f"http://{host}/a.json"]), "FETCH_ANY_ADDRESS": "true"}
        image = (f"{host}/a:1",) if call == "pull" else ()
        program = await start(places, variables, call, *image, str(places.data))
        await asyncio.wait_for(asked.wait(), PATIENCE)
        program.process.send_signal(signal.SIGTERM)
        code, output, _ = await program.end()

    assert code == 143
    assert "Traceback" not in output
    assert list(places.data.iterdir()) == []


async def test_sigterm_while_loading_ends_the_program(places: Places, model: Path, tmp_path: Path) -> None:
    how = {"waits_for": str(tmp_path / "never"), "seen": str(tmp_path / "seen"), "child": str(tmp_path / "child")}
    program = await start(places, {"MODEL": str(model), "FAKE_VLLM": json.dumps(how)}, "serve")
    await until(lambda: (tmp_path / "child").exists() and bool((tmp_path / "child").read_text()))

    program.process.send_signal(signal.SIGTERM)
    code, output, _ = await program.end()

    assert code == 0
    assert "ending while loading" in output
    assert not alive(int((tmp_path / "child").read_text()))


async def test_the_probes_of_a_group_are_answered_by_the_program(places: Places, model: Path) -> None:
    program = await start(places, {"MODEL": str(model)}, "serve")
    probe = {"MODEL": str(model), "SERVING_PORT": str(program.port)}

    async def is_ready() -> bool:
        return (await (await start(places, probe, "check", "ready")).end())[0] == 0

    await until(is_ready)
    program.process.send_signal(signal.SIGTERM)
    assert (await program.end())[0] == 0
    code, line, _ = await (await start(places, probe, "check", "alive")).end()
    assert (code, line) == (1, "the program does not answer on its port\n")


@pytest.mark.parametrize("arguments", [(), ("serve", "x"), ("check", "well"), ("pull", "image"), ("what",)])
async def test_a_wrong_call_is_answered_with_the_usage(places: Places, arguments: tuple[str, ...]) -> None:
    code, output, _ = await (await start(places, {}, *arguments)).end()

    assert code == 2
    assert output.startswith("usage: serving serve")
