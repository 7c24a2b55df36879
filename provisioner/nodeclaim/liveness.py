"""Liveness: a claim that will not get its node is deleted, so that whoever wrote it can try again."""

from datetime import datetime, timedelta
from typing import Final

from provisioner.apis import names
from provisioner.apis.agentpool import AgentPool
from provisioner.apis.conditions import LAUNCHED, REGISTERED
from provisioner.apis.durations import format_duration
from provisioner.azure.inventory import Lookup
from provisioner.nodeclaim.nodeclass import CLASS_REASONS
from provisioner.nodeclaim.view import Draft, Notice, View, Waiting

# As Karpenter's metrics name them.
REGISTRATION_TIMEOUT: Final = "registration_timeout"
LAUNCH_TIMEOUT: Final = "launch_timeout"
# What a claim waits for once Azure is done.
FOR_NODE: Final = "Node"


def check(view: View, draft: Draft) -> None:
    """Have the claim deleted that has waited too long, either for a Node once Azure was done, or for its node class.

    A launch that fails is no such case, unlike Karpenter's: KAITO would write the claim anew at once, for ever. Nor is
    one that Azure still works on: AKS takes longer for a pool than Karpenter gives a machine.
    """
    launched = draft.conditions.get(LAUNCHED)
    if launched is None or draft.conditions.is_true(REGISTERED):
        return
    if launched.status != "True" and launched.reason in CLASS_REASONS:
        _check_node_class(view, draft, message=launched.message)
        return
    pool = view.pools.lookup(view.pool_name)
    if pool is Lookup.UNKNOWN or view.pools.failure is not None:
        # What Azure does is not known: nothing is decided, and nothing is forgotten.
        draft.waiting = view.waiting
        return
    if not isinstance(pool, AgentPool) or not view.owns(pool):
        # Launched and without its pool it is the garbage collector's, not launched it is the launch's.
        return
    if not (pool.is_succeeded or pool.is_failed):
        draft.waiting = Waiting(what="Azure", since=view.now)
    elif pool.is_succeeded or launched.status == "True":
        seen = launched.last_transition if launched.status == "True" and view.waiting is None else view.now
        _check_registration(view, draft, seen=seen)


def _check_registration(view: View, draft: Draft, *, seen: datetime) -> None:
    """Wait for the Node. `seen` is when Azure was done, where that was not noted before.

    After a restart that is the moment of the launch. Without a VM it has not come to that, and it counts anew.
    """
    timeout, name = view.timeouts.registration, view.pool_name
    waiting = _wait(view, draft, what=FOR_NODE, seen=seen)
    if timeout is None or not _is_over(view, draft, waiting, timeout=timeout):
        return
    _delete(
        draft,
        reason=REGISTRATION_TIMEOUT,
        event="RegistrationTimeout",
        message=f"No node of agent pool {name} has registered within {format_duration(timeout)} of Azure's finishing "
        "it; deleting claim and pool. Look for what keeps VMs from joining: network (outbound rules, DNS, firewall), "
        "extensions, and the boot of a VM in the node resource group.",
    )


def _check_node_class(view: View, draft: Draft, *, message: str) -> None:
    timeout = view.timeouts.launch
    if timeout is None or view.claim.class_name == names.DEFAULT_NODECLASS:
        return
    waiting = _wait(view, draft, what="NodeClass", seen=view.now)
    if _is_over(view, draft, waiting, timeout=timeout):
        _delete(
            draft,
            reason=LAUNCH_TIMEOUT,
            event="LaunchTimeout",
            message=f"Deleting the claim after {format_duration(timeout)}. {message}",
        )


def _wait(view: View, draft: Draft, *, what: str, seen: datetime) -> Waiting:
    old = view.waiting
    draft.waiting = old if old is not None and old.what == what else Waiting(what=what, since=seen)
    return draft.waiting


def _is_over(view: View, draft: Draft, waiting: Waiting, *, timeout: timedelta) -> bool:
    left = waiting.since + timeout - view.now
    if left > timedelta(0):
        draft.look_again(left)
        return False
    return True


def _delete(draft: Draft, *, reason: str, event: str, message: str) -> None:
    draft.delete_claim = reason
    # The question for the VM: nobody needs the answer any more.
    draft.azure = None
    draft.notices.append(Notice(reason=event, message=message, is_warning=True))
