"""The measurements: each runs in a world of its own and returns figures.

Azure's seconds are simulated ones. What the controller itself takes is in real ones, whatever the scale: from when a
Node joined, its GPUs registered or the claim was deleted.
"""

import asyncio
from dataclasses import dataclass
from typing import Final

from fakes.aks import claim_name
from fakes.azure import Answer
from fakes.nodes import What
from tests.benchmarks.measure import Usage, peak_rss_mib, rest_begins, rss_mib
from tests.benchmarks.world import World, world
from tests.claims import A100, kaito_claim

_PUT: Final = "agentPools.put"
_DELETE: Final = "agentPools.delete"
# Seconds that an idle controller is watched for.
_IDLE_SECONDS: Final = 60.0
_QUICK_IDLE_SECONDS: Final = 10.0
_QUOTA_SECONDS: Final = 300.0
_QUICK_QUOTA_SECONDS: Final = 30.0
_QUOTA_CLAIMS: Final = 20
# Of a family of its own, for claims whose quota the list of usages does not show to be used up.
_T4: Final = "Standard_NC4as_T4_v3"
_REFUSED: Final = {
    "code": "ErrCode_InsufficientVCPUQuota",
    "details": None,
    "message": "Insufficient vcpu quota requested 4, remaining 0 for family Standard NCASv3_T4 Family for region "
    "eastus. If you want to increase the quota, please follow this instruction: "
    "https://learn.microsoft.com/azure/quotas/view-quotas.",
    "subcode": "",
}
_BROKEN: Final = {"error": {"code": "InternalServerError", "message": "An internal error has occurred."}}
_OPERATION_AT_KILL: Final = 60.0
_SECONDS_TO_KILL: Final = 10.0


@dataclass(frozen=True, kw_only=True)
class Run:
    """How a measurement runs. `patience` is real seconds for each of its waits."""

    cluster: str
    quick: bool
    patience: float


@dataclass(frozen=True, kw_only=True)
class Shape:
    """How many claims, how long Azure works on a pool in simulated seconds, and how fast simulated time is."""

    claims: int
    operation: float
    retry_after: float | None = None
    scale: float = 1.0
    at_rest: bool = False
    """Whether idling and a restart are measured, too, once all claims are Ready."""
    most_deletes: int = 100
    """How many are deleted: Azure takes one DELETE a second from a whole subscription, after sixty at once."""

    @property
    def deletes(self) -> int:
        """Return how many claims are deleted."""
        return min(self.claims, self.most_deletes)


@dataclass(frozen=True, kw_only=True)
class Rest:
    """The controller with nothing to do, and after a restart. Seconds are real ones."""

    seconds: float
    used: Usage
    rss: float
    restarted: Usage
    readyz: float
    steady: float
    restarted_rss: float


@dataclass(frozen=True, kw_only=True)
class Lifecycle:
    """Claims from their POST until they are gone."""

    shape: Shape
    launched: list[float]
    registered: list[float]
    ready: list[float]
    joined_to_registered: list[float]
    gpus_to_ready: list[float]
    created: Usage
    delete_sent: list[float]
    gone: list[float]
    deleted: Usage
    peak_rss: float
    rest: Rest | None


async def lifecycle(run: Run, shape: Shape) -> Lifecycle:
    """Create claims, wait until they are Ready, delete them, wait until they are gone. Raises BenchmarkError."""
    names = [claim_name() for _ in range(shape.claims)]
    async with world(
        run.cluster,
        claims=shape.claims,
        operation=shape.operation,
        retry_after=shape.retry_after,
        scale=shape.scale,
        patience=run.patience,
    ) as made:
        progress = made.progress
        before = made.usage()
        await made.post(names)
        await made.until(lambda: len(progress.ready), shape.claims, what="Ready")
        created = made.usage().since(before)
        peak = peak_rss_mib(made.pid)
        rest = await _at_rest(made, quick=run.quick) if shape.at_rest else None
        before = made.usage()
        await made.delete(names[: shape.deletes])
        await made.until(lambda: len(progress.gone), shape.deletes, what="gone")
        sent = {call.pool: call.time for call in reversed(list(made.aks.azure.calls)) if call.operation == _DELETE}
        return Lifecycle(
            shape=shape,
            launched=progress.since(progress.posted, progress.launched),
            registered=progress.since(progress.posted, progress.registered),
            ready=progress.since(progress.posted, progress.ready),
            joined_to_registered=_after(made, What.JOINED, progress.registered),
            gpus_to_ready=_after(made, What.GPUS, progress.ready),
            created=created,
            delete_sent=[seconds / shape.scale for seconds in progress.since(progress.deleted, sent)],
            gone=progress.since(progress.deleted, progress.gone),
            deleted=made.usage().since(before),
            peak_rss=max(peak, peak_rss_mib(made.pid)),
            rest=rest,
        )


def _after(made: World, what: What, seen: dict[str, float]) -> list[float]:
    """Return the real seconds from when the controller could have known to when clients saw it."""
    happened = {line.node: line.at for line in made.aks.nodes.happenings if line.what is what}
    node = made.progress.node
    return [(at - happened[node[name]]) / made.scale for name, at in seen.items() if node[name] in happened]


