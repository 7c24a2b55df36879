"""Capacity that runs out and comes back."""

from pathlib import Path
from typing import Any

import pytest
from azure.core.exceptions import HttpResponseError

from fakes.azure import FakeAzure, Settings
from fakes.azure.capacity import Place
from tests.fakes.sdk import Client, answer_of, code_of
from tests.fakes.simulated import SimulatedCluster

SIZE = "Standard_NC4as_T4_v3"
CHOOSY = "Allocation failed. VM(s) with the following constraints cannot be allocated, because the condition is too "


class Region(SimulatedCluster):
    """A cluster, and how its pools fare."""

    def put(self, name: str, **properties: Any) -> None:
        self.cluster.put_pool(name, {"vmSize": SIZE, **properties})

    def state(self, name: str) -> str:
        return self.cluster.pool(name).state

    def error(self, name: str) -> Any:
        return self.cluster.pool(name).error

    def zones(self, name: str) -> list[str | None]:
        return [machine.zone for machine in self.cluster.machines() if machine.pool == name]

    def left(self) -> dict[str, int]:
        return self.settings.capacity


def test_capacity_goes_down_and_a_deleted_pool_gives_it_back() -> None:
    region = Region()
    region.settings.capacity = {SIZE: 2}
    region.put("gpu1")
    assert region.left() == {SIZE: 2}
    region.advance(300)
    assert region.left() == {SIZE: 1}
    region.put("gpu2", count=2)
    region.advance(239)
    assert region.state("gpu2") == "Creating"
    region.advance(1)
    assert region.state("gpu2") == "Failed"
    assert region.machine_names("gpu2") == []
    region.cluster.delete_pool("gpu1")
    region.cluster.delete_pool("gpu2")
    region.advance(120)
    assert region.left() == {SIZE: 2}


def test_capacity_that_comes_back_serves_the_next_put() -> None:
    region = Region()
    region.settings.capacity = {SIZE: 0}
    region.put("gpu1")
    region.advance(300)
    assert region.state("gpu1") == "Failed"
    region.settings.capacity = {}
    region.put("gpu1")
    region.advance(300)
    assert (region.state("gpu1"), len(region.machine_names("gpu1"))) == ("Succeeded", 1)


def test_machines_that_go_one_by_one_give_back_and_lost_ones_do_not() -> None:
    region = Region()
    region.settings.capacity = {SIZE: 3}
    region.put("gpu1", count=3)
    region.advance(300)
    first, second, _ = region.machine_names("gpu1")
    assert region.cluster.lose_machine(first)
    assert region.left() == {SIZE: 0}
    region.cluster.delete_machines("gpu1", [second])
    region.advance(120)
    assert region.left() == {SIZE: 1}


def test_a_zone_runs_out_and_others_serve() -> None:
    region = Region()
    region.settings.capacity = {f"{SIZE}/1": 1, f"{SIZE}/3": 0}
    region.put("gpu1", count=3, availabilityZones=["1", "2", "3"])
    region.advance(300)
    assert region.zones("gpu1") == ["1", "2", "2"]
    assert region.left() == {f"{SIZE}/1": 0, f"{SIZE}/3": 0}


def test_a_pool_without_zones_takes_from_no_zones_share() -> None:
    region = Region()
    region.settings.capacity = {f"{SIZE}/{zone}": 0 for zone in "123"}
    region.put("gpu1")
    region.advance(300)
    assert region.zones("gpu1") == [None]


def test_spot_may_run_out_alone() -> None:
    region = Region()
    region.settings.capacity = {f"{SIZE.upper()}/SPOT": 0, SIZE: 1}
    region.put("gpu1", scaleSetPriority="Spot")
    region.put("gpu2")
    region.advance(300)
    assert (region.state("gpu1"), region.state("gpu2")) == ("Failed", "Succeeded")
    assert region.left() == {f"{SIZE}/spot": 0, SIZE: 0}


def test_zones_go_in_turn_where_there_is_enough() -> None:
    region = Region()
    region.put("gpu1", count=4, availabilityZones=["3", "1"])
    region.advance(300)
    assert region.zones("gpu1") == ["3", "1", "3", "1"]


