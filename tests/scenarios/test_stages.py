"""What a client sees of a claim's life by watching it: every stage, in order, with a reason, and no way back."""

from collections.abc import AsyncIterator, Iterable

import pytest
import pytest_asyncio

from fakes.aks import FakeAks
from fakes.azure import Answer, Fault
from fakes.cluster.interface import ControlPlane
from fakes.nodes import FaultKind
from tests.claims import A100, kaito_claim
from tests.kube import CLAIMS, NODES, Kube, Object, condition, has_reason, is_true
from tests.scenarios.on_azure import AGES, PUT, settings, wait_pool
from tests.scenarios.running import Running, running
from tests.scenarios.watching import version_of, watching

pytestmark = pytest.mark.asyncio(loop_scope="module")

Stage = tuple[str, str]

AWAITING = ("Unknown", "AwaitingReconciliation")
CREATING = ("Unknown", "CreatingAgentPool")
RECONCILING = ("Unknown", "ReconcilingDependents")
NODE_NOT_FOUND = ("Unknown", "NodeNotFound")
NODE_NOT_READY = ("Unknown", "NodeNotReady")
# The taints that kube-controller-manager has put on a Node that was not ready; it takes them off in its own time.
TAINTED = ("Unknown", "KnownEphemeralTaintsExist")
NO_GPUS = ("Unknown", "ResourceNotRegistered")


def done(kind: str) -> Stage:
    return ("True", kind)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(control_plane: ControlPlane, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Running]:
    async with running(control_plane, log=tmp_path_factory.mktemp("stages") / "controller.log") as made:
        # So that the first claim, too, meets a controller that knows its region.
        await made.kube.create(CLAIMS, kaito_claim("warmup"))
        await made.kube.wait_claim("warmup", has_reason("Launched", "CreatingAgentPool"))
        yield made


@pytest.fixture
def aks(world: Running) -> FakeAks:
    return world.aks


@pytest.fixture
def kube(world: Running) -> Kube:
    return world.kube


def stages(states: Iterable[Object], kind: str) -> list[Stage]:
    """Return what a condition went through, without repetitions."""
    result: list[Stage] = []
    for state in states:
        seen = condition(state, kind)
        if seen and (seen["status"], seen["reason"]) != (result[-1] if result else None):
            result.append((seen["status"], seen["reason"]))
    return result


def assert_every_condition_speaks(states: Iterable[Object]) -> None:
    """Without a reason no client can show the condition; without a message nobody knows what an unmet one waits for."""
    for state in states:
        for each in (state.get("status") or {}).get("conditions", ()):
            assert each["reason"], each
            assert each["message"] or each["status"] == "True", each


def assert_node_before_claim(claims: list[Object], nodes: list[Object]) -> None:
    """Initialized=True is word that the Node carries all that the claim says."""
    initialized = next(claim for claim in claims if is_true("Initialized")(claim))
    name = initialized["status"]["nodeName"]
    earlier = [node for node in nodes if version_of(node) < version_of(initialized)]
    node = [node for node in earlier if node["metadata"]["name"] == name][-1]
    labels = node["metadata"]["labels"]
    assert labels.items() >= initialized["metadata"]["labels"].items()
    assert labels["karpenter.sh/registered"] == labels["karpenter.sh/initialized"] == "true"
    assert labels["node.kubernetes.io/instance-type"] == A100
    assert {"key": "sku", "value": "gpu", "effect": "NoSchedule"} in node["spec"]["taints"]
    assert node["status"]["allocatable"]["nvidia.com/gpu"] == "1"
    assert condition(node, "Ready")["status"] == "True"


def assert_launched_for_good(claims: list[Object]) -> None:
    """From the first state that is Launched to the last, neither the condition nor the providerID moves."""
    first = next(index for index, claim in enumerate(claims) if is_true("Launched")(claim))
    launched = [(claim["status"]["providerID"], condition(claim, "Launched")) for claim in claims[first:]]
    assert len({(vm, seen["status"], seen["reason"], seen["lastTransitionTime"]) for vm, seen in launched}) == 1


