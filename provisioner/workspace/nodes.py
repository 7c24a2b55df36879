"""The Nodes of a Workspace: which are its own, which brought ones it takes, which NodeClaims it writes. Pure.

A Node is a Workspace's where it carries the Workspace's two labels and nothing else decides: counting, scheduling and
deleting go by that alone. Nodes of NodeClaims get the labels from their claim; a Node that somebody brought is given
them when it is taken, and loses them when the Workspace goes.
"""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final

from provisioner.apis import names
from provisioner.apis.conditions import READY
from provisioner.apis.node import Node
from provisioner.apis.nodeclaim import NodeClaim
from provisioner.apis.taints import Taint
from provisioner.apis.workspace import SelectorRequirement, Workspace
from provisioner.placement.size import Sizes
from provisioner.workspace import pods
from provisioner.workspace.view import Sizing

# What KAITO calls the pool of its claims; no NodePool of that name exists.
_NODE_POOL: Final = "kaito"
_IMAGE_FAMILIES: Final = ("ubuntu", "azurelinux")
_TAINT: Final = {"key": "sku", "value": "gpu", "effect": "NoSchedule"}


@dataclass(frozen=True, kw_only=True)
class Holdings:
    """What a Workspace has of Nodes and claims, and what it lacks.

    `ready` are its own Nodes that can run a pod of it, `unready` those that cannot yet. `alive` are claims that nobody
    has deleted. `taken` are brought Nodes that are to be labelled now, `missing` the bodies of claims that are to be
    created, `surplus` claims that are of no use.
    """

    ready: tuple[Node, ...]
    unready: tuple[Node, ...]
    alive: tuple[NodeClaim, ...]
    going: tuple[NodeClaim, ...]
    taken: tuple[Node, ...]
    missing: tuple[dict[str, Any], ...]
    surplus: tuple[NodeClaim, ...]


def hold(
    workspace: Workspace,
    *,
    sizing: Sizing,
    claims: Iterable[NodeClaim],
    nodes: Iterable[Node],
    writes_claims: bool = True,
) -> Holdings:
    """Return what the Workspace has and lacks. With `writes_claims` False it runs on brought Nodes alone."""
    claims = tuple(claims)
    alive = tuple(claim for claim in claims if not claim.is_deleting)
    going = tuple(claim for claim in claims if claim.is_deleting)
    mine, free = _sort(workspace, sizing, nodes)
    brought = [node for node in mine if is_brought(node, claims)]
    lacking = sizing.nodes - len(brought) - len(alive)
    taken = tuple(free[: max(lacking, 0)]) if writes_claims or len(free) >= lacking else ()
    lacking -= len(taken)
    missing: tuple[dict[str, Any], ...] = ()
    if writes_claims and lacking > 0:
        used = {claim.name for claim in claims}
        fresh = (name for index in range(len(used) + lacking) if (name := claim_name(workspace, index)) not in used)
        missing = tuple(render_claim(workspace, sizing, name) for _, name in zip(range(lacking), fresh, strict=False))
    return Holdings(
        ready=tuple(node for node in mine if can_run(node, sizing)),
        unready=tuple(node for node in mine if not can_run(node, sizing)),
        alive=alive,
        going=going,
        taken=taken,
        missing=missing,
        surplus=_surplus(alive, extra=-lacking),
    )


def is_own(workspace: Workspace, node: Node) -> bool:
    """Tell whether the Node is the Workspace's."""
    return (
        node.labels.get(names.WORKSPACE_LABEL) == workspace.name
        and node.labels.get(names.WORKSPACE_NAMESPACE_LABEL) == workspace.namespace
    )


def is_brought(node: Node, claims: Iterable[NodeClaim]) -> bool:
    """Tell whether somebody has brought the Node: it is of no NodePool, nor of one of these claims."""
    return names.NODEPOOL_LABEL not in node.labels and not any(
        claim.node_name == node.name or (claim.provider_id and claim.provider_id == node.provider_id)
        for claim in claims
    )


def can_run(node: Node, sizing: Sizing) -> bool:
    """Tell whether a pod of the Workspace can run there: the Node is ready and offers the GPUs."""
    if node.is_deleting or not node.is_ready:
        return False
    return not sizing.gpus or node.allocatable_of(sizing.gpu_resource) >= Decimal(sizing.gpus)


def is_ready(claim: NodeClaim) -> bool:
    """Tell whether a claim has its Node, of whatever provisioner: by its root condition, else by the Node's name."""
    root = next((condition for condition in claim.conditions if condition.type == READY), None)
    if claim.is_deleting:
        return False
    return root.status == "True" if root is not None else bool(claim.node_name)


def claim_name(workspace: Workspace, index: int) -> str:
    """Return the name of one of the Workspace's claims: the same after a crash, an AKS agent pool's at its length."""
    digest = hashlib.sha256(f"{workspace.uid}/{index}".encode()).hexdigest()
    return f"ws{digest[:9]}"


