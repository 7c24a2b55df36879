"""What becomes of claims, under the names that Karpenter's dashboards and alerts know."""

from datetime import timedelta
from typing import Any

import pytest

from provisioner.apis import names
from provisioner.apis.conditions import INSTANCE_TERMINATING, LAUNCHED, REGISTERED
from provisioner.apis.failure import FailureClass
from provisioner.apis.nodeclaim import NodeClaim
from provisioner.apis.quota import Scope, Shortage
from provisioner.kube.metrics import Registry
from provisioner.nodeclaim.metrics import ClaimMetrics
from tests.unit.builders import NAME, NOW, claim, condition, failure


class World:
    """A registry and the claims that there are."""

    def __init__(self, *claims: NodeClaim) -> None:
        self.registry = Registry()
        self.metrics = ClaimMetrics(self.registry, claims=lambda: claims, now=lambda: NOW)

    def lines(self, name: str) -> list[str]:
        return [line for line in self.registry.expose().splitlines() if line.startswith(name + "{")]


def with_conditions(*conditions: dict[str, Any], **changes: Any) -> NodeClaim:
    return claim(status={"conditions": list(conditions)}, **changes)


def ago(seconds: float) -> Any:
    return NOW - timedelta(seconds=seconds)


def test_change_of_a_condition_is_counted_with_the_time_it_had_the_status_that_it_left() -> None:
    world = World()
    before = with_conditions(condition(LAUNCHED, "Unknown", "CreatingAgentPool", since=ago(90)))
    after = with_conditions(condition(LAUNCHED, "True", "Launched", since=ago(30)))
    world.metrics.written(before, after)
    (line,) = world.lines("operator_nodeclaim_status_condition_transitions_total")
    assert 'type="Launched",status="True",reason="Launched"} 1' in line
    (line,) = world.lines("operator_nodeclaim_status_condition_transition_seconds_sum")
    assert 'type="Launched",status="Unknown"} 60' in line


def test_new_reason_or_message_of_a_condition_is_no_transition() -> None:
    world = World()
    before = with_conditions(condition(LAUNCHED, "Unknown", "CreatingAgentPool"))
    world.metrics.written(before, with_conditions(condition(LAUNCHED, "Unknown", "Throttled")))
    assert world.lines("operator_nodeclaim_status_condition_transitions_total") == []


def test_conditions_are_shown_as_they_stand() -> None:
    world = World(
        with_conditions(
            condition(LAUNCHED, "True", "Launched", since=ago(45)), condition(REGISTERED, "Unknown", "NodeNotFound")
        )
    )
    lines = world.lines("operator_nodeclaim_status_condition_count")
    assert len(lines) == 2
    (seconds,) = (
        line
        for line in world.lines("operator_nodeclaim_status_condition_current_status_seconds")
        if 'type="Launched"' in line
    )
    assert f'name="{NAME}"' in seconds
    assert 'kaito_sh_kaitonodeclass="default",karpenter_sh_nodepool="kaito"} 45' in seconds


def test_claim_of_another_provider_is_not_ours_to_count() -> None:
    other = {"group": "karpenter.azure.com", "kind": "AKSNodeClass", "name": "default"}
    world = World(with_conditions(condition(LAUNCHED, "True", "Launched"), nodeClassRef=other, labels={}))
    assert world.lines("operator_nodeclaim_status_condition_count") == []


def test_claim_that_goes_is_timed_from_its_deletion() -> None:
    going = claim(deleted=ago(200), finalizers=(names.TERMINATION_FINALIZER,))
    world = World(going)
    (line,) = world.lines("operator_nodeclaim_termination_current_time_seconds")
    assert line.endswith(" 200")
    world.metrics.released(going)
    assert world.lines("karpenter_nodeclaims_terminated_total")[0].endswith(" 1")
    assert world.lines("karpenter_nodeclaims_termination_duration_seconds_sum") == [
        'karpenter_nodeclaims_termination_duration_seconds_sum{nodepool="kaito"} 200'
    ]


