"""Moving a cluster from Azure/gpu-provisioner and back: every claim goes on from the stage that the peer left it in.

What it leaves when it has finished, or has died without a word, is in test_adoption.py.
"""

import re
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from fakes.aks import FakeAks
from fakes.azure import OperationFault
from fakes.azure.errors import error
from fakes.cluster.interface import ControlPlane
from tests.claims import kaito_claim
from tests.kube import CLAIMS, NODES, Kube, Object, eventually, has_reason, is_true
from tests.scenarios.azure_side import calls, peers_pool, wait_calls
from tests.scenarios.on_azure import AGES, DELETE, LIST, PUT, hurry, pools, put_pool, settings, wait_pool
from tests.scenarios.running import Running, running
from tests.scenarios.the_peer import (
    FINALIZER,
    begin_to_delete_as_the_peer,
    fail_as_the_peer,
    finish_as_the_peer,
    wait_gpu_node,
    write_as_the_peer_found_it,
)

pytestmark = pytest.mark.asyncio(loop_scope="module")

LEASES = "/apis/coordination.k8s.io/v1/namespaces/default/leases"
# Neither is the name of ours: the peer's chart allows the first, its program uses the second.
PEERS_LEASES = ("gpu-provisioner-leader-election", "karpenter-leader-election")
INTERNAL = error("ReconcileVMSSAgentPoolFailed", "We are unable to serve this request due to an internal error.")
# As the peer reads it, letter by letter, to find the pool of a claim.
PEERS_PROVIDER_ID = re.compile(
    r"azure:///subscriptions/.*/resourceGroups/.*/providers/Microsoft.Compute"
    r"/virtualMachineScaleSets/(?P<name>.*)/virtualMachines/.*"
)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def cluster(control_plane: ControlPlane, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Running]:
    log = tmp_path_factory.mktemp("migration") / "controller.log"
    elected = {"LEADER_ELECTION": "true", "LEASE_NAMESPACE": "default"}
    async with running(control_plane, log=log, prepare=live_with_the_peer, settings=elected) as cluster:
        yield cluster


@pytest.fixture
def kube(cluster: Running) -> Kube:
    return cluster.kube


@pytest.fixture
def aks(cluster: Running) -> FakeAks:
    return cluster.aks


async def live_with_the_peer(aks: FakeAks, kube: Kube) -> None:
    """Leave claims behind in every stage but the happy ones, as the peer does when it is scaled to nothing."""
    for name in PEERS_LEASES:
        spec = {"holderIdentity": "the-peer", "leaseDurationSeconds": 100_000}
        await kube.create(LEASES, {"metadata": {"name": name, "namespace": "default"}, "spec": spec})
    for name in ("wsplain", "wsgoing", "wsleft"):
        written = await write_as_the_peer_found_it(kube, name, is_kaitos=name != "wsplain")
        put_pool(aks, name, **peers_pool(written))
        await finish_as_the_peer(kube, name)
    await begin_to_delete_as_the_peer(kube, "wsgoing")
    await begin_to_delete_as_the_peer(kube, "wsleft")
    # The peer has asked Azure just before its end.
    with settings(aks, delete_seconds=AGES):
        aks.azure.cluster.delete_pool("wsleft")
    with settings(aks, create_seconds=AGES, vm_seconds=AGES):
        for name in ("wsplainfly", "wsabort"):
            put_pool(aks, name, **peers_pool(await write_as_the_peer_found_it(kube, name, is_kaitos=name == "wsabort")))
        # The peer looks at a claim again when its pool is finished, and not before.
        await kube.delete(CLAIMS, "wsabort")
    written = await write_as_the_peer_found_it(kube, "wsfailed")
    aks.azure.faults.add(OperationFault(operation=PUT, pool="wsfailed", error=INTERNAL, machines=False))
    put_pool(aks, "wsfailed", **peers_pool(written))
    await wait_pool(aks, "wsfailed", "Failed")
    await fail_as_the_peer(kube, "wsfailed", "creating instance, agentPool.BeginCreateOrUpdate failed: internal error")
    await write_as_the_peer_found_it(kube, "wsrefused")
    await fail_as_the_peer(kube, "wsrefused", "creating instance: ErrCode_InsufficientVCPUQuota")


async def delete(kube: Kube, aks: FakeAks, name: str) -> None:
    """Delete a claim, and see that pool and Node are gone when it is."""
    claim = await kube.claim(name)
    assert claim is not None
    await kube.delete(CLAIMS, name)
    await kube.wait_gone(CLAIMS, name)
    assert name not in pools(aks)
    await kube.wait_gone(NODES, claim["status"]["nodeName"])


async def wait_looked_at(cluster: Running) -> None:
    """Wait until all that the controller found at its start has been looked at, and Azure's list with it."""
    await cluster.controller.wait_started()
    await wait_calls(cluster.aks, LIST, more=2)


async def test_leases_of_the_peer_do_not_hold_it_up(cluster: Running, kube: Kube) -> None:
    await wait_looked_at(cluster)

    own = await kube.get(LEASES, "gpu-provisioner")

    assert own is not None
    assert own["spec"]["holderIdentity"]
    for name in PEERS_LEASES:
        lease = await kube.get(LEASES, name)
        assert lease is not None
        assert lease["spec"]["holderIdentity"] == "the-peer"


