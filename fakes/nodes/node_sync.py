"""One Node's life: from the VM's boot to the Node's removal."""

import asyncio
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from fakes.nodes.addresses import AddressBook
from fakes.nodes.api import ApiError, KubeApi, Object, uid_of
from fakes.nodes.clock import Clock, timestamp
from fakes.nodes.conditions import find, is_true, merged
from fakes.nodes.faults import FaultKind, Faults
from fakes.nodes.journal import Journal, What
from fakes.nodes.machines import Machine
from fakes.nodes.node_object import (
    CLUSTER_LABEL,
    PROVIDER,
    initialized,
    is_uninitialized,
    new_node,
    pool_update,
)
from fakes.nodes.node_status import NO_NETWORK, NO_RUNTIME, allocatable_gpus, conditions, report, silence
from fakes.nodes.reflector import Reflector
from fakes.nodes.settings import NodeSettings

NODES = "/api/v1/nodes"


@dataclass
class Track:
    """What is remembered of one machine; moments in simulated seconds."""

    seen_at: float
    """The VM appeared."""
    created_at: float | None = None
    """What its source calls the moment of its creation; None when it was never seen."""
    replaces: str | None = None
    """UID of the Node of an earlier VM of the same name."""
    uid: str | None = None
    """UID of the Node this kubelet registered or found."""
    applied: Machine | None = None
    """The machine whose labels and taints the Node carries."""
    joined_at: float = -math.inf
    deleted_at: float | None = None
    """The Node was deleted under the living kubelet."""
    plugin_since: float | None = None
    """The device plugin serves."""
    silent_since: float | None = None
    """The kubelet stopped."""
    gone_at: float | None = None
    """The VM left."""
    reported_at: float = -math.inf
    """Last status report, in seconds of the event loop's clock."""


class Plugins(Protocol):
    """Tells whether a device plugin serves on a node."""

    def plugin_serves(self, node: str, vendor: str) -> bool:
        """Whether a Ready device plugin for that vendor's GPUs runs there."""


