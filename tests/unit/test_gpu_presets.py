"""Presets by name, and models by their configs."""

from typing import Any

import pytest

from provisioner.gpus import presets
from provisioner.gpus.model_config import UnusableConfig, parse_config
from provisioner.gpus.model_facts import LatentAttention, ModelFacts

LLAMA: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "hidden_size": 4096,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "max_position_embeddings": 131072,
}


def parse(**changes: Any) -> ModelFacts:
    config = {key: value for key, value in {**LLAMA, **changes}.items() if value is not ...}
    return parse_config(config, name="org/model", weights_bytes=1)


@pytest.mark.parametrize(
    "name", ["phi-3-mini-4k-instruct", "microsoft/Phi-3-mini-4k-instruct", "PHI-3-MINI-4K-Instruct"]
)
def test_preset_is_found_by_alias_and_id_in_any_case(name: str) -> None:
    preset = presets.find(name)

    assert preset is not None
    assert preset.name == "microsoft/Phi-3-mini-4k-instruct"
    assert preset.tuning


def test_unknown_preset_is_none() -> None:
    assert presets.find("phi-2") is None


def test_aliases_are_of_one_model_each() -> None:
    aliases = [alias for preset in presets.presets() for alias in (preset.name.lower(), *preset.aliases)]

    assert len(aliases) == len(set(aliases))
    assert len(presets.presets()) == 25


def test_config_of_a_llama() -> None:
    assert parse() == ModelFacts(
        name="org/model",
        architecture="LlamaForCausalLM",
        weights_bytes=1,
        layers=32,
        attention_layers=32,
        attention_heads=32,
        kv_heads=8,
        head_dim=128,
        context=131072,
    )


@pytest.mark.parametrize(
    ("changes", "field", "value"),
    [
        ({"num_key_value_heads": ...}, "kv_heads", 32),
        ({"num_key_value_heads": ..., "multi_query": True}, "kv_heads", 1),
        ({"head_dim": 64}, "head_dim", 64),
        ({"num_key_value_heads": [8, 4, 8]}, "kv_heads", 8),
        ({"max_position_embeddings": ...}, "context", 0),
        ({"quantization_config": {"quant_method": "awq"}}, "quantization", "awq"),
        ({"quantization_config": {"kv_cache_scheme": {"num_bits": 8, "type": "float"}}}, "kv_cache_fp8", True),
        ({"kv_lora_rank": 512, "qk_rope_head_dim": 64}, "latent", LatentAttention(kv_lora_rank=512, rope_head_dim=64)),
        ({"layer_types": ["linear_attention"] * 24 + ["full_attention"] * 8}, "attention_layers", 8),
        ({"hybrid_override_pattern": "M-M*M-M*"}, "attention_layers", 2),
        ({"layer_types": ["sliding_attention"] * 16 + ["full_attention"] * 16, "sliding_window": 128}, "window", 128),
        (
            {"layer_types": ["sliding_attention"] * 16 + ["full_attention"] * 16, "sliding_window": 128},
            "window_layers",
            16,
        ),
        # A window of nobody in particular: all layers keep everything.
        ({"sliding_window": 4096}, "attention_layers", 32),
        ({"layer_types": ["what nobody knows"] * 32}, "attention_layers", 32),
    ],
)
def test_config_of_other_models(changes: dict[str, Any], field: str, value: object) -> None:
    assert getattr(parse(**changes), field) == value


def test_text_part_of_a_multimodal_model() -> None:
    config = {"architectures": ["Gemma3ForConditionalGeneration"], "vision_config": {"num_hidden_layers": 27}}
    facts = parse_config({**config, "text_config": LLAMA}, name="org/model", weights_bytes=1)

    assert (facts.layers, facts.architecture) == (32, "Gemma3ForConditionalGeneration")


def test_parameters_of_mistral() -> None:
    facts = parse_config(
        {"dim": 4096, "n_layers": 34, "n_heads": 32, "n_kv_heads": 8, "head_dim": 128, "max_seq_len": 262144},
        name="org/model",
        weights_bytes=1,
        is_mistral=True,
    )
    assert (facts.layers, facts.attention_heads, facts.kv_heads, facts.context) == (34, 32, 8, 262144)


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"num_hidden_layers": ...}, "num_hidden_layers"),
        ({"num_hidden_layers": "32"}, "num_hidden_layers"),
        ({"num_attention_heads": 0}, "num_attention_heads"),
        ({"hidden_size": -1}, "hidden_size"),
        ({"num_hidden_layers": True}, "num_hidden_layers"),
        ({"num_hidden_layers": 10**12}, "num_hidden_layers"),
    ],
)
def test_unusable_config_names_the_field(changes: dict[str, Any], field: str) -> None:
    with pytest.raises(UnusableConfig, match=field):
        parse(**changes)
