"""`python -m fakes.demo`: the whole way of one Workspace, on this machine alone."""

import argparse
import asyncio
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Sequence
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
from fakes.demo.serving import LOGS, NoAnswer, Serving
from fakes.demo.snapshot import Snapshot, read_claim, read_node, read_pod, read_pool, read_workspace
from fakes.serving import environment
from fakes.serving.environment import EnvironmentMissing

_ROOT: Final = Path(__file__).resolve().parents[2]
_EXAMPLES: Final = _ROOT / "docs" / "examples"
_EXAMPLE: Final = _EXAMPLES / "workspace.yaml"
# The same, with options of vLLM for a machine without GPUs.
_EXAMPLE_ON_CPU: Final = _EXAMPLES / "workspace-cpu.yaml"
_CONFIG_MAPS: Final = "/api/v1/namespaces/default/configmaps"
_WORKSPACES: Final = "/apis/kaito.sh/v1beta1/namespaces/default/workspaces"
_CLAIMS: Final = "/apis/karpenter.sh/v1/nodeclaims"
_NODES: Final = "/api/v1/nodes"
_PODS: Final = "/api/v1/pods?labelSelector=kaito.sh/workspace"
_POLL: Final = 0.2
# Simulated seconds in which the ready node is there to be looked at.
_PAUSE: Final = 60.0
# Real seconds that either half may take; far more than it does.
_PATIENCE: Final = 180.0
# The same where vLLM is started: half a minute on two free cores, and minutes on busy ones.
_PATIENCE_SERVING: Final = 900.0
# What a pod is not seen to recover from, while the demo goes on.
_NOT_RUNNING: Final = ("ContainerCrashLoopBackOff", "ContainerStartError")
# What a pod that really runs is doing while it is waited for.
_AT_WORK: Final = ("Running", "Terminating")
_LOG_LINES: Final = 15
_ENDING: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
# Beyond this the polls of fakes and controller are longer than what they are to see.
_FASTEST: Final = 1000.0


class DemoFailed(Exception):
    """The demo did not come to its end."""