def test_claim_that_goes_is_timed_in_the_terms_of_its_class_too() -> None:
    world = World()
    world.metrics.released(claim(deleted=ago(200), finalizers=(names.TERMINATION_FINALIZER,)))
    (line,) = world.lines("operator_nodeclaim_termination_duration_seconds_sum")
    assert line.endswith('{kaito_sh_kaitonodeclass="default",karpenter_sh_nodepool="kaito"} 200')


@pytest.mark.parametrize(
    ("conditions", "timed"),
    [
        ([condition(INSTANCE_TERMINATING, "True", "InstanceTerminating", since=ago(150))], [" 150"]),
        ([condition(INSTANCE_TERMINATING, "Unknown", "Throttled", since=ago(150))], []),
        ([], []),
    ],
)
def test_deletion_of_the_pool_is_timed_from_when_azure_has_taken_it_on(
    conditions: list[dict[str, Any]], timed: list[str]
) -> None:
    world = World()
    world.metrics.released(with_conditions(*conditions, deleted=ago(200), finalizers=(names.TERMINATION_FINALIZER,)))
    lines = world.lines("karpenter_nodeclaims_instance_termination_duration_seconds_sum")
    assert [line[line.rindex(" ") :] for line in lines] == timed


@pytest.mark.parametrize(
    ("period", "mode"),
    [
        ({}, "graceful"),
        ({"terminationGracePeriod": "30m"}, "eventual"),
        ({"terminationGracePeriod": "0s"}, "forceful"),
        ({"terminationGracePeriod": "soon"}, "graceful"),
        # A spec that cannot be read gives no period either.
        ({"terminationGracePeriod": "0s", "requirements": "all"}, "graceful"),
    ],
)
def test_claim_that_is_given_up_is_counted_by_reason_and_by_how_it_ends(period: dict[str, Any], mode: str) -> None:
    world = World()
    world.metrics.disrupted(claim(**period), reason="garbage_collected")
    (line,) = world.lines("karpenter_nodeclaims_disrupted_total")
    labels = 'reason="garbage_collected",nodepool="kaito",capacity_type="",consolidation_policy=""'
    assert line.endswith(f'{{{labels},termination_mode="{mode}"}} 1')


@pytest.mark.parametrize(
    ("kind", "shown"),
    [
        ("Ready", "ready"),
        ("MemoryPressure", "memory_pressure"),
        ("kubernetes.azure.com/NodeHealthy", "kubernetes.azure.com/node_healthy"),
    ],
)
def test_claim_of_a_sick_node_is_counted_by_the_nodes_condition(kind: str, shown: str) -> None:
    world = World()
    world.metrics.unhealthy(claim(), condition=kind, image_id="AKSUbuntu-2204")
    (line,) = world.lines("karpenter_nodeclaims_unhealthy_disrupted_total")
    assert f'condition="{shown}",nodepool="kaito",capacity_type="",image_id="AKSUbuntu-2204"' in line


def test_conditions_of_a_thousand_claims_are_shown() -> None:
    claims = [
        with_conditions(*(condition(f"C{number}", "True", "R") for number in range(6)), name=f"w{index}")
        for index in range(1000)
    ]
    world = World(*claims)
    assert len(world.lines("operator_nodeclaim_status_condition_count")) == 6000


@pytest.mark.parametrize(
    ("kind", "error"),
    [
        (FailureClass.CAPACITY, "InsufficientCapacityError"),
        (FailureClass.QUOTA, "InsufficientCapacityError"),
        (FailureClass.AUTH, ""),
        (FailureClass.INTERNAL, ""),
    ],
)
def test_refusal_is_counted_under_karpenters_name_where_it_has_one(kind: FailureClass, error: str) -> None:
    world = World()
    refused = failure(kind)
    if kind is FailureClass.QUOTA:
        refused = type(refused)(kind=kind, message="no", shortage=Shortage(scope=Scope.FAMILY))
    world.metrics.asked("Create", seconds=1.5, failure=refused)
    (line,) = world.lines("karpenter_cloudprovider_errors_total")
    assert f'{{controller="nodeclaim.lifecycle",method="Create",provider="azure",error="{error}"}} 1' in line
    assert world.lines("karpenter_cloudprovider_duration_seconds_sum")[0].endswith(" 1.5")
