"""Leader election as part of a controller's run: before it begins, beside it, and at its end."""

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Final

from provisioner.kube.lease import LeaderElection
from provisioner.kube.metrics import Registry
from provisioner.kube.objects import Objects
from provisioner.kube.running import background
from provisioner.settings import ControllerSettings

# Seconds. Whoever waits looks at the Lease every second; that long without an answer, it could not take over either.
_UNHEARD: Final = 30.0
# Seconds. Nothing that the process waits for at its end takes as long.
_OVERSTAYED: Final = 30.0


class Leadership:
    """Whether this instance may act: always, or only while it holds the Lease. Made before whatever acts."""

    def __init__(
        self,
        settings: ControllerSettings,
        *,
        objects: Objects,
        name: str,
        now: Callable[[], datetime],
        metrics: Registry,
    ) -> None:
        """Take a connection that is not fenced by this, or the Lease itself could not be had."""
        self._election: LeaderElection | None = None
        if settings.leader_election:
            self._election = LeaderElection(
                objects,
                namespace=settings.lease_namespace,
                name=name,
                # Two processes of one host, or two lives of one pod, are not the same candidate.
                identity=f"{socket.gethostname()}_{os.getpid()}_{os.urandom(4).hex()}",
                now=now,
                metrics=metrics,
            )

    def may_act(self) -> bool:
        """Tell whether nobody else can be acting at this moment, whatever has held this process up until now."""
        return self._election is None or self._election.may_act

    @property
    def is_waiting(self) -> bool:
        """Tell whether it is not yet this instance's turn."""
        return self._election is not None and not self._election.is_leader

    def stuck(self) -> Iterable[str]:
        """Return what keeps a process from its end that has lost the Lease."""
        if self._election is not None and (seconds := self._election.overstayed) > _OVERSTAYED:
            yield f"the Lease was lost {seconds:.0f} s ago, and the process has not come to its end"

    def unready(self) -> Iterable[str]:
        """Return why this instance could not take over if it had to."""
        if self._election is None:
            return
        heard = self._election.heard_at
        if heard is None:
            yield "the API server has not answered yet: nothing is known of the Lease"
        elif (silent := asyncio.get_running_loop().time() - heard) > _UNHEARD:
            yield f"the API server has not answered for {silent:.0f} s: nothing is known of the Lease"

    @asynccontextmanager
    async def acting(self, stop: asyncio.Event) -> AsyncIterator[bool]:
        """Run the body as the one instance that acts, where several share the work; at once where they do not.

        Gives False where `stop` was set before it came to that. Raises LeadershipLost out of the body once another
        instance may be about to take over: the process has to end. The Lease is let go only after the body has ended.
        """
        election = self._election
        if election is None:
            yield True
            return
        if not await election.acquire(stop):
            yield False
            return
        try:
            async with background(election.keep()):
                yield True
        finally:
            await election.release()
