"""Inference: the StatefulSet that serves a Workspace's model, or runs its template. Pure.

One pod a Node. The pods of a model that is split over several Nodes form a group: the first leads and answers, the
others are workers without a port of their own for clients; nothing of it speaks Ray.
"""

import math
from collections.abc import Mapping
from decimal import Decimal, InvalidOperation
from typing import Any, Final

from provisioner.apis import names
from provisioner.apis.workspace import Adapter, Workspace
from provisioner.gpus import catalogue
from provisioner.gpus.memory import UTILIZATION
from provisioner.serving.environment import (
    ADAPTERS,
    CACHE,
    CHECK,
    CONFIG,
    DRAIN,
    GROUP_PORT,
    INFERENCE_CONFIG,
    MARGIN,
    PORT,
    PRE_STOP,
    PULL,
    SERVE,
    ServedAdapter,
    ServeEnvironment,
)
from provisioner.workspace import pods
from provisioner.workspace.digest import digest, sealed
from provisioner.workspace.services import headless_name
from provisioner.workspace.view import STATEFUL_SET, Inputs, Manifest, Model, Sizing

# Seconds until a server has to be up: a base for pulling the image and starting, and what a GiB of weights takes to
# be downloaded and loaded, as KAITO reckons; never less than half an hour or more than three.
_START: Final = 900
_START_A_GIB: Final = 18
_START_LEAST: Final = 1800
_START_MOST: Final = 10800
_PERIOD: Final = 10
# bfloat16 needs Ampere; vLLM refuses it on anything older.
_BFLOAT16: Final = Decimal("8.0")


def render(
    workspace: Workspace,
    *,
    model: Model | None,
    sizing: Sizing,
    inputs: Inputs,
    image: str,
    pull_secrets: tuple[str, ...],
    hub: str = "",
) -> Manifest:
    """Return the StatefulSet of an inference Workspace; `model` is None for one with a template.

    `image` is the serving image, `pull_secrets` what it is pulled with, `hub` where models are, empty for the Hugging
    Face Hub.
    """
    inference = workspace.inference
    if inference is None:
        raise ValueError("the Workspace is none for inference")
    if model is None:
        template = _own_template(workspace, inference.template or {})
    else:
        template = _template(workspace, model, sizing, inputs, image=image, pull_secrets=pull_secrets, hub=hub)
    body = {
        "apiVersion": STATEFUL_SET.api_version,
        "kind": STATEFUL_SET.kind,
        "metadata": pods.metadata(workspace, workspace.name),
        "spec": {
            "replicas": sizing.nodes,
            "serviceName": headless_name(workspace),
            # All at once: the pods of a group wait for each other.
            "podManagementPolicy": "Parallel",
            "selector": {"matchLabels": {names.WORKSPACE_LABEL: workspace.name}},
            "template": template,
        },
    }
    return Manifest(kind=STATEFUL_SET, body=sealed(body))


def _own_template(workspace: Workspace, template: Mapping[str, Any]) -> dict[str, Any]:
    """Return the author's template with what it takes to run on the Workspace's Nodes; what it says itself is kept."""
    metadata, spec = dict(template.get("metadata") or {}), dict(template.get("spec") or {})
    return {
        "metadata": {**metadata, "labels": {**(metadata.get("labels") or {}), **pods.labels(workspace)}},
        "spec": {**spec, **pods.scheduled(workspace, spec)},
    }


