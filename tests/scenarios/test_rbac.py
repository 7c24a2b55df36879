"""The rights that the chart grants are enough for all that the controller does, and each of them is used."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

import pytest
import pytest_asyncio

from fakes.azure import Answer as AzureAnswer
from fakes.cluster.interface import ControlPlane
from fakes.proxy import Answer, Call, FaultProxy
from provisioner.apis import names
from provisioner.apis.times import format_time
from tests.claims import kaito_claim
from tests.kube import CLAIMS, NODE_CLASSES, NODES, eventually, has_reason, is_true
from tests.scenarios.on_azure import PUT, pools
from tests.scenarios.pods import PODS, VOLUME_ATTACHMENTS, attachment, bound_pod, clear_pods
from tests.scenarios.rights import NAMESPACE, granted, used, write_account
from tests.scenarios.running import Running, running

pytestmark = [
    pytest.mark.real_only("rights are looked at there alone"),
    pytest.mark.asyncio(loop_scope="module"),
]

CHART = "gpu-provisioner"
QUOTA = {"code": "ErrCode_InsufficientVCPUQuota", "details": None, "message": "Insufficient quota.", "subcode": ""}


@dataclass(frozen=True, kw_only=True)
class Life:
    """What was asked of the API server in it, and the controller's log."""

    calls: tuple[Call, ...]
    log: str


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def life(control_plane: ControlPlane, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Life]:
    folder = tmp_path_factory.mktemp("rbac")
    manifest, log = write_account(CHART, folder), folder / "controller.log"
    await asyncio.to_thread(control_plane.apply, manifest)
    # What others have left behind would not have to be created.
    left = ("lease", "gpu-provisioner", f"--namespace={NAMESPACE}", "--ignore-not-found")
    await asyncio.to_thread(control_plane.run_kubectl, "delete", *left)
    async with FaultProxy(control_plane) as proxy:
        account = await asyncio.to_thread(control_plane.kubeconfig_for, NAMESPACE, service_account=CHART)
        settings = {
            "KUBECONFIG": str(proxy.kubeconfig_like(account)),
            "LEADER_ELECTION": "true",
            "LEASE_NAMESPACE": NAMESPACE,
        }
        async with running(control_plane, log=log, settings=settings) as cluster:
            # Nobody else deletes Nodes.
            cluster.aks.nodes.settings.node_removal_delay = None
            await node_class_becomes_ready(cluster)
            await failed_launch_is_told_again_after_a_restart(cluster)
            await node_is_patched_on_a_second_try(cluster, proxy)
            await claim_goes_with_its_node_when_that_is_drained(cluster)
            await claim_is_collected_whose_pool_is_gone(cluster)
            await clear_pods(cluster.kube)
        yield Life(calls=tuple(proxy.calls), log=log.read_text())
    await asyncio.to_thread(control_plane.run_kubectl, "delete", f"--filename={manifest}")


async def node_class_becomes_ready(cluster: Running) -> None:
    body = {"apiVersion": "kaito.sh/v1alpha1", "kind": "KaitoNodeClass", "metadata": {"name": "default"}}
    await cluster.kube.create(NODE_CLASSES, body)

    async def ready() -> bool:
        return is_true("Ready")(await cluster.kube.get(NODE_CLASSES, "default") or {})

    await eventually(ready)


async def failed_launch_is_told_again_after_a_restart(cluster: Running) -> None:
    kube = cluster.kube
    cluster.aks.azure.add_fault(AzureAnswer(operation=PUT, pool="wsquota", status=400, body=QUOTA, times=None))
    # A size of its own: what cannot be had is asked for by nobody for a while.
    await kube.create(CLAIMS, kaito_claim("wsquota", instance_type="Standard_NC4as_T4_v3"))
    await kube.wait_claim("wsquota", has_reason("Launched", "QuotaExceeded"))

    async def counts() -> Mapping[str, int]:
        return {event["reason"]: event["count"] for event in await kube.events_of("wsquota")}

    await eventually(counts, until=lambda seen: "QuotaExceeded" in seen)
    await cluster.controller.stop()
    await cluster.controller.start()
    await eventually(counts, until=lambda seen: seen["QuotaExceeded"] > 1)


async def node_is_patched_on_a_second_try(cluster: Running, proxy: FaultProxy) -> None:
    conflict = proxy.add_fault(Answer(verb="patch", resource="nodes", status=409, reason="Conflict"))
    await cluster.kube.create(CLAIMS, kaito_claim("wsready"))
    await cluster.kube.wait_claim("wsready", is_true("Ready"))
    assert conflict.spent


async def claim_goes_with_its_node_when_that_is_drained(cluster: Running) -> None:
    kube = cluster.kube
    claim = await kube.wait_claim("wsready", is_true("Ready"))
    node = claim["status"]["nodeName"]
    await kube.create(PODS, bound_pod("evicted", node))
    await kube.create(PODS, bound_pod("forced", node, annotations={names.DO_NOT_DISRUPT_ANNOTATION: "true"}))
    await kube.create(PODS, bound_pod("staying", node, tolerations=[{"operator": "Exists"}], claims=["data"]))
    await kube.create(VOLUME_ATTACHMENTS, attachment("of-the-gone", node, volume="pv-1"))
    await kube.delete(CLAIMS, "wsready")
    await kube.wait_gone(PODS, "evicted")
    soon = format_time(datetime.now(UTC))
    await kube.patch(CLAIMS, "wsready", {"metadata": {"annotations": {names.TERMINATION_TIMESTAMP_ANNOTATION: soon}}})
    await kube.wait_gone(CLAIMS, "wsready")
    assert "wsready" not in pools(cluster.aks)
    assert await kube.nodes_of_pool("wsready") == []
    await kube.delete(VOLUME_ATTACHMENTS, "of-the-gone")


async def claim_is_collected_whose_pool_is_gone(cluster: Running) -> None:
    await cluster.kube.create(CLAIMS, kaito_claim("wslost"))
    claim = await cluster.kube.wait_claim("wslost", is_true("Ready"))
    cluster.aks.azure.cluster.delete_pool("wslost")
    await cluster.kube.wait_gone(CLAIMS, "wslost")
    await cluster.kube.wait_gone(NODES, claim["status"]["nodeName"])


async def test_nothing_is_forbidden(life: Life) -> None:
    assert [call for call in life.calls if call.status in (401, 403)] == []
    assert "forbidden" not in life.log.lower()


async def test_every_right_is_used_and_no_other(life: Life) -> None:
    assert used(life.calls, chart=CHART) == granted(CHART)
