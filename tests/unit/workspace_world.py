"""A small cluster in memory around the Workspace controller, in virtual time: its API server, provisioner and kubelets.

Watches lag, answers get lost, processes die at any write; what has to hold all the while is checked at each write.
"""

import asyncio
import copy
import random
from collections.abc import Iterator, Mapping
from contextlib import suppress
from datetime import datetime, timedelta
from types import TracebackType
from typing import Any, Final, Self

from provisioner.apis import names
from provisioner.apis.times import format_time
from provisioner.kube.errors import Conflict, Gone, KubeError, Rejected, Unavailable
from provisioner.kube.events import EventRecorder
from provisioner.kube.metrics import Registry
from provisioner.kube.objects import Objects
from provisioner.kube.queue import WorkQueue
from provisioner.kube.transport import APPLY_PATCH
from provisioner.workspace.actuator import Actuator
from provisioner.workspace.controller import Controller
from provisioner.workspace.hub import Hub
from provisioner.workspace.store import Store
from provisioner.workspace.view import Serving
from tests.unit.claim_world import merge
from tests.unit.virtual_time import now
from tests.unit.workspace_builders import CREATED, IMAGE, SIZES, raw_workspace

Raw = dict[str, Any]
WORKSPACES: Final = "workspaces"
CLAIMS: Final = "nodeclaims"
SETS: Final = "statefulsets"
JOBS: Final = "jobs"
SERVICES: Final = "services"
NODES: Final = "nodes"
RESYNC: Final = 120.0


def clock() -> datetime:
    return CREATED + timedelta(seconds=now())


