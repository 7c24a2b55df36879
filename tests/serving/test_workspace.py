"""From a Workspace to an answer: both controllers, nodes that are fakes, and a pod that is vLLM."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import yaml

from fakes.aks import FakeAks
from fakes.azure.settings import Settings as AzureSettings
from fakes.cluster.embedded import EmbeddedCluster
from fakes.controller import ControllerProcess
from fakes.demo.serving import Serving, find_route
from tests.conftest import PACE, SCALE
from tests.kube import WORKSPACES, Kube, Object, eventually
from tests.scenarios.on_workspaces import CONFIG_MAPS, PODS, workspace_environment

EXAMPLE = Path(__file__).parents[2] / "docs" / "examples" / "workspace-cpu.yaml"
NAME = "phi-4-mini"
# Real seconds until vLLM serves; half a minute on two cores that are free.
PATIENCE = 400.0


@pytest.fixture
async def serving(python: Path, tmp_path: Path) -> Serving:
    return Serving(python, folder=tmp_path, logs=tmp_path / "logs")


@pytest.fixture
async def aks(serving: Serving, tmp_path: Path) -> AsyncIterator[FakeAks]:
    azure = AzureSettings(scale=SCALE)
    async with (
        FakeAks(EmbeddedCluster(), azure=azure, nodes=serving.nodes, runner=serving.runner) as aks,
        ControllerProcess({**aks.environment(), **PACE}, log=tmp_path / "run.log"),
        ControllerProcess(workspace_environment(aks.cluster), log=tmp_path / "workspace.log", command="workspace"),
    ):
        yield aks


async def test_workspace_answers_a_chat(aks: FakeAks, serving: Serving) -> None:
    config_map, workspace = yaml.safe_load_all(EXAMPLE.read_text())
    async with Kube(aks.cluster) as kube:
        await kube.create(CONFIG_MAPS, config_map)
        await kube.create(WORKSPACES, workspace)

        async def look() -> Object | None:
            return await kube.get(WORKSPACES, NAME)

        await eventually(
            look,
            until=lambda raw: raw is not None and (raw.get("status") or {}).get("state") == "Ready",
            patience=PATIENCE,
            what=serving.last_words(50),
        )
        (pod,) = await kube.items(f"{PODS}?labelSelector=kaito.sh/workspace={NAME}")

    route = await asyncio.to_thread(find_route, aks.cluster.client(), NAME)
    assert route.url == f"http://{pod['status']['podIP']}:5000"
    shown = await serving.show(aks.cluster.client(), NAME)
    assert "serving serve (MODEL=microsoft/Phi-4-mini-instruct " in shown
    assert "40 tokens in " in shown
    assert pod["status"]["containerStatuses"][0]["restartCount"] == 0
    log = serving.log_of(NAME).read_text()
    assert "kv_cache_memory_bytes" in log.replace("-", "_"), "vLLM has the options of the ConfigMap"
