"""Claims for tests, as their clients write them."""

from typing import Any

A100 = "Standard_NC24ads_A100_v4"


def kaito_claim(
    name: str, *, instance_type: str = A100, storage: str | None = "87Gi", **metadata: dict[str, str]
) -> dict[str, Any]:
    """Return a claim as KAITO writes it; `labels` and `annotations` are added to its own."""
    requests = {"storage": storage} if storage is not None else {}
    return {
        "apiVersion": "karpenter.sh/v1",
        "kind": "NodeClaim",
        "metadata": {
            "name": name,
            "labels": {
                "apps": "phi-4",
                "kaito.sh/workspace": "workspace-phi-4-mini",
                "kaito.sh/workspacenamespace": "default",
                "karpenter.sh/nodepool": "kaito",
                **metadata.get("labels", {}),
            },
            "annotations": {
                "kaito.sh/node-image-family": "ubuntu",
                "karpenter.sh/do-not-disrupt": "true",
                **metadata.get("annotations", {}),
            },
        },
        "spec": {
            "expireAfter": "Never",
            "nodeClassRef": {"group": "kaito.sh", "kind": "KaitoNodeClass", "name": "default"},
            "requirements": [
                {"key": "karpenter.sh/nodepool", "operator": "In", "values": ["kaito"]},
                {"key": "node.kubernetes.io/instance-type", "operator": "In", "values": [instance_type]},
                {"key": "kubernetes.io/os", "operator": "In", "values": ["linux"]},
                {"key": "karpenter.azure.com/sku-name", "operator": "In", "values": [instance_type]},
            ],
            "resources": {"requests": requests},
            "taints": [{"key": "sku", "value": "gpu", "effect": "NoSchedule"}],
        },
    }
