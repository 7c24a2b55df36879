"""What a measurement runs in: a whole AKS, the controller as a process, and a client that notes when it saw what.

Everything shares this machine: the control plane, the fake Azure and its nodes, and the proxy that counts requests. So
the seconds are the machine's, CPU, memory and requests are the controller's own.
"""

import asyncio
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import aiohttp

from fakes.aks import FakeAks
from fakes.azure.settings import Settings as AzureSettings
from fakes.cluster.components import free_port
from fakes.cluster.embedded import EmbeddedCluster
from fakes.cluster.interface import ControlPlane
from fakes.cluster.real import RealCluster
from fakes.controller import ControllerProcess
from fakes.nodes import NodeSettings
from fakes.nodes.api import ApiError, KubeApi, Object
from fakes.nodes.reflector import Reflector
from fakes.proxy import CallLog, FaultProxy
from provisioner.settings import Settings, source_of
from tests.benchmarks.measure import Usage
from tests.claims import kaito_claim
from tests.kube import CLAIMS, condition

CONTROL_PLANES: Final[Mapping[str, Callable[[], ControlPlane]]] = {"embedded": EmbeddedCluster, "real": RealCluster}

_WRITES_AT_ONCE: Final = 50
_CHECK_INTERVAL: Final = 0.05
_LOG_LINES: Final = 15
# Pools and Nodes beside those of the claims.
_SPARE: Final = 10
# What the controller watches: claims, node classes, Nodes, CRDs.
_WATCHES: Final = 4
# The Node joins so many seconds after the operation has ended, and its GPUs come after so many more.
_JOIN_SECONDS: Final = 1.0
_GPU_SECONDS: Final = 2.0
# Real seconds between two Leases of a Node: twice what a kubelet takes, and half of what is noticed. A thousand Nodes
# of this process would otherwise need more of the machine than the controller.
_LEASE_SECONDS: Final = 20.0
# Enough for every family, whatever the number of claims.
_PLENTY: Final = 1_000_000
# The controller's settings that are in seconds of Azure's time, and the shortest that they take.
_INTERVALS: Final = (
    "busy_interval",
    "idle_interval",
    "garbage_interval",
    "quota_interval",
    "registration_timeout",
    "launch_timeout",
)
_SHORTEST: Final = 1.0
# Reasons of Launched that tell of no trouble.
_GOES_WELL: Final = ("AwaitingReconciliation", "CreatingAgentPool", "Launched")


class BenchmarkError(Exception):
    """It did not come to its end."""


@dataclass
class Progress:
    """When each claim was first seen in a state, in simulated seconds, by the claim's name.

    It is `told` when its Launched condition says what is in the way.
    """

    posted: dict[str, float] = field(default_factory=dict)
    told: dict[str, float] = field(default_factory=dict)
    launched: dict[str, float] = field(default_factory=dict)
    registered: dict[str, float] = field(default_factory=dict)
    ready: dict[str, float] = field(default_factory=dict)
    deleted: dict[str, float] = field(default_factory=dict)
    gone: dict[str, float] = field(default_factory=dict)
    node: dict[str, str] = field(default_factory=dict)

    def take(self, name: str, claim: Object | None, *, now: float) -> None:
        """Take a change of a claim, None where it is gone."""
        if claim is None:
            self.gone.setdefault(name, now)
            return
        conditions = {kind: condition(claim, kind) for kind in ("Launched", "Registered", "Ready")}
        if conditions["Launched"].get("reason", "AwaitingReconciliation") not in _GOES_WELL:
            self.told.setdefault(name, now)
        for kind, seen in (("Launched", self.launched), ("Registered", self.registered), ("Ready", self.ready)):
            if conditions[kind].get("status") == "True":
                seen.setdefault(name, now)
        if node := (claim.get("status") or {}).get("nodeName"):
            self.node[name] = node

    def since(self, begun: Mapping[str, float], until: Mapping[str, float]) -> list[float]:
        """Return the seconds from one to the other of all claims that have come so far."""
        return [at - begun[name] for name, at in until.items() if name in begun]


