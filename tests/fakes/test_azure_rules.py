import json
from typing import Any

import pytest

from fakes.azure.errors import AzureError
from fakes.azure.ids import ResourceIds
from fakes.azure.settings import Settings
from tests.fakes.simulated import SimulatedCluster

SIZE = "Standard_NC24ads_A100_v4"
IDS = ResourceIds()

# name, properties beside the size, code, words of the message
REFUSED: tuple[tuple[str, dict[str, Any], str, str], ...] = (
    ("GPU1", {}, "InvalidParameter", "agentPoolProfile.name is invalid"),
    ("1gpu", {}, "InvalidParameter", "agentPoolProfile.name is invalid"),
    ("gpu-1", {}, "InvalidParameter", "agentPoolProfile.name is invalid"),
    ("gpu1\n", {}, "InvalidParameter", "agentPoolProfile.name is invalid"),
    ("abcdefghijklm", {}, "InvalidParameter", "agentPoolProfile.name is invalid"),
    ("windows", {"osType": "Windows"}, "InvalidParameter", "agentPoolProfile.name is invalid"),
    ("gpu1", {"vmSize": "Standard_NC999"}, "VMSizeNotSupported", "'Standard_NC999' is not supported for subscription"),
    ("gpu1", {"vmSize": "Standard_NC6s_v3"}, "VMSizeNotSupported", "in location 'eastus'"),
    ("gpu1", {"vmSize": "Standard_NV12s_v3"}, "VMSizeNotSupported", "aka.ms/aks/vm-size-selector"),
    ("gpu1", {"vmSize": None}, "InvalidParameter", "vmSize is missing"),
    ("gpu1", {"vmSize": 4}, "UnmarshalError", "number into Go struct field AgentPoolProperties.properties.vmSize"),
    ("gpu1", {"nodeTaints": "a=b:NoSchedule"}, "UnmarshalError", "cannot unmarshal string into Go struct field"),
    ("gpu1", {"nodeTaints": [1]}, "UnmarshalError", "cannot unmarshal number"),
    ("gpu1", {"tags": {"a": None}}, "UnmarshalError", "cannot unmarshal null"),
    ("gpu1", {"count": "1"}, "UnmarshalError", "of type int32"),
    ("gpu1", {"count": True}, "UnmarshalError", "cannot unmarshal bool"),
    ("gpu1", {"count": -1}, "InvalidParameter", r"-1 is not in the range \[0, 1000\]"),
    ("gpu1", {"count": 1001}, "InvalidParameter", "1001 is not in the range"),
    ("gpu1", {"count": 0, "mode": "System", "vmSize": "Standard_D4s_v5"}, "InvalidParameter", r"range \[1, 1000\]"),
    ("gpu1", {"mode": "system"}, "InvalidParameter", "agentPoolProfile.mode is invalid"),
    ("gpu1", {"osSKU": "Debian"}, "InvalidParameter", "agentPoolProfile.osSKU is invalid"),
    ("gpu1", {"osDiskSizeGB": 29}, "InvalidParameter", "cannot be less than 30GB or larger than 2048GB"),
    ("gpu1", {"osDiskSizeGB": 2049}, "InvalidParameter", "The OSDiskSize for Agent gpu1"),
    ("gpu1", {"osDiskSizeGB": -1}, "InvalidParameter", "The OSDiskSize for Agent gpu1"),
    ("gpu1", {"osDiskSizeGB": 512, "osDiskType": "Ephemeral"}, "VMCacheSizeTooSmall", "cache size is too small"),
    ("gpu1", {"vmSize": "Standard_D4s_v5", "osDiskType": "Ephemeral"}, "VMCacheSizeTooSmall", "Standard_D4s_v5"),
    ("gpu1", {"availabilityZones": ["2"]}, "AvailabilityZoneNotSupported", "zones for location eastus are 1, 3"),
    ("gpu1", {"vmSize": "Standard_NG8ads_V620_v1", "gpuProfile": {"driver": "None"}, "availabilityZones": ["1"]},
     "AvailabilityZoneNotSupported", "empty"),
    ("gpu1", {"nodeLabels": {"kubernetes.azure.com/x": "y"}}, "BadRequest", "prefix is preserved by aks system labels"),
    ("gpu1", {"nodeLabels": {"kubernetes.io/x": "y"}}, "BadRequest", "must begin with an allowed prefix"),
    ("gpu1", {"nodeLabels": {"topology.kubernetes.io/zone": "y"}}, "BadRequest", "must begin with an allowed prefix"),
    ("gpu1", {"nodeLabels": {"k8s.io/x": "y"}}, "BadRequest", "must begin with an allowed prefix"),
    ("gpu1", {"nodeLabels": {"a": "with space"}}, "BadRequest", "does not meet syntax"),
    ("gpu1", {"nodeLabels": {"a": "x" * 64}}, "BadRequest", "does not meet syntax"),
    ("gpu1", {"nodeLabels": {"-a": "x"}}, "BadRequest", "does not meet syntax"),
    ("gpu1", {"nodeLabels": {"a/b/c": "x"}}, "BadRequest", "does not meet syntax"),
    ("gpu1", {"nodeLabels": {"A.b/c": "x"}}, "BadRequest", "does not meet syntax"),
    ("gpu1", {"nodeLabels": {"a": "x\n"}}, "BadRequest", "does not meet syntax"),
    ("gpu1", {"nodeTaints": ["sku:NoSchedule"]}, "BadRequest", "invalid taint spec: sku:NoSchedule"),
    ("gpu1", {"nodeTaints": ["sku=gpu"]}, "BadRequest", "aka.ms/node-taints"),
    ("gpu1", {"nodeTaints": ["sku=gpu:Never"]}, "BadRequest", "invalid taint spec"),
    ("gpu1", {"nodeTaints": ["a=b:NoSchedule", "a=c:NoSchedule"]}, "BadRequest", "duplicated taints"),
    ("gpu1", {"tags": {"a/b": "c"}}, "InvalidTagNameCharacters", "reserved characters"),
    ("gpu1", {"tags": {"a": "c" * 257}}, "InvalidTags", "257 characters"),
    ("gpu1", {"tags": {str(n): "" for n in range(51)}}, "InvalidTags", "51 exceeds the maximum of 50"),
    ("gpu1", {"scaleSetPriority": "Spot", "spotMaxPrice": 0}, "InvalidParameter", "spotMaxPrice is invalid"),
    ("gpu1", {"scaleSetPriority": "Spot", "spotMaxPrice": 0.123456}, "InvalidParameter", "at most 5 decimal"),
    ("gpu1", {"scaleSetPriority": "Spot", "mode": "System"}, "InvalidParameter", "can not be a spot pool"),
    ("gpu1", {"scaleSetPriority": "Spot", "vmSize": "Standard_B2s"}, "InvalidParameter", "does not support spot"),
    ("gpu1", {"gpuInstanceProfile": "MIG9g"}, "InvalidParameter", "gpuInstanceProfile is invalid"),
    ("gpu1", {"gpuInstanceProfile": "MIG1g", "vmSize": "Standard_NC4as_T4_v3"}, "VMSizeDoesNotSupportMIG", "GPU inst"),
    ("gpu1", {"maxPods": 9}, "InsufficientMaxPods", r"9 is not in the range \[10, 250\]"),
    ("gpu1", {"maxPods": 251}, "MaxPodsLimitExceeded", "251 is not in the range"),
    ("gpu1", {"scaleSetPriority": "Spot", "scaleSetEvictionPolicy": "Stop"}, "InvalidParameter", "Policy is invalid"),
    ("gpu1", {"gpuProfile": {"driver": "GRID"}}, "InvalidParameter", "gpuProfile.driver is invalid"),
    ("gpu1", {"gpuProfile": {"nvidia": {"managementMode": "Off"}}}, "InvalidParameter", "managementMode is invalid"),
    ("gpu1", {"vmSize": "Standard_D4s_v5", "gpuProfile": {"nvidia": {"managementMode": "Managed"}}}, "BadRequest",
     "managed GPU experience is not supported"),
    ("gpu1", {"vnetSubnetID": IDS.subnet_id("gpu")}, "InvalidParameter", "systempool does not have subnet defined"),
    ("gpu1", {"capacityReservationGroupID": IDS.reservation_id("r")}, "InvalidParameter", "could not be found"),
    ("gpu1", {"capacityReservationGroupID": IDS.reservation_id("r"), "scaleSetPriority": "Spot"},
     "CRGConflictWithSpotVM", "spot pool"),
    ("gpu1", {"vmSize": "Standard_ND96isr_MI300X_v5"}, "BadRequest", "set gpuProfile.driver to None"),
    ("gpu1", {"vmSize": "Standard_NP10s", "gpuProfile": {"driver": "Install"}}, "BadRequest", "set gpuProfile.driver"),
    ("gpu1", {"orchestratorVersion": "1.35.0"}, "NodePoolMcVersionIncompatible", "35 is bigger than control plane"),
    ("gpu1", {"orchestratorVersion": "latest"}, "InvalidParameter", "Version latest is not supported"),
)  # fmt: skip


