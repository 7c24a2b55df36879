"""`python -m fakes.demo`: the whole way of one Workspace, on this machine alone."""

import argparse
import asyncio
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import yaml

from fakes.aks import FakeAks
from fakes.azure.settings import Settings as AzureSettings
from fakes.cluster import build
from fakes.cluster.api import ApiClient
from fakes.cluster.binaries import BinariesMissing
from fakes.cluster.embedded import EmbeddedCluster
from fakes.cluster.interface import ControlPlane
from fakes.cluster.real import ComponentFailed, RealCluster
from fakes.controller import ControllerProcess
from fakes.demo.screen import Screen, clock_text
from fakes.demo.snapshot import Snapshot, read_claim, read_node, read_pod, read_pool, read_workspace

_ROOT: Final = Path(__file__).resolve().parents[2]
_EXAMPLE: Final = _ROOT / "docs" / "examples" / "workspace.yaml"
_WORKSPACES: Final = "/apis/kaito.sh/v1beta1/namespaces/default/workspaces"
_CLAIMS: Final = "/apis/karpenter.sh/v1/nodeclaims"
_NODES: Final = "/api/v1/nodes"
_PODS: Final = "/api/v1/pods?labelSelector=kaito.sh/workspace"
_POLL: Final = 0.2
# Simulated seconds in which the ready node is there to be looked at.
_PAUSE: Final = 60.0
# Real seconds that either half may take; far more than it does.
_PATIENCE: Final = 180.0
_LOG_LINES: Final = 15
# Beyond this the polls of fakes and controller are longer than what they are to see.
_FASTEST: Final = 1000.0


class DemoFailed(Exception):
    """The demo did not come to its end."""


class Demo:
    """One run: a fake AKS, the real controllers beside it, and one Workspace."""

    def __init__(self, aks: FakeAks, controllers: Sequence[ControllerProcess], screen: Screen) -> None:
        self._aks = aks
        self._controllers = controllers
        self._screen = screen
        self._client: ApiClient = aks.cluster.client()
        self._seen = Snapshot()
        self._written_at = 0.0

    async def run(self) -> None:
        """Write the Workspace, follow it to Ready, delete it, follow it until nothing is left. Raises DemoFailed."""
        workspace = yaml.safe_load(_EXAMPLE.read_text())
        name = workspace["metadata"]["name"]
        self._written_at = self._aks.azure.clock.now()
        await asyncio.to_thread(self._client.request, "POST", _WORKSPACES, body=workspace)
        await self._follow(lambda now: name in now.workspaces and now.workspaces[name].state == "Ready")
        ready_at = self._at()
        endpoint = self._seen.workspaces[name].endpoint
        await self._follow(lambda _: self._at() > ready_at + _PAUSE)
        await asyncio.to_thread(self._client.request, "DELETE", f"{_WORKSPACES}/{name}")
        await self._follow(lambda now: not (now.workspaces or now.claims or now.pools or now.nodes or now.pods))
        gone_at = self._at()
        self._screen.settle()
        self._screen.say(
            f"Served at {endpoint}/v1 after {clock_text(ready_at)}, gone again after {clock_text(gone_at)} of "
            "simulated time.\nPods are simulated here, as nodes are: nothing answers at that address."
        )
        calls = ", ".join(f"{number} {call}" for call, number in sorted(Counter(self._calls()).items()))
        self._screen.say(f"ARM calls of the controllers: {calls}.")

    async def look_on(self) -> None:
        """Show what happens until cancelled."""
        while True:
            await self._look()
            await asyncio.sleep(_POLL)

    async def _follow(self, reached: Callable[[Snapshot], bool]) -> None:
        deadline = time.monotonic() + _PATIENCE
        while not reached(await self._look()):
            for controller in self._controllers:
                if controller.process.returncode is not None:
                    raise DemoFailed(f"a controller has ended with code {controller.process.returncode}")
            if time.monotonic() > deadline:
                raise DemoFailed("this takes too long")
            await asyncio.sleep(_POLL)

    async def _look(self) -> Snapshot:
        workspaces, claims, nodes, listed_pods = await asyncio.gather(
            *map(self._list, (_WORKSPACES, _CLAIMS, _NODES, _PODS))
        )
        listed = self._aks.pools()
        pools = [pool for pool in listed if pool["properties"]["mode"] != "System"]
        system = {pool["name"] for pool in listed} - {pool["name"] for pool in pools}
        now = Snapshot(
            workspaces={workspace.name: workspace for workspace in map(read_workspace, workspaces)},
            claims={claim.name: claim for claim in map(read_claim, claims)},
            pools={pool.name: pool for pool in map(read_pool, pools)},
            nodes={node.name: node for node in map(read_node, nodes) if node.pool not in system},
            pods={pod.name: pod for pod in map(read_pod, listed_pods)},
        )
        self._screen.show(now, at=self._at(), changes=now.changes_since(self._seen), calls=self._calls())
        self._seen = now
        return now

    async def _list(self, path: str) -> list[dict[str, Any]]:
        answer = await asyncio.to_thread(self._client.request, "GET", path)
        return list(answer["items"])

    def _calls(self) -> list[str]:
        others = ("entra", "prices")
        return [call.operation for call in self._aks.azure.calls if call.operation.partition(".")[0] not in others]

    def _at(self) -> float:
        return self._aks.azure.clock.now() - self._written_at


