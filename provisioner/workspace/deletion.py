"""Deletion: the workload goes, then the claims with their Nodes, and the Workspace last. Pure.

The Workspace is held until its claims are gone: with it would go the only word of GPUs that are still paid for.
"""

from datetime import timedelta
from typing import Any, Final

from provisioner.apis import names
from provisioner.workspace.conditions import DELETING, INFERENCE_READY, SUCCEEDED, WORKSPACE_READY, Conditions
from provisioner.workspace.nodes import is_brought, is_own
from provisioner.workspace.view import NODE_CLAIM, Doomed, NodePatch, Step, View, Workload

# The watch tells of claims that go; this is for the case that it does not.
_LOOK_AGAIN: Final = timedelta(seconds=30)
_DELETED: Final = "workspaceDeleted"


def delete(view: View) -> Step:
    """Return the next step of a deleted Workspace."""
    workspace = view.workspace
    conditions = Conditions(workspace.conditions, generation=workspace.generation, now=view.now)
    doomed = [
        Doomed(kind=NODE_CLAIM, namespace="", name=claim.name, uid=claim.uid)
        for claim in view.claims
        if not claim.is_deleting
    ]
    if view.workload is not None and not view.workload.is_deleting:
        doomed.insert(0, _workload(view.workload, workspace.namespace, workspace.name))
    freed = tuple(
        NodePatch(
            node=node,
            patch={"metadata": {"labels": {names.WORKSPACE_LABEL: None, names.WORKSPACE_NAMESPACE_LABEL: None}}},
        )
        for node in view.nodes
        # A Node of a claim goes with it; its labels are its claim's.
        if is_own(workspace, node) and is_brought(node, view.claims) and not node.is_deleting
    )
    if not view.claims:
        return Step(node_patches=freed, deletions=tuple(doomed), release=True)
    conditions.set(DELETING, True, reason=_DELETED, message=_progress(view))
    status: dict[str, Any] = {}
    if workspace.inference is not None:
        # What was tuned stays tuned; what was served is not served any more.
        for kind in (INFERENCE_READY, SUCCEEDED, WORKSPACE_READY):
            conditions.set(kind, False, reason=_DELETED, message="The Workspace is being deleted.")
        if workspace.state == "Ready":
            status["state"] = "NotReady"
    if conditions.result() != workspace.conditions:
        status["conditions"] = [condition.to_dict() for condition in conditions.result()]
    return Step(
        node_patches=freed,
        deletions=tuple(doomed),
        status=status or None,
        again_after=_LOOK_AGAIN,
    )


def _workload(workload: Workload, namespace: str, name: str) -> Doomed:
    return Doomed(kind=workload.kind, namespace=namespace, name=name, uid=workload.uid)


def _progress(view: View) -> str:
    left = sorted(view.claims, key=lambda claim: claim.name)
    named = ", ".join(claim.name for claim in left)
    text = f"{len(left)} NodeClaims are left: {named}."
    waiting = next(
        (
            condition
            for claim in left
            for condition in claim.conditions
            if claim.is_deleting and condition.type in ("Drained", "VolumesDetached", "InstanceTerminating")
            # The last stage is under way once it is True: the condition says that Azure was asked.
            if (condition.status != "True" or condition.type == "InstanceTerminating") and condition.message
        ),
        None,
    )
    return f"{text} {waiting.message}" if waiting else text
