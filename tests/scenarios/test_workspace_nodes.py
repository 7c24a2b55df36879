"""Nodes that somebody brings, groups of several Nodes, and claims that another provisioner serves."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import pytest
import pytest_asyncio

from fakes.cluster.interface import ControlPlane
from fakes.controller import ControllerProcess
from provisioner.apis import names
from tests.claims import A100
from tests.kube import CLAIMS, NODES, WORKSPACES, Object, condition, eventually, is_true
from tests.scenarios.on_azure import pools, put_pool
from tests.scenarios.on_workspaces import (
    PATIENCE,
    SERVICES,
    STATEFUL_SETS,
    Serving,
    inference,
    serving,
    workspace_environment,
)

pytestmark = pytest.mark.asyncio(loop_scope="module")

TAINTS = ["sku=gpu:NoSchedule"]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(control_plane: ControlPlane, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Serving]:
    async with serving(control_plane, folder=tmp_path_factory.mktemp("nodes")) as started:
        yield started


async def bring(world: Serving, pool: str, *, apps: str, count: int = 1) -> list[str]:
    """Make an agent pool as an administrator does; return its Nodes' names once their GPUs are registered."""
    put_pool(world.aks, pool, vmSize=A100, count=count, nodeLabels={"apps": apps}, nodeTaints=TAINTS)

    async def ready() -> list[str]:
        return [
            node["metadata"]["name"]
            for node in await world.kube.nodes_of_pool(pool)
            if is_true("Ready")(node) and node["status"]["allocatable"].get("nvidia.com/gpu", "0") != "0"
        ]

    found = await eventually(ready, until=lambda found: len(found) == count, what=f"Nodes of {pool}")
    return sorted(found)


async def labels_of(world: Serving, node: str) -> dict[str, str]:
    found = await world.kube.get(NODES, node)
    assert found is not None
    return {key: value for key, value in found["metadata"]["labels"].items() if key.startswith("kaito.sh/")}


async def test_brought_node_is_taken_and_given_back(world: Serving) -> None:
    (node,) = await bring(world, "brought", apps="guest")
    # It is not said which size: what is there tells.
    await world.create(inference("guest", size=""))

    workspace = await world.wait_state("guest", "Ready")

    assert workspace["status"]["instanceTypes"] == [A100]
    assert workspace["status"]["workerNodes"] == [node]
    assert condition(workspace, "NodeClaimReady") == {}
    assert await world.claims_of("guest") == []
    assert await labels_of(world, node) == {
        names.WORKSPACE_LABEL: "guest",
        names.WORKSPACE_NAMESPACE_LABEL: "default",
    }
    await world.delete("guest")
    await world.assert_nothing_left("guest")
    assert await labels_of(world, node) == {}
    assert "brought" in pools(world.aks)


async def test_two_workspaces_do_not_take_the_same_node(world: Serving) -> None:
    (node,) = await bring(world, "single", apps="shared")
    first, second = inference("first"), inference("second")
    for body in (first, second):
        body["resource"]["labelSelector"] = {"matchLabels": {"apps": "shared"}}
        await world.create(body)

    workspaces = [await world.wait_state(name, "Ready") for name in ("first", "second")]

    workers = [workspace["status"]["workerNodes"] for workspace in workspaces]
    assert sorted(map(len, workers)) == [1, 1]
    assert workers[0] != workers[1]
    assert [node] in workers
    claims = [claim for name in ("first", "second") for claim in await world.claims_of(name)]
    assert len(claims) == 1
    for name in ("first", "second"):
        await world.delete(name)
    assert await labels_of(world, node) == {}


@pytest.mark.parametrize("count", [2, None], ids=["count", "model"])
async def test_group_of_two_nodes(world: Serving, count: int | None) -> None:
    """As many as are asked for, or as the model needs: one A100 is too small for its weights."""
    name = "group" if count else "large"
    preset = "gpt-oss-120b" if count is None else "phi-4-mini-instruct"
    body = inference(name, preset=preset)
    if count:
        body["resource"]["count"] = count
    await world.create(body)

    workspace = await world.wait_state(name, "Ready")

    assert workspace["status"]["targetNodeCount"] == 2
    claims = await world.claims_of(name)
    assert sorted(claim["status"]["nodeName"] for claim in claims) == workspace["status"]["workerNodes"]
    leader, worker = await world.pods_of(name)
    assert {leader["spec"]["nodeName"], worker["spec"]["nodeName"]} == set(workspace["status"]["workerNodes"])
    for pod in (leader, worker):
        env = {entry["name"]: entry for entry in pod["spec"]["containers"][0]["env"]}
        assert f"{name}-0.{name}-headless.default.svc" in {entry.get("value") for entry in env.values()}
        assert env["RANK"]["valueFrom"]["fieldRef"]["fieldPath"] == "metadata.labels['apps.kubernetes.io/pod-index']"
    headless = await world.kube.get(SERVICES, f"{name}-headless")
    assert headless is not None
    assert headless["spec"]["clusterIP"] == "None"
    assert headless["spec"]["publishNotReadyAddresses"] is True
    service = await world.kube.get(SERVICES, name)
    assert service is not None
    # Of a group only the leader answers.
    assert service["spec"]["selector"]["statefulset.kubernetes.io/pod-name"] == f"{name}-0"
    await world.delete(name)
    assert not {claim["metadata"]["name"] for claim in claims} & set(pools(world.aks))
    await world.assert_nothing_left(name)