class Demo:
    """One run: a fake AKS, the real controllers beside it, and one Workspace; `serving` where its pod really runs."""

    def __init__(
        self, aks: FakeAks, controllers: Sequence[ControllerProcess], screen: Screen, *, serving: Serving | None
    ) -> None:
        self._aks = aks
        self._serving = serving
        self._controllers = controllers
        self._screen = screen
        self._client: ApiClient = aks.cluster.client()
        self._seen = Snapshot()
        self._written_at = 0.0
        self._speed = aks.azure.settings.scale

    async def run(self) -> None:
        """Write the Workspace, follow it to Ready, delete it, follow it until nothing is left. Raises DemoFailed."""
        *others, workspace = yaml.safe_load_all(_example(self._serving).read_text())
        name = workspace["metadata"]["name"]
        self._written_at = self._aks.azure.clock.now()
        for config_map in others:
            await asyncio.to_thread(self._client.request, "POST", _CONFIG_MAPS, body=config_map)
        await asyncio.to_thread(self._client.request, "POST", _WORKSPACES, body=workspace)
        await self._follow(lambda now: name in now.workspaces and now.workspaces[name].state == "Ready")
        ready_at = self._at()
        endpoint = self._seen.workspaces[name].endpoint
        if self._serving is not None:
            self._tell(await self._serving.show(self._client, name))
        await self._follow(lambda _: self._at() > ready_at + _PAUSE)
        await asyncio.to_thread(self._client.request, "DELETE", f"{_WORKSPACES}/{name}")
        if self._serving is not None:
            await self._follow(lambda now: any(pod.state == "Terminating" for pod in now.pods.values()))
            self._tell(await self._serving.show_drain(self._client, name))
        await self._follow(lambda now: not (now.workspaces or now.claims or now.pools or now.nodes or now.pods))
        gone_at = self._at()
        for config_map in others:
            path = f"{_CONFIG_MAPS}/{config_map['metadata']['name']}"
            await asyncio.to_thread(self._client.request, "DELETE", path)
        self._screen.settle()
        self._screen.say(
            f"Served at {endpoint}/v1 after {clock_text(ready_at)}, gone again after {clock_text(gone_at)} of "
            f"simulated time.\n{self._about_pods(name)}"
        )
        calls = ", ".join(f"{number} {call}" for call, number in sorted(Counter(self._calls()).items()))
        self._screen.say(f"ARM calls of the controllers: {calls}.")

    def _tell(self, text: str) -> None:
        # What was before it is to be read before it.
        self._screen.settle()
        self._screen.say(text)

    def _about_pods(self, name: str) -> str:
        if self._serving is None:
            return "Pods are simulated here, as nodes are: nothing answers at that address."
        return f"Nodes and GPUs are simulated here, vLLM is not. Its log: {self._serving.log_of(name)}"

    async def look_on(self) -> None:
        """Show what happens until cancelled."""
        while True:
            await self._look()
            await asyncio.sleep(_POLL)

    async def _follow(self, reached: Callable[[Snapshot], bool]) -> None:
        deadline = time.monotonic() + (_PATIENCE if self._serving is None else _PATIENCE_SERVING)
        while not reached(await self._look()):
            self._check()
            if time.monotonic() > deadline:
                raise DemoFailed("this takes too long")
            await asyncio.sleep(_POLL)

    def _check(self) -> None:
        for controller in self._controllers:
            if controller.process.returncode is not None:
                raise DemoFailed(f"a controller has ended with code {controller.process.returncode}")
        for workspace in self._seen.workspaces.values():
            if workspace.reason in _NOT_RUNNING and not workspace.deleting:
                raise DemoFailed(f"workspace {workspace.name} waits: {workspace.reason}")

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
        changes = [*now.changes_since(self._seen), *(self._serving.news() if self._serving else ())]
        self._screen.show(now, at=self._at(), speed=self._pace(now), changes=changes, calls=self._calls())
        self._seen = now
        return now

    def _pace(self, now: Snapshot) -> float:
        """Return how fast time is from now on: as fast as real while a pod takes real seconds to load or to end."""
        really = self._serving is not None and any(pod.state in _AT_WORK for pod in now.pods.values())
        wanted = 1.0 if really else self._speed
        if wanted != self._aks.azure.settings.scale:
            self._aks.azure.settings.change({"scale": wanted})
            self._aks.nodes.wake()
        return wanted

    async def _list(self, path: str) -> list[dict[str, Any]]:
        answer = await asyncio.to_thread(self._client.request, "GET", path)
        return list(answer["items"])

    def _calls(self) -> list[str]:
        others = ("entra", "prices")
        return [call.operation for call in self._aks.azure.calls if call.operation.partition(".")[0] not in others]

    def _at(self) -> float:
        return self._aks.azure.clock.now() - self._written_at


def _example(serving: Serving | None) -> Path:
    return _EXAMPLE if serving is None else _EXAMPLE_ON_CPU