class Api:
    """The API server, as far as the controller uses it. `objects` are by plural and `namespace/name`."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.objects: dict[str, dict[str, Raw]] = {
            kind: {} for kind in (WORKSPACES, CLAIMS, SETS, JOBS, SERVICES, NODES, "configmaps", "secrets", "pods")
        }
        self.journal: dict[str, list[tuple[str, Raw]]] = {kind: [] for kind in self.objects}
        self.version = 0
        self.watches: set[asyncio.Event] = set()
        self.writes: list[str] = []
        # What goes wrong: a part of answers is lost, a process dies at a write, claims are refused.
        self.faults = 0.0
        self.crash_in: int | None = None
        self.crashed = asyncio.Event()
        self.refuses: set[str] = set()
        self.loses_answers_about: set[str] = set()
        # Whether somebody takes finalizers off that are not theirs.
        self.is_forced = False
        self.broken: list[str] = []

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None

    # What clients ask

    async def read(self, path: str, *, query: Mapping[str, str | int] | None = None) -> Raw:
        await self._wait()
        kind, key, _ = _where(path)
        if key.endswith("/") or not key:
            found = [
                raw for raw in self.objects[kind].values() if _chosen(raw, str((query or {}).get("labelSelector", "")))
            ]
            return {"items": copy.deepcopy(found), "metadata": {"resourceVersion": str(self.version)}}
        if key not in self.objects[kind]:
            raise Gone(path, status=404)
        return copy.deepcopy(self.objects[kind][key])

    async def call(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str | int] | None = None,
        body: Mapping[str, Any] | None = None,
        content_type: str = "application/json",
    ) -> Raw:
        assert body is not None
        await self._wait()
        body = copy.deepcopy(dict(body))
        dies_before = self.rng.random() < 0.5
        is_last = self.crash_in == 0
        if self.crash_in is not None:
            self.crash_in -= 1
        if is_last and dies_before:
            await self._die()
        kind, key, is_status = _where(path)
        match method:
            case "POST":
                answer = self.create(kind, body)
            case "DELETE":
                answer = self.delete(kind, key, uid=body["preconditions"]["uid"])
            case _ if content_type == APPLY_PATCH:
                answer = self.apply(kind, key, body)
            case _:
                answer = self.patch(kind, key, body, is_status=is_status)
        if is_last:
            await self._die()
        if self._is_unlucky() or kind in self.loses_answers_about:
            raise Unavailable("the answer is lost", lost=True)
        return answer

    async def _wait(self) -> None:
        if self._is_unlucky():
            raise Unavailable("no connection")
        await asyncio.sleep(self.rng.choice([0.01, 0.01, 0.5]))

    async def _die(self) -> None:
        self.crash_in = None
        self.crashed.set()
        await asyncio.Event().wait()

    def _is_unlucky(self) -> bool:
        return self.rng.random() < self.faults

    # What it does

    def create(self, kind: str, body: Raw) -> Raw:
        metadata = body["metadata"]
        key = f"{metadata['namespace']}/{metadata['name']}" if metadata.get("namespace") else metadata["name"]
        if kind in self.refuses:
            raise Rejected("admission webhook denied the request", status=400, told="denied: no GPUs on Fridays")
        if key in self.objects[kind]:
            raise Conflict("exists", status=409, reason="AlreadyExists")
        metadata |= {"uid": f"{kind}-{self.version}", "generation": 1, "creationTimestamp": format_time(clock())}
        self.store(kind, key, body, "ADDED")
        if kind == CLAIMS:
            self._check_claims(metadata)
        return copy.deepcopy(body)

    def patch(self, kind: str, key: str, patch: Raw, *, is_status: bool = False) -> Raw:
        old = self.objects[kind].get(key)
        if old is None:
            raise Gone(key, status=404)
        expected = patch.get("metadata", {}).pop("resourceVersion", None)
        if expected is not None and expected != old["metadata"]["resourceVersion"]:
            raise Conflict("changed", status=409, reason="Conflict")
        self.expect(is_status == ("status" in patch), "status is a subresource")
        new = merge(old, patch)
        if new != old:
            if any(new.get(part) != old.get(part) for part in ("inference", "tuning", "spec")):
                new["metadata"]["generation"] += 1
            self.store(kind, key, new, "MODIFIED")
        return copy.deepcopy(new)

    def apply(self, kind: str, key: str, body: Raw) -> Raw:
        if kind in self.refuses:
            raise Rejected("invalid", status=422, told="spec.template: Required value")
        old = self.objects[kind].get(key)
        if old is None:
            return self.create(kind, body)
        if kind == JOBS and old["spec"] != body["spec"]:
            raise Rejected("field is immutable", status=422)
        new = {**old, **body, "metadata": {**old["metadata"], **body["metadata"]}}
        if new != old:
            new["metadata"]["generation"] += 1
            self.store(kind, key, new, "MODIFIED")
        return copy.deepcopy(new)

    def delete(self, kind: str, key: str, *, uid: str = "") -> Raw:
        old = self.objects[kind].get(key)
        if old is None:
            raise Gone(key, status=404)
        if uid and uid != old["metadata"]["uid"]:
            raise Conflict("uid", status=409)
        if "deletionTimestamp" not in old["metadata"]:
            metadata = {**old["metadata"], "deletionTimestamp": format_time(clock())}
            self.store(kind, key, {**old, "metadata": metadata}, "MODIFIED")
        return {}

    def store(self, kind: str, key: str, raw: Raw, event: str) -> None:
        self.version += 1
        raw["metadata"]["resourceVersion"] = str(self.version)
        self.writes.append(f"{event} {kind} {key}")
        if "deletionTimestamp" in raw["metadata"] and not raw["metadata"].get("finalizers"):
            self.objects[kind].pop(key, None)
            event = "DELETED"
            self._collect(raw["metadata"]["uid"])
            if kind == WORKSPACES and not self.is_forced:
                left = [
                    claim
                    for claim in self.objects[CLAIMS].values()
                    if claim["metadata"]["labels"].get(OWN) == key.rpartition("/")[2]
                ]
                self.expect(not left, "the Workspace goes after its claims")
        else:
            self.objects[kind][key] = raw
        self.journal[kind].append((event, copy.deepcopy(raw)))
        for news in self.watches:
            news.set()

    def _collect(self, uid: str) -> None:
        for kind, objects in self.objects.items():
            for key, raw in list(objects.items()):
                if any(owner["uid"] == uid for owner in raw["metadata"].get("ownerReferences", ())):
                    self.delete(kind, key)

    def _check_claims(self, metadata: Raw) -> None:
        owner = self.objects[WORKSPACES].get(f"ml/{metadata['labels'][OWN]}")
        if owner is None:
            self.expect(False, "no claim is made for a Workspace that is gone")
            return
        target = (owner.get("status") or {}).get("targetNodeCount", 0)
        uid = owner["metadata"]["uid"]
        self.expect(names.WORKSPACE_FINALIZER in owner["metadata"]["finalizers"], "the finalizer comes first")
        self.expect(target > 0, "what was decided is written before anything is made by it")
        self.expect(metadata["annotations"][names.WORKSPACE_UID_ANNOTATION] == uid, "it is of this Workspace")
        alive = [one for one in self.alive() if one["metadata"]["annotations"][names.WORKSPACE_UID_ANNOTATION] == uid]
        self.expect(len(alive) <= target, f"{len(alive)} claims are alive, {target} are wanted")

    def expect(self, is_so: bool, what: str) -> None:
        """Note what is wrong: the controller would catch what is raised here."""
        if not is_so:
            self.broken.append(f"{now():.1f} s: {what}")

    def alive(self) -> list[Raw]:
        return [claim for claim in self.objects[CLAIMS].values() if "deletionTimestamp" not in claim["metadata"]]


OWN: Final = names.WORKSPACE_LABEL


def _where(path: str) -> tuple[str, str, bool]:
    """Return plural, `namespace/name` (nothing behind the slash for all of a namespace), and whether it is a status."""
    parts = path.strip("/").split("/")
    parts = parts[2:] if parts[0] == "api" else parts[3:]
    is_status = parts[-1] == "status"
    parts = parts[:-1] if is_status else parts
    if parts[0] == "namespaces":
        return parts[2], f"{parts[1]}/{parts[3] if len(parts) > 3 else ''}", is_status
    return parts[0], parts[1] if len(parts) > 1 else "", is_status


def _chosen(raw: Raw, selector: str) -> bool:
    labels = raw["metadata"].get("labels") or {}
    for term in filter(None, selector.split(",")):
        key, _, value = term.partition("=")
        if key not in labels or (value and labels[key] != value):
            return False
    return True


class World:
    """The cluster with one controller. `lag` is the longest time in seconds that a watch is behind."""

    def __init__(self, seed: int, *, lag: float = 1.0) -> None:
        self.rng = random.Random(seed)  # noqa: S311 -- to be repeated
        self.api = Api(self.rng)
        self.lag = lag
        self.lags: dict[str, float] = {}
        self.drops = 0.0
        # What its provisioner says to a new claim: nothing, or a reason for which there are no Nodes.
        self.no_nodes = ""
        self.image = IMAGE
        self._tasks: list[asyncio.Task[None]] = []
        self._actors: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Self:
        self._actors = [asyncio.create_task(self._act()), asyncio.create_task(self._revive())]
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()
        for actor in self._actors:
            actor.cancel()
        results = await asyncio.gather(*self._actors, return_exceptions=True)
        for result in results:
            if isinstance(result, Exception):
                raise result
        assert not self.api.broken

    # The controller

    async def start(self) -> None:
        metrics = Registry()
        store = Store()
        objects = Objects(self.api)
        queue: WorkQueue[str] = WorkQueue(rng=self.rng, retry_cap=30.0)
        controller = Controller(
            objects=objects,
            store=store,
            queue=queue,
            actuator=Actuator(
                objects=objects,
                store=store,
                recorder=EventRecorder(_Nowhere(), clock=clock, instance="test"),
                metrics=metrics,
            ),
            hub=Hub(endpoint="", on_news=lambda name: None),
            sizes=SIZES,
            serving=Serving(image=self.image),
            now=clock,
            metrics=metrics,
        )
        self._tasks = [asyncio.create_task(self._run(controller))]

    async def _run(self, controller: Controller) -> None:
        handlers = {
            WORKSPACES: controller.on_workspace,
            CLAIMS: controller.on_claim,
            NODES: controller.on_node,
            SETS: controller.on_stateful_set,
            JOBS: controller.on_job,
        }
        # Each watch begins where its list ended, at the latest.
        begins = {kind: len(self.api.journal[kind]) for kind in handlers}
        while True:
            try:
                await controller.synchronise()
                break
            except KubeError:
                await asyncio.sleep(1)
        async with asyncio.TaskGroup() as group:
            for kind, handler in handlers.items():
                group.create_task(self._watch(kind, handler, begins[kind]))
            group.create_task(controller.work())
            group.create_task(controller.work())
            group.create_task(self._resync(controller))

    async def _watch(self, kind: str, handler: Any, begin: int) -> None:
        journal, news = self.api.journal[kind], asyncio.Event()
        self.api.watches.add(news)
        while True:
            while begin >= len(journal):
                news.clear()
                await news.wait()
            await asyncio.sleep(self.rng.uniform(0.05, self.lags.get(kind, self.lag)))
            while begin < len(journal):
                event, raw = journal[begin]
                begin += 1
                if self.rng.random() >= self.drops:
                    handler(event, copy.deepcopy(raw))

    async def _resync(self, controller: Controller) -> None:
        while True:
            await asyncio.sleep(RESYNC)
            with suppress(KubeError):
                await controller.synchronise()

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        results = await asyncio.gather(*self._tasks, return_exceptions=True)
        for result in results:
            if isinstance(result, BaseException) and not isinstance(result, asyncio.CancelledError):
                raise result
        self._tasks = []

    async def restart(self) -> None:
        await self.stop()
        await self.start()

    async def _revive(self) -> None:
        while True:
            await self.api.crashed.wait()
            self.api.crashed.clear()
            await self.restart()

    # Everybody else

    def create(self, **changes: Any) -> None:
        raw = raw_workspace(**changes)
        raw["metadata"].pop("uid")
        self.api.create(WORKSPACES, raw)

    @property
    def workspace(self) -> Raw | None:
        return self.api.objects[WORKSPACES].get("ml/chat")

    @property
    def status(self) -> Raw:
        assert self.workspace is not None, "the Workspace is gone"
        return dict(self.workspace.get("status") or {})

    def condition(self, kind: str) -> tuple[str, str, str]:
        found = next((c for c in self.status.get("conditions", ()) if c["type"] == kind), None)
        return (found["status"], found["reason"], found["message"]) if found else ("", "", "")

    def delete(self) -> None:
        if self.workspace is not None:
            self.api.delete(WORKSPACES, "ml/chat")

    def patch(self, patch: Raw) -> None:
        self.api.patch(WORKSPACES, "ml/chat", patch)

    def brings(self, name: str, *, labels: Mapping[str, str] | None = None, **changes: Any) -> None:
        """Have somebody bring a Node that the Workspace may use."""
        body = _node(name, {"apps": "chat", **(labels or {})})
        self.api.create(NODES, merge(body, changes))

    async def _act(self) -> None:
        while True:
            await asyncio.sleep(1.0)
            for key, claim in list(self.api.objects[CLAIMS].items()):
                self._serve(key, claim)
            for kind in (SETS, JOBS):
                for key, raw in list(self.api.objects[kind].items()):
                    status = self._run_set(raw) if kind == SETS else self._run_job(raw)
                    if status != raw.get("status"):
                        self.api.patch(kind, key, {"status": status}, is_status=True)

    def _serve(self, key: str, claim: Raw) -> None:
        """Do the next thing that a provisioner does with a claim."""
        metadata, status = claim["metadata"], claim.get("status") or {}
        node = self.api.objects[NODES].get(f"node-{key}")
        if "deletionTimestamp" in metadata:
            if node is not None:
                self.api.delete(NODES, f"node-{key}")
            elif metadata.get("finalizers") and self.rng.random() < 0.2:
                self.api.patch(CLAIMS, key, {"metadata": {"finalizers": None}})
        elif not metadata.get("finalizers"):
            self.api.patch(CLAIMS, key, {"metadata": {"finalizers": [names.TERMINATION_FINALIZER]}})
        elif self.no_nodes and node is None:
            if not _has(status, "Launched", "False"):
                self._tell(key, "Launched", "False", self.no_nodes, "0 of 24 vCPUs are left.")
        elif not _has(status, "Launched", "True"):
            self._tell(key, "Launched", "True", "Launched")
        elif node is None:
            self.api.create(NODES, _node(f"node-{key}", metadata["labels"], ready="False"))
        elif node["status"]["conditions"][0]["status"] != "True":
            self.api.patch(NODES, node["metadata"]["name"], {"status": _node("n", {})["status"]}, is_status=True)
        elif not _has(status, "Ready", "True"):
            self.api.patch(CLAIMS, key, {"status": {"nodeName": f"node-{key}"}}, is_status=True)
            for kind in ("Registered", "Initialized", "Ready"):
                self._tell(key, kind, "True", kind)

    def _tell(self, key: str, kind: str, value: str, reason: str, message: str = "") -> None:
        conditions = (self.api.objects[CLAIMS][key].get("status") or {}).get("conditions") or []
        told = {"type": kind, "status": value, "reason": reason, "message": message}
        others = [condition for condition in conditions if condition["type"] != kind]
        self.api.patch(CLAIMS, key, {"status": {"conditions": [*others, told]}}, is_status=True)

    def _nodes(self) -> Iterator[Raw]:
        for raw in self.api.objects[NODES].values():
            ready = raw["status"]["conditions"][0]["status"] == "True"
            if ready and raw["metadata"]["labels"].get(OWN) == "chat":
                yield raw

    def _run_set(self, raw: Raw) -> Raw:
        wanted = raw["spec"]["replicas"]
        return {
            "observedGeneration": raw["metadata"]["generation"],
            "readyReplicas": min(wanted, len(list(self._nodes()))),
            "currentRevision": "a",
            "updateRevision": "a",
        }

    def _run_job(self, raw: Raw) -> Raw:
        status = raw.get("status") or {}
        if status.get("succeeded"):
            return dict(status)
        if status.get("ready"):
            return {"succeeded": 1} if self.rng.random() < 0.05 else dict(status)
        return {"active": 1, "ready": 1} if list(self._nodes()) else {"active": 1}

    async def settle(self, minutes: float) -> None:
        """Let good times last for so long."""
        self.api.faults, self.drops, self.api.crash_in, self.no_nodes = 0.0, 0.0, None, ""
        self.api.refuses.clear()
        self.api.loses_answers_about.clear()
        await asyncio.sleep(minutes * 60)

    async def rests(self) -> None:
        """Check that nothing is written any more."""
        before = list(self.api.writes)
        await asyncio.sleep(5 * 60)
        assert self.api.writes == before, self.api.writes[len(before) :]


class _Nowhere:
    """Where Events go that nobody reads: recorders write none before they are entered."""

    async def get_event(self, namespace: str, name: str) -> Raw | None:
        raise NotImplementedError

    async def create_event(self, body: Mapping[str, Any]) -> Raw:
        raise NotImplementedError

    async def patch_event(self, namespace: str, name: str, patch: Mapping[str, Any]) -> Raw:
        raise NotImplementedError


def _has(status: Raw, kind: str, value: str) -> bool:
    return any(c["type"] == kind and c["status"] == value for c in status.get("conditions") or ())


def _node(name: str, labels: Mapping[str, str], *, ready: str = "True") -> Raw:
    return {
        "metadata": {"name": name, "labels": {names.INSTANCE_TYPE_LABEL: "Standard_NC24ads_A100_v4", **labels}},
        "spec": {"taints": [{"key": "sku", "value": "gpu", "effect": "NoSchedule"}]},
        "status": {
            "conditions": [{"type": "Ready", "status": ready}],
            "capacity": {names.NVIDIA_GPU: "1"},
            "allocatable": {names.NVIDIA_GPU: "1"},
        },
    }