def render_claim(workspace: Workspace, sizing: Sizing, name: str) -> dict[str, Any]:
    """Return a NodeClaim as KAITO writes it, so that any provisioner that serves KAITO serves it."""
    sizes = list(sizing.instance_types)
    family = workspace.annotations.get(names.NODE_IMAGE_FAMILY_ANNOTATION, "").lower()
    chosen = {key: value for key, value in _selected_labels(workspace).items() if not pods.is_reserved(key)}
    return {
        "apiVersion": names.NODECLAIM_API_VERSION,
        "kind": names.NODECLAIM_KIND,
        "metadata": {
            "name": name,
            "labels": {
                names.NODEPOOL_LABEL: _NODE_POOL,
                **chosen,
                names.WORKSPACE_LABEL: workspace.name,
                names.WORKSPACE_NAMESPACE_LABEL: workspace.namespace,
            },
            "annotations": {
                names.DO_NOT_DISRUPT_ANNOTATION: "true",
                names.NODE_IMAGE_FAMILY_ANNOTATION: family if family in _IMAGE_FAMILIES else _IMAGE_FAMILIES[0],
                names.WORKSPACE_UID_ANNOTATION: workspace.uid,
            },
        },
        "spec": {
            "nodeClassRef": {
                "group": names.KAITO_GROUP,
                "kind": names.NODECLASS_KIND,
                "name": workspace.annotations.get(names.NODE_CLASS_NAME_ANNOTATION) or names.DEFAULT_NODECLASS,
            },
            "taints": [dict(_TAINT)],
            "requirements": [
                {"key": names.NODEPOOL_LABEL, "operator": "In", "values": [_NODE_POOL]},
                {"key": names.INSTANCE_TYPE_LABEL, "operator": "In", "values": sizes},
                {"key": names.OS_LABEL, "operator": "In", "values": ["linux"]},
                {"key": names.SKU_NAME_LABEL, "operator": "In", "values": sizes},
            ],
            "resources": {"requests": {names.STORAGE: f"{sizing.disk_gib}Gi"}},
            # The CRD would write thirty days, after which Karpenter takes the Node from under a running model.
            "expireAfter": "Never",
        },
    }


def brought_type(workspace: Workspace, nodes: Iterable[Node], *, sizes: Sizes) -> str:
    """Return the VM size of Nodes that somebody has brought for the Workspace, empty where nobody has.

    For a model only those with GPUs count: a selector may choose all Nodes that there are.
    """
    needs_gpus = workspace.inference is None or workspace.inference.template is None
    for node in sorted(nodes, key=lambda node: node.name):
        found = node.labels.get(names.INSTANCE_TYPE_LABEL, "")
        if names.NODEPOOL_LABEL in node.labels or node.is_deleting or not found:
            continue
        size = sizes.find(found)
        has_gpus = names.NVIDIA_GPU in node.capacity or (size is not None and size.gpu_count > 0)
        if (is_own(workspace, node) or _is_brought(workspace, node)) and (has_gpus or not needs_gpus):
            return found
    return ""


def matches(workspace: Workspace, node: Node) -> bool:
    """Tell whether the Workspace's label selector chooses the Node."""
    selector = workspace.resource.label_selector
    wanted = {key: value for key, value in selector.match_labels.items() if not pods.is_reserved(key)}
    if any(node.labels.get(key) != value for key, value in wanted.items()):
        return False
    return all(
        _holds(expression, node) for expression in selector.match_expressions if not pods.is_reserved(expression.key)
    )


def _sort(workspace: Workspace, sizing: Sizing, nodes: Iterable[Node]) -> tuple[list[Node], list[Node]]:
    """Return the Workspace's own Nodes, and brought ones that are free to be taken, each by name."""
    sizes = {size.lower() for size in sizing.instance_types}
    mine, free = [], []
    for node in sorted(nodes, key=lambda node: node.name):
        if is_own(workspace, node):
            if not node.is_deleting:
                mine.append(node)
        elif (
            _is_brought(workspace, node)
            and node.labels.get(names.INSTANCE_TYPE_LABEL, "").lower() in sizes
            and can_run(node, sizing)
            and _is_tolerated(workspace, node)
        ):
            free.append(node)
    return mine, free


def _is_brought(workspace: Workspace, node: Node) -> bool:
    # Without a selector of its own a Workspace takes nobody's Nodes: every one would do.
    has_selector = bool(pods.selector(workspace))
    return (
        has_selector
        and matches(workspace, node)
        and names.NODEPOOL_LABEL not in node.labels
        and not any(label in node.labels for label in names.KAITO_OWNER_LABELS)
    )


def _is_tolerated(workspace: Workspace, node: Node) -> bool:
    template = workspace.inference.template if workspace.inference else None
    tolerations = pods.scheduled(workspace, (template or {}).get("spec") or {})["tolerations"]
    return all(
        any(_tolerates(toleration, taint) for toleration in tolerations)
        for taint in node.taints
        if taint.effect != "PreferNoSchedule"
    )


def _tolerates(toleration: Mapping[str, Any], taint: Taint) -> bool:
    """Tell whether a toleration is for that taint; what it leaves out is any, and its operator Equal."""
    if toleration.get("key") not in (None, "", taint.key) or toleration.get("effect") not in (None, "", taint.effect):
        return False
    return toleration.get("operator") == "Exists" or (
        toleration.get("key") == taint.key and (toleration.get("value") or "") == taint.value
    )


def _surplus(alive: tuple[NodeClaim, ...], *, extra: int) -> tuple[NodeClaim, ...]:
    """Return claims beyond what is needed, newest first, but none that has its Node: pods may run there."""
    if extra <= 0:
        return ()
    idle = [claim for claim in alive if not is_ready(claim)]
    newest = sorted(idle, key=lambda claim: (claim.created, claim.name), reverse=True)
    return tuple(newest[:extra])


def _selected_labels(workspace: Workspace) -> dict[str, str]:
    """Return labels with which a Node is what the selector wants; what it must not have, it does not get."""
    selector = workspace.resource.label_selector
    # Exists has no values: any value will do.
    single = {
        expression.key: expression.values[0] if expression.values else ""
        for expression in selector.match_expressions
        if expression.operator in ("In", "Exists")
    }
    return {**single, **selector.match_labels}


def _holds(expression: SelectorRequirement, node: Node) -> bool:
    value = node.labels.get(expression.key)
    match expression.operator:
        case "In":
            return value in expression.values
        case "NotIn":
            return value not in expression.values
        case "Exists":
            return value is not None
        case "DoesNotExist":
            return value is None
    return False
