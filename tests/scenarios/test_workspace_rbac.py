"""The rights that the chart grants are enough for all that the Workspace controller does, and each of them is used."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest
import pytest_asyncio

from fakes.cluster.interface import ControlPlane
from fakes.proxy import Answer, Call, FaultProxy
from tests.claims import A100
from tests.kube import WORKSPACES, eventually
from tests.scenarios.on_azure import put_pool
from tests.scenarios.on_workspaces import (
    CONFIG_MAPS,
    SECRETS,
    Serving,
    config_map,
    inference,
    registry_secret,
    serving,
    tuning,
)
from tests.scenarios.rights import NAMESPACE, granted, used, write_account

pytestmark = [
    pytest.mark.real_only("rights are looked at there alone"),
    pytest.mark.asyncio(loop_scope="module"),
]

CHART = "workspace"


@dataclass(frozen=True, kw_only=True)
class Life:
    """What was asked of the API server in it, and the controller's log."""

    calls: tuple[Call, ...]
    log: str


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def life(control_plane: ControlPlane, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Life]:
    folder = tmp_path_factory.mktemp("rbac")
    manifest = write_account(CHART, folder)
    await asyncio.to_thread(control_plane.apply, manifest)
    # What others have left behind would not have to be created.
    left = ("lease", "gpu-provisioner-workspace", f"--namespace={NAMESPACE}", "--ignore-not-found")
    await asyncio.to_thread(control_plane.run_kubectl, "delete", *left)
    async with FaultProxy(control_plane) as proxy:
        account = await asyncio.to_thread(control_plane.kubeconfig_for, NAMESPACE, service_account=CHART)
        settings = {
            "KUBECONFIG": str(proxy.kubeconfig_like(account)),
            "LEADER_ELECTION": "true",
            "LEASE_NAMESPACE": NAMESPACE,
        }
        async with serving(control_plane, folder=folder, settings=settings) as world:
            await what_is_missing_is_told_again_after_a_restart(world)
            await claim_is_there_already(world, proxy)
            await brought_node_is_given_back_on_a_second_try(world, proxy)
            await tuned(world, proxy)
            await world.workspaces.stop()
        yield Life(calls=tuple(proxy.calls), log=(folder / "workspaces.log").read_text())
    await asyncio.to_thread(control_plane.run_kubectl, "delete", f"--filename={manifest}")


async def look(world: Serving, name: str, value: str) -> None:
    """Have a Workspace looked at sooner than by itself."""
    await world.kube.patch(WORKSPACES, name, {"metadata": {"labels": {"looked-at": value}}})


async def what_is_missing_is_told_again_after_a_restart(world: Serving) -> None:
    kube = world.kube
    await world.create(inference("configured", config="absent"))
    await world.wait_event("configured", "ConfigMapNotFound")
    await kube.create(CONFIG_MAPS, config_map("absent", inference_config_yaml="vllm: {}"))
    await look(world, "configured", "once")
    await world.wait_state("configured", "Ready")
    await world.workspaces.stop()
    await world.workspaces.start()
    await kube.delete(CONFIG_MAPS, "absent")
    await look(world, "configured", "twice")

    async def counts() -> int:
        events = await kube.events_of("configured")
        return max(int(e["count"]) for e in events if e["reason"] == "ConfigMapNotFound")

    await eventually(counts, until=lambda count: count > 1, what="the Event is counted on")
    await world.delete("configured")


async def claim_is_there_already(world: Serving, proxy: FaultProxy) -> None:
    created = proxy.add_fault(
        Answer(verb="create", resource="nodeclaims", status=409, reason="AlreadyExists", after_effect=True)
    )
    await world.create(inference("served"))
    await world.wait_state("served", "Ready")
    deleted = proxy.add_fault(Answer(verb="delete", resource="statefulsets", status=409, reason="Conflict"))
    await world.delete("served")
    assert created.spent
    assert deleted.spent


async def brought_node_is_given_back_on_a_second_try(world: Serving, proxy: FaultProxy) -> None:
    put_pool(world.aks, "brought", vmSize=A100, nodeLabels={"apps": "guest"}, nodeTaints=["sku=gpu:NoSchedule"])

    async def usable() -> bool:
        nodes = await world.kube.nodes_of_pool("brought")
        return any(node["status"]["allocatable"].get("nvidia.com/gpu", "0") != "0" for node in nodes)

    await eventually(usable, what="a brought Node")
    await world.create(inference("guest"))
    await world.wait_state("guest", "Ready")
    assert await world.claims_of("guest") == []
    conflict = proxy.add_fault(Answer(verb="patch", resource="nodes", status=409, reason="Conflict"))
    await world.delete("guest")
    assert conflict.spent


async def tuned(world: Serving, proxy: FaultProxy) -> None:
    await world.kube.create(SECRETS, registry_secret("push"))
    await world.create(tuning("tuned"))
    await world.wait_state("tuned", "Succeeded")
    conflict = proxy.add_fault(Answer(verb="delete", resource="jobs", status=409, reason="Conflict"))
    await world.delete("tuned")
    assert conflict.spent


async def test_nothing_is_forbidden(life: Life) -> None:
    assert [call for call in life.calls if call.status in (401, 403)] == []
    assert "forbidden" not in life.log.lower()


async def test_every_right_is_used_and_no_other(life: Life) -> None:
    assert used(life.calls, chart=CHART) == granted(CHART)


async def test_leases_are_asked_for_in_their_namespace_alone(life: Life) -> None:
    assert {call.namespace for call in life.calls if call.resource == "leases"} == {NAMESPACE}
