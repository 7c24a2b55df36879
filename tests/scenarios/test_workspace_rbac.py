"""The rights in rbac-workspace.yaml are enough for all that the Workspace controller does, and each of them is used."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
import yaml

from fakes.cluster.interface import ControlPlane
from fakes.proxy import Answer, Call, FaultProxy
from tests.claims import A100
from tests.kube import eventually
from tests.scenarios.on_azure import put_pool
from tests.scenarios.on_workspaces import (
    CONFIG_MAPS,
    SECRETS,
    WORKSPACES,
    Serving,
    config_map,
    inference,
    registry_secret,
    serving,
    tuning,
)

pytestmark = [
    pytest.mark.real_only("rights are looked at there alone"),
    pytest.mark.asyncio(loop_scope="module"),
]

MANIFEST = Path(__file__).with_name("rbac-workspace.yaml")
ACCOUNT = "gpu-provisioner-workspace"

# API group, resource, verb.
Right = tuple[str, str, str]


@dataclass(frozen=True, kw_only=True)
class Life:
    """What was asked of the API server in it, and the controller's log."""

    calls: tuple[Call, ...]
    log: str


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def life(control_plane: ControlPlane, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Life]:
    await asyncio.to_thread(control_plane.apply, MANIFEST)
    folder = tmp_path_factory.mktemp("rbac")
    async with FaultProxy(control_plane) as proxy:
        account = await asyncio.to_thread(control_plane.kubeconfig_for, "default", service_account=ACCOUNT)
        settings = {
            "KUBECONFIG": str(proxy.kubeconfig_like(account)),
            "LEADER_ELECTION": "true",
            "LEASE_NAMESPACE": "default",
        }
        async with serving(control_plane, folder=folder, settings=settings) as world:
            await what_is_missing_is_told_again_after_a_restart(world)
            await claim_is_there_already(world, proxy)
            await brought_node_is_given_back_on_a_second_try(world, proxy)
            await tuned(world, proxy)
            await world.workspaces.stop()
        yield Life(calls=tuple(proxy.calls), log=(folder / "workspaces.log").read_text())
    await asyncio.to_thread(control_plane.run_kubectl, "delete", f"--filename={MANIFEST}")


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


def granted() -> set[Right]:
    documents: list[dict[str, Any]] = list(yaml.safe_load_all(MANIFEST.read_text()))
    return {
        (group, resource, verb)
        for document in documents
        if document["kind"] in ("ClusterRole", "Role")
        for rule in document["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }


async def test_nothing_is_forbidden(life: Life) -> None:
    assert [call for call in life.calls if call.status in (401, 403)] == []
    assert "forbidden" not in life.log.lower()


async def test_every_right_is_used_and_no_other(life: Life) -> None:
    # Refused for the state of an object counts too: rights are looked at first.
    answered = [call for call in life.calls if call.resource and call.status is not None and not call.spoiled]
    used = {(call.group, call.resource, call.verb) for call in answered}
    # What is applied and was not there is created, and that is a right of its own.
    used |= {(call.group, call.resource, "create") for call in answered if call.status == 201}
    assert used == granted()


async def test_leases_are_asked_for_in_their_namespace_alone(life: Life) -> None:
    assert {call.namespace for call in life.calls if call.resource == "leases"} == {"default"}
