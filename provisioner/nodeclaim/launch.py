"""Launch: from a claim to an agent pool whose VM is known by its providerID."""

from datetime import timedelta
from typing import Final

from provisioner.apis import names
from provisioner.apis.agentpool import AgentPool
from provisioner.apis.conditions import AWAITING_REASON, LAUNCHED
from provisioner.apis.failure import Failure, FailureClass
from provisioner.azure.errors import classify_provisioning_error
from provisioner.azure.inventory import Lookup
from provisioner.nodeclaim.agentpool_spec import check, launch_labels, pool_name, render
from provisioner.nodeclaim.view import CreatePool, DeletePool, Draft, FindInstance, Notice, View, stored
from provisioner.placement.offer import Offer, Refusal

CREATING: Final = "CreatingAgentPool"
NAME_TAKEN: Final = "AgentPoolNameTaken"
DELETING: Final = "AgentPoolDeleting"
INVALID_SPEC: Final = "InvalidSpec"

# Azure may end an operation without a word about why.
_UNEXPLAINED: Final = Failure(
    kind=FailureClass.INTERNAL,
    message="Azure failed to create the agent pool and does not say why. It is deleted and created again.",
)
# A claim that cannot be served as it stands is looked at again: Azure's list of sizes changes.
_REFUSED_AGAIN: Final = timedelta(hours=1)
# The VM of a finished pool is missing from its list of machines for moments only.
_INSTANCE_AGAIN: Final = timedelta(seconds=15)


def launch(view: View, draft: Draft) -> None:
    """Bring the claim to Launched=True, or say on the Launched condition what it waits for."""
    conditions = draft.conditions
    if conditions.is_true(LAUNCHED):
        # Never rewritten: clients and garbage collection rely on the providerID of a launched claim.
        conditions.observe(LAUNCHED)
        draft.settled = True
        # Of a claim that came back from a backup, for instance: without it nothing would hold it until its VM is gone.
        draft.add_finalizer = not view.claim.has_finalizer
        return
    refusal = _refusal(view)
    if refusal is not None and not view.claim.agent_pool:
        conditions.set_false(LAUNCHED, reason=refusal.reason, message=refusal.message)
        draft.look_again(_REFUSED_AGAIN)
        return
    pool = view.pools.lookup(view.pool_name)
    if pool is Lookup.UNKNOWN or not view.is_region_known:
        _await_inventory(view, draft)
        return
    if isinstance(pool, AgentPool):
        _follow(view, draft, pool)
        return
    _create(view, draft)


def _refusal(view: View) -> Refusal | None:
    spec = view.claim.spec
    if spec is None:
        return Refusal(reason=INVALID_SPEC, message=f"{view.claim.spec_error}. Write a new claim.")
    if isinstance(view.offer, Refusal):
        return view.offer
    return check(view.claim, spec)


def _await_inventory(view: View, draft: Draft) -> None:
    draft.refresh = True
    failure = view.pools.failure or view.region_failure
    if failure is not None:
        _report(draft, failure)


def _report(draft: Draft, failure: Failure) -> None:
    draft.conditions.set_unknown(LAUNCHED, reason=failure.kind.reason, message=failure.message)


def _follow(view: View, draft: Draft, pool: AgentPool) -> None:
    """Go on with a pool that exists under the claim's pool name."""
    if not view.owns(pool):
        _evade(view, draft, pool)
        return
    if view.claim.agent_pool != pool.name or not view.claim.has_finalizer:
        # A pool of the peer's, or of a claim restored without its annotations: adopt it, whatever state it is in.
        _record(view, draft, pool.name)
    joined = view.joined_nodes
    if joined and not pool.is_deleting:
        # A node counts from the moment it joins, not from the end of the ARM operation.
        _launched(view, draft, provider_id=joined[0].provider_id)
    elif pool.is_deleting:
        _await_deletion(view, draft, pool)
    elif pool.is_failed:
        _clear_failed(view, draft, pool)
    elif pool.is_succeeded and view.instance_id:
        _launched(view, draft, provider_id=view.instance_id)
    elif pool.is_succeeded:
        _creating(view, draft, pool.name)
        draft.azure = FindInstance(name=pool.name)
        draft.look_again(_INSTANCE_AGAIN)
    else:
        _creating(view, draft, pool.name)


def _launched(view: View, draft: Draft, *, provider_id: str) -> None:
    draft.status["providerID"] = provider_id
    draft.conditions.set_true(LAUNCHED)
    draft.settled = True


