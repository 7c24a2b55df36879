"""Carries a Step out: the only part of the controller that writes, to Azure and to Kubernetes.

Steps are safe to repeat and to lose: whatever fails here ends the step, and the next look at the claim finds the
state as it then is. What Azure has refused is remembered as a Setback; a restart forgets it and asks once more.
"""

import logging
import random
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from typing import Any, Final, Literal, Protocol

from provisioner.apis import names
from provisioner.apis.agentpool import AgentPool
from provisioner.apis.conditions import REGISTERED
from provisioner.apis.failure import Failure
from provisioner.apis.node import Node
from provisioner.apis.nodeclaim import NodeClaim, parse_nodeclaim
from provisioner.apis.quota import Shortage
from provisioner.azure.agentpools import ArmFailure, Machine, PoolExists
from provisioner.azure.errors import Postponed
from provisioner.kube.events import EventRecorder, ObjectRef
from provisioner.kube.gateway import KubeGateway, Rejected
from provisioner.kube.metrics import Registry
from provisioner.kube.store import Store
from provisioner.nodeclaim.asks import Asks
from provisioner.nodeclaim.delays import SizeDelays
from provisioner.nodeclaim.liveness import REGISTRATION_TIMEOUT
from provisioner.nodeclaim.metrics import ClaimMetrics
from provisioner.nodeclaim.node_metrics import NodeMetrics
from provisioner.nodeclaim.policy import concerns_offer, retry_delay
from provisioner.nodeclaim.view import (
    Ailment,
    CreatePool,
    DeletePool,
    FindInstance,
    Setback,
    Step,
    Unavailable,
    View,
    Waiting,
)
from provisioner.placement.memory import OfferMemory

_log: Final = logging.getLogger(__name__)


class Arm(Protocol):
    """What the controller asks of Azure."""

    async def create(self, name: str, body: Mapping[str, Any]) -> AgentPool:
        """Create the pool if none of that name exists. Raises PoolExists, ArmFailure."""
        ...

    async def delete(self, name: str) -> bool:
        """Delete the pool; False where there is none. Raises ArmFailure."""
        ...

    async def machines(self, name: str) -> tuple[Machine, ...]:
        """Return the VMs of the pool. Raises ArmFailure."""
        ...


class Notes(Protocol):
    """Where own writes to Azure are made known before the next LIST; the inventory is one."""

    def note_created(self, pool: AgentPool) -> None:
        """Show a pool whose PUT was accepted."""
        ...

    def note_deleting(self, name: str) -> None:
        """Show a pool whose DELETE was accepted as Deleting."""
        ...

    def note_doubtful(self, name: str) -> None:
        """Forget what is known of the pool."""
        ...

    def wake(self) -> None:
        """Ask for a LIST soon."""
        ...


class Wishes(Protocol):
    """Who reads the quota when it is wanted; `Quotas` is one."""

    def want(self) -> None:
        """Ask for usages that are fresh enough."""
        ...

    def distrust(self, shortage: Shortage) -> None:
        """Ask for new usages: those that are known have hidden a shortage."""
        ...


def reference(claim: NodeClaim) -> ObjectRef:
    """Return what an Event about the claim refers to."""
    return ObjectRef(kind=names.NODECLAIM_KIND, name=claim.name, uid=claim.uid, api_version=names.NODECLAIM_API_VERSION)


def _node_reference(node: Node) -> ObjectRef:
    return ObjectRef(kind="Node", name=node.name, uid=node.uid, api_version="v1")


