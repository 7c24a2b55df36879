"""Adapters that vLLM itself refuses: one after the other, and each time it ends."""

import asyncio
import json
from pathlib import Path

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from provisioner.serving.environment import ServedAdapter
from provisioner.serving.problem import Problem
from provisioner.serving.state import Phase
from tests.unit.serving_support import PATIENCE, make_adapter, make_model, make_places, make_server, until

REFUSALS = {"odd": "ValueError: unexpected modules in odd", "last": "ValueError: nobody knows"}


async def test_those_that_vllm_refuses_are_left_out_and_the_others_served(tmp_path: Path) -> None:
    places, seen = make_places(tmp_path), tmp_path / "seen"
    names = ("first", "odd", "second", "last")
    for name in names:
        make_adapter(places.adapters / name)
    server, _ = make_server(
        places,
        make_model(tmp_path / "model"),
        {"refuses": REFUSALS, "seen": str(seen)},
        adapters=tuple(ServedAdapter(name=name) for name in (*names, "gone")),
    )
    task = asyncio.create_task(server.run())
    await until(lambda: server.state.phase is Phase.SERVING or task.done())

    argv = json.loads(seen.read_text())["argv"]
    at = argv.index("--lora-modules")
    assert argv[at + 1 : at + 3] == [f"first={places.adapters}/first", f"second={places.adapters}/second"]
    assert set(server.state.left_out) == {"odd", "last", "gone"}
    assert server.state.left_out["odd"] == "vLLM refuses it: ValueError: unexpected modules in odd"
    assert json.loads(places.status.read_text())["adapters_left_out"] == server.state.left_out
    server.end()
    await asyncio.wait_for(task, PATIENCE)


async def test_an_end_for_another_reason_leaves_no_adapter_out(tmp_path: Path) -> None:
    places = make_places(tmp_path)
    make_adapter(places.adapters / "a")
    model = make_model(tmp_path / "model")
    server, _ = make_server(places, model, {"broken": True}, adapters=(ServedAdapter(name="a"),))

    with pytest.raises(Problem, match="Unsupported CPU attention"):
        await asyncio.wait_for(server.run(), PATIENCE)

    assert server.state.left_out == {}


async def test_a_group_does_not_go_on_without_it(tmp_path: Path) -> None:
    async def worker(request: web.Request) -> web.StreamResponse:
        return web.json_response({"instance": "a", "state": "gathering"})

    places = make_places(tmp_path)
    make_adapter(places.adapters / "odd")
    app = web.Application()
    app.router.add_get("/health", worker)
    async with TestServer(app) as other:
        server, _ = make_server(
            places,
            make_model(tmp_path / "model"),
            {"refuses": REFUSALS},
            adapters=(ServedAdapter(name="odd"),),
            fields={"nodes": 2, "rank": 0, "leader": "w-0.h", "pipeline_parallel": 2},
            peers={1: f"http://127.0.0.1:{other.port}"},
        )
        with pytest.raises(Problem, match="adapter odd cannot be served, remove it: vLLM refuses it: ValueError: unex"):
            await asyncio.wait_for(server.run(), PATIENCE)
