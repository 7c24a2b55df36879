"""What a Workspace's status says, in the conditions, reasons and states that KAITO's clients know. Pure.

What a claim or a pod fails with is handed on word for word: whoever wrote the Workspace sees nothing else.
"""

from collections.abc import Iterable
from typing import Final

from provisioner.apis.conditions import AWAITING_REASON, INITIALIZED, LAUNCHED, REGISTERED, Condition
from provisioner.apis.nodeclaim import NodeClaim
from provisioner.workspace import nodes
from provisioner.workspace.conditions import (
    INFERENCE_READY,
    JOB_STARTED,
    NODE_CLAIM_READY,
    NODES_READY,
    RESOURCE_READY,
    SUCCEEDED,
    WORKSPACE_READY,
    Conditions,
)
from provisioner.workspace.nodes import Holdings
from provisioner.workspace.view import PodState, Problem, Sizing, Workload

_STAGES: Final = (LAUNCHED, REGISTERED, INITIALIZED)


def refuse(conditions: Conditions, problem: Problem) -> None:
    """Say why the Workspace cannot be served, as it stands or as things are."""
    conditions.set(RESOURCE_READY, False, reason=problem.reason, message=problem.message)
    _conclude(conditions, False, reason=problem.reason, message=problem.message)


def await_model(conditions: Conditions, name: str) -> None:
    """Say that the model's shape is being looked up."""
    message = f"Looking up {name}."
    conditions.set(RESOURCE_READY, False, reason="ModelPending", message=message)
    _conclude(conditions, False, reason="workspacePending", message=message)


def tell_resources(conditions: Conditions, held: Holdings, *, sizing: Sizing, writes_claims: bool) -> bool:
    """Say how far Nodes and claims are. Returns whether there are as many ready Nodes as are needed."""
    enough = len(held.ready) >= sizing.nodes
    failing: tuple[str, str] | None = None
    if writes_claims and (held.alive or held.missing or held.going):
        failing = _tell_claims(conditions, held)
    else:
        conditions.drop(NODE_CLAIM_READY)
    _tell_nodes(conditions, held, sizing=sizing, enough=enough)
    if enough:
        conditions.set(RESOURCE_READY, True, reason="workspaceResourceStatusSuccess", message=sizing.why)
        return True
    found = conditions.get(NODES_READY)
    reason, message = failing or ((found.reason, found.message) if found else ("workspaceResourceStatusNotReady", ""))
    conditions.set(RESOURCE_READY, False, reason=reason, message=message)
    return False


def tell_inference(
    conditions: Conditions, workload: Workload | None, pods: Iterable[PodState], *, enough: bool, state: str
) -> str:
    """Say whether the model is served. Returns the Workspace's state; `state` is what it was."""
    if workload is not None and workload.is_rolled_out and workload.ready >= workload.wanted > 0 and enough:
        conditions.set(INFERENCE_READY, True, reason="WorkspaceInferenceStatusSuccess", message="The model is served.")
        _conclude(conditions, True, reason="workspaceSucceeded", message="The model is served.")
        return "Ready"
    reason, message = _of_pods(pods) or ("WorkspaceInferenceStatusPending", _waiting(workload, enough=enough))
    conditions.set(INFERENCE_READY, False, reason=reason, message=message)
    resource = conditions.get(RESOURCE_READY)
    if resource is not None and resource.status != "True":
        reason, message = resource.reason, resource.message
    _conclude(conditions, False, reason=_pending(reason), message=message)
    # Once it has served it is never Pending again.
    return "NotReady" if state in ("Ready", "NotReady") else "Pending"


def tell_tuning(conditions: Conditions, workload: Workload | None, pods: Iterable[PodState], *, enough: bool) -> str:
    """Say how far the Job is. Returns the Workspace's state."""
    if workload is not None and workload.succeeded:
        conditions.set(
            JOB_STARTED, True, reason="WorkspaceTuningJobStatusStarted", message="The tuning has ended well."
        )
        _conclude(conditions, True, reason="workspaceSucceeded", message="The tuning has ended well.")
        return "Succeeded"
    trouble = _of_pods(pods)
    if workload is not None and workload.is_failed:
        message = trouble[1] if trouble else _last_word(conditions)
        conditions.set(JOB_STARTED, False, reason="WorkspaceTuningJobStatusFailed", message=message)
        _conclude(conditions, False, reason="workspaceFailed", message=message)
        return "Failed"
    if workload is not None and workload.ready:
        # A pod that failed and is tried again is no failure yet, but it is said.
        message = trouble[1] if trouble else "The tuning runs."
        conditions.set(JOB_STARTED, True, reason="WorkspaceTuningJobStatusStarted", message=message)
        _conclude(conditions, False, reason="workspacePending", message=message)
        return "Running"
    reason, message = trouble or ("WorkspaceTuningJobStatusPending", _waiting(workload, enough=enough))
    conditions.set(JOB_STARTED, False, reason=reason, message=message)
    resource = conditions.get(RESOURCE_READY)
    if resource is not None and resource.status != "True":
        reason, message = resource.reason, resource.message
    _conclude(conditions, False, reason=_pending(reason), message=message)
    return "Pending"


