"""What becomes of Nodes and of their pods, measured under Karpenter's names.

Names, types, labels and buckets: https://karpenter.sh/docs/reference/metrics/. Labels of Nodes that would always be
empty here are left out: for Prometheus, a label without a value is none.
"""

from collections.abc import Callable, Iterable
from datetime import datetime
from typing import Final

from provisioner.apis import names
from provisioner.apis.node import Node
from provisioner.apis.nodeclaim import NodeClaim
from provisioner.apis.pod import Pod
from provisioner.kube.metrics import MAX_OBJECT_SERIES, Registry
from provisioner.nodeclaim.metrics import DISRUPTION_LABELS, disruption

_MINUTE: Final = 60.0
_HOUR: Final = 60 * _MINUTE
_DAY: Final = 24 * _HOUR
_LIFETIME_BUCKETS: Final = (
    *(minutes * _MINUTE for minutes in (15, 30, 45)),
    *(hours * _HOUR for hours in (1, 2, 4, 6, 8, 10, 12, 16, 20)),
    *(days * _DAY for days in (1, 2, 3, 5, 10, 15, 20, 25, 30)),
)
_QUANTILES: Final = (0.0, 0.5, 0.9, 0.99, 1.0)
# Karpenter's labels of a Node, each for a label that the Node itself has.
_NODE_LABELS: Final = {
    "arch": names.ARCH_LABEL,
    "capacity_type": names.CAPACITY_TYPE_LABEL,
    "instance_type": names.INSTANCE_TYPE_LABEL,
    "nodepool": names.NODEPOOL_LABEL,
    "os": names.OS_LABEL,
    "region": names.REGION_LABEL,
    "zone": names.ZONE_LABEL,
}
# Resources that every Node lists and nobody here asks for: most of the lines would be about nothing.
_LEFT_OUT: Final = ("hugepages-", "attachable-volumes-")


class NodeMetrics:
    """Counts what happens to Nodes and pods; the gauges are taken from our Nodes as they are when somebody scrapes."""

    def __init__(self, registry: Registry, *, nodes: Callable[[], Iterable[Node]], now: Callable[[], datetime]) -> None:
        """Take what gives the Nodes of our claims."""
        self._nodes = nodes
        self._now = now
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
        self._pods_disrupted = registry.counter(
            "karpenter_pods_disruption_initiated_total",
            text="Pods that had to find another Node because this controller has deleted their claim.",
            labels=DISRUPTION_LABELS,
        )
        self._created = registry.counter(
            "karpenter_nodes_created_total", text="Nodes that have registered.", labels=("nodepool", "zone")
        )
        self._terminated = registry.counter(
            "karpenter_nodes_terminated_total", text="Nodes that were taken down.", labels=("nodepool", "zone")
        )
        self._drained = registry.counter(
            "karpenter_nodes_drained_total", text="Nodes that were drained of their pods.", labels=("nodepool",)
        )
        self._termination_seconds = registry.summary(
            "karpenter_nodes_termination_duration_seconds",
            text="Seconds from the request to take a Node down until it was gone.",
            labels=("nodepool",),
            quantiles=_QUANTILES,
            clock=lambda: now().timestamp(),
        )
        self._lifetime_seconds = registry.histogram(
            "karpenter_nodes_lifetime_duration_seconds",
            text="Age in seconds of Nodes when they were taken down.",
            labels=("nodepool",),
            buckets=_LIFETIME_BUCKETS,
        )
        self._allocatable = registry.gauge(
            "karpenter_nodes_allocatable",
            text="What pods may have of a Node: cores, bytes, pieces.",
            labels=(*_NODE_LABELS, "node_name", "managed", "resource_type"),
            limit=MAX_OBJECT_SERIES,
        )
        self._current_lifetime = registry.gauge(
            "karpenter_nodes_current_lifetime_seconds",
            text="Age of a Node in seconds.",
            labels=(*_NODE_LABELS, "node_name", "managed"),
            limit=MAX_OBJECT_SERIES,
        )
        registry.before_scrape(self._take_stock)

    def pod_drained(self, *, reason: str) -> None:
        """Count a pod that was evicted; `reason` is why its Node is taken down."""
        self._pods_drained.inc(reason=reason)

    def eviction_answered(self, code: int) -> None:
        """Count a request for an eviction by the HTTP status of its answer."""
        self._eviction_requests.inc(code=str(code))

    def pods_disrupted(self, claim: NodeClaim, pods: Iterable[Pod], *, reason: str) -> None:
        """Count the pods of a claim that was deleted by us; `reason` is the one that the claim is counted by."""
        count = sum(_is_rescheduled(pod) for pod in pods)
        self._pods_disrupted.inc(count, **disruption(claim, reason=reason))

    def created(self, claim: NodeClaim) -> None:
        """Count the Node that has registered for the claim."""
        self._created.inc(
            nodepool=claim.labels.get(names.NODEPOOL_LABEL, ""), zone=claim.labels.get(names.ZONE_LABEL, "")
        )

    def drained(self, node: Node) -> None:
        """Count a Node that no pod has to leave any more."""
        self._drained.inc(nodepool=node.labels.get(names.NODEPOOL_LABEL, ""))

    def terminated(self, node: Node, *, since: datetime) -> None:
        """Count a Node that is gone; `since` is when it was asked to go."""
        nodepool, now = node.labels.get(names.NODEPOOL_LABEL, ""), self._now()
        self._terminated.inc(nodepool=nodepool, zone=node.labels.get(names.ZONE_LABEL, ""))
        self._termination_seconds.observe(max((now - since).total_seconds(), 0.0), nodepool=nodepool)
        self._lifetime_seconds.observe(max((now - node.created).total_seconds(), 0.0), nodepool=nodepool)

    def _take_stock(self) -> None:
        now = self._now()
        self._allocatable.clear()
        self._current_lifetime.clear()
        for node in self._nodes():
            labels = {name: node.labels.get(label, "") for name, label in _NODE_LABELS.items()}
            labels |= {"node_name": node.name, "managed": "true"}
            self._current_lifetime.set(max((now - node.created).total_seconds(), 0.0), **labels)
            for resource in node.allocatable:
                if not resource.startswith(_LEFT_OUT):
                    amount = float(node.allocatable_of(resource))
                    self._allocatable.set(amount, **labels, resource_type=resource.lower().replace("-", "_"))


def _is_rescheduled(pod: Pod) -> bool:
    """Tell whether somebody will want to run the pod elsewhere: it is at work, and of no Node's own."""
    is_at_work = not pod.is_terminal and pod.deleted is None
    return is_at_work and not (pod.is_mirror or pod.is_of_daemon_set or "Node" in pod.owner_kinds)