def _template(
    workspace: Workspace,
    model: Model,
    sizing: Sizing,
    inputs: Inputs,
    *,
    image: str,
    pull_secrets: tuple[str, ...],
    hub: str,
) -> dict[str, Any]:
    inference = workspace.inference
    assert inference is not None  # noqa: S101 -- for the type checker; render has looked
    options = inference.preset.options if inference.preset else None
    volumes, mounts = pods.scratch()
    init_containers: list[dict[str, Any]] = []
    annotations: dict[str, str] = {}
    if inference.config:
        volumes.append({"name": "config", "configMap": {"name": inference.config, "items": _items(INFERENCE_CONFIG)}})
        mounts.append({"name": "config", "mountPath": CONFIG, "readOnly": True})
        # For a change of what it says to roll out: the name stays the same.
        annotations["gpu-provisioner.kaito.sh/config-digest"] = digest(inputs.configs.get(inference.config, {}))
    if inference.adapters:
        _add_adapters(workspace, image, volumes=volumes, mounts=mounts, init_containers=init_containers)
    values = serve_environment(workspace, model, sizing).to_env() | pods.caches(hub)
    # vLLM's own limit is ten minutes, however large the model.
    values["VLLM_ENGINE_READY_TIMEOUT_S"] = str(start_seconds(model.facts.weights_gib))
    fields = {"POD_IP": "status.podIP"}
    if sizing.nodes > 1:
        fields["RANK"] = "metadata.labels['apps.kubernetes.io/pod-index']"
    container = {
        "name": workspace.name,
        "image": image,
        "args": [SERVE],
        "env": pods.environment(values, token_secret=options.model_access_secret if options else "", fields=fields),
        "ports": _ports(sizing),
        "resources": pods.resources(sizing),
        "securityContext": pods.container_security(),
        "volumeMounts": mounts,
        "lifecycle": {"preStop": {"exec": {"command": ["sleep", str(PRE_STOP)]}}},
        "terminationMessagePolicy": "FallbackToLogsOnError",
        **_probes(model, sizing),
    }
    secrets = (*pull_secrets, *(options.image_pull_secrets if options else ()))
    return {
        "metadata": {"labels": pods.labels(workspace), **({"annotations": annotations} if annotations else {})},
        "spec": {
            **pods.scheduling(workspace),
            "automountServiceAccountToken": False,
            "enableServiceLinks": False,
            "securityContext": pods.security(),
            "terminationGracePeriodSeconds": PRE_STOP + DRAIN + MARGIN,
            **({"imagePullSecrets": [{"name": name} for name in dict.fromkeys(secrets)]} if secrets else {}),
            **({"initContainers": init_containers} if init_containers else {}),
            "containers": [container],
            "volumes": volumes,
        },
    }


def serve_environment(workspace: Workspace, model: Model, sizing: Sizing) -> ServeEnvironment:
    """Return what the serving program is told."""
    layout, preset = sizing.layout, model.preset
    adapters = workspace.inference.adapters if workspace.inference else ()
    return ServeEnvironment(
        model=model.facts.name,
        revision=model.facts.revision,
        served_names=served_names(workspace, model),
        tensor_parallel=layout.tensor if layout else sizing.gpus,
        pipeline_parallel=layout.pipeline if layout else sizing.nodes,
        data_parallel=layout.data if layout else 1,
        nodes=sizing.nodes,
        leader=leader_address(workspace) if sizing.nodes > 1 else "",
        gpu_memory_utilization=Decimal(str(UTILIZATION)),
        dtype=_dtype(model, sizing),
        tool_parser=preset.tool_parser if preset else "",
        reasoning_parser=preset.reasoning_parser if preset else "",
        adapters=tuple(ServedAdapter(name=adapter.source.name, strength=strength(adapter)) for adapter in adapters),
    )


def served_names(workspace: Workspace, model: Model) -> tuple[str, ...]:
    """Return what clients may call the model: the last part of its ID first, as KAITO's do, then what else it is."""
    given = workspace.inference.preset.name if workspace.inference and workspace.inference.preset else ""
    short = model.facts.name.rpartition("/")[2].lower()
    return tuple(dict.fromkeys(name for name in (short, given, model.facts.name) if name))


def strength(adapter: Adapter) -> Decimal:
    """Return how strongly an adapter counts; what is no number counts fully: it is told of elsewhere."""
    try:
        return Decimal(adapter.strength) if adapter.strength else Decimal(1)
    except InvalidOperation:
        return Decimal(1)


