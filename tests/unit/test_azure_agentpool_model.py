from typing import Any

import pytest

from provisioner.apis.agentpool import AgentPool, parse_agent_pool


def read(**properties: Any) -> AgentPool:
    return parse_agent_pool({"name": "gpu1", "properties": properties})


@pytest.mark.parametrize(
    ("priority", "spot"), [("Spot", True), ("spot", True), ("Regular", False), ("", False), (None, False)]
)
def test_a_pool_of_spot_vms_says_so(priority: str | None, spot: bool) -> None:
    assert read(scaleSetPriority=priority).spot is spot


@pytest.mark.parametrize(("zones", "expected"), [(["1", "3"], ("1", "3")), ([2], ("2",)), ([], ()), (None, ())])
def test_the_zones_of_a_pool(zones: Any, expected: tuple[str, ...]) -> None:
    assert read(availabilityZones=zones).zones == expected


@pytest.mark.parametrize(
    ("settings", "surge"),
    [
        ({"maxSurge": "10%"}, "10%"),
        ({"maxSurge": "1"}, "1"),
        ({"maxSurge": 0}, ""),
        ({"maxSurge": None}, ""),
        (None, ""),
    ],
)
def test_the_surge_of_a_pool_is_as_written(settings: Any, surge: str) -> None:
    assert read(upgradeSettings=settings).max_surge == surge


@pytest.mark.parametrize(
    ("power", "is_stopped"),
    [
        ({"code": "Stopped"}, True),
        ({"code": "stopped"}, True),
        ({"code": "Running"}, False),
        ({}, False),
        (None, False),
    ],
)
def test_a_stopped_pool_says_so(power: Any, is_stopped: bool) -> None:
    assert read(powerState=power).is_stopped is is_stopped


def test_a_pool_that_says_nothing_is_regional_and_on_demand() -> None:
    pool = parse_agent_pool({"name": "gpu1"})
    assert (pool.spot, pool.zones, pool.max_surge, pool.error) == (False, (), "", None)
    assert not pool.is_stopped
