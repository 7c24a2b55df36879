"""Leader election by a Lease: of several instances of a controller one acts, and another takes over when it goes.

coordination.k8s.io/v1, by client-go's rules: whoever holds the Lease renews it; it is another's once its holder has let
it go, or has not renewed it for its duration by the clock of whoever looks, since clocks of machines differ.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from provisioner.kube.errors import Conflict, Gone, KubeError
from provisioner.kube.metrics import Registry
from provisioner.kube.objects import Kind, Objects

_log: Final = logging.getLogger(__name__)

LEASE: Final = Kind(api_version="coordination.k8s.io/v1", kind="Lease", plural="leases")

# Seconds, client-go's defaults. A holder that cannot renew gives up before anybody else may begin.
DURATION: Final = 15.0
RENEW_DEADLINE: Final = 10.0
RETRY: Final = 2.0
# Seconds for one attempt: one that hangs leaves time for others before the deadline.
_ATTEMPT: Final = 4.0
# Seconds between looks of those that wait: a hand-over is to be had within one.
LOOK: Final = 1.0


class LeadershipLost(Exception):
    """The Lease could not be renewed in time: somebody else acts by now."""


@dataclass(frozen=True, kw_only=True)
class _Seen:
    """A Lease as somebody else has it, and since when it has not changed, by our own clock."""

    holder: str
    version: str
    since: float


class LeaderElection:
    """One candidate. `identity` is its own name, unique among the candidates."""

    def __init__(
        self,
        objects: Objects,
        *,
        namespace: str,
        name: str,
        identity: str,
        now: Callable[[], datetime],
        metrics: Registry,
    ) -> None:
        self._objects = objects
        self._namespace = namespace
        self._name = name
        self._identity = identity
        self._now = now
        self._seen: _Seen | None = None
        self._version = ""
        # When the last request that has made the Lease ours, or kept it so, was sent: others reckon from when it was
        # carried out, which is later. When it was answered may be later still, and would promise too much.
        self._renewed = 0.0
        self._is_leader = False
        self._heard_at: float | None = None
        gauge = metrics.gauge(
            "leader_election_master_status", text="1 where this instance acts, 0 where it waits.", labels=("name",)
        )
        metrics.before_scrape(lambda: gauge.set(1 if self._is_leader else 0, name=name))

    @property
    def is_leader(self) -> bool:
        """Tell whether this instance acts."""
        return self._is_leader

    @property
    def may_act(self) -> bool:
        """Tell whether the Lease cannot be another's yet: by the clock, for whoever cannot wait to be told.

        `keep` finds out a few turns of the event loop later, after whatever else was due in a process that was stopped.
        """
        return self._is_leader and self._left() > 0

    @property
    def overstayed(self) -> float:
        """Return for how many seconds the Lease that was ours has been lost, 0 where it has not been."""
        return max(0.0, -self._left()) if self._renewed else 0.0

    @property
    def heard_at(self) -> float | None:
        """Return when the API server last answered about the Lease (loop time), None before it ever has."""
        return self._heard_at

    async def acquire(self, stop: asyncio.Event) -> bool:
        """Wait until the Lease is ours. Returns False where we were stopped meanwhile."""
        told = ""
        loop = asyncio.get_running_loop()
        while not stop.is_set():
            started = loop.time()
            try:
                async with asyncio.timeout(_ATTEMPT):
                    is_ours = await self._try()
                self._heard_at = loop.time()
            except (KubeError, TimeoutError) as error:
                _log.warning("the Lease cannot be had", extra={"lease": self._name, "error": str(error)})
            else:
                if is_ours:
                    self._renewed, self._is_leader = started, True
                    _log.info("this instance acts from now on", extra={"lease": self._name, "identity": self._identity})
                    return True
            if self._seen is not None and self._seen.holder != told:
                told = self._seen.holder
                _log.info("another instance acts; waiting", extra={"lease": self._name, "holder": told})
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LOOK):
                    await stop.wait()
        return False

    async def keep(self) -> None:
        """Renew until cancelled. Raises LeadershipLost where that has failed for too long."""
        try:
            while True:
                await asyncio.sleep(min(RETRY, max(self._left(), 0.0)))
                await self._renew()
        except LeadershipLost:
            self._is_leader = False
            raise

    async def release(self) -> None:
        """Let the Lease go, so that another instance takes over at once."""
        if not self._is_leader:
            return
        self._is_leader = False
        try:
            async with asyncio.timeout(_ATTEMPT):
                await self._write({"holderIdentity": "", "leaseDurationSeconds": 1, "renewTime": self._time()})
        except (KubeError, TimeoutError, LeadershipLost) as error:
            _log.info("the Lease was not let go; it runs out", extra={"lease": self._name, "error": str(error)})

    def _left(self) -> float:
        return self._renewed + RENEW_DEADLINE - asyncio.get_running_loop().time()

    async def _try(self) -> bool:
        raw = await self._objects.get(LEASE, self._namespace, self._name)
        if raw is None:
            return await self._create()
        spec, version = raw.get("spec") or {}, str(raw["metadata"]["resourceVersion"])
        holder = str(spec.get("holderIdentity") or "")
        now = asyncio.get_running_loop().time()
        if self._seen is None or (self._seen.holder, self._seen.version) != (holder, version):
            self._seen = _Seen(holder=holder, version=version, since=now)
        duration = spec.get("leaseDurationSeconds")
        patience = float(duration) if isinstance(duration, int) else DURATION
        if holder and holder != self._identity and now - self._seen.since < patience:
            return False
        self._version = version
        transitions = spec.get("leaseTransitions")
        passed = transitions if isinstance(transitions, int) else 0
        try:
            await self._patch(
                {
                    "holderIdentity": self._identity,
                    "leaseDurationSeconds": int(DURATION),
                    "acquireTime": self._time(),
                    "renewTime": self._time(),
                    # Where it is ours already, the answer to an earlier attempt was lost.
                    "leaseTransitions": passed + (holder != self._identity),
                }
            )
        except Conflict:
            return False
        return True

    async def _create(self) -> bool:
        body = {
            "apiVersion": LEASE.api_version,
            "kind": LEASE.kind,
            "metadata": {"name": self._name, "namespace": self._namespace},
            "spec": {
                "holderIdentity": self._identity,
                "leaseDurationSeconds": int(DURATION),
                "acquireTime": self._time(),
                "renewTime": self._time(),
                "leaseTransitions": 0,
            },
        }
        try:
            raw = await self._objects.create(LEASE, body)
        except Conflict:
            return False
        self._version = str(raw["metadata"]["resourceVersion"])
        return True

    async def _renew(self) -> None:
        """Renew once; what keeps that from being done is made good by the next time, up to the deadline."""
        started = asyncio.get_running_loop().time()
        if self._left() <= 0:
            raise LeadershipLost(f"Lease {self._name} could not be renewed for {RENEW_DEADLINE:g} s")
        try:
            async with asyncio.timeout(min(_ATTEMPT, self._left())):
                await self._write({"renewTime": self._time()})
        except (KubeError, TimeoutError) as error:
            _log.warning("the Lease was not renewed", extra={"lease": self._name, "error": str(error)})
        else:
            self._renewed, self._heard_at = started, asyncio.get_running_loop().time()

    async def _write(self, spec: dict[str, Any]) -> None:
        """Write the Lease that is ours. Raises LeadershipLost where it is ours no more."""
        try:
            await self._patch(spec)
        except Gone as error:
            # Whoever looks next makes a new one.
            raise LeadershipLost(f"Lease {self._name} was deleted") from error
        except Conflict as error:
            # An own write whose answer was lost, or somebody has labelled it: the holder decides.
            raw = await self._objects.get(LEASE, self._namespace, self._name)
            holder = str(((raw or {}).get("spec") or {}).get("holderIdentity") or "")
            if raw is None or holder != self._identity:
                raise LeadershipLost(f"Lease {self._name} was taken over by {holder or 'nobody'}") from error
            self._version = str(raw["metadata"]["resourceVersion"])
            await self._patch(spec)

    async def _patch(self, spec: dict[str, Any]) -> None:
        raw = await self._objects.patch(
            LEASE, self._namespace, self._name, {"spec": spec}, resource_version=self._version
        )
        self._version = str(raw["metadata"]["resourceVersion"])

    def _time(self) -> str:
        # MicroTime: seconds alone are refused.
        return self._now().strftime("%Y-%m-%dT%H:%M:%S.%fZ")
