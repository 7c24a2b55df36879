"""What is asked of Azure for claims, and what was learned by it: refusals, VMs, and sizes that cannot be had.

Requests are safe to repeat and to lose. A refusal is remembered as a Setback, or for everybody where it is about what
was asked for; a restart forgets both and asks once more.
"""

import logging
import random
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from enum import Enum
from typing import Any, Final, Literal, Protocol

from provisioner.apis.agentpool import AgentPool
from provisioner.apis.failure import Failure
from provisioner.apis.quota import Shortage
from provisioner.azure.agentpools import ArmFailure, Machine, PoolExists
from provisioner.azure.errors import Postponed
from provisioner.kube.metrics import Registry
from provisioner.nodeclaim.asks import Asks
from provisioner.nodeclaim.metrics import ClaimMetrics
from provisioner.nodeclaim.policy import concerns_offer, retry_delay
from provisioner.nodeclaim.view import (
    CreatePool,
    DeletePool,
    FindInstance,
    Setback,
    Step,
    Unavailable,
    View,
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

    def forget(self, uid: str) -> None:
        """Drop what is known about a claim."""
        ...

    def retain(self, uids: Collection[str]) -> None:
        """Drop what is known about all claims but these."""
        ...


class Doubts(Protocol):
    """Who reads the quota; `Quotas` is one."""

    def distrust(self, shortage: Shortage) -> None:
        """Ask for new usages: those that are known have hidden a shortage."""
        ...


class Answer(Enum):
    """What has come of a request to Azure."""

    NOTHING = "nothing"
    NEWS = "news"
    ACCEPTED = "accepted"


class AzureRequests:
    """Asks Azure on behalf of claims."""

    def __init__(
        self,
        *,
        arm: Arm,
        notes: Notes,
        memory: OfferMemory,
        asks: Asks,
        quotas: Doubts,
        now: Callable[[], datetime],
        rng: random.Random,
        metrics: Registry,
        claim_metrics: ClaimMetrics,
    ) -> None:
        self._arm = arm
        self._notes = notes
        self._memory = memory
        self._asks = asks
        self._quotas = quotas
        self._now = now
        self._rng = rng
        self._claim_metrics = claim_metrics
        self._setbacks: dict[str, Setback] = {}
        self._instances: dict[str, str] = {}
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

    def wake(self) -> None:
        """Ask for a LIST of agent pools soon."""
        self._notes.wake()

    def forget(self, uid: str) -> None:
        """Drop what was learned about a claim that is gone, or has its VM."""
        self._setbacks.pop(uid, None)
        self._instances.pop(uid, None)
        self._notes.forget(uid)

    def retain(self, uids: Collection[str]) -> None:
        """Drop what was learned about all claims but these."""
        for known in (self._setbacks, self._instances):
            for uid in known.keys() - uids:
                del known[uid]
        self._notes.retain(uids)

    async def ask(self, view: View, step: Step) -> Answer:
        """Ask Azure; tell whether a decision can rest on something new: an answer, or a refusal to show."""
        request = step.azure
        try:
            match request:
                case CreatePool():
                    await self._create(view, request)
                case DeletePool():
                    return await self._delete(view, request, cause=step.setback)
                case FindInstance():
                    return await self._find(view, request)
        except ArmFailure as error:
            if error.outcome_unknown and request is not None:
                # The answer was lost, the effect perhaps not: believe nothing but a LIST from now on.
                self._notes.note_doubtful(request.name)
                self._notes.wake()
            if not isinstance(request, CreatePool | DeletePool):
                return Answer.NOTHING
            if isinstance(request, CreatePool) and concerns_offer(error.failure):
                refused = Unavailable(keys=request.offer.keys, failure=error.failure)
                self.remember(view.claim.name, refused)
            else:
                self._set_back(view, type(request), error.failure)
        return Answer.NEWS

    def remember(self, claim: str, unavailable: Unavailable) -> None:
        """Keep everybody from asking again for what cannot be had."""
        failure, keys = unavailable.failure, unavailable.keys
        self._memory.remember(keys, failure=failure, now=self._now())
        self._asks.refused(keys)
        if failure.shortage is not None:
            self._quotas.distrust(failure.shortage)
        self._refused.inc(request="create", kind=failure.kind.value)
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

    async def _delete(self, view: View, request: DeletePool, *, cause: Failure | None) -> Answer:
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
        return Answer.ACCEPTED if is_there else Answer.NEWS

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

    async def _find(self, view: View, request: FindInstance) -> Answer:
        machines = await self._arm.machines(request.name)
        if not machines:
            return Answer.NOTHING
        self._instances[view.claim.uid] = machines[0].provider_id
        return Answer.NEWS

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
