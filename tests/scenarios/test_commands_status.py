"""`provisioner status` against a whole AKS: once, and live; on a terminal and in a pipe."""

import asyncio
import contextlib
import json
import os
import pty
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import yaml

from fakes.aks import FakeAks, claim_name
from fakes.azure.settings import Settings as AzureSettings
from fakes.controller import ControllerProcess
from tests.claims import A100, kaito_claim
from tests.conftest import SCALE
from tests.kube import CLAIMS, Kube, eventually, is_true
from tests.scenarios.asking import PATIENCE, ROOT, ask, assert_told, environment, start


@pytest.fixture
def azure_settings() -> AzureSettings:
    return AzureSettings(scale=SCALE, prices={A100: 3.5})


async def test_status_shows_claims_of_ours_with_phase_and_price(
    aks: FakeAks, kube: Kube, controller: ControllerProcess
) -> None:
    ready, refused = claim_name(), claim_name()
    await kube.create(CLAIMS, kaito_claim(ready))
    await kube.create(CLAIMS, kaito_claim(refused, instance_type="Standard_nope"))
    foreign = kaito_claim("foreign")
    foreign["metadata"]["labels"] = {}
    foreign["spec"]["nodeClassRef"] = {"group": "karpenter.azure.com", "kind": "AKSNodeClass", "name": "default"}
    await kube.create(CLAIMS, foreign)
    claim = await kube.wait_claim(ready, is_true("Ready"))
    await kube.wait_claim(refused, lambda seen: bool((seen.get("status") or {}).get("conditions")))

    ended = await ask(aks, "status")
    assert (ended.code, ended.err) == (0, "")
    words = ended.rows[ready]
    assert words[:5] == [ready, ready, A100, claim["status"]["nodeName"], "Ready"]
    assert words[6] == "3.500"
    assert "UnknownInstanceType:" in ended.rows[refused]
    assert "foreign" not in ended.rows
    assert "2 claims: 1 Failed, 1 Ready. 1 with a VM, 3.500 $/h." in ended.out

    document = (await ask(aks, "status", "-o", "json")).json
    assert document["phases"] == {"Failed": 1, "Ready": 1}
    assert document["pricePerHour"] == 3.5
    assert {entry["name"] for entry in document["claims"]} == {ready, refused}

    assert (await ask(aks, "status", "--exit-code")).code == 3
    assert (await ask(aks, "status", ready, "--exit-code")).code == 0


async def test_status_needs_nothing_of_azure(aks: FakeAks, kube: Kube) -> None:
    await kube.create(CLAIMS, kaito_claim("ws1"))
    process = await start(
        {"PATH": os.environ["PATH"], "PRICING_ENDPOINT": "none"},
        "status",
        "-o",
        "yaml",
        "--kubeconfig",
        str(aks.cluster.kubeconfig),
    )
    async with asyncio.timeout(PATIENCE):
        out, err = await process.communicate()

    assert (process.returncode, err) == (0, b"")
    (claim,) = yaml.safe_load(out)["claims"]
    assert (claim["name"], claim["phase"], claim["vmSize"]) == ("ws1", "Waiting", A100)


async def test_status_of_a_claim_that_is_not_there_is_told(aks: FakeAks) -> None:
    assert_told(await ask(aks, "status", "nobody"), 1, "no NodeClaim nobody")


async def test_status_without_a_cluster_is_told(aks: FakeAks) -> None:
    assert_told(await ask(aks, "status", KUBECONFIG="/does/not/exist"), 2, "/does/not/exist", "Set KUBECONFIG")


async def test_hostile_conditions_do_not_reach_the_terminal(aks: FakeAks, kube: Kube) -> None:
    created = await kube.create(CLAIMS, kaito_claim("ws1"))
    hostile = {
        "type": "Launched",
        "status": "Unknown",
        "reason": "Hostile",
        "message": "\x1b]0;owned\x07\x1b[2J\u202e",
        "lastTransitionTime": created["metadata"]["creationTimestamp"],
    }
    await kube.patch(CLAIMS, "ws1/status", {"status": {"conditions": [hostile]}})

    ended = await ask(aks, "status", "--wide")

    assert "Hostile" in ended.out
    assert all(line.isprintable() for line in ended.out.splitlines())


@asynccontextmanager
async def watching(aks: FakeAks, *arguments: str) -> AsyncIterator[asyncio.subprocess.Process]:
    process = await start(environment(aks), "status", "-w", *arguments)
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def line_with(process: asyncio.subprocess.Process, *parts: str) -> str:
    """Return the next line that has all of this."""
    assert process.stdout is not None
    async with asyncio.timeout(PATIENCE):
        while line := (await process.stdout.readline()).decode():
            if all(part in line for part in parts):
                return line
    raise AssertionError(f"no line with {parts} came")


async def interrupt(process: asyncio.subprocess.Process) -> tuple[int | None, bytes]:
    process.send_signal(signal.SIGINT)
    async with asyncio.timeout(PATIENCE):
        _, err = await process.communicate()
    return process.returncode, err


async def test_watch_appends_a_line_for_each_change_until_ctrl_c(aks: FakeAks, kube: Kube) -> None:
    async with watching(aks) as process:
        await line_with(process, "NAME", "PHASE")
        await kube.create(CLAIMS, kaito_claim("ws1"))
        await line_with(process, "ws1", "Waiting")
        await kube.delete(CLAIMS, "ws1")
        await line_with(process, "ws1", "Gone")

        assert await interrupt(process) == (0, b"")


async def test_watch_writes_documents_for_scripts(aks: FakeAks, kube: Kube) -> None:
    await kube.create(CLAIMS, kaito_claim("ws1"))
    async with watching(aks, "-o", "json") as process:
        first = json.loads(await line_with(process, "ws1"))
        await kube.delete(CLAIMS, "ws1")
        last = json.loads(await line_with(process, "Gone"))

        assert (first["phase"], first["vmSize"], last["name"]) == ("Waiting", A100, "ws1")
        assert await interrupt(process) == (0, b"")


async def test_watch_draws_over_itself_on_a_terminal(aks: FakeAks, kube: Kube) -> None:
    await kube.create(CLAIMS, kaito_claim("ws1"))
    ours, theirs = pty.openpty()
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "provisioner", "status", "-w"),
        cwd=ROOT,
        env=environment(aks, TERM="xterm", COLUMNS="100", LINES="20"),
        stdout=theirs,
        stderr=theirs,
    )
    os.close(theirs)
    os.set_blocking(ours, False)
    seen = bytearray()

    async def screen() -> bytes:
        with contextlib.suppress(BlockingIOError):
            seen.extend(os.read(ours, 65536))
        return bytes(seen)

    try:
        await eventually(screen, until=lambda drawn: drawn.count(b"1 claim: 1 Waiting") > 1, what="two drawings")
        process.send_signal(signal.SIGINT)
        async with asyncio.timeout(PATIENCE):
            assert await process.wait() == 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
        os.close(ours)
    assert seen.count(b"\x1b[H") > 1
    assert b"Traceback" not in seen
