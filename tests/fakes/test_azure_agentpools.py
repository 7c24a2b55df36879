"""The real SDK against the server: agent pools, machines and operations over TLS."""

import asyncio
from typing import Any

import pytest
from azure.core import MatchConditions
from azure.core.exceptions import (
    HttpResponseError,
    ResourceExistsError,
    ResourceModifiedError,
    ResourceNotFoundError,
)
from azure.core.rest import HttpRequest

from fakes.azure import FakeAzure, OperationFault
from tests.fakes.sdk import Client, answer_of, code_of

SIZE = "Standard_NC24ads_A100_v4"


def where(azure: FakeAzure) -> tuple[str, str]:
    return azure.ids.resource_group, azure.ids.cluster


async def create(client: Client, azure: FakeAzure, name: str = "gpu1", **properties: Any) -> Any:
    body = {"properties": {"vmSize": SIZE, **properties}}
    poller = await client.agent_pools.begin_create_or_update(*where(azure), name, body)
    return await poller.result()


async def start_create(client: Client, azure: FakeAzure, name: str = "gpu1", **kwargs: Any) -> Any:
    """PUT without polling, as the controller does; returns the pool as the answer had it."""
    body = {"properties": {"vmSize": SIZE}}
    poller = await client.agent_pools.begin_create_or_update(*where(azure), name, body, polling=False, **kwargs)
    return await poller.result()


async def test_a_create_is_followed_to_its_end(client: Client, azure: FakeAzure) -> None:
    pool = await create(client, azure, count=2, tags={"claim": "uid"})
    assert pool.properties.provisioning_state == "Succeeded"
    assert pool.properties.power_state.code == "Running"
    assert (pool.type, pool.properties.mode, pool.properties.tags) == (
        "Microsoft.ContainerService/managedClusters/agentPools",
        "User",
        {"claim": "uid"},
    )
    assert pool.id.lower() == f"{azure.ids.cluster_id}/agentPools/gpu1".lower()
    assert azure.calls.count("agentPools.put", status=201) == 1
    assert azure.calls.count("operations.get", status=200) >= 1
    assert azure.calls.count("agentPools.get") == 1


async def test_a_put_of_an_existing_pool_is_answered_200(client: Client, azure: FakeAzure) -> None:
    await create(client, azure)
    pool = await create(client, azure, count=3)
    assert pool.properties.count == 3
    assert azure.calls.count("agentPools.put", status=200) == 1


async def test_a_put_answers_with_creating_and_the_url_of_its_operation(client: Client, azure: FakeAzure) -> None:
    azure.settings.scale = 1
    azure.settings.operation_retry_after_seconds = 2
    seen: list[Any] = []
    pool = await start_create(client, azure, raw_response_hook=lambda answer: seen.append(answer.http_response))
    assert pool["properties"]["provisioningState"] == "Creating"
    headers = seen[0].headers
    url = headers["Azure-AsyncOperation"]
    assert url.startswith(
        f"{azure.endpoint}/subscriptions/{azure.ids.subscription}/providers/Microsoft.ContainerService"
        "/locations/eastus/operations/"
    )
    assert headers["Retry-After"] == "2"
    assert "Location" not in headers
    assert headers["x-ms-request-id"]
    assert headers["x-ms-correlation-request-id"]
    operation = (await client.send_request(HttpRequest("GET", url))).json()
    assert operation["status"] == "InProgress"
    assert operation["name"] in url
    assert "endTime" not in operation


async def test_no_retry_after_is_sent_unless_asked_for(client: Client, azure: FakeAzure) -> None:
    seen: list[Any] = []
    await start_create(client, azure, raw_response_hook=lambda answer: seen.append(answer.http_response))
    assert "Retry-After" not in seen[0].headers


async def test_pools_are_listed_in_pages(client: Client, azure: FakeAzure) -> None:
    azure.settings.page_size = 2
    for name in ("gpu3", "gpu1", "gpu2", "gpu4"):
        await start_create(client, azure, name)
    azure.calls.reset()
    assert [pool.name async for pool in client.agent_pools.list(*where(azure))] == [
        "gpu1",
        "gpu2",
        "gpu3",
        "gpu4",
        "systempool",
    ]
    assert azure.calls.count("agentPools.list") == 3


