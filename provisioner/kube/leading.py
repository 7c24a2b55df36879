"""Leader election as part of a controller's run: before it begins, beside it, and at its end."""

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import datetime

from provisioner.kube.lease import LeaderElection
from provisioner.kube.metrics import Registry
from provisioner.kube.objects import Objects
from provisioner.kube.running import background
from provisioner.settings import ControllerSettings


@asynccontextmanager
async def leading(
    settings: ControllerSettings,
    *,
    objects: Objects,
    name: str,
    stop: asyncio.Event,
    now: Callable[[], datetime],
    metrics: Registry,
) -> AsyncIterator[bool]:
    """Run the body as the one instance that acts, where several are to share the work; at once where they are not.

    Gives False where `stop` was set before it came to that. Raises LeadershipLost out of the body once another instance
    may have taken over: the process has to end. The Lease is let go only after the body has ended.
    """
    if not settings.leader_election:
        yield True
        return
    election = LeaderElection(
        objects,
        namespace=settings.lease_namespace,
        name=name,
        # Two processes of one host, or two lives of one pod, are not the same candidate.
        identity=f"{socket.gethostname()}_{os.getpid()}_{os.urandom(4).hex()}",
        now=now,
        metrics=metrics,
    )
    if not await election.acquire(stop):
        yield False
        return
    try:
        async with background(election.keep()):
            yield True
    finally:
        await election.release()
