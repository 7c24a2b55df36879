"""The Workspace controller: queue in, one look at one Workspace, one step out.

Level-triggered like the one of claims: a key in the queue says only that a Workspace is worth a look.
"""

import asyncio
import dataclasses
import logging
import time
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, Final

from provisioner.apis import names
from provisioner.apis.node import Node
from provisioner.apis.nodeclaim import NodeClaim
from provisioner.apis.workspace import Workspace
from provisioner.gpus import presets
from provisioner.kube.errors import Conflict, Forbidden, Gone, KubeError, Rejected, Unavailable
from provisioner.kube.metrics import Registry
from provisioner.kube.objects import Kind, Objects
from provisioner.kube.queue import WorkQueue
from provisioner.logs import bound
from provisioner.placement.size import Sizes
from provisioner.workspace import references
from provisioner.workspace.actuator import Actuator
from provisioner.workspace.hub import Hub
from provisioner.workspace.lifecycle import reconcile
from provisioner.workspace.pod_state import parse_pod_state
from provisioner.workspace.recorded_model import from_status
from provisioner.workspace.store import Store, is_ours, workspace_of
from provisioner.workspace.view import (
    CONFIG_MAP,
    JOB,
    NODE_CLAIM,
    SECRET,
    STATEFUL_SET,
    WORKSPACE,
    Inputs,
    Model,
    PodState,
    Problem,
    Serving,
    View,
)

_log: Final = logging.getLogger(__name__)

PODS: Final = Kind(api_version="v1", kind="Pod", plural="pods")
NODES: Final = Kind(api_version="v1", kind="Node", plural="nodes", is_namespaced=False)
_CONTROLLER: Final = "workspace"
_TOKEN_KEY: Final = "HF_TOKEN"  # noqa: S105 -- a key, not what is under it


