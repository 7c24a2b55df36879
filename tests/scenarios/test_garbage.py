"""Garbage: pools whose claim is gone and claims whose VM is gone are taken away, and nothing else ever is."""

import signal
from collections.abc import AsyncIterator
from uuid import uuid4

import pytest
import pytest_asyncio

from fakes.aks import FakeAks
from fakes.azure import Answer
from fakes.cluster.interface import ControlPlane
from fakes.nodes.faults import FaultKind
from tests.claims import kaito_claim
from tests.kube import CLAIMS, NODES, Kube, Object, eventually, is_true
from tests.scenarios.azure_side import CLAIM_TAG, CLAIM_UID_TAG, USERS_POOL, calls, wait_calls
from tests.scenarios.on_azure import DELETE, LIST, pools, put_pool, wait_pool
from tests.scenarios.running import Running, running

pytestmark = pytest.mark.asyncio(loop_scope="module")

# What a round of the collector asks for after it has found something, and before it deletes.
CLUSTER = "managedClusters.get"
LABELS = {"kaito.sh/workspace": "ws", "karpenter.sh/nodepool": "kaito"}
PEERS_MARKS = {"kaito.sh/creation-timestamp": "2026-01-02T03-04-05Z", "kaito.sh/machine-type": "gpu"}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def cluster(control_plane: ControlPlane, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Running]:
    log = tmp_path_factory.mktemp("garbage") / "controller.log"
    async with running(control_plane, log=log) as cluster:
        await whole_round(cluster.aks)
        yield cluster


@pytest.fixture
def kube(cluster: Running) -> Kube:
    return cluster.kube


@pytest.fixture
def aks(cluster: Running) -> FakeAks:
    return cluster.aks


def put_orphan(aks: FakeAks, name: str) -> None:
    """Make a pool as this controller does for a claim, whose claim there is none of."""
    put_pool(aks, name, vmSize="Standard_D4s_v5", tags={CLAIM_TAG: name, CLAIM_UID_TAG: str(uuid4())})


async def whole_round(aks: FakeAks) -> None:
    """Wait until the collector has looked at everything as it is now: it has found an orphan made just now."""
    put_orphan(aks, "decoy")
    await wait_pool(aks, "decoy", None)


async def ready(kube: Kube, claim: Object) -> Object:
    await kube.create(CLAIMS, claim)
    return await kube.wait_claim(claim["metadata"]["name"], is_true("Ready"))


async def wait_collected(kube: Kube, name: str) -> None:
    """Wait until the claim is gone and an Event says why."""
    await kube.wait_gone(CLAIMS, name)

    async def reasons() -> list[str]:
        return [event["reason"] for event in await kube.events_of(name) if event["type"] == "Warning"]

    await eventually(reasons, until=lambda seen: seen == ["GarbageCollected"], what=f"an Event about {name}")


async def wait_node(kube: Kube, name: str, *, ready: bool) -> None:
    """Wait until a Node is Ready, or is not."""

    async def look() -> bool:
        node = await kube.get(NODES, name)
        return node is not None and is_true("Ready")(node)

    await eventually(look, until=lambda seen: seen is ready, what=f"Node {name} ready: {ready}")


async def test_pool_is_collected_whose_claim_lost_its_finalizer_by_force(
    cluster: Running, aks: FakeAks, kube: Kube
) -> None:
    await ready(kube, kaito_claim("wsstripped"))
    # It would have put the finalizer back before the claim is gone.
    controller = cluster.controller.process
    controller.send_signal(signal.SIGSTOP)
    await kube.patch(CLAIMS, "wsstripped", {"metadata": {"finalizers": None}})
    await kube.delete(CLAIMS, "wsstripped")
    assert await kube.claim("wsstripped") is None
    controller.send_signal(signal.SIGCONT)

    await wait_pool(aks, "wsstripped", None)

    assert len(calls(aks, DELETE, "wsstripped")) == 1


async def test_peers_pool_without_a_claim_is_collected_and_no_pool_of_a_user(aks: FakeAks) -> None:
    users = {
        "plain": {},
        "tagged": {"tags": {"team": "a", CLAIM_TAG: "wsgone"}},
        # A user who pins own nodes to a Workspace (KAITO's bring-your-own-node) labels them like that.
        "byonode": {"nodeLabels": {"kaito.sh/workspace": "ws"}},
        "byonode2": {"nodeLabels": LABELS},
        "byonode3": {"nodeLabels": {**LABELS, "kaito.sh/machine-type": "gpu"}},
    }
    for name, properties in users.items():
        put_pool(aks, name, **{**USERS_POOL, **properties})
    for name in users:
        await wait_pool(aks, name, "Succeeded")
    before = {name: pools(aks)[name].etag for name in users}

    put_pool(aks, "wspeers", **USERS_POOL, nodeLabels={**LABELS, **PEERS_MARKS})
    await wait_pool(aks, "wspeers", None)
    await whole_round(aks)

    assert {name: pools(aks)[name].etag for name in users} == before
    assert not [name for name in users if calls(aks, DELETE, name)]
    for name in users:
        aks.azure.cluster.delete_pool(name)


