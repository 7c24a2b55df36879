"""What the real vLLM cannot serve: it ends, and one line tells what to change, in the log and for Kubernetes."""

import asyncio
import json
import os
import shutil
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from tests.serving.conftest import Maker, options

pytestmark = pytest.mark.asyncio(loop_scope="module")
PATIENCE = 240.0
ROOT = Path(__file__).resolve().parents[2]
# What has to be seen is the end, and two at a time is what a small machine has room for, of all tests together.
_AT_ONCE = 1 if "PYTEST_XDIST_WORKER" in os.environ else 2


async def message_of(make_server: Maker, root: Path, *, config: str, **environment: str) -> str:
    """Return what a server that is started so leaves for Kubernetes; it must never say that it is ready."""
    async with make_server(root, config=config, **environment) as server:
        ending = asyncio.create_task(server.wait(patience=PATIENCE))
        while not ending.done():
            assert (await server.health())[0] != 200, server.log_text()[-2000:]
            await asyncio.wait({ending}, timeout=0.2)

        assert await ending == 1, server.log_text()[-2000:]
        message = server.termination_message()
        assert message.count("\n") == 1
        ours = [line for line in server.log_text().splitlines() if line[:4].isdecimal() and " ERROR " in line]
        assert [line.partition(" ERROR ")[2] for line in ours] == [message.strip()]
        return message


async def all_of(make_server: Maker, root: Path, cases: Mapping[str, tuple[str, Mapping[str, str]]]) -> dict[str, str]:
    """Return the messages of cases by their names."""
    free = asyncio.Semaphore(_AT_ONCE)

    async def one(name: str, config: str, environment: Mapping[str, str]) -> str:
        async with free:
            return await message_of(make_server, root / name, config=config, **environment)

    found = await asyncio.gather(*(one(name, *case) for name, case in cases.items()))
    return dict(zip(cases, found, strict=True))


async def test_what_is_found_before_vllm_is_started(make_server: Maker, tiny: Path, tmp_path: Path) -> None:
    bare, cut = tmp_path / "bare", tmp_path / "cut"
    shutil.copytree(tiny, bare, ignore=shutil.ignore_patterns("tokenizer*"))
    shutil.copytree(tiny, cut)
    weights = cut / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])

    found = await all_of(
        make_server,
        tmp_path,
        {
            "file": (options(chat_template="/nowhere/chat.jinja"), {}),
            "template": (options(chat_template="{% for %}"), {}),
            "tokenizer": (options(), {"MODEL": str(bare)}),
            "weights": (options(), {"MODEL": str(cut)}),
            "key": (options(), {"API_KEY": "\n"}),
        },
    )

    assert found["file"].startswith("vllm.chat-template names the file /nowhere/chat.jinja, which is not in the image")
    assert found["template"] == (
        "vllm.chat-template cannot be used: Expected an expression, got 'end of statement block' (line 1)\n"
    )
    assert found["tokenizer"] == f"the model directory {bare} has no tokenizer: put tokenizer.json there\n"
    assert found["weights"].startswith(f"the model directory {cut} cannot be served: model.safetensors is incomplete")
    assert found["key"].startswith("the key in API_KEY or VLLM_API_KEY is blank")


async def test_what_vllm_refuses_before_it_loads_the_model(make_server: Maker, tmp_path: Path) -> None:
    found = await all_of(
        make_server,
        tmp_path,
        {
            "option": (options(frobnicate=3), {}),
            "length": (options(), {"MAX_MODEL_LEN": "4096"}),
            "parser": (options(), {"TOOL_CALL_PARSER": "nope"}),
            "quantisation": (options(quantization="awq"), {}),
        },
    )

    assert found == {
        "option": "vLLM: --frobnicate=3: vLLM has no such option, remove it from inference_config.yaml\n",
        "length": "vLLM: User-specified max_model_len (4096) is greater than the derived max_model_len"
        " (max_position_embeddings=2048.0 or model_max_length=None in model's config.json):"
        " lower vllm.max-model-len\n",
        "parser": "vLLM: invalid tool call parser: nope: set vllm.tool-call-parser to one that vLLM has\n",
        "quantisation": "vLLM: Cannot find the config file for awq: correct it in inference_config.yaml\n",
    }


