"""Workspaces from the model's name to the endpoint, and to the tuned adapter, with both controllers as processes."""

import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
import yaml

from fakes.azure.settings import Settings as AzureSettings
from fakes.cluster.interface import ControlPlane
from fakes.controller import ControllerProcess
from tests.conftest import SCALE
from tests.kube import eventually
from tests.scenarios.running import Running, running

pytestmark = pytest.mark.asyncio(loop_scope="module")

EXAMPLES = Path(__file__).parents[1] / "examples"
WORKSPACES = "/apis/kaito.sh/v1beta1/namespaces/default/workspaces"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def cluster(control_plane: ControlPlane, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Running]:
    folder = tmp_path_factory.mktemp("workspaces")
    # What the published examples name was retired since.
    azure = AzureSettings(scale=SCALE, sell_retired_sizes=True)
    async with running(control_plane, log=folder / "claims.log", azure=azure) as started:
        environment = {"KUBECONFIG": str(control_plane.kubeconfig), "HF_ENDPOINT": "none", "LOG_LEVEL": "debug"}
        async with ControllerProcess(environment, log=folder / "workspaces.log", command="workspace") as workspaces:
            yield started
        # Shown where a test has failed.
        sys.stdout.write(workspaces.log_text()[-20_000:])


def example(name: str) -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((EXAMPLES / f"{name}.yaml").read_text())
    return loaded


def condition(workspace: dict[str, Any], kind: str) -> dict[str, Any]:
    found = [c for c in (workspace.get("status") or {}).get("conditions") or () if c["type"] == kind]
    return found[0] if found else {}


async def test_inference_of_a_preset(cluster: Running) -> None:
    body = example("workspace-phi-3")
    name = body["metadata"]["name"]
    await cluster.kube.create("/apis/kaito.sh/v1alpha1/namespaces/default/workspaces", body)
    workspace = await eventually(
        lambda: cluster.kube.get(WORKSPACES, name),
        until=lambda raw: raw is not None and condition(raw, "WorkspaceReady").get("status") == "True",
        patience=90,
    )
    assert workspace is not None
    assert workspace["status"]["state"] == "Ready"
    await cluster.kube.delete(WORKSPACES, name)
    await eventually(lambda: cluster.kube.get(WORKSPACES, name), until=lambda raw: raw is None, patience=60)
