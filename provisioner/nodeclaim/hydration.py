"""Hydration: the node class label on launched claims and Nodes that others, or earlier versions, left without."""

from typing import Any

from provisioner.apis import names
from provisioner.apis.agentpool import pool_of_provider_id
from provisioner.apis.conditions import LAUNCHED, REGISTERED
from provisioner.apis.node import Node
from provisioner.nodeclaim.agentpool_spec import class_label
from provisioner.nodeclaim.view import Draft, NodePatch, View


def hydrate(view: View, draft: Draft) -> None:
    """Label a launched claim, and its Node once registered, with the class; what somebody has written there stays.

    By this label Karpenter and its clients tell whose a claim or a Node is.
    """
    label = class_label(view.claim)
    if not label or not draft.conditions.is_true(LAUNCHED):
        return
    if names.NODECLASS_LABEL in view.claim.labels:
        label = {names.NODECLASS_LABEL: view.claim.labels[names.NODECLASS_LABEL]}
    else:
        draft.labels |= label
    if not draft.conditions.is_true(REGISTERED):
        return
    node = next((node for node in view.joined_nodes if not node.is_deleting and _is_of_claim(view, node)), None)
    if node is not None and names.NODECLASS_LABEL not in node.labels:
        _label(draft, node, label)


def _is_of_claim(view: View, node: Node) -> bool:
    # A claim's status may name a VM that never was its own.
    return view.claim.uid in node.owner_uids or pool_of_provider_id(node.provider_id) == view.pool_name


def _label(draft: Draft, node: Node, label: dict[str, str]) -> None:
    """Add the label to what is written to the Node in this step; what is there already for another Node goes first."""
    patch: dict[str, Any] = {}
    if draft.node_patch is not None:
        if draft.node_patch.node.name != node.name:
            return
        patch = dict(draft.node_patch.patch)
    metadata = dict(patch.get("metadata", {}))
    metadata["labels"] = {**label, **metadata.get("labels", {})}
    draft.node_patch = NodePatch(node=node, patch={**patch, "metadata": metadata})
