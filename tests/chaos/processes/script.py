"""What happens in a run, made from a seed before it begins, so that it can be printed and played again."""

import random
from collections.abc import Iterator
from typing import Final

from fakes import azure, nodes, proxy
from fakes.azure.errors import error
from fakes.nodes import FaultKind
from tests.chaos.processes.deeds import (
    Action,
    Create,
    Deed,
    Delete,
    DeleteNode,
    DeletePool,
    Kill,
    KillAtPut,
    LoseMachine,
    RestartApiServer,
    Script,
    Spoil,
    Wish,
)
from tests.claims import A100

# Simulated seconds from the first action to the moment at which all faults cease. What happens on purpose waits while
# the controller starts, which takes it much longer on a busy machine than on an idle one.
FIRE: Final = 1800.0
# Simulated seconds by which the effect of a request to Azure is late at most, but for the one of the plot.
LONGEST_DELAY: Final = 200.0
# Longer than the controller takes to start.
_PLOTTED_DELAY: Final = 1600.0
# The name of a user's agent pool, and of a claim that would like to have it.
TAKEN: Final = "taken"
T4: Final = "Standard_NC4as_T4_v3"
H100: Final = "Standard_NC40ads_H100_v5"
# The T4 family has room for that many of its smallest VMs while the fire lasts.
T4_VMS: Final = 2

_PUT, _DELETE, _LIST = "agentPools.put", "agentPools.delete", "agentPools.list"
_NO_CAPACITY: Final = error("AllocationFailed", "Allocation failed. We do not have sufficient capacity for the size.")
_BROKEN: Final = error("InternalOperationError", "Internal server error.")
_THROTTLED: Final = {"code": "Throttled", "details": None, "message": "The request limit has been exceeded."}


def write(seed: int) -> Script:
    """Return the script of a seed; the same one each time."""
    rng = random.Random(seed)  # noqa: S311 -- decides what goes wrong, guards nothing
    wishes = list(_wishes(rng))
    actions = [
        *(action for wish in wishes for action in _life(rng, wish)),
        *_late_put(rng, deleted=seed % 2 == 0),
        *_stripped(rng),
        *_accidents(rng, wishes),
        *_kills(rng),
        *_faults_of_api(rng),
        *_faults_of_azure(rng, wishes),
        *_faults_of_nodes(rng, wishes),
    ]
    return Script(seed=seed, actions=tuple(sorted(actions, key=lambda action: action.at)))


def _at(rng: random.Random, first: float, last: float, deed: Deed) -> Action:
    return Action(at=round(rng.uniform(first, last), 1), deed=deed)


def _wishes(rng: random.Random) -> Iterator[Wish]:
    for _ in range(rng.randint(6, 10)):
        yield Wish(name=f"ws{rng.getrandbits(36):09x}", sizes=(rng.choice((A100, A100, H100)),), of_kaito=True)
    for number in range(rng.randint(3, 5)):
        yield Wish(name=f"train.job-{rng.randint(10, 99)}-{number}", sizes=(A100, H100), of_kaito=False)
    for number in range(T4_VMS + rng.randint(0, 2)):
        yield Wish(name=f"small{number}", sizes=(T4,), of_kaito=rng.random() < 0.5)
    yield Wish(name=TAKEN, sizes=(A100,), of_kaito=True, evades=True)


def _life(rng: random.Random, wish: Wish) -> Iterator[Action]:
    """Yield when a claim is written, deleted, written anew and perhaps deleted again."""
    now = rng.uniform(0, FIRE * 0.4)
    yield Action(at=round(now, 1), deed=Create(wish=wish))
    for _ in range(rng.choice((0, 0, 1, 1, 2))):
        now += rng.choice((rng.uniform(0, 150), rng.uniform(150, 900)))
        yield Action(at=round(now, 1), deed=Delete(claim=wish.name, by_force=rng.random() < 0.15))
        if rng.random() < 0.4:
            return
        now += rng.uniform(0, 50)
        yield Action(at=round(now, 1), deed=Create(wish=wish))


