"""The control API, and the server in a process of its own."""

import asyncio
import os
import signal
import ssl
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from azure.core.exceptions import HttpResponseError

from fakes.azure import FakeAzure
from tests.fakes.sdk import Client, code_of


class Control:
    """A client of `/fake/`."""

    def __init__(self, session: aiohttp.ClientSession, azure: FakeAzure) -> None:
        self._session = session
        self._azure = azure
        self._context = ssl.create_default_context(cafile=azure.ca_file)

    async def call(self, method: str, path: str, body: Any = None, *, status: int = 200) -> Any:
        url = f"{self._azure.endpoint}/fake/{path}"
        async with self._session.request(method, url, json=body, ssl=self._context) as answer:
            assert answer.status == status, await answer.text()
            return await answer.json() if answer.content_type == "application/json" else None


@pytest.fixture
async def control(azure: FakeAzure) -> AsyncIterator[Control]:
    async with aiohttp.ClientSession() as session:
        yield Control(session, azure)


async def test_settings_are_read_patched_and_replaced(azure: FakeAzure, control: Control) -> None:
    patched = await control.call("PATCH", "settings", {"create_seconds": 7, "scale": 5})
    assert (patched["create_seconds"], patched["delete_seconds"]) == (7, 120)
    assert (azure.settings.create_seconds, azure.clock.scale) == (7, 5)
    replaced = await control.call("PUT", "settings", {"page_size": 3})
    assert (replaced["page_size"], replaced["create_seconds"], replaced["scale"]) == (3, 300, 60)
    assert azure.clock.scale == 60
    assert await control.call("GET", "settings") == replaced


async def test_quota_capacity_restrictions_and_prices_change_while_it_runs(
    azure: FakeAzure, control: Control, client: Client
) -> None:
    size, family = "Standard_NC4as_T4_v3", "Standard NCASv3_T4 Family"
    body = {"properties": {"vmSize": size}}

    async def put(name: str) -> str:
        """Return the code of the refusal or of the failure, empty for success."""
        try:
            poller = await client.agent_pools.begin_create_or_update(
                azure.ids.resource_group, azure.ids.cluster, name, body
            )
            await poller.result()
        except HttpResponseError as error:
            return code_of(error)
        return ""

    changed = await control.call("PATCH", "settings", {"quota": {family.upper(): 8}, "usage": {"cores": 5}})
    assert (changed["quota"], changed["usage"]) == ({family: 8}, {"cores": 5})
    assert [await put("gpu1"), await put("gpu2"), await put("gpu3")] == ["", "", "ErrCode_InsufficientVCPUQuota"]
    changed = await control.call("PATCH", "settings", {"quota": {}, "capacity": {f"{size.lower()}/SPOT": 0, size: 1}})
    assert changed["capacity"] == {f"{size}/spot": 0, size: 1}
    assert [await put("gpu3"), await put("gpu4")] == ["", "AllocationFailed"]
    assert (await control.call("GET", "settings"))["capacity"][size] == 0
    changed = await control.call("PATCH", "settings", {"capacity": {}, "restricted": {size: []}})
    assert changed["restricted"] == {size: []}
    assert await put("gpu5") == "VMSizeNotSupported"
    await control.call("PATCH", "settings", {"restricted": {}, "prices": {size: 1.5}})
    assert [await put("gpu4"), await put("gpu5")] == ["", ""]
    assert (await control.call("PUT", "settings", {"scale": 3000}))["restricted"] != {}


@pytest.mark.parametrize(
    "body",
    [
        {"page_size": 0},
        {"scale": 0},
        {"put_pool_scope": "galaxy"},
        {"no_such": 1},
        {"quota": {"noSuchFamily": 1}},
        {"usage": {"cores": "many"}},
        {"capacity": {"Standard_NC999": 0}},
        {"restricted": {"Standard_NC999": []}},
        {"prices": {"Standard_NC4as_T4_v3/1": 1}},
        [],
        "x",
    ],
)
async def test_bad_settings_change_nothing(azure: FakeAzure, control: Control, body: Any) -> None:
    before = azure.settings.model_dump()
    values = {"create_seconds": 1, **body} if isinstance(body, dict) else body
    assert (await control.call("PATCH", "settings", values, status=400))["errors"]
    assert azure.settings.model_dump() == before


async def test_faults_are_added_listed_and_removed(azure: FakeAzure, control: Control, client: Client) -> None:
    added = await control.call("POST", "faults", {"kind": "answer", "status": 503}, status=201)
    await control.call("POST", "faults", {"kind": "operation", "outcome": "Stuck"}, status=201)
    assert [entry["id"] for entry in await control.call("GET", "faults")] == ["fault-1", "fault-2"]
    await control.call("DELETE", f"faults/{added['id']}", status=204)
    await control.call("DELETE", f"faults/{added['id']}", status=404)
    await client.managed_clusters.get(azure.ids.resource_group, azure.ids.cluster)
    await control.call("DELETE", "faults", status=204)
    assert await control.call("GET", "faults") == []
    await control.call("POST", "faults", {"kind": "answer"}, status=400)


