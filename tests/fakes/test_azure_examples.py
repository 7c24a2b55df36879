"""Bodies like those of Azure's REST examples go in; what comes out has no property that the SDK does not know."""

from collections.abc import Iterator
from typing import Any

import pytest
from azure.core.rest import HttpRequest
from azure.mgmt.containerservice import models

from fakes.azure import FakeAzure, OperationFault
from fakes.azure.schema import PROPERTIES
from tests.fakes.sdk import Client

KUBELET = {"cpuManagerPolicy": "static", "imageGcHighThreshold": 90, "allowedUnsafeSysctls": ["kernel.msg*"]}
LINUX = {"transparentHugePageEnabled": "always", "swapFileSizeMB": 1500, "sysctls": {"netIpv4TcpTwReuse": True}}
SPOT = {
    "vmSize": "Standard_DS1_v2",
    "nodeLabels": {"key1": "val1"},
    "nodeTaints": ["Key1=Value1:NoSchedule"],
    "tags": {"name1": "val1"},
    "scaleSetPriority": "Spot",
    "scaleSetEvictionPolicy": "Delete",
}
RESERVATION = "/subscriptions/s/resourceGroups/rg1/providers/Microsoft.Compute/CapacityReservationGroups/crg1"

# The example each body stands for, the body's properties beside those that all have.
EXAMPLES: dict[str, dict[str, Any]] = {
    "AgentPoolsCreate_Spot": SPOT,
    "AgentPoolsCreate_Update": SPOT | {"mode": "User"},
    "AgentPoolsCreate_CRG": {"vmSize": "Standard_DS2_v2", "capacityReservationGroupID": RESERVATION},
    "AgentPoolsCreate_GPUMIG": {
        "vmSize": "Standard_ND96asr_v4",
        "gpuInstanceProfile": "MIG2g",
        "kubeletConfig": KUBELET,
        "linuxOSConfig": LINUX,
    },
    "AgentPoolsCreate_OSSKU": {"vmSize": "Standard_DS2_v2", "osSKU": "AzureLinux", "kubeletConfig": KUBELET},
    "AgentPoolsCreate_Ephemeral": {"vmSize": "Standard_DS2_v2", "osDiskType": "Ephemeral", "osDiskSizeGB": 64},
    "gpu-provisioner": {
        "vmSize": "Standard_NC24ads_A100_v4",
        "type": "VirtualMachineScaleSets",
        "osDiskSizeGB": 100,
        "nodeLabels": {"kaito.sh/workspace": "w", "karpenter.sh/nodepool": "kaito"},
        "nodeTaints": ["sku=gpu:NoSchedule"],
    },
}


def names(model: type[Any]) -> dict[str, Any]:
    """Return the declared fields of an SDK model by wire name."""
    model()  # The SDK works them out when the first instance is made.
    return {field._rest_name: field for field in model._attr_to_rest_field.values()}


def unknown(value: Any, model: Any, path: str) -> Iterator[str]:
    """Yield the path of each property that the SDK's model, and the models of its fields, do not declare."""
    declared = names(type(model))
    for name, below in value.items():
        if name not in declared:
            yield f"{path}.{name}"
            continue
        attribute = next(key for key, field in type(model)._attr_to_rest_field.items() if field._rest_name == name)
        typed = getattr(model, attribute)
        if isinstance(below, dict) and hasattr(type(typed), "_attr_to_rest_field"):
            yield from unknown(below, typed, f"{path}.{name}")
        elif isinstance(below, list):
            for index, item in enumerate(below):
                if isinstance(item, dict):
                    yield from unknown(item, typed[index], f"{path}.{name}[{index}]")


def test_the_schema_is_that_of_the_sdk() -> None:
    declared = names(models.ManagedClusterAgentPoolProfileProperties)
    read_only = {name for name, field in declared.items() if field._visibility == ["read"]}
    not_put = read_only | {"nodeImageVersion", "powerState", "status"}
    # Pools of single machines are not served.
    single = {"virtualMachinesProfile", "virtualMachineNodesStatus"}
    assert declared.keys() - not_put - single == PROPERTIES.keys()


@pytest.mark.parametrize("example", EXAMPLES)
async def test_a_pool_answers_with_what_was_put_and_what_the_sdk_knows(
    client: Client, azure: FakeAzure, example: str
) -> None:
    azure.settings.capacity_reservation_groups = {RESERVATION: ("Standard_DS2_v2",)}
    sent = {"count": 3, "osType": "Linux", "orchestratorVersion": "", **EXAMPLES[example]}
    url = f"{azure.ids.pool_id('agentpool1')}?api-version=2026-08-01"
    answer = await client.send_request(HttpRequest("PUT", url, json={"properties": sent}))
    assert answer.status_code == 201
    body = answer.json()
    assert list(unknown(body, models.AgentPool(body), "")) == []
    assert body["properties"]["provisioningState"] == "Creating"
    assert body["properties"]["orchestratorVersion"] == "1.34.2"
    assert body["properties"]["maxPods"] == 110
    for name in sent.keys() - {"orchestratorVersion", "nodeLabels", "nodeTaints"}:
        assert body["properties"][name] == sent[name]
    assert body["properties"].get("nodeLabels", {}).items() >= sent.get("nodeLabels", {}).items()
    assert set(body["properties"].get("nodeTaints", ())) >= set(sent.get("nodeTaints", ()))


async def test_every_other_answer_has_only_what_the_sdk_knows(client: Client, azure: FakeAzure) -> None:
    azure.add_fault(
        OperationFault(pool="bad", after=1, error={"code": "c", "message": "m", "details": [{"code": "d"}]})
    )
    for name in ("gpu1", "bad"):
        poller = await client.agent_pools.begin_create_or_update(
            azure.ids.resource_group,
            azure.ids.cluster,
            name,
            {"properties": {"vmSize": "Standard_NC4as_T4_v3", "availabilityZones": ["1"]}},
            polling=False,
        )
        await poller.result()
    revision = azure.cluster.revision
    while {pool.state for pool in azure.cluster.pools.values()} != {"Succeeded", "Failed"}:
        revision = await azure.wait_changed(revision)

    async def get(path: str) -> Any:
        answer = await client.send_request(HttpRequest("GET", f"{path}?api-version=2026-08-01"))
        assert answer.status_code == 200
        return answer.json()

    cluster = await get(azure.ids.cluster_id)
    assert list(unknown(cluster, models.ManagedCluster(cluster), "")) == []
    for pool in (await get(f"{azure.ids.cluster_id}/agentPools"))["value"]:
        assert list(unknown(pool, models.AgentPool(pool), "")) == []
    machines = (await get(f"{azure.ids.pool_id('gpu1')}/machines"))["value"]
    assert len(machines) == 1
    assert list(unknown(machines[0], models.Machine(machines[0]), "")) == []