class NodeSync:
    """Brings each Node one step on; called again whenever machine, Node, plugin or faults change, or time has come.

    Plays three programs of a cluster: the kubelet, cloud-node-manager, and the cloud controller manager's node
    lifecycle. The fourth, kube-controller-manager's, is real, but counts real seconds: so a silent Node is marked here,
    in simulated time, just as that controller would mark it; its taints and evictions follow from the mark.
    """

    def __init__(
        self,
        api: KubeApi,
        *,
        nodes: Reflector,
        machines: Mapping[str, Machine],
        settings: NodeSettings,
        clock: Clock,
        faults: Faults,
        journal: Journal,
        plugins: Plugins,
    ) -> None:
        self._api = api
        self._nodes = nodes
        self._machines = machines
        self._settings = settings
        self._clock = clock
        self._faults = faults
        self._journal = journal
        self._plugins = plugins
        self._addresses = AddressBook(settings.node_network)
        self._tracks: dict[str, Track] = {}

    async def sync(self, name: str) -> float | None:
        """Do what is due for the machine or Node of a name.

        Returns:
            Real seconds until something is due again; None when only a change can make it so.
        """
        machine, node = self._machines.get(name), self._nodes.get(name)
        if machine is None:
            return await self._without_vm(name, node)
        track = self._track(machine)
        if node is None:
            return await self._absent(machine, track)
        if uid_of(node) == track.replaces or (
            self._faults.find(FaultKind.VANISHES, machine) and not _is_deleting(node)
        ):
            await self._delete(node)
            return None
        return await self._present(machine, track, node)

    def kubelet_alive(self, name: str) -> Object | None:
        """Return the Node while a kubelet of ours is up and registered on it."""
        machine, node, track = self._machines.get(name), self._nodes.get(name), self._tracks.get(name)
        if machine is None or node is None or track is None or track.uid != uid_of(node):
            return None
        return None if self._faults.find(FaultKind.KUBELET_STOPS, machine) else node

    def state(self, name: str) -> str:
        """One word on a machine or Node, for tables."""
        node, track = self._nodes.get(name), self._tracks.get(name)
        if name not in self._machines:
            return "vm gone"
        if node is None:
            return "booting" if track is None or track.deleted_at is None else "node deleted"
        if _is_deleting(node):
            return "deleting"
        if track is not None and track.silent_since is not None:
            return "silent"
        return "ready" if is_true(node, "Ready") else "not ready"

    def _track(self, machine: Machine) -> Track:
        track = self._tracks.get(machine.name)
        if track is None or track.gone_at is not None or track.created_at != machine.created_at:
            # A VM that comes back under its name is another one: it boots first, and the old Node is not its own.
            uid = None if track is None else track.uid or track.replaces
            track = Track(seen_at=self._clock.now(), created_at=machine.created_at, replaces=uid)
            self._tracks[machine.name] = track
        return track

    async def _without_vm(self, name: str, node: Object | None) -> float | None:
        track = self._tracks.get(name)
        if node is None:
            if track is not None and track.gone_at is not None:
                self._journal.record(What.NODE_REMOVED, name)
            self._tracks.pop(name, None)
            self._addresses.release(name)
            return None
        if track is None:
            # Left over from before a restart, if it is one of ours at all.
            if not node["spec"].get("providerID", "").startswith(PROVIDER) or CLUSTER_LABEL not in _labels(node):
                return None
            track = self._tracks[name] = Track(seen_at=self._clock.now(), uid=uid_of(node))
        if track.gone_at is None:
            track.gone_at = self._clock.now()
            self._journal.record(What.VM_GONE, name)
        age = self._clock.now() - track.gone_at
        removal = self._settings.node_removal_delay
        if removal is not None and age >= removal:
            await self._delete(node)
            return None
        if age >= self._settings.monitor_grace:
            await self._fall_silent(node)
        dues = [due - age for due in (self._settings.monitor_grace, removal) if due is not None and due > age]
        return self._clock.real(min(dues)) if dues else None

    async def _absent(self, machine: Machine, track: Track) -> float | None:
        now = self._clock.now()
        if track.uid is not None and track.deleted_at is None:
            track.deleted_at = now
            self._journal.record(What.NODE_DELETED, machine.name)
        if track.deleted_at is not None:
            if self._settings.reregister_after is None:
                return None
            due = track.deleted_at + self._settings.reregister_after
        elif any(self._faults.find(kind, machine) for kind in (FaultKind.NEVER_JOINS, FaultKind.KUBELET_STOPS)):
            return None
        else:
            late = self._faults.find(FaultKind.JOINS_LATE, machine)
            due = track.seen_at + self._settings.join_delay + (late.seconds if late else 0.0)
        if now < due:
            return self._clock.real(due - now)
        body = new_node(machine, address=self._addresses.take(machine.name), settings=self._settings)
        moment = timestamp()
        body["status"]["conditions"] = merged(body, conditions(NO_NETWORK, now=moment), now=moment)
        node = await self._api.call("POST", NODES, body=body)
        track.uid, track.applied, track.joined_at, track.deleted_at = uid_of(node), machine, self._clock.now(), None
        self._nodes.put(node)
        self._journal.record(What.JOINED, machine.name, machine.vm_size)
        # The change just put in asks for the next look.
        return None

    async def _present(self, machine: Machine, track: Track, node: Object) -> float | None:
        if track.uid != uid_of(node):
            self._adopt(machine, track, node)
        if self._faults.find(FaultKind.KUBELET_STOPS, machine):
            return await self._silent(track, node)
        track.silent_since = None
        if is_uninitialized(node) and self._age(track) >= self._settings.cloud_init_delay:
            node = await self._write(node, initialized(node, machine))
        if track.applied is not None and (update := pool_update(node, before=track.applied, after=machine)):
            node = await self._write(node, update)
        track.applied = machine
        return await self._report(machine, track, node)

    def _adopt(self, machine: Machine, track: Track, node: Object) -> None:
        """Take over a Node that an earlier run registered; what it had reached then, it keeps."""
        now = self._clock.now()
        track.uid, track.applied, track.joined_at, track.deleted_at = uid_of(node), machine, now, None
        for address in node["status"].get("addresses") or ():
            if address["type"] == "InternalIP":
                self._addresses.note(machine.name, address["address"])
        ready = find(node, "Ready")
        if ready is not None and ready["status"] != "False":
            track.joined_at = -math.inf
        if allocatable_gpus(node):
            track.plugin_since = -math.inf
        self._journal.record(What.ADOPTED, machine.name)

    async def _silent(self, track: Track, node: Object) -> float | None:
        now = self._clock.now()
        if track.silent_since is None:
            track.silent_since = now
        due = track.silent_since + self._settings.monitor_grace
        if now < due:
            return self._clock.real(due - now)
        await self._fall_silent(node)
        return None

    async def _report(self, machine: Machine, track: Track, node: Object) -> float | None:
        clock = asyncio.get_running_loop().time
        ready_due = self._settings.ready_delay - self._age(track)
        not_ready = NO_NETWORK if ready_due > 0 else None
        if self._faults.find(FaultKind.NOT_READY, machine):
            not_ready = not_ready or NO_RUNTIME
        gpus, gpus_due = self._gpus(machine, track)
        refresh = clock() - track.reported_at >= self._settings.status_interval_real
        patch = report(node, machine, not_ready=not_ready, gpus=gpus, refresh=refresh, now=timestamp())
        if patch is not None:
            after = await self._write(node, patch, status=True)
            track.reported_at = clock()
            self._tell(node, after)
        status_due = max(track.reported_at + self._settings.status_interval_real - clock(), 0.0)
        init_due = self._settings.cloud_init_delay - self._age(track) if is_uninitialized(node) else 0.0
        dues = [self._clock.real(due) for due in (ready_due, gpus_due, init_due) if due > 0]
        return min([status_due, *dues])

    def _gpus(self, machine: Machine, track: Track) -> tuple[int | None, float]:
        """Return how many GPUs are registered (None: no plugin serves), and in how many simulated seconds to ask."""
        broken = (FaultKind.GPUS_NEVER_REGISTER, FaultKind.DRIVER_MISSING)
        vendor = machine.gpu_vendor
        if (
            not machine.gpu_count
            or vendor is None
            or any(self._faults.find(kind, machine) for kind in broken)
            or not (machine.gpu_managed or self._plugins.plugin_serves(machine.name, vendor))
        ):
            track.plugin_since = None
            return None, 0.0
        now = self._clock.now()
        if track.plugin_since is None:
            track.plugin_since = now
        wait = track.plugin_since + self._settings.gpu_delay - now
        if wait > 0:
            return None, wait
        fewer = self._faults.find(FaultKind.FEWER_GPUS, machine)
        return (min(fewer.gpus, machine.gpu_count) if fewer else machine.gpu_count), 0.0

    def _tell(self, before: Object, after: Object) -> None:
        name = after["metadata"]["name"]
        if is_true(before, "Ready") != is_true(after, "Ready"):
            self._journal.record(What.READY if is_true(after, "Ready") else What.NOT_READY, name)
        gpus = allocatable_gpus(after)
        if gpus != allocatable_gpus(before):
            self._journal.record(What.GPUS, name, str(gpus))

    def _age(self, track: Track) -> float:
        return self._clock.now() - track.joined_at

    async def _fall_silent(self, node: Object) -> None:
        patch = silence(node, now=timestamp())
        if patch is not None:
            await self._write(node, patch, status=True)
            self._journal.record(What.SILENT, node["metadata"]["name"])

    async def _write(self, node: Object, patch: Object, *, status: bool = False) -> Object:
        path = f"{NODES}/{node['metadata']['name']}" + ("/status" if status else "")
        version = {"resourceVersion": node["metadata"]["resourceVersion"]}
        body = {**patch, "metadata": {**patch.get("metadata", {}), **version}}
        after = await self._api.call("PATCH", path, body=body)
        self._nodes.put(after)
        return after

    async def _delete(self, node: Object) -> None:
        if _is_deleting(node):
            return
        body = {"preconditions": {"uid": uid_of(node)}}
        try:
            await self._api.call("DELETE", f"{NODES}/{node['metadata']['name']}", body=body)
        except ApiError as error:
            if error.status != 404:
                raise


def _labels(item: Object) -> Mapping[str, str]:
    return item["metadata"].get("labels") or {}


def _is_deleting(item: Object) -> bool:
    return "deletionTimestamp" in item["metadata"]
