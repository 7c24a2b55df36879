"""What is changed in a Workspace, or about it, gets to its pods; what is not changed moves nothing."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from fakes.cluster.interface import ControlPlane
from fakes.controller import ControllerProcess
from provisioner.apis import names
from tests.claims import A100
from tests.kube import WORKSPACES, Object, eventually
from tests.scenarios.on_workspaces import (
    CONFIG_MAPS,
    SERVICES,
    STATEFUL_SETS,
    Serving,
    config_map,
    inference,
    serving,
    workspace_environment,
)

pytestmark = pytest.mark.asyncio(loop_scope="module")

ADAPTER = {"source": {"name": "one", "image": "registry.example.com/one:1"}, "strength": "0.5"}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(control_plane: ControlPlane, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Serving]:
    async with serving(control_plane, folder=tmp_path_factory.mktemp("rollout")) as started:
        yield started


async def only_pod(world: Serving, name: str) -> Object:
    (pod,) = await world.pods_of(name)
    return pod


async def wait_replaced(world: Serving, name: str, before: Object) -> Object:
    """Wait until there is another pod in place of that one and the Workspace is Ready with it; return it."""

    async def others() -> list[Object]:
        return [pod for pod in await world.pods_of(name) if pod["metadata"]["uid"] != before["metadata"]["uid"]]

    await eventually(others, what=f"another pod of {name}")
    await world.wait_state(name, "Ready")
    return await only_pod(world, name)


async def made(world: Serving, body: Object) -> Object:
    """Create a Workspace and return its pod once it is Ready."""
    await world.create(body)
    await world.wait_state(body["metadata"]["name"], "Ready")
    return await only_pod(world, body["metadata"]["name"])


async def test_content_of_a_config_map(world: Serving) -> None:
    await world.kube.create(CONFIG_MAPS, config_map("tuned", inference_config_yaml="vllm: {max-model-len: 2048}"))
    before = await made(world, inference("configured", config="tuned"))
    await world.kube.patch(CONFIG_MAPS, "tuned", {"data": {"inference_config.yaml": "vllm: {max-model-len: 4096}"}})
    # A look at it, sooner than by itself.
    await world.kube.patch(WORKSPACES, "configured", {"metadata": {"labels": {"looked-at": "again"}}})
    await wait_replaced(world, "configured", before)
    assert len(await world.claims_of("configured")) == 1


async def test_adapter_is_added_and_taken_away(world: Serving) -> None:
    bare = await made(world, inference("adapting"))
    await world.kube.patch(WORKSPACES, "adapting", {"inference": {"adapters": [ADAPTER]}})
    adapted = await wait_replaced(world, "adapting", bare)
    assert [container["name"] for container in adapted["spec"]["initContainers"]] == ["puller-0"]
    await world.kube.patch(WORKSPACES, "adapting", {"inference": {"adapters": None}})
    after = await wait_replaced(world, "adapting", adapted)
    assert not after["spec"].get("initContainers")
    assert [volume for volume in after["spec"]["volumes"] if volume["name"] == "adapters"] == []


async def test_all_pods_of_a_group_are_replaced(world: Serving) -> None:
    await world.create(inference("grouped", count=2))
    await world.wait_state("grouped", "Ready")
    before = {pod["metadata"]["uid"] for pod in await world.pods_of("grouped")}
    claims = [claim["metadata"]["uid"] for claim in await world.claims_of("grouped")]
    assert len(before) == len(claims) == 2
    await world.kube.patch(WORKSPACES, "grouped", {"inference": {"adapters": [ADAPTER]}})

    async def others() -> list[Object]:
        return [pod for pod in await world.pods_of("grouped") if pod["metadata"]["uid"] not in before]

    await eventually(others, until=lambda found: len(found) == 2, what="both pods are others")
    await world.wait_state("grouped", "Ready")
    assert [claim["metadata"]["uid"] for claim in await world.claims_of("grouped")] == claims


async def test_template(world: Serving) -> None:
    container = {
        "name": "mine",
        "image": "registry.example.com/mine:1",
        "resources": {"limits": {"nvidia.com/gpu": "1"}},
    }
    body = inference("templated")
    body["inference"] = {"template": {"spec": {"containers": [container]}}}
    before = await made(world, body)
    assert before["spec"]["containers"][0]["image"] == "registry.example.com/mine:1"
    changed = {**container, "image": "registry.example.com/mine:2"}
    await world.kube.patch(WORKSPACES, "templated", {"inference": {"template": {"spec": {"containers": [changed]}}}})
    after = await wait_replaced(world, "templated", before)
    assert after["spec"]["containers"][0]["image"] == "registry.example.com/mine:2"


@pytest.mark.parametrize(
    ("name", "ports", "word"),
    [
        ("high", [{"containerPort": 70_000}], "containers[0].ports[0].containerPort: Invalid value: 70000"),
        ("mistyped", [{"containerPort": "http"}], "containerPort"),
    ],
    ids=["range", "type"],
)
async def test_template_that_is_no_pod(world: Serving, name: str, ports: list[Object], word: str) -> None:
    container = {"name": "mine", "image": "registry.example.com/mine:1"}
    body = inference(name)
    body["inference"] = {"template": {"spec": {"containers": [{**container, "ports": ports}]}}}
    await world.create(body)
    told = await world.wait_reason(name, "InferenceReady", "WorkloadRejected")
    assert told["message"].startswith(f"StatefulSet {name}: ")
    assert word in told["message"]
    assert await world.wait_event(name, "WorkloadRejected") == told["message"]
    await world.kube.patch(WORKSPACES, name, {"inference": {"template": {"spec": {"containers": [container]}}}})
    await world.wait_state(name, "Ready")


async def test_load_balancer_on_and_off(world: Serving) -> None:
    before = await made(world, inference("public"))

    async def kind() -> str:
        service = await world.kube.get(SERVICES, "public")
        return str(service["spec"]["type"]) if service else ""

    assert await kind() == "ClusterIP"
    for value, wanted in (("true", "LoadBalancer"), (None, "ClusterIP")):
        annotations = {names.ENABLE_LOAD_BALANCER_ANNOTATION: value}
        await world.kube.patch(WORKSPACES, "public", {"metadata": {"annotations": annotations}})
        await eventually(kind, until=lambda seen, wanted=wanted: seen == wanted, what=wanted)  # type: ignore[misc]
    assert (await only_pod(world, "public"))["metadata"]["uid"] == before["metadata"]["uid"]


async def test_what_somebody_else_changes_is_put_right(world: Serving) -> None:
    before = await made(world, inference("meddled"))
    await world.kube.delete(STATEFUL_SETS, "meddled")
    await wait_replaced(world, "meddled", before)


async def test_restart_moves_nothing_and_another_image_does(
    world: Serving, control_plane: ControlPlane, tmp_path_factory: pytest.TempPathFactory
) -> None:
    before = await made(world, inference("imaged"))
    sets = {each["metadata"]["name"]: each for each in await world.kube.items(STATEFUL_SETS)}
    await world.workspaces.stop()
    await world.workspaces.start()
    # Asked for after every Workspace that was there has been looked at.
    await world.create(inference("canary", preset="gpt-99"))
    await world.wait_reason("canary", "ResourceReady", "UnknownPreset")
    await world.kube.patch(WORKSPACES, "imaged", {"metadata": {"labels": {"looked-at": "again"}}})
    await made(world, inference("canary-too", size=A100))
    for each in await world.kube.items(STATEFUL_SETS):
        if each["metadata"]["name"] in sets:
            assert each["metadata"]["generation"] == sets[each["metadata"]["name"]]["metadata"]["generation"]
    assert (await only_pod(world, "imaged"))["metadata"]["uid"] == before["metadata"]["uid"]

    await world.workspaces.stop()
    settings = {**workspace_environment(control_plane), "SERVING_IMAGE": "registry.example.com/serving:2"}
    log = tmp_path_factory.mktemp("upgraded") / "workspaces.log"
    async with ControllerProcess(settings, log=log, command="workspace"):
        after = await wait_replaced(world, "imaged", before)
        assert after["spec"]["containers"][0]["image"] == "registry.example.com/serving:2"
        # One that was rolled out once is Ready once more, on the Node that it had.
        assert after["spec"]["nodeName"] == before["spec"]["nodeName"]
        assert len(await world.claims_of("imaged")) == 1
    await world.workspaces.start()