async def test_the_cluster_is_stopped_and_pools_and_machines_are_shown(azure: FakeAzure, control: Control) -> None:
    pools = await control.call("GET", "pools")
    assert [(pool["name"], pool["machines"]) for pool in pools] == [("systempool", 1)]
    machines = await control.call("GET", "machines")
    assert [machine["pool"] for machine in machines] == ["systempool"]
    stopped = await control.call("PUT", "cluster", {"power_state": "Stopped"})
    assert stopped == {"provisioning_state": "Succeeded", "power_state": "Stopped", "kubernetes_version": "1.34.2"}
    assert await control.call("GET", "machines") == []
    await control.call("PUT", "cluster", {"power_state": "Asleep"}, status=400)
    await control.call("PUT", "cluster", {"kubernetes_version": "newest"}, status=400)
    upgraded = await control.call("PUT", "cluster", {"kubernetes_version": "1.35.0"})
    assert upgraded["kubernetes_version"] == "1.35.0"
    await control.call("PUT", "cluster", {"power_state": "Running", "provisioning_state": "Updating"})
    assert azure.cluster.provisioning_state == "Updating"
    await control.call("DELETE", f"machines/{machines[0]['name']}", status=204)
    await control.call("DELETE", f"machines/{machines[0]['name']}", status=404)
    assert azure.machines() == []


async def test_calls_are_shown_and_forgotten(azure: FakeAzure, control: Control, client: Client) -> None:
    await client.managed_clusters.get(azure.ids.resource_group, azure.ids.cluster)
    dump = await control.call("GET", "calls")
    assert dump["counts"] == {"entra.token": 1, "managedClusters.get": 1}
    assert [call["status"] for call in dump["calls"]] == [200, 200]
    assert "eyJ" not in str(dump)
    await control.call("POST", "calls/reset", status=204)
    assert await control.call("GET", "calls") == {"counts": {}, "calls": []}


async def test_tokens_and_buckets(azure: FakeAzure, control: Control) -> None:
    assertion = azure.entra.federated_token_file.read_text()
    await control.call("POST", "tokens/rotate", status=204)
    assert azure.entra.federated_token_file.read_text() != assertion
    await control.call("POST", "tokens/expire", status=204)
    await control.call("POST", "throttling/reset", status=204)
    await control.call("GET", "nothing", status=404)


async def test_a_server_that_is_stopped_leaves_its_port(tmp_path: Path) -> None:
    azure = FakeAzure(directory=tmp_path)
    async with azure:
        port = int(azure.endpoint.rpartition(":")[2])
        with pytest.raises(OSError, match="address already in use"):
            await FakeAzure(directory=tmp_path / "other", port=port).start()
    async with FakeAzure(directory=tmp_path, port=port) as again:
        assert again.endpoint == azure.endpoint


async def test_it_runs_alone_and_prints_what_its_clients_need(tmp_path: Path) -> None:
    """The client is a process of its own too: SSL_CERT_FILE has to be set before the SDK is imported."""
    server = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "fakes.azure", "--scale", "600", "--cluster", "other", "--directory", str(tmp_path),
        "--set", 'quota={"cores": 10}', "--set", "page_size=5",
        stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert server.stdout is not None
    environment = dict(os.environ)
    try:
        async with asyncio.timeout(20):
            name = ""
            while name != "SSL_CERT_FILE":
                line = (await server.stdout.readline()).decode()
                assert line.startswith("export "), line
                name, _, value = line.removeprefix("export ").strip().partition("=")
                environment[name] = value
            client = await asyncio.create_subprocess_exec(
                sys.executable, "-c", _CLIENT, env=environment, stdout=asyncio.subprocess.PIPE
            )
            printed, _ = await client.communicate()
        assert printed.decode().split() == ["other", "Succeeded"]
        server.send_signal(signal.SIGTERM)
        assert await server.wait() == 0
    finally:
        if server.returncode is None:
            server.kill()
            await server.wait()


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--help"], 0, ["/fake/settings", "capacity = {}", "quota_preflight = true", "--set NAME=JSON"]),
        (["--set", "nothing=1"], 2, ["no NAME=JSON of a setting"]),
        (["--set", "quota={"], 2, ["is no JSON"]),
        (["--set", 'quota={"x": 1}'], 2, ["quota", "no row of Compute's usages"]),
    ],
)
async def test_its_command_line_explains_itself(arguments: list[str], code: int, words: list[str]) -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "fakes.azure", *arguments),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    printed, _ = await process.communicate()
    assert process.returncode == code
    for word in words:
        assert word in printed.decode()


_CLIENT = """
import asyncio, os
from azure.identity.aio import WorkloadIdentityCredential
from azure.mgmt.containerservice.aio import ContainerServiceClient

async def main():
    arm = os.environ["ARM_ENDPOINT"]
    async with WorkloadIdentityCredential() as credential, ContainerServiceClient(
        credential, os.environ["ARM_SUBSCRIPTION_ID"], base_url=arm, credential_scopes=[arm + "/.default"]
    ) as client:
        cluster = await client.managed_clusters.get(os.environ["ARM_RESOURCE_GROUP"], os.environ["AZURE_CLUSTER_NAME"])
        print(cluster.name, cluster.properties.provisioning_state)

asyncio.run(main())
"""
