"""kaito.sh Workspace (v1alpha1 and v1beta1, which differ in nothing that is read here), as far as we serve it.

A Workspace has no `spec`: `resource`, `inference` and `tuning` stand beside `status`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from provisioner.apis.conditions import Condition, parse_conditions
from provisioner.apis.times import parse_time

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
# What is handed on to Kubernetes as it is: a volume source, a pod template.
Foreign = Mapping[str, Any]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", populate_by_name=True)

    @model_validator(mode="before")
    @classmethod
    def _without_nulls(cls, raw: Any) -> Any:
        """Take what is written as null for what is left out."""
        return {key: value for key, value in raw.items() if value is not None} if isinstance(raw, dict) else raw


class SelectorRequirement(_Frozen):
    """One of `resource.labelSelector.matchExpressions`."""

    key: str
    operator: str
    values: tuple[str, ...] = ()


class LabelSelector(_Frozen):
    """Which Nodes the Workspace may use."""

    match_labels: dict[str, str] = Field(default_factory=dict, alias="matchLabels")
    match_expressions: tuple[SelectorRequirement, ...] = Field(default=(), alias="matchExpressions")


class Partition(_Frozen):
    """A part of a VM's GPUs: a MIG profile, or a number of whole ones."""

    mode: Literal["mig", "accelerator"]
    profile: str = ""
    count: int | None = None


class Resource(_Frozen):
    """What the Workspace runs on. `count` is None where its author has left it out."""

    count: int | None = None
    instance_type: str = Field(default="", alias="instanceType")
    label_selector: LabelSelector = Field(default=LabelSelector(), alias="labelSelector")
    preferred_nodes: tuple[str, ...] = Field(default=(), alias="preferredNodes")
    partition: Partition | None = None


class PresetOptions(_Frozen):
    """`model_access_secret` names the Secret with HF_TOKEN."""

    image: str = ""
    image_pull_secrets: tuple[str, ...] = Field(default=(), alias="imagePullSecrets")
    model_access_secret: str = Field(default="", alias="modelAccessSecret")


class PresetSpec(_Frozen):
    """A model by a short name of ours or by its Hugging Face ID."""

    name: str
    access_mode: str = Field(default="", alias="accessMode")
    options: PresetOptions = Field(default=PresetOptions(), alias="presetOptions")


class DataSource(_Frozen):
    """Where data or an adapter comes from: exactly one of URLs, image and volume."""

    name: str = ""
    urls: tuple[str, ...] = ()
    volume: Foreign | None = Field(default=None, alias="volumeSource")
    image: str = ""
    image_pull_secrets: tuple[str, ...] = Field(default=(), alias="imagePullSecrets")


class DataDestination(_Frozen):
    """Where a tuned adapter goes: a volume, or an image that is pushed with a Secret."""

    volume: Foreign | None = Field(default=None, alias="volumeSource")
    image: str = ""
    image_push_secret: str = Field(default="", alias="imagePushSecret")


class Adapter(_Frozen):
    """A LoRA adapter and how strongly it counts: a decimal number, empty for 1."""

    source: DataSource = DataSource()
    strength: str = ""


class Inference(_Frozen):
    """What is served: a preset with adapters, or a pod template of the author's own."""

    preset: PresetSpec | None = None
    template: Foreign | None = None
    config: str = ""
    adapters: tuple[Adapter, ...] = ()


class Tuning(_Frozen):
    """What is tuned, on what, and where the adapter goes."""

    preset: PresetSpec | None = None
    method: str = ""
    config: str = ""
    input: DataSource | None = None
    output: DataDestination | None = None


class _Spec(_Frozen):
    resource: Resource = Resource()
    inference: Inference | None = None
    tuning: Tuning | None = None


@dataclass(frozen=True, kw_only=True)
class Workspace:
    """A Workspace as last seen.

    `spec_error` says why its spec cannot be read; `resource`, `inference` and `tuning` are empty then. `raw_spec` has
    those three as stored, for what is derived from all of it. `target_node_count` is 0 and `instance_types` empty until
    that was decided. `model` is what was looked up about a model that is not built in.
    """

    namespace: str
    name: str
    uid: str
    resource_version: str
    generation: int
    created: datetime
    deleted: datetime | None
    labels: Mapping[str, str]
    annotations: Mapping[str, str]
    finalizers: tuple[str, ...]
    resource: Resource
    inference: Inference | None
    tuning: Tuning | None
    raw_spec: Mapping[str, Any]
    spec_error: str
    conditions: tuple[Condition, ...]
    target_node_count: int
    instance_types: tuple[str, ...]
    worker_nodes: tuple[str, ...]
    state: str
    sizing: str
    endpoint: str
    model: Mapping[str, Any]

    @property
    def key(self) -> str:
        """Return namespace and name, as the store and the work queue know it."""
        return f"{self.namespace}/{self.name}"

    @property
    def is_deleting(self) -> bool:
        """Tell whether somebody has deleted it."""
        return self.deleted is not None

    def condition(self, kind: str) -> Condition | None:
        """Return the stored condition of that type."""
        return next((condition for condition in self.conditions if condition.type == kind), None)


def parse_workspace(raw: Mapping[str, Any]) -> Workspace:
    """Read a Workspace as the API server sent it. Raises KeyError where metadata lacks namespace, name or uid."""
    metadata, status = raw["metadata"], _mapping(raw.get("status"))
    created = parse_time(metadata.get("creationTimestamp")) or _EPOCH
    raw_spec = {part: raw[part] for part in ("resource", "inference", "tuning") if raw.get(part) is not None}
    spec, error = _parse_spec(raw_spec)
    count = status.get("targetNodeCount")
    return Workspace(
        namespace=metadata["namespace"],
        name=metadata["name"],
        uid=metadata["uid"],
        resource_version=str(metadata.get("resourceVersion", "")),
        generation=int(metadata.get("generation", 1)),
        created=created,
        deleted=parse_time(metadata.get("deletionTimestamp")),
        labels=_strings(metadata.get("labels")),
        annotations=_strings(metadata.get("annotations")),
        finalizers=tuple(metadata.get("finalizers") or ()),
        resource=spec.resource,
        inference=spec.inference,
        tuning=spec.tuning,
        raw_spec=raw_spec,
        spec_error=error,
        conditions=parse_conditions(status.get("conditions"), fallback=created),
        target_node_count=count if isinstance(count, int) and count > 0 else 0,
        instance_types=_texts(status.get("instanceTypes")),
        worker_nodes=_texts(status.get("workerNodes")),
        state=str(status.get("state") or ""),
        sizing=str(status.get("sizing") or ""),
        endpoint=str(status.get("endpoint") or ""),
        model=_mapping(status.get("model")),
    )


def _parse_spec(raw: Mapping[str, Any]) -> tuple[_Spec, str]:
    try:
        return _Spec.model_validate(raw), ""
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        return _Spec(), f"{where}: {first['msg'].removeprefix('Value error, ')}"


def _mapping(raw: object) -> Mapping[str, Any]:
    return raw if isinstance(raw, dict) else {}


def _texts(raw: object) -> tuple[str, ...]:
    return tuple(str(item) for item in raw) if isinstance(raw, list) else ()


def _strings(raw: object) -> Mapping[str, str]:
    return {str(key): str(value) for key, value in _mapping(raw).items()}
