"""One pod's life on its node: from binding to the end."""

import dataclasses
import math
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from fakes.nodes.addresses import AddressBook
from fakes.nodes.api import ApiError, KubeApi, Object, uid_of
from fakes.nodes.clock import Clock, timestamp
from fakes.nodes.conditions import find, is_true, merged, status_patch
from fakes.nodes.faults import FaultKind, Faults
from fakes.nodes.journal import Journal, What
from fakes.nodes.machines import Machine
from fakes.nodes.node_sync import NODES
from fakes.nodes.pod_faults import CRASH_LOOP, PodFaults
from fakes.nodes.pod_plan import PodPlan, Stage, is_device_plugin, plan_for, stage_at
from fakes.nodes.pod_status import PHASES, TERMINAL, TERMINATED, collected, report
from fakes.nodes.reflector import Reflector, key_of
from fakes.nodes.run_status import report_run
from fakes.nodes.running import Runner, RunningPod
from fakes.nodes.settings import NodeSettings

PODS = "/api/v1/pods"

NO_DRIVER = "failed to initialize NVML: ERROR_LIBRARY_NOT_FOUND"


@dataclass
class Track:
    """What is remembered of one pod; moments in simulated seconds."""

    uid: str
    begun_at: float | None = None
    """Its node took it up."""
    deleting_since: float | None = None
    orphan_since: float | None = None
    run: RunningPod | None = None
    """What runs it, where it is not only simulated."""


