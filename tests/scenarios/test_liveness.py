"""A claim whose Node or node class does not come is deleted and says why; one that Azure keeps waiting never is."""

from collections.abc import AsyncIterator

import aiohttp
import pytest
import pytest_asyncio

from fakes.aks import FakeAks
from fakes.azure import Answer
from fakes.cluster.components import free_port
from fakes.cluster.interface import ControlPlane
from fakes.nodes import FaultKind
from tests.claims import kaito_claim
from tests.kube import CLAIMS, NODE_CLASSES, Kube, Object, condition, eventually, has_reason, is_true
from tests.scenarios.azure_side import wait_calls
from tests.scenarios.on_azure import AGES, LIST, PUT, hurry, pools, settings, statuses, wait_pool
from tests.scenarios.running import Running, running

pytestmark = pytest.mark.asyncio(loop_scope="module")

LOCAL = "127.0.0.1"
# Real seconds. At the scale of the tests a node joins within two of the end of Azure's work.
TIMEOUT = 4
# LISTs are a second apart, so after so many of them the timeout has passed, and more.
LISTS = TIMEOUT + 4
T4 = "Standard_NC4as_T4_v3"
QUOTA = {"code": "ErrCode_InsufficientVCPUQuota", "details": None, "message": "Insufficient quota.", "subcode": ""}
# The labels of claims without a terminationGracePeriod.
MODE = 'consolidation_policy="",termination_mode="graceful"'


@pytest.fixture(scope="module")
def metrics() -> int:
    return free_port()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def cluster(
    control_plane: ControlPlane, tmp_path_factory: pytest.TempPathFactory, metrics: int
) -> AsyncIterator[Running]:
    log = tmp_path_factory.mktemp("liveness") / "controller.log"
    timeouts = {"REGISTRATION_TIMEOUT_SECONDS": str(TIMEOUT), "LAUNCH_TIMEOUT_SECONDS": str(TIMEOUT)}
    ports = {"METRICS_PORT": str(metrics), "BIND_ADDRESS": LOCAL}
    async with running(control_plane, log=log, settings={**timeouts, **ports}) as cluster:
        yield cluster


@pytest.fixture
def kube(cluster: Running) -> Kube:
    return cluster.kube


@pytest.fixture
def aks(cluster: Running) -> FakeAks:
    return cluster.aks


def claim_of(name: str, node_class: str) -> Object:
    claim = kaito_claim(name)
    claim["spec"]["nodeClassRef"]["name"] = node_class
    return claim


async def wait_told(kube: Kube, name: str, reason: str) -> str:
    """Wait until one Event, and no second one, has told of a claim's end; return what it says."""

    async def found() -> list[Object]:
        return [event for event in await kube.events_of(name) if event["reason"] == reason]

    (event,) = await eventually(found, what=f"Event {reason} about {name}")
    assert (event["type"], event["count"]) == ("Warning", 1)
    return str(event["message"])


async def counted(metrics: int) -> list[str]:
    async with aiohttp.ClientSession() as session, session.get(f"http://{LOCAL}:{metrics}/metrics") as response:
        lines = (await response.text()).splitlines()
    return [line for line in lines if line.startswith("karpenter_nodeclaims_disrupted_total{")]


async def assert_kept(aks: FakeAks, kube: Kube, name: str) -> Object:
    await wait_calls(aks, LIST, more=LISTS)
    claim = await kube.claim(name)
    assert claim is not None
    assert "deletionTimestamp" not in claim["metadata"]
    return claim


async def test_claim_of_a_missing_class_says_so_at_once_and_is_deleted(aks: FakeAks, kube: Kube, metrics: int) -> None:
    await kube.create(CLAIMS, claim_of("wsnoclass", "gold"))

    claim = await kube.wait_claim("wsnoclass", has_reason("Launched", "NodeClassNotFound"))
    assert "There is no KaitoNodeClass gold. Create it" in condition(claim, "Launched")["message"]
    await kube.wait_gone(CLAIMS, "wsnoclass")

    assert "deleting" in (await wait_told(kube, "wsnoclass", "LaunchTimeout")).lower()
    assert statuses(aks, PUT, pool="wsnoclass") == []
    labels = 'reason="launch_timeout",nodepool="kaito",capacity_type="",' + MODE
    assert f"karpenter_nodeclaims_disrupted_total{{{labels}}} 1" in await counted(metrics)


async def test_class_that_comes_in_time_is_taken_and_its_end_ends_no_claim(aks: FakeAks, kube: Kube) -> None:
    await kube.create(CLAIMS, claim_of("wslateclass", "silver"))
    await kube.wait_claim("wslateclass", has_reason("Launched", "NodeClassNotFound"))

    meta = {"apiVersion": "kaito.sh/v1alpha1", "kind": "KaitoNodeClass", "metadata": {"name": "silver"}}
    await kube.create(NODE_CLASSES, meta)

    await kube.wait_claim("wslateclass", is_true("Ready"))
    await kube.delete(NODE_CLASSES, "silver")
    await assert_kept(aks, kube, "wslateclass")


async def test_claim_that_azure_refuses_or_still_works_for_is_kept(aks: FakeAks, kube: Kube) -> None:
    aks.azure.add_fault(Answer(operation=PUT, pool="wsquota", status=400, body=QUOTA, times=None))
    await kube.create(CLAIMS, kaito_claim("wsquota", instance_type="Standard_ND96isr_H100_v5"))
    await kube.wait_claim("wsquota", has_reason("Launched", "QuotaExceeded"))
    never = aks.nodes.add_fault(FaultKind.NEVER_JOINS, pool="wsslow")
    with settings(aks, create_seconds=AGES):
        await kube.create(CLAIMS, kaito_claim("wsslow"))
        await wait_pool(aks, "wsslow", "Creating")

    assert has_reason("Launched", "CreatingAgentPool")(await assert_kept(aks, kube, "wsslow"))
    assert has_reason("Launched", "QuotaExceeded")(await kube.claim("wsquota") or {})

    aks.nodes.clear(never)
    with hurry(aks):
        await kube.wait_claim("wsslow", is_true("Ready"))


async def test_claim_whose_node_never_joins_is_deleted_and_the_next_of_its_size_waits(
    aks: FakeAks, kube: Kube, metrics: int
) -> None:
    never = aks.nodes.add_fault(FaultKind.NEVER_JOINS, pool="wsnever")
    await kube.create(CLAIMS, kaito_claim("wsnever"))
    # The timeout here is shorter than what a Node is given to join before Azure is asked for its VM.
    await kube.wait_claim("wsnever", has_reason("Launched", "CreatingAgentPool"))

    await kube.wait_gone(CLAIMS, "wsnever")

    assert "wsnever" not in pools(aks)
    told = await wait_told(kube, "wsnever", "RegistrationTimeout")
    assert told.startswith("No node of agent pool wsnever has registered within 4 s")
    labels = 'reason="registration_timeout",nodepool="kaito",capacity_type="on-demand",' + MODE
    assert f"karpenter_nodeclaims_disrupted_total{{{labels}}} 1" in await counted(metrics)

    aks.nodes.clear(never)
    await kube.create(CLAIMS, kaito_claim("wsagain"))
    await kube.create(CLAIMS, kaito_claim("wsother", instance_type=T4))
    await kube.wait_claim("wsagain", has_reason("Launched", "NodesNotRegistering"))
    await kube.wait_claim("wsother", is_true("Ready"))
    assert statuses(aks, PUT, pool="wsagain") == []
    # It is not deleted for that either, however long it lasts.
    await assert_kept(aks, kube, "wsagain")
