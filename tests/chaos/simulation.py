"""One history from its seed: trouble, then quiet, then the end of all claims."""

import logging
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from provisioner.settings import Settings
from tests.chaos.apiserver import ApiServer
from tests.chaos.arm import Arm
from tests.chaos.azure import Azure
from tests.chaos.invariants import Invariants
from tests.chaos.memory import remembered
from tests.chaos.nodes import Kubelets
from tests.chaos.objects import CLAIMS, Change, Objects
from tests.chaos.program import FLAWLESS, Flaw, Program
from tests.chaos.scenario import Scenario
from tests.chaos.world import World

# Seconds. Longer than an operation that is stuck, a registration that times out, and a deletion, one after the other.
_QUIET: Final = 3600.0
# Longer than a deletion when nothing is stuck any more, and than a round of garbage collection after it.
_END: Final = 900.0
# The last seconds of the quiet time, and what an idle controller may do in them: its LISTs, and no write but what
# claims that wait have to say; and what it takes to serve one whose turn has come only then.
_IDLE: Final = 600.0
_IDLE_REQUESTS: Final = 150
_IDLE_WRITES: Final = 20
_WRITES_OF_A_CLAIM: Final = 12
# Where it has nothing to write either: one LIST for itself and one for the garbage collection every two minutes.
_IDLE_LISTS: Final = 14
_VERBS: Final = ("create", "delete", "list")


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of a seed; `broken` is the invariant that did not hold, else empty."""

    seed: int
    broken: str
    hours: float
    steps: int
    counts: Counter[str]


class Simulation:
    """One world with everybody in it."""

    def __init__(self, seed: int, *, tell: Callable[[str], None] | None = None, flaw: Flaw = FLAWLESS) -> None:
        self._flaw = flaw
        self.world = World(seed, tell=tell)
        dice = self.world.dice("settings")
        self.objects = Objects(now=self.world.now)
        self.azure = Azure(self.world)
        self.kubelets = Kubelets(self.world, self.objects, self.azure)
        self.invariants = Invariants(self.world, self.objects, self.azure)
        self.server = ApiServer(self.world, self.objects)
        self.arm = Arm(self.world, self.azure)
        self.settings = Settings(
            subscription_id=self.azure.ids.subscription,
            resource_group=self.azure.ids.resource_group,
            cluster_name=self.azure.ids.cluster,
            deployment_mode="managed",
            pricing_endpoint="none",
            workers=dice.pick((1, 2, 5, 20)),
            busy_interval=dice.pick((10.0, 30.0)),
            idle_interval=dice.pick((120.0, 300.0)),
            garbage_interval=dice.pick((120.0, 300.0)),
            capacity_retry=dice.pick((300.0, 3600.0)),
        )
        self.programs: list[Program] = []
        self.seen: dict[str, str] = {}
        self.objects.on_change.append(self._note)
        self.scenario = Scenario(
            self.world, server=self.server, arm=self.arm, kubelets=self.kubelets, start_program=self.make_program
        )

    def make_program(self) -> Program:
        """Return another run of the controller."""
        number = len(self.programs) + 1
        self.invariants.run_began = self.world.loop.time()
        program = Program(self.world, self.server, self.arm, settings=self.settings, number=number, flaw=self._flaw)
        self.programs.append(program)
        return program

    def run(self) -> Outcome:
        """Live through the whole history, or to where it breaks."""
        with _logs(self.world):
            try:
                self._run()
                return self._outcome()
            finally:
                self.world.loop.close()

    def _outcome(self) -> Outcome:
        world, loop = self.world, self.world.loop
        counts = Counter({**world.counts, "claims": self.scenario.written})
        return Outcome(seed=world.seed, broken=world.broken, hours=loop.time() / 3600, steps=loop.steps, counts=counts)

    def _run(self) -> None:
        world, loop = self.world, self.world.loop
        world.faults_on = True
        self.scenario.begin()
        loop.run_to(self.scenario.length)
        world.trace("quiet", "from here on everything is well")
        self.scenario.calm()
        loop.run_to(loop.time() + _QUIET - _IDLE)
        before = Counter(world.counts)
        loop.run_to(loop.time() + _IDLE)
        if world.broken:
            return
        self.invariants.check_rest()
        self._check_idle(before)
        world.trace("end", "all claims are deleted")
        self.scenario.delete_all()
        loop.run_to(loop.time() + _END)
        if world.broken:
            return
        self.invariants.check_nothing_left()
        self._check_memory()

    def _check_idle(self, before: Counter[str]) -> None:
        counts = self.world.counts
        requests = sum(counts[key] - before[key] for key in counts if key.startswith(("arm ", "kube requests")))
        writes = counts["kube writes"] - before["kube writes"]
        asks = {key: counts[f"arm agentpools.{key}"] - before[f"arm agentpools.{key}"] for key in _VERBS}
        if not writes and not asks["create"] and not asks["delete"] and asks["list"] > _IDLE_LISTS:
            self.world.violate(f"the controller lists agent pools {asks['list']} times in 10 min, and waits for none")
        served = counts["pools created"] - before["pools created"]
        if requests > _IDLE_REQUESTS or writes > _IDLE_WRITES + served * _WRITES_OF_A_CLAIM:
            self.world.violate(f"the controller does not come to rest: {requests} requests, {writes} writes in 10 min")

    def _check_memory(self) -> None:
        parts = self.scenario.program.parts
        if parts is None:
            self.world.violate("the controller does not run")
            return
        # A user's pool that has the name of a claim is in every LIST.
        names = {name for name in self.seen if name not in self.azure.pools}
        for where in remembered(parts, names):
            self.world.violate(f"all claims are gone, and the controller remembers one in {where}")

    def _note(self, change: Change) -> None:
        if change.plural == CLAIMS:
            metadata = change.last["metadata"]
            self.seen[metadata["uid"]] = self.seen[metadata["name"]] = metadata["name"]


class _Handler(logging.Handler):
    """Takes the controller's log: an error is a defect, the rest belongs to the time line."""

    def __init__(self, world: World) -> None:
        super().__init__()
        self._world = world

    def emit(self, record: logging.LogRecord) -> None:
        if record.levelno >= logging.ERROR:
            cause = record.exc_info[1] if record.exc_info else None
            self._world.violate(f"the controller reports a defect: {record.getMessage()}: {cause!r}")
        self._world.trace("log", f"{record.levelname.lower()} {record.getMessage()}")


@contextmanager
def _logs(world: World) -> Iterator[None]:
    logger, handler = logging.getLogger("provisioner"), _Handler(world)
    level, propagate = logger.level, logger.propagate
    logger.setLevel(logging.INFO if world.is_traced else logging.ERROR)
    logger.addHandler(handler)
    logger.propagate = False
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
        logger.propagate = propagate


def simulate(seed: int, *, tell: Callable[[str], None] | None = None, flaw: Flaw = FLAWLESS) -> Outcome:
    """Run one seed, with a controller that is as it is or has a flaw."""
    return Simulation(seed, tell=tell, flaw=flaw).run()
