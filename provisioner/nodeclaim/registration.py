"""Registration: from a Node that has joined to one that carries what its claim says."""

from collections.abc import Mapping
from typing import Any

from provisioner.apis import names
from provisioner.apis.agentpool import pool_of_provider_id
from provisioner.apis.conditions import LAUNCHED, REGISTERED
from provisioner.apis.names import UNREGISTERED_TAINT_KEY
from provisioner.apis.node import Node
from provisioner.apis.nodeclaim import NodeClaim
from provisioner.nodeclaim.view import Draft, NodePatch, View


def register(view: View, draft: Draft) -> None:
    """Bring the claim to Registered=True once exactly one Node of it has joined, whatever that Node's readiness."""
    conditions = draft.conditions
    if conditions.is_true(REGISTERED):
        conditions.observe(REGISTERED)
        _keep_finalizer(view, draft)
        return
    if not conditions.is_true(LAUNCHED):
        return
    # The launch may have chosen a VM just now: its Node counts, not whatever else the pool has.
    provider_id = str(draft.status.get("providerID", view.claim.provider_id)).lower()
    nodes = [
        node
        for node in view.joined_nodes
        if not node.is_deleting and (not provider_id or node.provider_id.lower() == provider_id)
    ]
    if not nodes:
        conditions.set_unknown(REGISTERED, reason="NodeNotFound", message="Node not registered with cluster")
        return
    if len(nodes) > 1:
        conditions.set_false(
            REGISTERED, reason="MultipleNodesFound", message="Invariant violated, matched multiple nodes"
        )
        return
    node = nodes[0]
    patch = _sync(view.claim, node, new_labels=draft.labels)
    if patch:
        draft.node_patch = NodePatch(node=node, patch=patch)
    draft.status["nodeName"] = node.name
    if image := node.labels.get(names.AKS_NODE_IMAGE_VERSION_LABEL):
        draft.status["imageID"] = image
    conditions.set_true(REGISTERED)


def _keep_finalizer(view: View, draft: Draft) -> None:
    """Put our finalizer on a Node that registered under an earlier version, or has lost it."""
    node = next((node for node in view.joined_nodes if not node.is_deleting), None)
    if node is None or names.TERMINATION_FINALIZER in node.finalizers:
        return
    # A claim's status may name a VM that never was its own.
    if view.claim.uid in node.owner_uids or pool_of_provider_id(node.provider_id) == view.pool_name:
        draft.node_patch = NodePatch(node=node, patch={"metadata": {"finalizers": _finalizers(node)}})


def _finalizers(node: Node) -> list[str]:
    return [*node.finalizers, names.TERMINATION_FINALIZER]


def _sync(claim: NodeClaim, node: Node, *, new_labels: Mapping[str, str | None]) -> dict[str, Any]:
    """Return the merge patch that puts the claim's labels, annotations, taints and ownership on the Node."""
    taken_back = {key for key, value in new_labels.items() if value is None}
    labels = {
        **{key: value for key, value in new_labels.items() if value is not None},
        **{key: value for key, value in claim.labels.items() if key not in taken_back},
        names.REGISTERED_LABEL: "true",
    }
    annotations = {key: value for key, value in claim.annotations.items() if not _is_bookkeeping(key)}
    metadata: dict[str, Any] = {}
    if missing := _missing(labels, node.labels):
        metadata["labels"] = missing
    if missing := _missing(annotations, node.annotations):
        metadata["annotations"] = missing
    if names.TERMINATION_FINALIZER not in node.finalizers:
        # Whoever deletes the Node waits until it is drained and its VM is gone.
        metadata["finalizers"] = _finalizers(node)
    if claim.uid not in node.owner_uids:
        # The Node joined for this claim; nobody but the kubelet has made it, so there is no owner to keep.
        metadata["ownerReferences"] = [
            {
                "apiVersion": names.NODECLAIM_API_VERSION,
                "kind": names.NODECLAIM_KIND,
                "name": claim.name,
                "uid": claim.uid,
                "blockOwnerDeletion": True,
            }
        ]
    patch: dict[str, Any] = {"metadata": metadata} if metadata else {}
    taints = _taints(claim, node)
    if taints != list(node.raw_taints):
        patch["spec"] = {"taints": taints}
    return patch


def _missing(wanted: Mapping[str, str], present: Mapping[str, str]) -> dict[str, str]:
    return {key: value for key, value in wanted.items() if present.get(key) != value}


def _is_bookkeeping(annotation: str) -> bool:
    # kubectl's copy of the applied claim would make `kubectl apply` of the Node compare against a NodeClaim.
    return annotation == "kubectl.kubernetes.io/last-applied-configuration"


def _taints(claim: NodeClaim, node: Node) -> list[Mapping[str, Any]]:
    """Return the Node's taints with the claim's appended, as stored otherwise, `unregistered` taken off."""
    kept = [raw for raw in node.raw_taints if raw.get("key") != UNREGISTERED_TAINT_KEY]
    if claim.spec is None or "true" in (
        labels.get(names.DO_NOT_SYNC_TAINTS_LABEL) for labels in (node.labels, claim.labels)
    ):
        return kept
    # Startup taints come this way only: the stable API of agent pools has no taints that may be removed later.
    present = set(node.taints)
    wanted = dict.fromkeys((*claim.spec.taints, *claim.spec.startup_taints))
    return [
        *kept,
        *(taint.to_dict() for taint in wanted if taint not in present and taint.key != UNREGISTERED_TAINT_KEY),
    ]
