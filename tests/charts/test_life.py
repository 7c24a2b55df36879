"""Both controllers as the charts run them: by their environment, their service accounts and no other rights."""

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio

from fakes.aks import FakeAks
from fakes.azure.settings import Settings as AzureSettings
from fakes.cluster.components import free_port
from fakes.cluster.interface import ControlPlane
from fakes.controller import ControllerProcess
from tests.charts.helm import PROVISIONER, WORKSPACE, Helm, Object, merged
from tests.charts.site import Site
from tests.claims import kaito_claim
from tests.conftest import SCALE
from tests.kube import CLAIMS, Kube, eventually, is_true
from tests.scenarios.on_azure import pools
from tests.scenarios.on_workspaces import Serving, clear_workspaces, inference

pytestmark = [
    pytest.mark.real_only("rights and Pod Security are looked at there alone"),
    pytest.mark.asyncio(loop_scope="module"),
]

NAMESPACE = "gpu-system"
LEASES = f"/apis/coordination.k8s.io/v1/namespaces/{NAMESPACE}/leases"
PODS = f"/api/v1/namespaces/{NAMESPACE}/pods"
PLUGINS = "/api/v1/namespaces/kube-system/pods?labelSelector=app.kubernetes.io/name=nvidia-device-plugin"
_LOG_TAIL = 20_000