@pytest.mark.parametrize(("name", "properties", "code", "words"), REFUSED)
def test_a_put_against_the_rules_is_refused(name: str, properties: dict[str, Any], code: str, words: str) -> None:
    cluster = SimulatedCluster().cluster
    with pytest.raises(AzureError, match=words) as caught:
        cluster.put_pool(name, {"vmSize": SIZE, **properties})
    assert (caught.value.status, caught.value.code) == (400, code)
    assert list(cluster.pools) == ["systempool"]
    json.dumps(caught.value.body())


ACCEPTED: tuple[dict[str, Any], ...] = (
    {},
    {"count": 0},
    {"count": 1000},
    {"osDiskSizeGB": 0},
    {"osDiskSizeGB": 30},
    {"osDiskSizeGB": 2048},
    {"availabilityZones": ["1", "3"]},
    {"nodeLabels": {"kaito.sh/workspace": "w", "empty": "", "node.kubernetes.io/x": "y", "A_b.c": "1"}},
    {"nodeTaints": ["sku=gpu:NoSchedule", "sku=gpu:NoExecute", "a.b/c=:PreferNoSchedule"]},
    {"tags": {"gpu-provisioner.kaito.sh.nodeclaim-uid": "x", "with space": ""}},
    {"scaleSetPriority": "Spot", "spotMaxPrice": 1.5},
    {"gpuInstanceProfile": "MIG1g"},
    {"maxPods": 10},
    {"maxPods": 250},
    {"gpuProfile": {"driver": "None"}},
    {"gpuProfile": {"driver": "Install", "nvidia": {"managementMode": "Managed"}}},
    {"orchestratorVersion": ""},
    {"orchestratorVersion": "1.33"},
    {"vmSize": "Standard_ND96isr_MI300X_v5", "gpuProfile": {"driver": "None"}},
    {"preview": {"of": "something"}, "eTag": "x", "provisioningState": "Succeeded", "vnetSubnetID": None},
)


