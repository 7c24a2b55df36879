"""A Workspace's conditions while a reconcile works on them: KAITO's types, whose transition times clients go by."""

from collections.abc import Iterable
from datetime import datetime
from typing import Final

from provisioner.apis.conditions import MAX_MESSAGE, Condition, Status

NODE_CLAIM_READY: Final = "NodeClaimReady"
NODES_READY: Final = "NodesReady"
RESOURCE_READY: Final = "ResourceReady"
INFERENCE_READY: Final = "InferenceReady"
JOB_STARTED: Final = "JobStarted"
SUCCEEDED: Final = "WorkspaceSucceeded"
# What KAITO 0.3 had in place of WorkspaceSucceeded; its clients and columns still ask for it.
WORKSPACE_READY: Final = "WorkspaceReady"
DELETING: Final = "WorkspaceDeleting"


# Reasons that pass by themselves in a Workspace that comes up as it should: those of claims, and its own.
PROGRESS: Final = frozenset(
    {
        "ModelPending",
        "AwaitingReconciliation",
        "CreatingAgentPool",
        "NodeNotFound",
        "NodeNotReady",
        "NodePluginsNotReady",
        "NodeClaimNotReady",
        "ResourceNotRegistered",
        "StartupTaintsExist",
        "KnownEphemeralTaintsExist",
        # Of a claim whose stages have only begun.
        "ReconcilingDependents",
        "WorkspaceInferenceStatusPending",
        "WorkspaceTuningJobStatusPending",
        "workspaceResourceStatusNotReady",
    }
)


class Conditions:
    """Conditions by type; what is not set again stays as it was."""

    def __init__(self, existing: Iterable[Condition], *, generation: int, now: datetime) -> None:
        self._stored = {condition.type: condition for condition in existing}
        self._conditions = dict(self._stored)
        self._generation = generation
        self._now = now

    def set(self, kind: str, status: Status | bool, *, reason: str, message: str = "") -> None:
        """Set a condition; its transition time moves with its status alone."""
        text: Status = status if isinstance(status, str) else ("True" if status else "False")
        # The stored one, not what was set before in this look: of both the last word counts.
        old = self._stored.get(kind)
        self._conditions[kind] = Condition(
            type=kind,
            status=text,
            reason=reason,
            message=message if len(message) <= MAX_MESSAGE else message[: MAX_MESSAGE - 3] + "...",
            last_transition=old.last_transition if old and old.status == text else self._now,
            observed_generation=self._generation,
        )

    def drop(self, kind: str) -> None:
        """Forget a condition that means nothing any more."""
        self._conditions.pop(kind, None)

    def get(self, kind: str) -> Condition | None:
        """Return the condition as it stands."""
        return self._conditions.get(kind)

    def is_true(self, kind: str) -> bool:
        """Tell whether the condition is True."""
        found = self._conditions.get(kind)
        return found is not None and found.status == "True"

    def result(self) -> tuple[Condition, ...]:
        """Return all conditions by type."""
        return tuple(self._conditions[kind] for kind in sorted(self._conditions))
