from typing import Any

import pytest

from fakes.azure import OperationFault
from fakes.azure.errors import AzureError
from fakes.azure.etags import Conditions
from fakes.azure.operations import Operation
from tests.fakes.simulated import SimulatedCluster

SIZE = "Standard_NC24ads_A100_v4"


@pytest.fixture
def simulated() -> SimulatedCluster:
    return SimulatedCluster()


def put(simulated: SimulatedCluster, name: str = "gpu1", **properties: Any) -> Operation:
    return simulated.cluster.put_pool(name, {"vmSize": SIZE, **properties})[1]


def delete(simulated: SimulatedCluster, name: str = "gpu1") -> Operation:
    operation = simulated.cluster.delete_pool(name)
    assert operation is not None
    return operation


def test_a_cluster_starts_with_a_system_pool_of_one_machine(simulated: SimulatedCluster) -> None:
    pool = simulated.cluster.pool("systempool")
    assert (pool.state, pool.properties["mode"], pool.count) == ("Succeeded", "System", 1)
    assert "tags" not in pool.properties
    assert [(machine.pool, machine.vm_size) for machine in simulated.cluster.machines()] == [
        ("systempool", "Standard_D4s_v5")
    ]


def test_a_pool_is_creating_then_has_machines_then_succeeds(simulated: SimulatedCluster) -> None:
    operation = put(simulated, count=2)
    pool = simulated.cluster.pool("gpu1")
    simulated.advance(89)
    assert (pool.state, simulated.machine_names("gpu1")) == ("Creating", [])
    simulated.advance(1)
    assert (pool.state, len(simulated.machine_names("gpu1"))) == ("Creating", 2)
    simulated.advance(209)
    assert operation.status == "InProgress"
    simulated.advance(1)
    assert (pool.state, operation.status) == ("Succeeded", "Succeeded")


def test_machines_are_there_at_the_latest_when_the_create_ends(simulated: SimulatedCluster) -> None:
    simulated.settings.create_seconds = 5
    put(simulated)
    simulated.advance(5)
    assert simulated.cluster.pool("gpu1").state == "Succeeded"
    assert len(simulated.machine_names("gpu1")) == 1


def test_machine_names_count_in_base_36_and_provider_ids_in_decimal(simulated: SimulatedCluster) -> None:
    put(simulated, count=11)
    simulated.advance(300)
    machine = [machine for machine in simulated.cluster.machines() if machine.pool == "gpu1"][10]
    digits = machine.name.removeprefix("aks-gpu1-").removesuffix("-vmss00000a")
    assert len(digits) == 8
    assert digits.isdecimal()
    assert machine.provider_id == (
        f"azure:///subscriptions/{simulated.cluster.ids.subscription}/resourceGroups/mc_rg-gpu_aks-gpu_eastus"
        f"/providers/Microsoft.Compute/virtualMachineScaleSets/aks-gpu1-{digits}-vmss/virtualMachines/10"
    )


def test_a_machine_has_the_hardware_of_its_size_in_azures_spelling(simulated: SimulatedCluster) -> None:
    put(simulated, vmSize="standard_nd128isr_ndr_gb200_V6", nodeLabels={"a": "b"}, nodeTaints=["sku=gpu:NoSchedule"])
    simulated.advance(300)
    machine = next(machine for machine in simulated.cluster.machines() if machine.pool == "gpu1")
    assert machine.vm_size == "Standard_ND128isr_NDR_GB200_v6"
    assert (machine.gpu_count, machine.gpu_vendor, machine.vcpus, machine.memory_gib) == (4, "nvidia", 128, 864)
    assert (machine.node_labels, machine.node_taints) == ({"a": "b"}, ("sku=gpu:NoSchedule",))
    assert (machine.priority, machine.mode, machine.zone) == ("Regular", "User", None)
    assert machine.created_at == 90


def test_machines_go_round_the_zones_of_the_pool(simulated: SimulatedCluster) -> None:
    put(simulated, count=3, availabilityZones=["1", "3"])
    simulated.advance(300)
    assert [machine.zone for machine in simulated.cluster.machines() if machine.pool == "gpu1"] == ["1", "3", "1"]


def test_a_recreated_pool_counts_from_zero_again_with_other_machines(simulated: SimulatedCluster) -> None:
    put(simulated)
    simulated.advance(300)
    before = next(machine for machine in simulated.cluster.machines() if machine.pool == "gpu1")
    delete(simulated)
    simulated.advance(120)
    put(simulated)
    simulated.advance(300)
    after = next(machine for machine in simulated.cluster.machines() if machine.pool == "gpu1")
    assert (after.name, after.provider_id) == (before.name, before.provider_id)
    assert after.vm_id != before.vm_id


