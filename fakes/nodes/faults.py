"""What can go wrong with a node, on request."""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from fnmatch import fnmatchcase

from fakes.nodes.machines import Machine


class FaultKind(StrEnum):
    """The faults. Each holds as long as it is not cleared; clearing it heals what can heal."""

    NEVER_JOINS = "never-joins"
    """The VM runs, its Node never registers (bootstrap failed, no route to the API server)."""
    JOINS_LATE = "joins-late"
    """Registration takes `seconds` longer."""
    NOT_READY = "not-ready"
    """The kubelet lives and reports Ready=False: from the start, or from now on."""
    KUBELET_STOPS = "kubelet-stops"
    """Heartbeats stop; after the grace period the Node is Ready=Unknown. Its pods are frozen, no Node registers."""
    VANISHES = "vanishes"
    """The Node object is deleted while the VM lives."""
    GPUS_NEVER_REGISTER = "gpus-never-register"
    """The device plugin runs, yet the kubelet never learns of GPUs."""
    FEWER_GPUS = "fewer-gpus"
    """Only `gpus` GPUs register: the others fell off the bus."""
    DRIVER_MISSING = "driver-missing"
    """No GPU driver: the device plugin crashes in a loop and no GPU registers."""


@dataclass(frozen=True, kw_only=True)
class Fault:
    """One fault, on the machines whose pool and name match the two globs."""

    kind: FaultKind
    pool: str = "*"
    node: str = "*"
    seconds: float = 0.0
    gpus: int = 0

    def hits(self, machine: Machine) -> bool:
        """Whether the machine suffers from it."""
        return fnmatchcase(machine.pool, self.pool) and fnmatchcase(machine.name, self.node)


class Faults:
    """The faults in force; tells `on_change` after each change."""

    def __init__(self, *, on_change: Callable[[], None]) -> None:
        self._faults: list[Fault] = []
        self._on_change = on_change

    def add(self, fault: Fault) -> None:
        """Put a fault in force, before all older ones of its kind."""
        self._faults.insert(0, fault)
        self._on_change()

    def clear(self, fault: Fault | None = None) -> None:
        """Take one fault (all equal ones) out of force, or all."""
        self._faults = [] if fault is None else [other for other in self._faults if other != fault]
        self._on_change()

    def find(self, kind: FaultKind, machine: Machine) -> Fault | None:
        """Return the newest fault of a kind that hits the machine."""
        return next((fault for fault in self._faults if fault.kind is kind and fault.hits(machine)), None)

    def of(self, machine: Machine) -> tuple[FaultKind, ...]:
        """Return the kinds of all faults that hit the machine."""
        return tuple(dict.fromkeys(fault.kind for fault in self._faults if fault.hits(machine)))
