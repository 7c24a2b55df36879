"""All nodes of a cluster in one event loop."""

import asyncio
import logging
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from fakes.nodes.api import KubeApi, Object
from fakes.nodes.clock import Clock, SimClock
from fakes.nodes.conditions import is_true
from fakes.nodes.faults import Fault, FaultKind, Faults
from fakes.nodes.heartbeats import Heartbeats
from fakes.nodes.journal import Happening, Journal
from fakes.nodes.machines import Machine, MachineSource
from fakes.nodes.node_status import allocatable_gpus
from fakes.nodes.node_sync import NODES, NodeSync
from fakes.nodes.pod_faults import PodFault, PodFaults
from fakes.nodes.pod_plan import is_device_plugin
from fakes.nodes.pod_sync import PODS, PodSync, node_of
from fakes.nodes.reflector import Reflector
from fakes.nodes.running import Runner
from fakes.nodes.settings import NodeSettings
from fakes.nodes.workqueue import WorkQueue

logger = logging.getLogger(__name__)

START_TIMEOUT = 30.0


class FakeNodes:
    """What AKS and the kubelets do once a VM exists, against any Kubernetes API.

    An async context manager, to be used once. All state that counts is in the API: a new instance takes over what an
    earlier one left. Its methods belong to the event loop it was started in.

    Args:
        kubeconfig: of an administrator.
        source: the machines.
        settings: may be changed while it runs.
        clock: simulated time, to share with the source; by default one of its own, `scale` times as fast as real.
        scale: simulated seconds a real second, where no clock is given.
        runner: runs the containers of the pods that it takes; without one all pods are simulated.
    """

    def __init__(
        self,
        kubeconfig: Path,
        source: MachineSource,
        *,
        settings: NodeSettings | None = None,
        clock: Clock | None = None,
        scale: float = 1.0,
        runner: Runner | None = None,
    ) -> None:
        self.settings = settings or NodeSettings()
        self._source = source
        self._machines: dict[str, Machine] = {}
        clock = clock or SimClock(scale=scale)
        self._journal = Journal(clock)
        self._faults = Faults(on_change=self.wake)
        self._pod_faults = PodFaults(on_change=self.wake)
        self._api = KubeApi(kubeconfig)
        self._nodes = Reflector(self._api, NODES, on_change=self._on_node)
        self._pods = Reflector(self._api, PODS, on_change=self._on_pod)
        self._pod_sync = PodSync(
            self._api,
            machines=self._machines,
            settings=self.settings,
            clock=clock,
            faults=self._faults,
            pod_faults=self._pod_faults,
            journal=self._journal,
            nodes=self._nodes,
            pods=self._pods,
            alive=lambda name: self._node_sync.kubelet_alive(name),
            wake=lambda key: self._pod_queue.add(key),
            runner=runner,
        )
        self._node_sync = NodeSync(
            self._api,
            nodes=self._nodes,
            machines=self._machines,
            settings=self.settings,
            clock=clock,
            faults=self._faults,
            journal=self._journal,
            plugins=self._pod_sync,
        )
        self._node_queue = WorkQueue(self._sync_node, concurrency=self.settings.concurrency)
        self._pod_queue = WorkQueue(self._pod_sync.sync, concurrency=self.settings.concurrency)
        self._heartbeats = Heartbeats(self._api, settings=self.settings, alive=self._node_sync.kubelet_alive)
        self._main: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.stop()

    async def start(self) -> None:
        """Start, and return when the API's Nodes and pods have been read.

        Raises:
            TimeoutError: the API did not answer within half a minute.
        """
        ready = asyncio.Event()
        self._main = asyncio.create_task(self._run(ready), name="fake nodes")
        self._main.add_done_callback(_tell_bug)
        waiting = asyncio.create_task(ready.wait())
        done, _ = await asyncio.wait({self._main, waiting}, timeout=START_TIMEOUT, return_when=asyncio.FIRST_COMPLETED)
        waiting.cancel()
        if waiting not in done:
            await self.stop()
            raise TimeoutError("the Kubernetes API does not answer")

    async def stop(self) -> None:
        """Stop; Nodes and pods stay as they are, and a later instance goes on with them.

        Raises:
            ExceptionGroup: a bug had ended it before.
        """
        main, self._main = self._main, None
        if main is None:
            return
        main.cancel()
        (result,) = await asyncio.gather(main, return_exceptions=True)
        await self._pod_sync.close()
        if isinstance(result, Exception):
            raise result

    @property
    def journal(self) -> Journal:
        """What happened, and a way to wait for what will."""
        return self._journal

    @property
    def happenings(self) -> tuple[Happening, ...]:
        """What happened, oldest first."""
        return self._journal.happenings

    def add_fault(
        self, kind: FaultKind, *, pool: str = "*", node: str = "*", seconds: float = 0.0, gpus: int = 0
    ) -> Fault:
        """Put a fault in force on the machines whose pool and name match the globs, from now on; see `FaultKind`."""
        fault = Fault(kind=kind, pool=pool, node=node, seconds=seconds, gpus=gpus)
        self._faults.add(fault)
        return fault

    def clear(self, fault: Fault | None = None) -> None:
        """Take a fault out of force; without one, all."""
        self._faults.clear(fault)

    def add_pod_fault(self, fault: PodFault) -> PodFault:
        """Put a fault of pods in force from now on; see `PodFault`."""
        self._pod_faults.add(fault)
        return fault

    def clear_pod_fault(self, fault: PodFault | None = None) -> None:
        """Take a fault of pods out of force; without one, all. The pods go on as if nothing had been."""
        self._pod_faults.clear(fault)

    def wake(self) -> None:
        """Look at everything again: after settings or the clock's scale changed."""
        for name in {*self._machines, *self._nodes.keys()}:
            self._wake_node(name)

    def describe(self) -> dict[str, Any]:
        """Return the state of all machines and Nodes as plain data, for a table."""
        rows = [self._row(name) for name in sorted({*self._machines, *self._nodes.keys()})]
        states = [row["state"] for row in rows]
        return {"nodes": rows, "states": {state: states.count(state) for state in sorted(set(states))}}

    async def _run(self, ready: asyncio.Event) -> None:
        async with self._api, asyncio.TaskGroup() as tasks:
            tasks.create_task(self._nodes.run())
            tasks.create_task(self._pods.run())
            # Nothing is done on half a picture: a Node whose device plugin is not seen yet would lose its GPUs.
            await self._nodes.synced()
            await self._pods.synced()
            ready.set()
            # The machines as well: a Node whose machine is not seen yet would be taken for an orphan.
            self._take_machines()
            tasks.create_task(self._node_queue.run())
            tasks.create_task(self._pod_queue.run())
            tasks.create_task(self._heartbeats.run())
            tasks.create_task(self._follow_machines())

    async def _follow_machines(self) -> None:
        version = 0
        while True:
            version = await self._source.wait_changed(version)
            self._take_machines()

    def _take_machines(self) -> None:
        machines = {machine.name: machine for machine in self._source.machines()}
        changed = [name for name, machine in machines.items() if self._machines.get(name) != machine]
        changed += [name for name in self._machines if name not in machines]
        self._machines.clear()
        self._machines.update(machines)
        for name in changed:
            self._wake_node(name)

    async def _sync_node(self, name: str) -> float | None:
        again = await self._node_sync.sync(name)
        if self._node_sync.kubelet_alive(name) is not None:
            self._heartbeats.start(name)
        return again

    def _on_node(self, key: str, old: Object | None, new: Object | None) -> None:
        self._node_queue.add(key)
        if old is None or new is None or is_true(old, "Ready") != is_true(new, "Ready"):
            self._wake_pods(key)

    def _on_pod(self, key: str, old: Object | None, new: Object | None) -> None:
        self._pod_sync.on_change(key, old, new)
        self._pod_queue.add(key)
        pod = new or old
        if pod is not None and is_device_plugin(pod) and node_of(pod):
            self._node_queue.add(node_of(pod))

    def _wake_node(self, name: str) -> None:
        self._node_queue.add(name)
        self._wake_pods(name)

    def _wake_pods(self, name: str) -> None:
        for pod in self._pod_sync.on_node(name):
            self._pod_queue.add(pod)

    def _row(self, name: str) -> dict[str, Any]:
        machine, node = self._machines.get(name), self._nodes.get(name)
        labels = (node["metadata"].get("labels") or {}) if node is not None else {}
        gone = {"pool": labels.get("agentpool"), "vm_size": labels.get("node.kubernetes.io/instance-type")}
        return {
            "name": name,
            **({"pool": machine.pool, "vm_size": machine.vm_size} if machine is not None else gone),
            "zone": labels.get("topology.kubernetes.io/zone"),
            "state": self._node_sync.state(name),
            "gpus": allocatable_gpus(node) if node is not None else None,
            "gpus_expected": machine.gpu_count if machine is not None else 0,
            "pods": len(self._pod_sync.on_node(name)),
            "faults": [kind.value for kind in self._faults.of(machine)] if machine is not None else [],
        }


def _tell_bug(main: asyncio.Task[None]) -> None:
    # At once: until `stop`, nobody would know why nothing happens any more.
    if not main.cancelled() and (error := main.exception()) is not None:
        logger.error("the nodes have stopped", exc_info=error)