async def test_ready_claim_that_is_not_kaitos_stays_ready_and_takes_its_pool_with_it(
    cluster: Running, aks: FakeAks, kube: Kube
) -> None:
    await wait_looked_at(cluster)
    claim = await kube.claim("wsplain")
    assert claim is not None
    assert is_true("Ready")(claim)
    assert not calls(aks, PUT, "wsplain")
    assert not calls(aks, DELETE, "wsplain")

    await delete(kube, aks, "wsplain")


async def test_pool_in_flight_for_a_claim_that_is_not_kaitos_becomes_the_claims(aks: FakeAks, kube: Kube) -> None:
    await kube.wait_claim("wsplainfly", has_reason("Launched", "CreatingAgentPool"))
    assert pools(aks)["wsplainfly"].state == "Creating"
    with hurry(aks):
        await wait_pool(aks, "wsplainfly", "Succeeded")
    await kube.wait_claim("wsplainfly", is_true("Ready"))

    assert not calls(aks, PUT, "wsplainfly")
    await delete(kube, aks, "wsplainfly")


@pytest.mark.parametrize("name", ["wsgoing", "wsleft"])
async def test_deletion_that_the_peer_has_begun_is_ended(aks: FakeAks, kube: Kube, name: str) -> None:
    with hurry(aks):
        await kube.wait_gone(CLAIMS, name)

    assert name not in pools(aks)
    assert await kube.nodes_of_pool(name) == []
    # Azure is asked where the peer has not asked yet, and once.
    assert len([call for call in calls(aks, DELETE, name) if call.status == 202]) == (1 if name == "wsgoing" else 0)
    assert not calls(aks, PUT, name)


async def test_claim_deleted_while_the_peer_waited_for_its_pool_goes_without_waiting(aks: FakeAks, kube: Kube) -> None:
    await kube.wait_gone(CLAIMS, "wsabort")

    assert "wsabort" not in pools(aks)
    assert not calls(aks, PUT, "wsabort")


async def test_pool_that_the_peer_has_seen_fail_is_made_anew(aks: FakeAks, kube: Kube) -> None:
    await kube.wait_claim("wsfailed", is_true("Ready"))

    assert len([call for call in calls(aks, DELETE, "wsfailed") if call.status == 202]) == 1
    assert [call.status for call in calls(aks, PUT, "wsfailed")] == [201]
    await delete(kube, aks, "wsfailed")


async def test_claim_that_the_peer_could_not_launch_is_launched(aks: FakeAks, kube: Kube) -> None:
    await kube.wait_claim("wsrefused", is_true("Ready"))

    assert [call.status for call in calls(aks, PUT, "wsrefused")] == [201]
    await delete(kube, aks, "wsrefused")


async def test_what_is_made_here_can_be_read_and_taken_down_by_the_peer(
    cluster: Running, aks: FakeAks, kube: Kube
) -> None:
    written = await kube.create(CLAIMS, kaito_claim("wsback"))
    await kube.wait_claim("wsback", is_true("Ready"))
    await cluster.controller.stop()
    try:
        claim, (node,) = await kube.claim("wsback"), await kube.nodes_of_pool("wsback")
        assert claim is not None
        # It finds Nodes by two labels and pools by the providerID, and lets both go by the one finalizer.
        for label in ("agentpool", "kubernetes.azure.com/agentpool"):
            assert node["metadata"]["labels"][label] == "wsback"
        match = PEERS_PROVIDER_ID.fullmatch(claim["status"]["providerID"])
        assert match is not None
        assert match["name"].split("-")[1] == "wsback"
        assert claim["status"]["providerID"] == node["spec"]["providerID"]
        assert claim["metadata"]["finalizers"] == node["metadata"]["finalizers"] == [FINALIZER]
        for kind in ("Launched", "Registered", "Initialized"):
            assert is_true(kind)(claim)
        # It knows its pools by these labels, and a claim's by the name.
        labels = pools(aks)["wsback"].properties["nodeLabels"]
        assert labels.items() >= peers_pool(written)["nodeLabels"].items()

        await take_down_as_the_peer(aks, kube, "wsback", node)
        await kube.wait_gone(CLAIMS, "wsback")
    finally:
        await cluster.controller.start()


async def take_down_as_the_peer(aks: FakeAks, kube: Kube, name: str, node: Object) -> None:
    """Delete claim, Node and pool, and take the finalizers off, as the peer does."""
    await begin_to_delete_as_the_peer(kube, name)
    aks.azure.cluster.delete_pool(name)
    with hurry(aks):
        await wait_pool(aks, name, None)
    await kube.patch(NODES, node["metadata"]["name"], {"metadata": {"finalizers": None}})
    await kube.wait_gone(NODES, node["metadata"]["name"])
    await kube.patch(CLAIMS, name, {"metadata": {"finalizers": None}})


async def test_coming_back_once_more_asks_azure_for_nothing(cluster: Running, aks: FakeAks, kube: Kube) -> None:
    await kube.create(CLAIMS, kaito_claim("wsagain"))
    before = await kube.wait_claim("wsagain", is_true("Ready"))
    puts = len(calls(aks, PUT, "wsagain"))
    await cluster.controller.stop()
    await wait_gpu_node(kube, "wsagain")
    await cluster.controller.start()
    await wait_looked_at(cluster)

    async def conditions() -> list[Object]:
        claim = await kube.claim("wsagain")
        assert claim is not None
        return list(claim["status"]["conditions"])

    await eventually(conditions, until=lambda now: now == before["status"]["conditions"])
    assert len(calls(aks, PUT, "wsagain")) == puts
    assert not calls(aks, DELETE, "wsagain")
    await delete(kube, aks, "wsagain")
