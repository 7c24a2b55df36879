"""What claims would become, one after the other, and what is left of the quota then. Pure."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from typing import Any, Final

from provisioner.apis import names
from provisioner.apis.agentpool import AgentPool
from provisioner.apis.nodeclaim import NodeClaim
from provisioner.apis.nodeclass import DEFAULTS, NodeClassSpec
from provisioner.apis.quota import REGIONAL_USAGE, SPOT_USAGE, Usage
from provisioner.commands.documents import Wish
from provisioner.commands.exits import Exit
from provisioner.commands.workspaces import Served
from provisioner.nodeclaim.agentpool_spec import check, pool_name, render
from provisioner.nodeclaim.nodeclass import ClassProblem, terms
from provisioner.placement.market import Market, Offer, Placement
from provisioner.placement.place import place
from provisioner.placement.quota import RegionQuota
from provisioner.placement.size import Sizes

# By lower-case family and capacity type.
Holds = Mapping[tuple[str, str], int]

NOT_OURS: Final = "NotForThisProvisioner"
POOL_LIMIT: Final = "AgentPoolLimit"
NAME_TAKEN: Final = "AgentPoolNameTaken"
_INVALID_SPEC: Final = "InvalidSpec"


class Outcome(StrEnum):
    """What becomes of a claim: created, not to be had now, or refused as it is written."""

    CREATE = "create"
    UNAVAILABLE = "unavailable"
    REFUSED = "refused"


@dataclass(frozen=True, kw_only=True)
class Situation:
    """What a plan rests on. `max_pools` is None where Azure does not say, `usages` is empty where it does not."""

    sizes: Sizes
    location: str
    now: datetime
    usages: Mapping[str, Usage] = field(default_factory=dict)
    holds: Holds = field(default_factory=dict)
    pools: Sequence[AgentPool] = ()
    max_pools: int | None = None
    class_of: Callable[[str], NodeClassSpec] = lambda _: DEFAULTS
    class_problem_of: Callable[[str], ClassProblem | None] = lambda _: None


@dataclass(frozen=True, kw_only=True)
class Planned:
    """One claim's plan. `pool` is empty where its name follows from one that is not known yet, or there is none."""

    wish: Wish
    outcome: Outcome
    placement: Placement = field(default_factory=Placement)
    pool: str = ""
    reason: str = ""
    message: str = ""
    notes: tuple[str, ...] = ()
    body: Mapping[str, Any] | None = None

    @property
    def offer(self) -> Offer | None:
        """Return what Azure would be asked for first, None where nothing."""
        return self.placement.best if self.outcome is Outcome.CREATE else None


@dataclass(frozen=True, kw_only=True)
class QuotaChange:
    """One quota in vCPUs: `held` by pools that are being created already, `takes` by the claims of the plan."""

    usage: Usage
    held: int
    takes: int

    @property
    def before(self) -> int:
        """Return what is left without the plan."""
        return self.usage.limit - self.usage.used - self.held

    @property
    def after(self) -> int:
        """Return what is left with it."""
        return self.before - self.takes