async def main_async(cluster: ControlPlane, *, what: str, speed: float, keep: bool, vllm: Path | None = None) -> int:
    """Run the demo; `vllm` is the Python of an environment with vLLM, for the pod to run. Returns the exit code."""
    started = time.monotonic()
    with (
        tempfile.TemporaryDirectory(prefix="gpu-provisioner-demo-") as folder,
        Screen(pods="Pods" if vllm else "Pods (simulated)") as screen,
    ):
        screen.say(f"starting {what}, ARM and Entra on loopback")
        serving = Serving(vllm, folder=Path(folder), logs=LOGS) if vllm else None
        async with FakeAks(
            cluster,
            azure=AzureSettings(scale=speed),
            nodes=serving.nodes if serving else None,
            runner=serving.runner if serving else None,
        ) as aks:
            settings = {
                **aks.environment(),
                # The controller's own pace is in real seconds: made as much faster as the fake time is.
                "INVENTORY_BUSY_SECONDS": "1",
                "INVENTORY_IDLE_SECONDS": "5",
                "LOG_FORMAT": "text",
            }
            # Nothing of Azure for the one of Workspaces: it asks Kubernetes alone.
            kubernetes = {"KUBECONFIG": settings["KUBECONFIG"], "HF_ENDPOINT": "none", "LOG_FORMAT": "text"}
            async with (
                ControllerProcess(settings, log=Path(folder) / "run.log") as claims,
                ControllerProcess(kubernetes, log=Path(folder) / "workspace.log", command="workspace") as workspaces,
            ):
                controllers = (claims, workspaces)
                await asyncio.gather(*(controller.wait_started() for controller in controllers))
                took = time.monotonic() - started
                screen.say(f"ready after {took:.1f} s, with `provisioner run` and `provisioner workspace` beside it\n")
                if serving:
                    screen.say(f"{serving.introduction()}\n")
                alone = "a model and nothing else" if serving is None else "a model, and options for CPU"
                shown = _example(serving).relative_to(_ROOT)
                screen.say(f"{shown}, {alone}; the minutes are simulated ones:")
                demo = Demo(aks, controllers, screen, serving=serving)
                try:
                    await demo.run()
                except (DemoFailed, NoAnswer) as error:
                    words = [line for each in controllers for line in each.log_text().splitlines()[-_LOG_LINES:]]
                    screen.settle()
                    screen.say("\n".join([f"FAILED: {error}. The controllers' last words:", *words]))
                    if serving:
                        screen.say(serving.last_words(_LOG_LINES))
                    return 1
                if keep:
                    await _keep(aks, demo, screen, serving=serving)
                    return 0
    chosen = "SERVING=vllm " if vllm else ""
    print(f"\nThe same by hand: `make demo {chosen}KEEP=1` leaves all of this running and prints the commands.")
    return 0


async def _until_told(running: Coroutine[Any, Any, int]) -> int:
    """Run the demo, to be ended in its order by whatever ends a program, not by Ctrl-C alone."""
    told: list[signal.Signals] = []
    demo = asyncio.ensure_future(running)

    def end(number: signal.Signals) -> None:
        # Once: a second time would reach what is taking things away by then.
        if not told:
            demo.cancel()
        told.append(number)

    for number in _ENDING:
        asyncio.get_running_loop().add_signal_handler(number, end, number)
    try:
        return await demo
    except asyncio.CancelledError:
        if not told:
            raise
        return 128 + told[0]


async def _keep(aks: FakeAks, demo: Demo, screen: Screen, *, serving: Serving | None) -> None:
    kubectl = aks.cluster.kubectl
    path = f" PATH={kubectl.parent}:$PATH" if kubectl is not None else ""
    needed = "" if kubectl is not None else " (which needs a kubectl: this machine has none)"
    asking = f"{serving.how_to_ask()}\n" if serving else ""
    screen.say(
        f"\nThe cluster is running until Ctrl-C. In another terminal{needed}:\n"
        f"  export KUBECONFIG={aks.cluster.kubeconfig}{path}\n"
        f"  kubectl apply -f {_example(serving)} && kubectl get workspaces -w\n"
        f"{asking}"
    )
    stop = asyncio.Event()
    for number in _ENDING:
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
    parser.add_argument(
        "--serving",
        choices=("simulated", "vllm"),
        default="simulated",
        help="what serves the model: nothing, as pods are simulated (default), or vLLM on CPU with a tiny model, which "
        "is installed the first time (5.5 GB)",
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
        vllm = environment.ensure() if options.serving == "vllm" else None
        demo = main_async(cluster, what=what, speed=options.speed, keep=options.keep, vllm=vllm)
        return asyncio.run(_until_told(demo))
    except (BinariesMissing, ComponentFailed, EnvironmentMissing) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
