"""Time that stands still until a test moves it, and a cluster in it."""

from fakes.azure.clock import Clock, Timeline
from fakes.azure.cluster import Cluster
from fakes.azure.faults import FaultBook
from fakes.azure.ids import ResourceIds
from fakes.azure.settings import Settings


class ManualTime:
    """A source of real seconds for a `Clock`."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds

    def advance(self, seconds: float) -> None:
        self.seconds += seconds


class SimulatedCluster:
    """A cluster, the time it lives in (one simulated second a second), its settings and its faults."""

    def __init__(self, settings: Settings | None = None) -> None:
        self.time = ManualTime()
        self.settings = settings or Settings(scale=1)
        self.faults = FaultBook()
        self.timeline = Timeline(Clock(source=self.time))
        self.cluster = Cluster(
            ResourceIds(),
            settings=self.settings,
            timeline=self.timeline,
            fate=self.faults.outcome,
            kubernetes_version="1.34.2",
        )

    def advance(self, seconds: float) -> None:
        self.time.advance(seconds)
        self.timeline.advance()

    def machine_names(self, pool: str) -> list[str]:
        return [machine.name for machine in self.cluster.machines() if machine.pool == pool]
