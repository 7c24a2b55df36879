"""The demo comes to its end, and tells the way of a Workspace in its order; what it has started ends with it."""

import asyncio
import os
import signal
import sys
from pathlib import Path

import pytest

from fakes.cluster.interface import ControlPlane
from fakes.demo.__main__ import main_async
from fakes.demo.serving import NoAnswer, Serving, find_route
from fakes.serving.process import descendants
from tests.conftest import SCALE
from tests.kube import clear, eventually

ROOT = Path(__file__).parents[2]
# Seconds until a demo that does not come so far fails its test.
PATIENCE = 60.0
# Parts of lines, in the order in which a person has to see them.
STORY = (
    "workspace phi-4-mini is written",
    "workspace phi-4-mini runs on 1 x Standard_NC4as_T4_v3: tensor parallel 1; ",
    " is written",
    "(Standard_NC4as_T4_v3) is Creating",
    " has joined, ",
    "GPUs: 1 x nvidia.com/gpu",
    "pod phi-4-mini-0 is ",
    "workspace phi-4-mini is Ready: its model is served at http://phi-4-mini.default.svc",
    "workspace phi-4-mini is deleted",
    "(Standard_NC4as_T4_v3) is Deleting",
    "workspace phi-4-mini is gone",
    "Served at http://phi-4-mini.default.svc/v1 after ",
    "Pods are simulated here, as nodes are: nothing answers at that address.",
)


async def test_demo_shows_a_workspace_come_and_go(
    control_plane: ControlPlane, capsys: pytest.CaptureFixture[str]
) -> None:
    code = await main_async(control_plane, what="a control plane", speed=SCALE, keep=False)
    await clear(control_plane)

    shown = capsys.readouterr().out
    assert code == 0, shown
    at = 0
    for part in STORY:
        found = shown.find(part, at)
        assert found >= 0, f"{part!r} is missing, or too early, in:\n{shown}"
        at = found + len(part)


@pytest.mark.embedded
@pytest.mark.skipif(sys.platform != "linux", reason="finds what it has started in /proc")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
async def test_demo_that_is_ended_leaves_nothing(number: signal.Signals, tmp_path: Path) -> None:
    demo = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "fakes.demo"),
        cwd=ROOT,
        env={**os.environ, "TMPDIR": str(tmp_path)},
        stdout=asyncio.subprocess.PIPE,
    )
    assert demo.stdout is not None
    try:
        async with asyncio.timeout(PATIENCE):
            while b"is Creating" not in await demo.stdout.readline():
                assert not demo.stdout.at_eof()
        started = [Path(f"/proc/{pid}") for pid in descendants(demo.pid)]
        demo.send_signal(number)
        async with asyncio.timeout(PATIENCE):
            code = await demo.wait()
    finally:
        if demo.returncode is None:
            demo.kill()
            await demo.wait()

    assert code == 128 + number
    # The control plane, its process and two controllers, and the demo itself.
    assert len(started) >= 4
    await eventually(lambda: asyncio.to_thread(_there, started), until=lambda left: not left)
    assert not any(await asyncio.to_thread(lambda: list(tmp_path.iterdir())))


def _there(processes: list[Path]) -> list[str]:
    """Return the names of those that run; one that nobody has waited for yet does not."""
    states = [path.joinpath("stat").read_text() for path in processes if path.exists()]
    return [state for state in states if state.rpartition(")")[2].split()[0] != "Z"]


async def test_service_without_a_pod_that_is_ready_leads_nowhere(control_plane: ControlPlane) -> None:
    client = control_plane.client()
    port = {"port": 80, "targetPort": 5000}
    body = {"metadata": {"name": "empty"}, "spec": {"selector": {"app": "none"}, "ports": [port]}}
    client.request("POST", "/api/v1/namespaces/default/services", body=body)
    try:
        with pytest.raises(NoAnswer, match="no pod that is ready is behind the Service empty"):
            find_route(client, "empty")
    finally:
        client.request("DELETE", "/api/v1/namespaces/default/services/empty")


async def test_what_the_program_in_a_pod_says_is_told_once_and_vllms_lines_are_not(tmp_path: Path) -> None:
    serving = Serving(Path("/bin/false"), folder=tmp_path, logs=tmp_path / "logs")
    log = serving.log_of("phi")
    log.parent.mkdir(parents=True)
    assert serving.news() == []

    log.write_text("2026-01-01 10:00:00,000 INFO starting: vllm\n(APIServer pid=7) INFO 01-01 hello\n2026-01-01 1")
    assert serving.news() == ["pod phi-0 says: starting: vllm"]
    assert serving.news() == []

    with log.open("a") as more:
        more.write("0:00:09,123 INFO serving phi\n")
    assert serving.news() == ["pod phi-0 says: serving phi"]
    assert serving.last_words(1).splitlines()[1:] == ["2026-01-01 10:00:09,123 INFO serving phi"]
