"""Carries a script out: on an AKS, on the controller's process, and on what lies between the two."""

import asyncio
import contextlib
import sys
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeVar

import aiohttp

from fakes import azure, nodes, proxy
from fakes.aks import FakeAks
from fakes.azure.errors import AzureError
from fakes.azure.settings import Settings as AzureSettings
from fakes.cluster.interface import ControlPlane
from fakes.controller import ControllerProcess
from fakes.proxy import FaultProxy
from tests.chaos.processes import deeds
from tests.chaos.processes.deeds import Action, Script, Wish
from tests.chaos.processes.foreign import FOREIGN_CLAIM, FOREIGN_POOLS, look_at_foreign, put_foreign
from tests.chaos.processes.invariants import Fates, Scene, unsettled
from tests.chaos.processes.ledger import Ledger, claim_uid
from tests.chaos.processes.observer import History, observing
from tests.chaos.processes.pace import Pace
from tests.chaos.processes.script import FIRE, T4_VMS
from tests.claims import kaito_claim
from tests.conftest import PACE, SCALE
from tests.kube import CLAIMS, NODES, ApiError, Kube, Object, clear

T = TypeVar("T")

_LOG_TAIL: Final = 40_000
_POLL: Final = 0.05
# Real seconds that the controller may take to start.
_START: Final = 60.0
# Real seconds, as all settings of the controller are.
_SETTINGS: Final = {"REGISTRATION_TIMEOUT_SECONDS": "12", "CAPACITY_RETRY_SECONDS": "2"}
_T4_FAMILY: Final = "Standard NCASv3_T4 Family"
_T4_VCPUS: Final = 4


