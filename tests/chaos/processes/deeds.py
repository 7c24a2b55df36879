"""What can be done to a controller and its world, in words that can be printed."""

from dataclasses import dataclass, fields

from fakes import azure, nodes, proxy
from fakes.nodes import FaultKind
from provisioner.nodeclaim.agentpool_spec import pool_name


@dataclass(frozen=True, kw_only=True)
class Wish:
    """A claim that will be written: of KAITO's shape, with one size, or a plain one, with a choice."""

    name: str
    sizes: tuple[str, ...]
    of_kaito: bool
    # Whether a user's agent pool has the name that the claim's would get.
    evades: bool = False

    @property
    def pool(self) -> str:
        """Return the name of its agent pool."""
        return pool_name(self.name, alternative=self.evades)


@dataclass(frozen=True, kw_only=True)
class Create:
    """The claim is written; where one of its name is still there, as soon as that is gone."""

    wish: Wish


@dataclass(frozen=True, kw_only=True)
class Delete:
    """The claim is deleted; `by_force` its finalizers are taken off too."""

    claim: str
    by_force: bool = False


@dataclass(frozen=True, kw_only=True)
class DeleteNode:
    """Somebody deletes the Node of a claim's agent pool."""

    pool: str


@dataclass(frozen=True, kw_only=True)
class DeletePool:
    """Somebody deletes a claim's agent pool in the portal."""

    pool: str


@dataclass(frozen=True, kw_only=True)
class LoseMachine:
    """The VM of a claim's agent pool vanishes, and the pool does not notice."""

    pool: str


@dataclass(frozen=True, kw_only=True)
class Kill:
    """The controller is killed with -9, and started again after so many simulated seconds.

    Once more so many simulated seconds after that start, if not None: most often before it has begun to work.
    """

    down: float
    again: float | None = None


@dataclass(frozen=True, kw_only=True)
class KillAtPut:
    """The controller is killed while its PUT for the claim is under way, the claim perhaps deleted, and it is started.

    Under way is a PUT that a fault of Azure's for that pool holds up.
    """

    claim: str
    deleted: bool


@dataclass(frozen=True, kw_only=True)
class RestartApiServer:
    """The API server is killed and started again."""


@dataclass(frozen=True, kw_only=True)
class Spoil:
    """A fault of Azure, of the nodes or between controller and API server.

    For so many simulated seconds at most; None: until it has hit as often as it says, or all faults cease.
    """

    fault: azure.Fault | nodes.Fault | proxy.Fault
    seconds: float | None = None


Deed = Create | Delete | DeleteNode | DeletePool | LoseMachine | Kill | KillAtPut | RestartApiServer | Spoil


@dataclass(frozen=True, kw_only=True)
class Action:
    """A deed, and when it is done, in simulated seconds."""

    at: float
    deed: Deed

    def __str__(self) -> str:
        return f"{self.at:7.1f}  {_text(self.deed)}"


@dataclass(frozen=True, kw_only=True)
class Script:
    """All actions of a run in their order."""

    seed: int
    actions: tuple[Action, ...]

    def __str__(self) -> str:
        return "\n".join(str(action) for action in self.actions)

    @property
    def slow_to_join(self) -> frozenset[str]:
        """Return the agent pools whose Nodes are kept from joining, for so long perhaps that they are given up."""
        return frozenset(
            action.deed.fault.pool
            for action in self.actions
            if isinstance(action.deed, Spoil)
            and isinstance(action.deed.fault, nodes.Fault)
            and action.deed.fault.kind in (FaultKind.NEVER_JOINS, FaultKind.JOINS_LATE, FaultKind.KUBELET_STOPS)
        )

    @property
    def late_puts(self) -> dict[str, float]:
        """Return by how many simulated seconds PUTs of single agent pools are late."""
        faults = [action.deed.fault for action in self.actions if isinstance(action.deed, Spoil)]
        return {
            f.pool: f.seconds
            for f in faults
            if isinstance(f, azure.Delay) and f.operation == "agentPools.put" and f.pool != "*"
        }


def _text(deed: Deed) -> str:
    match deed:
        case Spoil(fault=fault, seconds=seconds):
            return f"Spoil {_fault_text(fault)}" + (f" for {seconds:g} s" if seconds is not None else "")
        case Create(wish=wish):
            return f"Create {wish.name}: {'KAITO asks' if wish.of_kaito else 'asks'} for {' or '.join(wish.sizes)}"
        case _:
            return str(deed)


def _fault_text(fault: azure.Fault | nodes.Fault | proxy.Fault) -> str:
    """Return a fault without what it leaves at its default."""
    if isinstance(fault, azure.Answer | azure.Delay | azure.Disconnect | azure.OperationFault):
        room, given = "azure", fault.model_dump(exclude_defaults=True, exclude={"body", "error"})
    else:
        room = "nodes" if isinstance(fault, nodes.Fault) else "proxy"
        given = {each.name: getattr(fault, each.name) for each in fields(fault)}
        given = {each.name: given[each.name] for each in fields(fault) if given[each.name] != each.default}
    return f"{room}.{type(fault).__name__}({', '.join(f'{key}={_bare(value)!r}' for key, value in given.items())})"


def _bare(value: object) -> object:
    return value.value if isinstance(value, FaultKind) else value