def _evade(view: View, draft: Draft, pool: AgentPool) -> None:
    """Handle a pool that has our name but is not this claim's. It is never touched unless an earlier claim made it."""
    if pool.claim_uid and pool.tags.get(names.CLAIM_TAG) == view.claim.name:
        # The claim was deleted and written anew: the name is free once Azure has taken the old pool down.
        draft.conditions.set_unknown(
            LAUNCHED,
            reason=DELETING,
            message=f"Agent pool {pool.name} of an earlier claim of this name is being deleted; then it is created.",
        )
        if not pool.is_deleting:
            _delete(view, draft, pool)
        return
    alternative = pool_name(view.claim.name, alternative=True)
    if view.pool_name != alternative:
        _record(view, draft, alternative)
        draft.refresh = True
        return
    draft.conditions.set_unknown(
        LAUNCHED,
        reason=NAME_TAKEN,
        message=f"Agent pool {alternative} exists and is not this claim's. "
        "Delete it, or write a claim of another name.",
    )


def _await_deletion(view: View, draft: Draft, pool: AgentPool) -> None:
    if view.setback is not None:
        _report(draft, view.setback.failure)
        return
    condition = stored(view, LAUNCHED)
    if condition is None or condition.reason in (AWAITING_REASON, CREATING):
        draft.conditions.set_unknown(
            LAUNCHED,
            reason=DELETING,
            message=f"Agent pool {pool.name} is being deleted, not by this controller; then it is created again.",
        )


def _clear_failed(view: View, draft: Draft, pool: AgentPool) -> None:
    """Delete a pool whose creation failed: Azure keeps it, it counts against the limits and blocks its name."""
    failure = classify_provisioning_error(pool.error) if pool.error else _UNEXPLAINED
    _report(draft, failure)
    _delete(view, draft, pool, cause=failure)


def _delete(view: View, draft: Draft, pool: AgentPool, *, cause: Failure | None = None) -> None:
    if view.setback is not None and view.waits_until_retry(DeletePool):
        draft.look_again(view.setback.retry_at - view.now)
        return
    draft.azure = DeletePool(name=pool.name)
    draft.setback = cause


def _create(view: View, draft: Draft) -> None:
    """Ask for the pool. The claim carries its name, and our finalizer, before Azure hears of it."""
    if view.setback is not None:
        _report(draft, view.setback.failure)
        if view.waits_until_retry(CreatePool):
            draft.look_again(view.setback.retry_at - view.now)
            return
    spec, offer = view.claim.spec, view.offer
    if spec is None or isinstance(offer, Refusal):
        # Recorded by an earlier version of us or the claim's size left the list meanwhile: nothing exists, say why.
        refusal = _refusal(view) or Refusal(reason=INVALID_SPEC, message=view.claim.spec_error)
        draft.conditions.set_false(LAUNCHED, reason=refusal.reason, message=refusal.message)
        return
    recorded = view.claim.annotations.get(names.INSTANCE_TYPE_ANNOTATION)
    if not view.claim.agent_pool or not view.claim.has_finalizer or recorded != offer.size.name:
        _record(view, draft, view.pool_name)
    if view.setback is None:
        _creating(view, draft, view.pool_name)
    draft.azure = CreatePool(name=view.pool_name, body=render(view.claim, spec, offer))


def _record(view: View, draft: Draft, name: str) -> None:
    draft.add_finalizer = not view.claim.has_finalizer
    draft.annotations[names.AGENT_POOL_ANNOTATION] = name
    if isinstance(view.offer, Offer):
        before, size = view.claim.annotations.get(names.INSTANCE_TYPE_ANNOTATION), view.offer.size.name
        draft.annotations[names.INSTANCE_TYPE_ANNOTATION] = size
        wanted = launch_labels(view.claim, view.offer, location=view.location)
        draft.labels |= {key: value for key, value in wanted.items() if key not in view.claim.labels}
        if before is not None and before != size:
            # Asked for anew with another size: the labels that the first one gave go with it.
            sizes = (names.INSTANCE_TYPE_LABEL, names.SKU_NAME_LABEL)
            draft.labels |= {key: size for key in sizes if view.claim.labels.get(key) == before}
        draft.notices += [Notice(reason="InstanceTypeNote", message=note) for note in view.offer.notes]


def _creating(view: View, draft: Draft, name: str) -> None:
    what = ""
    if isinstance(view.offer, Offer):
        offer = view.offer
        disk = f"{offer.os_disk_gib} GiB OS disk" if offer.os_disk_gib else "Azure's default OS disk"
        where = f"zone {' or '.join(offer.zones)}" if offer.zones else "regional"
        what = f" ({offer.size.name}, {offer.capacity_type}, {where}, {disk})"
    draft.conditions.set_unknown(
        LAUNCHED,
        reason=CREATING,
        message=f"Azure is creating agent pool {name}{what}. A GPU node usually joins within 5 to 10 minutes.",
    )
