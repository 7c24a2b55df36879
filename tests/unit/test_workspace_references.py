"""What a Workspace refers to, and what of that is missing."""

import base64
from typing import Any

import pytest

from provisioner.workspace import references
from provisioner.workspace.view import Inputs
from tests.unit.workspace_builders import inference, tuning, workspace

SERVED = inference(
    preset={"name": "llama-3.1-8b-instruct", "presetOptions": {"modelAccessSecret": "hf"}},
    config="conf",
    adapters=[{"source": {"name": "a", "image": "i", "imagePullSecrets": ["pull", "pull"]}}],
)
TUNED = tuning(config="conf", input={"image": "i", "imagePullSecrets": ["pull"]})
KEYS = {
    "hf": frozenset({"HF_TOKEN"}),
    "pull": frozenset({".dockerconfigjson"}),
    "push": frozenset({".dockerconfigjson"}),
}


def test_what_a_workspace_refers_to() -> None:
    served, tuned = workspace(spec=SERVED), workspace(spec=TUNED)

    assert references.model_name(served) == "llama-3.1-8b-instruct"
    assert references.config_name(served) == references.config_name(tuned) == "conf"
    assert [secret.name for secret in references.secrets(served)] == ["hf", "pull", "pull"]
    assert [(secret.name, secret.key) for secret in references.secrets(tuned)] == [
        ("pull", ".dockerconfigjson"),
        ("push", ".dockerconfigjson"),
    ]
    assert references.model_name(workspace(spec=inference(template={}))) == ""


@pytest.mark.parametrize(
    ("spec", "configs", "secrets", "reason", "said"),
    [
        (SERVED, {}, KEYS, "ConfigMapNotFound", "inference.config: there is no ConfigMap conf in namespace ml"),
        (TUNED, {}, KEYS, "ConfigMapNotFound", "tuning.config: there is no ConfigMap conf in namespace ml"),
        (TUNED, {"conf": {}}, KEYS, "InvalidConfig", "it has no key training_config.yaml"),
        (SERVED, {"conf": {}}, {}, "SecretNotFound", "there is no Secret hf in namespace ml. Create it, with the key"),
        (SERVED, {"conf": {}}, {**KEYS, "hf": frozenset()}, "SecretNotFound", "Secret hf has no key HF_TOKEN"),
        (SERVED, {"conf": {}}, {"hf": KEYS["hf"]}, "SecretNotFound", "adapters[0].source.imagePullSecrets: there is"),
        (
            TUNED,
            {"conf": {"training_config.yaml": ""}},
            {**KEYS, "push": frozenset({"password"})},
            "SecretNotFound",
            "tuning.output.imagePushSecret: Secret push has no key .dockerconfigjson",
        ),
    ],
)
def test_what_is_missing_is_told(
    spec: dict[str, Any], configs: Any, secrets: dict[str, frozenset[str]], reason: str, said: str
) -> None:
    found = references.missing(workspace(spec=spec), Inputs(configs=configs, secrets=secrets))

    assert found is not None
    assert found.reason == reason
    assert said in found.message


def test_nothing_is_missing() -> None:
    assert references.missing(workspace(), Inputs()) is None
    assert references.missing(workspace(spec=SERVED), Inputs(configs={"conf": {}}, secrets=KEYS)) is None


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (base64.b64encode(b"hf_x\n").decode(), "hf_x"),
        (base64.b64encode(b"\xff\xfe").decode(), ""),
        ("not base64!", ""),
        ("", ""),
        (None, ""),
        (7, ""),
    ],
)
def test_value_of_a_secret_as_text(value: object, text: str) -> None:
    assert references.decoded(value) == text
