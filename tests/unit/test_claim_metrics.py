"""What becomes of claims, under the names that Karpenter's dashboards and alerts know."""

from datetime import timedelta
from typing import Any

import pytest

from provisioner.apis import names
from provisioner.apis.conditions import LAUNCHED, REGISTERED
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


def test_claim_that_is_given_up_is_counted_by_reason() -> None:
    world = World()
    world.metrics.disrupted(claim(), reason="garbage_collected")
    (line,) = world.lines("karpenter_nodeclaims_disrupted_total")
    assert 'reason="garbage_collected",nodepool="kaito"' in line


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
