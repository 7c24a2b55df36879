"""Azure is asked for what a class names, seldom, and what it does not tell does not keep claims waiting."""

import asyncio
from dataclasses import dataclass, field
from typing import Any

import pytest

from provisioner.apis.failure import Failure, FailureClass
from provisioner.apis.quota import Usage
from provisioner.apis.reservation import Reserved
from provisioner.azure.errors import ArmFailure
from provisioner.nodeclaim.class_checks import ClassChecks
from provisioner.nodeclaim.class_verdict import Verdict
from provisioner.nodeclaim.nodeclass import spec_of
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
    reserved: set[Reserved] = field(default_factory=lambda: {Reserved(A100.lower())})
    usages: dict[str, Usage] = field(default_factory=dict)
    open: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.open.set()

    async def subnet_exists(self, resource_id: str) -> bool:
        assert "/subnets/" in resource_id.lower()
        await self.open.wait()
        return self._answer(resource_id)

    async def reservations(self, resource_id: str) -> frozenset[Reserved] | None:
        assert "/capacityreservationgroups/" in resource_id.lower()
        return frozenset(self.reserved) if self._answer(resource_id) else None

    def _answer(self, resource_id: str) -> bool:
        self.asked.append(resource_id)
        if self.refusal is not None:
            raise self.refusal
        return resource_id in self.there

    def checks(self) -> ClassChecks:
        return ClassChecks(self, region=self, usages=lambda: self.usages, clock=lambda: self.now)


async def check(checks: ClassChecks, raw: dict[str, Any]) -> tuple[Verdict, float | None]:
    """Check a class that nothing is in the way of."""
    verdict, again = await checks.check(raw)
    assert verdict is not None
    return verdict, again


def node_class(name: str = "gold", *, generation: int = 1, uid: str = "u", **spec: Any) -> dict[str, Any]:
    return {"metadata": {"name": name, "uid": uid, "generation": generation}, "spec": spec}


GOLD = node_class(vnetSubnetID=SUBNET)


async def test_class_that_names_nothing_costs_no_call_and_is_not_looked_at_again() -> None:
    world = World()
    checks = world.checks()
    assert checks.is_judged(node_class(maxPods=30))
    verdict, again = await check(checks, node_class(maxPods=30))
    assert (verdict.is_ready, again, world.asked) == (True, None, [])


async def test_class_that_cannot_be_read_costs_no_call() -> None:
    world = World()
    raw = node_class(vnetSubnetID=SUBNET, maxPods=5)
    verdict, again = await check(world.checks(), raw)
    assert (verdict.reason, again, world.asked) == ("InvalidField", None, [])


async def test_what_is_there_is_asked_for_once_in_ten_minutes_whatever_the_number_of_classes() -> None:
    world = World(there={SUBNET, RESERVATION})
    checks = world.checks()
    both = node_class("both", vnetSubnetID=SUBNET, capacityReservationGroupID=RESERVATION)
    for raw in (GOLD, both, node_class("shouting", vnetSubnetID=SUBNET.upper()), GOLD):
        verdict, again = await check(checks, raw)
        assert (verdict.is_ready, again) == (True, 600.0)
    assert world.asked == [SUBNET, RESERVATION]
    world.now += 599
    assert (await check(checks, GOLD))[1] == 1.0
    world.now += 1
    await check(checks, GOLD)
    assert world.asked == [SUBNET, RESERVATION, SUBNET]


async def test_what_is_missing_is_looked_for_again_within_minutes() -> None:
    world = World()
    checks = world.checks()
    verdict, again = await check(checks, GOLD)
    assert (verdict.reason, again) == ("SubnetNotFound", 120.0)
    world.there.add(SUBNET)
    assert not (await check(checks, GOLD))[0].is_ready
    world.now += 120
    assert (await check(checks, GOLD))[0].is_ready


async def test_class_that_was_corrected_is_asked_for_at_once() -> None:
    world = World(there={SUBNET})
    checks = world.checks()
    await check(checks, node_class(vnetSubnetID=f"{SUBNET}x"))
    verdict, _ = await check(checks, node_class(generation=2, vnetSubnetID=SUBNET))
    assert verdict.is_ready
    assert world.asked == [f"{SUBNET}x", SUBNET]


async def test_identity_that_may_not_look_keeps_nobody_waiting_and_is_told_of() -> None:
    world = World(refusal=FORBIDDEN)
    checks = world.checks()
    verdict, again = await check(checks, GOLD)
    assert (verdict.is_ready, again) == (True, 600.0)
    assert verdict.message.endswith("(the identity lacks Microsoft.Network/virtualNetworks/subnets/read).")
    assert checks.problem(GOLD) is None


@pytest.mark.parametrize("is_there", [True, False])
async def test_what_was_known_stays_while_azure_does_not_answer(is_there: bool) -> None:
    world = World(there={SUBNET} if is_there else set())
    checks = world.checks()
    before, _ = await check(checks, GOLD)
    world.refusal = DOWN
    world.now += 600
    assert (await check(checks, GOLD))[0] == before


async def test_class_that_azure_has_never_answered_for_can_be_used_and_is_asked_for_again_soon() -> None:
    world = World(refusal=DOWN)
    verdict, again = await check(world.checks(), GOLD)
    assert (verdict.is_ready, again) == (True, 120.0)
    assert "Not checked: the subnet of spec.vnetSubnetID (it could not be read)" in verdict.message