@dataclass(kw_only=True)
class World:
    """What runs. `scale` is simulated seconds a real second."""

    aks: FakeAks
    requests: CallLog
    controller: ControllerProcess
    client: KubeApi
    progress: Progress
    health_url: str
    scale: float
    patience: float

    @property
    def pid(self) -> int:
        """Return the controller's process ID."""
        return self.controller.process.pid

    def now(self) -> float:
        """Return the simulated time."""
        return self.aks.azure.clock.now()

    def usage(self) -> Usage:
        """Return what the controller has used up to now."""
        return Usage.now(self.pid, kube=self.requests, arm=self.aks.azure.calls)

    async def post(self, names: Iterable[str], *, claim: Callable[[str], Object] = kaito_claim) -> None:
        """Create claims, all at once."""

        async def one(name: str) -> None:
            self.progress.posted[name] = self.now()
            await self.client.call("POST", CLAIMS, body=claim(name))

        await _all(one, names)

    async def delete(self, names: Iterable[str]) -> None:
        """Delete claims, all at once."""

        async def one(name: str) -> None:
            self.progress.deleted[name] = self.now()
            await self.client.call("DELETE", f"{CLAIMS}/{name}")

        await _all(one, names)

    async def until(self, number: Callable[[], int], wanted: int, *, what: str) -> None:
        """Wait until a number has come to what is wanted. Raises BenchmarkError."""
        told = -1
        try:
            async with asyncio.timeout(self.patience):
                while (seen := number()) < wanted:
                    if self.controller.process.returncode is not None:
                        raise BenchmarkError(f"the controller has ended with {self.controller.process.returncode}")
                    if seen != told:
                        tell(f"\r{seen} of {wanted} {what} ")
                        told = seen
                    await asyncio.sleep(_CHECK_INTERVAL)
        except TimeoutError:
            raise BenchmarkError(f"only {number()} of {wanted} are {what} after {self.patience:g} s") from None
        finally:
            tell("\r\x1b[K")

    async def until_watching(self, *, watches: int = _WATCHES) -> None:
        """Wait until the controller has so many watches open: what is asked for once at the start is no claim's."""
        await self.until(lambda: self.requests.count("watch"), watches, what="watches open")

    async def restart(self) -> float:
        """Kill the controller and start it again; return when, in seconds of `time.monotonic`."""
        await self.controller.kill()
        begun = time.monotonic()
        await self.controller.start()
        return begun

    async def readyz(self) -> float:
        """Wait until /readyz says yes, and return when, in seconds of `time.monotonic`. Raises BenchmarkError."""
        deadline = time.monotonic() + self.patience
        async with aiohttp.ClientSession() as session:
            while time.monotonic() < deadline:
                try:
                    async with session.get(f"{self.health_url}/readyz") as answer:
                        if answer.status == 200:
                            return time.monotonic()
                except aiohttp.ClientError:
                    pass
                await asyncio.sleep(_CHECK_INTERVAL)
        raise BenchmarkError("the controller does not become ready")


@asynccontextmanager
async def world(
    cluster: str, *, claims: int, operation: float, retry_after: float | None, scale: float, patience: float
) -> AsyncIterator[World]:
    """Run everything for so many claims, with operations of so many simulated seconds.

    The controller has its default settings, as much faster as simulated time is, and so are Azure's limits. Raises
    BinariesMissing where the real control plane is not there.
    """
    azure = AzureSettings(
        scale=scale,
        create_seconds=operation,
        delete_seconds=operation,
        vm_seconds=operation,
        vm_delete_seconds=operation,
        operation_retry_after_seconds=retry_after,
        max_agent_pools=max(100, claims + _SPARE),
        # One page, as with Azure's own limit of 100 pools.
        page_size=max(100, claims + _SPARE),
        quota={"cores": _PLENTY, "StandardNCADSA100v4Family": _PLENTY},
    )
    # Nothing but the controller lies between the Node's joining and its registration.
    nodes = NodeSettings(
        join_delay=_JOIN_SECONDS,
        cloud_init_delay=0.0,
        ready_delay=0.0,
        pod_start_delay=0.0,
        pod_ready_delay=0.0,
        gpu_delay=_GPU_SECONDS,
        lease_interval_real=_LEASE_SECONDS,
    )
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="benchmark-")))
        aks = await stack.enter_async_context(FakeAks(CONTROL_PLANES[cluster](), azure=azure, nodes=nodes))
        proxy = await stack.enter_async_context(FaultProxy(aks.cluster))
        port = free_port()
        environment = {
            **aks.environment(),
            **_settings(scale),
            "KUBECONFIG": str(proxy.kubeconfig),
            "BIND_ADDRESS": "127.0.0.1",
            "HEALTH_PROBE_PORT": str(port),
        }
        controller = ControllerProcess(environment, log=folder / "controller.log")
        await stack.enter_async_context(controller)
        await controller.wait_started()
        client = await stack.enter_async_context(KubeApi(aks.cluster.kubeconfig))
        progress = Progress()
        await stack.enter_async_context(_following(client, aks, progress=progress))
        made = World(
            aks=aks,
            requests=proxy.calls,
            controller=controller,
            client=client,
            progress=progress,
            health_url=f"http://127.0.0.1:{port}",
            scale=scale,
            patience=patience,
        )
        await made.until_watching()
        try:
            yield made
        except (BenchmarkError, ApiError):
            tell("\n".join((*controller.log_text().splitlines()[-_LOG_LINES:], "")))
            raise


def _settings(scale: float) -> dict[str, str]:
    """Return the environment by which the controller is as much faster as simulated time is."""
    fields = Settings.model_fields
    changed = {name: max(fields[name].default / scale, _SHORTEST) for name in _INTERVALS}
    changed["request_share"] = fields["request_share"].default * scale
    return {source_of(fields[name]).env[0]: str(value) for name, value in changed.items()}


@asynccontextmanager
async def _following(client: KubeApi, aks: FakeAks, *, progress: Progress) -> AsyncIterator[None]:
    clock = aks.azure.clock
    claims = Reflector(client, CLAIMS, on_change=lambda name, _, claim: progress.take(name, claim, now=clock.now()))
    following = asyncio.create_task(claims.run())
    await claims.synced()
    try:
        yield
    finally:
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)


async def _all(call: Callable[[str], Awaitable[Any]], names: Iterable[str]) -> None:
    room = asyncio.Semaphore(_WRITES_AT_ONCE)

    async def one(name: str) -> None:
        async with room:
            await call(name)

    await asyncio.gather(*map(one, names))


def tell(text: str) -> None:
    """Say something to the person who waits."""
    sys.stderr.write(text)
    sys.stderr.flush()
