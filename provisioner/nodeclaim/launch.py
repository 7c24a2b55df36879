"""Launch: from a claim to an agent pool whose VM is known by its providerID."""

from datetime import timedelta
from typing import Final

from provisioner.apis import names
from provisioner.apis.agentpool import AgentPool
from provisioner.apis.conditions import AWAITING_REASON, LAUNCHED
from provisioner.apis.failure import Failure, FailureClass
from provisioner.apis.times import format_time
from provisioner.azure.errors import classify_provisioning_error
from provisioner.azure.inventory import Lookup
from provisioner.nodeclaim.agentpool_spec import check, launch_labels, pool_name, render
from provisioner.nodeclaim.asks import PATIENCE
from provisioner.nodeclaim.liveness import FOR_NODE
from provisioner.nodeclaim.nodeclass import hash_annotations, launch_annotations
from provisioner.nodeclaim.policy import concerns_offer
from provisioner.nodeclaim.view import (
    CreatePool,
    DeletePool,
    Draft,
    FindInstance,
    Notice,
    Unavailable,
    View,
    stored,
)
from provisioner.placement.market import REGIONAL_ZONE, Because, Offer, OfferKey, Refusal

CREATING: Final = "CreatingAgentPool"
NAME_TAKEN: Final = "AgentPoolNameTaken"
DELETING: Final = "AgentPoolDeleting"
INVALID_SPEC: Final = "InvalidSpec"
NOT_REGISTERING: Final = "NodesNotRegistering"

# Azure may end an operation without a word about why.
_UNEXPLAINED: Final = Failure(
    kind=FailureClass.INTERNAL,
    message="Azure failed to create the agent pool and does not say why. It is deleted and created again.",
)
# Labels whose value another offer may change.
_OF_OFFERS: Final = (
    names.INSTANCE_TYPE_LABEL,
    names.CAPACITY_TYPE_LABEL,
    names.ZONE_LABEL,
    names.ARCH_LABEL,
    "karpenter.azure.com/sku-",
    "nvidia.com/gpu.",
)
_SIZE_NAMES: Final = (names.INSTANCE_TYPE_LABEL, names.SKU_NAME_LABEL)
# Refusals that rest on what sizes there are, so on Azure's list.
_NEED_SIZES: Final = frozenset({"NoInstanceType", "UnknownInstanceType", "NoFittingInstanceType", "MinValuesNotMet"})
# A claim that cannot be served as it stands is looked at again: Azure's list of sizes changes.
_REFUSED_AGAIN: Final = timedelta(hours=1)
# What cannot be had now is looked at again by then, whether or not anything was heard of it.
_UNAVAILABLE_AGAIN: Final = timedelta(minutes=10)
_SOON: Final = timedelta(seconds=1)
# Node classes that could not be listed are listed again; who waits for that is told of it.
_CLASSES_AGAIN: Final = timedelta(minutes=1)
# AKS is done with a pool about when its Node joins. Who asks for the VM at once asks once a claim for nothing, of a
# bucket that has a token every few seconds.
_NODE_EXPECTED: Final = timedelta(seconds=10)
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
    refusal = view.placement.refusal
    if refusal is not None and (view.is_region_known or refusal.reason not in _NEED_SIZES):
        return refusal
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
    offer = _offer_of(view, pool)
    if view.claim.agent_pool != pool.name or not view.claim.has_finalizer:
        # A pool of the peer's, or of a claim restored without its annotations: adopt it, whatever state it is in.
        _record(view, draft, pool.name, offer=offer)
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
        _creating(view, draft, pool.name, offer=offer)
        _find_instance(view, draft, pool)
    else:
        _creating(view, draft, pool.name, offer=offer)


def _find_instance(view: View, draft: Draft, pool: AgentPool) -> None:
    """Ask Azure for the VM of a finished pool, unless its Node may be expected to join in moments and tell."""
    waiting = view.waiting
    since = waiting.since if waiting is not None and waiting.what == FOR_NODE else view.now
    left = since + _NODE_EXPECTED - view.now
    if left > timedelta(0):
        draft.look_again(left)
        return
    draft.azure = FindInstance(name=pool.name)
    draft.look_again(_INSTANCE_AGAIN)