async def main_async(cluster: ControlPlane, *, what: str, speed: float, keep: bool) -> int:
    """Run the demo. Returns the exit code."""
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="gpu-provisioner-demo-") as folder, Screen(speed=speed) as screen:
        screen.say(f"starting {what}, ARM and Entra on loopback")
        async with FakeAks(cluster, azure=AzureSettings(scale=speed)) as aks:
            environment = {
                **aks.environment(),
                # The controller's own pace is in real seconds: made as much faster as the fake time is.
                "INVENTORY_BUSY_SECONDS": "1",
                "INVENTORY_IDLE_SECONDS": "5",
                "LOG_FORMAT": "text",
            }
            # Nothing of Azure for the one of Workspaces: it asks Kubernetes alone.
            kubernetes = {"KUBECONFIG": environment["KUBECONFIG"], "HF_ENDPOINT": "none", "LOG_FORMAT": "text"}
            async with (
                ControllerProcess(environment, log=Path(folder) / "run.log") as claims,
                ControllerProcess(kubernetes, log=Path(folder) / "workspace.log", command="workspace") as workspaces,
            ):
                controllers = (claims, workspaces)
                await asyncio.gather(*(controller.wait_started() for controller in controllers))
                took = time.monotonic() - started
                screen.say(f"ready after {took:.1f} s, with `provisioner run` and `provisioner workspace` beside it\n")
                screen.say(f"{_EXAMPLE.relative_to(_ROOT)}, a model and nothing else; the minutes are simulated ones:")
                demo = Demo(aks, controllers, screen)
                try:
                    await demo.run()
                except DemoFailed as error:
                    words = [line for each in controllers for line in each.log_text().splitlines()[-_LOG_LINES:]]
                    screen.say("\n".join([f"FAILED: {error}. The controllers' last words:", *words]))
                    return 1
                if keep:
                    await _keep(aks, demo, screen)
                    return 0
    print("\nThe same by hand: `make demo KEEP=1` leaves all of this running and prints the commands.")
    return 0


async def _keep(aks: FakeAks, demo: Demo, screen: Screen) -> None:
    kubectl = aks.cluster.kubectl
    path = f" PATH={kubectl.parent}:$PATH" if kubectl is not None else ""
    needed = "" if kubectl is not None else " (which needs a kubectl: this machine has none)"
    screen.say(
        f"\nThe cluster is running until Ctrl-C. In another terminal{needed}:\n"
        f"  export KUBECONFIG={aks.cluster.kubeconfig}{path}\n"
        f"  kubectl apply -f {_EXAMPLE} && kubectl get workspaces -w\n"
    )
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    looking = asyncio.create_task(demo.look_on())
    await stop.wait()
    looking.cancel()


def main() -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(prog="python -m fakes.demo", description=__doc__)
    parser.add_argument("--speed", type=float, default=30.0, help="simulated seconds a real second (default: 30)")
    parser.add_argument("--keep", action="store_true", help="leave everything running until Ctrl-C")
    parser.add_argument(
        "--cluster",
        choices=("embedded", "real"),
        default="embedded",
        help="the Kubernetes control plane: ours in Python (default), or kube-apiserver and the others, which are "
        "built from source the first time",
    )
    options = parser.parse_args()
    if not 0 < options.speed <= _FASTEST:
        parser.error(f"--speed {options.speed:g}: give a number above 0, up to {_FASTEST:g}")
    try:
        if options.cluster == "real":
            cluster: ControlPlane = RealCluster(binaries=build.ensure())
            what = "etcd, kube-apiserver, kube-controller-manager, kube-scheduler"
        else:
            cluster, what = EmbeddedCluster(), "a Kubernetes control plane in Python"
        return asyncio.run(main_async(cluster, what=what, speed=options.speed, keep=options.keep))
    except (BinariesMissing, ComponentFailed) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