def _last_word(conditions: Conditions) -> str:
    """Return what a failed tuning has died of: its pods are gone with the Job's end, what was told of them is not."""
    before = conditions.get(JOB_STARTED)
    if before is None or before.reason in ("WorkspaceTuningJobStatusPending", "WorkspaceTuningJobStatusStarted"):
        return "The tuning has failed, and its pods are gone; see the Events of its Job."
    return before.message


def reject(conditions: Conditions, kind: str, rejection: str) -> None:
    """Say that the API server does not take what is to run."""
    conditions.set(kind, False, reason="WorkloadRejected", message=rejection)
    _conclude(conditions, False, reason="WorkloadRejected", message=rejection)


def claim_trouble(claim: NodeClaim) -> tuple[str, str]:
    """Return the reason and message of the first stage that a claim has not come through, as its provisioner says."""
    by_type = {condition.type: condition for condition in claim.conditions}
    awaiting: Condition | None = None
    for kind in _STAGES:
        condition = by_type.get(kind)
        if condition is None or condition.status == "True":
            continue
        if condition.reason != AWAITING_REASON and condition.message:
            return condition.reason or "NodeClaimNotReady", condition.message
        awaiting = awaiting or condition
    if awaiting is not None and awaiting.reason:
        return awaiting.reason, awaiting.message or f"NodeClaim {claim.name} waits for its provisioner."
    return "NodeClaimNotReady", f"NodeClaim {claim.name} waits for its provisioner."


def _tell_claims(conditions: Conditions, held: Holdings) -> tuple[str, str] | None:
    waiting = [claim for claim in held.alive if not nodes.is_ready(claim)]
    wanted = len(held.alive) + len(held.missing)
    if not waiting and not held.missing:
        conditions.set(NODE_CLAIM_READY, True, reason="NodeClaimsReady", message=f"{wanted} of {wanted} are ready.")
        return None
    if waiting:
        reason, message = claim_trouble(min(waiting, key=_stage))
        if len(waiting) > 1:
            message = f"{message} ({len(waiting)} of {wanted} NodeClaims are not ready.)"
    else:
        reason, message = "NodeClaimNotReady", f"{len(held.alive)} of {wanted} NodeClaims are there."
    conditions.set(NODE_CLAIM_READY, False, reason=reason, message=message)
    return reason, message


def _stage(claim: NodeClaim) -> tuple[int, str]:
    """Return how far a claim has come: the one that is furthest behind tells most."""
    return sum(claim.is_true(kind) for kind in _STAGES), claim.name


def _tell_nodes(conditions: Conditions, held: Holdings, *, sizing: Sizing, enough: bool) -> None:
    if enough:
        named = ", ".join(node.name for node in held.ready)
        conditions.set(NODES_READY, True, reason="NodesReady", message=f"{named}.")
        return
    without = [node for node in held.unready if node.is_ready and not node.is_deleting]
    if without:
        node = without[0]
        offered = node.allocatable_of(sizing.gpu_resource)
        conditions.set(
            NODES_READY,
            False,
            reason="NodePluginsNotReady",
            message=f"{offered:f} of {sizing.gpus} {sizing.gpu_resource} registered on Node {node.name}.",
        )
        return
    conditions.set(
        NODES_READY,
        False,
        reason="NodeNotReady",
        message=f"{len(held.ready)} of {sizing.nodes} Nodes are ready.",
    )


def _of_pods(pods: Iterable[PodState]) -> tuple[str, str] | None:
    troubled = [pod for pod in pods if pod.reason]
    if not troubled:
        return None
    pod = min(troubled, key=lambda pod: (pod.reason == "Unschedulable", pod.name))
    return pod.reason, f"Pod {pod.name}: {pod.message}"


def _waiting(workload: Workload | None, *, enough: bool) -> str:
    if not enough and workload is None:
        return "Waiting for Nodes."
    if workload is None:
        return "Waiting for the pods to be made."
    return f"{workload.ready} of {workload.wanted} pods are ready."


def _pending(reason: str) -> str:
    return (
        "workspacePending"
        if reason in ("WorkspaceInferenceStatusPending", "WorkspaceTuningJobStatusPending")
        else reason
    )


def _conclude(conditions: Conditions, succeeded: bool, *, reason: str, message: str) -> None:
    conditions.set(SUCCEEDED, succeeded, reason=reason, message=message)
    conditions.set(WORKSPACE_READY, succeeded, reason=reason, message=message)