class Stage:
    """The world of one run, and what was done to it. Times are simulated seconds."""

    def __init__(
        self, control_plane: ControlPlane, *, aks: FakeAks, kube: Kube, between: FaultProxy, history: History
    ) -> None:
        self.aks = aks
        self.fates = Fates()
        self.history = history
        self.ledger = Ledger(aks.azure)
        self.done: Counter[str] = Counter()
        self.controller: ControllerProcess
        self._cluster = control_plane
        self._kube = kube
        self._proxy = between
        self._spoiling: list[proxy.Active[Any]] = []
        self._pace: Pace
        self._ceased = asyncio.Event()
        self._restarts = asyncio.Lock()
        # What is done to one claim is done in its order, however long the API server is away.
        self._turns: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    # --- what there is

    async def scene(self) -> Scene:
        """Return what there is now."""
        claims = await self.persist(lambda: self._kube.items(CLAIMS))
        nodes = await self.persist(lambda: self._kube.items(NODES))
        self.aks.azure.cluster.timeline.advance()
        return Scene(
            claims=[claim for claim in claims if claim["metadata"]["name"] != FOREIGN_CLAIM],
            nodes=nodes,
            pools={name: pool for name, pool in self.aks.azure.cluster.pools.items() if name not in FOREIGN_POOLS},
            foreign=FOREIGN_POOLS,
        )

    async def foreign(self) -> dict[str, Any]:
        """Return all that is none of the controller's business."""
        return await self.persist(lambda: look_at_foreign(self.aks, self._kube))

    # --- the script

    async def play(self, script: Script, *, patience: float) -> None:
        """Do all that the script says, then let all faults cease, and return when the last deed is done.

        Deeds that wait for the controller, as a claim does whose name is not free yet, may take so many real seconds.
        """
        self._pace = Pace(self.aks.azure.clock)
        async with asyncio.TaskGroup() as group:
            tasks = dict[asyncio.Task[None], Action]()
            for action in script.actions:
                await self._pace.reach(action.at)
                tasks[group.create_task(self._do(action))] = action
            await self._pace.reach(FIRE)
            self._cease()
            _, late = await asyncio.wait(tasks, timeout=patience)
            if late:
                left = "\n".join([*(str(tasks[task]) for task in late), *unsettled(await self.scene(), self.fates)])
                raise AssertionError(f"not done within {patience:g} s, and what has yet to happen:\n{left}")

    async def _do(self, action: Action) -> None:
        match action.deed:
            case deeds.Create(wish=wish):
                async with self._turns[wish.name]:
                    await self._create(wish)
            case deeds.Delete(claim=claim, by_force=by_force):
                async with self._turns[claim]:
                    await self._delete(claim, by_force=by_force)
            case deeds.DeleteNode(pool=pool):
                await self._delete_node(pool)
            case deeds.DeletePool(pool=pool):
                self._delete_pool(pool)
            case deeds.LoseMachine(pool=pool):
                self._lose_machine(pool)
            case deeds.Kill(down=down, again=again):
                await self._kill(down, again=again)
            case deeds.KillAtPut(claim=claim, deleted=deleted):
                await self._kill_at_put(claim, deleted=deleted)
            case deeds.RestartApiServer():
                await asyncio.to_thread(self._cluster.restart_apiserver)
                self.done["API server restarted"] += 1
            case deeds.Spoil(fault=fault, seconds=seconds):
                await self._spoil(fault, seconds=seconds)

    async def _create(self, wish: Wish) -> None:
        body = claim_of(wish)
        while True:
            try:
                claim = await self.persist(lambda: self._kube.create(CLAIMS, body))
            except ApiError as error:
                if error.status != 409:
                    raise
                present = await self.persist(lambda: self._kube.claim(wish.name))
                if present is not None and not present["metadata"].get("deletionTimestamp"):
                    # It was never deleted, or the answer to this very request was lost.
                    claim = present
                    break
                await asyncio.sleep(_POLL)
            else:
                break
        self.fates.written[claim["metadata"]["uid"]] = wish.name

    async def _delete(self, name: str, *, by_force: bool) -> None:
        claim = await self.persist(lambda: self._kube.claim(name))
        if claim is None:
            return
        self.fates.written.setdefault(claim["metadata"]["uid"], name)
        self.fates.deleted.add(claim["metadata"]["uid"])
        await self.persist(lambda: self._kube.delete(CLAIMS, name))
        if by_force:
            self.done["finalizers taken off"] += 1
            await self._strip(name)

    async def _strip(self, name: str) -> None:
        try:
            await self.persist(lambda: self._kube.patch(CLAIMS, name, {"metadata": {"finalizers": None}}))
        except ApiError as error:
            if error.status != 404:
                raise

    async def _delete_node(self, pool: str) -> None:
        for node in await self.persist(lambda: self._kube.nodes_of_pool(pool)):
            if self._hurt(pool, "Node deleted"):
                await self.persist(partial(self._kube.delete, NODES, node["metadata"]["name"]))

    def _delete_pool(self, pool: str) -> None:
        if self._hurt(pool, "agent pool deleted"):
            # It may be going already.
            with contextlib.suppress(AzureError):
                self.aks.azure.cluster.delete_pool(pool)

    def _lose_machine(self, pool: str) -> None:
        for machine in self.aks.azure.machines():
            if machine.pool == pool and self._hurt(pool, "VM lost"):
                self.aks.azure.cluster.lose_machine(machine.name)

    def _hurt(self, name: str, what: str) -> bool:
        """Note an accident of a claim's agent pool; False where there is none of that name."""
        pool = self.aks.azure.cluster.pools.get(name)
        if pool is None:
            return False
        self.fates.hurt[claim_uid(pool)] = what
        self.done[what] += 1
        return True

    async def _kill(self, down: float, *, again: float | None) -> None:
        async with self._restarts:
            await self._kill_now()
            await asyncio.sleep(self.aks.azure.clock.real(down))
            with self._pace.standing():
                await self.controller.start()
                if again is not None:
                    await asyncio.sleep(self.aks.azure.clock.real(again))
                    await self._kill_now()
                    await self.controller.start()
                await self.controller.wait_started(patience=_START)

    async def _kill_at_put(self, claim: str, *, deleted: bool) -> None:
        while not self._is_held_up(claim):
            if self._ceased.is_set():
                return
            await asyncio.sleep(_POLL)
        async with self._restarts:
            await self._kill_now()
            self.done["controller killed while a PUT was under way"] += 1
            if deleted:
                await self._delete(claim, by_force=False)
            with self._pace.standing():
                await self.controller.start()
                await self.controller.wait_started(patience=_START)

    def _is_held_up(self, pool: str) -> bool:
        return any(entry["hits"] and entry["fault"]["pool"] == pool for entry in self.aks.azure.faults.listing())

    async def _kill_now(self) -> None:
        await self.controller.kill()
        self.done["controller killed"] += 1

    async def _spoil(self, fault: azure.Fault | nodes.Fault | proxy.Fault, *, seconds: float | None) -> None:
        if isinstance(fault, proxy.Fault):
            active = self._proxy.add_fault(fault)
            self._spoiling.append(active)
            await self._ceased_or(seconds)
            self._proxy.clear(active)
        elif isinstance(fault, nodes.Fault):
            self.done[f"nodes {fault.kind}"] += 1
            added = self.aks.nodes.add_fault(fault.kind, pool=fault.pool, seconds=fault.seconds)
            await self._ceased_or(seconds)
            self.aks.nodes.clear(added)
        else:
            self.aks.azure.add_fault(fault)

    async def _ceased_or(self, seconds: float | None) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self.aks.azure.clock.real(seconds) if seconds is not None else None):
                await self._ceased.wait()

    def _cease(self) -> None:
        self._ceased.set()
        for active in self._spoiling:
            self.done[f"API {type(active.fault).__name__}"] += active.hits
        for entry in self.aks.azure.faults.listing():
            fault = entry["fault"]
            what = fault.get("outcome") or fault.get("status") or fault["kind"]
            self.done[f"ARM {fault['operation']} {what}"] += entry["hits"]
        self._proxy.clear()
        self.aks.azure.faults.clear()
        self.aks.nodes.clear()
        self.aks.azure.settings.quota = {}

    async def delete_all(self) -> None:
        """Delete all claims that are there."""
        for claim in (await self.scene()).claims:
            await self._delete(claim["metadata"]["name"], by_force=False)

    async def persist(self, ask: Callable[[], Awaitable[T]]) -> T:
        """Ask the API server until it answers, however often it is restarted meanwhile."""
        while True:
            try:
                return await ask()
            except (aiohttp.ClientError, OSError, TimeoutError):
                await asyncio.sleep(_POLL)
            except ApiError as error:
                if error.status < 500:
                    raise
                await asyncio.sleep(_POLL)


