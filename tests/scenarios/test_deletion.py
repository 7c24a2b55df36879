"""A deleted claim takes its pool and its Node with it, whenever it is deleted and whatever Azure says to that."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import pytest
import pytest_asyncio

from fakes.aks import FakeAks
from fakes.azure import Answer, Delay
from fakes.cluster.interface import ControlPlane
from provisioner.apis import names
from provisioner.apis.times import parse_time
from tests.claims import kaito_claim
from tests.conftest import SCALE
from tests.kube import CLAIMS, NODES, Kube, Object, condition, eventually, has_reason, is_true
from tests.scenarios.on_azure import AGES, DELETE, LIST, PUT, hurry, pools, settings, statuses, wait_hit, wait_pool
from tests.scenarios.running import running
from tests.scenarios.watching import Seen, watching

pytestmark = pytest.mark.asyncio(loop_scope="module")

BUSY = {"code": "OperationNotAllowed", "message": "Operation is not allowed: Another operation is in progress"}
# How Azure answers the first DELETE of a pool, and what the claim says of it.
REFUSALS = {
    "busy": (Answer(operation=DELETE, pool="busy", status=409, body=BUSY), "OperationInProgress"),
    "slowdown": (Answer(operation=DELETE, pool="slowdown", status=429, retry_after=1.0), "Throttled"),
    "broken": (Answer(operation=DELETE, pool="broken", status=500), "AzureError"),
}


@dataclass(frozen=True, kw_only=True)
class World:
    """Where the claims of REFUSALS have been deleted just now, and all claims are watched."""

    aks: FakeAks
    kube: Kube
    seen: Seen


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(control_plane: ControlPlane, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    log = tmp_path_factory.mktemp("deletion") / "controller.log"
    async with running(control_plane, log=log) as made, watching(control_plane, CLAIMS) as seen:
        for name, (refusal, _) in REFUSALS.items():
            made.aks.azure.add_fault(refusal)
            await made.kube.create(CLAIMS, kaito_claim(name))
        for name in REFUSALS:
            await made.kube.wait_claim(name, is_true("Ready"))
            # It takes ten seconds until Azure is asked again, in which the other tests run.
            await made.kube.delete(CLAIMS, name)
        yield World(aks=made.aks, kube=made.kube, seen=seen)


@pytest.fixture
def aks(world: World) -> FakeAks:
    return world.aks


@pytest.fixture
def kube(world: World) -> Kube:
    return world.kube


async def ready_claim(kube: Kube, name: str) -> Object:
    await kube.create(CLAIMS, kaito_claim(name))
    return await kube.wait_claim(name, is_true("Ready"))


async def delete_until_gone(kube: Kube, name: str) -> None:
    await kube.delete(CLAIMS, name)
    await kube.wait_gone(CLAIMS, name)


async def test_pool_is_deleted_while_it_is_still_being_created(aks: FakeAks, kube: Kube) -> None:
    with settings(aks, create_seconds=AGES, vm_seconds=AGES):
        await kube.create(CLAIMS, kaito_claim("creating"))
        await wait_pool(aks, "creating", "Creating")
        creation = pools(aks)["creating"].operation
    assert creation is not None

    await delete_until_gone(kube, "creating")

    assert "creating" not in pools(aks)
    # The creation had most of its ages to go: it did not end, it was ended.
    assert creation.error is not None
    assert creation.error["code"] == "AKSOperationPreemptedByDelete"
    assert statuses(aks, DELETE, pool="creating") == [202]


async def test_node_that_joined_a_pool_in_creation_goes_too(aks: FakeAks, kube: Kube) -> None:
    with settings(aks, create_seconds=AGES):
        claim = await ready_claim(kube, "early")
    assert pools(aks)["early"].state == "Creating"

    await delete_until_gone(kube, "early")

    assert "early" not in pools(aks)
    assert await kube.get(NODES, claim["status"]["nodeName"]) is None


async def test_claim_deleted_while_its_put_is_on_its_way(aks: FakeAks, kube: Kube) -> None:
    # Two real seconds, in which the claim is deleted; then the PUT takes effect.
    late = Delay(operation=PUT, pool="onitsway", seconds=2.0 * SCALE, after_effect=False)
    aks.azure.add_fault(late)
    await kube.create(CLAIMS, kaito_claim("onitsway"))
    await wait_hit(aks, late)

    await delete_until_gone(kube, "onitsway")

    assert statuses(aks, PUT, pool="onitsway") == [201]
    assert statuses(aks, DELETE, pool="onitsway") == [202]
    assert "onitsway" not in pools(aks)


async def test_claim_whose_put_was_refused_has_nothing_to_delete(aks: FakeAks, kube: Kube) -> None:
    refusal = {"error": {"code": "AuthorizationFailed", "message": "The client does not have authorization."}}
    aks.azure.add_fault(Answer(operation=PUT, pool="refused", status=403, body=refusal))
    await kube.create(CLAIMS, kaito_claim("refused"))
    claim = await kube.wait_claim("refused", has_reason("Launched", "AuthorizationFailed"))
    assert claim["metadata"]["finalizers"] == [names.TERMINATION_FINALIZER]

    await delete_until_gone(kube, "refused")

    assert statuses(aks, PUT, pool="refused") == [403]
    assert statuses(aks, DELETE, pool="refused") == []


async def test_pool_was_deleted_by_somebody_else(aks: FakeAks, kube: Kube) -> None:
    await ready_claim(kube, "taken")
    # Without a LIST the controller does not know.
    blind = Answer(operation=LIST, status=503, times=None)
    fault = aks.azure.add_fault(blind)
    await wait_hit(aks, blind)
    with settings(aks, delete_seconds=0.0):
        aks.azure.cluster.delete_pool("taken")
    await wait_pool(aks, "taken", None)
    await kube.delete(CLAIMS, "taken")

    async def answers() -> list[int | None]:
        return statuses(aks, DELETE, pool="taken")

    assert await eventually(answers) == [204]
    aks.azure.faults.remove(fault)
    await kube.wait_gone(CLAIMS, "taken")
    assert await kube.nodes_of_pool("taken") == []


async def test_node_that_nobody_else_removes(aks: FakeAks, kube: Kube) -> None:
    claim = await ready_claim(kube, "leftover")
    usual = aks.nodes.settings.node_removal_delay
    aks.nodes.settings.node_removal_delay = None
    try:
        await delete_until_gone(kube, "leftover")
        # Before the claim: whoever sees the claim gone finds no Node that looks ready.
        assert await kube.get(NODES, claim["status"]["nodeName"]) is None
    finally:
        aks.nodes.settings.node_removal_delay = usual


async def test_other_claim_is_left_alone(aks: FakeAks, kube: Kube) -> None:
    for name in ("goes", "stays"):
        await kube.create(CLAIMS, kaito_claim(name))
    await kube.wait_claim("goes", is_true("Ready"))
    before = await kube.wait_claim("stays", is_true("Ready"))
    await wait_pool(aks, "stays", "Succeeded")
    etag = pools(aks)["stays"].etag
    (node,) = await kube.nodes_of_pool("stays")

    await delete_until_gone(kube, "goes")

    assert await kube.claim("stays") == before
    assert pools(aks)["stays"].etag == etag
    assert [each["metadata"]["uid"] for each in await kube.nodes_of_pool("stays")] == [node["metadata"]["uid"]]
    assert statuses(aks, DELETE, pool="stays") == []


async def test_claim_written_anew_gets_a_pool_of_its_own(aks: FakeAks, kube: Kube) -> None:
    old = await ready_claim(kube, "anew")
    (old_node,) = await kube.nodes_of_pool("anew")
    (old_vm,) = pools(aks)["anew"].instances
    with settings(aks, delete_seconds=AGES):
        await kube.delete(CLAIMS, "anew")
        await wait_pool(aks, "anew", "Deleting")
    # What impatient people do.
    await kube.patch(CLAIMS, "anew", {"metadata": {"finalizers": None}})
    await kube.wait_gone(CLAIMS, "anew")
    await _second_after(old_node)

    new = await kube.create(CLAIMS, kaito_claim("anew"))

    await kube.wait_claim("anew", has_reason("Launched", "AgentPoolDeleting"))
    assert pools(aks)["anew"].properties["tags"][names.CLAIM_UID_TAG] == old["metadata"]["uid"]
    with hurry(aks):
        ready = await kube.wait_claim("anew", is_true("Ready"))
    assert pools(aks)["anew"].properties["tags"][names.CLAIM_UID_TAG] == new["metadata"]["uid"]
    (vm,) = pools(aks)["anew"].instances
    assert vm.vm_id != old_vm.vm_id
    (node,) = await kube.nodes_of_pool("anew")
    assert node["metadata"]["uid"] != old_node["metadata"]["uid"]
    assert ready["status"]["nodeName"] == node["metadata"]["name"]
    assert [owner["uid"] for owner in node["metadata"]["ownerReferences"]] == [new["metadata"]["uid"]]


@pytest.mark.parametrize("name", REFUSALS)
async def test_delete_that_was_refused_is_asked_for_again(world: World, name: str) -> None:
    refusal, reason = REFUSALS[name]
    await world.seen.wait_deleted(name)
    assert name not in pools(world.aks)
    assert statuses(world.aks, DELETE, pool=name) == [refusal.status, 202]
    said = [condition(state, "InstanceTerminating") for state in world.seen.of(name)]
    first = next(each for each in said if each)
    assert (first["status"], first["reason"]) == ("Unknown", reason)
    assert first["message"]


async def _second_after(obj: Object) -> None:
    """Wait until what is made now is younger than the object; the API server counts in seconds."""
    made = parse_time(obj["metadata"]["creationTimestamp"])
    assert made is not None

    async def younger() -> bool:
        return datetime.now(UTC) >= made + timedelta(seconds=1)

    await eventually(younger)