@pytest.mark.parametrize("properties", ACCEPTED)
def test_a_put_within_the_rules_is_accepted(properties: dict[str, Any]) -> None:
    cluster = SimulatedCluster().cluster
    pool, operation, new = cluster.put_pool("gpu1", {"vmSize": SIZE, **properties})
    assert new
    assert operation.running
    assert pool.state == "Creating"
    assert "preview" not in pool.properties


@pytest.mark.parametrize(
    ("properties", "changed"),
    [
        ({"vmSize": "Standard_NC48ads_A100_v4"}, "vmSize"),
        ({"vmSize": SIZE.lower()}, None),
        ({"osDiskSizeGB": 256}, "osDiskSizeGB"),
        ({"osDiskSizeGB": 0}, None),
        ({"osDiskType": "Managed"}, "osDiskType"),
        ({"maxPods": 30}, "maxPods"),
        ({"scaleSetPriority": "Spot"}, "scaleSetPriority"),
        ({"scaleSetPriority": "Regular"}, None),
        ({"gpuProfile": {"driver": "None"}}, "gpuProfile"),
        ({"availabilityZones": ["1"]}, "availabilityZones"),
        ({"availabilityZones": ["3", "1"]}, None),
        ({"osSKU": "AzureLinux", "mode": "System", "count": 3}, None),
    ],
)
def test_what_is_fixed_when_a_pool_is_created(properties: dict[str, Any], changed: str | None) -> None:
    simulated = SimulatedCluster()
    simulated.cluster.put_pool("gpu1", {"vmSize": SIZE, "availabilityZones": ["1", "3"]})
    simulated.advance(300)
    if changed is None:
        simulated.cluster.put_pool("gpu1", properties)
        return
    with pytest.raises(AzureError, match=f"Changing property 'properties.{changed}' is not allowed") as caught:
        simulated.cluster.put_pool("gpu1", properties)
    assert (caught.value.status, caught.value.code) == (400, "PropertyChangeNotAllowed")


def test_zones_may_be_refused_that_the_size_has() -> None:
    simulated = SimulatedCluster()
    simulated.settings.refused_zones = ("1",)
    with pytest.raises(AzureError, match=r"The zone\(s\) 1 for resource gpu1 is not supported"):
        simulated.cluster.put_pool("gpu1", {"vmSize": SIZE, "availabilityZones": ["1", "3"]})


def test_a_cluster_has_so_many_nodes_and_no_more() -> None:
    simulated = SimulatedCluster()
    simulated.settings.max_nodes_per_cluster = 5
    with pytest.raises(AzureError, match="total number of nodes 6 exceeds the maximum of 5"):
        simulated.cluster.put_pool("gpu1", {"vmSize": SIZE, "count": 5})


