"""The memory of served models: vLLM's arithmetic of the KV cache, and what it leaves room for."""

import math
from dataclasses import replace

import pytest

from provisioner.gpus import presets
from provisioner.gpus.memory import GIB, context_that_fits, in_flight, kv_cache_bytes, need, page_bytes, weights_bytes
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
# Tokens under way, which those models alone take room for that have windows.
FLIGHT = 2048


def cache(facts: ModelFacts, *, tensor_parallel: int = 1, pipeline_parallel: int = 1, tokens: int) -> float:
    return kv_cache_bytes(
        facts,
        tensor_parallel=tensor_parallel,
        pipeline_parallel=pipeline_parallel,
        tokens=tokens,
        flight=FLIGHT,
    )


@pytest.mark.parametrize(("memory", "tokens"), [(1, 4096), (16, 65536), (64, 262144), (1024, 4194304)])
def test_kv_cache_is_as_large_as_vllm_makes_it(memory: int, tokens: int) -> None:
    assert cache(TINY, tokens=tokens) == memory * 2**20


def test_kv_heads_are_repeated_where_there_are_fewer_than_gpus() -> None:
    assert cache(TINY, tensor_parallel=2, tokens=4096) == cache(TINY, tokens=4096)


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
    assert cache(preset.facts, tokens=1600) == 1600 * a_token


def test_latent_attention_is_not_shared_out() -> None:
    latent = replace(TINY, latent=LatentAttention(kv_lora_rank=512, rope_head_dim=64), attention_heads=128)

    assert cache(latent, tensor_parallel=8, tokens=16) == cache(latent, tokens=16) == 2 * 576 * 2 * 16


def test_layers_with_a_window_keep_the_window_and_what_is_under_way() -> None:
    windowed = replace(TINY, attention_layers=1, window_layers=1, window=128)

    # Pages of 16 tokens, one of them begun within.
    assert cache(windowed, tokens=4096) == (4096 + 16 * math.ceil((127 + FLIGHT) / 16) + 16) * 128
    assert cache(windowed, tokens=64) == cache(TINY, tokens=64) + 16 * 128


@pytest.mark.parametrize(
    ("full", "windowed", "groups", "size"),
    [
        # One to five: six groups of one layer each. Layers that are too few for theirs fill it up all the same.
        (1, 5, (1, 5), 1),
        (2, 5, (1, 3), 2),
        (10, 52, (1, 6), 10),
        # Nearly as many of each: as large as the larger, rather than two of the smaller.
        (3, 4, (1, 1), 4),
        (12, 18, (1, 2), 12),
        (0, 4, (0, 1), 4),
    ],
)
def test_layers_of_both_kinds_share_pages_in_groups_of_one_size(
    full: int, windowed: int, groups: tuple[int, int], size: int
) -> None:
    model = replace(TINY, layers=full + windowed, attention_layers=full, window_layers=windowed, window=128)
    page = size * 16 * 128

    assert page_bytes(model) == page
    in_windows = math.ceil((127 + FLIGHT) / 16) + 1
    assert cache(model, tokens=4096) == (groups[0] * 256 + groups[1] * in_windows) * page


def test_layers_that_do_not_divide_over_the_stages_make_the_largest_of_them_count() -> None:
    model = replace(TINY, layers=32, attention_layers=32)

    assert cache(model, pipeline_parallel=3, tokens=16) * 32 == cache(model, tokens=16) * 11
    assert math.isclose(weights_bytes(model, pipeline_parallel=3) * 32, model.weights_bytes * 11)
    assert weights_bytes(model, tensor_parallel=2, pipeline_parallel=4) * 8 == model.weights_bytes


@pytest.mark.parametrize(
    ("memory", "stages", "tokens"),
    [(24.0, 1, 4096), (79.6, 1, 16384), (79.6, 2, 24576), (180.0, 1, 32768)],
)
def test_batches_under_way_are_as_large_as_vllm_makes_them_by_default(memory: float, stages: int, tokens: int) -> None:
    assert in_flight(memory_gib=memory, pipeline_parallel=stages) == tokens


def test_fp8_cache_takes_half() -> None:
    assert cache(replace(TINY, kv_cache_fp8=True), tokens=32) * 2 == cache(TINY, tokens=32)


def test_weights_are_shared_out_over_all_gpus_of_a_copy() -> None:
    preset = presets.find("llama-3.3-70b-instruct")
    assert preset is not None
    alone = need(preset.facts, context=2048, memory_gib=80.0)
    split = need(preset.facts, tensor_parallel=4, pipeline_parallel=2, context=2048, memory_gib=80.0)

    assert math.isclose(split.weights * 8, alone.weights)
    assert math.isclose(split.kv_cache * 8, alone.kv_cache)
    assert split.overhead > 2.3 * GIB
    assert split.total == split.weights + split.overhead + split.kv_cache


@pytest.mark.parametrize("memory", [12.0, 16.0, 24.0, 40.0])
def test_context_that_fits_is_the_longest(memory: float) -> None:
    preset = presets.find("phi-3-mini-128k-instruct")
    assert preset is not None
    tokens = context_that_fits(preset.facts, memory_gib=memory)

    assert need(preset.facts, context=tokens, memory_gib=memory).total <= 0.9 * memory * GIB
    assert (
        tokens == preset.context
        or need(preset.facts, context=tokens + 16, memory_gib=memory).total > 0.9 * memory * GIB
    )


def test_no_context_fits_where_the_weights_do_not() -> None:
    preset = presets.find("phi-4")
    assert preset is not None

    assert context_that_fits(preset.facts, memory_gib=16.0) == 0
