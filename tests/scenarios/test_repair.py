"""A Node that stays unwell is replaced by its claim's end, unless it is not its own fault."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import aiohttp
import pytest

from fakes.cluster.components import free_port
from fakes.cluster.interface import ControlPlane
from fakes.nodes import FaultKind
from tests.claims import kaito_claim
from tests.kube import CLAIMS, Kube, Object, condition, eventually, has_reason, is_true
from tests.scenarios.azure_side import wait_calls
from tests.scenarios.on_azure import AGES, DELETE, LIST, hurry, pools, settings, statuses
from tests.scenarios.running import Running, running

LOCAL = "127.0.0.1"
# Real seconds: longer than a node takes to become ready at the scale of the tests.
TIMEOUT = 6
# LISTs are a second apart, so after so many of them the time has passed, and more.
LISTS = TIMEOUT + 4
CLUSTER = "managedClusters.get"

Start = Callable[..., AbstractAsyncContextManager[Running]]


@pytest.fixture
def start(control_plane: ControlPlane, tmp_path: Path) -> Start:
    """Return what runs an AKS and a controller that is quick to act; settings by their environment names."""

    @asynccontextmanager
    async def start(**more: str) -> AsyncIterator[Running]:
        timeouts = {"NODE_REPAIR_SECONDS": str(TIMEOUT), "GPU_TIMEOUT_SECONDS": str(TIMEOUT)}
        async with running(control_plane, log=tmp_path / "controller.log", settings={**timeouts, **more}) as cluster:
            yield cluster

    return start


async def ready(kube: Kube, name: str) -> str:
    """Write a claim and return its Node once it is Ready."""
    await kube.create(CLAIMS, kaito_claim(name))
    return str((await kube.wait_claim(name, is_true("Ready")))["status"]["nodeName"])


async def wait_told(kube: Kube, name: str, reason: str) -> Object:
    """Wait until an Event has told of it, about a claim or a Node, and return it."""

    async def found() -> list[Object]:
        return [event for event in await kube.events_of(name) if event["reason"] == reason]

    (event,) = await eventually(found, what=f"Event {reason} about {name}")
    assert event["type"] == "Warning"
    return event


async def assert_kept(cluster: Running, *names: str) -> None:
    await wait_calls(cluster.aks, LIST, more=LISTS)
    for name in names:
        claim = await cluster.kube.claim(name)
        assert claim is not None
        assert "deletionTimestamp" not in claim["metadata"]
        assert statuses(cluster.aks, DELETE, pool=name) == []


@pytest.mark.parametrize("fault", [FaultKind.NOT_READY, FaultKind.KUBELET_STOPS])
async def test_node_that_stays_not_ready_is_replaced(start: Start, fault: FaultKind) -> None:
    port = free_port()
    async with start(METRICS_PORT=str(port), BIND_ADDRESS=LOCAL) as cluster:
        aks, kube = cluster.aks, cluster.kube
        node = await ready(kube, "wssick")
        with settings(aks, delete_seconds=AGES):
            aks.nodes.add_fault(fault, pool="wssick")

            going = await kube.wait_claim("wssick", lambda claim: "deletionTimestamp" in claim["metadata"])
            await eventually(lambda: _deletions(cluster, "wssick"), what="the pool is asked to go")

        # do-not-disrupt, which KAITO writes, does not keep it; and its pods are not waited for.
        assert going["metadata"]["annotations"]["karpenter.sh/do-not-disrupt"] == "true"
        assert "karpenter.sh/nodeclaim-termination-timestamp" in going["metadata"]["annotations"]
        told = await wait_told(kube, "wssick", "NodeUnhealthy")
        assert f"Node {node} is not well: Ready is" in told["message"]
        with hurry(aks):
            await kube.wait_gone(CLAIMS, "wssick")
        assert "wssick" not in pools(aks)
        assert len(await _deletions(cluster, "wssick")) == 1
        async with aiohttp.ClientSession() as session, session.get(f"http://{LOCAL}:{port}/metrics") as response:
            text = await response.text()
        assert 'karpenter_nodeclaims_disrupted_total{reason="unhealthy",nodepool="kaito"' in text
        assert 'karpenter_nodeclaims_unhealthy_disrupted_total{condition="ready",nodepool="kaito"' in text
        assert 'karpenter_pods_disruption_initiated_total{reason="unhealthy",nodepool="kaito"' in text


async def _deletions(cluster: Running, pool: str) -> list[int | None]:
    return statuses(cluster.aks, DELETE, pool=pool)


async def test_no_node_is_replaced_while_azure_works_on_the_cluster(start: Start) -> None:
    async with start() as cluster:
        aks, kube = cluster.aks, cluster.kube
        node = await ready(kube, "wsupgraded")
        aks.azure.cluster.set_state(provisioning_state="Upgrading")
        aks.nodes.add_fault(FaultKind.NOT_READY, pool="wsupgraded")
        # It is asked only when the Node has been unwell for long enough.
        await wait_calls(aks, CLUSTER, more=1)
        await assert_kept(cluster, "wsupgraded")

        aks.nodes.clear()
        await eventually(lambda: _are_ready(cluster, node), what="the Node is Ready")
        aks.azure.cluster.set_state(provisioning_state="Succeeded")
        await assert_kept(cluster, "wsupgraded")


async def test_no_node_is_replaced_while_too_many_are_unwell(start: Start) -> None:
    async with start() as cluster:
        aks, kube = cluster.aks, cluster.kube
        nodes = [await ready(kube, name) for name in ("wsone", "wstwo")]
        aks.nodes.add_fault(FaultKind.NOT_READY, pool="ws*")

        blocked = await eventually(lambda: _blocked(cluster, *nodes), what="an Event about each Node", until=_is_both)
        await assert_kept(cluster, "wsone", "wstwo")

        assert "More than 20% of the Nodes with karpenter.sh/nodepool=kaito are unhealthy" in blocked[0]["message"]
        assert blocked[0]["involvedObject"]["kind"] == "Node"
        aks.nodes.clear()
        await eventually(lambda: _are_ready(cluster, *nodes), what="Nodes are Ready")
        await assert_kept(cluster, "wsone", "wstwo")


async def _are_ready(cluster: Running, *names: str) -> bool:
    nodes = await cluster.kube.items("/api/v1/nodes")
    return {node["metadata"]["name"] for node in nodes if is_true("Ready")(node)} >= set(names)


async def _blocked(cluster: Running, *nodes: str) -> list[Object]:
    events = [event for node in nodes for event in await cluster.kube.events_of(node)]
    return [event for event in events if event["reason"] == "NodeRepairBlocked"]


def _is_both(events: list[Object]) -> bool:
    return len({event["involvedObject"]["name"] for event in events}) == 2


async def test_gpus_that_never_register_are_told_of_and_the_claim_is_kept(start: Start) -> None:
    async with start() as cluster:
        kube, nodes = cluster.kube, cluster.aks.nodes
        broken = nodes.add_fault(FaultKind.GPUS_NEVER_REGISTER, pool="wsnogpu")
        await kube.create(CLAIMS, kaito_claim("wsnogpu"))

        claim = await kube.wait_claim("wsnogpu", has_reason("Initialized", "DevicePluginNotReady"))

        assert condition(claim, "Initialized")["message"].startswith("0 of 1 nvidia.com/gpu on Node aks-wsnogpu-")
        assert (await wait_told(kube, "wsnogpu", "DevicePluginNotReady"))["count"] == 1
        await assert_kept(cluster, "wsnogpu")
        nodes.clear(broken)
        claim = await kube.wait_claim("wsnogpu", is_true("Ready"))
        assert is_true("ConsistentStateFound")(claim)


async def test_node_whose_gpus_never_register_is_replaced_where_asked_for(start: Start) -> None:
    async with start(REPAIR_MISSING_GPUS="true") as cluster:
        kube, nodes = cluster.kube, cluster.aks.nodes
        nodes.add_fault(FaultKind.GPUS_NEVER_REGISTER, pool="wsnogpu")
        await kube.create(CLAIMS, kaito_claim("wsnogpu"))

        await wait_told(kube, "wsnogpu", "DevicePluginNotReady")
        await kube.wait_gone(CLAIMS, "wsnogpu")

        assert "DevicePluginNotReady: 0 of 1" in (await wait_told(kube, "wsnogpu", "NodeUnhealthy"))["message"]
        assert "wsnogpu" not in pools(cluster.aks)
