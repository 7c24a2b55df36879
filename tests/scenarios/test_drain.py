"""A deleted claim has its Node drained before the VM goes, a deleted Node takes its claim along, and neither hangs."""

from collections.abc import AsyncIterator, Callable
from typing import Any
from uuid import uuid4

import pytest
import pytest_asyncio

from fakes.aks import FakeAks
from fakes.azure import Answer
from fakes.cluster.interface import ControlPlane
from fakes.proxy import Answer as KubeAnswer
from fakes.proxy import FaultProxy
from provisioner.apis import names
from tests.claims import kaito_claim
from tests.kube import CLAIMS, NODES, Kube, Object, condition, eventually, has_reason, is_true
from tests.scenarios.on_azure import DELETE, pools, statuses, wait_pool
from tests.scenarios.pods import BUDGETS, PODS, VOLUME_ATTACHMENTS, attachment, bound_pod, budget, clear_pods
from tests.scenarios.running import Running, running
from tests.scenarios.watching import watching

pytestmark = pytest.mark.asyncio(loop_scope="module")

PROTECTED = {names.DO_NOT_DISRUPT_ANNOTATION: "true"}
FREE = {"metadata": {"annotations": {names.DO_NOT_DISRUPT_ANNOTATION: None}}}
STAYING = [{"operator": "Exists"}]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def proxy(control_plane: ControlPlane) -> AsyncIterator[FaultProxy]:
    """What the controller takes for the API server."""
    async with FaultProxy(control_plane) as proxy:
        yield proxy


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def cluster(
    control_plane: ControlPlane, proxy: FaultProxy, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Running]:
    log = tmp_path_factory.mktemp("drain") / "controller.log"
    async with running(control_plane, log=log, settings={"KUBECONFIG": str(proxy.kubeconfig)}) as cluster:
        yield cluster
        await clear_pods(cluster.kube)


@pytest.fixture
def kube(cluster: Running) -> Kube:
    return cluster.kube


@pytest.fixture
def aks(cluster: Running) -> FakeAks:
    return cluster.aks


async def ready_node(kube: Kube, name: str, **spec: str) -> str:
    """Make a claim and return its Node once the claim is Ready."""
    claim = kaito_claim(name)
    claim["spec"] |= spec
    await kube.create(CLAIMS, claim)
    ready = await kube.wait_claim(name, is_true("Ready"))
    return str(ready["status"]["nodeName"])


async def run_pod(kube: Kube, name: str, node: str, **fields: Any) -> Object:
    """Have a pod run on the Node; see `bound_pod`."""
    await kube.create(PODS, bound_pod(name, node, **fields))
    return await wait_object(kube, PODS, name, is_true("Ready"))


async def wait_object(kube: Kube, path: str, name: str, until: Callable[[Object], bool]) -> Object:
    seen = await eventually(
        lambda: kube.get(path, name),
        until=lambda found: found is not None and until(found),
        what=f"{path}/{name}",
    )
    assert seen is not None
    return seen


async def wait_draining(kube: Kube, name: str, what: str) -> Object:
    """Wait until the claim says that it drains, and what holds that up."""
    return await kube.wait_claim(
        name, lambda claim: has_reason("Drained", "Draining")(claim) and what in condition(claim, "Drained")["message"]
    )


async def wait_event(kube: Kube, name: str, reason: str) -> Object:
    async def told() -> list[Object]:
        return [event for event in await kube.events_of(name) if event["reason"] == reason]

    return (await eventually(told, what=f"Event {reason} about {name}"))[0]


async def assert_gone(aks: FakeAks, kube: Kube, name: str, node: str) -> None:
    """Wait until the claim is gone, and see that pool and Node went before, after one request to Azure."""
    await kube.wait_gone(CLAIMS, name)
    assert name not in pools(aks)
    assert await kube.get(NODES, node) is None
    assert statuses(aks, DELETE, pool=name) == [202]


