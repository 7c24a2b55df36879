"""Workspaces, and what they are looked at with, for tests."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from provisioner.apis.times import format_time
from provisioner.apis.workspace import Workspace, parse_workspace
from provisioner.gpus import presets
from provisioner.gpus.model_facts import ModelFacts
from provisioner.placement.sizes import KnownSizes, NothingListed
from provisioner.workspace.sizing import size
from provisioner.workspace.view import Model, Problem, Sizing

CREATED = datetime(2026, 11, 21, 4, 34, 24, tzinfo=UTC)
NOW = CREATED + timedelta(seconds=2)
SIZES = KnownSizes(NothingListed())
UID = "0d6c1c1e-7a5b-4a0e-9a51-7f1c7a1f0001"
A100 = "Standard_NC24ads_A100_v4"
IMAGE = "registry.example/serving@sha256:" + "0" * 64
SELECTOR = {"matchLabels": {"apps": "chat"}}
OTHER_MODEL = ModelFacts(
    name="acme/tiny",
    revision="0123456789abcdef0123456789abcdef01234567",
    architecture="LlamaForCausalLM",
    weights_bytes=4 << 30,
    layers=32,
    attention_layers=32,
    attention_heads=32,
    kv_heads=8,
    head_dim=128,
    context=8192,
)


def raw_workspace(
    name: str = "chat",
    *,
    resource: Mapping[str, Any] | None = None,
    status: Mapping[str, Any] | None = None,
    spec: Mapping[str, Any] | None = None,
    **metadata: Any,
) -> dict[str, Any]:
    """Return a Workspace as the API server sends it; `spec` is `inference` or `tuning`, phi-4 where it is left out."""
    return {
        "apiVersion": "kaito.sh/v1beta1",
        "kind": "Workspace",
        "metadata": {
            "namespace": "ml",
            "name": name,
            "uid": UID,
            "resourceVersion": "100",
            "generation": 1,
            "creationTimestamp": format_time(CREATED),
            **metadata,
        },
        "resource": {"labelSelector": SELECTOR, "instanceType": A100} if resource is None else dict(resource),
        **({"inference": {"preset": {"name": "phi-4"}}} if spec is None else spec),
        **({"status": dict(status)} if status else {}),
    }


def workspace(name: str = "chat", **changes: Any) -> Workspace:
    """Return a Workspace as the controller reads it."""
    return parse_workspace(raw_workspace(name, **changes))


def inference(**parts: Any) -> dict[str, Any]:
    """Return the inference of phi-4 with something more, or of a template."""
    return {"inference": {**({} if "template" in parts else {"preset": {"name": "phi-4"}}), **parts}}


def tuning(**parts: Any) -> dict[str, Any]:
    """Return a tuning; parts that are None are left out."""
    merged = {
        "preset": {"name": "phi-4"},
        "method": "qlora",
        "input": {"urls": ["https://data.example/a.parquet"]},
        "output": {"image": "registry.example/adapter:1", "imagePushSecret": "push"},
        **parts,
    }
    return {"tuning": {key: value for key, value in merged.items() if value is not None}}


def model_of(subject: Workspace) -> Model | None:
    """Return the model that a Workspace names; OTHER_MODEL is the only one of the Hub."""
    part = subject.tuning or subject.inference
    name = part.preset.name if part and part.preset else ""
    if name == OTHER_MODEL.name:
        return Model(facts=OTHER_MODEL)
    preset = presets.find(name)
    return Model(facts=preset.facts, preset=preset) if preset else None


def sizing_of(subject: Workspace, *, context: int = 0, brought: str = "") -> Sizing:
    """Return what a Workspace runs on."""
    found = size(subject, model=model_of(subject), sizes=SIZES, now=NOW, context=context, brought=brought)
    assert not isinstance(found, Problem), found
    return found
