"""What becomes of claims, measured under Karpenter's names, so that its dashboards and alerts work here too.

Names, types and labels: https://karpenter.sh/docs/reference/metrics/ and awslabs/operatorpkg (`status`,
`operator_nodeclaim_*`). What only Karpenter's own scheduler and node pools have is left out: claims are written by
others.
"""

import platform
import re
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from typing import Final, Literal

from provisioner import __version__
from provisioner.apis import names
from provisioner.apis.conditions import INSTANCE_TERMINATING, Condition
from provisioner.apis.durations import parse_duration
from provisioner.apis.failure import Failure
from provisioner.apis.nodeclaim import NodeClaim
from provisioner.kube.metrics import MAX_OBJECT_SERIES, Registry
from provisioner.nodeclaim.policy import concerns_offer

# Karpenter's label for the kind of a NodeClaim's node class, in the spelling of Prometheus.
_NODE_CLASS: Final = "kaito_sh_kaitonodeclass"
_NODE_POOL: Final = "karpenter_sh_nodepool"
_PROVIDER_LABELS: Final = ("controller", "method", "provider")
_TRANSITION_BUCKETS: Final = tuple(0.5 * 2**n for n in range(15))
_TERMINATION_BUCKETS: Final = tuple(float(2**n) for n in range(12))
_INSTANCE_TERMINATION_BUCKETS: Final = tuple(float(2**n) for n in range(11))
# Of every metric that says why a claim was taken down; see `disruption`.
DISRUPTION_LABELS: Final = ("reason", "nodepool", "capacity_type", "consolidation_policy", "termination_mode")