async def test_empty_node_goes_at_once_and_says_so_in_one_write(
    control_plane: ControlPlane, aks: FakeAks, kube: Kube
) -> None:
    node = await ready_node(kube, "empty")
    # A DaemonSet's pod that tolerates everything, as AKS's own do, and the device plugin's, are nobody to wait for.
    await run_pod(kube, "agent", node, tolerations=STAYING)
    async with watching(control_plane, CLAIMS) as seen:
        await kube.delete(CLAIMS, "empty")
        await assert_gone(aks, kube, "empty", node)
        await seen.wait_deleted("empty")
    told = [claim for claim in seen.of("empty") if condition(claim, "Drained")]
    for kind in ("Drained", "VolumesDetached", "InstanceTerminating"):
        assert condition(told[0], kind)["status"] == "True"


async def test_budget_holds_the_drain_until_it_allows_the_eviction(aks: FakeAks, kube: Kube) -> None:
    node = await ready_node(kube, "guarded")
    await run_pod(kube, "guarded", node)
    await kube.create(BUDGETS, budget("guarded"))
    await wait_object(kube, BUDGETS, "guarded", lambda seen: (seen.get("status") or {}).get("currentHealthy") == 1)

    await kube.delete(CLAIMS, "guarded")

    claim = await wait_draining(kube, "guarded", "default/guarded (a PodDisruptionBudget)")
    assert condition(claim, "Drained")["message"].startswith("1 pod is waiting to be evicted")
    assert is_true("Ready")(claim)
    held = await kube.get(NODES, node)
    assert held is not None
    assert "deletionTimestamp" in held["metadata"]
    assert held["metadata"]["labels"][names.EXCLUDE_FROM_BALANCERS_LABEL] == "karpenter"
    taints = {(taint["key"], taint["effect"]) for taint in held["spec"]["taints"]}
    assert taints >= {(names.DISRUPTED_TAINT_KEY, "NoSchedule"), ("sku", "NoSchedule")}
    event = await wait_event(kube, node, "FailedDraining")
    assert event["type"] == "Warning"
    assert statuses(aks, DELETE, pool="guarded") == []
    assert "deletionTimestamp" not in (await kube.items(f"{PODS}?labelSelector=app=guarded"))[0]["metadata"]

    await kube.delete(BUDGETS, "guarded")

    await assert_gone(aks, kube, "guarded", node)
    evicted = await wait_event(kube, "guarded", "Evicted")
    assert evicted["message"] == "Evicted pod: Forceful Termination"


async def test_pod_that_is_not_to_be_disrupted_is_waited_for(aks: FakeAks, kube: Kube) -> None:
    node = await ready_node(kube, "protected")
    await run_pod(kube, "protected", node, annotations=PROTECTED)
    await kube.delete(CLAIMS, "protected")
    await wait_draining(kube, "protected", "default/protected (karpenter.sh/do-not-disrupt)")
    assert statuses(aks, DELETE, pool="protected") == []

    await kube.patch(PODS, "protected", FREE)

    await assert_gone(aks, kube, "protected", node)


async def test_nothing_holds_longer_than_the_grace_period(aks: FakeAks, kube: Kube) -> None:
    node = await ready_node(kube, "graceful", terminationGracePeriod="6s")
    await run_pod(kube, "stubborn", node, annotations=PROTECTED, terminationGracePeriodSeconds=2)
    await kube.create(BUDGETS, budget("stubborn"))
    await kube.create(VOLUME_ATTACHMENTS, attachment("graceful", node, volume="pv-graceful"))

    await kube.delete(CLAIMS, "graceful")

    claim = await kube.wait_claim("graceful", has_reason("VolumesDetached", "TerminationGracePeriodElapsed"))
    end = claim["metadata"]["annotations"][names.TERMINATION_TIMESTAMP_ANNOTATION]
    assert (await wait_event(kube, "graceful", "TerminationGracePeriodExpiring"))["message"].endswith(end)
    await wait_event(kube, "stubborn", "Disrupted")
    await assert_gone(aks, kube, "graceful", node)
    assert await kube.get(PODS, "stubborn") is None