@dataclass(frozen=True, kw_only=True)
class World:
    """What runs, and the values that it was installed with."""

    site: Site
    serving: Serving
    values: dict[str, Any]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(
    control_plane: ControlPlane, helm: Helm, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[World]:
    logs = tmp_path_factory.mktemp("life")
    site = Site(cluster=control_plane, helm=helm.on(control_plane.kubeconfig))
    await asyncio.to_thread(site.clear)
    await asyncio.to_thread(site.create_restricted_namespace, NAMESPACE)
    azure = AzureSettings(scale=SCALE)
    async with AsyncExitStack() as stack:
        stack.push_async_callback(asyncio.to_thread, site.clear)
        aks = await stack.enter_async_context(FakeAks(control_plane, azure=azure, crds=False, device_plugin=False))
        kube = await stack.enter_async_context(Kube(control_plane))
        values = values_for(aks)
        for chart in (PROVISIONER, WORKSPACE):
            # Until two pods of each are Ready, which Pod Security and the scheduler have taken by then.
            await asyncio.to_thread(site.helm.install, chart, "--wait", namespace=NAMESPACE, values=values[chart])
        stack.push_async_callback(kube.clear)
        stack.push_async_callback(clear_workspaces, kube)
        stack.push_async_callback(uninstalled, site, kube)
        claims, workspaces = [
            await stack.enter_async_context(await started(aks, site, chart, log=logs / f"{chart}.log"))
            for chart in (PROVISIONER, WORKSPACE)
        ]
        yield World(site=site, serving=Serving(aks=aks, kube=kube, claims=claims, workspaces=workspaces), values=values)
        for controller in (claims, workspaces):
            # Shown where a test has failed.
            sys.stdout.write(controller.log_text()[-_LOG_TAIL:])


async def uninstalled(site: Site, kube: Kube) -> None:
    """Take the charts away while there are nodes for their pods to go from."""
    for chart in (PROVISIONER, WORKSPACE):
        await asyncio.to_thread(site.helm.uninstall, chart, namespace=NAMESPACE)
    await eventually(lambda: kube.items(PODS), until=lambda left: not left, what="the controllers' pods are gone")


def values_for(aks: FakeAks) -> dict[str, Any]:
    """Return values for both charts: as people write them, at the pace of this Azure, on ports that are free."""
    there = aks.azure.environment()

    def common() -> dict[str, Any]:
        return {
            "logLevel": "debug",
            "controller": {
                "metrics": {"port": free_port()},
                "healthProbe": {"port": free_port()},
                "env": [
                    {"name": "BIND_ADDRESS", "value": "127.0.0.1"},
                    # Where a proxy or a private cloud has an authority of its own.
                    {"name": "SSL_CERT_FILE", "value": there["SSL_CERT_FILE"]},
                ],
            },
        }

    azure = {
        "subscriptionId": there["ARM_SUBSCRIPTION_ID"],
        "resourceGroup": there["ARM_RESOURCE_GROUP"],
        "clusterName": there["AZURE_CLUSTER_NAME"],
        "cloud": "custom",
        "armEndpoint": there["ARM_ENDPOINT"],
        "pricingEndpoint": there["PRICING_ENDPOINT"],
        "requestShare": 100,
    }
    paces = dict.fromkeys(("inventoryBusySeconds", "inventoryIdleSeconds", "garbageSeconds", "quotaSeconds"), 1)
    identity = {"clientId": there["AZURE_CLIENT_ID"], "tenantId": there["AZURE_TENANT_ID"]}
    return {
        PROVISIONER: merged(common(), {"settings": {"azure": azure, **paces}, "workloadIdentity": identity}),
        WORKSPACE: merged(common(), {"settings": {"hfEndpoint": "none"}}),
    }


async def started(aks: FakeAks, site: Site, chart: str, *, log: Path) -> ControllerProcess:
    """Return the container of a Deployment as a process, not started yet."""
    template = (await asyncio.to_thread(site.deployment, NAMESPACE, chart))["spec"]["template"]
    (container,) = template["spec"]["containers"]
    name = template["spec"]["serviceAccountName"]
    account = await asyncio.to_thread(site.get, f"/api/v1/namespaces/{NAMESPACE}/serviceaccounts/{name}")
    assert account is not None
    kubeconfig = await asyncio.to_thread(site.cluster.kubeconfig_for, NAMESPACE, service_account=name)
    (command,) = container["args"]
    environment = {entry["name"]: value_of(entry) for entry in container["env"]}
    # In a pod it is the service account's own token that is found.
    environment["KUBECONFIG"] = str(kubeconfig)
    return ControllerProcess({**environment, **injected(aks, template, account)}, log=log, command=command)


def value_of(entry: Object) -> str:
    """Return the value of an environment variable, as the kubelet finds it."""
    if "valueFrom" in entry:
        assert entry["valueFrom"]["fieldRef"]["fieldPath"] == "metadata.namespace", entry
        return NAMESPACE
    return str(entry.get("value", ""))


def injected(aks: FakeAks, template: Object, account: Object) -> dict[str, str]:
    """Return the variables that the webhook of workload identity adds to such a pod."""
    if template["metadata"]["labels"].get("azure.workload.identity/use") != "true":
        return {}
    annotations = account["metadata"]["annotations"]
    there = aks.azure.environment()
    return {
        "AZURE_CLIENT_ID": annotations["azure.workload.identity/client-id"],
        "AZURE_TENANT_ID": annotations["azure.workload.identity/tenant-id"],
        "AZURE_FEDERATED_TOKEN_FILE": there["AZURE_FEDERATED_TOKEN_FILE"],
        "AZURE_AUTHORITY_HOST": there["AZURE_AUTHORITY_HOST"],
    }


async def test_a_workspace_and_a_claim_become_ready_and_go_again(world: World) -> None:
    serving, kube = world.serving, world.serving.kube
    await serving.create(inference("phi"))
    await kube.create(CLAIMS, kaito_claim("wsclaim"))

    claim = await kube.wait_claim("wsclaim", is_true("Ready"), patience=120)
    await serving.wait_state("phi", "Ready")

    (made,) = await serving.claims_of("phi")
    assert sorted(pools(serving.aks)) == sorted(["wsclaim", made["metadata"]["name"]])
    plugins = {pod["spec"]["nodeName"] for pod in await kube.items(PLUGINS)}
    assert {claim["status"]["nodeName"], made["status"]["nodeName"]} <= plugins

    # An upgrade in between: CRDs are written anew, and what there is of their kinds stays.
    changed = merged(world.values[PROVISIONER], {"replicas": 1})
    await asyncio.to_thread(world.site.helm.install, PROVISIONER, namespace=NAMESPACE, values=changed)
    assert await kube.claim("wsclaim") is not None

    await kube.delete(CLAIMS, "wsclaim")
    await serving.delete("phi")
    await kube.wait_gone(CLAIMS, "wsclaim", patience=120)
    assert pools(serving.aks) == {}
    await serving.assert_nothing_left("phi")


async def test_probes_and_prometheus_are_answered_on_the_ports_of_the_values(world: World) -> None:
    for chart in (PROVISIONER, WORKSPACE):
        controller = world.values[chart]["controller"]

        async def status(path: str, port: int) -> tuple[int, str]:
            async with aiohttp.request("GET", f"http://127.0.0.1:{port}{path}") as response:
                return response.status, await response.text()

        for path in ("/healthz", "/readyz"):
            answer = await status(path, controller["healthProbe"]["port"])
            assert answer[0] == 200, answer
        code, text = await status("/metrics", controller["metrics"]["port"])
        assert code == 200
        assert "leader_election_master_status" in text


async def test_leases_are_held_where_the_rights_are(world: World) -> None:
    kube = world.serving.kube

    async def held() -> set[str]:
        return {lease["metadata"]["name"] for lease in await kube.items(LEASES) if lease["spec"].get("holderIdentity")}

    assert await eventually(held, until=lambda names: len(names) > 1) == {
        "gpu-provisioner",
        "gpu-provisioner-workspace",
    }


async def test_nothing_was_forbidden(world: World) -> None:
    for controller in (world.serving.claims, world.serving.workspaces):
        log = controller.log_text()
        assert "this instance acts from now on" in log
        for word in ("forbidden", "unauthorized", '"level": "error"', "Traceback"):
            assert word.lower() not in log.lower(), word
