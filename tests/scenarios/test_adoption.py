"""Taking over from Azure/gpu-provisioner: its pools go on as this controller's, a user's pools are nobody's."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from fakes.aks import FakeAks
from fakes.cluster.interface import ControlPlane
from provisioner.nodeclaim.agentpool_spec import pool_name
from tests.claims import kaito_claim
from tests.kube import CLAIMS, NODES, Kube, condition, eventually, has_reason, is_true
from tests.scenarios.azure_side import USERS_POOL, calls, peers_pool, wait_calls
from tests.scenarios.on_azure import AGES, LIST, PUT, hurry, pools, put_pool, settings, wait_pool
from tests.scenarios.running import Running, running
from tests.scenarios.the_peer import finish_as_the_peer, wait_gpu_node, write_as_the_peer_found_it

pytestmark = pytest.mark.asyncio(loop_scope="module")

USERS_POOLS = ("wstaken", "wsboth", pool_name("wsboth", alternative=True))


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def cluster(control_plane: ControlPlane, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Running]:
    log = tmp_path_factory.mktemp("adoption") / "controller.log"
    async with running(control_plane, log=log, prepare=live_with_the_peer) as cluster:
        yield cluster


@pytest.fixture
def kube(cluster: Running) -> Kube:
    return cluster.kube


@pytest.fixture
def aks(cluster: Running) -> FakeAks:
    return cluster.aks


async def live_with_the_peer(aks: FakeAks, kube: Kube) -> None:
    """Leave behind what the peer leaves when it is taken away, and pools of users."""
    for name in USERS_POOLS:
        put_pool(aks, name, **USERS_POOL)
    # The peer writes no status before its pool is finished: it may have died just before.
    for name in ("wsdone", "wssilent"):
        put_pool(aks, name, **peers_pool(await write_as_the_peer_found_it(kube, name)))
    await finish_as_the_peer(kube, "wsdone")
    await wait_gpu_node(kube, "wssilent")
    with settings(aks, create_seconds=AGES, vm_seconds=AGES):
        put_pool(aks, "wsflight", **peers_pool(await write_as_the_peer_found_it(kube, "wsflight")))
    for name in USERS_POOLS:
        await wait_pool(aks, name, "Succeeded")


async def delete(kube: Kube, aks: FakeAks, name: str) -> None:
    """Delete a claim, and see that pool and Node are gone when it is."""
    claim = await kube.claim(name)
    assert claim is not None
    await kube.delete(CLAIMS, name)
    await kube.wait_gone(CLAIMS, name)
    assert name not in pools(aks)
    await kube.wait_gone(NODES, claim["status"]["nodeName"])


async def test_pool_that_the_peer_has_in_flight_becomes_the_claims(aks: FakeAks, kube: Kube) -> None:
    await kube.wait_claim("wsflight", has_reason("Launched", "CreatingAgentPool"))
    assert pools(aks)["wsflight"].state == "Creating"
    with hurry(aks):
        await wait_pool(aks, "wsflight", "Succeeded")
    await kube.wait_claim("wsflight", is_true("Ready"))

    assert not calls(aks, PUT, "wsflight")
    await delete(kube, aks, "wsflight")


async def test_pool_that_the_peer_has_finished_without_a_word_becomes_the_claims(aks: FakeAks, kube: Kube) -> None:
    await kube.wait_claim("wssilent", is_true("Ready"))

    assert not calls(aks, PUT, "wssilent")
    await delete(kube, aks, "wssilent")


async def test_claim_that_the_peer_has_made_ready_stays_as_it_is_and_takes_its_pool_with_it(
    cluster: Running, aks: FakeAks, kube: Kube
) -> None:
    await cluster.controller.wait_started()
    await wait_calls(aks, LIST, more=1)
    claim = await kube.claim("wsdone")
    assert claim is not None
    assert {c["type"]: c["lastTransitionTime"] for c in claim["status"]["conditions"]} == dict.fromkeys(
        ("Launched", "Registered", "Initialized", "Ready"), claim["metadata"]["creationTimestamp"]
    )
    assert is_true("Ready")(claim)
    for thing in (claim, await kube.get(NODES, claim["status"]["nodeName"])):
        assert thing is not None
        assert thing["metadata"]["labels"]["kaito.sh/kaitonodeclass"] == "default"

    assert not calls(aks, PUT, "wsdone")
    await delete(kube, aks, "wsdone")


async def test_users_pool_of_the_claims_name_is_not_touched(aks: FakeAks, kube: Kube) -> None:
    other = pool_name("wstaken", alternative=True)
    before = pools(aks)["wstaken"].etag

    await kube.create(CLAIMS, kaito_claim("wstaken"))
    # AKS's own pool: no worse than any other that is not ours.
    await kube.create(CLAIMS, kaito_claim("systempool"))
    claim = await kube.wait_claim("wstaken", is_true("Ready"))
    await kube.wait_claim("systempool", is_true("Ready"))

    node = await kube.get(NODES, claim["status"]["nodeName"])
    assert node is not None
    assert node["metadata"]["labels"]["kubernetes.azure.com/agentpool"] == other
    assert claim["metadata"]["annotations"]["gpu-provisioner.kaito.sh/agent-pool"] == other

    for name in ("wstaken", "systempool"):
        await kube.delete(CLAIMS, name)
        await kube.wait_gone(CLAIMS, name)
    assert not {other, pool_name("systempool", alternative=True)} & set(pools(aks))
    assert pools(aks)["wstaken"].etag == before
    assert not calls(aks, PUT, "wstaken")
    assert not calls(aks, PUT, "systempool")


async def test_claim_whose_names_are_both_taken_says_so_and_goes_on_when_one_is_free(aks: FakeAks, kube: Kube) -> None:
    other = pool_name("wsboth", alternative=True)
    await kube.create(CLAIMS, kaito_claim("wsboth"))
    claim = await kube.wait_claim("wsboth", has_reason("Launched", "AgentPoolNameTaken"))
    assert other in condition(claim, "Launched")["message"]

    async def warnings() -> list[str]:
        return [event["reason"] for event in await kube.events_of("wsboth") if event["type"] == "Warning"]

    await eventually(warnings, until=lambda seen: seen == ["AgentPoolNameTaken"])
    assert not calls(aks, PUT, other)

    aks.azure.cluster.delete_pool(other)
    await kube.wait_claim("wsboth", is_true("Ready"))

    assert not calls(aks, PUT, "wsboth")
    assert pools(aks)["wsboth"].properties["vmSize"] == USERS_POOL["vmSize"]