def _offer_of(view: View, pool: AgentPool) -> Offer | None:
    """Return the offer that the pool was asked for as; of a pool that the claim does not allow, what it does allow."""
    return next(
        (
            offer
            for offer in view.placement.offers
            if offer.size.name.lower() == pool.vm_size.lower()
            and (offer.capacity_type == names.CAPACITY_TYPE_SPOT) == pool.spot
        ),
        view.offer,
    )


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
        _record(view, draft, alternative, offer=view.offer)
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
    if concerns_offer(failure):
        # The next offer is asked for once the pool is gone: it has the name, and counts against the limits.
        draft.unavailable = Unavailable(keys=_keys(pool), failure=failure)
        _delete(view, draft, pool)
    else:
        _delete(view, draft, pool, cause=failure)


def _keys(pool: AgentPool) -> tuple[OfferKey, ...]:
    capacity_type = names.CAPACITY_TYPE_SPOT if pool.spot else names.CAPACITY_TYPE_ON_DEMAND
    return tuple(
        OfferKey(size=pool.vm_size.lower(), zone=zone, capacity_type=capacity_type)
        for zone in pool.zones or (REGIONAL_ZONE,)
    )


def _delete(view: View, draft: Draft, pool: AgentPool, *, cause: Failure | None = None) -> None:
    if view.setback is not None and view.waits_until_retry(DeletePool):
        draft.look_again(view.setback.retry_at - view.now)
        return
    draft.azure = DeletePool(name=pool.name)
    draft.setback = cause


def _create(view: View, draft: Draft) -> None:
    """Ask for the pool. The claim carries its name, and our finalizer, before Azure hears of it."""
    if not view.is_node_class_known:
        draft.is_brief = True
        draft.look_again(_CLASSES_AGAIN)
        return
    if view.class_problem is not None:
        draft.conditions.set_unknown(LAUNCHED, reason=view.class_problem.reason, message=view.class_problem.message)
        draft.look_again(_UNAVAILABLE_AGAIN)
        return
    if view.setback is not None and view.waits_until_retry(CreatePool):
        _report(draft, view.setback.failure)
        draft.look_again(view.setback.retry_at - view.now)
        return
    if not view.is_quota_known:
        draft.wants_quota = draft.is_brief = True
        return
    spec, offer = view.claim.spec, view.offer
    if spec is None or offer is None:
        _explain_none(view, draft)
        return
    if view.size_delay is not None:
        times, until = view.size_delay.failures, view.size_delay.until
        draft.conditions.set_unknown(
            LAUNCHED,
            reason=NOT_REGISTERING,
            message=f"Nodes of {offer.size.name} do not register (failures in a row: {times}); the next is asked for "
            f"at {format_time(until)}. Look for what keeps VMs from joining: network (outbound rules, DNS, firewall), "
            "extensions.",
        )
        draft.look_again(until - view.now)
        return
    if view.is_tried_by_another:
        draft.waits_for_another = draft.is_brief = True
        draft.look_again(PATIENCE)
        return
    recorded = view.claim.annotations.get(names.INSTANCE_TYPE_ANNOTATION)
    is_recorded = (
        view.claim.agent_pool
        and view.claim.has_finalizer
        and recorded == offer.size.name
        and _recorded_profile(view) == offer.size.gpu_instance_profile
    )
    if not is_recorded or _outdated_labels(view, offer):
        _record(view, draft, view.pool_name, offer=offer)
    draft.annotations |= hash_annotations(view.target.class_hash or "")
    draft.annotations |= launch_annotations(view.claim, view.node_class)
    if view.setback is None:
        _creating(view, draft, view.pool_name, offer=offer)
    else:
        # Shown until Azure takes the request: else the reason would come and go with each try.
        _report(draft, view.setback.failure)
    body = render(view.claim, spec, offer, node_class=view.node_class)
    draft.azure = CreatePool(name=view.pool_name, body=body, offer=offer)


