"""What goes wrong on request, seen through the real SDK."""

import json
from typing import Any

import pytest
from azure.core.exceptions import HttpResponseError, ServiceRequestError, ServiceResponseError
from pydantic import ValidationError

from fakes.azure import Answer, Delay, Disconnect, FakeAzure, OperationFault
from fakes.azure.faults import FAULT, FaultBook
from tests.fakes.sdk import Client, answer_of, code_of

GONE = (ServiceRequestError, ServiceResponseError)


async def put(client: Client, azure: FakeAzure, name: str = "gpu1") -> Any:
    body = {"properties": {"vmSize": "Standard_NC4as_T4_v3"}}
    poller = await client.agent_pools.begin_create_or_update(
        azure.ids.resource_group, azure.ids.cluster, name, body, polling=False
    )
    return await poller.result()


async def listed(client: Client, azure: FakeAzure) -> list[str]:
    pools = client.agent_pools.list(azure.ids.resource_group, azure.ids.cluster)
    return [pool.name async for pool in pools if pool.name is not None]


async def test_an_answer_in_place_of_the_call(client: Client, azure: FakeAzure) -> None:
    azure.settings.scale = 10
    body = {"error": {"code": "ServerTimeout", "message": "The request timed out."}}
    azure.add_fault(Answer(operation="agentPools.put", status=503, body=body, retry_after=95))
    with pytest.raises(HttpResponseError) as caught:
        await put(client, azure)
    assert caught.value.status_code == 503
    assert code_of(caught.value) == "ServerTimeout"
    assert answer_of(caught.value).headers["Retry-After"] == "10"
    assert "gpu1" not in azure.cluster.pools
    await put(client, azure)


async def test_an_error_answer_although_the_call_has_had_its_effect(client: Client, azure: FakeAzure) -> None:
    azure.add_fault(Answer(operation="agentPools.put", status=500, after_effect=True))
    with pytest.raises(HttpResponseError) as caught:
        await put(client, azure)
    assert caught.value.status_code == 500
    assert "gpu1" in await listed(client, azure)


@pytest.mark.parametrize(("body", "length"), [(None, 0), ("<html><h1>502 Bad Gateway</h1></html>", 37)])
async def test_empty_and_html_bodies_leave_the_sdk_without_an_error(
    client: Client, azure: FakeAzure, body: str | None, length: int
) -> None:
    azure.add_fault(Answer(operation="agentPools.list", status=502, body=body))
    with pytest.raises(HttpResponseError) as caught:
        await listed(client, azure)
    assert caught.value.error is None
    assert len(answer_of(caught.value).text()) == length


async def test_a_connection_lost_before_the_effect(client: Client, azure: FakeAzure) -> None:
    azure.add_fault(Disconnect(operation="agentPools.put", times=2))
    with pytest.raises(GONE):
        await put(client, azure)
    assert "gpu1" not in azure.cluster.pools
    assert [call.status for call in azure.calls if call.operation == "agentPools.put"] == [None, None]


async def test_an_answer_lost_after_the_effect(client: Client, azure: FakeAzure) -> None:
    azure.add_fault(Disconnect(operation="agentPools.put", after_effect=True, times=2))
    with pytest.raises(GONE):
        await put(client, azure)
    assert "gpu1" in await listed(client, azure)


async def test_the_http_client_sends_a_lost_put_again_by_itself(client: Client, azure: FakeAzure) -> None:
    """aiohttp repeats an idempotent request once when its connection goes, below the SDK and whatever `retry_total`.

    So callers meet the conflict with their own first attempt, and a fault that is to be seen needs `times=2`.
    """
    azure.settings.scale = 1
    azure.add_fault(Disconnect(operation="agentPools.put", after_effect=True))
    with pytest.raises(HttpResponseError, match="in progress create node pool operation"):
        await put(client, azure)
    assert [call.status for call in azure.calls if call.operation == "agentPools.put"] == [None, 409]


async def test_a_late_answer(client: Client, azure: FakeAzure) -> None:
    azure.add_fault(Delay(operation="agentPools.put", seconds=600))
    await put(client, azure)
    call = next(call for call in azure.calls if call.operation == "agentPools.put")
    assert azure.clock.now() - call.time >= 600
    assert azure.cluster.pool("gpu1").operation is not None


async def test_a_fault_hits_so_many_calls_of_its_pools_and_then_no_more(client: Client, azure: FakeAzure) -> None:
    fault = azure.add_fault(Answer(operation="agentPools.*", method="put", pool="bad*", times=2, status=500))
    await put(client, azure, "good")
    for _ in range(2):
        with pytest.raises(HttpResponseError):
            await put(client, azure, "bad1")
    await put(client, azure, "bad1")
    assert [(entry["id"], entry["hits"], entry["spent"]) for entry in azure.faults.listing()] == [(fault, 2, True)]


async def test_a_fault_without_a_number_stays_until_it_is_removed(client: Client, azure: FakeAzure) -> None:
    fault = azure.add_fault(Answer(operation="agentPools.list", times=None, status=500))
    for _ in range(3):
        with pytest.raises(HttpResponseError):
            await listed(client, azure)
    assert azure.faults.remove(fault)
    assert not azure.faults.remove(fault)
    assert await listed(client, azure) == ["systempool"]


async def test_the_poll_of_an_operation_can_fail_for_one_pool(client: Client, azure: FakeAzure) -> None:
    azure.add_fault(Answer(operation="operations.get", pool="gpu1", status=404))
    poller = await client.agent_pools.begin_create_or_update(
        azure.ids.resource_group, azure.ids.cluster, "gpu1", {"properties": {"vmSize": "Standard_NC4as_T4_v3"}}
    )
    with pytest.raises(HttpResponseError) as caught:
        await poller.result()
    assert caught.value.status_code == 404


async def test_tokens_can_fail_too(client: Client, azure: FakeAzure) -> None:
    azure.add_fault(Answer(operation="entra.token", status=500, body={"error": "server_error"}))
    with pytest.raises(Exception, match="server_error"):
        await listed(client, azure)
    assert azure.calls.count("agentPools.list") == 0


def test_an_operation_fault_waits_for_an_operation_that_starts() -> None:
    book = FaultBook()
    book.add(OperationFault(operation="agentPools.put", pool="gpu*", outcome="Stuck"))
    assert book.outcome("agentPools.delete", pool="gpu1") is None
    assert book.outcome("agentPools.put", pool="cpu1") is None
    outcome = book.outcome("agentPools.put", pool="gpu1")
    assert outcome is not None
    assert outcome.status == "Stuck"
    assert book.outcome("agentPools.put", pool="gpu1") is None


@pytest.mark.parametrize(
    "fault",
    [
        Answer(status=500, body={"a": 1}),
        Disconnect(after_effect=True, times=None),
        Delay(seconds=1),
        OperationFault(outcome="Canceled", error={"code": "x"}),
    ],
)
def test_faults_go_over_the_wire_and_back(fault: Answer | Disconnect | Delay | OperationFault) -> None:
    assert FAULT.validate_python(json.loads(fault.model_dump_json())) == fault


@pytest.mark.parametrize(
    "raw", [{}, {"kind": "answer"}, {"kind": "answer", "status": 99}, {"kind": "delay", "seconds": -1}, {"kind": "x"}]
)
def test_malformed_faults_are_refused(raw: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        FAULT.validate_python(raw)
