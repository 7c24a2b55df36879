"""Two instances of one controller by a Lease, each through a proxy of its own: it is known who asked for what."""

import asyncio
import signal
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import aiohttp

from fakes.aks import FakeAks
from fakes.azure import Call as ArmCall
from fakes.cluster.components import free_port
from fakes.controller import ControllerProcess
from fakes.proxy import Call, FaultProxy
from tests.conftest import PACE
from tests.kube import Kube, Object, eventually

LEASES: Final = "/apis/coordination.k8s.io/v1/namespaces/default/leases"
LEASE_OF: Final[Mapping[str, str]] = {"run": "gpu-provisioner", "workspace": "gpu-provisioner-workspace"}
# Real seconds: the Lease's duration, and what two busy cores make of it.
TAKE_OVER: Final = 60.0

_LOCAL: Final = "127.0.0.1"
_READS: Final = ("get", "list", "watch")
_LOG_TAIL: Final = 30_000


@dataclass(frozen=True, kw_only=True)
class Instance:
    """One of the two."""

    name: str
    lease: str
    aks: FakeAks
    kube: Kube
    process: ControllerProcess
    proxy: FaultProxy
    health: int
    metrics: int

    async def ask(self, path: str, *, port: int = 0) -> tuple[int, str]:
        """Return status and text of an answer, 0 where nobody listens."""
        try:
            async with (
                aiohttp.ClientSession() as session,
                session.get(f"http://{_LOCAL}:{port or self.health}{path}") as response,
            ):
                return response.status, await response.text()
        except aiohttp.ClientError:
            return 0, ""

    async def leads(self) -> bool:
        """Tell whether the Lease is this one's. Its host is the other's too, so that the process tells them apart."""
        return f"_{self.process.process.pid}_" in holder_of(await self.kube.get(LEASES, self.lease))

    async def is_ready(self) -> bool:
        """Tell whether /readyz says yes."""
        return (await self.ask("/readyz"))[0] == 200

    def writes(self, *, since: float = 0.0) -> list[Call]:
        """Return what it has asked the API server to write, the Lease aside, since a moment of the loop's time."""
        return [
            call
            for call in self.proxy.calls
            if call.verb not in _READS and call.resource != "leases" and call.time >= since
        ]

    def arm_calls(self) -> list[ArmCall]:
        """Return what it has asked of Azure, in the order of their arrival."""
        calls = (call for call in self.aks.azure.calls if call.user_agent.endswith(f" {self.name}"))
        return sorted((call for call in calls if not call.operation.startswith("entra.")), key=lambda call: call.time)

    def stop_time(self) -> None:
        """Hold the process up in the midst of whatever it does."""
        self.process.process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        """Let the process go on where it was."""
        self.process.process.send_signal(signal.SIGCONT)


@dataclass(frozen=True, kw_only=True)
class Pair:
    """The one that was started first, and acts; and the one that waits."""

    first: Instance
    second: Instance

    def assert_one_after_the_other(self, *, on_its_way: int = 0) -> None:
        """See that the first has asked for nothing any more, of either side, when the second began to act.

        `on_its_way` is how many requests may have been past their last look when it was held up: the thread that sends
        them is one.
        """
        assert self.second.arm_calls() or self.second.writes(), "the second has acted"
        late: list[object] = []
        if azure := self.second.arm_calls():
            late += [call for call in self.first.arm_calls() if call.time >= azure[0].time]
        if written := self.second.writes():
            late += self.first.writes(since=written[0].time)
        assert len(late) <= on_its_way, late


async def told_to_end(leader: Instance) -> None:
    """Have it end as a rollout does."""
    assert await leader.process.stop() == 0


async def killed(leader: Instance) -> None:
    """Have it end without a word."""
    await leader.process.kill()


async def held_up(leader: Instance) -> None:
    """Have it stop in the midst of whatever it does, and know nothing of it."""
    leader.stop_time()


Fate = Callable[[Instance], Awaitable[None]]
FATES: Final[Sequence[Fate]] = (told_to_end, killed, held_up)


async def take_over(pair: Pair, fate: Fate) -> None:
    """Let something become of the first, and wait until the second acts; tell how long that took."""
    started = time.monotonic()
    await fate(pair.first)
    await eventually(pair.second.leads, patience=TAKE_OVER, what="the second acts")
    sys.stdout.write(f"{fate.__name__}: {time.monotonic() - started:.1f} s until another acts\n")


async def let_go_on(leader: Instance) -> None:
    """Let one that was held up go on, which has to end of itself."""
    leader.go_on()
    async with asyncio.timeout(TAKE_OVER):
        assert await leader.process.process.wait() == 1


def holder_of(lease: Object | None) -> str:
    """Return who holds the Lease, empty where nobody does."""
    return str((lease or {}).get("spec", {}).get("holderIdentity") or "")


@asynccontextmanager
async def two_instances(
    aks: FakeAks, kube: Kube, *, folder: Path, command: str = "run", settings: Mapping[str, str] = PACE
) -> AsyncIterator[Pair]:
    """Run two instances, of which the first acts."""
    lease = LEASE_OF[command]
    async with AsyncExitStack() as stack:
        # Left behind by a holder that was killed, it would have whoever comes next wait.
        stack.push_async_callback(kube.delete, LEASES, lease)
        made: list[Instance] = []
        for name in ("first", "second"):
            proxy = await stack.enter_async_context(FaultProxy(aks.cluster))
            health, metrics = free_port(), free_port()
            environment = {
                **aks.environment(),
                **settings,
                "KUBECONFIG": str(proxy.kubeconfig),
                # The SDK puts it at the end of the user agent.
                "AZURE_HTTP_USER_AGENT": name,
                "LEADER_ELECTION": "true",
                "LEASE_NAMESPACE": "default",
                "HEALTH_PROBE_PORT": str(health),
                "METRICS_PORT": str(metrics),
                "BIND_ADDRESS": _LOCAL,
            }
            process = ControllerProcess(environment, log=folder / f"{name}.log", command=command)
            instance = Instance(
                name=name,
                lease=lease,
                aks=aks,
                kube=kube,
                process=process,
                proxy=proxy,
                health=health,
                metrics=metrics,
            )
            stack.callback(_show, instance)
            await stack.enter_async_context(process)
            await (process.wait_started() if not made else eventually(instance.is_ready, what="the second waits"))
            made.append(instance)
        yield Pair(first=made[0], second=made[1])


def _show(instance: Instance) -> None:
    # Shown by pytest where a test has failed.
    sys.stdout.write(f"--- {instance.name}\n{instance.process.log_text()[-_LOG_TAIL:]}")