async def test_what_shows_when_the_model_is_loaded(make_server: Maker, tiny: Path, tmp_path: Path) -> None:
    # The same weights as heads that no kernel of the processor has: vLLM says that it is well, and dies of its first
    # request.
    odd = tmp_path / "odd"
    shutil.copytree(tiny, odd)
    heads = {"head_dim": 16, "num_attention_heads": 4, "num_key_value_heads": 2}
    (odd / "config.json").write_text(json.dumps(json.loads((odd / "config.json").read_text()) | heads))
    # Every process of vLLM finds this disk full once it writes the weights to it.
    full = tmp_path / "full"
    full.mkdir()
    (full / "sitecustomize.py").write_text(FULL_DISK)
    path = f"{full}{os.pathsep}{ROOT}"

    async with hub_of(tiny) as endpoint:
        found = await all_of(
            make_server,
            tmp_path,
            {
                "cache": (options(kv_cache_memory_bytes="100K"), {"MAX_MODEL_LEN": "2048"}),
                "disk": (
                    options(),
                    {"MODEL": "org/tiny", "HF_ENDPOINT": endpoint, "HF_HUB_OFFLINE": "0", "PYTHONPATH": path},
                ),
                "kernel": (options(), {"MODEL": str(odd)}),
            },
        )

    assert found["cache"].startswith("vLLM: To serve at least one request with the model's max seq len (2048), (")
    assert found["cache"].endswith("maximum model length is 256: lower vllm.max-model-len or set auto\n")
    assert found["disk"].startswith("vLLM: No space left on device")
    assert found["disk"].endswith(": the Node's disk is full: ask for a larger OS disk (resource storage) or size\n")
    assert found["kernel"].startswith("vLLM: RuntimeError: Unsupported CPU attention configuration: head_dim=16")


FULL_DISK = """
import io

_open = io.open


def open_full(file, *arguments, **named):
    is_weights = "weights" in str(file) and str(file).endswith(".incomplete")
    return _open("/dev/full" if is_weights else file, *arguments, **named)


io.open = open_full
"""


@asynccontextmanager
async def hub_of(model: Path) -> AsyncIterator[str]:
    """Yield the address of a Hub that has the model as org/tiny."""
    names = [file.name for file in model.iterdir()]  # noqa: ASYNC240 -- nothing waits for it

    async def info(request: web.Request) -> web.StreamResponse:
        files = [{"rfilename": name, "size": (model / name).stat().st_size} for name in names]
        return web.json_response({"id": "org/tiny", "sha": "0" * 40, "siblings": files})

    async def tree(request: web.Request) -> web.StreamResponse:
        files = [
            {"type": "file", "path": name, "size": (model / name).stat().st_size, "oid": "0" * 40} for name in names
        ]
        return web.json_response(files)

    async def file(request: web.Request) -> web.StreamResponse:
        name = request.match_info["name"]
        if name not in names:
            return web.Response(status=404, headers={"X-Error-Code": "EntryNotFound"})
        tag = "weights" if name.endswith(".safetensors") else name.replace(".", "-")
        return web.Response(body=(model / name).read_bytes(), headers={"ETag": f'"{tag}"', "X-Repo-Commit": "0" * 40})

    app = web.Application()
    app.router.add_get("/api/models/org/tiny", info)
    app.router.add_get("/api/models/org/tiny/revision/{revision}", info)
    app.router.add_get("/api/models/org/tiny/tree/{revision}", tree)
    app.router.add_get("/org/tiny/resolve/{revision}/{name}", file)
    async with TestServer(app) as server:
        yield f"http://127.0.0.1:{server.port}"
