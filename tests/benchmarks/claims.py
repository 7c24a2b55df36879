"""`python -m tests.benchmarks.claims`: many claims at once, what they cost the controller, and how fast it is.

Everything shares this machine: the control plane, the fake Azure and its nodes, and the proxy that counts requests. So
wall time is the machine's, CPU and requests are the controller's own.
"""

import argparse
import asyncio
import importlib
import os
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

from fakes.aks import FakeAks, claim_name
from fakes.azure.settings import Settings as AzureSettings
from fakes.cluster.binaries import BinariesMissing
from fakes.cluster.interface import ControlPlane
from fakes.cluster.real import RealCluster
from fakes.controller import ControllerProcess
from fakes.nodes import NodeSettings, What
from fakes.nodes.api import ApiError, KubeApi, Object
from fakes.nodes.reflector import Reflector
from fakes.proxy import CallLog, FaultProxy
from tests.benchmarks.measure import Usage, heading, peak_rss_mib, spread, table
from tests.claims import kaito_claim
from tests.kube import CLAIMS, is_true

_UNAVAILABLE: Final = 2
_WRITES_AT_ONCE: Final = 50
_CHECK_INTERVAL: Final = 1.0
_LOG_LINES: Final = 15
# Pools and Nodes beside those of the claims.
_SPARE: Final = 10
# What the controller watches: claims, node classes, Nodes, CRDs.
_WATCHES: Final = 4


class BenchmarkError(Exception):
    """It did not come to its end."""


@dataclass
class Progress:
    """When each claim was first seen in a state, in simulated seconds, and how many are left."""

    registered: dict[str, float] = field(default_factory=dict)
    ready: dict[str, float] = field(default_factory=dict)
    node: dict[str, str] = field(default_factory=dict)
    gone: set[str] = field(default_factory=set)

    def take(self, name: str, claim: Object | None, *, now: float) -> None:
        """Take a change of a claim, None where it is gone."""
        if claim is None:
            self.gone.add(name)
            return
        if is_true("Registered")(claim):
            self.registered.setdefault(name, now)
            self.node[name] = claim["status"]["nodeName"]
        if is_true("Ready")(claim):
            self.ready.setdefault(name, now)


class Benchmark:
    """One run: a fake AKS, the controller, a client, and the log of the controller's requests to Kubernetes, if any."""

    def __init__(
        self, aks: FakeAks, *, requests: CallLog | None, controller: ControllerProcess, client: KubeApi
    ) -> None:
        self._aks = aks
        self._requests = requests
        self._controller = controller
        self._client = client
        self._progress = Progress()

    async def run(self, claims: int, *, patience: float) -> list[str]:
        """Create claims, wait until they are Ready, delete them, wait until they are gone. Returns the report."""
        names = [claim_name() for _ in range(claims)]
        if self._requests is not None:
            # What is asked for once at the start is no claim's.
            requests = self._requests
            await self._until(lambda: requests.count("watch"), _WATCHES, what="watches open", patience=patience)
        async with self._following():
            begin = self._usage()
            await _all(lambda name: self._client.call("POST", CLAIMS, body=kaito_claim(name)), names)
            await self._until(lambda: len(self._progress.ready), claims, what="Ready", patience=patience)
            created = self._usage()
            latencies = self._latencies()
            await _all(lambda name: self._client.call("DELETE", f"{CLAIMS}/{name}"), names)
            await self._until(lambda: len(self._progress.gone), claims, what="gone", patience=patience)
            deleted = self._usage()
        if left := [pool["name"] for pool in self._aks.pools() if pool["name"] in names]:
            raise BenchmarkError(f"{len(left)} agent pools are left")
        return [
            *table({"create": created.since(begin), "delete": deleted.since(created)}, claims=claims),
            "",
            *latencies,
            "",
            f"peak memory of the controller: {peak_rss_mib(self._pid):.0f} MiB",
        ]

    @property
    def _pid(self) -> int:
        return self._controller.process.pid

    def _usage(self) -> Usage:
        return Usage.now(self._pid, kube=self._requests, arm=self._aks.azure.calls)

    def _latencies(self) -> list[str]:
        """Return from when the controller could have known to when clients saw it."""
        happened = {
            what: {seen.node: seen.at for seen in self._aks.nodes.happenings if seen.what is what}
            for what in (What.JOINED, What.GPUS)
        }

        def seconds(since: What, until: dict[str, float]) -> list[float]:
            begun, node, scale = happened[since], self._progress.node, self._aks.azure.settings.scale
            return [(at - begun[node[name]]) / scale for name, at in until.items() if node[name] in begun]

        return [
            heading("median", "maximum"),
            spread("Node joined to Registered, s", seconds(What.JOINED, self._progress.registered)),
            spread("GPUs registered to Ready, s", seconds(What.GPUS, self._progress.ready)),
        ]

    @asynccontextmanager
    async def _following(self) -> AsyncIterator[None]:
        clock, progress = self._aks.azure.clock, self._progress
        claims = Reflector(
            self._client, CLAIMS, on_change=lambda name, _, claim: progress.take(name, claim, now=clock.now())
        )
        following = asyncio.create_task(claims.run())
        await claims.synced()
        try:
            yield
        finally:
            following.cancel()
            await asyncio.gather(following, return_exceptions=True)

    async def _until(self, number: Callable[[], int], wanted: int, *, what: str, patience: float) -> None:
        try:
            async with asyncio.timeout(patience):
                while number() < wanted:
                    if self._controller.process.returncode is not None:
                        raise BenchmarkError(f"the controller has ended with {self._controller.process.returncode}")
                    _tell(f"\r{number()} of {wanted} {what} ")
                    await asyncio.sleep(_CHECK_INTERVAL)
        except TimeoutError:
            raise BenchmarkError(f"only {number()} of {wanted} are {what} after {patience:g} s") from None
        finally:
            _tell("\r\x1b[K")