class Controller:
    """Reconciles Workspaces. Keys are namespace/name."""

    def __init__(
        self,
        *,
        objects: Objects,
        store: Store,
        queue: WorkQueue[str],
        actuator: Actuator,
        hub: Hub,
        sizes: Sizes,
        serving: Serving,
        now: Callable[[], datetime],
        metrics: Registry,
    ) -> None:
        self._objects = objects
        self._store = store
        self._queue = queue
        self._actuator = actuator
        self._hub = hub
        self._sizes = sizes
        self._serving = serving
        self._now = now
        self._seconds = metrics.histogram(
            "controller_runtime_reconcile_time_seconds", text="Seconds of one reconcile.", labels=("controller",)
        )
        self._results = metrics.counter(
            "controller_runtime_reconcile_total", text="Reconciles by result.", labels=("controller", "result")
        )
        count = metrics.gauge("kaito_workspace_count", text="Workspaces by state.", labels=("phase",))

        def take_stock() -> None:
            count.clear()
            states: dict[str, int] = {}
            for workspace in store.workspaces.items.values():
                phase = "deleting" if workspace.is_deleting else (workspace.state or "Pending").lower()
                states[phase] = states.get(phase, 0) + 1
            for phase, number in states.items():
                count.set(number, phase=phase)

        metrics.before_scrape(take_stock)

    # What there is to look at

    def on_workspace(self, event: str | None, raw: Mapping[str, Any]) -> None:
        """Take a Workspace from the watch."""
        key = f"{raw['metadata']['namespace']}/{raw['metadata']['name']}"
        if event == "DELETED":
            gone = self._store.workspaces.remove(key, raw["metadata"]["uid"])
            if gone is not None:
                self._actuator.forget(gone.uid)
        elif self._store.workspaces.put(raw):
            self._queue.add(key)

    def on_claim(self, event: str | None, raw: Mapping[str, Any]) -> None:
        """Take a NodeClaim from the watch: its Workspace is what is looked at."""
        metadata = raw["metadata"]
        claim: NodeClaim | None
        if event == "DELETED":
            claim = self._store.claims.remove(metadata["name"], metadata["uid"])
        else:
            claim = self._store.claims.items.get(metadata["name"]) if self._store.claims.put(raw) else None
        if claim is not None:
            self._add(workspace_of(claim.labels))

    def on_node(self, event: str | None, raw: Mapping[str, Any]) -> None:
        """Take a Node from the watch: its Workspace is looked at; where it is nobody's, all that wait for Nodes."""
        metadata = raw["metadata"]
        node: Node | None
        if event == "DELETED":
            node = self._store.nodes.remove(metadata["name"], metadata["uid"])
        else:
            node = self._store.nodes.items.get(metadata["name"]) if self._store.nodes.put(raw) else None
        if node is None:
            return
        if owner := workspace_of(node.labels):
            self._add(owner)
        elif event != "DELETED" and node.is_ready:
            for workspace in self._store.workspaces.items.values():
                if workspace.state in ("", "Pending"):
                    self._queue.add(workspace.key)

    def on_stateful_set(self, event: str | None, raw: Mapping[str, Any]) -> None:
        """Take a StatefulSet from the watch."""
        self._on_workload(event, raw, STATEFUL_SET)

    def on_job(self, event: str | None, raw: Mapping[str, Any]) -> None:
        """Take a Job from the watch."""
        self._on_workload(event, raw, JOB)

    def _on_workload(self, event: str | None, raw: Mapping[str, Any], kind: Kind) -> None:
        if not is_ours(raw):
            return
        table = self._store.stateful_sets if kind is STATEFUL_SET else self._store.jobs
        metadata = raw["metadata"]
        key = f"{metadata['namespace']}/{metadata['name']}"
        if event == "DELETED":
            table.remove(key, metadata["uid"])
            self._add(key)
        elif table.put(raw):
            self._add(key)

    def _add(self, key: str) -> None:
        if key in self._store.workspaces.items:
            self._queue.add(key)

    def on_model(self, name: str) -> None:
        """Have the Workspaces looked at that name a model about which something was found out."""
        for workspace in self._store.workspaces.items.values():
            if references.model_name(workspace) == name:
                self._queue.add(workspace.key)

    async def synchronise(self) -> None:
        """Take full lists over and look at what changed. Raises KubeError, Gone where the CRD is not installed."""
        store = self._store
        workspaces = await self._objects.list(WORKSPACE)
        nodes = await self._objects.list(NODES)
        try:
            claims = await self._objects.list(NODE_CLAIM)
        except Gone:
            # Without the kind there are no claims; whoever needs one is told when it is created.
            claims = [], ""
        sets = await self._objects.list(STATEFUL_SET, labels="kaito.sh/workspace")
        jobs = await self._objects.list(JOB, labels="kaito.sh/workspace")
        # All of them or none: what is taken over is no news the next time, and would be looked at by nobody.
        changed = set(store.workspaces.replace(*workspaces))
        owners = {workspace_of(node.labels) for node in store.nodes.replace(*nodes).values()}
        owners |= {workspace_of(claim.labels) for claim in store.claims.replace(*claims).values()}
        for (found, version), table in ((sets, store.stateful_sets), (jobs, store.jobs)):
            changed |= set(table.replace([raw for raw in found if is_ours(raw)], version))
        self._actuator.forget_services()
        for key in changed | owners:
            self._add(key)
        await self._collect()

    async def _collect(self) -> None:
        """Delete the claims that were made for Workspaces which are no more: somebody has taken their finalizer off."""
        for claim in list(self._store.claims.items.values()):
            key, uid = workspace_of(claim.labels), claim.annotations.get(names.WORKSPACE_UID_ANNOTATION)
            known = self._store.workspaces.items.get(key)
            if not key or not uid or claim.is_deleting or (known is not None and known.uid == uid):
                continue
            # What is here may be behind: nobody deletes a running model's Node for that.
            namespace, _, name = key.partition("/")
            raw = await self._objects.get(WORKSPACE, namespace, name)
            if raw is None or raw["metadata"]["uid"] != uid:
                await self._objects.delete(NODE_CLAIM, "", claim.name, uid=claim.uid)
                _log.warning(
                    "NodeClaim of a Workspace that is gone deleted", extra={"workspace": key, "claim": claim.name}
                )

    # The look

    async def work(self) -> None:
        """Handle keys until the queue is shut down. Several of these run side by side."""
        while (key := await self._queue.get()) is not None:
            started = time.perf_counter()
            result = "error"
            try:
                with bound(workspace=key):
                    result = await self._look(key)
            finally:
                self._queue.done(key)
                self._results.inc(controller=_CONTROLLER, result=result)
                self._seconds.observe(time.perf_counter() - started, controller=_CONTROLLER)

    async def _look(self, key: str) -> str:
        try:
            await self._handle(key)
        except KubeError as error:
            await self._recover(key, error)
        except Exception:  # noqa: BLE001 -- logged with its traceback, counted and retried
            _log.exception("reconcile failed")
            self._queue.retry(key)
        else:
            self._queue.forget(key)
            return "success"
        return "error"

    async def _handle(self, key: str) -> None:
        workspace = self._store.workspaces.items.get(key)
        if workspace is None:
            return
        view = await self._view(workspace)
        step = reconcile(view)
        if step.claims:
            # Somebody may label a Node and write the Workspace in one breath, and a claim costs a GPU node.
            await self._read_nodes(workspace)
            view = dataclasses.replace(view, nodes=self._store.nodes_for(workspace))
            step = reconcile(view)
        if step.again_after is not None:
            self._queue.add_after(key, step.again_after.total_seconds())
        if await self._actuator.carry_out(view, step):
            self._queue.add(key)

    async def _read_nodes(self, workspace: Workspace) -> None:
        """Take in the Nodes with the Workspace's labels, of which the watch may not have told yet."""
        labels = workspace.resource.label_selector.match_labels
        try:
            raws, _ = await self._objects.list(NODES, labels=",".join(f"{key}={labels[key]}" for key in sorted(labels)))
        except Rejected:
            # By no such labels can a Node be found. The claim is refused for them too, and the condition says so.
            return
        for raw in raws:
            self.on_node(None, raw)

    async def _view(self, workspace: Workspace) -> View:
        inputs, token = Inputs(), ""
        if not workspace.is_deleting and not workspace.spec_error:
            inputs, token = await self._inputs(workspace)
        return View(
            workspace=workspace,
            now=self._now(),
            sizes=self._sizes,
            settings=self._serving,
            model=None if workspace.is_deleting else self._model(workspace, token),
            inputs=inputs,
            claims=self._store.claims_of(workspace),
            nodes=self._store.nodes_for(workspace),
            workload=self._store.workload_of(workspace),
            services=self._actuator.services(workspace),
            pods=await self._pods(workspace),
            refusal=self._actuator.refusal(workspace),
        )

    def _model(self, workspace: Workspace, token: str) -> Model | Problem | None:
        name = references.model_name(workspace)
        if not name:
            return None
        preset = presets.find(name)
        if preset is not None:
            return Model(facts=preset.facts, preset=preset)
        recorded = from_status(workspace.model, name=name)
        if recorded is not None:
            return Model(facts=recorded)
        if "/" not in name:
            # No ID of the Hub: the checks have a word for it.
            return None
        return self._hub.find(name, token=token)

    async def _inputs(self, workspace: Workspace) -> tuple[Inputs, str]:
        """Read what the Workspace refers to; the token of its model's Secret stays out of the view."""
        configs: dict[str, Mapping[str, str]] = {}
        secrets: dict[str, frozenset[str]] = {}
        token = ""
        if config := references.config_name(workspace):
            raw = await self._objects.get(CONFIG_MAP, workspace.namespace, config)
            if raw is not None:
                configs[config] = {str(key): str(value) for key, value in (raw.get("data") or {}).items()}
        for reference in references.secrets(workspace):
            if reference.name in secrets:
                continue
            raw = await self._objects.get(SECRET, workspace.namespace, reference.name)
            if raw is None:
                continue
            data = raw.get("data") or {}
            secrets[reference.name] = frozenset(data)
            if reference.key == _TOKEN_KEY:
                token = references.decoded(data.get(_TOKEN_KEY))
        return Inputs(configs=configs, secrets=secrets), token

    async def _pods(self, workspace: Workspace) -> tuple[PodState, ...]:
        """Return what the workload's pods wait for, where it is not well."""
        workload = self._store.workload_of(workspace)
        if workload is None or workspace.is_deleting:
            return ()
        if workload.succeeded or (workload.kind is STATEFUL_SET and workload.ready >= workload.wanted):
            return ()
        selector = f"kaito.sh/workspace={workspace.name}"
        raws, _ = await self._objects.list(PODS, namespace=workspace.namespace, labels=selector)
        # What a pod says that is on its way out is about its end, and not about what was wrong.
        return tuple(parse_pod_state(raw) for raw in raws if "deletionTimestamp" not in raw["metadata"])

    async def _recover(self, key: str, error: KubeError) -> None:
        if isinstance(error, Conflict | Gone):
            # Somebody was faster: decide anew on what is there now.
            await self._reread(key)
            self._queue.retry(key)
            return
        pause = (error.retry_after or 0.0) if isinstance(error, Unavailable) else 0.0
        level = logging.INFO if isinstance(error, Unavailable) else logging.WARNING
        hint = " Check the controller's ClusterRole." if isinstance(error, Forbidden) else ""
        _log.log(level, "API server refused.%s", hint, extra={"error": str(error)})
        self._queue.retry(key, at_least=pause)

    async def _reread(self, key: str) -> None:
        namespace, _, name = key.partition("/")
        workspace = self._store.workspaces.items.get(key)
        if workspace is None:
            return
        try:
            raw = await self._objects.get(WORKSPACE, namespace, name)
            if raw is not None:
                self._store.workspaces.put(raw)
            else:
                self._store.workspaces.remove(key, workspace.uid)
                self._actuator.forget(workspace.uid)
                return
            for node in self._store.nodes.find("workspace", key):
                fresh = await self._objects.get(NODES, "", node.name)
                if fresh is not None:
                    self._store.nodes.put(fresh)
                else:
                    self._store.nodes.remove(node.name, node.uid)
        except KubeError as error:
            _log.info("Workspace not read again", extra={"error": str(error)})


async def run_workers(controller: Controller, *, count: int) -> None:
    """Run that many workers until the queue is shut down."""
    async with asyncio.TaskGroup() as group:
        for _ in range(count):
            group.create_task(controller.work())
