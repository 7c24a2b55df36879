"""A Workspace is deleted at any moment of its life: claims, pools, Nodes and workload go, and it goes last."""

from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
import pytest_asyncio

from fakes.azure import Answer
from fakes.cluster.interface import ControlPlane
from fakes.nodes import FaultKind, NodeSettings
from provisioner.apis import names
from tests.kube import WORKSPACES, condition, eventually, is_true
from tests.scenarios.on_azure import AGES, PUT, hurry, pools, wait_pool
from tests.scenarios.on_azure import settings as azure_settings
from tests.scenarios.on_workspaces import (
    SECRETS,
    STATEFUL_SETS,
    Serving,
    inference,
    registry_secret,
    serving,
    tuning,
)

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(control_plane: ControlPlane, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Serving]:
    async with serving(control_plane, folder=tmp_path_factory.mktemp("deletion")) as started:
        await started.kube.create(SECRETS, registry_secret("push"))
        yield started


async def refused(world: Serving) -> None:
    """There is no claim, and there will be none."""
    await world.create(inference("refused", preset="gpt-99"))
    await world.wait_reason("refused", "ResourceReady", "UnknownPreset")


async def creating(world: Serving) -> None:
    """Azure is creating the pool."""
    with azure_settings(world.aks, create_seconds=AGES, vm_seconds=AGES):
        await world.create(inference("creating"))
        await world.wait_reason("creating", "NodeClaimReady", "CreatingAgentPool")
        (claim,) = await world.claims_of("creating")
        await wait_pool(world.aks, claim["metadata"]["name"], "Creating")


async def joining(world: Serving) -> None:
    """The VM runs, and its Node is never Ready."""
    await world.create(inference("joining"))
    (claim,) = await eventually(lambda: world.claims_of("joining"))
    world.aks.nodes.add_fault(FaultKind.NOT_READY, pool=claim["metadata"]["name"])
    await world.wait_reason("joining", "NodeClaimReady", "NodeNotReady")


async def serves(world: Serving) -> None:
    await world.create(inference("serves"))
    await world.wait_state("serves", "Ready")


async def running(world: Serving) -> None:
    """The tuning is under way."""
    world.aks.nodes.settings.job_duration = AGES
    try:
        await world.create(tuning("running"))
        await world.wait_state("running", "Running")
    finally:
        world.aks.nodes.settings.job_duration = NodeSettings().job_duration


PHASES: tuple[Callable[[Serving], Awaitable[None]], ...] = (refused, creating, joining, serves, running)


@pytest.mark.parametrize("phase", PHASES, ids=lambda phase: phase.__name__)
async def test_it_goes_last_and_the_name_is_free(world: Serving, phase: Callable[[Serving], Awaitable[None]]) -> None:
    name = phase.__name__
    await phase(world)
    before = await world.kube.get(WORKSPACES, name)
    assert before is not None
    mine = {claim["metadata"]["name"] for claim in await world.claims_of(name)}

    await world.kube.delete(WORKSPACES, name)
    with hurry(world.aks):
        await world.kube.wait_gone(WORKSPACES, name)

    assert not mine & set(pools(world.aks))
    await world.assert_nothing_left(name)
    # Another one of that name is another one.
    again = await world.create(inference(name))
    assert again["metadata"]["uid"] != before["metadata"]["uid"]
    await world.wait_state(name, "Ready")
    theirs = {claim["metadata"]["name"] for claim in await world.claims_of(name)}
    assert len(theirs) == 1
    assert not theirs & mine
    await world.delete(name)


async def test_it_is_deleted_where_azure_refuses_its_pool(world: Serving) -> None:
    body = {"code": "VMSizeNotSupported", "details": None, "message": "no such size", "subcode": ""}
    fault = world.aks.azure.add_fault(Answer(operation=PUT, pool="*", status=400, body=body, times=None))
    await world.create(inference("failing", size="Standard_NC8as_T4_v3"))
    await world.wait_reason("failing", "NodeClaimReady", "SKUNotAvailable")
    world.aks.azure.faults.remove(fault)
    await world.delete("failing")
    await world.assert_nothing_left("failing")


async def test_deletion_tells_how_far_it_is(world: Serving) -> None:
    await world.create(inference("slow"))
    await world.wait_state("slow", "Ready")
    (claim,) = await world.claims_of("slow")
    name = claim["metadata"]["name"]

    with azure_settings(world.aks, delete_seconds=AGES, vm_delete_seconds=AGES):
        await world.kube.delete(WORKSPACES, "slow")
        workspace = await world.wait("slow", is_true("WorkspaceDeleting"))
        told = condition(workspace, "WorkspaceDeleting")
        assert told["message"].startswith(f"1 NodeClaims are left: {name}.")
        await wait_pool(world.aks, name, "Deleting")
    # The pods go first, and the model stops being served; the GPUs are still paid for, and so it is still there.
    await world.kube.wait_gone(STATEFUL_SETS, "slow")
    going = f"Azure is deleting agent pool {name}."
    await world.wait("slow", lambda raw: going in condition(raw, "WorkspaceDeleting")["message"])
    assert await world.claims_of("slow")
    left = await world.wait_state("slow", "NotReady")
    for kind in ("InferenceReady", "WorkspaceSucceeded", "WorkspaceReady"):
        assert condition(left, kind)["reason"] == "workspaceDeleted"
    with hurry(world.aks):
        await world.kube.wait_gone(WORKSPACES, "slow")
    assert name not in pools(world.aks)
    await world.assert_nothing_left("slow")


async def test_it_is_deleted_before_there_is_a_claim(world: Serving) -> None:
    await world.workspaces.stop()
    body = inference("early")
    body["metadata"]["finalizers"] = [names.WORKSPACE_FINALIZER]
    await world.create(body)
    await world.kube.delete(WORKSPACES, "early")
    await world.workspaces.start()
    await world.kube.wait_gone(WORKSPACES, "early")
    assert await world.claims_of("early") == []


async def test_same_name_while_the_old_one_goes(world: Serving) -> None:
    """Its claims are told apart by the Workspace's UID, not by its name."""
    await world.create(inference("phoenix"))
    await world.wait_state("phoenix", "Ready")
    (old,) = await world.claims_of("phoenix")
    await world.kube.delete(WORKSPACES, "phoenix")
    # Somebody takes the finalizer off by hand, and is quick with the next.
    await world.kube.patch(WORKSPACES, "phoenix", {"metadata": {"finalizers": None}})
    await eventually(lambda: _created(world, "phoenix"))

    await world.wait_state("phoenix", "Ready")

    (new,) = [c for c in await world.claims_of("phoenix") if c["metadata"]["name"] != old["metadata"]["name"]]
    workspace = await world.wait("phoenix", lambda _: True)
    assert new["metadata"]["annotations"][names.WORKSPACE_UID_ANNOTATION] == workspace["metadata"]["uid"]


async def _created(world: Serving, name: str) -> bool:
    if await world.kube.get(WORKSPACES, name) is not None:
        return False
    await world.create(inference(name))
    return True
