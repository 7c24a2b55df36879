"""Consistency: whether the Node of an initialized claim has, and keeps, what its VM size promises."""

from decimal import Decimal
from typing import Final

from provisioner.apis import names
from provisioner.apis.conditions import CONSISTENT_STATE_FOUND, INITIALIZED
from provisioner.apis.node import Node
from provisioner.apis.quantity import parse_quantity
from provisioner.nodeclaim.view import Draft, Notice, View

# Karpenter's, pkg/controllers/nodeclaim/consistency/nodeshape.go: a kernel keeps some memory to itself.
_ENOUGH: Final = Decimal("0.9")
# What Azure's provider for Karpenter takes off a size's memory before that (VM_MEMORY_OVERHEAD_PERCENT).
_SEEN_BY_THE_VM: Final = 0.925


def check(view: View, draft: Draft) -> None:
    """Set ConsistentStateFound, which does not count for Ready.

    Judged at each look, as a change of the amounts wakes the claim; Karpenter looks every ten minutes. For its own sake
    it is written only where something is wrong, or was: a claim that has been initialized without it is left as it is.
    """
    conditions = draft.conditions
    if not conditions.is_true(INITIALIZED):
        return
    stored = conditions.get(CONSISTENT_STATE_FOUND)
    nodes = [node for node in view.joined_nodes if not node.is_deleting]
    if len(nodes) != 1 or not nodes[0].is_ready:
        # While a kubelet starts anew, amounts come back one after the other.
        if stored is not None:
            conditions.observe(CONSISTENT_STATE_FOUND)
        return
    issue = _issue(view, nodes[0])
    if issue:
        if stored is None or stored.status != "False":
            draft.notices.append(Notice(reason="FailedConsistencyCheck", message=issue, is_warning=True))
        conditions.set_false(
            CONSISTENT_STATE_FOUND, reason="ConsistencyCheckFailed", message="Consistency Check Failed"
        )
    elif stored is not None or not view.claim.is_true(INITIALIZED):
        conditions.set_true(CONSISTENT_STATE_FOUND)


def _issue(view: View, node: Node) -> str:
    """Return what the Node has too little of, empty where there is nothing."""
    for resource, expected in _expected(view).items():
        found, wanted = node.capacity_of(resource), _amount(expected)
        if found < wanted * _ENOUGH:
            return (
                f"expected {expected} of resource {resource}, but found {node.capacity.get(resource, '0')} "
                f"({float(found / wanted * 100):.1f}% of expected)"
            )
    return ""


def _expected(view: View) -> dict[str, str]:
    """Return what the size promises of GPUs and of what the claim requests, else what the Node had at first."""
    size, recorded = view.size, view.claim.capacity
    promised: dict[str, str] = {}
    if size is not None and size.vcpus:
        promised["cpu"] = str(size.vcpus)
    if size is not None and size.memory_gib:
        promised["memory"] = f"{size.memory_gib * _SEEN_BY_THE_VM:.0f}Gi"
    requests = view.claim.spec.requests if view.claim.spec else {}
    expected = {
        resource: promised.get(resource) or recorded.get(resource, "0")
        for resource, amount in requests.items()
        # No Node ever offers `storage`: it is the OS disk's size here.
        if amount > 0 and resource != names.STORAGE
    }
    if size is not None and size.gpu_count and view.wait_for_gpus:
        expected[size.gpu_resource] = str(size.gpu_count)
    return expected


def _amount(quantity: str) -> Decimal:
    try:
        return parse_quantity(quantity)
    except ValueError:
        # Of a status that somebody else has written.
        return Decimal(0)