@asynccontextmanager
async def set_up(control_plane: ControlPlane, *, log: Path) -> AsyncIterator[Stage]:
    """Set up the world: a whole AKS with foreign pools, and the controller behind a proxy."""
    try:
        async with AsyncExitStack() as stack:
            settings = AzureSettings(scale=SCALE, quota={_T4_FAMILY: T4_VMS * _T4_VCPUS})
            aks = await stack.enter_async_context(FakeAks(control_plane, azure=settings))
            kube = await stack.enter_async_context(Kube(control_plane))
            between = await stack.enter_async_context(FaultProxy(control_plane))
            now = aks.azure.clock.now
            history = await stack.enter_async_context(observing(control_plane.kubeconfig, now=now))
            stage = Stage(control_plane, aks=aks, kube=kube, between=between, history=history)
            await put_foreign(aks, kube)
            environment = {**aks.environment(), **PACE, **_SETTINGS, "KUBECONFIG": str(between.kubeconfig)}
            stage.controller = await stack.enter_async_context(ControllerProcess(environment, log=log))
            try:
                await stage.controller.wait_started(patience=_START)
                yield stage
            except BaseException:
                sys.stdout.write(f"\nthe controller's last words:\n{stage.controller.log_text()[-_LOG_TAIL:]}\n")
                raise
    finally:
        await clear(control_plane)


def claim_of(wish: Wish) -> Object:
    """Return the claim as its author writes it."""
    claim = kaito_claim(wish.name, instance_type=wish.sizes[0])
    if wish.of_kaito:
        return claim
    sizes = {"key": "node.kubernetes.io/instance-type", "operator": "In", "values": [*wish.sizes]}
    return {
        **claim,
        "metadata": {"name": wish.name},
        "spec": {
            "nodeClassRef": claim["spec"]["nodeClassRef"],
            "requirements": [sizes],
            "resources": {"requests": {"nvidia.com/gpu": "1"}},
        },
    }