async def _at_rest(made: World, *, quick: bool) -> Rest:
    await rest_begins(made.pid)
    before = made.usage()
    await asyncio.sleep(_QUICK_IDLE_SECONDS if quick else _IDLE_SECONDS)
    used, rss = made.usage().since(before), rss_mib(made.pid)
    asked = made.usage()
    begun = await made.restart()
    readyz = await made.readyz()
    steady = await rest_begins(made.pid)
    restarted = made.usage().since(asked)
    return Rest(
        seconds=used.wall,
        used=used,
        rss=rss,
        restarted=restarted,
        readyz=readyz - begun,
        steady=steady - begun,
        restarted_rss=rss_mib(made.pid),
    )


@dataclass(frozen=True, kw_only=True)
class Quota:
    """PUTs in so many simulated seconds, for so many claims of each kind, and seconds until they were told why."""

    seconds: float
    claims: int
    puts_where_shown: int
    puts_where_hidden: int
    usages_read: int
    told: list[float]


async def quota(run: Run) -> Quota:
    """Refuse quota to claims: where the list of usages shows it to be used up, and where it does not."""
    shown, hidden = ([f"{kind}{number:02}" for number in range(_QUOTA_CLAIMS)] for kind in ("shown", "hidden"))
    seconds = _QUICK_QUOTA_SECONDS if run.quick else _QUOTA_SECONDS
    async with world(
        run.cluster, claims=2 * _QUOTA_CLAIMS, operation=5.0, retry_after=None, scale=1.0, patience=run.patience
    ) as made:
        azure = made.aks.azure
        azure.settings.change({"quota": {"StandardNCADSA100v4Family": 0}})
        azure.add_fault(Answer(operation=_PUT, pool="hidden*", status=400, body=_REFUSED, times=None))
        # The fake's usages lag behind its settings, as Azure's do.
        await asyncio.sleep(azure.settings.usage_lag_seconds)
        before = made.usage()
        await made.post([*shown, *hidden], claim=lambda name: kaito_claim(name, instance_type=_size(name)))
        await asyncio.sleep(seconds)
        puts = [call.pool for call in azure.calls if call.operation == _PUT]
        return Quota(
            seconds=seconds,
            claims=_QUOTA_CLAIMS,
            puts_where_shown=sum(pool in shown for pool in puts),
            puts_where_hidden=sum(pool in hidden for pool in puts),
            usages_read=made.usage().since(before).arm["usages.list"],
            told=made.progress.since(made.progress.posted, made.progress.told),
        )


def _size(name: str) -> str:
    return A100 if name.startswith("shown") else _T4


@dataclass(frozen=True, kw_only=True)
class Killed:
    """A claim whose controller was killed ten seconds after the PUT. Seconds are real and simulated ones."""

    operation: float
    puts_after: int
    ready_after_restart: float
    ready_after_node: float
    ready_after_gpus: float


async def killed(run: Run) -> Killed:
    """Kill the controller while Azure works, and start it again at once."""
    name = claim_name()
    async with world(
        run.cluster, claims=1, operation=_OPERATION_AT_KILL, retry_after=None, scale=1.0, patience=run.patience
    ) as made:
        log, progress = made.aks.azure.calls, made.progress
        await made.post([name])
        await made.until(lambda: log.count(_PUT), 1, what="asked for")
        await asyncio.sleep(_SECONDS_TO_KILL)
        await made.restart()
        restarted = made.now()
        await made.until(lambda: len(progress.ready), 1, what="Ready")
        happened = {line.what: line.at for line in made.aks.nodes.happenings if line.node == progress.node[name]}
        return Killed(
            operation=_OPERATION_AT_KILL,
            puts_after=log.count(_PUT) - 1,
            ready_after_restart=progress.ready[name] - restarted,
            ready_after_node=progress.ready[name] - happened[What.JOINED],
            ready_after_gpus=progress.ready[name] - happened[What.GPUS],
        )


@dataclass(frozen=True, kw_only=True)
class Impatient:
    """A claim that is deleted ten seconds after its creation, while Azure still creates its pool."""

    operation: float
    delete_sent: float
    was_ready: bool


async def impatient(run: Run) -> Impatient:
    """Delete a claim while Azure works."""
    name = claim_name()
    async with world(
        run.cluster, claims=1, operation=_OPERATION_AT_KILL, retry_after=None, scale=1.0, patience=run.patience
    ) as made:
        log, progress = made.aks.azure.calls, made.progress
        await made.post([name])
        await asyncio.sleep(_SECONDS_TO_KILL)
        await made.delete([name])
        await made.until(lambda: log.count(_DELETE), 1, what="deleted in Azure")
        sent = next(call.time for call in log if call.operation == _DELETE)
        await made.until(lambda: len(progress.gone), 1, what="gone")
        return Impatient(
            operation=_OPERATION_AT_KILL,
            delete_sent=sent - progress.deleted[name],
            was_ready=name in progress.ready,
        )


@dataclass(frozen=True, kw_only=True)
class Outage:
    """ARM answers 500 to everything: seconds until a new claim says so."""

    told: float


async def outage(run: Run) -> Outage:
    """Let every call to ARM fail, and create a claim."""
    name = claim_name()
    async with world(run.cluster, claims=1, operation=5.0, retry_after=None, scale=1.0, patience=run.patience) as made:
        made.aks.azure.add_fault(Answer(operation="*", status=500, body=_BROKEN, times=None))
        await made.post([name])
        await made.until(lambda: len(made.progress.told), 1, what="told")
        return Outage(told=made.progress.told[name] - made.progress.posted[name])