async def test_nothing_is_collected_while_the_cluster_stops_or_starts(aks: FakeAks) -> None:
    azure = aks.azure.cluster
    # No await between the two: a round sees both or neither.
    put_orphan(aks, "patient")
    azure.set_state(provisioning_state="Stopping")
    await wait_calls(aks, CLUSTER, more=1)
    azure.set_state(provisioning_state="Succeeded", power_state="Stopped")
    await wait_calls(aks, CLUSTER, more=1)
    azure.set_state(provisioning_state="Starting", power_state="Running")
    await wait_calls(aks, CLUSTER, more=2)
    assert not calls(aks, DELETE, "patient")

    azure.set_state(provisioning_state="Succeeded")

    await wait_pool(aks, "patient", None)


async def test_nothing_is_collected_with_the_kubeconfig_of_another_cluster(cluster: Running, aks: FakeAks) -> None:
    # ARM's view of the cluster that the settings name: none of the Nodes we see lies in its node resource group.
    other = aks.azure.cluster.resource()
    other["properties"]["nodeResourceGroup"] = "MC_rg-other_aks-other_eastus"
    fault = aks.azure.add_fault(Answer(operation=CLUSTER, status=200, body=other, times=None))
    put_orphan(aks, "foreign")
    await wait_calls(aks, CLUSTER, more=2)
    assert not calls(aks, DELETE, "foreign")
    assert "check KUBECONFIG, AZURE_CLUSTER_NAME, ARM_RESOURCE_GROUP and" in cluster.controller.log_text()

    aks.azure.faults.remove(fault)

    await wait_pool(aks, "foreign", None)


async def test_claim_whose_pool_vanished_is_deleted_with_an_event(aks: FakeAks, kube: Kube) -> None:
    await ready(kube, kaito_claim("wsvanished"))
    usual = aks.nodes.settings.node_removal_delay
    # Or the deletion of its Node would take the claim along.
    aks.nodes.settings.node_removal_delay = None
    try:
        aks.azure.cluster.delete_pool("wsvanished")

        await wait_collected(kube, "wsvanished")
        assert not calls(aks, DELETE, "wsvanished")
    finally:
        aks.nodes.settings.node_removal_delay = usual


async def test_claim_that_points_at_another_vm_goes_and_its_own_pool_too(aks: FakeAks, kube: Kube) -> None:
    claim = await ready(kube, kaito_claim("wsforged"))
    foreign = claim["status"]["providerID"].replace("aks-wsforged-", "aks-otherpool-")

    await kube.patch(CLAIMS, "wsforged/status", {"status": {"providerID": foreign}})

    await wait_collected(kube, "wsforged")
    assert "wsforged" not in pools(aks)


async def test_claim_without_labels_of_kaito_is_kept_and_collected_like_any_other(aks: FakeAks, kube: Kube) -> None:
    claim = kaito_claim("nolabels")
    claim["metadata"]["labels"] = {}
    node = (await ready(kube, claim))["status"]["nodeName"]
    silent = aks.nodes.add_fault(FaultKind.KUBELET_STOPS, pool="nolabels")
    await wait_node(kube, node, ready=False)

    await whole_round(aks)
    seen = await kube.claim("nolabels")
    assert seen is not None
    assert "deletionTimestamp" not in seen["metadata"]

    aks.nodes.clear(silent)
    await kube.patch(CLAIMS, "nolabels", {"metadata": {"finalizers": None}})
    await kube.delete(CLAIMS, "nolabels")
    await wait_pool(aks, "nolabels", None)


async def test_claim_with_a_ready_node_is_kept_whatever_azure_lists(aks: FakeAks, kube: Kube) -> None:
    claim = await ready(kube, kaito_claim("wsready"))
    listed = [pool for pool in aks.pools() if pool["name"] != "wsready"]
    fault = aks.azure.add_fault(Answer(operation=LIST, status=200, body={"value": listed}, times=None))
    # Rounds of one second each, and LISTs of the inventory between them.
    await wait_calls(aks, LIST, more=3)
    seen = await kube.claim("wsready")
    assert seen is not None
    assert "deletionTimestamp" not in seen["metadata"]
    assert not calls(aks, DELETE, "wsready")

    silent = aks.nodes.add_fault(FaultKind.KUBELET_STOPS, pool="wsready")
    await wait_node(kube, claim["status"]["nodeName"], ready=False)
    await wait_collected(kube, "wsready")

    # Its pool was hidden, not gone: it goes as soon as it can be seen.
    assert "wsready" in pools(aks)
    aks.azure.faults.remove(fault)
    await wait_pool(aks, "wsready", None)
    aks.nodes.clear(silent)
