from typing import Any
from urllib.parse import quote

import pytest
from azure.core.rest import HttpRequest
from azure.mgmt.compute.aio import ComputeManagementClient

from fakes.azure import FakeAzure, skus
from fakes.azure.errors import AzureError
from tests.fakes.sdk import Client


def url(azure: FakeAzure, odata_filter: str | None) -> str:
    base = f"/subscriptions/{azure.ids.subscription}/providers/Microsoft.Compute/skus?api-version=2021-07-01"
    return base if odata_filter is None else f"{base}&$filter={quote(odata_filter)}"


def capabilities(row: dict[str, Any]) -> dict[str, str]:
    return {capability["name"]: capability["value"] for capability in row["capabilities"]}


async def read(client: Client, first: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    link: str | None = first
    while link:
        answer = await client.send_request(HttpRequest("GET", link))
        assert answer.status_code == 200
        body = answer.json()
        rows += body["value"]
        link = body.get("nextLink")
    return rows


async def test_sizes_are_listed_in_pages_as_the_raw_api_does(client: Client, azure: FakeAzure) -> None:
    azure.settings.sku_page_size = 20
    rows = await read(client, url(azure, "location eq 'EastUS'"))
    assert azure.calls.count("skus.list") == -(-len(rows) // 20)
    sizes = {row["name"]: row for row in rows if row["resourceType"] == "virtualMachines"}
    assert len(sizes) == len(skus.catalogue())
    assert {row["resourceType"] for row in rows} > {"virtualMachines", "disks"}
    row = sizes["Standard_NC24ads_A100_v4"]
    assert (row["family"], row["size"], row["tier"]) == ("StandardNCADSA100v4Family", "NC24ads_A100_v4", "Standard")
    assert row["locationInfo"][0]["zones"] == ["1", "3"]
    assert row["restrictions"] == []
    assert (
        capabilities(row).items()
        >= {
            "vCPUs": "24",
            "MemoryGB": "220",
            "GPUs": "1",
            "CpuArchitectureType": "x64",
            "LowPriorityCapable": "True",
            "HyperVGenerations": "V2",
            "RdmaEnabled": "False",
        }.items()
    )
    assert "private" not in row


@pytest.mark.parametrize(
    ("size", "capability", "hardware"),
    [
        ("Standard_NV6ads_A10_v5", "1", (1, "nvidia")),
        ("Standard_ND128isr_NDR_GB200_v6", None, (4, "nvidia")),
        ("Standard_ND96isr_MI300X_v5", "8", (8, "amd")),
        ("Standard_ND96is_MI300X_v5", None, (8, "amd")),
        ("Standard_NV4ads_V710_v5", None, (1, "amd")),
        ("Standard_NP20s", "2", (0, None)),
        ("Standard_D4s_v5", None, (0, None)),
    ],
)
def test_the_gpus_capability_is_not_the_hardware(
    size: str, capability: str | None, hardware: tuple[int, str | None]
) -> None:
    sku = skus.find(size.upper())
    assert sku is not None
    assert capabilities(sku.resource(location="eastus")).get("GPUs") == capability
    assert (sku.private.gpu_count, sku.private.gpu_vendor) == hardware


RETIRED = ("Standard_NC6s_v3", "Standard_NC24rs_v3", "Standard_NV12s_v3", "Standard_NV4as_v4")


async def test_retired_sizes_are_listed_as_if_nothing_were_and_are_not_to_be_had(
    client: Client, azure: FakeAzure
) -> None:
    listed = {row["name"]: row for row in await read(client, url(azure, None))}
    for size in RETIRED:
        assert listed[size]["restrictions"] == []
        assert skus.find(size) is None
    azure.settings.list_retired_sizes = False
    assert {row["name"] for row in await read(client, url(azure, None))}.isdisjoint(RETIRED)


@pytest.mark.parametrize(
    ("closed", "restrictions", "zones"),
    [
        (["2"], [("Zone", ["2"])], "1, 3"),
        ([], [("Location", None), ("Zone", ["1", "2", "3"])], None),
    ],
)
async def test_a_size_may_be_closed_to_the_subscription_in_a_zone_or_everywhere(
    client: Client,
    azure: FakeAzure,
    closed: list[str],
    restrictions: list[tuple[str, list[str] | None]],
    zones: str | None,
) -> None:
    azure.settings.change({"restricted": {"STANDARD_NC4AS_T4_V3": closed}})
    listed = {row["name"]: row for row in await read(client, url(azure, None))}
    found = listed["Standard_NC4as_T4_v3"]["restrictions"]
    assert [(each["type"], each["restrictionInfo"].get("zones")) for each in found] == restrictions
    for each in found:
        assert each["reasonCode"] == "NotAvailableForSubscription"
        assert each["values"] == each["restrictionInfo"]["locations"] == ["eastus"]
    assert listed["Standard_NC8as_T4_v3"]["restrictions"] == []
    wish = {"vmSize": "Standard_NC4as_T4_v3", "availabilityZones": ["2"]}
    with pytest.raises(AzureError) as caught:
        azure.cluster.put_pool("gpu1", wish)
    if zones is None:
        assert caught.value.code == "VMSizeNotSupported"
        assert caught.value.message == (
            f"Virtual Machine size: 'Standard_NC4as_T4_v3' is not supported for subscription {azure.ids.subscription} "
            "in location 'eastus'. Please refer to aka.ms/aks/vm-size-selector to find supported VM sizes in location "
            "'eastus'."
        )
    else:
        assert caught.value.code == "AvailabilityZoneNotSupported"
        assert caught.value.message.endswith(f"The supported zones for location eastus are {zones}.")
        azure.cluster.put_pool("gpu1", wish | {"availabilityZones": ["1", "3"]})


async def test_some_sizes_are_closed_as_in_any_region(client: Client, azure: FakeAzure) -> None:
    rows = [row for row in await read(client, url(azure, None)) if row["restrictions"]]
    assert {row["restrictions"][0]["type"] for row in rows} == {"Location", "Zone"}
    with pytest.raises(AzureError, match="VMSizeNotSupported"):
        azure.cluster.put_pool("gpu1", {"vmSize": "Standard_ND128isr_GB300_v6"})


async def test_a_pool_stays_what_it_is_when_its_size_is_closed(azure: FakeAzure) -> None:
    azure.settings.create_seconds = 0
    azure.cluster.put_pool("gpu1", {"vmSize": "Standard_NC4as_T4_v3"})
    azure.timeline.advance()
    azure.settings.restricted = {"Standard_NC4as_T4_v3": ()}
    azure.cluster.put_pool("gpu1", {"vmSize": "standard_nc4as_t4_v3", "tags": {"a": "b"}})
    with pytest.raises(AzureError, match="VMSizeNotSupported"):
        azure.cluster.put_pool("gpu2", {"vmSize": "Standard_NC4as_T4_v3"})


@pytest.mark.parametrize("size", ["Standard_B1s", "Standard_A1_v2"])
def test_compute_lists_sizes_that_aks_makes_no_pools_of(size: str) -> None:
    assert size.lower() in skus.catalogue()
    assert skus.find(size) is None


def test_there_are_sizes_for_every_taste() -> None:
    sizes = [sku for sku in skus.catalogue().values() if sku.private.gpu_count == 0 and not sku.private.gpu_vendor]
    assert len(sizes) > 60
    assert {sku.arch for sku in sizes} == {"x64", "Arm64"}
    for letter, ratio in (("D", 4), ("E", 8), ("F", 2)):
        found = [sku for sku in sizes if sku.name.startswith(f"Standard_{letter}") and "DS" not in sku.name]
        assert found
        assert {sku.memory_gb / sku.vcpus for sku in found} == {ratio}


async def test_other_regions_are_empty_and_other_filters_refused(client: Client, azure: FakeAzure) -> None:
    assert await read(client, url(azure, "location eq 'westeurope'")) == []
    assert len(await read(client, url(azure, None))) > len(skus.catalogue())
    answer = await client.send_request(HttpRequest("GET", url(azure, "name eq 'Standard_D4s_v5'")))
    assert answer.status_code == 400


async def test_the_compute_sdk_reads_them(azure: FakeAzure, credential: Any) -> None:
    async with ComputeManagementClient(
        credential, azure.ids.subscription, base_url=azure.endpoint, connection_verify=str(azure.ca_file), retry_total=0
    ) as compute:
        names = [sku.name async for sku in compute.resource_skus.list(filter="location eq 'eastus'")]
    assert "Standard_ND96isr_H100_v5" in names
