"""A hundred Workspaces at once: all are served, each by one claim."""

from pathlib import Path

import pytest

from fakes.azure.settings import Settings as AzureSettings
from fakes.cluster.interface import ControlPlane
from provisioner.apis import names
from tests.conftest import SCALE
from tests.kube import CLAIMS, WORKSPACES, eventually
from tests.scenarios.on_azure import pools
from tests.scenarios.on_workspaces import STATEFUL_SETS, inference, serving

WORKSPACE_COUNT = 100
# Of the family of the size that they ask for, and of the region.
QUOTA = {"StandardNCADSA100v4Family": 100_000, "cores": 1_000_000}
# A hundred Nodes with their device plugins and servers take two busy cores a while.
PATIENCE = 240.0


@pytest.mark.embedded_only("the real scheduler and controller manager take minutes for as many pods")
async def test_a_hundred_workspaces(control_plane: ControlPlane, tmp_path: Path) -> None:
    azure = AzureSettings(scale=SCALE, max_agent_pools=2 * WORKSPACE_COUNT, quota=QUOTA)
    async with serving(control_plane, folder=tmp_path, azure=azure) as world:
        wanted = [f"many-{number:03}" for number in range(WORKSPACE_COUNT)]
        for name in wanted:
            await world.create(inference(name))

        async def waiting() -> list[str]:
            found = await world.kube.items(WORKSPACES)
            return [raw["metadata"]["name"] for raw in found if (raw.get("status") or {}).get("state") != "Ready"]

        await eventually(waiting, until=lambda left: not left, patience=PATIENCE, what="all Workspaces are Ready")

        claims = await world.kube.items(CLAIMS)
        assert sorted(claim["metadata"]["labels"][names.WORKSPACE_LABEL] for claim in claims) == wanted
        assert set(pools(world.aks)) == {claim["metadata"]["name"] for claim in claims}
        assert len(await world.kube.items(STATEFUL_SETS)) == WORKSPACE_COUNT
        for log in (world.workspaces.log_text(), world.claims.log_text()):
            assert '"level": "error"' not in log
            assert "Traceback" not in log

        for name in wanted:
            await world.kube.delete(WORKSPACES, name)
        await eventually(
            lambda: world.kube.items(WORKSPACES), until=lambda left: not left, patience=PATIENCE, what="all are gone"
        )
        assert pools(world.aks) == {}
        assert await world.kube.items(CLAIMS) == []