ERRORS: tuple[tuple[dict[str, Any], str, str, str | None], ...] = (
    ({}, "AllocationFailed", "Allocation failed. If you are trying to add a new VM to a Virtual Machine Scale", "243"),
    (
        {"availabilityZones": ["2"]},
        "ZonalAllocationFailed",
        (
            f"Allocation failed. We do not have sufficient capacity for the requested VM size {SIZE} in zone 2. Read "
            "more about improving likelihood of allocation success at http://aka.ms/allocation-guidance"
        ),
        None,
    ),
    (
        {"availabilityZones": ["1", "2"]},
        "OverconstrainedZonalAllocationRequest",
        (
            f"{CHOOSY}restrictive. Please remove some constraints and try again. Constraints applied are:\n"
            "  - Availability Zone\n  - Differencing (Ephemeral) Disks\n"
            "  - Networking Constraints (such as Accelerated Networking or IPv6)\n  - VM Size\n"
        ),
        "0",
    ),
    (
        {"proximityPlacementGroupID": "/subscriptions/s/ppg", "osDiskType": "Managed"},
        "OverconstrainedAllocationRequest",
        (
            f"{CHOOSY}restrictive. Please remove some constraints and try again. Constraints applied are:\n"
            "  - Networking Constraints (such as Accelerated Networking or IPv6)\n  - VM Size\n"
        ),
        "0",
    ),
    (
        {"scaleSetPriority": "Spot", "availabilityZones": ["2"]},
        "SkuNotAvailable",
        (
            f"The requested VM size for resource 'Following SKUs have failed for Capacity Restrictions: {SIZE}' is "
            "currently not available in location 'eastus'. Please try another size or deploy to a different location "
            "or different zone. See https://aka.ms/azureskunotavailable for details."
        ),
        "sku.name",
    ),
)


@pytest.mark.parametrize(("properties", "code", "message", "target"), ERRORS, ids=[case[1] for case in ERRORS])
async def test_the_sdk_reads_why_there_is_no_capacity(
    client: Client, azure: FakeAzure, properties: dict[str, Any], code: str, message: str, target: str | None
) -> None:
    azure.settings.capacity = {SIZE: 0}
    where = azure.ids.resource_group, azure.ids.cluster
    body = {"properties": {"vmSize": SIZE, **properties}}
    poller = await client.agent_pools.begin_create_or_update(*where, "gpu1", body)
    with pytest.raises(HttpResponseError) as caught:
        await poller.result()
    assert (caught.value.status_code, code_of(caught.value)) == (200, code)
    error = answer_of(caught.value).json()["error"]
    (detail,) = error["details"]
    assert (detail["code"], detail.get("target")) == (code, target)
    assert detail["message"].startswith(message)
    quoted = detail["message"].replace("\n", "\\n")
    suffix = f' Target="{target}"' if target else ""
    assert error["message"] == f'original error: Code="{code}" Message="{quoted}"{suffix}'
    pool = await client.agent_pools.get(*where, "gpu1")
    assert pool.properties.provisioning_state == "Failed"
    assert pool.properties.status.provisioning_error.code == code
    assert [machine async for machine in client.machines.list(*where, "gpu1")] == []


def test_the_error_may_be_chosen() -> None:
    region = Region()
    region.settings.change({"capacity": {SIZE: 0}, "allocation_error": "OverconstrainedAllocationRequest"})
    region.put("gpu1", scaleSetPriority="Spot")
    region.advance(300)
    assert region.error("gpu1")["code"] == "OverconstrainedAllocationRequest"
    assert "  - Low Priority VMs\n" in region.error("gpu1")["details"][0]["message"]


def test_how_long_compute_tries() -> None:
    region = Region()
    region.settings.change({"capacity": {SIZE: 0}, "allocation_failure_seconds": 1000})
    region.put("gpu1")
    region.advance(999)
    assert region.state("gpu1") == "Creating"
    region.advance(1)
    assert region.state("gpu1") == "Failed"


def test_a_delete_ends_the_search_for_capacity() -> None:
    region = Region()
    region.settings.capacity = {SIZE: 0}
    region.put("gpu1")
    region.advance(100)
    creating = region.cluster.pool("gpu1").operation
    region.cluster.delete_pool("gpu1")
    region.advance(1000)
    assert "gpu1" not in region.cluster.pools
    assert creating is not None
    assert creating.error is not None
    assert creating.error["code"] == "AKSOperationPreemptedByDelete"


def test_the_system_pool_is_there_whatever_there_is(tmp_path: Path) -> None:
    size = "Standard_D4s_v5"
    settings = Settings(capacity={size: 0}, quota={"cores": 0}, restricted={size: ()})
    azure = FakeAzure(directory=tmp_path, settings=settings)
    assert [machine.vm_size for machine in azure.machines()] == [size]
    assert azure.settings.capacity == {size: 0}


@pytest.mark.parametrize("key", ["Standard_No", SIZE + "/x", f"{SIZE}/1/2", f"{SIZE}/spot/spot", f"{SIZE}/", ""])
def test_places_that_are_none_are_refused(key: str) -> None:
    with pytest.raises(ValueError, match=r"is no VM size of the region|is none of SIZE"):
        Place.parse(key)


@pytest.mark.parametrize("values", [{"capacity": {SIZE: -1}}, {"capacity": {"Standard_No": 1}}])
def test_a_capacity_that_is_none_changes_nothing(values: dict[str, Any]) -> None:
    region = Region()
    with pytest.raises(ValueError):
        region.settings.change(values)
    assert region.left() == {}
