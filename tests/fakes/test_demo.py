"""The demo comes to its end, and tells the way of a Workspace in its order."""

import pytest

from fakes.cluster.interface import ControlPlane
from fakes.demo.__main__ import main_async
from tests.conftest import SCALE
from tests.kube import clear

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
