"""Whether the AKS cluster is running and no operation on it is going on: read when a decision needs it, for all."""

import asyncio
import logging
from collections.abc import Callable
from typing import Final, Protocol

from provisioner.azure.agentpools import ArmFailure, ManagedCluster

_log: Final = logging.getLogger(__name__)

# Seconds for which an answer holds, or a failure to get one: Nodes fall ill together, and one request serves them all.
# An upgrade that begins meanwhile takes longer than that before it touches the first node.
_FRESH: Final = 30.0


class ClusterReader(Protocol):
    """What reads the cluster; `AgentPools` does."""

    async def cluster(self) -> ManagedCluster:
        """Return the cluster as it is. Raises ArmFailure."""
        ...


class ClusterState:
    """What the cluster was last seen to do."""

    def __init__(self, arm: ClusterReader, *, clock: Callable[[], float]) -> None:
        """Take who reads it, and a clock in seconds."""
        self._arm = arm
        self._clock = clock
        self._reading = asyncio.Lock()
        self._asked_at: float | None = None
        self._is_settled: bool | None = None

    @property
    def is_settled(self) -> bool | None:
        """Tell whether the cluster runs and Azure does not work on it; None where nobody has asked lately."""
        return self._is_settled if self._is_fresh else None

    @property
    def _is_fresh(self) -> bool:
        return self._asked_at is not None and self._clock() - self._asked_at < _FRESH

    async def refresh(self) -> bool:
        """Read it, unless that was done just now. Returns whether it is known now; never raises."""
        async with self._reading:
            if not self._is_fresh:
                self._is_settled = None
                try:
                    self._is_settled = (await self._arm.cluster()).is_settled_running
                except ArmFailure as error:
                    _log.warning("the AKS cluster cannot be read", extra={"error": error.failure.message})
                self._asked_at = self._clock()
            return self._is_settled is not None
