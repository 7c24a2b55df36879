"""A model split over two nodes by the real vLLM, without Ray: two programs on two addresses of loopback."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
import pytest_asyncio

from fakes.serving.process import ServingProcess, still_alive
from tests.serving.conftest import Maker, fixed_ports

pytestmark = pytest.mark.asyncio(loop_scope="module")
LEADER, WORKER = "127.0.0.1", "127.0.0.2"
PATIENCE = 300.0


class Pair:
    """A leader and its worker."""

    def __init__(self, make_server: Maker, root: Path) -> None:
        port = fixed_ports()
        self.leader, self.worker = self.members = [
            make_server(
                root / address,
                port=port,
                RANK=str(rank),
                BIND_ADDRESS=address,
                POD_IP=address,
                VLLM_CPU_OMP_THREADS_BIND=str(rank),
                NODES="2",
                TENSOR_PARALLEL_SIZE="2",
                LEADER_ADDRESS=LEADER,
                WORKER_ADDRESSES=WORKER,
                GLOO_SOCKET_IFNAME="lo",
            )
            for rank, address in enumerate((LEADER, WORKER))
        ]

    async def start(self) -> None:
        """Start those that do not run, as the kubelet does, and wait until the model is served."""
        for member in self.members:
            if not member.runs:
                await member.start()
        await self.leader.wait_serving(patience=PATIENCE)

    async def kill(self) -> None:
        """Leave nothing behind."""
        await asyncio.gather(*(member.kill() for member in self.members))


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def pair(make_server: Maker, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Pair]:
    pair = Pair(make_server, tmp_path_factory.mktemp("group"))
    try:
        await pair.start()
        yield pair
    finally:
        await pair.kill()


async def complete(server: ServingProcess) -> str:
    body = {"model": "tiny", "prompt": "A node of the cluster", "max_tokens": 32, "temperature": 0}
    async with aiohttp.ClientSession() as session, session.post(f"{server.url}/v1/completions", json=body) as answer:
        assert answer.status == 200, await answer.text()
        return str((await answer.json())["choices"][0]["text"])


async def test_the_group_answers_and_each_of_its_probes_does(pair: Pair) -> None:
    assert await complete(pair.leader) == await complete(pair.leader) != ""
    for member in pair.members:
        for what in ("started", "alive", "ready"):
            code, line = await member.check(what)
            assert code == 0, line
    assert await pair.worker.check("alive") == (0, "serving; the leader is serving\n")


async def test_the_group_begins_again_when_vllm_is_killed_on_a_worker(pair: Pair) -> None:
    text = await complete(pair.leader)
    program, vllm, *others = pair.worker.descendants()
    assert program == pair.worker.process.pid
    assert others

    os.kill(vllm, signal.SIGKILL)

    assert await pair.worker.wait(patience=PATIENCE) == 1
    assert pair.worker.termination_message() == "vLLM: it was ended by signal 9: the pod may have run out of memory\n"
    assert await still_alive((vllm, *others)) == []
    # The kubelet starts it again. Its leader has begun with another, and ends for that.
    await pair.worker.start()
    ours = pair.leader.descendants()
    assert await pair.leader.wait(patience=PATIENCE) == 1
    assert pair.leader.termination_message().count("\n") == 1
    assert await still_alive(ours) == []
    assert pair.worker.runs

    await pair.start()
    assert await complete(pair.leader) == text


async def test_a_group_that_is_told_to_end_ends(pair: Pair) -> None:
    all_of_it = [pid for member in pair.members for pid in member.descendants()]

    for member in pair.members:
        member.terminate()

    assert [await member.wait(patience=PATIENCE) for member in pair.members] == [0, 0]
    assert await still_alive(all_of_it) == []