@dataclass(frozen=True, kw_only=True)
class Part:
    """A Workspace with its claims, or a claim by itself."""

    claims: tuple[Planned, ...]
    workspace: Served | None = None

    @property
    def outcomes(self) -> tuple[Outcome, ...]:
        """Return what becomes of the claims, and of a Workspace that gets none because something is wrong."""
        if self.workspace is not None and self.workspace.problem is not None:
            return (Outcome.UNAVAILABLE if self.workspace.may_pass else Outcome.REFUSED,)
        return tuple(planned.outcome for planned in self.claims)


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The plan for everything together. `unpriced` of the claims that are created have no known price."""

    parts: tuple[Part, ...]
    quotas: tuple[QuotaChange, ...]
    price: Decimal
    unpriced: int

    @property
    def claims(self) -> tuple[Planned, ...]:
        """Return all claims in their order."""
        return tuple(planned for part in self.parts for planned in part.claims)

    @property
    def workspaces(self) -> tuple[Served, ...]:
        """Return all Workspaces in their order."""
        return tuple(part.workspace for part in self.parts if part.workspace is not None)

    @property
    def exit_code(self) -> Exit:
        """Return the worst of what becomes of them."""
        outcomes = {outcome for part in self.parts for outcome in part.outcomes}
        if Outcome.REFUSED in outcomes:
            return Exit.REFUSED
        return Exit.NOT_NOW if Outcome.UNAVAILABLE in outcomes else Exit.DONE


def make_plan(wishes: Sequence[Wish | Served], *, situation: Situation) -> Plan:
    """Plan for the claims in their order: what one takes, the next does not get."""
    planner = _Planner(situation)
    parts = tuple(
        Part(claims=tuple(planner.plan(claim) for claim in wish.claims), workspace=wish)
        if isinstance(wish, Served)
        else Part(claims=(planner.plan(wish),))
        for wish in wishes
    )
    prices = [planned.offer.price for part in parts for planned in part.claims if planned.offer is not None]
    return Plan(
        parts=parts,
        quotas=planner.quotas(),
        price=sum((price for price in prices if price is not None), Decimal(0)),
        unpriced=prices.count(None),
    )


class _Planner:
    """The state between two claims."""

    def __init__(self, situation: Situation) -> None:
        self._situation = situation
        self._holds: Counter[tuple[str, str]] = Counter(situation.holds)
        self._takes: Counter[str] = Counter()
        self._names = {pool.name for pool in situation.pools}
        self._count = len(situation.pools)

    def plan(self, wish: Wish) -> Planned:
        """Return what becomes of the claim, and take what it takes."""
        # The UID is all that is still missing from the pool's body: the API server gives it.
        claim = replace(wish.claim, created=self._situation.now)
        if not claim.is_managed:
            ref = claim.node_class
            return Planned(
                wish=wish,
                outcome=Outcome.REFUSED,
                reason=NOT_OURS,
                message=f"spec.nodeClassRef is {ref.group or '-'}/{ref.kind or '-'}: a claim for this provisioner has "
                f"{names.KAITO_GROUP}/{names.NODECLASS_KIND} there. Another controller may serve it.",
            )
        if claim.spec is None:
            return Planned(wish=wish, outcome=Outcome.REFUSED, reason=_INVALID_SPEC, message=f"{claim.spec_error}.")
        placement = place(claim.spec, market=self._market(claim))
        refusal = placement.refusal or check(claim, claim.spec)
        if refusal is not None:
            return Planned(
                wish=wish,
                outcome=Outcome.REFUSED,
                placement=placement,
                reason=refusal.reason,
                message=refusal.message,
            )
        if (waits := self._situation.class_problem_of(claim.class_name)) is not None:
            return Planned(
                wish=wish,
                outcome=Outcome.UNAVAILABLE,
                placement=placement,
                reason=waits.reason,
                message=waits.message,
            )
        return self._create(wish, claim, placement)

    def _create(self, wish: Wish, claim: NodeClaim, placement: Placement) -> Planned:
        offer, spec = placement.best, claim.spec
        if offer is None or spec is None:
            failure = placement.unavailable
            return Planned(
                wish=wish,
                outcome=Outcome.UNAVAILABLE,
                placement=placement,
                reason=failure.kind.reason if failure else "",
                message=failure.message if failure else "",
            )
        pool, notes = self._pool(wish)
        limit = self._situation.max_pools
        if limit is not None and self._count >= limit:
            return Planned(
                wish=wish,
                outcome=Outcome.UNAVAILABLE,
                placement=placement,
                reason=POOL_LIMIT,
                message=f"{self._count} of {limit} agent pools: the cluster takes no more. Delete some.",
            )
        if wish.is_named and not pool:
            return Planned(
                wish=wish,
                outcome=Outcome.UNAVAILABLE,
                placement=placement,
                reason=NAME_TAKEN,
                message="Both agent pool names that the claim could use are taken. Use another name.",
            )
        self._take(offer, pool)
        return Planned(
            wish=wish,
            outcome=Outcome.CREATE,
            placement=placement,
            pool=pool,
            notes=(*offer.notes, *notes),
            body=render(claim, spec, offer, node_class=self._situation.class_of(claim.class_name)),
        )

    def _pool(self, wish: Wish) -> tuple[str, tuple[str, ...]]:
        """Return the name that the claim's pool would get, empty where both that it could have are taken."""
        if not wish.is_named:
            return "", ()
        own = pool_name(wish.claim.name)
        there = next((pool for pool in self._situation.pools if pool.name == own), None)
        if there is not None and there.tags.get(names.CLAIM_TAG) == wish.claim.name:
            return own, (
                f"Agent pool {own} of a NodeClaim of that name is there already; this is the plan for a new one.",
            )
        if own not in self._names:
            return own, ()
        other = pool_name(wish.claim.name, alternative=True)
        if other in self._names:
            return "", ()
        return other, (f"Agent pool {own} is there already and is another's: this one is named {other}.",)

    def _take(self, offer: Offer, pool: str) -> None:
        self._holds[offer.size.family.lower(), offer.capacity_type] += offer.size.vcpus
        is_spot = offer.capacity_type == names.CAPACITY_TYPE_SPOT
        self._takes[SPOT_USAGE.lower() if is_spot else offer.size.family.lower()] += offer.size.vcpus
        self._takes[REGIONAL_USAGE.lower()] += offer.size.vcpus
        self._names.add(pool)
        self._count += 1

    def _market(self, claim: NodeClaim) -> Market:
        situation = self._situation
        said = situation.class_of(claim.class_name)
        return Market(
            sizes=situation.sizes,
            now=situation.now,
            location=situation.location,
            quota=RegionQuota(usages=situation.usages, holds=dict(self._holds), region=situation.location),
            preference=said.size_preference,
            terms=terms(claim.class_name, said),
        )

    def quotas(self) -> tuple[QuotaChange, ...]:
        """Return what the plan takes of each quota that it touches, that of the whole region last."""
        region = REGIONAL_USAGE.lower()
        touched = sorted(self._takes, key=lambda name: (name == region, name))
        usages = self._situation.usages
        return tuple(
            QuotaChange(usage=usages[name], held=self._held(name), takes=self._takes[name])
            for name in touched
            if name in usages
        )

    def _held(self, name: str) -> int:
        """Return what is held of the quota of that lower-case name, without the plan."""
        holds = self._situation.holds.items()
        if name == REGIONAL_USAGE.lower():
            return sum(vcpus for _, vcpus in holds)
        if name == SPOT_USAGE.lower():
            return sum(vcpus for (_, kind), vcpus in holds if kind == names.CAPACITY_TYPE_SPOT)
        return self._situation.holds.get((name, names.CAPACITY_TYPE_ON_DEMAND), 0)