def test_a_deleted_pool_loses_its_machines_first_and_is_gone_when_the_operation_ends(
    simulated: SimulatedCluster,
) -> None:
    put(simulated)
    simulated.advance(300)
    operation = delete(simulated)
    assert simulated.cluster.pool("gpu1").state == "Deleting"
    simulated.advance(60)
    assert simulated.machine_names("gpu1") == []
    assert "gpu1" in simulated.cluster.pools
    simulated.advance(60)
    assert "gpu1" not in simulated.cluster.pools
    assert operation.status == "Succeeded"


def test_a_delete_preempts_a_create(simulated: SimulatedCluster) -> None:
    create = put(simulated)
    simulated.advance(30)
    delete(simulated)
    assert create.status == "Failed"
    assert create.error is not None
    assert create.error["code"] == "AKSOperationPreemptedByDelete"
    simulated.advance(90)
    assert simulated.machine_names("gpu1") == []
    simulated.advance(30)
    assert "gpu1" not in simulated.cluster.pools


@pytest.mark.parametrize(
    ("serialise", "parallel", "refused"),
    [(False, None, False), (True, None, True), (False, 1, True), (False, 2, False)],
)
def test_pools_are_worked_on_in_parallel_unless_settings_say_otherwise(
    simulated: SimulatedCluster, serialise: bool, parallel: int | None, refused: bool
) -> None:
    simulated.settings.serialise_pool_operations = serialise
    simulated.settings.max_parallel_pool_operations = parallel
    put(simulated)
    if not refused:
        put(simulated, "gpu2")
        assert "gpu2" in simulated.cluster.pools
        return
    with pytest.raises(AzureError, match=r"Another agentpool operation \(gpu1 - Creating\) is in progress") as caught:
        put(simulated, "gpu2")
    assert (caught.value.status, caught.value.code) == (409, "OperationNotAllowed")
    assert "gpu2" not in simulated.cluster.pools
    # The pool's own delete takes the place of its create.
    delete(simulated)


def test_a_pool_that_is_being_created_cannot_be_put_again(simulated: SimulatedCluster) -> None:
    put(simulated)
    with pytest.raises(AzureError, match="there's an in progress create node pool operation") as caught:
        put(simulated)
    assert (caught.value.status, caught.value.code) == (409, "OperationNotAllowed")


def test_a_pool_that_is_being_deleted_takes_neither_put_nor_delete(simulated: SimulatedCluster) -> None:
    put(simulated)
    delete(simulated)
    for again in (put, delete):
        with pytest.raises(AzureError, match=r"Another agentpool operation \(gpu1 - Deleting\) is in progress"):
            again(simulated)


@pytest.mark.parametrize("state", ["Updating", "Starting", "Stopping", "Upgrading"])
def test_an_operation_on_the_cluster_blocks_its_pools(simulated: SimulatedCluster, state: str) -> None:
    put(simulated)
    simulated.advance(300)
    simulated.cluster.set_state(provisioning_state=state)
    for write in (put, delete):
        with pytest.raises(AzureError, match=rf"Another operation \({state}\) is in progress") as caught:
            write(simulated)
        assert caught.value.status == 409
    assert simulated.cluster.pool("gpu1").state == "Succeeded"


def test_a_stopped_cluster_has_no_machines_and_takes_no_writes(simulated: SimulatedCluster) -> None:
    simulated.cluster.set_state(power_state="Stopped")
    assert simulated.cluster.machines() == []
    assert simulated.cluster.pool("systempool").profile()["powerState"] == {"code": "Stopped"}
    with pytest.raises(AzureError, match="Managed Cluster is in stopped state") as caught:
        put(simulated)
    assert (caught.value.status, caught.value.code) == (409, "OperationNotAllowed")
    simulated.cluster.set_state(power_state="Running")
    assert len(simulated.cluster.machines()) == 1


def test_the_last_system_pool_stays(simulated: SimulatedCluster) -> None:
    with pytest.raises(AzureError, match="at least one system agent pool"):
        delete(simulated, "systempool")
    with pytest.raises(AzureError, match="Must define at least one system pool"):
        simulated.cluster.put_pool("systempool", {"mode": "User"})
    put(simulated, "system2", vmSize="Standard_D4s_v5", mode="System")
    delete(simulated, "systempool")
    with pytest.raises(AzureError, match="at least one system agent pool"):
        delete(simulated, "system2")


