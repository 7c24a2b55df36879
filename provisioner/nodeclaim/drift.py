"""Drift: a node that is not what it would be if it was made now. It is told of, and where that is wished replaced."""

from collections.abc import Callable
from datetime import timedelta
from typing import Final

from provisioner.apis import names
from provisioner.apis.agentpool import AgentPool
from provisioner.apis.conditions import DRIFTED, INITIALIZED
from provisioner.apis.node import Node
from provisioner.apis.versions import is_older_image, is_older_kubernetes
from provisioner.nodeclaim.nodeclass import HASH_VERSION, hash_annotations
from provisioner.nodeclaim.view import Draft, Notice, View, stored

# As Karpenter's provider for Azure calls them.
CLASS_DRIFT: Final = "NodeClassDrift"
VERSION_DRIFT: Final = "K8sVersionDrift"
IMAGE_DRIFT: Final = "ImageDrift"
REASONS: Final = frozenset({CLASS_DRIFT, VERSION_DRIFT, IMAGE_DRIFT})

# As Karpenter's metrics name it.
DELETED_AS: Final = "drifted"

# A claim that waits for its turn looks for it; nobody tells it.
_TURN_AGAIN: Final = timedelta(seconds=5)
_SOON: Final = timedelta(seconds=1)

# What a check answers: in what the node differs, an empty string where it does not, None where that is not known now.
_Finding = str | None


def compare(view: View, draft: Draft) -> None:
    """Say on the condition Drifted in what the claim's node differs from one made now; take it out where in nothing.

    What was said stays while its ground cannot be checked: it would come and go with every restart. Never part of
    Ready: a node that has drifted works as well as before.
    """
    conditions = draft.conditions
    if not conditions.is_true(INITIALIZED):
        return
    _annotate_anew(view, draft)
    old = stored(view, DRIFTED)
    for reason, check in _CHECKS:
        finding = check(view)
        if finding:
            conditions.set_true(DRIFTED, reason=reason, message=finding)
            _replace(view, draft, reason=reason, message=finding)
            return
        if finding is None and old is not None and old.reason == reason:
            conditions.observe(DRIFTED)
            return
    if old is not None and old.reason in REASONS:
        conditions.clear(DRIFTED)


def _annotate_anew(view: View, draft: Draft) -> None:
    """Take the class as it is for what it was, where the claim's hash comes of another rule; Karpenter does so too."""
    annotations = view.claim.annotations
    if (
        view.target.class_hash
        and names.NODECLASS_HASH_ANNOTATION in annotations
        and annotations.get(names.NODECLASS_HASH_VERSION_ANNOTATION) != HASH_VERSION
    ):
        draft.annotations |= hash_annotations(view.target.class_hash)


def _check_class(view: View) -> _Finding:
    now = view.target.class_hash
    if now is None:
        return None
    annotations = view.claim.annotations
    then = annotations.get(names.NODECLASS_HASH_ANNOTATION)
    # A claim without one was launched by an earlier version, or by Azure/gpu-provisioner, which knows no class.
    if not now or not then or annotations.get(names.NODECLASS_HASH_VERSION_ANNOTATION) != HASH_VERSION or now == then:
        return ""
    return (
        f"{names.NODECLASS_KIND} {view.claim.class_name} has changed since the agent pool was made (hash {then}; it is "
        f"{now} now). A new claim gets a node as the class is."
    )


def _check_version(view: View) -> _Finding:
    pool, node, newest = _settled_pool(view), _node(view), view.target.kubernetes_version
    if pool is None or node is None or not pool.kubernetes_version or not newest:
        return None
    if not is_older_kubernetes(pool.kubernetes_version, newest):
        return ""
    return (
        f"Kubernetes {pool.kubernetes_version} on the node; the cluster's control plane runs {newest}. A new claim "
        "gets that, and so does an upgrade of the agent pool."
    )


def _check_image(view: View) -> _Finding:
    newest = view.target.node_image
    if newest is None:
        return ""
    pool, node = _settled_pool(view), _node(view)
    if pool is None or node is None or not newest:
        return None
    running = node.labels.get(names.AKS_NODE_IMAGE_VERSION_LABEL) or pool.node_image_version
    if not is_older_image(running, newest):
        return ""
    return (
        f"Node image {running}; the pool's newest is {newest}. A new claim gets that, and so does an upgrade of the "
        "agent pool's node image."
    )


# One reason at a time, as in Karpenter: first what its author has changed, last what Azure brings every week.
_CHECKS: Final[tuple[tuple[str, Callable[[View], _Finding]], ...]] = (
    (CLASS_DRIFT, _check_class),
    (VERSION_DRIFT, _check_version),
    (IMAGE_DRIFT, _check_image),
)


def _settled_pool(view: View) -> AgentPool | None:
    """Return the claim's pool, None while it is not known or Azure works on it: an upgrade ends by itself."""
    pool = view.pools.lookup(view.pool_name)
    if view.pools.failure is not None or not isinstance(pool, AgentPool) or not view.owns(pool):
        return None
    return pool if pool.is_succeeded or pool.is_failed else None


def _node(view: View) -> Node | None:
    return next((node for node in view.joined_nodes if not node.is_deleting), None)


def _replace(view: View, draft: Draft, *, reason: str, message: str) -> None:
    """Have the claim deleted, where that is wished for and it is its turn, so that its author writes it anew.

    Only what the claim says already: whoever watches has read it by then, and the turn is looked for only then.
    """
    if not view.replaces_drifted or _is_kept(view) or view.class_problem is not None:
        # Nothing is made of a class that cannot be used: the claim would go, and nothing come.
        return
    if not view.is_node_class_known:
        draft.look_again(_TURN_AGAIN)
        return
    old = stored(view, DRIFTED)
    if old is None or old.reason != reason:
        draft.look_again(_SOON)
        return
    if view.is_replacing_another or _settled_pool(view) is None:
        draft.look_again(_TURN_AGAIN)
        return
    draft.delete_claim = DELETED_AS
    draft.notices.append(
        Notice(
            reason="DriftReplaced",
            message=f"Deleting the claim to have it replaced ({reason}). {message}",
            is_warning=True,
        )
    )


def _is_kept(view: View) -> bool:
    """Tell whether the claim or a Node of it must not be disrupted; KAITO writes so on all of its claims."""
    annotations = (view.claim.annotations, *(node.annotations for node in view.joined_nodes))
    return any(each.get(names.DO_NOT_DISRUPT_ANNOTATION) == "true" for each in annotations)