async def test_critical_pods_leave_after_all_others(control_plane: ControlPlane, aks: FakeAks, kube: Kube) -> None:
    node = await ready_node(kube, "tiers")
    async with watching(control_plane, PODS) as seen:
        await run_pod(kube, "dns", node, priorityClassName="system-cluster-critical")
        await run_pod(kube, "worker", node, annotations=PROTECTED)
        await kube.delete(CLAIMS, "tiers")
        await wait_draining(kube, "tiers", "2 pods are waiting")
        await kube.patch(PODS, "worker", FREE)
        await assert_gone(aks, kube, "tiers", node)
        await seen.wait_deleted("dns")
    order = [
        (event["type"], event["object"]["metadata"]["name"], "deletionTimestamp" in event["object"]["metadata"])
        for event in seen.events
    ]
    worker_gone = order.index(("DELETED", "worker", True))
    assert not any(name == "dns" and deleted for _, name, deleted in order[:worker_gone])


async def test_volumes_are_waited_for(aks: FakeAks, kube: Kube) -> None:
    node = await ready_node(kube, "volumes")
    await kube.create(VOLUME_ATTACHMENTS, attachment("volumes", node, volume="pv-volumes"))

    await kube.delete(CLAIMS, "volumes")

    claim = await kube.wait_claim("volumes", has_reason("VolumesDetached", "AwaitingVolumeDetachment"))
    assert is_true("Drained")(claim)
    await wait_event(kube, node, "AwaitingVolumeDetachment")
    assert statuses(aks, DELETE, pool="volumes") == []

    await kube.delete(VOLUME_ATTACHMENTS, "volumes")

    await assert_gone(aks, kube, "volumes", node)


async def test_deleted_node_takes_its_claim_along_once_it_is_drained(aks: FakeAks, kube: Kube) -> None:
    node = await ready_node(kube, "bynode")
    await run_pod(kube, "bynode", node, annotations=PROTECTED)

    await kube.delete(NODES, node)

    claim = await wait_draining(kube, "bynode", "default/bynode")
    assert "deletionTimestamp" in claim["metadata"]
    await wait_event(kube, "bynode", "NodeDeleted")
    # By somebody who finds that it takes long.
    await kube.delete(NODES, node)
    await kube.delete(CLAIMS, "bynode")
    assert await kube.get(NODES, node) is not None
    await kube.patch(PODS, "bynode", FREE)
    await assert_gone(aks, kube, "bynode", node)


async def test_drain_goes_on_after_a_kill(cluster: Running, aks: FakeAks, kube: Kube) -> None:
    node = await ready_node(kube, "killed")
    await run_pod(kube, "leaves", node)
    await run_pod(kube, "stays", node, annotations=PROTECTED)
    await kube.delete(CLAIMS, "killed")
    await wait_draining(kube, "killed", "1 pod is waiting to be evicted: default/stays")
    await cluster.controller.kill()
    await kube.patch(PODS, "stays", FREE)

    await cluster.controller.start()

    await assert_gone(aks, kube, "killed", node)


async def test_claim_is_not_drained_whose_pool_somebody_deletes_meanwhile(aks: FakeAks, kube: Kube) -> None:
    node = await ready_node(kube, "portal")
    await run_pod(kube, "portal", node, annotations=PROTECTED)
    await kube.delete(CLAIMS, "portal")
    await wait_draining(kube, "portal", "default/portal")

    aks.azure.cluster.delete_pool("portal")

    await kube.wait_gone(CLAIMS, "portal")
    assert await kube.get(NODES, node) is None
    assert statuses(aks, DELETE, pool="portal") == []


async def test_node_gets_the_finalizer_that_an_earlier_version_did_not_put_on(kube: Kube) -> None:
    node = await ready_node(kube, "upgraded")
    await kube.patch(NODES, node, {"metadata": {"finalizers": None}})
    held = await wait_object(kube, NODES, node, lambda seen: bool(seen["metadata"].get("finalizers")))
    assert held["metadata"]["finalizers"] == [names.TERMINATION_FINALIZER]


