"""Pods that do not come up: the Workspace says what its author would otherwise look for in the pods, and recovers."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from fakes.cluster.interface import ControlPlane
from fakes.nodes import PodFault
from tests.kube import WORKSPACES, Object, condition, eventually, has_reason, is_true
from tests.scenarios.on_workspaces import (
    JOBS,
    PODS,
    SECRETS,
    Serving,
    inference,
    registry_secret,
    serving,
    tuning,
)

pytestmark = pytest.mark.asyncio(loop_scope="module")

NO_IMAGE = 'Back-off pulling image "serving": manifest unknown'
NO_KEY = 'couldn\'t find key HF_TOKEN in Secret default/"token"'
TOO_BIG = "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB"
ADAPTER = {"source": {"name": "one", "image": "registry.example.com/one:1"}}

# The fault, what of the Workspace is added, the reason and the message that are told.
TROUBLES: dict[str, tuple[PodFault, Object, str, str]] = {
    "pulling": (
        PodFault(waiting="ImagePullBackOff", message=NO_IMAGE),
        {},
        "ImagePullError",
        f"Pod pulling-0: Container pulling: {NO_IMAGE}",
    ),
    "starting": (
        PodFault(waiting="CreateContainerConfigError", message=NO_KEY),
        {},
        "ContainerStartError",
        f"Pod starting-0: Container starting: {NO_KEY}",
    ),
    "killed": (
        PodFault(exit_code=137, reason="OOMKilled", said="Loading weights: 71 %"),
        {},
        "ContainerOOMKilled",
        "Pod killed-0: Container killed was killed: it took more memory than it may. Loading weights: 71 %",
    ),
    "crashing": (
        PodFault(exit_code=1, said=TOO_BIG, message="back-off 40s restarting failed container", restarts=3),
        {},
        "ContainerCrashLoopBackOff",
        f"Pod crashing-0: Container crashing has ended (exit code 1): {TOO_BIG}",
    ),
    "adapted": (
        PodFault(exit_code=1, said="registry.example.com/one:1: 401 Unauthorized", init=True),
        {"adapters": [ADAPTER]},
        "ContainerCrashLoopBackOff",
        "Pod adapted-0: Container puller-0 has ended (exit code 1): registry.example.com/one:1: 401 Unauthorized",
    ),
}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(control_plane: ControlPlane, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Serving]:
    async with serving(control_plane, folder=tmp_path_factory.mktemp("pods")) as started:
        await started.kube.create(SECRETS, registry_secret("push"))
        yield started


def hitting(fault: PodFault, name: str) -> PodFault:
    return PodFault(**{**vars(fault), "pod": f"default/{name}-*"})


@pytest.mark.parametrize("name", list(TROUBLES))
async def test_trouble_is_told_and_passes(world: Serving, name: str) -> None:
    fault, fields, reason, message = TROUBLES[name]
    fault = world.aks.nodes.add_pod_fault(hitting(fault, name))
    await world.create(inference(name, **fields))

    told = await world.wait_reason(name, "InferenceReady", reason)

    assert told["message"] == message
    workspace = await world.wait(name, has_reason("WorkspaceSucceeded", reason))
    assert condition(workspace, "WorkspaceSucceeded")["message"] == message
    assert workspace["status"]["state"] == "Pending"
    # The Nodes are not to blame.
    assert is_true("ResourceReady")(workspace)
    assert await world.wait_event(name, reason) == message

    world.aks.nodes.clear_pod_fault(fault)

    workspace = await world.wait_state(name, "Ready")
    assert condition(workspace, "InferenceReady")["message"] == "The model is served."
    await world.kube.delete(WORKSPACES, name)


async def test_server_that_dies_is_told_of_and_comes_back(world: Serving) -> None:
    await world.create(inference("dying"))
    await world.wait_state("dying", "Ready")
    fault = PodFault(pod="default/dying-*", exit_code=139, said="CUDA error: an illegal memory access")
    world.aks.nodes.add_pod_fault(fault)

    workspace = await world.wait_state("dying", "NotReady")
    await world.wait_reason("dying", "InferenceReady", "ContainerCrashLoopBackOff")
    assert is_true("ResourceReady")(workspace)

    world.aks.nodes.clear_pod_fault(fault)
    await world.wait_state("dying", "Ready")
    await world.kube.delete(WORKSPACES, "dying")


async def test_pod_that_somebody_deletes_is_made_anew(world: Serving) -> None:
    await world.create(inference("evicted"))
    await world.wait_state("evicted", "Ready")
    (before,) = await world.pods_of("evicted")
    await world.kube.delete(PODS, "evicted-0")

    async def others() -> list[Object]:
        return [pod for pod in await world.pods_of("evicted") if pod["metadata"]["uid"] != before["metadata"]["uid"]]

    await eventually(others, what="another pod is there")
    await world.wait_state("evicted", "Ready")
    await world.kube.delete(WORKSPACES, "evicted")


async def test_tuning_that_fails_says_why(world: Serving) -> None:
    said = "ValueError: the data has no column named messages"
    fault = world.aks.nodes.add_pod_fault(PodFault(pod="default/doomed-*", said=said, restarts=2))
    await world.create(tuning("doomed"))

    told = await world.wait_reason("doomed", "JobStarted", "ContainerCrashLoopBackOff")
    assert told["message"].endswith(said)
    first = await world.wait_event("doomed", "ContainerCrashLoopBackOff")
    assert first.endswith(said)

    # Once it has used up its limit the Job is given up, and its pods go with what they had to say.
    world.aks.nodes.add_pod_fault(PodFault(pod="default/doomed-*", said=said, restarts=6))
    world.aks.nodes.clear_pod_fault(fault)

    workspace = await world.wait_state("doomed", "Failed")

    assert condition(workspace, "JobStarted")["reason"] == "WorkspaceTuningJobStatusFailed"
    assert condition(workspace, "WorkspaceSucceeded")["reason"] == "workspaceFailed"
    for kind in ("JobStarted", "WorkspaceSucceeded"):
        assert said in condition(workspace, kind)["message"]
    assert said in await world.wait_event("doomed", "WorkspaceTuningJobStatusFailed")
    job = await world.kube.get(JOBS, "doomed")
    assert job is not None
    await world.delete("doomed")
    await world.assert_nothing_left("doomed")
