"""A Workspace controller that acts and is held up, while another takes over: what it goes on with writes nothing."""

import asyncio
from pathlib import Path

from fakes.cluster.interface import ControlPlane
from fakes.proxy import Delay
from tests.kube import eventually
from tests.scenarios.on_workspaces import WORKSPACES, clear_workspaces, inference, workspace_environment
from tests.scenarios.running import running
from tests.scenarios.two_instances import TAKE_OVER, two_instances

# Real seconds from a write until it is answered: longer than a Lease lasts, shorter than the client waits.
HELD_BACK = 22.0


async def test_leader_that_was_held_up_writes_nothing_that_it_had_decided_before(
    control_plane: ControlPlane, tmp_path: Path
) -> None:
    environment = workspace_environment(control_plane)
    async with (
        running(control_plane, log=tmp_path / "claims.log") as world,
        two_instances(world.aks, world.kube, folder=tmp_path, command="workspace", settings=environment) as pair,
    ):
        # The model and the claims that are needed are written down before the first claim is.
        held_back = pair.first.proxy.add_fault(
            Delay(verb="patch", resource="workspaces/status", seconds=HELD_BACK, times=None)
        )
        await world.kube.create(WORKSPACES, inference("one"))

        async def hits() -> int:
            return held_back.hits

        await eventually(hits, what="a Workspace is about to have its claim")
        answered = asyncio.get_running_loop().time() + HELD_BACK + 1.0
        pair.first.stop_time()
        await eventually(pair.second.leads, patience=TAKE_OVER, what="the second acts")

        async def written() -> int:
            return pair.second.proxy.calls.count("create", "nodeclaims")

        await eventually(written, what="the second has written the claim")
        await asyncio.sleep(max(0.0, answered - asyncio.get_running_loop().time()))
        pair.first.go_on()

        async with asyncio.timeout(TAKE_OVER):
            assert await pair.first.process.process.wait() == 1
        pair.assert_one_after_the_other()
        assert pair.first.proxy.calls.count("create", "nodeclaims") == 0
        await clear_workspaces(world.kube)