def _late_put(rng: random.Random, *, deleted: bool) -> Iterator[Action]:
    """Yield what chance seldom brings about: a kill while a PUT is under way, and a start before that acts."""
    wish = Wish(name="late", sizes=(A100,), of_kaito=True)
    delay = azure.Delay(operation=_PUT, pool=wish.pool, seconds=_PLOTTED_DELAY, after_effect=False)
    yield Action(at=0.0, deed=Spoil(fault=delay))
    put = _at(rng, 0, FIRE * 0.3, Create(wish=wish))
    yield put
    yield Action(at=put.at, deed=KillAtPut(claim=wish.name, deleted=deleted))


def _stripped(rng: random.Random) -> Iterator[Action]:
    """Yield the life of a claim that goes without its finalizer and does not come back: its pool is garbage."""
    wish = Wish(name="stripped", sizes=(H100,), of_kaito=True)
    yield _at(rng, 0, FIRE * 0.2, Create(wish=wish))
    yield _at(rng, FIRE * 0.5, FIRE * 0.9, Delete(claim=wish.name, by_force=True))


def _accidents(rng: random.Random, wishes: list[Wish]) -> Iterator[Action]:
    for kind in (DeleteNode, DeletePool, LoseMachine):
        for wish in rng.sample(wishes, rng.randint(1, 2)):
            yield _at(rng, FIRE * 0.2, FIRE, kind(pool=wish.pool))


def _kills(rng: random.Random) -> Iterator[Action]:
    for _ in range(rng.randint(1, 2)):
        again = round(rng.uniform(20, 300), 1) if rng.random() < 0.3 else None
        yield _at(rng, FIRE * 0.05, FIRE * 0.95, Kill(down=round(rng.uniform(0, 200), 1), again=again))


def _faults_of_api(rng: random.Random) -> Iterator[Action]:
    """Yield what happens between the controller and the API server, and to the API server itself."""
    yield _at(rng, FIRE * 0.1, FIRE * 0.8, RestartApiServer())
    short = round(rng.uniform(200, 600), 1)
    faults: tuple[Spoil, ...] = (
        Spoil(fault=proxy.Disconnect(times=rng.randint(5, 15))),
        Spoil(fault=proxy.Disconnect(verb="patch", resource="nodeclaims*", after_effect=True, times=rng.randint(2, 5))),
        Spoil(fault=proxy.Disconnect(resource="nodes", after_effect=True, times=rng.randint(1, 4))),
        Spoil(fault=proxy.Disconnect(times=None), seconds=short),
        Spoil(fault=proxy.Answer(status=500, reason="InternalError", times=None), seconds=short),
        Spoil(fault=proxy.Answer(verb="patch", status=503, reason="ServiceUnavailable", times=rng.randint(2, 8))),
        Spoil(fault=proxy.Answer(status=429, reason="TooManyRequests", retry_after=1, times=rng.randint(2, 8))),
        Spoil(fault=proxy.Answer(verb="patch", status=409, reason="Conflict", times=rng.randint(2, 5))),
        Spoil(fault=proxy.StallWatch(resource="nodeclaims", times=None), seconds=short),
        Spoil(fault=proxy.StallWatch(resource="nodes", times=None), seconds=short),
        Spoil(fault=proxy.CutWatch(times=rng.randint(1, 4))),
        Spoil(fault=proxy.FailWatch(times=rng.randint(1, 2))),
        Spoil(fault=proxy.DropEvents(times=rng.randint(3, 10))),
        Spoil(fault=proxy.DelayEvents(seconds=0.8, times=rng.randint(10, 40))),
        Spoil(fault=proxy.Delay(verb="patch", seconds=0.5, after_effect=rng.random() < 0.5, times=rng.randint(2, 6))),
    )
    for deed in rng.sample(faults, 6):
        yield _at(rng, 0, FIRE * 0.8, deed)