async def test_sizes_that_are_not_known_yet_are_waited_for() -> None:
    world = World(sizes=Catalogue((), complete=False))
    checks, raw = world.checks(), node_class(zones=["2"])
    assert checks.is_judged(raw)
    verdict, again = await check(checks, raw)
    assert (verdict.is_ready, again) == (True, 30.0)
    world.sizes = LIST
    verdict, again = await check(checks, raw)
    assert (verdict.reason, again) == ("NoSuitableVMSize", 600.0)


async def test_class_is_judged_once_it_was_checked_as_it_stands() -> None:
    world = World(there={SUBNET})
    checks = world.checks()
    assert checks.is_judged(None)
    assert not checks.is_judged(GOLD)
    await check(checks, GOLD)
    assert checks.is_judged(GOLD)
    assert not checks.is_judged({**GOLD, "metadata": {**GOLD["metadata"], "generation": 2}})
    assert not checks.is_judged({**GOLD, "metadata": {**GOLD["metadata"], "uid": "another"}})
    checks.forget("gold")
    checks.forget("gold")
    assert not checks.is_judged(GOLD)


async def test_question_that_is_out_is_not_asked_again_and_keeps_few_waiting_for_it() -> None:
    world = World(there={SUBNET})
    world.open.clear()
    checks = world.checks()
    others = [node_class(f"c{number}", vnetSubnetID=f"{SUBNET}{number}") for number in range(1, 5)]
    first, *rest = [asyncio.create_task(checks.check(raw)) for raw in (GOLD, *others)]
    await asyncio.wait(rest, return_when=asyncio.FIRST_COMPLETED)
    # Four are out: the fifth has to wait, and so has whoever asks for the same.
    assert [task.result() for task in rest if task.done()] == [(None, 1.0)]
    assert await checks.check(node_class("shouting", vnetSubnetID=SUBNET.upper())) == (None, 1.0)
    assert not checks.is_judged(GOLD)
    world.open.set()
    verdict, _ = await first
    assert verdict is not None
    assert verdict.is_ready
    await asyncio.gather(*rest)
    assert (await check(checks, others[3]))[0].reason == "SubnetNotFound"
    assert sorted(world.asked) == [SUBNET, *(f"{SUBNET}{number}" for number in range(1, 5))]


RESERVING = node_class(capacityReservationGroupID=RESERVATION)


async def test_what_is_reserved_is_known_from_the_check_on() -> None:
    world = World(there={RESERVATION})
    checks, spec = world.checks(), spec_of(RESERVING)
    assert checks.reserved(spec) is None
    assert checks.standing(RESERVING) == (None, None)
    verdict, _ = await check(checks, RESERVING)
    assert checks.standing(RESERVING) == (verdict, frozenset({Reserved(A100.lower())}))
    assert checks.reserved(spec) == frozenset({Reserved(A100.lower())})
    assert checks.reserved(spec_of(node_class(capacityReservationGroupID=RESERVATION.lower()))) is not None
    assert checks.reserved(spec_of(GOLD)) is None


async def test_group_without_reservations_is_asked_for_again_soon() -> None:
    world = World(there={RESERVATION}, reserved=set())
    checks = world.checks()
    verdict, again = await check(checks, RESERVING)
    assert (verdict.reason, again) == ("CapacityReservationGroupEmpty", 120.0)
    world.reserved.add(Reserved(A100.lower()))
    world.now += 120
    verdict, again = await check(checks, RESERVING)
    assert (verdict.reason, again) == ("Ready", 600.0)


async def test_quota_that_is_too_little_for_any_size_is_told() -> None:
    world = World(there={RESERVATION}, usages={"standarda100family": Usage(name="standardA100Family", limit=0, used=0)})
    verdict, _ = await check(world.checks(), RESERVING)
    assert verdict.is_ready
    assert "standardA100Family (limit 0)" in verdict.message


@pytest.mark.parametrize("status", ["True", "False"])
async def test_what_an_earlier_run_has_said_holds_while_azure_does_not_answer(status: str) -> None:
    ready = {"type": "Ready", "status": status, "reason": "Said", "message": "Before.", "observedGeneration": 1}
    raw = {**GOLD, "status": {"conditions": [ready]}}
    world = World(refusal=DOWN)
    checks = world.checks()
    verdict, again = await check(checks, raw)
    assert (verdict, again) == (Verdict(is_ready=status == "True", reason="Said", message="Before."), 120.0)
    world.refusal = None
    world.now += 120
    assert (await check(checks, raw))[0].reason == "SubnetNotFound"


async def test_what_is_reserved_has_to_be_found_out_by_each_run() -> None:
    ready = {"type": "Ready", "status": "True", "observedGeneration": 1}
    raw = {**RESERVING, "status": {"conditions": [ready]}}
    world = World(there={RESERVATION})
    checks = world.checks()
    assert not checks.is_judged(raw)
    await check(checks, raw)
    assert checks.is_judged(raw)


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
    await check(checks, GOLD)
    told = checks.problem(GOLD)
    assert told is not None
    assert told.reason == "NodeClassNotReady"
    assert told.message.startswith(f"KaitoNodeClass gold is not Ready: spec.vnetSubnetID: there is no subnet {SUBNET}")
    assert checks.problem({**GOLD, "metadata": {**GOLD["metadata"], "generation": 2}}) is None
    assert checks.problem(None) is None
