"""core/v1 Node, as far as a provider reads it: narrow, so that a thousand of them stay small in memory."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Final

from pydantic import ValidationError

from provisioner.apis import names
from provisioner.apis.quantity import parse_quantity
from provisioner.apis.sharing import shared_texts
from provisioner.apis.taints import Taint
from provisioner.apis.times import parse_time

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
# The kubelet's word, that of AKS's node auto-repair, and that of node-problem-detector about a spot VM that Azure is
# about to take back. Everything else in the list is left out: it changes more often than anybody decides by it.
READY: Final = "Ready"
NODE_HEALTHY: Final = "kubernetes.azure.com/NodeHealthy"
PREEMPTION_SCHEDULED: Final = "PreemptionScheduled"
_CONDITIONS: Final = (READY, NODE_HEALTHY, PREEMPTION_SCHEDULED)


@dataclass(frozen=True, kw_only=True)
class NodeCondition:
    """One of the conditions that decide about a Node's health; `since` is None where the Node does not say.

    Heartbeats are not in it: a thousand of them a minute would each count as a change.
    """

    type: str
    status: str
    since: datetime | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Node:
    """A Node as last seen."""

    name: str
    uid: str
    resource_version: str
    created: datetime
    is_deleting: bool
    labels: Mapping[str, str]
    annotations: Mapping[str, str]
    finalizers: tuple[str, ...]
    owner_uids: tuple[str, ...]
    taints: tuple[Taint, ...]
    # As stored, `timeAdded` included: a patch of the list must give back what it does not mean to change.
    raw_taints: tuple[Mapping[str, Any], ...]
    provider_id: str
    conditions: tuple[NodeCondition, ...]
    capacity: Mapping[str, str]
    allocatable: Mapping[str, str]

    def condition(self, kind: str) -> NodeCondition | None:
        """Return the condition of that type, None where it is not there or not one of those that are read."""
        return next((condition for condition in self.conditions if condition.type == kind), None)

    @property
    def key(self) -> str:
        """Return the name: Nodes have no namespace."""
        return self.name

    @property
    def is_ready(self) -> bool:
        """Tell whether the kubelet reports the node as Ready."""
        ready = self.condition(READY)
        return ready is not None and ready.status == "True"

    @property
    def agent_pool(self) -> str:
        """Return the agent pool that AKS made the node for, or an empty string."""
        return self.labels.get(names.AKS_AGENT_POOL_LABEL, "")

    def allocatable_of(self, resource: str) -> Decimal:
        """Return the allocatable amount in base units; 0 where the node does not offer the resource."""
        return _amount(self.allocatable, resource)

    def capacity_of(self, resource: str) -> Decimal:
        """Return the capacity in base units; 0 where the node does not have the resource."""
        return _amount(self.capacity, resource)


def parse_node(raw: Mapping[str, Any]) -> Node:
    """Read a Node as the API server sent it. Raises KeyError where metadata lacks name or uid."""
    metadata, spec, status = raw["metadata"], raw.get("spec") or {}, raw.get("status") or {}
    return Node(
        name=metadata["name"],
        uid=metadata["uid"],
        resource_version=str(metadata.get("resourceVersion", "")),
        created=parse_time(metadata.get("creationTimestamp")) or _EPOCH,
        is_deleting="deletionTimestamp" in metadata,
        labels=shared_texts(metadata.get("labels") or {}),
        annotations=shared_texts(metadata.get("annotations") or {}),
        finalizers=tuple(metadata.get("finalizers") or ()),
        owner_uids=tuple(str(owner.get("uid", "")) for owner in metadata.get("ownerReferences") or ()),
        taints=tuple(taint for taint in map(_parse_taint, spec.get("taints") or ()) if taint),
        raw_taints=tuple(spec.get("taints") or ()),
        provider_id=spec.get("providerID") or "",
        conditions=tuple(_parse_conditions(status.get("conditions") or ())),
        capacity=shared_texts(status.get("capacity") or {}),
        allocatable=shared_texts(status.get("allocatable") or {}),
    )


def _parse_conditions(raws: Iterable[Mapping[str, Any]]) -> Iterator[NodeCondition]:
    by_type = {raw.get("type"): raw for raw in raws}
    for kind in _CONDITIONS:
        if (raw := by_type.get(kind)) is not None:
            yield NodeCondition(
                type=kind, status=str(raw.get("status") or ""), since=parse_time(raw.get("lastTransitionTime"))
            )


def _amount(amounts: Mapping[str, str], resource: str) -> Decimal:
    try:
        return parse_quantity(amounts.get(resource, "0"))
    except ValueError:
        return Decimal(0)


def _parse_taint(raw: object) -> Taint | None:
    try:
        return Taint.model_validate(raw)
    except ValidationError:
        # An effect of a future Kubernetes. Leaving it out is right: it is none that we or a claim have set.
        return None
