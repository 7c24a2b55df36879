"""Agent pools, machines and sizes over TLS: the real SDK, and a fake only where ARM would be."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Collection
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fakes.azure import Answer, Delay, Disconnect, OperationFault
from provisioner.apis.agentpool import AgentPool
from provisioner.apis.failure import FailureClass
from provisioner.azure import agentpools, session
from provisioner.azure.agentpools import AgentPools, PoolExists
from provisioner.azure.errors import classify_provisioning_error
from provisioner.azure.inventory import Inventory, Lookup
from provisioner.azure.skus import SkuCatalogue
from tests.scenarios.arm_bench import BODY, Bench, arm_bench, refused


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    async with arm_bench(tmp_path / "azure") as running:
        yield running


@pytest.fixture
async def pools(bench: Bench) -> AsyncIterator[AgentPools]:
    async with bench.session() as opened:
        yield AgentPools(opened)


# The calls


async def test_a_created_pool_is_creating_and_listed(bench: Bench, pools: AgentPools) -> None:
    pool = await pools.create("gpu1", BODY)
    assert (pool.name, pool.state, pool.vm_size, pool.tags) == (
        "gpu1",
        "Creating",
        "Standard_NC24ads_A100_v4",
        {"owner": "test"},
    )
    assert pool in await pools.list()
    assert bench.azure.calls.count("operations.get") == 0, "the operation is never polled"


async def test_a_pool_that_exists_is_left_as_it_is(pools: AgentPools) -> None:
    await pools.create("gpu1", BODY)
    with pytest.raises(PoolExists):
        await pools.create("gpu1", {"properties": {**BODY["properties"], "vmSize": "Standard_NC4as_T4_v3"}})
    assert [pool.vm_size for pool in await pools.list() if pool.name == "gpu1"] == ["Standard_NC24ads_A100_v4"]


async def test_deleting_tells_whether_there_was_a_pool(pools: AgentPools) -> None:
    await pools.create("gpu1", BODY)
    assert await pools.delete("gpu1") is True
    assert [pool.state for pool in await pools.list() if pool.name == "gpu1"] == ["Deleting"]
    assert await pools.delete("nobody") is False


async def test_a_404_of_the_pool_counts_as_gone_too(bench: Bench, pools: AgentPools) -> None:
    body = {"code": "NotFound", "details": None, "message": "Could not find 'gpu1': Agent Pool not found."}
    bench.azure.add_fault(Answer(operation="agentPools.delete", status=404, body=body))
    assert await pools.delete("gpu1") is False


async def test_all_pages_are_listed(bench: Bench, pools: AgentPools) -> None:
    bench.azure.settings.page_size = 2
    for number in range(4):
        await pools.create(f"gpu{number}", BODY)
    bench.azure.calls.reset()
    assert {pool.name for pool in await pools.list()} == {"systempool", "gpu0", "gpu1", "gpu2", "gpu3"}
    assert bench.azure.calls.count("agentPools.list") == 3


async def test_machines_carry_the_provider_id_of_their_node(bench: Bench, pools: AgentPools) -> None:
    bench.azure.settings.vm_seconds = 0
    await pools.create("gpu1", BODY)
    (machine,) = await pools.machines("gpu1")
    (expected,) = [machine for machine in bench.azure.machines() if machine.pool == "gpu1"]
    assert machine.name == expected.name
    assert machine.provider_id.lower() == expected.provider_id.lower()
    assert await pools.machines("nobody") == ()


async def test_the_cluster(bench: Bench, pools: AgentPools) -> None:
    cluster = await pools.cluster()
    assert cluster.location == "eastus"
    assert cluster.node_resource_group == bench.azure.ids.node_resource_group
    assert cluster.kubernetes_version == "1.34.2"
    assert cluster.max_agent_pools == 100
    assert cluster.is_settled_running
    assert not replace(cluster, provisioning_state="Updating").is_settled_running
    assert not replace(cluster, power_state="Stopped").is_settled_running


async def test_the_sizes_of_the_region_over_several_pages(bench: Bench) -> None:
    bench.azure.settings.sku_page_size = 7
    async with bench.session() as opened:
        sizes = SkuCatalogue(opened, location="East US", clock=time.monotonic)
        await sizes.refresh()
    size = sizes.get("standard_nc24ADS_a100_v4")
    assert size is not None
    assert (size.name, size.family, size.vcpus, size.gpus) == (
        "Standard_NC24ads_A100_v4",
        "StandardNCADSA100v4Family",
        24,
        1,
    )
    gb200 = sizes.get("Standard_ND128isr_NDR_GB200_v6")
    assert gb200 is not None
    assert (gb200.gpus, gb200.architecture) == (None, "arm64")
    assert bench.azure.calls.count("skus.list") > 3


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"cluster_name": "nobody"}, "No AKS cluster 'nobody' in resource group "),
        ({"resource_group": "nowhere"}, "No AKS cluster 'aks-gpu' in resource group 'nowhere' of subscription "),
    ],
)
async def test_a_cluster_that_is_not_there_is_never_an_empty_one(
    bench: Bench, wrong: dict[str, str], named: str
) -> None:
    async with bench.session(replace(bench.target, **wrong)) as opened:
        elsewhere = AgentPools(opened)
        for call in (
            elsewhere.list(),
            elsewhere.delete("gpu1"),
            elsewhere.machines("gpu1"),
            elsewhere.cluster(),
            elsewhere.create("gpu1", BODY),
        ):
            error = await refused(call)
            assert error.failure.kind is FailureClass.AUTH
            assert error.failure.message.startswith(named)
            assert "check AZURE_CLUSTER_NAME, ARM_RESOURCE_GROUP and ARM_SUBSCRIPTION_ID" in error.failure.message


# Failures


async def test_a_retry_after_is_handed_on_and_not_slept(bench: Bench, pools: AgentPools) -> None:
    body = {"code": "Throttled", "message": "slow down"}
    bench.azure.add_fault(Answer(operation="agentPools.put", status=429, body=body, headers={"Retry-After": "30"}))
    started = time.monotonic()
    error = await refused(pools.create("gpu1", BODY))
    assert time.monotonic() - started < 5
    assert (error.failure.kind, error.failure.retry_after) == (FailureClass.THROTTLED, 30.0)
    assert not error.outcome_unknown
    assert bench.azure.calls.count("agentPools.put") == 1


async def test_providers_are_not_registered_behind_the_administrators_back(bench: Bench, pools: AgentPools) -> None:
    message = "The subscription is not registered to use namespace 'Microsoft.ContainerService'."
    body = {"error": {"code": "MissingSubscriptionRegistration", "message": message}}
    bench.azure.add_fault(Answer(operation="agentPools.put", status=409, body=body))
    started = time.monotonic()
    error = await refused(pools.create("gpu1", BODY))
    assert time.monotonic() - started < 5
    assert error.failure.message.startswith("The subscription is not registered for Microsoft.ContainerService")
    assert [call.operation for call in bench.azure.calls if call.method == "POST"] == ["entra.token"]


@pytest.mark.parametrize(("status", "body"), [(502, "<html><title>Bad Gateway</title></html>"), (503, None), (500, {})])
async def test_a_broken_gateway_leaves_open_what_a_write_has_done(
    bench: Bench, pools: AgentPools, status: int, body: Any
) -> None:
    bench.azure.add_fault(Answer(operation="agentPools.*", status=status, body=body, times=None))
    for call, unknown in ((pools.create("gpu1", BODY), True), (pools.delete("gpu1"), True), (pools.list(), False)):
        error = await refused(call)
        assert error.failure.kind is FailureClass.INTERNAL
        assert error.status == status
        assert error.outcome_unknown is unknown


@pytest.mark.parametrize("after_effect", [True, False])
async def test_a_lost_connection_leaves_open_what_a_write_has_done(
    bench: Bench, pools: AgentPools, after_effect: bool
) -> None:
    # Twice: a kept connection that is found dead is replaced once by the transport.
    bench.azure.add_fault(Disconnect(operation="agentPools.put", after_effect=after_effect, times=2))
    error = await refused(pools.create("gpu1", BODY))
    assert error.failure.kind is FailureClass.INTERNAL
    assert error.outcome_unknown
    assert ("gpu1" in {pool.name for pool in await pools.list()}) is after_effect


async def test_a_write_that_is_sent_again_over_a_new_connection_has_one_effect(bench: Bench, pools: AgentPools) -> None:
    await pools.list()
    bench.azure.add_fault(Disconnect(operation="agentPools.put", pool="gpu1", after_effect=False))
    assert (await pools.create("gpu1", BODY)).state == "Creating"
    bench.azure.add_fault(Disconnect(operation="agentPools.put", pool="gpu2", after_effect=True))
    with pytest.raises(PoolExists):
        await pools.create("gpu2", BODY)
    assert {pool.name for pool in await pools.list()} == {"systempool", "gpu1", "gpu2"}


async def test_a_write_that_never_left_has_done_nothing(bench: Bench, pools: AgentPools) -> None:
    await pools.list()
    await bench.azure.stop()
    error = await refused(pools.create("gpu1", BODY))
    assert error.failure.kind is FailureClass.INTERNAL
    assert "could not be reached" in error.failure.message
    assert not error.outcome_unknown


async def test_a_call_ends_at_its_deadline(bench: Bench, pools: AgentPools, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(agentpools, "WRITE_TIMEOUT", 0.3)
    bench.azure.add_fault(Delay(operation="agentPools.put", seconds=6000, after_effect=False))
    error = await refused(pools.create("gpu1", BODY))
    assert error.outcome_unknown
    assert error.failure.message == "Azure did not answer in time; it is asked again."
    assert bench.records[-1].error == "TimeoutError"


async def test_the_pages_of_a_list_share_one_deadline(
    bench: Bench, pools: AgentPools, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.azure.settings.page_size = 1
    for number in range(4):
        await pools.create(f"gpu{number}", BODY)
    monkeypatch.setattr(agentpools, "READ_TIMEOUT", 0.5)
    bench.azure.add_fault(Delay(operation="agentPools.list", seconds=120, times=None))
    error = await refused(pools.list())
    assert error.failure.message.startswith("Azure did not answer in time")
    assert bench.azure.calls.count("agentPools.list") < 4


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"value": None},
        {"value": [1]},
        {"value": [{"properties": {}}]},
        {"value": [{"name": "a", "properties": ["b"]}]},
        "<html>captive portal</html>",
    ],
)
async def test_an_answer_without_pools_is_not_an_empty_list(bench: Bench, pools: AgentPools, body: Any) -> None:
    bench.azure.add_fault(Answer(operation="agentPools.list", status=200, body=body))
    error = await refused(pools.list())
    assert error.failure.kind is FailureClass.INTERNAL


async def test_an_accepted_create_with_an_unreadable_answer_leaves_its_outcome_open(
    bench: Bench, pools: AgentPools
) -> None:
    bench.azure.add_fault(Answer(operation="agentPools.put", status=201, body="nonsense", after_effect=True))
    error = await refused(pools.create("gpu1", BODY))
    assert error.outcome_unknown
    assert "gpu1" in {pool.name for pool in await pools.list()}


@pytest.mark.parametrize(
    "link", ["https://evil.example/next", "http://localhost/next", "https://localhost:1/next", "/relative", 7]
)
async def test_the_token_does_not_follow_links_away_from_arm(bench: Bench, pools: AgentPools, link: Any) -> None:
    bench.azure.add_fault(Answer(operation="agentPools.list", status=200, body={"value": [], "nextLink": link}))
    error = await refused(pools.list())
    assert "leads away from ARM" in error.failure.message
    assert bench.azure.calls.count("agentPools.list") == 1


async def test_redirects_are_not_followed(bench: Bench, pools: AgentPools) -> None:
    elsewhere = {"Location": f"{bench.azure.endpoint}/elsewhere"}
    bench.azure.add_fault(Answer(operation="agentPools.list", status=307, headers=elsewhere))
    error = await refused(pools.list())
    assert (error.failure.kind, error.status) == (FailureClass.INTERNAL, 307)
    assert [call.operation for call in bench.azure.calls] == ["entra.token", "agentPools.list"]


async def test_a_list_that_never_ends_is_given_up(
    bench: Bench, pools: AgentPools, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "MAX_PAGES", 5)
    link = f"{bench.azure.endpoint}{bench.target.cluster_path}/agentPools?api-version=2026-08-01&skip={{x}}"
    body = {"value": [], "nextLink": link}
    bench.azure.add_fault(Answer(operation="agentPools.list", status=200, body=body, times=None))
    error = await refused(pools.list())
    assert "more than 5 pages" in error.failure.message


async def test_a_failed_pool_tells_why(bench: Bench, pools: AgentPools) -> None:
    cause = {"code": "ZonalAllocationFailed", "message": "Allocation failed. We do not have sufficient capacity."}
    fault = OperationFault(
        operation="agentPools.put",
        after=0,
        error={"code": "ReconcileVMSSAgentPoolFailed", "message": "It failed.", "details": [cause]},
    )
    bench.azure.add_fault(fault)
    await pools.create("gpu1", BODY)
    pool = await eventually(pools, "gpu1", lambda pool: pool.is_failed)
    assert pool.error is not None
    failure = classify_provisioning_error(pool.error)
    assert (failure.kind, failure.code) == (FailureClass.CAPACITY, "ZonalAllocationFailed")


async def eventually(pools: AgentPools, name: str, holds: Callable[[AgentPool], bool]) -> AgentPool:
    """List until a pool is as it should be."""
    async with asyncio.timeout(20):
        while True:
            for pool in await pools.list():
                if pool.name == name and holds(pool):
                    return pool
            await asyncio.sleep(0.02)


# The inventory on top of it


async def test_the_inventory_follows_a_pool_from_put_to_gone(bench: Bench, pools: AgentPools) -> None:
    changed = asyncio.Event()

    def on_change(_names: Collection[str]) -> None:
        changed.set()

    inventory = Inventory(
        pools,
        clock=time.monotonic,
        busy=lambda: False,
        on_change=on_change,
        busy_interval=1.0,
        idle_interval=60.0,
        settle=0.5,
    )

    async def until(state: Callable[[], bool]) -> None:
        async with asyncio.timeout(30):
            while not state():
                changed.clear()
                await changed.wait()

    def seen(state: str) -> bool:
        pool = inventory.lookup("gpu1")
        return isinstance(pool, AgentPool) and pool.state == state

    running = asyncio.create_task(inventory.run())
    await until(lambda: inventory.lookup("gpu1") is Lookup.ABSENT)
    inventory.note_created(await pools.create("gpu1", BODY))
    assert seen("Creating")
    await until(lambda: seen("Succeeded"))
    assert await pools.delete("gpu1")
    inventory.note_deleting("gpu1")
    assert seen("Deleting")
    await until(lambda: inventory.lookup("gpu1") is Lookup.ABSENT)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert bench.azure.calls.count("agentPools.get") == 0


async def test_deletion_with_an_etag_spares_a_pool_that_has_changed(pools: AgentPools) -> None:
    await pools.create("gpu1", BODY)
    (listed,) = [pool for pool in await pools.list() if pool.name == "gpu1"]
    assert await pools.delete("gpu1", etag="00000000-0000-4000-8000-000000000000") is False
    assert [pool.state for pool in await pools.list() if pool.name == "gpu1"] == ["Creating"]
    assert await pools.delete("gpu1", etag=listed.etag) is True