async def test_node_goes_whose_claim_was_forced_to_go_before_it(aks: FakeAks, kube: Kube) -> None:
    node = await ready_node(kube, "forced")
    await kube.patch(CLAIMS, "forced", {"metadata": {"finalizers": None}})
    await kube.delete(CLAIMS, "forced")
    await kube.delete(NODES, node)

    await kube.wait_gone(NODES, node)

    # It has stayed for as long as its VM was nobody's and not going yet.
    assert statuses(aks, DELETE, pool="forced") == [202]
    await wait_pool(aks, "forced", None)


async def test_node_of_another_karpenter_keeps_its_finalizer(kube: Kube) -> None:
    foreign = f"aks-nap-{uuid4().hex[:5]}"
    labels = {"karpenter.azure.com/aksnodeclass": "default", "kaito.sh/workspace": "ws"}
    metadata = {"name": foreign, "labels": labels, "finalizers": [names.TERMINATION_FINALIZER]}
    await kube.create(NODES, {"metadata": metadata})
    await kube.delete(NODES, foreign)
    node = await ready_node(kube, "canary")
    await kube.delete(NODES, node)
    await kube.wait_gone(NODES, node)
    seen = await kube.get(NODES, foreign)
    assert seen is not None
    assert seen["metadata"]["finalizers"] == [names.TERMINATION_FINALIZER]


async def test_drained_claim_says_why_azure_does_not_delete_its_pool(aks: FakeAks, kube: Kube) -> None:
    node = await ready_node(kube, "denied")
    refusal = {"error": {"code": "AuthorizationFailed", "message": "The client does not have authorization."}}
    fault = aks.azure.add_fault(Answer(operation=DELETE, pool="denied", status=403, body=refusal, times=None))
    await kube.delete(CLAIMS, "denied")
    claim = await kube.wait_claim("denied", has_reason("InstanceTerminating", "AuthorizationFailed"))
    assert is_true("Drained")(claim)
    held = await kube.get(NODES, node)
    assert held is not None
    assert "deletionTimestamp" in held["metadata"]
    aks.azure.faults.remove(fault)


async def test_claim_goes_by_its_deadline_although_nothing_can_be_written_to_it(
    aks: FakeAks, kube: Kube, proxy: FaultProxy
) -> None:
    """As the API server answers where a claim was stored under an older CRD."""
    node = await ready_node(kube, "rejected", terminationGracePeriod="6s")
    await run_pod(kube, "rejected", node, annotations=PROTECTED, terminationGracePeriodSeconds=2)
    refusal: dict[str, Any] = {"name": "rejected", "verb": "patch", "status": 422, "reason": "Invalid", "times": None}
    metadata = proxy.add_fault(KubeAnswer(resource="nodeclaims", **refusal))
    status = proxy.add_fault(KubeAnswer(resource="nodeclaims/status", **refusal))

    await kube.delete(CLAIMS, "rejected")

    await wait_pool(aks, "rejected", None)
    assert await kube.get(PODS, "rejected") is None
    proxy.clear(metadata)
    await assert_gone(aks, kube, "rejected", node)
    proxy.clear(status)


async def test_claim_says_that_pods_may_not_be_listed_and_goes_on_when_they_may(
    aks: FakeAks, kube: Kube, proxy: FaultProxy
) -> None:
    node = await ready_node(kube, "unlisted")
    forbidden = KubeAnswer(verb="list", resource="pods", status=403, reason="Forbidden", message="no", times=None)
    fault = proxy.add_fault(forbidden)
    await kube.delete(CLAIMS, "unlisted")
    await wait_draining(kube, "unlisted", f"The pods on Node {node} cannot be listed")
    assert statuses(aks, DELETE, pool="unlisted") == []

    proxy.clear(fault)

    await assert_gone(aks, kube, "unlisted", node)
