"""ConfigMaps of Workspaces, which are anybody's text."""

import pytest

from provisioner.workspace.config_map import max_model_len, read_document
from provisioner.workspace.view import Problem

KEY = "inference_config.yaml"
# Each of these is nine of the one before: read with aliases it would be four thousand million.
LAUGHS = "a0: &a0 {x: 1}\n" + "".join(f"a{n}: &a{n} {{<<: [{', '.join([f'*a{n - 1}'] * 9)}]}}\n" for n in range(1, 11))


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("", 0),
        ("# nothing\n", 0),
        ("max_probe_steps: 6\n", 0),
        ("vllm:\n", 0),
        ("vllm: {max-model-len: 2048, gpu-memory-utilization: 0.9}\n", 2048),
        ("vllm: {max_model_len: 4096}\n", 4096),
        ("vllm: {max-model-len: auto}\n", 0),
        ("vllm: {max-model-len: -1}\n", 0),
        ("vllm: {max-model-len: 0}\n", 0),
    ],
)
def test_length_of_sequences_is_what_the_config_says(text: str, tokens: int) -> None:
    assert max_model_len("conf", {KEY: text}) == tokens


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("vllm: [1]", "vllm must be a map of options"),
        ("vllm: {max-model-len: true}", "vllm.max-model-len must be a whole number or auto"),
        ("vllm: {max-model-len: '2048'}", "vllm.max-model-len must be"),
        ("vllm: {max-model-len: 1.5}", "vllm.max-model-len must be"),
        ("vllm: {max-model-len: -2}", "vllm.max-model-len must be"),
        ("vllm: {max-model-len: []}", "vllm.max-model-len must be"),
        ("vllm: {max-model-len: 1000000000000}", "vllm.max-model-len must be"),
        ("just text", f"{KEY} must be a map"),
        ("- a\n- b", f"{KEY} must be a map"),
        ("a: 1\nb: [", f"{KEY} is no YAML in line 2"),
        ("{" * 5000, f"{KEY} is no YAML"),
        ("a: !!int ''", f"{KEY} is no YAML"),
        ("a: !!bool x", f"{KEY} is no YAML"),
        ("a: !!timestamp x", f"{KEY} is no YAML"),
        ("a: !!float ''", f"{KEY} is no YAML"),
        ("a: " + "1" * 10_000, f"{KEY} is no YAML"),
        ("? [a]\n: b", f"{KEY} is no YAML"),
        ("a: !!python/object/apply:os.system [true]", f"{KEY} is no YAML"),
        ("a: \x00", f"{KEY} is no YAML"),
        (LAUGHS, "(anchors are not read)"),
        ("a: " + "x" * (64 << 10), f"{KEY} is larger than 64 KiB"),
    ],
    ids=lambda text: text[:20],
)
def test_config_that_cannot_be_read_is_told(text: str, said: str) -> None:
    found = max_model_len("conf", {KEY: text})

    assert isinstance(found, Problem)
    assert found.reason == "InvalidConfig"
    assert found.message.startswith("inference.config: ConfigMap conf: ")
    assert said in found.message


def test_key_that_is_missing_is_named() -> None:
    found = read_document("conf", {"other.yaml": ""}, key="training_config.yaml", field="tuning.config")

    assert found == Problem(
        reason="InvalidConfig", message="tuning.config: ConfigMap conf: it has no key training_config.yaml."
    )