async def test_node_that_goes_is_replaced(world: Serving) -> None:
    await world.create(inference("lossy"))
    await world.wait_state("lossy", "Ready")
    (claim,) = await world.claims_of("lossy")
    world.aks.azure.cluster.delete_pool(claim["metadata"]["name"])

    async def is_served_by_another() -> bool:
        claims = await world.claims_of("lossy")
        workspace = await world.wait("lossy", lambda _: True)
        # The other one may well have the same name, and its Node too.
        return (
            [other["metadata"]["uid"] for other in claims] != [claim["metadata"]["uid"]]
            and [(other.get("status") or {}).get("nodeName") for other in claims] == workspace["status"]["workerNodes"]
            and workspace["status"]["state"] == "Ready"
        )

    await eventually(is_served_by_another, patience=PATIENCE, what="another claim serves it")
    assert len(await world.claims_of("lossy")) == 1
    await world.delete("lossy")


def stage(kind: str, status: str, reason: str, message: str = "") -> Object:
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return {"type": kind, "status": status, "reason": reason, "message": message, "lastTransitionTime": now}


async def test_any_provisioner_that_serves_claims(world: Serving) -> None:
    """Its word is handed on, and what it says of the claim and of the Node is enough."""
    await world.claims.stop()
    try:
        await world.create(inference("foreign"))
        (claim,) = await eventually(lambda: world.claims_of("foreign"))
        name = claim["metadata"]["name"]
        await world.wait_reason("foreign", "NodeClaimReady", "NodeClaimNotReady")

        async def say(*conditions: Object, **status: Any) -> None:
            await world.kube.patch(CLAIMS, f"{name}/status", {"status": {"conditions": list(conditions), **status}})

        awaiting = stage("Ready", "Unknown", "AwaitingReconciliation", "object is awaiting reconciliation")
        failed = stage("Launched", "Unknown", "LaunchFailed", "creating agent pool: subscription is disabled")
        await say(failed, awaiting)
        told = await world.wait_reason("foreign", "NodeClaimReady", "LaunchFailed")
        assert told["message"] == failed["message"]
        assert await world.wait_event("foreign", "LaunchFailed") == failed["message"]

        launched = stage("Launched", "True", "Launched")
        missing = stage("Registered", "Unknown", "NodeNotFound", "Node not registered with cluster")
        await say(launched, missing, awaiting)
        await world.wait_reason("foreign", "NodeClaimReady", "NodeNotFound")

        # The Node comes, with the claim's labels, as a kubelet registers it.
        labels = {**claim["metadata"]["labels"], "apps": "foreign"}
        put_pool(world.aks, "foreign", vmSize=A100, nodeLabels=labels, nodeTaints=TAINTS)

        async def named() -> list[Object]:
            return [node for node in await world.kube.nodes_of_pool("foreign") if node["spec"].get("providerID")]

        (node,) = await eventually(named, what="the Node has its providerID")
        stages = [stage(kind, "True", kind) for kind in ("Launched", "Registered", "Initialized", "Ready")]
        await say(*stages, nodeName=node["metadata"]["name"], providerID=node["spec"]["providerID"])

        workspace = await world.wait_state("foreign", "Ready")
        assert workspace["status"]["workerNodes"] == [node["metadata"]["name"]]
        assert len(await world.claims_of("foreign")) == 1
        await world.delete("foreign")
    finally:
        await world.claims.start()


async def test_without_claims_it_waits_for_nodes(
    world: Serving, control_plane: ControlPlane, tmp_path_factory: pytest.TempPathFactory
) -> None:
    await world.workspaces.stop()
    settings = {**workspace_environment(control_plane), "WORKSPACE_NODES": "brought"}
    log = tmp_path_factory.mktemp("brought") / "workspaces.log"
    async with ControllerProcess(settings, log=log, command="workspace"):
        for name, size in (("patient", A100), ("open", "")):
            await world.create(inference(name, size=size))
            await world.wait_reason(name, "ResourceReady", "NodeNotReady")
            assert await world.kube.get(STATEFUL_SETS, name) is None
            (node,) = await bring(world, name, apps=name)
            workspace = await world.wait_state(name, "Ready")
            assert workspace["status"]["workerNodes"] == [node]
            assert await world.claims_of(name) == []
            await world.kube.delete(WORKSPACES, name)
    await world.workspaces.start()
