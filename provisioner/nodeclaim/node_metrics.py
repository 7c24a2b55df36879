"""What becomes of Nodes and of their pods, measured under Karpenter's names.

Names, types, labels and buckets: https://karpenter.sh/docs/reference/metrics/.
"""

from provisioner.kube.metrics import Registry


class NodeMetrics:
    """Counts what happens to Nodes and pods."""

    def __init__(self, registry: Registry) -> None:
        self._pods_drained = registry.counter(
            "karpenter_pods_drained_total",
            text="Pods that were evicted from Nodes which are taken down, by the reason why those are.",
            labels=("reason",),
        )
        self._eviction_requests = registry.counter(
            "karpenter_pods_eviction_requests_total",
            text="Requests to evict a pod, by the HTTP status of the answer.",
            labels=("code",),
        )

    def pod_drained(self, *, reason: str) -> None:
        """Count a pod that was evicted; `reason` is why its Node is taken down."""
        self._pods_drained.inc(reason=reason)

    def eviction_answered(self, code: int) -> None:
        """Count a request for an eviction by the HTTP status of its answer."""
        self._eviction_requests.inc(code=str(code))
