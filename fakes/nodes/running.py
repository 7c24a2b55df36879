"""What really runs the containers of pods, where they are not only simulated: the interface, and what it tells."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Protocol

from fakes.nodes.api import Object
from fakes.nodes.pod_plan import Stage

Read = Callable[[str], Awaitable[Object]]
"""Returns the object at a path of the API. Raises as KubeApi.call does."""


@dataclass(frozen=True, kw_only=True)
class ContainerRun:
    """How a container stands: `state` and `last` are ContainerStates as the API writes them.

    `over` is one that has ended and is not started again.
    """

    name: str
    state: Object
    last: Object = field(default_factory=dict)
    restarts: int = 0
    ready: bool = False
    started: bool = False
    over: bool = False

    @property
    def succeeded(self) -> bool:
        """Whether it has come to its end with exit code 0."""
        return self.over and self.state.get("terminated", {}).get("exitCode") == 0


@dataclass(frozen=True, kw_only=True)
class PodRun:
    """How the containers of a pod stand."""

    containers: tuple[ContainerRun, ...]
    init_containers: tuple[ContainerRun, ...] = ()

    @property
    def stage(self) -> Stage:
        """Return what that is for the pod."""
        if any(one.over and not one.succeeded for one in self.init_containers):
            return Stage.FAILED
        if all(one.over for one in self.containers):
            return Stage.SUCCEEDED if all(one.succeeded for one in self.containers) else Stage.FAILED
        if not all(one.succeeded for one in self.init_containers):
            return Stage.CREATING
        if all("waiting" in one.state and not one.restarts and not one.last for one in self.containers):
            return Stage.CREATING
        return Stage.READY if all(one.ready for one in self.containers) else Stage.RUNNING


class RunningPod(Protocol):
    """A pod that runs."""

    def look(self) -> PodRun:
        """Return how it stands."""

    def stop(self, *, grace: float) -> None:
        """Have it end within so many real seconds; the shortest that was ever asked for counts."""

    @property
    def ended(self) -> bool:
        """Whether nothing of it runs or will run any more."""

    async def kill(self) -> None:
        """End it without a word, and return once nothing of it runs."""


class Runner(Protocol):
    """Runs pods. What it runs takes real seconds, whatever the clock of the nodes says."""

    def takes(self, pod: Object) -> bool:
        """Whether it runs this pod; all others are simulated."""

    def start(self, pod: Object, *, address: str, read: Read, on_change: Callable[[], None]) -> RunningPod:
        """Start a pod that has this address; `on_change` is told whenever it stands otherwise than before."""
