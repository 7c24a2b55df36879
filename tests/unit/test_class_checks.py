"""Azure is asked for what a class names, seldom, and what it does not tell does not keep claims waiting."""

from dataclasses import dataclass, field
from typing import Any

import pytest

from provisioner.apis.failure import Failure, FailureClass
from provisioner.azure.errors import ArmFailure
from provisioner.nodeclaim.class_checks import ClassChecks
from provisioner.placement.size import Sizes
from tests.node_classes import RESERVATION, SUBNET
from tests.unit.builders import A100
from tests.unit.placement_builders import Catalogue, changed

FORBIDDEN = ArmFailure(Failure(kind=FailureClass.AUTH, message="no", code="AuthorizationFailed"), status=403)
DOWN = ArmFailure(Failure(kind=FailureClass.INTERNAL, message="503"), status=503)
LIST = Catalogue((changed(A100, mig=True, zones=("1",)),))


@dataclass
class World:
    """An Azure with resources, its region, and a clock that a test turns."""

    there: set[str] = field(default_factory=set)
    refusal: ArmFailure | None = None
    asked: list[str] = field(default_factory=list)
    location: str = "eastus"
    sizes: Sizes = LIST
    now: float = 1000.0

    async def subnet_exists(self, resource_id: str) -> bool:
        assert "/subnets/" in resource_id.lower()
        return self._answer(resource_id)

    async def reservation_exists(self, resource_id: str) -> bool:
        assert "/capacityreservationgroups/" in resource_id.lower()
        return self._answer(resource_id)

    def _answer(self, resource_id: str) -> bool:
        self.asked.append(resource_id)
        if self.refusal is not None:
            raise self.refusal
        return resource_id in self.there

    def checks(self) -> ClassChecks:
        return ClassChecks(self, region=self, clock=lambda: self.now)


def node_class(name: str = "gold", *, generation: int = 1, uid: str = "u", **spec: Any) -> dict[str, Any]:
    return {"metadata": {"name": name, "uid": uid, "generation": generation}, "spec": spec}


GOLD = node_class(vnetSubnetID=SUBNET)


async def test_class_that_names_nothing_costs_no_call_and_is_not_looked_at_again() -> None:
    world = World()
    checks = world.checks()
    assert checks.is_judged(node_class(maxPods=30))
    verdict, again = await checks.check(node_class(maxPods=30))
    assert (verdict.is_ready, again, world.asked) == (True, None, [])


async def test_class_that_cannot_be_read_costs_no_call() -> None:
    world = World()
    raw = node_class(vnetSubnetID=SUBNET, maxPods=5)
    verdict, again = await world.checks().check(raw)
    assert (verdict.reason, again, world.asked) == ("InvalidField", None, [])


async def test_what_is_there_is_asked_for_once_in_ten_minutes_whatever_the_number_of_classes() -> None:
    world = World(there={SUBNET, RESERVATION})
    checks = world.checks()
    both = node_class("both", vnetSubnetID=SUBNET, capacityReservationGroupID=RESERVATION)
    for raw in (GOLD, both, node_class("shouting", vnetSubnetID=SUBNET.upper()), GOLD):
        verdict, again = await checks.check(raw)
        assert (verdict.is_ready, again) == (True, 600.0)
    assert world.asked == [SUBNET, RESERVATION]
    world.now += 599
    assert (await checks.check(GOLD))[1] == 1.0
    world.now += 1
    await checks.check(GOLD)
    assert world.asked == [SUBNET, RESERVATION, SUBNET]


async def test_what_is_missing_is_looked_for_again_within_minutes() -> None:
    world = World()
    checks = world.checks()
    verdict, again = await checks.check(GOLD)
    assert (verdict.reason, again) == ("SubnetNotFound", 120.0)
    world.there.add(SUBNET)
    assert not (await checks.check(GOLD))[0].is_ready
    world.now += 120
    assert (await checks.check(GOLD))[0].is_ready


async def test_class_that_was_corrected_is_asked_for_at_once() -> None:
    world = World(there={SUBNET})
    checks = world.checks()
    await checks.check(node_class(vnetSubnetID=f"{SUBNET}x"))
    verdict, _ = await checks.check(node_class(generation=2, vnetSubnetID=SUBNET))
    assert verdict.is_ready
    assert world.asked == [f"{SUBNET}x", SUBNET]


async def test_identity_that_may_not_look_keeps_nobody_waiting_and_is_told_of() -> None:
    world = World(refusal=FORBIDDEN)
    checks = world.checks()
    verdict, again = await checks.check(GOLD)
    assert (verdict.is_ready, again) == (True, 600.0)
    assert verdict.message.endswith("(the identity lacks Microsoft.Network/virtualNetworks/subnets/read).")
    assert checks.problem(GOLD) is None


@pytest.mark.parametrize("is_there", [True, False])
async def test_what_was_known_stays_while_azure_does_not_answer(is_there: bool) -> None:
    world = World(there={SUBNET} if is_there else set())
    checks = world.checks()
    before, _ = await checks.check(GOLD)
    world.refusal = DOWN
    world.now += 600
    assert (await checks.check(GOLD))[0] == before


async def test_class_that_azure_has_never_answered_for_can_be_used_and_is_asked_for_again_soon() -> None:
    world = World(refusal=DOWN)
    verdict, again = await world.checks().check(GOLD)
    assert (verdict.is_ready, again) == (True, 120.0)
    assert "Not checked: the subnet of spec.vnetSubnetID (it could not be read)" in verdict.message


async def test_sizes_that_are_not_known_yet_are_waited_for() -> None:
    world = World(sizes=Catalogue((), complete=False))
    checks, raw = world.checks(), node_class(zones=["2"])
    assert checks.is_judged(raw)
    verdict, again = await checks.check(raw)
    assert (verdict.is_ready, again) == (True, 30.0)
    world.sizes = LIST
    verdict, again = await checks.check(raw)
    assert (verdict.reason, again) == ("NoSuitableVMSize", 600.0)


async def test_class_is_judged_once_it_was_checked_as_it_stands() -> None:
    world = World(there={SUBNET})
    checks = world.checks()
    assert checks.is_judged(None)
    assert not checks.is_judged(GOLD)
    await checks.check(GOLD)
    assert checks.is_judged(GOLD)
    assert not checks.is_judged({**GOLD, "metadata": {**GOLD["metadata"], "generation": 2}})
    assert not checks.is_judged({**GOLD, "metadata": {**GOLD["metadata"], "uid": "another"}})
    checks.forget("gold")
    checks.forget("gold")
    assert not checks.is_judged(GOLD)


@pytest.mark.parametrize(("generation", "is_judged"), [(1, True), (2, False)])
async def test_verdict_of_an_earlier_run_counts_for_the_generation_that_it_is_of(
    generation: int, is_judged: bool
) -> None:
    ready = {"type": "Ready", "status": "True", "observedGeneration": 1}
    raw = {**node_class(generation=generation, vnetSubnetID=SUBNET), "status": {"conditions": [ready]}}
    assert World().checks().is_judged(raw) is is_judged


async def test_verdict_holds_where_the_condition_could_not_be_written() -> None:
    world = World()
    checks = world.checks()
    assert checks.problem(GOLD) is None
    await checks.check(GOLD)
    told = checks.problem(GOLD)
    assert told is not None
    assert told.reason == "NodeClassNotReady"
    assert told.message.startswith(f"KaitoNodeClass gold is not Ready: spec.vnetSubnetID: there is no subnet {SUBNET}")
    assert checks.problem({**GOLD, "metadata": {**GOLD["metadata"], "generation": 2}}) is None
    assert checks.problem(None) is None
