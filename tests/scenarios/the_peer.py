"""Claims and their Nodes as Azure/gpu-provisioner leaves them in each stage, written as it writes them."""

from collections.abc import Mapping
from typing import Any, Final

from tests.claims import kaito_claim
from tests.kube import CLAIMS, NODES, Kube, Object, eventually

FINALIZER: Final = "karpenter.sh/termination"
_KAITOS: Final = ("kaito.sh/workspace", "kaito.sh/workspacenamespace")


async def write_as_the_peer_found_it(kube: Kube, name: str, *, is_kaitos: bool = True) -> Object:
    """Write a claim and give it the peer's finalizer, which it adds before it asks for a pool.

    One that is not KAITO's has no label of KAITO's, and is served for its nodeClassRef alone.
    """
    body = kaito_claim(name)
    if not is_kaitos:
        for label in _KAITOS:
            del body["metadata"]["labels"][label]
    written = await kube.create(CLAIMS, body)
    await kube.patch(CLAIMS, name, {"metadata": {"finalizers": [FINALIZER]}})
    return written


async def wait_gpu_node(kube: Kube, pool: str) -> Object:
    """Wait until the pool's Node is there with its GPU, and return it."""

    async def nodes() -> list[Object]:
        return [n for n in await kube.nodes_of_pool(pool) if n["status"]["allocatable"].get("nvidia.com/gpu") == "1"]

    (node,) = await eventually(nodes, what=f"the GPU node of {pool}")
    return node


async def finish_as_the_peer(kube: Kube, name: str) -> None:
    """Write to Node and claim what the peer has written once the claim is Ready."""
    claim = await kube.claim(name)
    assert claim is not None
    node = await wait_gpu_node(kube, name)
    owner = {"apiVersion": "karpenter.sh/v1", "kind": "NodeClaim", "name": name, "uid": claim["metadata"]["uid"]}
    labels = {"karpenter.sh/registered": "true", "karpenter.sh/initialized": "true", **claim["metadata"]["labels"]}
    metadata = {"finalizers": [FINALIZER], "labels": labels, "ownerReferences": [{**owner, "blockOwnerDeletion": True}]}
    await kube.patch(NODES, node["metadata"]["name"], {"metadata": metadata})
    conditions = [
        _condition(claim, kind, "True", kind, "") for kind in ("Launched", "Registered", "Initialized", "Ready")
    ]
    status = {"providerID": node["spec"]["providerID"], "nodeName": node["metadata"]["name"], "conditions": conditions}
    await kube.patch(CLAIMS, f"{name}/status", {"status": status})


async def fail_as_the_peer(kube: Kube, name: str, message: str) -> None:
    """Write to the claim what the peer writes when Azure refuses its pool, or fails at it: the error, cut off."""
    claim = await kube.claim(name)
    assert claim is not None
    waits = ("AwaitingReconciliation", "object is awaiting reconciliation")
    conditions = [
        _condition(claim, "Launched", "Unknown", "LaunchFailed", message),
        *(_condition(claim, kind, "Unknown", *waits) for kind in ("Registered", "Initialized")),
        _condition(claim, "Ready", "Unknown", *waits),
    ]
    await kube.patch(CLAIMS, f"{name}/status", {"status": {"conditions": conditions}})


async def begin_to_delete_as_the_peer(kube: Kube, name: str) -> None:
    """Delete a claim and its Node, and keep pods away from it, as the peer does before it asks Azure."""
    await kube.delete(CLAIMS, name)
    (node,) = await kube.nodes_of_pool(name)
    await kube.delete(NODES, node["metadata"]["name"])
    taints = [*node["spec"].get("taints", ()), {"key": "karpenter.sh/disrupted", "effect": "NoSchedule"}]
    labels = {"node.kubernetes.io/exclude-from-external-load-balancers": "karpenter"}
    patch = {"metadata": {"labels": labels}, "spec": {"taints": taints}}
    await kube.patch(NODES, node["metadata"]["name"], patch)


def _condition(claim: Mapping[str, Any], kind: str, status: str, reason: str, message: str) -> Object:
    return {
        "type": kind,
        "status": status,
        "reason": reason,
        "message": message,
        "lastTransitionTime": claim["metadata"]["creationTimestamp"],
        "observedGeneration": 1,
    }