class PodSync:
    """Plays the kubelet towards its pods, and the pod garbage collector where the Node is gone.

    The garbage collector of kube-controller-manager is there too, but takes up to a minute of real time. Pods that a
    `runner` takes really run: faults of pods and annotations have no effect on them.
    """

    def __init__(
        self,
        api: KubeApi,
        *,
        machines: Mapping[str, Machine],
        settings: NodeSettings,
        clock: Clock,
        faults: Faults,
        pod_faults: PodFaults,
        journal: Journal,
        nodes: Reflector,
        pods: Reflector,
        alive: Callable[[str], Object | None],
        wake: Callable[[str], None],
        runner: Runner | None = None,
    ) -> None:
        self._api = api
        self._machines = machines
        self._settings = settings
        self._clock = clock
        self._faults = faults
        self._pod_faults = pod_faults
        self._journal = journal
        self._nodes = nodes
        self._pods = pods
        self._alive = alive
        self._wake = wake
        self._runner = runner
        self._addresses = AddressBook(settings.pod_network)
        self._tracks: dict[str, Track] = {}
        self._of_node: defaultdict[str, set[str]] = defaultdict(set)

    def on_change(self, key: str, old: Object | None, new: Object | None) -> None:
        """Keep the books on a change of a pod."""
        if old is not None:
            self._of_node[node_of(old)].discard(key)
            if new is None or uid_of(new) != uid_of(old):
                self._addresses.release(uid_of(old))
        if new is None:
            return
        self._of_node[node_of(new)].add(key)
        address = new["status"].get("podIP")
        if address and not new["spec"].get("hostNetwork"):
            self._addresses.note(uid_of(new), address)

    def on_node(self, name: str) -> tuple[str, ...]:
        """Keys of the pods bound to a node."""
        return tuple(self._of_node.get(name, ()))

    def plugin_serves(self, node: str, vendor: str) -> bool:
        """Whether a Ready device plugin for that vendor's GPUs runs on a node."""
        pods = (self._pods.get(key) for key in self.on_node(node))
        return any(pod and is_device_plugin(pod, vendor=vendor) and is_true(pod, "Ready") for pod in pods)

    async def close(self) -> None:
        """End whatever runs; what the API says of it stays."""
        for track in self._tracks.values():
            await _end(track)

    async def sync(self, key: str) -> float | None:
        """Do what is due for a pod.

        Returns:
            Real seconds until something is due again; None when only a change can make it so.
        """
        pod = self._pods.get(key)
        if pod is None or not node_of(pod):
            await _end(self._tracks.pop(key, None))
            return None
        track = self._tracks.get(key)
        if track is None or track.uid != uid_of(pod):
            await _end(track)
            track = self._tracks[key] = Track(uid=uid_of(pod))
        if node_of(pod) not in self._machines:
            # The VM has gone, and all that ran on it.
            await _end(track)
        node = self._nodes.get(node_of(pod))
        if node is None:
            return await self._orphaned(pod, track)
        track.orphan_since = None
        if self._alive(node_of(pod)) is None:
            await self._unattended(pod, node)
            return None
        if "deletionTimestamp" in pod["metadata"]:
            return await self._terminate(pod, track, node)
        if pod["status"].get("phase") in TERMINAL:
            return None
        return await self._advance(pod, track, node)

    async def _advance(self, pod: Object, track: Track, node: Object) -> float | None:
        plan = self._plan(pod)
        now = self._clock.now()
        if track.begun_at is None:
            if pod["status"].get("phase") == PHASES[Stage.READY]:
                # Seen running by an earlier run of ours: it has had its start.
                track.begun_at = now - plan.start_after - plan.ready_after
            elif is_true(node, "Ready") or pod["spec"].get("hostNetwork"):
                track.begun_at = now
            else:
                return None
        if self._runner is not None and self._runner.takes(pod):
            await self._run(self._runner, pod, track, node)
            return None
        stage, next_age = stage_at(plan, now - track.begun_at)
        await self._report(pod, stage, plan=plan, node=node)
        return None if next_age is None else self._clock.real(track.begun_at + next_age - self._clock.now())

    async def _run(self, runner: Runner, pod: Object, track: Track, node: Object) -> Object:
        """Report how the pod stands, after it was started; it tells itself when there is more to report."""
        address = self._addresses.take(uid_of(pod))
        if track.run is None:
            key = key_of(pod)
            track.run = runner.start(
                {**pod, "status": {**pod["status"], "podIP": address, "hostIP": _host_ip(node)}},
                address=address,
                read=lambda path: self._api.call("GET", path),
                on_change=lambda: self._wake(key),
            )
        return await self._write(
            pod, report_run(pod, track.run.look(), host_ip=_host_ip(node), pod_ip=address, now=timestamp())
        )

    def _plan(self, pod: Object) -> PodPlan:
        plan = plan_for(pod, self._settings)
        machine = self._machines[node_of(pod)]
        if is_device_plugin(pod) and self._faults.find(FaultKind.DRIVER_MISSING, machine):
            return dataclasses.replace(plan, waiting=CRASH_LOOP, message=NO_DRIVER)
        fault = self._pod_faults.find(pod["metadata"]["namespace"], pod["metadata"]["name"])
        if fault is not None:
            return dataclasses.replace(
                plan, waiting=fault.waiting, message=fault.message, exit_code=fault.exit_code, fault=fault
            )
        return plan

    async def _terminate(self, pod: Object, track: Track, node: Object) -> float | None:
        grace = pod["metadata"].get("deletionGracePeriodSeconds", math.inf)
        if grace == 0:
            # Deleted by force already; a finalizer holds what is left of it.
            return None
        if self._runner is not None and track.run is not None:
            track.run.stop(grace=grace)
            # Asked before it is looked at: what it says afterwards is then its last state.
            ended = track.run.ended
            pod = await self._run(self._runner, pod, track, node)
            if ended:
                await self._delete(pod)
            return None
        now = self._clock.now()
        if track.deleting_since is None:
            track.deleting_since = now
        due = track.deleting_since + min(self._settings.termination_delay, grace)
        if now < due:
            return self._clock.real(due - now)
        if pod["status"].get("phase") not in TERMINAL:
            # First a final phase, then the deletion: the Job controller counts by the phase.
            plan = self._plan(pod)
            pod = await self._report(pod, Stage.FAILED, plan=plan, node=node, exit_code=TERMINATED)
        await self._delete(pod)
        return None

    async def _unattended(self, pod: Object, node: Object) -> None:
        """Take a pod for not ready once its Node is silent, as the node lifecycle controller does.

        The real one does it when it marks the Node itself, and here it finds the Node marked.
        """
        silent = (find(node, "Ready") or {}).get("status") == "Unknown"
        ready = find(pod, "Ready")
        if silent and ready is not None and ready["status"] == "True":
            now = timestamp()
            patch = status_patch(pod, {"conditions": merged(pod, [{**ready, "status": "False"}], now=now)})
            self._pods.put(await self._api.call("PATCH", f"{_path(pod)}/status", body=patch))

    async def _orphaned(self, pod: Object, track: Track) -> float | None:
        if pod["metadata"].get("deletionGracePeriodSeconds") == 0:
            return None
        now = self._clock.now()
        if track.orphan_since is None:
            track.orphan_since = now
        due = track.orphan_since + self._settings.orphan_delay
        if now < due:
            return self._clock.real(due - now)
        try:
            # Asked of the server itself: the list of Nodes may lag behind the list of pods.
            await self._api.call("GET", f"{NODES}/{node_of(pod)}")
        except ApiError as error:
            if error.status != 404:
                raise
        else:
            return self._clock.real(self._settings.orphan_delay)
        if pod["status"].get("phase") not in TERMINAL:
            await self._api.call("PATCH", f"{_path(pod)}/status", body=collected(pod, now=timestamp()))
        await self._delete(pod)
        return None

    async def _report(
        self, pod: Object, stage: Stage, *, plan: PodPlan, node: Object, exit_code: int | None = None
    ) -> Object:
        host_ip = _host_ip(node)
        own = not pod["spec"].get("hostNetwork") and stage not in {Stage.CREATING, Stage.WAITING}
        pod_ip = self._addresses.take(uid_of(pod)) if own else pod["status"].get("podIP") or host_ip
        patch = report(pod, stage, plan=plan, host_ip=host_ip, pod_ip=pod_ip, now=timestamp(), exit_code=exit_code)
        return await self._write(pod, patch)

    async def _write(self, pod: Object, patch: Object | None) -> Object:
        if patch is None:
            return pod
        after = await self._api.call("PATCH", f"{_path(pod)}/status", body=patch)
        self._pods.put(after)
        phase = after["status"]["phase"]
        if phase not in {pod["status"].get("phase"), "Pending"}:
            what = What.POD_FINISHED if phase in TERMINAL else What.POD_RUNNING
            self._journal.record(
                what, node_of(pod), f"{pod['metadata']['namespace']}/{pod['metadata']['name']} {phase}"
            )
        return after

    async def _delete(self, pod: Object) -> None:
        body = {"gracePeriodSeconds": 0, "preconditions": {"uid": uid_of(pod)}}
        try:
            await self._api.call("DELETE", _path(pod), body=body)
        except ApiError as error:
            if error.status != 404:
                raise
            return
        self._journal.record(What.POD_ENDED, node_of(pod), f"{pod['metadata']['namespace']}/{pod['metadata']['name']}")


def node_of(pod: Object) -> str:
    """Name of the node a pod is bound to; empty when it is not."""
    return str(pod["spec"].get("nodeName") or "")


async def _end(track: Track | None) -> None:
    if track is not None and track.run is not None:
        run, track.run = track.run, None
        await run.kill()


def _host_ip(node: Object) -> str:
    addresses = node["status"].get("addresses") or ()
    return next((entry["address"] for entry in addresses if entry["type"] == "InternalIP"), "")


def _path(pod: Object) -> str:
    return f"/api/v1/namespaces/{pod['metadata']['namespace']}/pods/{pod['metadata']['name']}"