async def test_a_get_of_no_pool_is_not_found(client: Client, azure: FakeAzure) -> None:
    with pytest.raises(ResourceNotFoundError, match="Agent Pool not found") as caught:
        await client.agent_pools.get(*where(azure), "gpu1")
    assert code_of(caught.value) == "NotFound"


@pytest.mark.parametrize("ignore", [None, True])
async def test_a_delete_is_followed_to_its_end(client: Client, azure: FakeAzure, ignore: bool | None) -> None:
    await create(client, azure)
    poller = await client.agent_pools.begin_delete(*where(azure), "gpu1", ignore_pod_disruption_budget=ignore)
    await poller.result()
    assert azure.calls.count("agentPools.delete", status=202) == 1
    assert [pool.name async for pool in client.agent_pools.list(*where(azure))] == ["systempool"]


async def test_a_delete_can_be_followed_by_its_location_alone(client: Client, azure: FakeAzure) -> None:
    azure.settings.scale = 1
    await start_create(client, azure)
    seen: list[Any] = []
    await client.agent_pools.begin_delete(
        *where(azure), "gpu1", polling=False, raw_response_hook=lambda answer: seen.append(answer.http_response)
    )
    location = HttpRequest("GET", seen[0].headers["Location"])
    assert "/operationresults/" in location.url
    assert (await client.send_request(location)).status_code == 202
    azure.settings.scale = 10**6
    revision = azure.cluster.revision
    while "gpu1" in azure.cluster.pools:
        revision = await azure.wait_changed(revision)
    assert (await client.send_request(location)).status_code == 204


async def test_a_delete_of_nothing_is_no_content(client: Client, azure: FakeAzure) -> None:
    poller = await client.agent_pools.begin_delete(
        *where(azure), "gpu1", etag="x", match_condition=MatchConditions.IfNotModified
    )
    await poller.result()
    assert azure.calls.count("agentPools.delete", status=204) == 1


async def test_a_delete_preempts_the_create(client: Client, azure: FakeAzure) -> None:
    azure.settings.scale = 1
    body = {"properties": {"vmSize": SIZE}}
    creating = await client.agent_pools.begin_create_or_update(*where(azure), "gpu1", body)
    deleting = await client.agent_pools.begin_delete(*where(azure), "gpu1")
    azure.settings.scale = 3000
    with pytest.raises(HttpResponseError) as caught:
        await creating.result()
    assert code_of(caught.value) == "AKSOperationPreemptedByDelete"
    assert caught.value.status_code == 200
    await deleting.result()
    assert "gpu1" not in azure.cluster.pools


async def test_if_none_match_never_overwrites(client: Client, azure: FakeAzure) -> None:
    azure.settings.scale = 1
    await start_create(client, azure, match_condition=MatchConditions.IfMissing, etag="*")
    etag = azure.cluster.pool("gpu1").etag
    with pytest.raises(ResourceExistsError) as caught:
        await start_create(client, azure, match_condition=MatchConditions.IfMissing, etag="*")
    assert caught.value.status_code == 412
    assert code_of(caught.value) == "PreconditionFailed"
    assert azure.cluster.pool("gpu1").etag == etag


async def test_if_match_is_read_in_the_sdks_quotes(client: Client, azure: FakeAzure) -> None:
    etag = (await create(client, azure)).properties.e_tag
    assert '"' not in etag
    await start_create(client, azure, match_condition=MatchConditions.IfNotModified, etag=etag)
    with pytest.raises(ResourceModifiedError):
        await start_create(client, azure, match_condition=MatchConditions.IfNotModified, etag=etag)


async def test_a_failed_create_tells_why_in_the_operation_and_in_the_pool(client: Client, azure: FakeAzure) -> None:
    detail = {"code": "OperationNotAllowed", "message": "exceeding approved Standard NCADSA100v4 Family Cores quota."}
    error = {"code": "QuotaExceeded", "message": "The operation failed.", "details": [detail]}
    azure.add_fault(OperationFault(operation="agentPools.put", error=error))
    with pytest.raises(HttpResponseError) as caught:
        await create(client, azure)
    assert code_of(caught.value) == "QuotaExceeded"
    assert answer_of(caught.value).json()["error"]["details"] == [detail]
    pool = await client.agent_pools.get(*where(azure), "gpu1")
    assert pool.properties.provisioning_state == "Failed"
    assert pool.properties.status.provisioning_error.code == "QuotaExceeded"
    assert pool.properties.status.provisioning_error.details[0].message == detail["message"]


