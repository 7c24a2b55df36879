"""The memory of served models: vLLM's arithmetic of the KV cache, and what it leaves room for."""

import math
from dataclasses import replace

import pytest

from provisioner.gpus import presets
from provisioner.gpus.memory import GIB, context_that_fits, kv_cache_bytes, need
from provisioner.gpus.model_facts import LatentAttention, ModelFacts

# The shape of the tiny Llama whose cache was measured on a real vLLM: 256 bytes a token.
TINY = ModelFacts(
    name="tiny",
    weights_bytes=281_000,
    layers=2,
    attention_layers=2,
    attention_heads=2,
    kv_heads=1,
    head_dim=32,
    context=65536,
)


@pytest.mark.parametrize(("memory", "tokens"), [(1, 4096), (16, 65536), (64, 262144), (1024, 4194304)])
def test_kv_cache_is_as_large_as_vllm_makes_it(memory: int, tokens: int) -> None:
    assert kv_cache_bytes(TINY, tokens=tokens) == memory * 2**20


def test_kv_heads_are_repeated_where_there_are_fewer_than_gpus() -> None:
    assert kv_cache_bytes(TINY, tensor_parallel=2, tokens=4096) == kv_cache_bytes(TINY, tokens=4096)


@pytest.mark.parametrize(
    ("alias", "a_token"),
    [
        ("llama-3.1-8b-instruct", 131072),
        ("llama-3.3-70b-instruct", 327680),
        ("phi-3-mini-4k-instruct", 393216),
        ("phi-4", 204800),
        ("deepseek-v3-0324", 70272),
    ],
)
def test_bytes_a_token_of_known_models(alias: str, a_token: int) -> None:
    preset = presets.find(alias)
    assert preset is not None
    assert kv_cache_bytes(preset.facts, tokens=1600) == 1600 * a_token


def test_latent_attention_is_not_shared_out() -> None:
    latent = replace(TINY, latent=LatentAttention(kv_lora_rank=512, rope_head_dim=64), attention_heads=128)

    assert kv_cache_bytes(latent, tensor_parallel=8, tokens=16) == kv_cache_bytes(latent, tokens=16) == 2 * 576 * 2 * 16


def test_layers_with_a_window_keep_no_more_than_the_window() -> None:
    windowed = replace(TINY, attention_layers=1, window_layers=1, window=128)

    assert kv_cache_bytes(windowed, tokens=4096) == (4096 + 128) * 128
    assert kv_cache_bytes(windowed, tokens=64) == kv_cache_bytes(TINY, tokens=64)


def test_fp8_cache_takes_half() -> None:
    assert kv_cache_bytes(replace(TINY, kv_cache_fp8=True), tokens=32) * 2 == kv_cache_bytes(TINY, tokens=32)


def test_weights_are_shared_out_over_all_gpus_of_a_copy() -> None:
    preset = presets.find("llama-3.3-70b-instruct")
    assert preset is not None
    alone = need(preset.facts, context=2048)
    split = need(preset.facts, tensor_parallel=4, pipeline_parallel=2, context=2048)

    assert math.isclose(split.weights * 8, alone.weights)
    assert math.isclose(split.kv_cache * 8, alone.kv_cache)
    assert split.overhead > 2.3 * GIB
    assert split.total == split.weights + split.overhead + split.kv_cache


@pytest.mark.parametrize("memory", [12.0, 16.0, 24.0, 40.0])
def test_context_that_fits_is_the_longest(memory: float) -> None:
    preset = presets.find("phi-3-mini-128k-instruct")
    assert preset is not None
    tokens = context_that_fits(preset.facts, memory_gib=memory)

    assert need(preset.facts, context=tokens).total <= 0.9 * memory * GIB
    assert tokens == preset.context or need(preset.facts, context=tokens + 16).total > 0.9 * memory * GIB


def test_no_context_fits_where_the_weights_do_not() -> None:
    preset = presets.find("phi-4")
    assert preset is not None

    assert context_that_fits(preset.facts, memory_gib=16.0) == 0
