"""Tuning: the Job that makes an adapter of a Workspace's model and data. Pure.

The adapter's checkpoints lie on a volume of the pod, or on the one that the output names: a container that dies is
started again by its kubelet and goes on from the last of them. A Job cannot be changed: one that is for another wish is
deleted first.
"""

from typing import Any, Final

from provisioner.apis.workspace import DataSource, Workspace
from provisioner.serving.environment import (
    CACHE,
    CONFIG,
    DATA,
    FETCH,
    MARGIN,
    PULL,
    RESULTS,
    TRAINING_CONFIG,
    TUNE,
    TuneEnvironment,
    urls_to_env,
)
from provisioner.workspace import pods
from provisioner.workspace.digest import digest, sealed
from provisioner.workspace.view import JOB, Inputs, Manifest, Model, Sizing

# How often a pod is made anew: for a Node that went, not for a program that fails, which its kubelet starts again.
_BACKOFF_LIMIT: Final = 6
# Seconds that a program has to write a last checkpoint.
_GRACE: Final = 120


def render(
    workspace: Workspace,
    *,
    model: Model,
    sizing: Sizing,
    inputs: Inputs,
    image: str,
    pull_secrets: tuple[str, ...] = (),
    hub: str = "",
) -> Manifest:
    """Return the Job of a tuning Workspace.

    `image` is the serving image, `pull_secrets` what it is pulled with, `hub` where models are, empty for the Hugging
    Face Hub.
    """
    tuning = workspace.tuning
    if tuning is None or tuning.input is None or tuning.output is None:
        raise ValueError("the Workspace is none for tuning")
    volumes, mounts = pods.scratch()
    annotations: dict[str, str] = {}
    init_containers = _data(tuning.input, image, volumes=volumes, mounts=mounts)
    volumes.append(pods.volume("results", tuning.output.volume or {"emptyDir": {}}))
    mounts.append({"name": "results", "mountPath": RESULTS})
    if tuning.config:
        volumes.append(
            {
                "name": "config",
                "configMap": {
                    "name": tuning.config,
                    "items": [{"key": TRAINING_CONFIG, "path": TRAINING_CONFIG}],
                },
            }
        )
        mounts.append({"name": "config", "mountPath": CONFIG, "readOnly": True})
        annotations["gpu-provisioner.kaito.sh/config-digest"] = digest(inputs.configs.get(tuning.config, {}))
    if tuning.output.image_push_secret:
        volume, mount = pods.registry_secrets([tuning.output.image_push_secret], volume="registry")
        volumes.append(volume)
        mounts.append(mount)
    options = tuning.preset.options if tuning.preset else None
    container = {
        "name": workspace.name,
        "image": image,
        "args": [TUNE],
        "env": pods.environment(
            tune_environment(workspace, model, sizing).to_env() | pods.caches(hub),
            token_secret=options.model_access_secret if options else "",
        ),
        "resources": pods.resources(sizing),
        "securityContext": pods.container_security(),
        "volumeMounts": mounts,
        "terminationMessagePolicy": "FallbackToLogsOnError",
    }
    body = {
        "apiVersion": JOB.api_version,
        "kind": JOB.kind,
        "metadata": pods.metadata(workspace, workspace.name),
        "spec": {
            "backoffLimit": _BACKOFF_LIMIT,
            "completions": 1,
            "parallelism": 1,
            "podReplacementPolicy": "Failed",
            "template": {
                "metadata": {"labels": pods.labels(workspace), **({"annotations": annotations} if annotations else {})},
                "spec": {
                    **pods.scheduling(workspace),
                    "restartPolicy": "OnFailure",
                    "automountServiceAccountToken": False,
                    "enableServiceLinks": False,
                    "securityContext": pods.security(),
                    "terminationGracePeriodSeconds": _GRACE + MARGIN,
                    **({"imagePullSecrets": [{"name": name} for name in pull_secrets]} if pull_secrets else {}),
                    **({"initContainers": init_containers} if init_containers else {}),
                    "containers": [container],
                    "volumes": volumes,
                },
            },
        },
    }
    return Manifest(kind=JOB, body=sealed(body, wish=wish(workspace, inputs)))


def wish(workspace: Workspace, inputs: Inputs) -> object:
    """Return what a Job is made for: where this changes it is made anew.

    Not all of the Job: another release renders another one, and what was tuned is not to be tuned once more for that.
    """
    config = workspace.tuning.config if workspace.tuning else ""
    return {"tuning": workspace.raw_spec.get("tuning"), "config": dict(inputs.configs.get(config, {}))}


def tune_environment(workspace: Workspace, model: Model, sizing: Sizing) -> TuneEnvironment:
    """Return what the tuning program is told."""
    tuning = workspace.tuning
    if tuning is None:
        raise ValueError("the Workspace is none for tuning")
    return TuneEnvironment(
        model=model.facts.name,
        revision=model.facts.revision,
        method=tuning.method.lower(),
        image=tuning.output.image if tuning.output else "",
        processes=max(sizing.gpus, 1),
    )


def _data(
    source: DataSource, image: str, *, volumes: list[dict[str, Any]], mounts: list[dict[str, Any]]
) -> list[dict[str, Any]]:
    """Mount the data; return the container that brings it where it is not on a volume."""
    volumes.append(pods.volume("data", source.volume or {"emptyDir": {}}))
    mounts.append({"name": "data", "mountPath": DATA, "readOnly": True})
    if source.volume is not None:
        return []
    values: dict[str, str] = {}
    if source.image:
        arguments = [PULL, pods.literal(source.image), DATA]
    else:
        arguments = [FETCH, DATA]
        # Only this container is told: addresses may carry a signature.
        values = urls_to_env(source.urls)
    bringing: dict[str, Any] = {
        "name": "data",
        "image": image,
        "args": arguments,
        "env": pods.environment(values | pods.caches()),
        "resources": {"requests": {"cpu": "100m", "memory": "256Mi"}},
        "securityContext": pods.container_security(),
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": [
            {"name": "data", "mountPath": DATA},
            {"name": "tmp", "mountPath": "/tmp"},  # noqa: S108 -- a mount of the pod's own
            {"name": "cache", "mountPath": CACHE},
        ],
    }
    if source.image and source.image_pull_secrets:
        volume, mount = pods.registry_secrets(source.image_pull_secrets, volume="data-registry")
        volumes.append(volume)
        bringing["volumeMounts"].append(mount)
    return [bringing]
