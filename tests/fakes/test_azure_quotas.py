"""Quotas: what Compute lists, what AKS refuses at once, what Compute refuses later."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
from azure.core.exceptions import HttpResponseError
from azure.core.rest import HttpRequest
from azure.mgmt.compute.aio import ComputeManagementClient

from fakes.azure import FakeAzure, skus
from fakes.azure.errors import AzureError
from fakes.azure.usages import table
from tests.fakes.sdk import Client, answer_of, code_of
from tests.fakes.simulated import SimulatedCluster

SIZE = "Standard_NC24ads_A100_v4"
FAMILY = "StandardNCADSA100v4Family"
SPOT = {"vmSize": SIZE, "scaleSetPriority": "Spot"}
ADVICE = (
    " If you want to increase the quota, please follow this instruction: "
    "https://learn.microsoft.com/en-us/azure/quotas/view-quotas. Surge nodes would also consume vcpu quota, please "
    "consider use smaller maxSurge or use maxUnavailable to proceed upgrade without surge nodes, details: "
    "aka.ms/aks/maxUnavailable."
)


@pytest.fixture
async def compute(azure: FakeAzure, credential: Any) -> AsyncIterator[Any]:
    async with ComputeManagementClient(
        credential, azure.ids.subscription, base_url=azure.endpoint, connection_verify=str(azure.ca_file), retry_total=0
    ) as compute:
        yield compute


async def usages(compute: Any, location: str = "eastus") -> dict[str, tuple[int, int]]:
    """Return usage and limit by name."""
    return {row.name.value: (row.current_value, row.limit) async for row in compute.usage.list(location)}


class Cluster(SimulatedCluster):
    """A cluster and what Compute lists of it."""

    def put(self, name: str, **properties: Any) -> None:
        self.cluster.put_pool(name, {"vmSize": SIZE, **properties})

    def refusal(self, name: str, **properties: Any) -> str:
        with pytest.raises(AzureError) as caught:
            self.put(name, **properties)
        assert (caught.value.status, caught.value.code) == (400, "ErrCode_InsufficientVCPUQuota")
        assert name not in self.cluster.pools
        assert caught.value.message.endswith(ADVICE)
        return caught.value.message.removesuffix(ADVICE)

    def used(self, *names: str) -> list[int]:
        rows = {row["name"]["value"]: row["currentValue"] for row in self.cluster.fleet.quota.rows("eastus")}
        return [rows[name] for name in names]


async def test_the_compute_sdk_reads_usages_that_look_like_a_regions(compute: Any, azure: FakeAzure) -> None:
    rows = [row async for row in compute.usage.list("eastus")]
    assert len(rows) > 100
    assert azure.calls.count("usages.list") == 1
    assert {row.unit for row in rows} == {"Count"}
    localized = {row.name.value: row.name.localized_value for row in rows}
    assert localized["cores"] == "Total Regional vCPUs"
    assert localized["lowPriorityCores"] == "Total Regional Low-priority vCPUs"
    assert localized["standardA0_A7Family"] == "Standard A0-A7 Family vCPUs"
    assert localized[FAMILY] == "Standard NCADS_A100_v4 Family vCPUs"
    assert localized["Standard NCASv3_T4 Family"] == "Standard NCASv3_T4 Family vCPUs"
    assert "availabilitySets" in localized
    now = await usages(compute)
    # The system pool.
    assert (now["cores"][0], now["standardDSv5Family"][0], now["virtualMachines"][0]) == (4, 4, 1)
    assert now[FAMILY][0] == 0


def test_every_size_has_its_family_among_the_usages() -> None:
    for sku in skus.catalogue().values():
        assert table()[sku.family.lower()].name == sku.family


async def test_usages_come_in_pages_if_there_are_many(compute: Any, azure: FakeAzure) -> None:
    azure.settings.usage_page_size = 50
    assert len(await usages(compute)) == len(table())
    assert azure.calls.count("usages.list") == -(-len(table()) // 50)


async def test_regions_have_usages_of_their_own_and_others_are_none(compute: Any, azure: FakeAzure) -> None:
    azure.settings.quota = {"cores": 7}
    assert (await usages(compute, "East US"))["cores"] == (4, 7)
    elsewhere = await usages(compute, "westeurope")
    assert elsewhere["cores"][0] == 0
    assert elsewhere["cores"][1] > 7
    with pytest.raises(HttpResponseError) as caught:
        await usages(compute, "atlantis")
    assert (caught.value.status_code, code_of(caught.value)) == (400, "NoRegisteredProviderFound")


async def test_usages_need_an_api_version(client: Client, azure: FakeAzure) -> None:
    path = f"/subscriptions/{azure.ids.subscription}/providers/Microsoft.Compute/locations/eastus/usages"
    answer = await client.send_request(HttpRequest("GET", path))
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "MissingApiVersionParameter")


def test_vms_count_against_family_or_spot_and_always_against_the_region() -> None:
    cluster = Cluster()
    cluster.settings.usage_lag_seconds = 0
    cluster.settings.usage = {FAMILY.upper(): 10, "LOWPRIORITYCORES": 1}
    cluster.put("gpu1", count=2)
    cluster.put("gpu2", **SPOT)
    assert cluster.used(FAMILY, "lowPriorityCores", "cores", "virtualMachines") == [10, 1, 4, 1]
    cluster.advance(300)
    assert cluster.used(FAMILY, "lowPriorityCores", "cores", "virtualMachines") == [58, 25, 76, 4]
    cluster.cluster.delete_pool("gpu1")
    cluster.advance(120)
    assert cluster.used(FAMILY, "lowPriorityCores", "cores") == [10, 25, 28]
    assert cluster.used("virtualMachines", "virtualMachineScaleSets") == [2, 2]


def test_usages_lag_behind() -> None:
    cluster = Cluster()
    cluster.settings.usage_lag_seconds = 30
    cluster.put("gpu1")
    cluster.advance(119)
    assert cluster.used(FAMILY) == [0]
    cluster.advance(1)
    assert cluster.used(FAMILY) == [24]


def test_aks_refuses_what_the_family_has_no_quota_for() -> None:
    cluster = Cluster()
    cluster.settings.change({"quota": {FAMILY.lower(): 54}, "usage": {FAMILY: 24}})
    assert cluster.refusal("gpu1", count=2) == (
        f"Insufficient vcpu quota requested 48, remaining 30 for family {FAMILY} for region eastus."
    )
    cluster.put("gpu1")


def test_aks_refuses_what_the_region_has_no_quota_for() -> None:
    cluster = Cluster()
    cluster.settings.quota = {"cores": 27}
    message = (
        "Insufficient regional vcpu quota left for location eastus. left regional vcpu quota 23, requested quota 24."
    )
    assert cluster.refusal("gpu1") == message
    assert cluster.refusal("gpu1", **SPOT) == message


def test_spot_has_a_quota_of_its_own() -> None:
    cluster = Cluster()
    cluster.settings.quota = {"lowPriorityCores": 3, FAMILY: 24}
    assert cluster.refusal("gpu1", **SPOT) == (
        "Insufficient regional spot vcpu quota left for location eastus. "
        "left regional spot vcpu quota 3, requested quota 24."
    )
    cluster.put("gpu2")
    cluster.settings.quota = {"lowPriorityCores": 24, FAMILY: 0}
    cluster.put("gpu1", **SPOT)


def test_what_was_accepted_counts_although_its_vms_are_still_to_come() -> None:
    cluster = Cluster()
    cluster.settings.quota = {FAMILY: 48}
    cluster.put("gpu1")
    assert "requested 48, remaining 24" in cluster.refusal("gpu2", count=2)
    cluster.put("gpu2")
    assert "requested 24, remaining 0" in cluster.refusal("gpu3")
    cluster.cluster.delete_pool("gpu1")
    cluster.put("gpu3")


def test_a_pool_that_grows_needs_quota_for_the_new_vms_alone() -> None:
    cluster = Cluster()
    cluster.settings.quota = {FAMILY: 48}
    cluster.put("gpu1")
    cluster.advance(300)
    with pytest.raises(AzureError, match="requested 48, remaining 24"):
        cluster.put("gpu1", count=3)
    assert cluster.cluster.pool("gpu1").count == 1
    cluster.put("gpu1", count=2)
    cluster.advance(300)
    cluster.settings.quota = {FAMILY: 0}
    cluster.put("gpu1", count=1)


async def test_the_sdk_gets_the_preflight_flat(client: Client, azure: FakeAzure) -> None:
    azure.settings.quota = {FAMILY: 6}
    with pytest.raises(HttpResponseError) as caught:
        await client.agent_pools.begin_create_or_update(
            azure.ids.resource_group, azure.ids.cluster, "gpu1", {"properties": {"vmSize": SIZE}}
        )
    assert (caught.value.status_code, code_of(caught.value)) == (400, "ErrCode_InsufficientVCPUQuota")
    assert answer_of(caught.value).json() == {
        "code": "ErrCode_InsufficientVCPUQuota",
        "details": None,
        "message": f"Insufficient vcpu quota requested 24, remaining 6 for family {FAMILY} for region eastus.{ADVICE}",
        "subcode": "",
    }


@pytest.mark.parametrize(
    ("quota", "properties", "name", "limit", "usage"),
    [
        ({FAMILY: 0}, {}, f"{FAMILY} Cores", 0, 0),
        ({FAMILY: 20}, {}, f"{FAMILY} Cores", 20, 0),
        ({"cores": 10}, {}, "Total Regional Cores", 10, 4),
        ({"lowPriorityCores": 3}, SPOT, "LowPriorityCores", 3, 0),
    ],
)
async def test_without_a_preflight_compute_refuses_and_a_failed_pool_stays(
    client: Client,
    azure: FakeAzure,
    quota: dict[str, int],
    properties: dict[str, Any],
    name: str,
    limit: int,
    usage: int,
) -> None:
    azure.settings.change({"quota_preflight": False, "quota": quota})
    where = azure.ids.resource_group, azure.ids.cluster
    poller = await client.agent_pools.begin_create_or_update(
        *where, "gpu1", {"properties": {"vmSize": SIZE, **properties}}
    )
    with pytest.raises(HttpResponseError) as caught:
        await poller.result()
    assert (caught.value.status_code, code_of(caught.value)) == (200, "QuotaExceeded")
    detail = answer_of(caught.value).json()["error"]["details"][0]
    assert detail["code"] == "OperationNotAllowed"
    assert detail["message"].startswith(
        f"Operation could not be completed as it results in exceeding approved {name} quota. Additional details - "
        f"Deployment Model: Resource Manager, Location: eastus, Current Limit: {limit}, Current Usage: {usage}, "
        f"Additional Required: 24, (Minimum) New Limit Required: {usage + 24}."
    )
    pool = await client.agent_pools.get(*where, "gpu1")
    assert pool.properties.provisioning_state == "Failed"
    assert pool.properties.status.provisioning_error.code == "QuotaExceeded"
    assert pool.properties.status.provisioning_error.message == (
        f'Code="OperationNotAllowed" Message="{detail["message"]}"'
    )
    assert [machine.pool for machine in azure.machines()] == ["systempool"]


def test_quota_may_sink_after_a_put_was_accepted_and_rise_again() -> None:
    cluster = Cluster()
    cluster.put("gpu1")
    cluster.settings.quota = {FAMILY: 0}
    cluster.advance(89)
    assert cluster.cluster.pool("gpu1").state == "Creating"
    cluster.advance(1)
    assert cluster.cluster.pool("gpu1").state == "Failed"
    assert cluster.machine_names("gpu1") == []
    cluster.settings.quota = {}
    cluster.put("gpu1")
    cluster.advance(300)
    assert cluster.cluster.pool("gpu1").state == "Succeeded"
    assert cluster.cluster.pool("gpu1").error is None
    assert len(cluster.machine_names("gpu1")) == 1


def test_a_burst_may_get_past_the_preflight_and_fail_late() -> None:
    cluster = Cluster()
    cluster.settings.change({"quota": {FAMILY: 24}, "quota_preflight_counts_pending": False})
    cluster.put("gpu1")
    cluster.put("gpu2")
    cluster.advance(300)
    assert [cluster.cluster.pool(name).state for name in ("gpu1", "gpu2")] == ["Succeeded", "Failed"]


def test_a_scale_up_that_compute_refuses_leaves_the_machines_there_were() -> None:
    cluster = Cluster()
    cluster.put("gpu1")
    cluster.advance(300)
    before = cluster.machine_names("gpu1")
    cluster.settings.change({"quota": {FAMILY: 24}, "quota_preflight": False})
    cluster.put("gpu1", count=2)
    cluster.advance(300)
    pool = cluster.cluster.pool("gpu1")
    assert (pool.state, pool.count, cluster.machine_names("gpu1")) == ("Failed", 2, before)


@pytest.mark.parametrize("values", [{"quota": {"standardNoSuchFamily": 1}}, {"usage": {FAMILY: -1}}])
def test_quotas_that_are_none_are_refused(values: dict[str, Any]) -> None:
    cluster = Cluster()
    with pytest.raises(ValueError):
        cluster.settings.change(values)
    assert (cluster.settings.quota, cluster.settings.usage) == ({}, {})