async def test_every_stage_is_told(aks: FakeAks, kube: Kube) -> None:
    not_ready = aks.nodes.add_fault(FaultKind.NOT_READY, pool="stages")
    no_gpus = aks.nodes.add_fault(FaultKind.GPUS_NEVER_REGISTER, pool="stages")
    async with watching(aks.cluster, CLAIMS) as seen, watching(aks.cluster, NODES) as nodes:
        # A node counts once it joins; the pool it is in is never finished.
        with settings(aks, create_seconds=AGES):
            await kube.create(CLAIMS, kaito_claim("stages"))
            await kube.wait_claim("stages", has_reason("Initialized", NODE_NOT_READY[1]))
        aks.nodes.clear(not_ready)
        await kube.wait_claim("stages", has_reason("Initialized", NO_GPUS[1]))
        aks.nodes.clear(no_gpus)
        ready = await kube.wait_claim("stages", is_true("Ready"))
        (node,) = await kube.nodes_of_pool("stages")
        await seen.wait_version(ready["metadata"]["resourceVersion"])
        await nodes.wait_version(node["metadata"]["resourceVersion"])

    states = seen.of("stages")
    assert stages(states, "Launched") == [CREATING, done("Launched")]
    assert stages(states, "Registered") == [AWAITING, done("Registered")]
    assert [stage for stage in stages(states, "Initialized") if stage != TAINTED] == [
        AWAITING,
        NODE_NOT_READY,
        NO_GPUS,
        done("Initialized"),
    ]
    assert stages(states, "Ready") == [RECONCILING, done("Ready")]
    assert_every_condition_speaks(states)
    assert_node_before_claim(states, nodes.of(ready["status"]["nodeName"]))
    assert all("nodeName" in state["status"] for state in states if is_true("Registered")(state))


async def test_pool_is_finished_before_its_node_joins(aks: FakeAks, kube: Kube) -> None:
    never = aks.nodes.add_fault(FaultKind.NEVER_JOINS, pool="slownode")
    async with watching(aks.cluster, CLAIMS) as seen:
        await kube.create(CLAIMS, kaito_claim("slownode"))
        launched = await kube.wait_claim("slownode", has_reason("Registered", NODE_NOT_FOUND[1]))
        aks.nodes.clear(never)
        ready = await kube.wait_claim("slownode", is_true("Ready"))
        await seen.wait_version(ready["metadata"]["resourceVersion"])

    states = seen.of("slownode")
    assert stages(states, "Launched") == [CREATING, done("Launched")]
    assert stages(states, "Registered") == [AWAITING, NODE_NOT_FOUND, done("Registered")]
    assert stages(states, "Ready") == [RECONCILING, done("Ready")]
    assert_every_condition_speaks(states)
    assert_launched_for_good(states)
    (node,) = await kube.nodes_of_pool("slownode")
    assert launched["status"]["providerID"] == node["spec"]["providerID"]


async def test_nothing_moves_back_until_the_end(world: Running) -> None:
    aks, kube = world.aks, world.kube
    async with watching(aks.cluster, CLAIMS) as seen:
        await kube.create(CLAIMS, kaito_claim("wholelife"))
        await kube.wait_claim("wholelife", is_true("Launched"))
        await world.controller.kill()
        await world.controller.start()
        await kube.wait_claim("wholelife", is_true("Ready"))
        await wait_pool(aks, "wholelife", "Succeeded")
        await kube.delete(CLAIMS, "wholelife")
        await seen.wait_deleted("wholelife")

    states = seen.of("wholelife")
    assert_launched_for_good(states)
    assert_every_condition_speaks(states)
    assert stages(states, "Registered")[-1] == done("Registered")
    assert stages(states, "InstanceTerminating")[-1] == done("InstanceTerminating")
    for kind in ("Launched", "Registered", "Initialized", "Ready"):
        assert [status for status, _ in stages(states, kind)].count("True") == 1
        assert stages(states, kind)[-1] == done(kind)


async def test_whatever_a_launch_waits_for_is_said(aks: FakeAks, kube: Kube) -> None:
    busy = {"code": "OperationNotAllowed", "message": "Operation is not allowed: Another operation is in progress"}
    waits: dict[str, tuple[Fault | None, str]] = {
        "creating": (None, "CreatingAgentPool"),
        "throttled": (Answer(operation=PUT, pool="throttled", status=429, retry_after=AGES), "Throttled"),
        "conflict": (Answer(operation=PUT, pool="conflict", status=409, body=busy, times=None), "OperationInProgress"),
        "forbidden": (Answer(operation=PUT, pool="forbidden", status=403, times=None), "AuthorizationFailed"),
        "unwell": (Answer(operation=PUT, pool="unwell", status=503, times=None), "AzureError"),
    }
    async with watching(aks.cluster, CLAIMS) as seen:
        with settings(aks, create_seconds=AGES, vm_seconds=AGES):
            for name, (fault, _) in waits.items():
                if fault is not None:
                    aks.azure.add_fault(fault)
                await kube.create(CLAIMS, kaito_claim(name))
            for name, (_, reason) in waits.items():
                claim = await kube.wait_claim(name, has_reason("Launched", reason))
                await seen.wait_version(claim["metadata"]["resourceVersion"])

    for name, (fault, reason) in waits.items():
        states = seen.of(name)
        refused = [] if fault is None else [("Unknown", reason)]
        assert stages(states, "Launched") == [CREATING, *refused]
        assert stages(states, "Ready") == [RECONCILING]
        assert_every_condition_speaks(states)
