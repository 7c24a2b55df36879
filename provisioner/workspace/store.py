"""The latest Workspaces, claims, Nodes and workloads, with the look-ups that reconcilers of Workspaces need."""

from collections.abc import Mapping
from typing import Any

from provisioner.apis import names
from provisioner.apis.node import Node, parse_node
from provisioner.apis.nodeclaim import NodeClaim, parse_nodeclaim
from provisioner.apis.workspace import Workspace, parse_workspace
from provisioner.kube.table import Table
from provisioner.workspace.view import JOB, NODE_CLAIM, STATEFUL_SET, Doomed, Workload
from provisioner.workspace.workload import parse_job, parse_stateful_set


class Store:
    """The objects by kind. Not thread safe."""

    def __init__(self) -> None:
        self.workspaces = Table[Workspace](parse_workspace, {})
        self.claims = Table[NodeClaim](parse_nodeclaim, {"workspace": lambda claim: workspace_of(claim.labels)})
        self.nodes = Table[Node](
            parse_node,
            {"workspace": lambda node: workspace_of(node.labels), "free": lambda node: "free" if is_free(node) else ""},
        )
        self.stateful_sets = Table[Workload](parse_stateful_set, {})
        self.jobs = Table[Workload](parse_job, {})

    @property
    def synced(self) -> bool:
        """Tell whether all that decisions rest on was listed once."""
        tables = (self.workspaces, self.claims, self.nodes, self.stateful_sets, self.jobs)
        return all(table.listed for table in tables)

    def claims_of(self, workspace: Workspace) -> tuple[NodeClaim, ...]:
        """Return the claims that carry the Workspace's labels, and were not made for an earlier one of its name."""
        return tuple(claim for claim in self.claims.find("workspace", workspace.key) if is_claim_of(workspace, claim))

    def nodes_for(self, workspace: Workspace) -> tuple[Node, ...]:
        """Return the Nodes that carry the Workspace's labels, and those that nobody has."""
        return (*self.nodes.find("workspace", workspace.key), *self.nodes.find("free", "free"))

    def workload_of(self, workspace: Workspace) -> Workload | None:
        """Return the StatefulSet or Job of the Workspace."""
        table = self.jobs if workspace.tuning is not None else self.stateful_sets
        found = table.items.get(workspace.key)
        # By labels and name alone it may be somebody else's, or an earlier Workspace's of that name.
        return found if found is not None and found.owner == workspace.uid else None

    def forget(self, doomed: Doomed) -> None:
        """Drop an object that was found gone."""
        key = f"{doomed.namespace}/{doomed.name}"
        if doomed.kind is NODE_CLAIM:
            self.claims.remove(doomed.name, doomed.uid)
        elif doomed.kind is STATEFUL_SET:
            self.stateful_sets.remove(key, doomed.uid)
        elif doomed.kind is JOB:
            self.jobs.remove(key, doomed.uid)


def workspace_of(labels: Mapping[str, str]) -> str:
    """Return the key of the Workspace that labels name, empty where they name none."""
    name, namespace = labels.get(names.WORKSPACE_LABEL), labels.get(names.WORKSPACE_NAMESPACE_LABEL)
    return f"{namespace}/{name}" if name and namespace else ""


def is_claim_of(workspace: Workspace, claim: NodeClaim) -> bool:
    """Tell whether the claim is the Workspace's: by its labels, and not made for an earlier one of its name."""
    uid = claim.annotations.get(names.WORKSPACE_UID_ANNOTATION, workspace.uid)
    return workspace_of(claim.labels) == workspace.key and uid == workspace.uid


def is_free(node: Node) -> bool:
    """Tell whether a Node was brought by somebody and is no Workspace's."""
    return names.NODEPOOL_LABEL not in node.labels and not any(
        label in node.labels for label in names.KAITO_OWNER_LABELS
    )


def is_ours(raw: Mapping[str, Any]) -> bool:
    """Tell whether an object is a Workspace's, by its labels: of StatefulSets and Jobs most are somebody else's."""
    labels = (raw.get("metadata") or {}).get("labels") or {}
    return bool(workspace_of(labels))
