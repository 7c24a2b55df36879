"""Azure cannot be read, or gives no token: claims say so, nothing is decided blindly, and all goes on afterwards."""

from collections.abc import AsyncIterator
from itertools import pairwise

import pytest
import pytest_asyncio

from fakes.aks import FakeAks
from fakes.azure import Answer, Disconnect
from fakes.azure.errors import error
from fakes.cluster.interface import ControlPlane
from tests.claims import kaito_claim
from tests.conftest import SCALE
from tests.kube import CLAIMS, Kube, condition, eventually, has_reason, is_true
from tests.scenarios.azure_side import calls, wait_calls
from tests.scenarios.on_azure import AGES, LIST, PUT, hurry, pools, settings, statuses, wait_pool
from tests.scenarios.running import Running, running

pytestmark = pytest.mark.asyncio(loop_scope="module")

TOKEN = "entra.token"
MAY_NOT_READ = (
    "The client 'c' with object id '00000000-0000-4000-8000-0000000c11e7' does not have authorization to perform "
    "action 'Microsoft.ContainerService/managedClusters/agentPools/read' over scope '/subscriptions/s'."
)
NO_FEDERATION = (
    "AADSTS700213: No matching federated identity record found for presented assertion subject "
    "'system:serviceaccount:gpu-provisioner:gpu-provisioner'."
)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def cluster(control_plane: ControlPlane, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Running]:
    log = tmp_path_factory.mktemp("outage") / "controller.log"
    async with running(control_plane, log=log) as cluster:
        await cluster.controller.wait_started()
        await wait_calls(cluster.aks, LIST, more=1)
        yield cluster


@pytest.fixture
def kube(cluster: Running) -> Kube:
    return cluster.kube


@pytest.fixture
def aks(cluster: Running) -> FakeAks:
    return cluster.aks


async def test_claim_in_flight_becomes_ready_by_its_node_while_pools_cannot_be_listed(aks: FakeAks, kube: Kube) -> None:
    with settings(aks, create_seconds=AGES):
        await kube.create(CLAIMS, kaito_claim("wsunlisted"))
        await wait_pool(aks, "wsunlisted", "Creating")
    fault = aks.azure.add_fault(Answer(operation=LIST, status=503, times=None))

    await kube.wait_claim("wsunlisted", is_true("Ready"))

    aks.azure.faults.remove(fault)


async def test_claim_that_hangs_on_the_list_says_why_and_recovers(aks: FakeAks, kube: Kube) -> None:
    """Its PUT may or may not have taken effect: only a LIST can tell, and nothing is asked for before."""
    denied = {"error": error("AuthorizationFailed", MAY_NOT_READ)}
    fault = aks.azure.add_fault(Answer(operation=LIST, status=403, body=denied, times=None))
    aks.azure.add_fault(Disconnect(operation=PUT, pool="wsdoubt", after_effect=True, times=None))
    await kube.create(CLAIMS, kaito_claim("wsdoubt"))

    claim = await kube.wait_claim("wsdoubt", has_reason("Launched", "AuthorizationFailed"))
    message = condition(claim, "Launched")["message"]
    assert "lacks Microsoft.ContainerService/managedClusters/agentPools/read: give it the role" in message
    asked = len(calls(aks, PUT, "wsdoubt"))
    await wait_calls(aks, LIST, more=1)
    assert len(calls(aks, PUT, "wsdoubt")) == asked
    assert not is_true("Launched")(await kube.claim("wsdoubt") or {})

    aks.azure.faults.remove(fault)
    await kube.wait_claim("wsdoubt", is_true("Ready"))

    assert len(calls(aks, PUT, "wsdoubt")) == asked


async def test_throttled_list_waits_as_long_as_azure_says(aks: FakeAks) -> None:
    body = {"code": "Throttled", "details": None, "message": "The request limit has been exceeded.", "subcode": ""}
    aks.azure.add_fault(Answer(operation=LIST, status=429, body=body, headers={"Retry-After": "4"}))

    async def next_time() -> list[float]:
        """Return the moments of the LIST that was throttled and of the one after it, once there are both."""
        listed = calls(aks, LIST, "")
        return next(([a.time, b.time] for a, b in pairwise(listed) if a.status == 429), [])

    throttled, after = await eventually(next_time, what="a LIST after the throttled one")
    assert (after - throttled) / SCALE >= 4.0


async def test_claims_in_flight_say_so_when_the_controller_starts_and_cannot_list(
    cluster: Running, aks: FakeAks, kube: Kube
) -> None:
    with settings(aks, create_seconds=AGES, vm_seconds=AGES):
        await kube.create(CLAIMS, kaito_claim("wsinflight"))
        await wait_pool(aks, "wsinflight", "Creating")
        assert await cluster.controller.stop() == 0
    fault = aks.azure.add_fault(Answer(operation=LIST, status=503, body="<html/>", times=None))
    await kube.create(CLAIMS, kaito_claim("wsnew"))

    await cluster.controller.start()
    for name in ("wsinflight", "wsnew"):
        claim = await kube.wait_claim(name, has_reason("Launched", "AzureError"))
        assert condition(claim, "Launched")["status"] == "Unknown"
    assert not calls(aks, PUT, "wsnew")

    aks.azure.faults.remove(fault)
    await kube.wait_claim("wsinflight", has_reason("Launched", "CreatingAgentPool"))
    await kube.wait_claim("wsnew", is_true("Ready"))
    with hurry(aks):
        await wait_pool(aks, "wsinflight", "Succeeded")
    await kube.wait_claim("wsinflight", is_true("Ready"))

    assert statuses(aks, PUT, pool="wsinflight") == [201]


async def test_identity_without_a_token_is_told_what_to_set_right(aks: FakeAks, kube: Kube) -> None:
    denied = {"error": "invalid_client", "error_description": NO_FEDERATION, "error_codes": [700213]}
    fault = aks.azure.add_fault(Answer(operation=TOKEN, status=401, body=denied, times=None))
    aks.azure.entra.expire_tokens()
    await kube.create(CLAIMS, kaito_claim("wstokenless"))

    claim = await kube.wait_claim("wstokenless", has_reason("Launched", "AuthorizationFailed"))
    assert "wstokenless" not in pools(aks)
    shown = condition(claim, "Launched")["message"].encode()[:256].decode()
    assert "no federated credential of the managed identity matches this service account" in shown

    # This claim is tried again after half a minute; one written now shows that all is well again.
    aks.azure.faults.remove(fault)
    await kube.create(CLAIMS, kaito_claim("wstoken"))
    await kube.wait_claim("wstoken", is_true("Ready"))
