"""core/v1 Node, as far as a provider reads it: narrow, so that a thousand of them stay small in memory."""

from collections.abc import Mapping
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
    ready: str
    capacity: Mapping[str, str]
    allocatable: Mapping[str, str]

    @property
    def key(self) -> str:
        """Return the name: Nodes have no namespace."""
        return self.name

    @property
    def is_ready(self) -> bool:
        """Tell whether the kubelet reports the node as Ready."""
        return self.ready == "True"

    @property
    def agent_pool(self) -> str:
        """Return the agent pool that AKS made the node for, or an empty string."""
        return self.labels.get(names.AKS_AGENT_POOL_LABEL, "")

    def allocatable_of(self, resource: str) -> Decimal:
        """Return the allocatable amount in base units; 0 where the node does not offer the resource."""
        try:
            return parse_quantity(self.allocatable.get(resource, "0"))
        except ValueError:
            return Decimal(0)


def parse_node(raw: Mapping[str, Any]) -> Node:
    """Read a Node as the API server sent it. Raises KeyError where metadata lacks name or uid."""
    metadata, spec, status = raw["metadata"], raw.get("spec") or {}, raw.get("status") or {}
    ready = next((c.get("status", "") for c in status.get("conditions") or () if c.get("type") == "Ready"), "")
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
        ready=ready,
        capacity=shared_texts(status.get("capacity") or {}),
        allocatable=shared_texts(status.get("allocatable") or {}),
    )


def _parse_taint(raw: object) -> Taint | None:
    try:
        return Taint.model_validate(raw)
    except ValidationError:
        # An effect of a future Kubernetes. Leaving it out is right: it is none that we or a claim have set.
        return None
