"""A claim is Ready only with all the GPUs of its size, and says until then what is missing."""

import asyncio
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from fakes.aks import DEVICE_PLUGIN
from fakes.cluster.interface import ControlPlane
from fakes.nodes.faults import FaultKind
from tests.claims import kaito_claim
from tests.kube import CLAIMS, NODES, Object, condition, is_true
from tests.scenarios.azure_side import calls, wait_calls
from tests.scenarios.on_azure import LIST, PUT
from tests.scenarios.running import Running, running

pytestmark = pytest.mark.asyncio(loop_scope="module")

EIGHT = "Standard_ND96isr_H100_v5"
DAEMON_SETS = "/apis/apps/v1/namespaces/kube-system/daemonsets"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def cluster(control_plane: ControlPlane, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Running]:
    async with running(control_plane, log=tmp_path_factory.mktemp("gpus") / "controller.log") as cluster:
        yield cluster


async def wait_missing(cluster: Running, name: str, what: str) -> Object:
    """Wait until the claim says what it misses, and return its Initialized condition."""

    def says(claim: Object) -> bool:
        initialized = condition(claim, "Initialized")
        return initialized.get("reason") == "ResourceNotRegistered" and what in initialized["message"]

    claim = await cluster.kube.wait_claim(name, says)
    assert condition(claim, "Ready")["status"] == "Unknown"
    return condition(claim, "Initialized")


async def test_claim_waits_for_the_last_gpu(cluster: Running) -> None:
    kube, nodes = cluster.kube, cluster.aks.nodes
    lost = nodes.add_fault(FaultKind.FEWER_GPUS, pool="wseight", gpus=7)
    await kube.create(CLAIMS, kaito_claim("wseight", instance_type=EIGHT))

    initialized = await wait_missing(cluster, "wseight", "7 of 8 nvidia.com/gpu registered on Node aks-wseight-")

    assert initialized["status"] == "Unknown"
    assert EIGHT in initialized["message"]
    claim = await kube.claim("wseight")
    assert claim is not None
    node = await kube.get(NODES, claim["status"]["nodeName"])
    assert node is not None
    # Clients that look at the Node alone must not take it for a finished one.
    assert "karpenter.sh/initialized" not in node["metadata"]["labels"]
    assert is_true("Ready")(node)

    nodes.clear(lost)
    claim = await kube.wait_claim("wseight", is_true("Ready"))

    assert claim["status"]["allocatable"]["nvidia.com/gpu"] == "8"


async def test_claim_without_a_device_plugin_in_the_cluster_names_it(cluster: Running) -> None:
    kube = cluster.kube
    await kube.delete(DAEMON_SETS, "nvidia-device-plugin")
    try:
        await kube.create(CLAIMS, kaito_claim("wsnoplugin"))

        initialized = await wait_missing(cluster, "wsnoplugin", "0 of 1 nvidia.com/gpu registered")

        assert "device plugin" in initialized["message"].encode()[:256].decode()
        # It waits for as long as it takes: nothing is deleted for it, nothing asked for anew.
        await wait_calls(cluster.aks, LIST, more=3)
        assert len(calls(cluster.aks, PUT, "wsnoplugin")) == 1
        assert not is_true("Ready")(await kube.claim("wsnoplugin") or {})
    finally:
        await asyncio.to_thread(cluster.aks.cluster.apply, DEVICE_PLUGIN)

    await kube.wait_claim("wsnoplugin", is_true("Ready"))


async def test_claim_whose_driver_is_missing_is_not_ready(cluster: Running) -> None:
    kube, nodes = cluster.kube, cluster.aks.nodes
    broken = nodes.add_fault(FaultKind.DRIVER_MISSING, pool="wsnodriver")
    await kube.create(CLAIMS, kaito_claim("wsnodriver"))

    initialized = await wait_missing(cluster, "wsnodriver", "0 of 1 nvidia.com/gpu registered")

    assert "driver" in initialized["message"].encode()[:256].decode()
    nodes.clear(broken)
    await kube.wait_claim("wsnodriver", is_true("Ready"))