def leader_address(workspace: Workspace) -> str:
    """Return the DNS name of the first pod of a group."""
    return f"{workspace.name}-0.{headless_name(workspace)}.{workspace.namespace}.svc"


def start_seconds(weights_gib: float) -> int:
    """Return how long a server of so many weights may take to be up."""
    return min(max(_START + math.ceil(_START_A_GIB * weights_gib), _START_LEAST), _START_MOST)


def _dtype(model: Model, sizing: Sizing) -> str:
    known = catalogue.find(sizing.size.name) if sizing.size else None
    if known is None or known.compute_capability is None or model.facts.quantization:
        return ""
    return "" if Decimal(known.compute_capability) >= _BFLOAT16 else "half"


def _ports(sizing: Sizing) -> list[dict[str, Any]]:
    ports: list[dict[str, Any]] = [{"name": "http", "containerPort": PORT}]
    if sizing.nodes > 1:
        ports.append({"name": "group", "containerPort": GROUP_PORT})
    return ports


def _probes(model: Model, sizing: Sizing) -> dict[str, Any]:
    if sizing.nodes > 1:
        # Workers have no port: the program knows what to look at by the pod's rank.
        def probe(what: str) -> dict[str, Any]:
            return {"exec": {"command": ["serving", CHECK, what]}, "timeoutSeconds": 5}
    else:

        def probe(what: str) -> dict[str, Any]:
            return {"httpGet": {"path": "/health", "port": "http"}, "timeoutSeconds": 5}

    seconds = start_seconds(model.facts.weights_gib)
    return {
        "startupProbe": {
            **probe("started"),
            "periodSeconds": _PERIOD,
            "failureThreshold": math.ceil(seconds / _PERIOD),
        },
        "livenessProbe": {**probe("alive"), "periodSeconds": _PERIOD, "failureThreshold": 3},
        "readinessProbe": {**probe("ready"), "periodSeconds": 5, "failureThreshold": 1},
    }


def _add_adapters(
    workspace: Workspace,
    image: str,
    *,
    volumes: list[dict[str, Any]],
    mounts: list[dict[str, Any]],
    init_containers: list[dict[str, Any]],
) -> None:
    adapters = workspace.inference.adapters if workspace.inference else ()
    if any(adapter.source.image for adapter in adapters):
        volumes.append({"name": "adapters", "emptyDir": {}})
    for number, adapter in enumerate(adapters):
        source, target = adapter.source, f"{ADAPTERS}/{adapter.source.name}"
        if source.volume is not None:
            volumes.append(pods.volume(f"adapter-{number}", source.volume))
            mounts.append({"name": f"adapter-{number}", "mountPath": target, "readOnly": True})
            continue
        mounts.append({"name": "adapters", "mountPath": target, "subPath": source.name, "readOnly": True})
        pulled: dict[str, Any] = {
            "name": f"puller-{number}",
            "image": image,
            "args": [PULL, pods.literal(source.image), target],
            "env": pods.environment(pods.caches()),
            "resources": {"requests": {"cpu": "100m", "memory": "256Mi"}},
            "securityContext": pods.container_security(),
            "terminationMessagePolicy": "FallbackToLogsOnError",
            "volumeMounts": [
                {"name": "adapters", "mountPath": target, "subPath": source.name},
                {"name": "tmp", "mountPath": "/tmp"},  # noqa: S108 -- a mount of the pod's own
                {"name": "cache", "mountPath": CACHE},
            ],
        }
        if source.image_pull_secrets:
            volume, mount = pods.registry_secrets(source.image_pull_secrets, volume=f"registry-{number}")
            volumes.append(volume)
            pulled["volumeMounts"].append(mount)
        init_containers.append(pulled)


def _items(key: str) -> list[dict[str, str]]:
    return [{"key": key, "path": key}]
