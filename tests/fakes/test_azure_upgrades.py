"""Upgrade profiles of agent pools, as the real SDK reads them, and what makes them say something new."""

from typing import Any

import pytest
from azure.core.exceptions import ResourceNotFoundError
from azure.core.rest import HttpRequest
from azure.mgmt.containerservice import models
from pydantic import ValidationError

from fakes.azure import FakeAzure
from tests.fakes.sdk import Client
from tests.fakes.test_azure_examples import unknown

OLD, NEW = "202611.04.0", "202612.01.0"


def where(azure: FakeAzure) -> tuple[str, str]:
    return azure.ids.resource_group, azure.ids.cluster


async def create(client: Client, azure: FakeAzure, name: str, **properties: Any) -> Any:
    body = {"properties": {"vmSize": "Standard_NC4as_T4_v3", **properties}}
    poller = await client.agent_pools.begin_create_or_update(*where(azure), name, body)
    return await poller.result()


async def profile(client: Client, azure: FakeAzure, name: str) -> Any:
    return await client.agent_pools.get_upgrade_profile(*where(azure), name)


async def test_a_new_pool_is_as_new_as_can_be(client: Client, azure: FakeAzure) -> None:
    pool = await create(client, azure, "gpu1")
    found = await profile(client, azure, "gpu1")
    assert (found.name, found.properties.os_type) == ("default", "Linux")
    assert found.id.lower() == f"{azure.ids.pool_id('gpu1')}/upgradeProfiles/default".lower()
    assert found.properties.kubernetes_version == pool.properties.current_orchestrator_version == "1.34.2"
    assert found.properties.latest_node_image_version == pool.properties.node_image_version
    assert not found.properties.upgrades


@pytest.mark.parametrize(
    ("os_sku", "image"), [("Ubuntu", "AKSUbuntu-2204gen2containerd"), ("AzureLinux", "AKSAzureLinux-V3gen2")]
)
async def test_a_new_image_is_that_of_the_pools_own_kind_and_pools_keep_what_they_have(
    client: Client, azure: FakeAzure, os_sku: str, image: str
) -> None:
    await create(client, azure, "gpu1", osSKU=os_sku)
    azure.settings.change({"node_image_release": NEW})
    later = await create(client, azure, "gpu2", osSKU=os_sku)
    first = await client.agent_pools.get(*where(azure), "gpu1")
    assert first.properties.node_image_version == f"{image}-{OLD}"
    assert later.properties.node_image_version == f"{image}-{NEW}"
    for name in ("gpu1", "gpu2"):
        assert (await profile(client, azure, name)).properties.latest_node_image_version == f"{image}-{NEW}"
    assert {m.node_image_version for m in azure.machines() if m.pool == "gpu1"} == {f"{image}-{OLD}"}


async def test_after_an_upgrade_of_the_control_plane_pools_are_behind(client: Client, azure: FakeAzure) -> None:
    await create(client, azure, "gpu1")
    azure.cluster.set_state(kubernetes_version="1.35.1")
    cluster = await client.managed_clusters.get(*where(azure))
    assert cluster.properties.current_kubernetes_version == "1.35.1"
    pool = await client.agent_pools.get(*where(azure), "gpu1")
    assert pool.properties.current_orchestrator_version == "1.34.2"
    found = await profile(client, azure, "gpu1")
    assert found.properties.kubernetes_version == "1.34.2"
    assert [upgrade.kubernetes_version for upgrade in found.properties.upgrades] == ["1.35.1"]
    later = await create(client, azure, "gpu2")
    assert later.properties.current_orchestrator_version == "1.35.1"


async def test_it_has_no_property_that_the_sdk_does_not_know(client: Client, azure: FakeAzure) -> None:
    azure.cluster.set_state(kubernetes_version="1.35.1")
    url = f"{azure.ids.pool_id('systempool')}/upgradeProfiles/default?api-version=2026-08-01"
    answer = await client.send_request(HttpRequest("GET", url))
    assert answer.status_code == 200
    assert list(unknown(answer.json(), models.AgentPoolUpgradeProfile(answer.json()), "")) == []


async def test_a_pool_that_is_not_there_has_none(client: Client, azure: FakeAzure) -> None:
    with pytest.raises(ResourceNotFoundError):
        await profile(client, azure, "gone")
    assert azure.calls.count("agentPools.getUpgradeProfile", status=404) == 1


@pytest.mark.parametrize("release", ["", "2026", "latest", "202611.04.0-beta"])
def test_a_release_is_a_date(azure: FakeAzure, release: str) -> None:
    with pytest.raises(ValidationError):
        azure.settings.change({"node_image_release": release})
