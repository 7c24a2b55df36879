"""Termination: the claim's agent pool goes, then its Node, then the claim."""

from datetime import timedelta
from typing import Final

from provisioner.apis import names
from provisioner.apis.agentpool import AgentPool, pool_of_provider_id
from provisioner.apis.conditions import INSTANCE_TERMINATING
from provisioner.azure.inventory import Lookup
from provisioner.nodeclaim.agentpool_spec import pool_name
from provisioner.nodeclaim.view import DeletePool, Draft, View

# Asked for while a pool goes in case the inventory's own pace has slept in; a LIST is one call for all claims.
_LOOK_AGAIN: Final = timedelta(seconds=30)
# A run that has just begun knows more within seconds.
_SOON: Final = timedelta(seconds=1)


def terminate(view: View, draft: Draft) -> None:
    """Take down what stands for a deleted claim; hold the claim until Azure's list shows that nothing is left.

    Keyed on the pool, not on the providerID: a pool exists and costs money long before its VM has an ID.
    """
    pools = _own_pools(view)
    if pools:
        _delete(view, draft, pools)
        return
    if _is_uncertain(view):
        draft.refresh = True
        # The inventory tells of the name that it was asked for, under which nobody may find the claim; and of nothing
        # when it has only become old enough.
        draft.look_again(_LOOK_AGAIN if view.pools.is_settled else _SOON)
        if view.pools.failure is not None:
            failure = view.pools.failure
            draft.conditions.set_unknown(INSTANCE_TERMINATING, reason=failure.kind.reason, message=failure.message)
        return
    # Azure's cloud-controller-manager removes the Node of a VM that is gone, in its own time; clients that find one
    # left take it for a node that nobody needs to pay for. Where its pool stands, it is somebody else's: a pool of the
    # claim's name, or whatever VM somebody wrote into the claim's status.
    draft.deleted_nodes = tuple(
        node
        for node in view.joined_nodes
        if (not node.is_deleting or names.TERMINATION_FINALIZER in node.finalizers)
        and pool_of_provider_id(node.provider_id) not in view.pools.pools
    )
    draft.release = True


def _own_pools(view: View) -> list[AgentPool]:
    """Return every pool of this claim, also one under a name that the claim does not record."""
    found = {pool.name: pool for pool in view.pools.of_claim(view.claim.uid)}
    # The peer writes no tag, and names its pools as their claims.
    if (namesake := view.pools.pools.get(view.claim.name)) is not None:
        found[namesake.name] = namesake
    return sorted((pool for pool in found.values() if view.owns(pool)), key=lambda pool: pool.name)


def _is_uncertain(view: View) -> bool:
    # All are asked for: the inventory tells only of names that were, and under the first everybody finds the claim.
    candidates = (view.pool_name, pool_name(view.claim.name), pool_name(view.claim.name, alternative=True))
    return not view.pools.is_settled or Lookup.UNKNOWN in [view.pools.lookup(name) for name in candidates]


def _delete(view: View, draft: Draft, pools: list[AgentPool]) -> None:
    conditions = draft.conditions
    standing = [pool for pool in pools if not pool.is_deleting]
    draft.look_again(_LOOK_AGAIN)
    if not standing:
        going = " and ".join(pool.name for pool in pools)
        conditions.set_true(INSTANCE_TERMINATING, message=f"Azure is deleting agent pool {going}.")
        return
    if view.setback is not None and view.waits_until_retry(DeletePool):
        failure = view.setback.failure
        conditions.set_unknown(INSTANCE_TERMINATING, reason=failure.kind.reason, message=failure.message)
        draft.look_again(view.setback.retry_at - view.now)
        return
    draft.azure = DeletePool(name=standing[0].name)
