"""What a Workspace refers to by name: its model, ConfigMaps and Secrets, and what of that is missing. Pure."""

import base64
from collections.abc import Iterator
from typing import Final, NamedTuple

from provisioner.apis.workspace import Inference, Tuning, Workspace
from provisioner.serving.environment import TRAINING_CONFIG
from provisioner.workspace.config_map import read_document
from provisioner.workspace.view import Inputs, Problem

_TOKEN_KEY: Final = "HF_TOKEN"  # noqa: S105 -- a key, not what is under it
_REGISTRY_KEY: Final = ".dockerconfigjson"


class SecretRef(NamedTuple):
    """A Secret that a Workspace names: in which field, and the key that it has to have."""

    field: str
    name: str
    key: str


def model_name(workspace: Workspace) -> str:
    """Return the preset or Hugging Face ID that the Workspace names, empty for a template."""
    part = workspace.tuning or workspace.inference
    return part.preset.name if part and part.preset else ""


def config_name(workspace: Workspace) -> str:
    """Return the ConfigMap that the Workspace names, empty where it names none."""
    part = workspace.tuning or workspace.inference
    return part.config if part else ""


def secrets(workspace: Workspace) -> tuple[SecretRef, ...]:
    """Return the Secrets that the Workspace names."""
    return (*_of_inference(workspace.inference), *_of_tuning(workspace.tuning))


def missing(workspace: Workspace, inputs: Inputs) -> Problem | None:
    """Return the first thing that the Workspace refers to and that is not there, or not what it has to be."""
    field = "tuning.config" if workspace.tuning else "inference.config"
    config = config_name(workspace)
    if config and config not in inputs.configs:
        return Problem(
            reason="ConfigMapNotFound",
            message=f"{field}: there is no ConfigMap {config} in namespace {workspace.namespace}. Create it.",
        )
    if config and workspace.tuning is not None:
        document = read_document(config, inputs.configs[config], key=TRAINING_CONFIG, field=field)
        if isinstance(document, Problem):
            return document
    for secret in secrets(workspace):
        keys = inputs.secrets.get(secret.name)
        if keys is None:
            return Problem(
                reason="SecretNotFound",
                message=f"{secret.field}: there is no Secret {secret.name} in namespace {workspace.namespace}. "
                f"Create it, with the key {secret.key}.",
            )
        if secret.key not in keys:
            return Problem(
                reason="SecretNotFound", message=f"{secret.field}: Secret {secret.name} has no key {secret.key}."
            )
    return None


def _of_inference(inference: Inference | None) -> Iterator[SecretRef]:
    if inference is None:
        return
    if inference.preset and (name := inference.preset.options.model_access_secret):
        yield SecretRef("inference.preset.presetOptions.modelAccessSecret", name, _TOKEN_KEY)
    for number, adapter in enumerate(inference.adapters):
        for name in adapter.source.image_pull_secrets:
            yield SecretRef(f"inference.adapters[{number}].source.imagePullSecrets", name, _REGISTRY_KEY)


def _of_tuning(tuning: Tuning | None) -> Iterator[SecretRef]:
    if tuning is None:
        return
    if tuning.preset and (name := tuning.preset.options.model_access_secret):
        yield SecretRef("tuning.preset.presetOptions.modelAccessSecret", name, _TOKEN_KEY)
    if tuning.input is not None:
        for name in tuning.input.image_pull_secrets:
            yield SecretRef("tuning.input.imagePullSecrets", name, _REGISTRY_KEY)
    if tuning.output is not None and tuning.output.image_push_secret:
        yield SecretRef("tuning.output.imagePushSecret", tuning.output.image_push_secret, _REGISTRY_KEY)


def decoded(value: object) -> str:
    """Return a value of a Secret's `data` as text, empty where it is none."""
    if not isinstance(value, str):
        return ""
    try:
        return base64.b64decode(value, validate=True).decode().strip()
    except ValueError:
        return ""