async def test_a_failed_operation_may_say_nothing_else(client: Client, azure: FakeAzure) -> None:
    azure.add_fault(OperationFault(after=1))
    with pytest.raises(HttpResponseError) as caught:
        await create(client, azure)
    assert caught.value.error is None
    pool = await client.agent_pools.get(*where(azure), "gpu1")
    assert pool.properties.status is None


async def test_machines_are_listed_in_pages_and_read_one_by_one(client: Client, azure: FakeAzure) -> None:
    azure.settings.page_size = 5
    await create(client, azure, count=12, availabilityZones=["3"])
    machines = [machine async for machine in client.machines.list(*where(azure), "gpu1")]
    assert [machine.name for machine in machines] == [machine.name for machine in azure.machines()][1:]
    assert azure.calls.count("machines.list") == 3
    one = await client.machines.get(*where(azure), "gpu1", machines[11].name)
    assert one.name.endswith("-vmss00000b")
    assert one.properties.resource_id.endswith("-vmss/virtualMachines/11")
    assert one.properties.network.ip_addresses[0].ip
    assert one.zones == ["3"]
    with pytest.raises(ResourceNotFoundError):
        await client.machines.get(*where(azure), "gpu1", "nobody")


async def test_machines_are_deleted_by_name(client: Client, azure: FakeAzure) -> None:
    await create(client, azure, count=3)
    names = [machine.name async for machine in client.machines.list(*where(azure), "gpu1")]
    poller = await client.agent_pools.begin_delete_machines(*where(azure), "gpu1", {"machineNames": names[:2]})
    await poller.result()
    assert (await client.agent_pools.get(*where(azure), "gpu1")).properties.count == 1
    assert [machine.name async for machine in client.machines.list(*where(azure), "gpu1")] == names[2:]
    with pytest.raises(HttpResponseError, match="Cannot find any valid machines to delete") as caught:
        await client.agent_pools.begin_delete_machines(*where(azure), "gpu1", {"machineNames": names[:2]})
    assert caught.value.status_code == 400


async def test_a_stopped_cluster_says_so_and_refuses_writes(client: Client, azure: FakeAzure) -> None:
    azure.cluster.set_state(power_state="Stopped")
    cluster = await client.managed_clusters.get(*where(azure))
    assert cluster.properties.power_state.code == "Stopped"
    with pytest.raises(ResourceExistsError, match="Managed Cluster is in stopped state") as caught:
        await start_create(client, azure)
    assert caught.value.status_code == 409
    assert code_of(caught.value) == "OperationNotAllowed"


async def test_the_cluster_tells_its_limits_and_its_pools(client: Client, azure: FakeAzure) -> None:
    azure.settings.max_agent_pools = 7
    cluster = await client.managed_clusters.get(*where(azure))
    assert (cluster.location, cluster.properties.node_resource_group) == ("eastus", "MC_rg-gpu_aks-gpu_eastus")
    assert cluster.properties.max_agent_pools == 7
    assert cluster.properties.current_kubernetes_version == "1.34.2"
    assert [profile.name for profile in cluster.properties.agent_pool_profiles] == ["systempool"]