class ClaimMetrics:
    """Counts what happens to claims; the gauges are taken from the claims that there are when somebody scrapes."""

    def __init__(
        self, registry: Registry, *, claims: Callable[[], Iterable[NodeClaim]], now: Callable[[], datetime]
    ) -> None:
        self._claims = claims
        self._now = now
        build = registry.gauge(
            "karpenter_build_info", text="1, by version of this controller.", labels=("version", "goversion", "goarch")
        )
        build.set(1, version=__version__, goversion=f"python{platform.python_version()}", goarch=platform.machine())
        self._transitions = registry.counter(
            "operator_nodeclaim_status_condition_transitions_total",
            text="Changes of a condition's status, by the status and reason that it has changed to.",
            labels=("type", "status", "reason"),
        )
        self._transition_seconds = registry.histogram(
            "operator_nodeclaim_status_condition_transition_seconds",
            text="Seconds that a condition had the status which it has left.",
            labels=("type", "status"),
            buckets=_TRANSITION_BUCKETS,
        )
        self._count = registry.gauge(
            "operator_nodeclaim_status_condition_count",
            text="1 for each condition of each claim as it stands.",
            labels=("namespace", "name", "type", "status", "reason", _NODE_CLASS, _NODE_POOL),
            limit=MAX_OBJECT_SERIES,
        )
        self._current = registry.gauge(
            "operator_nodeclaim_status_condition_current_status_seconds",
            text="Seconds since a condition has its status.",
            labels=("namespace", "name", "type", "status", "reason", _NODE_CLASS, _NODE_POOL),
            limit=MAX_OBJECT_SERIES,
        )
        self._terminating = registry.gauge(
            "operator_nodeclaim_termination_current_time_seconds",
            text="Seconds since the deletion of a claim that is still there.",
            labels=("namespace", "name"),
            limit=MAX_OBJECT_SERIES,
        )
        self._terminated = registry.counter(
            "karpenter_nodeclaims_terminated_total",
            text="Claims that are gone with all that stood for them.",
            labels=("nodepool", "capacity_type", "zone"),
        )
        self._termination_seconds = registry.histogram(
            "karpenter_nodeclaims_termination_duration_seconds",
            text="Seconds from a claim's deletion until nothing is left of it.",
            labels=("nodepool",),
            buckets=_TERMINATION_BUCKETS,
        )
        self._terminated_seconds = registry.histogram(
            "operator_nodeclaim_termination_duration_seconds",
            text="Seconds from a claim's deletion until it was gone.",
            labels=(_NODE_CLASS, _NODE_POOL),
            buckets=_TRANSITION_BUCKETS,
        )
        self._instance_seconds = registry.histogram(
            "karpenter_nodeclaims_instance_termination_duration_seconds",
            text="Seconds from the request to delete a claim's agent pool until it was gone.",
            labels=("nodepool",),
            buckets=_INSTANCE_TERMINATION_BUCKETS,
        )
        self._disrupted = registry.counter(
            "karpenter_nodeclaims_disrupted_total",
            text="Claims that this controller has deleted itself, by reason.",
            labels=DISRUPTION_LABELS,
        )
        self._unhealthy = registry.counter(
            "karpenter_nodeclaims_unhealthy_disrupted_total",
            text="Claims that this controller has deleted because their Node was not well, by the Node's condition.",
            labels=("condition", "nodepool", "capacity_type", "image_id"),
        )
        self._provider_seconds = registry.histogram(
            "karpenter_cloudprovider_duration_seconds",
            text="Seconds until Azure has answered a request for an agent pool.",
            labels=_PROVIDER_LABELS,
        )
        self._provider_errors = registry.counter(
            "karpenter_cloudprovider_errors_total",
            text="Requests for agent pools that Azure has refused.",
            labels=(*_PROVIDER_LABELS, "error"),
        )
        registry.before_scrape(self._take_stock)

    def asked(self, method: Literal["Create", "Delete"], *, seconds: float, failure: Failure | None) -> None:
        """Count a request to Azure, and its failure if there was one."""
        labels = {"controller": "nodeclaim.lifecycle", "method": method, "provider": "azure"}
        self._provider_seconds.observe(seconds, **labels)
        if failure is not None:
            # Karpenter has a name for a lack of quota, capacity or permission to use a size, and for nothing else.
            error = "InsufficientCapacityError" if method == "Create" and concerns_offer(failure) else ""
            self._provider_errors.inc(**labels, error=error)

    def written(self, before: NodeClaim, after: NodeClaim) -> None:
        """Count what a write to a claim's status has changed."""
        old = {condition.type: condition for condition in before.conditions}
        for condition in after.conditions:
            was = old.get(condition.type)
            if was is not None and was.status == condition.status:
                continue
            self._transitions.inc(type=condition.type, status=condition.status, reason=condition.reason)
            if was is not None:
                seconds = (condition.last_transition - was.last_transition).total_seconds()
                self._transition_seconds.observe(max(seconds, 0.0), type=condition.type, status=was.status)

    def released(self, claim: NodeClaim) -> None:
        """Count a claim that is gone."""
        nodepool = claim.labels.get(names.NODEPOOL_LABEL, "")
        self._terminated.inc(
            nodepool=nodepool,
            capacity_type=claim.labels.get(names.CAPACITY_TYPE_LABEL, ""),
            zone=claim.labels.get(names.ZONE_LABEL, ""),
        )
        if claim.deleted is not None:
            seconds = max((self._now() - claim.deleted).total_seconds(), 0.0)
            self._termination_seconds.observe(seconds, nodepool=nodepool)
            self._terminated_seconds.observe(seconds, **{_NODE_CLASS: claim.node_class.name, _NODE_POOL: nodepool})
        asked = next((c for c in claim.conditions if c.type == INSTANCE_TERMINATING and c.status == "True"), None)
        if asked is not None:
            seconds = (self._now() - asked.last_transition).total_seconds()
            self._instance_seconds.observe(max(seconds, 0.0), nodepool=nodepool)

    def disrupted(self, claim: NodeClaim, *, reason: str) -> None:
        """Count a claim that is deleted by us; `reason` is one of Karpenter's, such as `garbage_collected`."""
        self._disrupted.inc(**disruption(claim, reason=reason))

    def unhealthy(self, claim: NodeClaim, *, condition: str, image_id: str) -> None:
        """Count a claim that is deleted by us for a condition of its Node, besides `disrupted`."""
        self._unhealthy.inc(
            condition=_snake_case(condition),
            nodepool=claim.labels.get(names.NODEPOOL_LABEL, ""),
            capacity_type=claim.labels.get(names.CAPACITY_TYPE_LABEL, ""),
            image_id=image_id,
        )

    def _take_stock(self) -> None:
        now = self._now()
        for gauge in (self._count, self._current, self._terminating):
            gauge.clear()
        for claim in self._claims():
            if not claim.is_managed:
                continue
            for condition, labels in _conditions(claim):
                self._count.set(1, **labels)
                self._current.set(max((now - condition.last_transition).total_seconds(), 0.0), **labels)
            if claim.deleted is not None:
                self._terminating.set(max((now - claim.deleted).total_seconds(), 0.0), namespace="", name=claim.name)


def disruption(claim: NodeClaim, *, reason: str) -> dict[str, str]:
    """Return the values of `DISRUPTION_LABELS`; only node pools have a policy to consolidate."""
    return {
        "reason": reason,
        "nodepool": claim.labels.get(names.NODEPOOL_LABEL, ""),
        "capacity_type": claim.labels.get(names.CAPACITY_TYPE_LABEL, ""),
        "consolidation_policy": "",
        "termination_mode": _termination_mode(claim),
    }


def _termination_mode(claim: NodeClaim) -> Literal["graceful", "eventual", "forceful"]:
    period = parse_duration(claim.spec.termination_grace_period) if claim.spec else None
    if period is None:
        return "graceful"
    return "eventual" if period else "forceful"


def _snake_case(name: str) -> str:
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()


def _conditions(claim: NodeClaim) -> Iterator[tuple[Condition, dict[str, str]]]:
    for condition in claim.conditions:
        yield (
            condition,
            {
                "namespace": "",
                "name": claim.name,
                "type": condition.type,
                "status": condition.status,
                "reason": condition.reason,
                _NODE_CLASS: claim.node_class.name,
                _NODE_POOL: claim.labels.get(names.NODEPOOL_LABEL, ""),
            },
        )