@pytest.mark.parametrize(
    ("properties", "disk"),
    [
        ({"vmSize": SIZE}, ("Ephemeral", 128)),
        ({"vmSize": SIZE, "osDiskSizeGB": 256}, ("Ephemeral", 256)),
        ({"vmSize": SIZE, "osDiskSizeGB": 300}, ("Managed", 300)),
        ({"vmSize": SIZE, "osDiskType": "Managed"}, ("Managed", 512)),
        ({"vmSize": "Standard_D4s_v5"}, ("Managed", 128)),
        ({"vmSize": "Standard_D8s_v5"}, ("Managed", 256)),
        ({"vmSize": "Standard_NC96ads_A100_v4", "osDiskType": "Managed"}, ("Managed", 1024)),
    ],
)
def test_the_os_disk_is_filled_in_as_aks_does(properties: dict[str, Any], disk: tuple[str, int]) -> None:
    pool = SimulatedCluster().cluster.put_pool("gpu1", properties)[0]
    assert (pool.properties["osDiskType"], pool.properties["osDiskSizeGB"]) == disk


def test_a_spot_pool_gets_the_label_and_taint_that_nobody_asked_for() -> None:
    pool = SimulatedCluster().cluster.put_pool(
        "gpu1", {"vmSize": SIZE, "scaleSetPriority": "Spot", "nodeLabels": {"a": "b"}, "nodeTaints": ["a=b:NoSchedule"]}
    )[0]
    assert pool.properties["nodeLabels"] == {"a": "b", "kubernetes.azure.com/scalesetpriority": "spot"}
    assert pool.properties["nodeTaints"] == ["a=b:NoSchedule", "kubernetes.azure.com/scalesetpriority=spot:NoSchedule"]
    assert (pool.properties["scaleSetEvictionPolicy"], pool.properties["spotMaxPrice"]) == ("Delete", -1)


NETWORK = Settings(scale=1, subnets=(IDS.subnet_id("nodes"), IDS.subnet_id("gpu"), IDS.subnet_id("x", network="other")))


def test_a_pool_is_in_the_subnet_that_it_names_and_else_in_the_clusters() -> None:
    cluster = SimulatedCluster(NETWORK).cluster
    named, *_ = cluster.put_pool("gpu1", {"vmSize": SIZE, "vnetSubnetID": IDS.subnet_id("gpu").upper()})
    other, *_ = cluster.put_pool("gpu2", {"vmSize": SIZE})
    assert named.properties["vnetSubnetID"] == IDS.subnet_id("gpu").upper()
    assert other.properties["vnetSubnetID"] == IDS.subnet_id("nodes")


@pytest.mark.parametrize(
    ("subnet", "words"),
    [
        (IDS.subnet_id("missing"), "missing could not be found"),
        (IDS.subnet_id("x", network="other"), "not in the virtual network of agent pool systempool"),
    ],
)
def test_a_pool_in_another_network_or_a_subnet_that_is_missing_is_refused(subnet: str, words: str) -> None:
    cluster = SimulatedCluster(NETWORK).cluster
    with pytest.raises(AzureError, match=words) as caught:
        cluster.put_pool("gpu1", {"vmSize": SIZE, "vnetSubnetID": subnet})
    assert (caught.value.status, caught.value.code) == (400, "InvalidParameter")


@pytest.mark.parametrize(
    ("properties", "gpus", "managed"),
    [
        ({}, 8, False),
        ({"gpuInstanceProfile": "MIG1g"}, 56, False),
        ({"gpuInstanceProfile": "MIG3g"}, 16, False),
        ({"gpuInstanceProfile": "MIG7g", "gpuProfile": {"nvidia": {"managementMode": "Managed"}}}, 8, True),
    ],
)
def test_machines_have_as_many_gpus_as_their_pool_is_partitioned_into(
    properties: dict[str, Any], gpus: int, managed: bool
) -> None:
    simulated = SimulatedCluster(Settings(scale=1, quota_preflight=False))
    simulated.cluster.put_pool("gpu1", {"vmSize": "Standard_ND96isr_H100_v5", **properties})
    simulated.advance(1000)
    (machine,) = [machine for machine in simulated.cluster.machines() if machine.pool == "gpu1"]
    assert (machine.gpu_count, machine.gpu_managed) == (gpus, managed)


@pytest.mark.parametrize(
    ("reserved", "properties", "is_associated"),
    [
        ((), {}, False),
        ((SIZE.lower(),), {}, True),
        ((f"{SIZE}/1",), {}, False),
        ((f"{SIZE}/1",), {"availabilityZones": ["1", "3"]}, True),
        ((SIZE,), {"availabilityZones": ["1"]}, False),
        (("Standard_NC4as_T4_v3",), {}, False),
    ],
)
def test_a_pool_that_nothing_is_reserved_for_is_made_without_the_group(
    reserved: tuple[str, ...], properties: dict[str, Any], is_associated: bool
) -> None:
    group = IDS.reservation_id("r")
    simulated = SimulatedCluster(Settings(scale=1, capacity_reservation_groups={group: reserved}))
    pool, *_ = simulated.cluster.put_pool(
        "gpu1", {"vmSize": SIZE, "capacityReservationGroupID": group.upper(), **properties}
    )
    assert ("capacityReservationGroupID" in pool.properties) is is_associated
