"""What there is at one moment, as a person would look at it: from Workspaces to pods. And what has changed since."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

_GPU_RESOURCES: Final = ("nvidia.com/gpu", "amd.com/gpu")
_STAGES: Final = ("Launched", "Registered", "Initialized", "Ready")
_CONDITIONS: Final = ("NodeClaimReady", "NodesReady", "ResourceReady", "InferenceReady", "WorkspaceSucceeded")


@dataclass(frozen=True)
class Model:
    """A Workspace: the status of each condition, what it waits for, and where its model is served."""

    name: str
    conditions: Mapping[str, str]
    reason: str
    sizing: str
    state: str
    endpoint: str
    deleting: bool


@dataclass(frozen=True)
class Claim:
    """A NodeClaim: the status of each stage, and the reason and message of the first that is not True."""

    name: str
    stages: Mapping[str, str]
    reason: str
    message: str
    deleting: bool


@dataclass(frozen=True)
class Pool:
    """An agent pool in Azure."""

    name: str
    size: str
    state: str


@dataclass(frozen=True)
class Machine:
    """A Node in Kubernetes."""

    name: str
    pool: str
    ready: str
    gpus: str


@dataclass(frozen=True)
class Pod:
    """A pod of a Workspace."""

    name: str
    node: str
    state: str


@dataclass(frozen=True)
class Snapshot:
    """One moment."""

    workspaces: Mapping[str, Model] = field(default_factory=dict)
    claims: Mapping[str, Claim] = field(default_factory=dict)
    pools: Mapping[str, Pool] = field(default_factory=dict)
    nodes: Mapping[str, Machine] = field(default_factory=dict)
    pods: Mapping[str, Pod] = field(default_factory=dict)

    def changes_since(self, before: "Snapshot") -> list[str]:
        """Return one line for each thing that changed, in the order in which causes precede effects."""
        return [
            *_decisions(before.workspaces, self.workspaces),
            *_wishes("claim", before.claims, self.claims),
            *_pool_changes(before.pools, self.pools),
            *_node_changes(before.nodes, self.nodes),
            *_claim_changes(before.claims, self.claims),
            *_pod_changes(before.pods, self.pods),
            *_workspace_changes(before.workspaces, self.workspaces),
        ]


def read_workspace(raw: Mapping[str, Any]) -> Model:
    """Read a Workspace as the API server sent it."""
    status = raw.get("status") or {}
    conditions = {c["type"]: c for c in status.get("conditions") or ()}
    whole = conditions.get("WorkspaceSucceeded", {})
    return Model(
        name=raw["metadata"]["name"],
        conditions={kind: conditions.get(kind, {}).get("status", "") for kind in _CONDITIONS},
        reason="" if whole.get("status") == "True" else whole.get("reason", ""),
        sizing=status.get("sizing", ""),
        state=status.get("state", ""),
        endpoint=status.get("endpoint", ""),
        deleting="deletionTimestamp" in raw["metadata"],
    )


def read_pod(raw: Mapping[str, Any]) -> Pod:
    """Read a pod as the API server sent it."""
    status = raw.get("status") or {}
    ready = any(c["type"] == "Ready" and c["status"] == "True" for c in status.get("conditions") or ())
    phase = "Ready" if ready else status.get("phase", "Pending")
    return Pod(
        name=raw["metadata"]["name"],
        node=raw["spec"].get("nodeName", ""),
        state="Terminating" if "deletionTimestamp" in raw["metadata"] else phase,
    )


def read_claim(raw: Mapping[str, Any]) -> Claim:
    """Read a claim as the API server sent it."""
    conditions = {c["type"]: c for c in (raw.get("status") or {}).get("conditions") or ()}
    unmet = [conditions[s] for s in _STAGES if s in conditions and conditions[s]["status"] != "True"]
    pending: Mapping[str, Any] = unmet[0] if unmet else {}
    return Claim(
        name=raw["metadata"]["name"],
        stages={stage: conditions.get(stage, {}).get("status", "") for stage in _STAGES},
        reason=pending.get("reason", ""),
        message=pending.get("message", ""),
        deleting="deletionTimestamp" in raw["metadata"],
    )


def read_pool(raw: Mapping[str, Any]) -> Pool:
    """Read an agent pool as ARM sent it."""
    properties = raw["properties"]
    return Pool(name=raw["name"], size=properties["vmSize"], state=properties["provisioningState"])


def read_node(raw: Mapping[str, Any]) -> Machine:
    """Read a Node as the API server sent it."""
    status = raw.get("status") or {}
    ready = next((c["status"] for c in status.get("conditions") or () if c["type"] == "Ready"), "Unknown")
    allocatable = status.get("allocatable") or {}
    gpus = next((f"{allocatable[r]} x {r}" for r in _GPU_RESOURCES if allocatable.get(r, "0") != "0"), "none")
    return Machine(
        name=raw["metadata"]["name"],
        pool=raw["metadata"].get("labels", {}).get("kubernetes.azure.com/agentpool", ""),
        ready="Ready" if ready == "True" else "NotReady",
        gpus=gpus,
    )


def _wishes(kind: str, before: Mapping[str, Model | Claim], after: Mapping[str, Model | Claim]) -> Iterator[str]:
    for name, now in after.items():
        old = before.get(name)
        if old is None or (now.deleting and not old.deleting):
            yield f"{kind} {name} is {'deleted' if now.deleting else 'written'}"


def _decisions(before: Mapping[str, Model], after: Mapping[str, Model]) -> Iterator[str]:
    yield from _wishes("workspace", before, after)
    for name, now in after.items():
        old = before.get(name)
        if now.sizing and (old is None or now.sizing != old.sizing):
            yield f"workspace {name} runs on {now.sizing}"


def _workspace_changes(before: Mapping[str, Model], after: Mapping[str, Model]) -> Iterator[str]:
    for name, now in after.items():
        old = before.get(name)
        reached = [c for c in _CONDITIONS if now.conditions[c] == "True" and (not old or old.conditions[c] != "True")]
        if reached:
            yield f"workspace {name}: {', '.join(f'{kind}=True' for kind in reached)}"
        if now.reason and not now.deleting and (old is None or now.reason != old.reason):
            # What stands behind it the claim tells, in the same words.
            yield f"workspace {name} waits: {now.reason}"
        if now.state == "Ready" and (old is None or old.state != "Ready"):
            yield f"workspace {name} is Ready: its model is served at {now.endpoint}"
    yield from (f"workspace {name} is gone" for name in before if name not in after)


def _pod_changes(before: Mapping[str, Pod], after: Mapping[str, Pod]) -> Iterator[str]:
    for name, pod in after.items():
        if before.get(name) != pod:
            yield f"pod {name} is {pod.state}{f' on {pod.node}' if pod.node else ''}"
    yield from (f"pod {name} is gone" for name in before if name not in after)


def _pool_changes(before: Mapping[str, Pool], after: Mapping[str, Pool]) -> list[str]:
    lines = [f"agent pool {p.name} ({p.size}) is {p.state}" for n, p in after.items() if before.get(n) != p]
    return lines + [f"agent pool {name} is gone" for name in before if name not in after]


def _node_changes(before: Mapping[str, Machine], after: Mapping[str, Machine]) -> list[str]:
    lines = []
    for name, node in after.items():
        old = before.get(name)
        if old is None:
            lines.append(f"node {name} has joined, {node.ready}, GPUs: {node.gpus}")
        elif old != node:
            lines.append(f"node {name} is {node.ready}, GPUs: {node.gpus}")
    return lines + [f"node {name} is gone" for name in before if name not in after]


def _claim_changes(before: Mapping[str, Claim], after: Mapping[str, Claim]) -> list[str]:
    lines = []
    for name, claim in after.items():
        old = before.get(name)
        reached = [s for s in _STAGES if claim.stages[s] == "True" and (old is None or old.stages[s] != "True")]
        if reached:
            lines.append(f"claim {name}: {', '.join(f'{stage}=True' for stage in reached)}")
        if claim.reason and (old is None or (claim.reason, claim.message) != (old.reason, old.message)):
            lines.append(f"claim {name}: {claim.reason}: {claim.message}")
    return lines + [f"claim {name} is gone" for name in before if name not in after]
