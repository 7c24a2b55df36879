"""Moving a Workspace from KAITO's controller: its claims and Services stay, its StatefulSet is made anew."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from fakes.aks import FakeAks
from fakes.azure.settings import Settings as AzureSettings
from fakes.cluster.interface import ControlPlane
from tests.claims import kaito_claim
from tests.conftest import SCALE
from tests.kube import CLAIMS, WORKSPACES, Kube, Object
from tests.scenarios.on_azure import PUT, pools
from tests.scenarios.on_workspaces import SERVICES, STATEFUL_SETS, Serving, inference, serving

pytestmark = pytest.mark.asyncio(loop_scope="module")

NAME = "moved"
# At random, as KAITO names them.
CLAIM = "ws0123abcde"
PAIR = {"kaito.sh/workspace": NAME, "kaito.sh/workspacenamespace": "default"}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(control_plane: ControlPlane, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Serving]:
    folder = tmp_path_factory.mktemp("workspace-migration")
    async with serving(
        control_plane, folder=folder, azure=AzureSettings(scale=SCALE), prepare=live_with_kaito
    ) as started:
        yield started


async def live_with_kaito(aks: FakeAks, kube: Kube) -> None:
    """Leave behind what KAITO has made for a Workspace when it is taken away."""
    workspace = await kube.create(WORKSPACES, inference(NAME))
    await kube.patch(WORKSPACES, NAME, {"metadata": {"finalizers": ["workspace.finalizer.kaito.sh"]}})
    await kube.create(CLAIMS, kaito_claim(CLAIM, labels={"apps": NAME, **PAIR}))
    ports = [{"name": str(port), "port": port, "protocol": "TCP"} for port in (80, 6379, 8265)]
    selector = {"kaito.sh/workspace": NAME, "statefulset.kubernetes.io/pod-name": f"{NAME}-0"}
    await kube.create(
        SERVICES, owned(workspace, "v1", "Service", {"selector": selector, "ports": ports, "type": "ClusterIP"})
    )
    await kube.create(STATEFUL_SETS, owned(workspace, "apps/v1", "StatefulSet", stateful_set()))


def owned(workspace: Object, api_version: str, kind: str, spec: dict[str, Any]) -> Object:
    """Return an object of the Workspace, as KAITO marks it."""
    owner = {
        **{key: workspace[key] for key in ("apiVersion", "kind")},
        **{key: workspace["metadata"][key] for key in ("name", "uid")},
        "controller": True,
        "blockOwnerDeletion": True,
    }
    metadata = {
        "name": NAME,
        "namespace": "default",
        "labels": PAIR,
        "annotations": {"workspace.kaito.io/revision": "1"},
        "ownerReferences": [owner],
    }
    return {"apiVersion": api_version, "kind": kind, "metadata": metadata, "spec": spec}


def stateful_set() -> dict[str, Any]:
    """Return the parts of KAITO's that are in the way of ours."""
    container = {"name": NAME, "image": "mcr.microsoft.com/aks/kaito/kaito-base:0.5.0", "command": ["/bin/sh", "-c"]}
    return {
        "replicas": 1,
        "serviceName": f"{NAME}-headless",
        "podManagementPolicy": "Parallel",
        "selector": {"matchLabels": {"kaito.sh/workspace": NAME}},
        "template": {"metadata": {"labels": PAIR}, "spec": {"nodeSelector": PAIR, "containers": [container]}},
    }


async def test_workspace_of_kaitos_is_served_on_the_nodes_that_it_has(world: Serving) -> None:
    before = await world.kube.get(SERVICES, NAME)
    assert before is not None

    await world.wait_state(NAME, "Ready")

    assert [claim["metadata"]["name"] for claim in await world.claims_of(NAME)] == [CLAIM]
    assert list(pools(world.aks)) == [CLAIM]
    assert world.aks.azure.calls.count(PUT) == 1
    service, workload = await world.kube.get(SERVICES, NAME), await world.kube.get(STATEFUL_SETS, NAME)
    assert service is not None
    assert workload is not None
    assert service["metadata"]["uid"] == before["metadata"]["uid"]
    assert service["spec"]["clusterIP"] == before["spec"]["clusterIP"]
    assert [port["port"] for port in service["spec"]["ports"]] == [80]
    assert "kaito-base" not in workload["spec"]["template"]["spec"]["containers"][0]["image"]
    (pod,) = await world.pods_of(NAME)
    assert pod["metadata"]["ownerReferences"][0]["uid"] == workload["metadata"]["uid"]

    await world.delete(NAME)

    assert pools(world.aks) == {}
    await world.assert_nothing_left(NAME)