def _explain_none(view: View, draft: Draft) -> None:
    """Say why there is nothing to ask for: nothing ever, or nothing now."""
    unavailable = view.placement.unavailable
    if unavailable is None:
        # With a name recorded already, by an earlier version of us or before the size left the list.
        refusal = _refusal(view) or Refusal(reason=INVALID_SPEC, message=view.claim.spec_error)
        draft.conditions.set_false(LAUNCHED, reason=refusal.reason, message=refusal.message)
        draft.look_again(_REFUSED_AGAIN)
        return
    draft.conditions.set_false(LAUNCHED, reason=unavailable.kind.reason, message=unavailable.message)
    # Usages tell when quota was freed, and then every waiting claim is looked at.
    draft.wants_quota = any(left.because is Because.QUOTA for left in view.placement.left_out)
    again = view.placement.again_at
    draft.look_again(max(again - view.now, _SOON) if again is not None else _UNAVAILABLE_AGAIN)


def _record(view: View, draft: Draft, name: str, *, offer: Offer | None) -> None:
    draft.add_finalizer = not view.claim.has_finalizer
    draft.annotations[names.AGENT_POOL_ANNOTATION] = name
    if offer is None:
        return
    if view.claim.annotations.get(names.INSTANCE_TYPE_ANNOTATION) != offer.size.name:
        draft.notices += [Notice(reason="InstanceTypeNote", message=note) for note in offer.notes]
    draft.annotations[names.INSTANCE_TYPE_ANNOTATION] = offer.size.name
    if offer.size.gpu_instance_profile or _recorded_profile(view):
        draft.annotations[names.GPU_INSTANCE_PROFILE_ANNOTATION] = offer.size.gpu_instance_profile
    wanted = launch_labels(view.claim, offer, location=view.location)
    draft.labels |= {key: value for key, value in wanted.items() if key not in view.claim.labels}
    draft.labels |= _outdated_labels(view, offer)


def _recorded_profile(view: View) -> str:
    return view.claim.annotations.get(names.GPU_INSTANCE_PROFILE_ANNOTATION, "")


def _outdated_labels(view: View, offer: Offer) -> dict[str, str | None]:
    """Return what has to change of the labels that an earlier offer gave the claim, None for what has to go.

    A size's name is the earlier offer's where it is the one recorded; whatever else the author wrote there stays.
    """
    claim, recorded = view.claim, view.claim.annotations.get(names.INSTANCE_TYPE_ANNOTATION)
    if recorded is None:
        return {}
    given = dict(offer.labels) | ({names.ZONE_LABEL: offer.zone_label} if offer.zone_label else {})
    changes: dict[str, str | None] = {
        key: value
        for key, value in given.items()
        if key.startswith(_OF_OFFERS)
        and key in claim.labels
        and claim.labels[key] != value
        and (key not in _SIZE_NAMES or claim.labels[key] == recorded)
    }
    if not offer.zone_label and names.ZONE_LABEL in claim.labels:
        changes[names.ZONE_LABEL] = None
    return changes


def _creating(view: View, draft: Draft, name: str, *, offer: Offer | None) -> None:
    what = ""
    if offer is not None:
        disk = f"{offer.os_disk_gib} GiB OS disk" if offer.os_disk_gib else "Azure's default OS disk"
        where = f"zone {' or '.join(offer.zones)}" if offer.zones else "regional"
        price = f", {offer.price:.3f} $/h" if offer.price is not None else ""
        what = f" ({offer.size.name}, {offer.capacity_type}, {where}, {disk}{price})"
    node = "A GPU node" if view.size is None or view.size.gpu_count else "A node"
    draft.conditions.set_unknown(
        LAUNCHED,
        reason=CREATING,
        message=f"Azure is creating agent pool {name}{what}. {node} usually joins within 5 to 10 minutes.",
    )