def test_a_failed_create_leaves_a_failed_pool_behind_that_counts_and_can_be_deleted(
    simulated: SimulatedCluster,
) -> None:
    error = {"code": "AllocationFailed", "message": "Allocation failed."}
    simulated.faults.add(OperationFault(operation="agentPools.put", after=45, error=error))
    simulated.settings.max_agent_pools = 2
    operation = put(simulated)
    simulated.advance(45)
    pool = simulated.cluster.pool("gpu1")
    assert (pool.state, operation.status, operation.error) == ("Failed", "Failed", error)
    assert pool.resource(simulated.cluster.ids)["properties"]["status"] == {"provisioningError": error}
    simulated.advance(600)
    assert simulated.machine_names("gpu1") == []
    with pytest.raises(AzureError, match="exceeds the maximum number of agent pools 2"):
        put(simulated, "gpu2")
    delete(simulated)
    simulated.advance(120)
    assert "gpu1" not in simulated.cluster.pools


def test_a_create_that_fails_late_leaves_its_machines_too(simulated: SimulatedCluster) -> None:
    simulated.faults.add(OperationFault(after=200))
    put(simulated)
    simulated.advance(200)
    assert simulated.cluster.pool("gpu1").state == "Failed"
    assert len(simulated.machine_names("gpu1")) == 1


def test_a_put_on_a_failed_pool_creates_it_after_all(simulated: SimulatedCluster) -> None:
    simulated.faults.add(OperationFault(after=10, error={"code": "InternalError", "message": "x"}))
    put(simulated)
    simulated.advance(10)
    put(simulated)
    pool = simulated.cluster.pool("gpu1")
    assert (pool.state, pool.error) == ("Creating", None)
    simulated.advance(300)
    assert (pool.state, len(simulated.machine_names("gpu1"))) == ("Succeeded", 1)


@pytest.mark.parametrize(("machines", "count"), [(True, 1), (False, 0)])
def test_a_stuck_create_never_ends_with_machines_or_without(
    simulated: SimulatedCluster, machines: bool, count: int
) -> None:
    simulated.faults.add(OperationFault(outcome="Stuck", machines=machines))
    operation = put(simulated)
    simulated.advance(10**6)
    assert (operation.status, simulated.cluster.pool("gpu1").state) == ("InProgress", "Creating")
    assert len(simulated.machine_names("gpu1")) == count
    delete(simulated)
    simulated.advance(120)
    assert "gpu1" not in simulated.cluster.pools


def test_a_canceled_create_says_no_more_than_that(simulated: SimulatedCluster) -> None:
    simulated.faults.add(OperationFault(outcome="Canceled"))
    operation = put(simulated)
    simulated.advance(300)
    assert simulated.cluster.pool("gpu1").state == "Canceled"
    assert "error" not in operation.body()
    assert operation.body()["status"] == "Canceled"


def test_a_failed_delete_leaves_the_pool_for_another(simulated: SimulatedCluster) -> None:
    put(simulated)
    simulated.advance(300)
    simulated.faults.add(OperationFault(operation="agentPools.delete", after=5, machines=False))
    delete(simulated)
    simulated.advance(5)
    assert simulated.cluster.pool("gpu1").state == "Failed"
    assert len(simulated.machine_names("gpu1")) == 1
    delete(simulated)
    simulated.advance(120)
    assert "gpu1" not in simulated.cluster.pools


def test_a_put_changes_the_count_both_ways(simulated: SimulatedCluster) -> None:
    put(simulated, count=1)
    simulated.advance(300)
    put(simulated, count=3)
    assert simulated.cluster.pool("gpu1").state == "Scaling"
    simulated.advance(300)
    assert [name[-1] for name in simulated.machine_names("gpu1")] == ["0", "1", "2"]
    put(simulated, count=1)
    simulated.advance(60)
    assert [name[-1] for name in simulated.machine_names("gpu1")] == ["0"]
    put(simulated, count=2)
    simulated.advance(300)
    assert [name[-1] for name in simulated.machine_names("gpu1")] == ["0", "3"]


def test_a_put_takes_away_the_labels_taints_and_tags_it_leaves_out_and_nothing_else(
    simulated: SimulatedCluster,
) -> None:
    put(simulated, count=2, osDiskSizeGB=200, nodeLabels={"a": "b"}, tags={"c": "d"}, nodeTaints=["e=f:NoExecute"])
    simulated.advance(300)
    put(simulated, nodeLabels={"g": "h"})
    pool = simulated.cluster.pool("gpu1")
    assert pool.state == "Updating"
    assert (pool.count, pool.properties["osDiskSizeGB"]) == (2, 200)
    assert pool.properties["nodeLabels"] == {"g": "h"}
    assert "tags" not in pool.properties
    assert "nodeTaints" not in pool.properties


