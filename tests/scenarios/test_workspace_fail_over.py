"""Two instances of the Workspace controller: whatever becomes of the one that acts, each claim is written once."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from fakes.cluster.interface import ControlPlane
from fakes.proxy import Delay
from provisioner.apis import names
from tests.kube import CLAIMS, WORKSPACES, Kube, eventually
from tests.scenarios.on_workspaces import clear_workspaces, inference, workspace_environment
from tests.scenarios.running import running
from tests.scenarios.two_instances import (
    FATES,
    TAKE_OVER,
    Fate,
    Pair,
    held_up,
    killed,
    let_go_on,
    take_over,
    two_instances,
)

# Real seconds from a write until it is answered: longer than a Lease lasts, shorter than the client waits.
HELD_BACK = 22.0
MANY = 20
# Twenty Nodes with their device plugins and servers take two busy cores a while.
PATIENCE = 240.0


@asynccontextmanager
async def clearing(kube: Kube) -> AsyncIterator[None]:
    """Take the Workspaces away at the end, however the test ends: the next one has names of the same."""
    try:
        yield
    finally:
        await clear_workspaces(kube)


def written(pair: Pair) -> Counter[str]:
    """Count what has made claims, by their name."""
    calls = (call for instance in (pair.first, pair.second) for call in instance.proxy.calls)
    return Counter(
        call.name for call in calls if (call.verb, call.resource, call.status) == ("create", "nodeclaims", 201)
    )


@pytest.mark.parametrize("fate", FATES)
async def test_twenty_workspaces_in_flight_have_one_claim_each_whatever_becomes_of_the_leader(
    control_plane: ControlPlane, tmp_path: Path, fate: Fate
) -> None:
    environment = workspace_environment(control_plane)
    async with (
        running(control_plane, log=tmp_path / "claims.log") as world,
        clearing(world.kube),
        two_instances(world.aks, world.kube, folder=tmp_path, command="workspace", settings=environment) as pair,
    ):
        wanted = sorted(f"many-{number}" for number in range(MANY))
        await asyncio.gather(*(world.kube.create(WORKSPACES, inference(name)) for name in wanted))

        async def claimed() -> int:
            return written(pair).total()

        await eventually(claimed, until=lambda number: number >= MANY // 2, what="half of the claims are written")

        await take_over(pair, fate)

        async def unready() -> list[str]:
            found = await world.kube.items(WORKSPACES)
            return [raw["metadata"]["name"] for raw in found if (raw.get("status") or {}).get("state") != "Ready"]

        await eventually(unready, until=lambda left: not left, patience=PATIENCE, what="all Workspaces are Ready")
        if fate is held_up:
            # By now nothing of what it had in mind is still to be done.
            await let_go_on(pair.first)
        pair.assert_one_after_the_other(on_its_way=1 if fate is held_up else 0)
        claims = await world.kube.items(CLAIMS)
        assert sorted(claim["metadata"]["labels"][names.WORKSPACE_LABEL] for claim in claims) == wanted
        once = {claim["metadata"]["name"]: 1 for claim in claims}
        # With a process die the answers that were on their way to it: of those claims only the cluster knows.
        assert written(pair).items() <= once.items() if fate is killed else written(pair) == once


async def test_leader_that_was_held_up_writes_nothing_that_it_had_decided_before(
    control_plane: ControlPlane, tmp_path: Path
) -> None:
    environment = workspace_environment(control_plane)
    async with (
        running(control_plane, log=tmp_path / "claims.log") as world,
        clearing(world.kube),
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

        async def claimed() -> int:
            return pair.second.proxy.calls.count("create", "nodeclaims")

        await eventually(claimed, what="the second has written the claim")
        await asyncio.sleep(max(0.0, answered - asyncio.get_running_loop().time()))
        await let_go_on(pair.first)

        pair.assert_one_after_the_other()
        assert pair.first.proxy.calls.count("create", "nodeclaims") == 0
