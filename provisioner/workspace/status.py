"""What a Workspace's status says, in the conditions, reasons and states that KAITO's clients know. Pure.

What a claim or a pod fails with is handed on word for word: whoever wrote the Workspace sees nothing else.
"""

import re
from collections.abc import Iterable
from typing import Final

from provisioner.apis.conditions import AWAITING_REASON, INITIALIZED, LAUNCHED, READY, REGISTERED
from provisioner.apis.nodeclaim import NodeClaim
from provisioner.workspace import nodes
from provisioner.workspace.conditions import (
    INFERENCE_READY,
    JOB_STARTED,
    NODE_CLAIM_READY,
    NODES_READY,
    PROGRESS,
    RESOURCE_READY,
    SUCCEEDED,
    WORKSPACE_READY,
    Conditions,
)
from provisioner.workspace.nodes import Holdings
from provisioner.workspace.view import NODE_CLAIM, PodState, Problem, Refusal, Sizing, Workload

_STAGES: Final = (LAUNCHED, REGISTERED, INITIALIZED)
_POD: Final = "Pod "
# metav1.Condition's.
_REASON: Final = re.compile(r"[A-Za-z](?:[A-Za-z0-9_,:]{0,1022}[A-Za-z0-9_])?", re.ASCII)


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
    if writes_claims and (held.alive or held.missing):
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
    _conclude_by_resources(conditions, reason=reason, message=message)
    return not_ready(state)


def not_ready(state: str) -> str:
    """Return the state of what is not ready (yet): once it has served it is never Pending again."""
    return "NotReady" if state in ("Ready", "NotReady") else "Pending"


def tell_tuning(
    conditions: Conditions, workload: Workload | None, pods: Iterable[PodState], *, enough: bool, state: str
) -> str:
    """Say how far the Job is. Returns the Workspace's state; `state` is what it was."""
    if workload is not None and workload.succeeded:
        conditions.set(
            JOB_STARTED, True, reason="WorkspaceTuningJobStatusStarted", message="The tuning has ended well."
        )
        _conclude(conditions, True, reason="workspaceSucceeded", message="The tuning has ended well.")
        return "Succeeded"
    trouble = _of_pods(pods)
    before = conditions.get(JOB_STARTED)
    if workload is not None and workload.is_failed:
        message = f"The tuning has failed; {workload.failed} pods have tried."
        if trouble:
            message = trouble[1]
        elif before is not None and before.message.startswith(_POD):
            # A Job that gives up deletes its pod, and with it the only word of why.
            message = before.message
        conditions.set(JOB_STARTED, False, reason="WorkspaceTuningJobStatusFailed", message=message)
        _conclude(conditions, False, reason="workspaceFailed", message=message)
        return "Failed"
    # A pod that failed and is tried again is no failure yet, but it is said.
    if workload is not None and (workload.ready or state == "Running"):
        told = f"kubectl logs --namespace {workload.namespace} job/{workload.name} --tail=1"
        message = trouble[1] if trouble else f"The tuning runs. How far it is: {told}"
        conditions.set(JOB_STARTED, True, reason="WorkspaceTuningJobStatusStarted", message=message)
        _conclude(conditions, False, reason="workspacePending", message=message)
        return "Running"
    reason, message = trouble or ("WorkspaceTuningJobStatusPending", _waiting(workload, enough=enough))
    conditions.set(JOB_STARTED, False, reason=reason, message=message)
    _conclude_by_resources(conditions, reason=reason, message=message)
    return "Pending"


def tell_refusal(conditions: Conditions, refusal: Refusal) -> None:
    """Say what could not be made."""
    message = f"{refusal.kind.kind} {refusal.name}: {refusal.message}"
    if refusal.kind is NODE_CLAIM:
        reason = "NodeClaimCreationFailed"
        conditions.set(NODE_CLAIM_READY, False, reason=reason, message=message)
        conditions.set(RESOURCE_READY, False, reason=reason, message=message)
    else:
        reason = "WorkloadRejected"
        about = JOB_STARTED if conditions.get(JOB_STARTED) is not None else INFERENCE_READY
        conditions.set(about, False, reason=reason, message=message)
    _conclude(conditions, False, reason=reason, message=message)


def claim_trouble(claim: NodeClaim) -> tuple[str, str]:
    """Return the reason and message of the first stage that a claim has not come through, as its provisioner says."""
    by_type = {condition.type: condition for condition in claim.conditions}
    # Ready last: of some provisioners it is all that there is.
    behind = [by_type[kind] for kind in (*_STAGES, READY) if kind in by_type and by_type[kind].status != "True"]
    telling = [condition for condition in behind if condition.reason != AWAITING_REASON]
    found = next((condition for condition in telling if condition.message), None) or next(
        iter((*telling, *behind)), None
    )
    if found is None:
        return "NodeClaimNotReady", f"NodeClaim {claim.name} waits for its provisioner."
    # Conditions without a proper reason are refused by the API server: with them all of the status.
    reason = found.reason if _REASON.fullmatch(found.reason) else "NodeClaimNotReady"
    return reason, found.message or f"NodeClaim {claim.name} waits for its provisioner: {found.type}={found.status}."


def _tell_claims(conditions: Conditions, held: Holdings) -> tuple[str, str] | None:
    kept = [claim for claim in held.alive if claim not in held.surplus]
    waiting = [claim for claim in kept if not nodes.is_ready(claim)]
    wanted = len(kept) + len(held.missing)
    if not waiting and not held.missing:
        conditions.set(NODE_CLAIM_READY, True, reason="NodeClaimsReady", message=f"{wanted} of {wanted} are ready.")
        return None
    if waiting:
        reason, message = claim_trouble(min(waiting, key=_rank))
        if len(waiting) > 1:
            message = f"{message} ({len(waiting)} of {wanted} NodeClaims are not ready.)"
    else:
        reason, message = "NodeClaimNotReady", f"{len(kept)} of {wanted} NodeClaims are there."
    conditions.set(NODE_CLAIM_READY, False, reason=reason, message=message)
    return reason, message


def _rank(claim: NodeClaim) -> tuple[bool, int, str]:
    """Return by what to choose the claim that tells most: one that fails, then the one that is furthest behind."""
    return claim_trouble(claim)[0] in PROGRESS, sum(claim.is_true(kind) for kind in _STAGES), claim.name


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
    return pod.reason, f"{_POD}{pod.name}: {pod.message}"


def _waiting(workload: Workload | None, *, enough: bool) -> str:
    if not enough and workload is None:
        return "Waiting for Nodes."
    if workload is None:
        return "Waiting for the pods to be made."
    return f"{workload.ready} of {workload.wanted} pods are ready."


def _conclude_by_resources(conditions: Conditions, *, reason: str, message: str) -> None:
    """Conclude that it is not there yet: for want of Nodes, else for the reason that is given."""
    resource = conditions.get(RESOURCE_READY)
    if resource is not None and resource.status != "True":
        reason, message = resource.reason, resource.message
    _conclude(conditions, False, reason=_pending(reason), message=message)


def _pending(reason: str) -> str:
    return (
        "workspacePending"
        if reason in ("WorkspaceInferenceStatusPending", "WorkspaceTuningJobStatusPending")
        else reason
    )


def _conclude(conditions: Conditions, succeeded: bool, *, reason: str, message: str) -> None:
    conditions.set(SUCCEEDED, succeeded, reason=reason, message=message)
    conditions.set(WORKSPACE_READY, succeeded, reason=reason, message=message)