def _tell(text: str) -> None:
    sys.stderr.write(text)
    sys.stderr.flush()


async def _all(call: Callable[[str], Awaitable[Any]], names: Iterable[str]) -> None:
    room = asyncio.Semaphore(_WRITES_AT_ONCE)

    async def one(name: str) -> None:
        async with room:
            await call(name)

    await asyncio.gather(*map(one, names))


async def measure(cluster: ControlPlane, options: argparse.Namespace) -> list[str]:
    """Run the benchmark on a cluster that has not been started. Raises BenchmarkError."""
    azure = AzureSettings(scale=options.scale, max_agent_pools=options.claims + _SPARE, throttling=False)
    # Nothing but the controller lies between the Node's joining and its registration.
    nodes = NodeSettings(cloud_init_delay=0.0)
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="benchmark-")))
        aks = await stack.enter_async_context(FakeAks(cluster, azure=azure, nodes=nodes))
        environment = {
            **aks.environment(),
            "INVENTORY_BUSY_SECONDS": str(options.busy_seconds),
            # The limits of the fake Azure are as much faster as its time is.
            "AZURE_REQUEST_SHARE": "100",
        }
        requests = None
        if not options.direct:
            proxy = await stack.enter_async_context(FaultProxy(cluster))
            environment["KUBECONFIG"], requests = str(proxy.kubeconfig), proxy.calls
        controller = ControllerProcess(environment, log=folder / "controller.log")
        await stack.enter_async_context(controller)
        await controller.wait_started()
        client = await stack.enter_async_context(KubeApi(cluster.kubeconfig))
        benchmark = Benchmark(aks, requests=requests, controller=controller, client=client)
        try:
            return await benchmark.run(options.claims, patience=options.patience)
        except (BenchmarkError, ApiError):
            _tell("\n".join((*controller.log_text().splitlines()[-_LOG_LINES:], "")))
            raise


def make_cluster(kind: Literal["real", "embedded"]) -> ControlPlane:
    """Return a control plane that has not been started. Raises BinariesMissing, ImportError, AttributeError."""
    if kind == "real":
        return RealCluster()
    made: ControlPlane = importlib.import_module("fakes.cluster.embedded").EmbeddedCluster()
    return made


def main(arguments: list[str] | None = None) -> int:
    """Run the command: 0 when it came to its end, 1 when not, 2 where the control plane is not there."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.claims", description=__doc__)
    parser.add_argument("--claims", type=int, default=500, metavar="N", help="claims at once (default: 500)")
    parser.add_argument("--cluster", choices=("real", "embedded"), default="real", help="which control plane")
    parser.add_argument("--scale", type=float, default=30.0, help="simulated seconds a real second (default: 30)")
    parser.add_argument("--patience", type=float, default=900.0, help="real seconds for each half (default: 900)")
    parser.add_argument(
        "--busy-seconds", type=float, default=1.0, help="the controller's INVENTORY_BUSY_SECONDS (default: 1)"
    )
    parser.add_argument(
        "--direct", action="store_true", help="no proxy: less load on this machine, and requests are not counted"
    )
    options = parser.parse_args(arguments)
    try:
        cluster = make_cluster(options.cluster)
    except (BinariesMissing, ImportError, AttributeError) as error:
        _tell(f"there is no {options.cluster} control plane: {error}\n")
        return _UNAVAILABLE
    load = os.getloadavg()[0]
    try:
        lines = asyncio.run(measure(cluster, options))
    except (BenchmarkError, ApiError) as error:
        _tell(f"error: {error}\n")
        return 1
    title = (
        f"{options.claims} claims at once, {options.cluster} control plane, {options.scale:g} simulated seconds a real "
        f"one, {os.cpu_count()} cores, load {load:.1f} before"
    )
    sys.stdout.write("\n".join((title, "", *lines, "")))
    return 0


if __name__ == "__main__":
    sys.exit(main())