async def test_paths_are_read_in_any_case(client: Client, azure: FakeAzure) -> None:
    path = azure.cluster.ids.pool_id("systempool").upper()
    answer = await client.send_request(HttpRequest("GET", f"{path}?api-version=2024-01-01"))
    assert answer.status_code == 200
    assert answer.json()["name"] == "systempool"


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [
        ("/subscriptions/other/resourceGroups/{g}/providers/{p}/{c}/agentPools", 404, "SubscriptionNotFound"),
        ("/subscriptions/{s}/resourceGroups/other/providers/{p}/{c}/agentPools", 404, "ResourceGroupNotFound"),
        ("/subscriptions/{s}/resourceGroups/{g}/providers/{p}/other", 404, "ResourceNotFound"),
        ("/subscriptions/{s}/resourceGroups/{g}/providers/{p}/other/agentPools", 404, "ParentResourceNotFound"),
        ("/subscriptions/{s}/resourceGroups/{g}/providers/{p}/{c}/snapshots", 404, "InvalidResourceType"),
        ("/subscriptions/{s}/providers/Microsoft.ContainerService/locations/eastus/operations/0", 404, "NotFound"),
    ],
)
async def test_unknown_names_have_arms_own_codes(
    client: Client, azure: FakeAzure, path: str, status: int, code: str
) -> None:
    path = path.format(
        s=azure.ids.subscription,
        g=azure.ids.resource_group,
        p="Microsoft.ContainerService/managedClusters",
        c=azure.ids.cluster,
    )
    answer = await client.send_request(HttpRequest("GET", f"{path}?api-version=2026-08-01"))
    assert answer.status_code == status
    body = answer.json()
    assert body.get("error", body)["code"] == code


async def test_what_arm_asks_of_every_request(client: Client, azure: FakeAzure) -> None:
    path = azure.ids.pool_id("gpu1")
    unversioned = await client.send_request(HttpRequest("GET", path))
    assert (unversioned.status_code, unversioned.json()["error"]["code"]) == (400, "MissingApiVersionParameter")
    patched = await client.send_request(HttpRequest("PATCH", f"{path}?api-version=2026-08-01"))
    assert patched.status_code == 405
    for content in (b"no json", b"[]"):
        put = await client.send_request(HttpRequest("PUT", f"{path}?api-version=2026-08-01", content=content))
        assert (put.status_code, put.json()["error"]["code"]) == (400, "InvalidRequestContent")
    page = await client.send_request(
        HttpRequest("GET", f"{azure.ids.cluster_id}/agentPools?api-version=2026-08-01&$skiptoken=x")
    )
    assert (page.status_code, page.json()["error"]["code"]) == (400, "InvalidSkipToken")


async def test_flat_and_nested_errors_are_both_read_by_the_sdk(client: Client, azure: FakeAzure) -> None:
    for properties, code in (
        ({"vmSize": "Standard_NC1"}, "VMSizeNotSupported"),
        ({"tags": {"/": ""}}, "InvalidTagNameCharacters"),
    ):
        with pytest.raises(HttpResponseError) as caught:
            await create(client, azure, **properties)
        assert caught.value.status_code == 400
        assert code_of(caught.value) == code
    with pytest.raises(HttpResponseError) as caught:
        await create(client, azure, osDiskSizeGB=10)
    assert answer_of(caught.value).json() == {
        "code": "InvalidParameter",
        "details": None,
        "message": "The OSDiskSize for Agent gpu1 cannot be less than 30GB or larger than 2048GB.",
        "subcode": "",
    }


async def test_calls_are_logged_with_who_and_what(client: Client, azure: FakeAzure) -> None:
    azure.calls.reset()
    await start_create(client, azure, request_id="my-request")
    await start_create(client, azure, "gpu2")
    put, other = [call for call in azure.calls if call.operation == "agentPools.put"]
    assert (put.operation, put.method, put.pool, put.status) == ("agentPools.put", "PUT", "gpu1", 201)
    assert put.path.endswith("/agentPools/gpu1")
    assert put.client_request_id == "my-request"
    assert put.user_agent.startswith("test/1 azsdk-python-mgmt-containerservice/")
    assert put.time <= other.time <= azure.clock.now()
    assert (azure.calls.count("agentPools.put"), azure.calls.count("agentPools.put", status=409)) == (2, 0)


async def test_watchers_wake_when_machines_come(client: Client, azure: FakeAzure) -> None:
    revision = azure.cluster.revision
    await start_create(client, azure)
    async with asyncio.timeout(10):
        while not any(machine.pool == "gpu1" for machine in azure.machines()):
            revision = await azure.wait_changed(revision)
    assert azure.cluster.pool("gpu1").state in ("Creating", "Succeeded")
