from typing import Any
from urllib.parse import quote

import pytest
from azure.core.rest import HttpRequest
from azure.mgmt.compute.aio import ComputeManagementClient

from fakes.azure import FakeAzure, skus
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
    assert azure.calls.count("skus.list") == 4
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


@pytest.mark.parametrize("size", ["Standard_NC6s_v3", "Standard_NC24rs_v3", "Standard_NV12s_v3", "Standard_NV4as_v4"])
def test_retired_sizes_are_absent(size: str) -> None:
    assert skus.find(size) is None


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
