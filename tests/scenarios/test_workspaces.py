"""Workspaces from the model's name to the endpoint, and to the tuned adapter, with both controllers as processes."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from fakes.azure.settings import Settings as AzureSettings
from fakes.cluster.interface import ControlPlane
from provisioner.apis import names
from tests.conftest import SCALE
from tests.kube import condition, is_true
from tests.scenarios.on_azure import pools
from tests.scenarios.on_workspaces import (
    JOBS,
    SECRETS,
    SERVICES,
    STATEFUL_SETS,
    Serving,
    example,
    registry_secret,
    serving,
)

pytestmark = pytest.mark.asyncio(loop_scope="module")

RETIRED = "Standard_NC6s_v3"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(control_plane: ControlPlane, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Serving]:
    # What the published examples name was retired since.
    azure = AzureSettings(scale=SCALE, sell_retired_sizes=True)
    async with serving(control_plane, folder=tmp_path_factory.mktemp("workspaces"), azure=azure) as started:
        yield started


async def test_inference_of_a_preset(world: Serving) -> None:
    body = example("")
    name = body["metadata"]["name"]
    await world.create(body)

    workspace = await world.wait_state(name, "Ready")

    for kind in ("NodeClaimReady", "NodesReady", "ResourceReady", "InferenceReady", "WorkspaceSucceeded"):
        assert is_true(kind)(workspace), condition(workspace, kind)
    assert is_true("WorkspaceReady")(workspace)
    status = workspace["status"]
    assert status["targetNodeCount"] == 1
    assert status["endpoint"] == f"http://{name}.default.svc"
    (claim,) = await world.claims_of(name)
    assert list(pools(world.aks)) == [claim["metadata"]["name"]]
    assert status["workerNodes"] == [claim["status"]["nodeName"]]
    (pod,) = await world.pods_of(name)
    assert pod["spec"]["nodeName"] == claim["status"]["nodeName"]
    assert set(pod["spec"]["containers"][0]["resources"]["limits"].items()) == {("nvidia.com/gpu", "1")}
    service = await world.kube.get(SERVICES, name)
    assert service is not None
    assert service["spec"]["type"] == "ClusterIP"
    assert [port["port"] for port in service["spec"]["ports"]] == [80]
    # The size that is asked for is no longer sold: it is used as long as it is there, and said.
    told = await world.wait_event(name, "RetiredInstanceType")
    assert f"{RETIRED} is retired by Azure" in told
    assert "successors: Standard_NC" in told
    assert told == status["sizing"]
    await world.wait_event(name, "workspaceSucceeded", kind="Normal")
    # What passes by itself warns nobody.
    warnings = {event["reason"] for event in await world.kube.events_of(name) if event["type"] == "Warning"}
    assert warnings == {"RetiredInstanceType"}

    await world.delete(name)

    assert pools(world.aks) == {}
    await world.assert_nothing_left(name)


async def test_inference_with_an_adapter(world: Serving) -> None:
    body = example("-adapters")
    name = body["metadata"]["name"]
    await world.create(body)

    await world.wait_state(name, "Ready")

    stateful_set = await world.kube.get(STATEFUL_SETS, name)
    assert stateful_set is not None
    spec = stateful_set["spec"]["template"]["spec"]
    (puller,) = spec["initContainers"]
    assert puller["args"] == ["pull", "ACR_REPO_HERE.azurecr.io/ADAPTER_HERE:0.0.1", "/adapters/phi-3-adapter"]
    variables = {entry["name"]: entry.get("value", "") for entry in spec["containers"][0]["env"]}
    (told,) = [value for value in variables.values() if "phi-3-adapter" in value]
    assert "1.0" in told or '"1"' in told or ": 1" in told
    (pod,) = await world.pods_of(name)
    assert pod["status"]["initContainerStatuses"][0]["state"]["terminated"]["exitCode"] == 0
    await world.delete(name)
    await world.assert_nothing_left(name)


async def test_tuning_ends_with_the_adapter(world: Serving) -> None:
    body = example("-tuning")
    name = body["metadata"]["name"]
    # As it is published, the name is no name of a Secret.
    body["tuning"]["output"]["imagePushSecret"] = "acr-secret"
    await world.kube.create(SECRETS, registry_secret("acr-secret"))
    await world.create(body)

    workspace = await world.wait_state(name, "Succeeded")

    assert is_true("JobStarted")(workspace)
    assert is_true("WorkspaceSucceeded")(workspace)
    job = await world.kube.get(JOBS, name)
    assert job is not None
    assert job["status"]["succeeded"] == 1
    assert job["metadata"]["labels"][names.WORKSPACE_LABEL] == name
    told = await world.wait_event(name, "workspaceSucceeded", kind="Normal")
    assert told == "The tuning has ended well."
    await world.delete(name)
    assert pools(world.aks) == {}
    await world.assert_nothing_left(name)
