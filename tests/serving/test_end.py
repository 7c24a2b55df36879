"""The end of the real vLLM by itself, and asked for while it loads."""

import asyncio
import os
import signal
from pathlib import Path

import aiohttp
import pytest

from fakes.serving.process import ServingProcess, still_alive
from tests.serving.conftest import Maker
from tests.serving.streams import TOKENS, parts, read, stream_of

pytestmark = pytest.mark.asyncio(loop_scope="module")
PATIENCE = 180.0


async def test_the_end_of_an_engine_is_the_end_of_the_program(make_server: Maker, tmp_path: Path) -> None:
    async with make_server(tmp_path) as server:
        await server.wait_serving()
        everything = server.descendants()
        async with aiohttp.ClientSession(server.url) as session:
            # What a request was refused for before is not why it ends.
            for body in (stream_of(100_000), {"model": "tiny", "prompt": "A", "logprobs": -5}):
                async with session.post("/v1/completions", json=body) as answer:
                    assert answer.status == 400

            async with session.post("/v1/completions", json=stream_of()) as answer:
                await anext(parts(answer))
                os.kill(engine(server), signal.SIGKILL)
                assert not await is_whole(answer)

        assert await server.wait(patience=PATIENCE) == 1
        message = server.termination_message()
        assert message == "vLLM: engine core exited unexpectedly: the pod may have run out of memory\n"
        assert f"ERROR {message}" in server.log_text()
        assert await still_alive(everything) == []


async def test_while_it_loads_it_ends_at_once_and_leaves_nothing_behind(make_server: Maker, tmp_path: Path) -> None:
    async with make_server(tmp_path) as server:
        while "(EngineCore" not in server.log_text():
            assert server.runs, server.log_text()[-2000:]
            await asyncio.sleep(0.1)
        everything = server.descendants()
        assert len(everything) > 2
        server.terminate()
        server.terminate()

        # What vLLM is given to end itself while it loads, and then it is killed.
        assert await server.wait(patience=PATIENCE) == 0
        assert "ending while loading" in server.log_text()
        assert server.termination_message() == ""
        assert await still_alive(everything) == []


def engine(server: ServingProcess) -> int:
    """Return the process of vLLM's engine: it names itself."""
    (found,) = [pid for pid in server.descendants() if b"EngineCore" in Path(f"/proc/{pid}/cmdline").read_bytes()]
    return found


async def is_whole(answer: aiohttp.ClientResponse) -> bool:
    """Tell whether the stream goes on to its last token."""
    try:
        return (await read(answer))[0] == TOKENS
    except aiohttp.ClientError:
        return False