def _faults_of_azure(rng: random.Random, wishes: list[Wish]) -> Iterator[Action]:
    """Yield what ARM answers, and how its operations turn out. What takes long to get over happens to few claims."""
    late = round(rng.uniform(50, LONGEST_DELAY), 1)
    general: tuple[azure.Fault, ...] = (
        azure.Answer(operation=_LIST, status=429, body=_THROTTLED, retry_after=round(rng.uniform(200, 500))),
        azure.Answer(operation=_LIST, status=503, body="<html/>", times=rng.randint(1, 2)),
        azure.Answer(operation=rng.choice((_PUT, _DELETE)), status=429, body=_THROTTLED, retry_after=300.0),
        azure.Answer(operation=rng.choice((_PUT, _DELETE)), status=500),
        azure.Answer(operation=_PUT, status=502, after_effect=True),
        azure.Disconnect(operation=rng.choice((_PUT, _DELETE, _LIST))),
        azure.Delay(operation=_PUT, seconds=late, after_effect=False, times=rng.randint(1, 3)),
        azure.Delay(operation=_DELETE, seconds=late, after_effect=rng.random() < 0.5, times=rng.randint(1, 3)),
        azure.Delay(operation=_LIST, seconds=late, after_effect=True, times=rng.randint(1, 3)),
        azure.Answer(operation="entra.token", status=503),
    )
    for fault in rng.sample(general, 6):
        yield _at(rng, 0, FIRE * 0.8, Spoil(fault=fault))
    # Whose answer is lost and whose operation fails is drawn by pool, lest it all happens to those that come first.
    of_pools: tuple[azure.Fault, ...] = (
        azure.Disconnect(operation=_PUT, after_effect=True),
        azure.Disconnect(operation=_PUT, after_effect=True),
        azure.Disconnect(operation=_DELETE, after_effect=True),
        azure.OperationFault(operation=_PUT, error=_NO_CAPACITY, machines=False),
        azure.OperationFault(operation=_PUT, error=_BROKEN, machines=rng.random() < 0.5),
        azure.OperationFault(operation=_PUT, outcome="Canceled", machines=rng.random() < 0.5),
        azure.OperationFault(operation=_PUT, outcome="Failed", after=FIRE * 0.8, machines=False),
        azure.OperationFault(operation=_PUT, outcome="Stuck"),
        azure.OperationFault(operation=_DELETE, error=_BROKEN, machines=rng.random() < 0.5),
        azure.OperationFault(operation=_DELETE, outcome="Failed", after=FIRE * 0.4, machines=False),
    )
    for fault, wish in zip(rng.sample(of_pools, 6), rng.sample(wishes, 6), strict=True):
        yield _at(rng, 0, FIRE * 0.3, Spoil(fault=fault.model_copy(update={"pool": wish.pool})))


def _faults_of_nodes(rng: random.Random, wishes: list[Wish]) -> Iterator[Action]:
    late = round(rng.uniform(100, FIRE), 1)
    faults = (
        nodes.Fault(kind=FaultKind.NEVER_JOINS),
        nodes.Fault(kind=FaultKind.JOINS_LATE, seconds=late),
        nodes.Fault(kind=FaultKind.NOT_READY),
        nodes.Fault(kind=FaultKind.KUBELET_STOPS),
        nodes.Fault(kind=FaultKind.GPUS_NEVER_REGISTER),
        nodes.Fault(kind=FaultKind.DRIVER_MISSING),
    )
    for fault, wish in zip(rng.sample(faults, 3), rng.sample(wishes, 3), strict=True):
        pool = nodes.Fault(kind=fault.kind, pool=wish.pool, seconds=fault.seconds)
        yield _at(rng, 0, FIRE * 0.5, Spoil(fault=pool, seconds=round(rng.uniform(FIRE * 0.1, FIRE), 1)))
