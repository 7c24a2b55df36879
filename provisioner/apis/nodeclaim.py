"""karpenter.sh/v1 NodeClaim, as far as a provider reads it."""

import functools
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from provisioner.apis import names
from provisioner.apis.conditions import Condition, ConditionSet, parse_conditions
from provisioner.apis.durations import parse_duration
from provisioner.apis.quantity import parse_quantity
from provisioner.apis.sharing import shared_text
from provisioner.apis.taints import Taint
from provisioner.apis.times import parse_time

Operator = Literal["In", "NotIn", "Exists", "DoesNotExist", "Gt", "Lt", "Gte", "Lte"]
Quantity = Annotated[Decimal, BeforeValidator(parse_quantity)]
Duration = Annotated[timedelta | None, BeforeValidator(parse_duration)]

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


# Specs that are remembered, and characters of the longest; KAITO's have 700.
_SPECS: Final = 256
_SPEC_LENGTH: Final = 4096


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class Requirement(_Frozen):
    """One node selector requirement; several of one key hold together.

    `min_values` is how many distinct values of the key the claim wants to have a choice of.
    """

    key: str
    operator: Operator
    values: tuple[str, ...] = ()
    min_values: int | None = Field(default=None, alias="minValues")


class NodeClassRef(_Frozen):
    """Which provider's NodeClass the claim was written for."""

    group: str = ""
    kind: str = ""
    name: str = ""


class _Resources(_Frozen):
    requests: dict[str, Quantity] = Field(default_factory=dict)


class NodeClaimSpec(_Frozen):
    """The immutable wish. Quantities are in their base units: bytes, cores, pieces.

    `expire_after` is None for Never, and for what is no duration: no claim is deleted for a typing error.
    """

    requirements: tuple[Requirement, ...] = ()
    resources: _Resources = _Resources()
    taints: tuple[Taint, ...] = ()
    startup_taints: tuple[Taint, ...] = Field(default=(), alias="startupTaints")
    expire_after: Duration = Field(default=None, alias="expireAfter")
    termination_grace_period: str | None = Field(default=None, alias="terminationGracePeriod")

    @property
    def requests(self) -> Mapping[str, Decimal]:
        """Return the requested resources."""
        return self.resources.requests


@dataclass(frozen=True, kw_only=True, slots=True)
class NodeClaim:
    """A claim as last seen.

    `spec` is None where the stored spec cannot be read; `spec_error` then says why. Metadata and status are always
    there, so that such a claim can still be reported on and deleted.
    """

    name: str
    uid: str
    resource_version: str
    generation: int
    created: datetime
    deleted: datetime | None
    labels: Mapping[str, str]
    annotations: Mapping[str, str]
    finalizers: tuple[str, ...]
    node_class: NodeClassRef
    spec: NodeClaimSpec | None
    spec_error: str
    provider_id: str
    node_name: str
    capacity: Mapping[str, str]
    conditions: tuple[Condition, ...]

    @property
    def key(self) -> str:
        """Return the name: claims have no namespace."""
        return self.name

    @property
    def is_managed(self) -> bool:
        """Tell whether the claim is for this provider: by NodeClass, or by a label of KAITO's older clients."""
        if (self.node_class.group, self.node_class.kind) == (names.KAITO_GROUP, names.NODECLASS_KIND):
            return True
        return any(label in self.labels for label in names.KAITO_OWNER_LABELS)

    @property
    def class_name(self) -> str:
        """Return which KaitoNodeClass holds for the claim: the default one where it names none of that kind."""
        if (self.node_class.group, self.node_class.kind) != (names.KAITO_GROUP, names.NODECLASS_KIND):
            return names.DEFAULT_NODECLASS
        return self.node_class.name or names.DEFAULT_NODECLASS

    @property
    def is_deleting(self) -> bool:
        """Tell whether somebody has deleted the claim."""
        return self.deleted is not None

    @property
    def has_finalizer(self) -> bool:
        """Tell whether the claim waits for us before it goes."""
        return names.TERMINATION_FINALIZER in self.finalizers

    @property
    def agent_pool(self) -> str:
        """Return the recorded name of the claim's agent pool, or an empty string."""
        return self.annotations.get(names.AGENT_POOL_ANNOTATION, "")

    def is_true(self, condition: str) -> bool:
        """Tell whether the stored condition is True."""
        return any(c.type == condition and c.status == "True" for c in self.conditions)

    def condition_set(self, *, now: datetime) -> ConditionSet:
        """Return the conditions to work on."""
        return ConditionSet(
            self.conditions, generation=self.generation, created=self.created, now=now, deleting=self.is_deleting
        )


def parse_nodeclaim(raw: Mapping[str, Any]) -> NodeClaim:
    """Read a claim as the API server sent it.

    Raises KeyError only where metadata lacks name or uid, which an API server never sends.
    """
    metadata = raw["metadata"]
    status = _mapping(raw.get("status"))
    spec_raw = _mapping(raw.get("spec"))
    created = parse_time(metadata.get("creationTimestamp")) or _EPOCH
    spec, error = _parse_spec(spec_raw)
    return NodeClaim(
        name=metadata["name"],
        uid=metadata["uid"],
        resource_version=str(metadata.get("resourceVersion", "")),
        generation=int(metadata.get("generation", 1)),
        created=created,
        deleted=parse_time(metadata.get("deletionTimestamp")),
        labels=_strings(metadata.get("labels")),
        annotations=_strings(metadata.get("annotations")),
        finalizers=tuple(metadata.get("finalizers") or ()),
        node_class=_parse_node_class(spec_raw.get("nodeClassRef")),
        spec=spec,
        spec_error=error,
        provider_id=str(status.get("providerID") or ""),
        node_name=str(status.get("nodeName") or ""),
        capacity=_strings(status.get("capacity")),
        conditions=parse_conditions(status.get("conditions"), fallback=created),
    )


def _parse_spec(raw: Mapping[str, Any]) -> tuple[NodeClaimSpec | None, str]:
    # A claim is read at each of its changes and its spec never changes; a client's claims mostly wish for the same.
    text = json.dumps(raw)
    return _remembered_spec(text) if len(text) <= _SPEC_LENGTH else _read_spec(raw)


@functools.lru_cache(maxsize=_SPECS)
def _remembered_spec(text: str) -> tuple[NodeClaimSpec | None, str]:
    return _read_spec(json.loads(text))


def _read_spec(raw: Mapping[str, Any]) -> tuple[NodeClaimSpec | None, str]:
    try:
        return NodeClaimSpec.model_validate(raw), ""
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        where = ".".join(str(part) for part in ("spec", *first["loc"]))
        return None, f"{where}: {first['msg'].removeprefix('Value error, ')}"


def _parse_node_class(raw: object) -> NodeClassRef:
    fields = {key: value for key, value in _mapping(raw).items() if isinstance(value, str)}
    return NodeClassRef.model_validate(fields)


def _mapping(raw: object) -> Mapping[str, Any]:
    return raw if isinstance(raw, dict) else {}


def _strings(raw: object) -> Mapping[str, str]:
    return {shared_text(str(key)): shared_text(str(value)) for key, value in _mapping(raw).items()}
