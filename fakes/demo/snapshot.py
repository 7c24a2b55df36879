"""What there is at one moment, as a person would look at it: claims, agent pools, nodes. And what has changed since."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

_GPU_RESOURCES: Final = ("nvidia.com/gpu", "amd.com/gpu")
_STAGES: Final = ("Launched", "Registered", "Initialized", "Ready")


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
class Snapshot:
    """One moment."""

    claims: Mapping[str, Claim] = field(default_factory=dict)
    pools: Mapping[str, Pool] = field(default_factory=dict)
    nodes: Mapping[str, Machine] = field(default_factory=dict)

    def changes_since(self, before: "Snapshot") -> list[str]:
        """Return one line for each thing that changed, in the order in which causes precede effects."""
        return [
            *_pool_changes(before.pools, self.pools),
            *_node_changes(before.nodes, self.nodes),
            *_claim_changes(before.claims, self.claims),
        ]


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
        if old is None or (claim.deleting and not old.deleting):
            lines.append(f"claim {name} is {'deleted' if claim.deleting else 'written'}")
        reached = [s for s in _STAGES if claim.stages[s] == "True" and (old is None or old.stages[s] != "True")]
        if reached:
            lines.append(f"claim {name}: {', '.join(f'{stage}=True' for stage in reached)}")
        if claim.reason and (old is None or (claim.reason, claim.message) != (old.reason, old.message)):
            lines.append(f"claim {name}: {claim.reason}: {claim.message}")
    return lines + [f"claim {name} is gone" for name in before if name not in after]