def test_deleted_machines_lower_the_count_and_their_numbers_are_not_used_again(simulated: SimulatedCluster) -> None:
    put(simulated, count=3)
    simulated.advance(300)
    names = simulated.machine_names("gpu1")
    simulated.cluster.delete_machines("gpu1", [names[1].upper(), "aks-gpu1-00000000-vmss000009"])
    simulated.advance(90)
    pool = simulated.cluster.pool("gpu1")
    assert (pool.state, pool.count, simulated.machine_names("gpu1")) == ("Succeeded", 2, [names[0], names[2]])
    put(simulated, count=3)
    simulated.advance(300)
    assert [name[-1] for name in simulated.machine_names("gpu1")] == ["0", "2", "3"]


def test_only_unknown_machines_to_delete_are_an_error_that_names_the_valid_ones(simulated: SimulatedCluster) -> None:
    put(simulated)
    simulated.advance(300)
    with pytest.raises(AzureError, match=r"agent pool 'gpu1' are: aks-gpu1-\d{8}-vmss000000\.") as caught:
        simulated.cluster.delete_machines("gpu1", ["nobody"])
    assert (caught.value.status, caught.value.code) == (400, "InvalidParameter")


def test_a_lost_machine_is_gone_and_its_pool_does_not_notice(simulated: SimulatedCluster) -> None:
    put(simulated)
    simulated.advance(300)
    assert simulated.cluster.lose_machine(simulated.machine_names("gpu1")[0])
    assert simulated.machine_names("gpu1") == []
    assert (simulated.cluster.pool("gpu1").state, simulated.cluster.pool("gpu1").count) == ("Succeeded", 1)
    assert not simulated.cluster.lose_machine("nobody")


def test_every_change_has_another_etag_and_another_revision(simulated: SimulatedCluster) -> None:
    seen = {simulated.cluster.revision}
    put(simulated)
    pool = simulated.cluster.pool("gpu1")
    etags = {pool.etag}
    for moment in (90, 210):
        seen.add(simulated.cluster.revision)
        simulated.advance(moment)
        etags.add(pool.etag)
    seen.add(simulated.cluster.revision)
    assert len(etags) == 3
    assert len(seen) == 4


@pytest.mark.parametrize(
    ("conditions", "exists", "refused"),
    [
        (Conditions(if_none_match="*"), False, False),
        (Conditions(if_none_match="*"), True, True),
        (Conditions(if_match='"other"'), True, True),
        (Conditions(if_match='"other"'), False, True),
        (Conditions(if_match="*"), True, False),
        (Conditions(if_match='"ETAG"'), True, False),
        (Conditions(if_match='W/"ETAG"'), True, False),
        (Conditions(if_match="ETAG"), True, False),
        (Conditions(if_none_match='"ETAG"'), True, True),
    ],
)
def test_conditional_puts(simulated: SimulatedCluster, conditions: Conditions, exists: bool, refused: bool) -> None:
    if exists:
        put(simulated)
        simulated.advance(300)
        simulated.cluster.pool("gpu1").etag = "ETAG"
    if refused:
        with pytest.raises(AzureError) as caught:
            simulated.cluster.put_pool("gpu1", {"vmSize": SIZE}, conditions=conditions)
        assert (caught.value.status, caught.value.code) == (412, "PreconditionFailed")
    else:
        simulated.cluster.put_pool("gpu1", {"vmSize": SIZE}, conditions=conditions)


def test_a_delete_of_nothing_never_fails_whatever_its_conditions(simulated: SimulatedCluster) -> None:
    assert simulated.cluster.delete_pool("gpu1", conditions=Conditions(if_match='"other"')) is None
    put(simulated)
    with pytest.raises(AzureError) as caught:
        simulated.cluster.delete_pool("gpu1", conditions=Conditions(if_match='"other"'))
    assert caught.value.status == 412


def test_a_pool_may_be_put_as_it_was_read(simulated: SimulatedCluster) -> None:
    put(simulated, count=2, scaleSetPriority="Spot", nodeLabels={"a": "b"}, gpuProfile={"driver": "Install"})
    simulated.advance(300)
    pool = simulated.cluster.pool("gpu1")
    before = dict(pool.properties)
    simulated.cluster.put_pool("gpu1", pool.profile())
    assert pool.properties == before


@pytest.mark.parametrize(
    ("asked", "runs"), [("", "1.34.2"), ("1.34", "1.34.2"), ("1.33", "1.33.0"), ("1.33.5", "1.33.5")]
)
def test_nodes_run_a_whole_version(simulated: SimulatedCluster, asked: str, runs: str) -> None:
    put(simulated, orchestratorVersion=asked)
    simulated.advance(300)
    machine = next(machine for machine in simulated.cluster.machines() if machine.pool == "gpu1")
    assert machine.kubernetes_version == runs
    assert simulated.cluster.pool("gpu1").profile()["currentOrchestratorVersion"] == runs