class Actuator:
    """Carries out Steps and keeps what was learned by it: setbacks, instance IDs and waits, by the claim's UID."""

    def __init__(
        self,
        *,
        kube: KubeGateway,
        store: Store,
        arm: Arm,
        notes: Notes,
        recorder: EventRecorder,
        memory: OfferMemory,
        asks: Asks,
        delays: SizeDelays,
        quotas: Wishes,
        now: Callable[[], datetime],
        rng: random.Random,
        metrics: Registry,
        claim_metrics: ClaimMetrics,
        node_metrics: NodeMetrics,
    ) -> None:
        self._kube = kube
        self._store = store
        self._arm = arm
        self._notes = notes
        self._recorder = recorder
        self._memory = memory
        self._asks = asks
        self._delays = delays
        self._quotas = quotas
        self._now = now
        self._rng = rng
        self._claim_metrics = claim_metrics
        self._node_metrics = node_metrics
        self._setbacks: dict[str, Setback] = {}
        self._instances: dict[str, str] = {}
        self._waiting: dict[str, Waiting] = {}
        self._refused = metrics.counter(
            "gpu_provisioner_azure_refusals_total",
            text="Requests for agent pools that Azure refused or failed, by request and class of failure.",
            labels=("request", "kind"),
        )

    def setback(self, uid: str) -> Setback | None:
        """Return the last refusal of Azure for that claim."""
        return self._setbacks.get(uid)

    def instance_id(self, uid: str) -> str:
        """Return the providerID of the claim's VM as Azure told it, or an empty string."""
        return self._instances.get(uid, "")

    def waiting(self, uid: str) -> Waiting | None:
        """Return what the claim was last seen to wait for."""
        return self._waiting.get(uid)

    def forget(self, uid: str) -> None:
        """Drop what was learned about a claim that is gone."""
        self._waiting.pop(uid, None)
        self._setbacks.pop(uid, None)
        self._instances.pop(uid, None)

    async def carry_out(self, view: View, step: Step) -> bool:
        """Do what the step says. Returns whether the claim is worth another look at once.

        Raises KubeError; what was done before stands, and what was not done is found missing at the next look.
        """
        claim = view.claim
        self._keep(claim, step)
        if step.metadata is not None:
            claim = self._take(
                await self._kube.patch_claim(
                    claim.name, {"metadata": step.metadata}, resource_version=claim.resource_version
                )
            )
            if claim.is_deleting and not view.claim.is_deleting:
                # Deleted while we decided: nothing is asked of Azure for it any more.
                return True
        if step.node_patch is not None:
            node = step.node_patch.node
            self._store.put_node(
                await self._kube.patch_node(node.name, step.node_patch.patch, resource_version=node.resource_version)
            )
        if step.status is not None:
            claim = await self._write_status(claim, step.status)
        self._tell(view, step)
        learned = step.azure is not None and await self._ask(view, step)
        for node in step.deleted_nodes:
            await self._delete_node(node)
            _log.info("deleted Node of a claim that is gone", extra={"claim": claim.name, "node": node.name})
        if step.release:
            await self._release(claim)
            return False
        if step.delete_claim:
            await self._delete_claim(claim, reason=step.delete_claim, ailment=step.ailment)
            return True
        return step.metadata is not None or learned or step.node_patch is not None

    def _keep(self, claim: NodeClaim, step: Step) -> None:
        """Do what is for the controller's memory alone."""
        if step.settled:
            self.forget(claim.uid)
        if step.waiting is not None:
            self._waiting[claim.uid] = step.waiting
        else:
            self._waiting.pop(claim.uid, None)
        if step.refresh:
            self._notes.wake()
        if step.wants_quota:
            self._quotas.want()
        if step.unavailable is not None:
            self._remember("create", claim.name, step.unavailable)

    def _take(self, raw: dict[str, Any]) -> NodeClaim:
        # Into the store before the watch tells of it, so that the next look is not one at the past.
        self._store.put_claim(raw)
        return parse_nodeclaim(raw)

    async def _write_status(self, claim: NodeClaim, status: Mapping[str, Any]) -> NodeClaim:
        try:
            written = self._take(
                await self._kube.patch_claim_status(
                    claim.name, {"status": status}, resource_version=claim.resource_version
                )
            )
        except Rejected as error:
            if not claim.is_deleting:
                raise
            # A claim stored under an older CRD may fail validation on every write; it must go all the same.
            _log.warning("status refused by the API server", extra={"claim": claim.name, "error": str(error)})
            return claim
        self._claim_metrics.written(claim, written)
        if written.is_true(REGISTERED) and not claim.is_true(REGISTERED):
            self._delays.succeeded(_size(written))
            self._node_metrics.created(written)
        return written

    async def _delete_node(self, node: Node) -> None:
        # Azure/gpu-provisioner put it there to drain the Node first; where it is gone, nobody else takes it off.
        others = [name for name in node.finalizers if name != names.TERMINATION_FINALIZER]
        if len(others) < len(node.finalizers):
            await self._kube.patch_node(
                node.name, {"metadata": {"finalizers": others}}, resource_version=node.resource_version
            )
        await self._kube.delete_node(node.name, uid=node.uid)

    async def _delete_claim(self, claim: NodeClaim, *, reason: str, ailment: Ailment | None) -> None:
        await self._kube.delete_claim(claim.name, uid=claim.uid)
        self._claim_metrics.disrupted(claim, reason=reason)
        if ailment is not None:
            self._claim_metrics.unhealthy(claim, condition=ailment.condition, image_id=ailment.image_id)
        if reason == REGISTRATION_TIMEOUT:
            self._delays.failed(_size(claim), now=self._now())
        _log.warning("deleting a claim", extra={"claim": claim.name, "reason": reason})
        # The watch may tell of it later than the next look would come, which would then delete and count it again.
        raw = await self._kube.get_claim(claim.name)
        if raw is not None:
            self._store.put_claim(raw)
        else:
            self._store.remove_claim(claim.name, uid=claim.uid)
            self.forget(claim.uid)

    async def _release(self, claim: NodeClaim) -> None:
        others = [name for name in claim.finalizers if name != names.TERMINATION_FINALIZER]
        raw = await self._kube.patch_claim(
            claim.name, {"metadata": {"finalizers": others}}, resource_version=claim.resource_version
        )
        if raw["metadata"].get("finalizers"):
            self._store.put_claim(raw)
        else:
            # Gone with its last finalizer. The answer has the version of our write before it, so that a late event of
            # that write would put the claim back where it was.
            self._store.remove_claim(claim.name, uid=claim.uid)
        self.forget(claim.uid)
        self._claim_metrics.released(claim)
        _log.info("claim released: nothing is left of it in Azure", extra={"claim": claim.name})

    def _tell(self, view: View, step: Step) -> None:
        for notice in step.notices:
            self._recorder.record(
                reference(view.claim) if notice.node is None else _node_reference(notice.node),
                type="Warning" if notice.is_warning else "Normal",
                reason=notice.reason,
                message=notice.message,
            )
            _log.log(
                logging.WARNING if notice.is_warning else logging.INFO,
                notice.message,
                extra={"claim": view.claim.name, "reason": notice.reason},
            )

    async def _ask(self, view: View, step: Step) -> bool:
        """Ask Azure; tell whether a decision can rest on something new: an answer, or a refusal to show."""
        request = step.azure
        try:
            match request:
                case CreatePool():
                    await self._create(view, request)
                case DeletePool():
                    await self._delete(view, request, cause=step.setback)
                case FindInstance():
                    return await self._find(view, request)
        except ArmFailure as error:
            if error.outcome_unknown and request is not None:
                # The answer was lost, the effect perhaps not: believe nothing but a LIST from now on.
                self._notes.note_doubtful(request.name)
                self._notes.wake()
            if not isinstance(request, CreatePool | DeletePool):
                return False
            if isinstance(request, CreatePool) and concerns_offer(error.failure):
                refused = Unavailable(keys=request.offer.keys, failure=error.failure)
                self._remember("create", view.claim.name, refused)
            else:
                self._set_back(view, type(request), error.failure)
        return True

    def _remember(self, request: str, claim: str, unavailable: Unavailable) -> None:
        """Keep everybody from asking again for what cannot be had."""
        failure, keys = unavailable.failure, unavailable.keys
        self._memory.remember(keys, failure=failure, now=self._now())
        self._asks.refused(keys)
        if failure.shortage is not None:
            self._quotas.distrust(failure.shortage)
        self._refused.inc(request=request, kind=failure.kind.value)
        _log.warning(
            "Azure cannot deliver",
            extra={
                "claim": claim,
                "vm_size": keys[0].size if keys else "",
                "capacity_type": keys[0].capacity_type if keys else "",
                "kind": failure.kind.value,
                "code": failure.code,
                "error": failure.message,
            },
        )

    async def _create(self, view: View, request: CreatePool) -> None:
        try:
            with self._timed("Create"):
                pool = await self._arm.create(request.name, request.body)
        except PoolExists:
            # Ours after a crash, or somebody else's: the LIST will show whose.
            self._notes.note_doubtful(request.name)
            self._notes.wake()
            return
        self._asks.accepted(view.claim.uid, now=self._now())
        self._notes.note_created(pool)
        _log.info(
            "agent pool asked for", extra={"claim": view.claim.name, "agent_pool": pool.name, "vm_size": pool.vm_size}
        )

    async def _delete(self, view: View, request: DeletePool, *, cause: Failure | None) -> None:
        with self._timed("Delete"):
            is_there = await self._arm.delete(request.name)
        if is_there:
            self._notes.note_deleting(request.name)
        else:
            self._notes.note_doubtful(request.name)
        self._notes.wake()
        _log.info("agent pool being deleted", extra={"claim": view.claim.name, "agent_pool": request.name})
        if cause is not None:
            self._set_back(view, CreatePool, cause)
        elif (setback := self._setbacks.get(view.claim.uid)) and setback.request is DeletePool:
            del self._setbacks[view.claim.uid]

    @contextmanager
    def _timed(self, method: Literal["Create", "Delete"]) -> Iterator[None]:
        started = time.perf_counter()
        try:
            yield
        except Postponed:
            # Nothing was sent.
            raise
        except ArmFailure as error:
            self._claim_metrics.asked(method, seconds=time.perf_counter() - started, failure=error.failure)
            raise
        self._claim_metrics.asked(method, seconds=time.perf_counter() - started, failure=None)

    async def _find(self, view: View, request: FindInstance) -> bool:
        machines = await self._arm.machines(request.name)
        if not machines:
            return False
        self._instances[view.claim.uid] = machines[0].provider_id
        return True

    def _set_back(self, view: View, request: type[CreatePool] | type[DeletePool], failure: Failure) -> None:
        old = self._setbacks.get(view.claim.uid)
        attempts = old.attempts + 1 if old and old.request is request else 1
        delay = retry_delay(failure, attempts=attempts, luck=self._rng.random())
        self._setbacks[view.claim.uid] = Setback(
            failure=failure, request=request, attempts=attempts, retry_at=self._now() + delay
        )
        self._refused.inc(request="create" if request is CreatePool else "delete", kind=failure.kind.value)
        _log.warning(
            "Azure refused",
            extra={
                "claim": view.claim.name,
                "request": request.__name__,
                "kind": failure.kind.value,
                "code": failure.code,
                "error": failure.message,
                "attempts": attempts,
                "retry_in_seconds": round(delay.total_seconds(), 1),
            },
        )


def _size(claim: NodeClaim) -> str:
    return claim.annotations.get(names.INSTANCE_TYPE_ANNOTATION, "")
