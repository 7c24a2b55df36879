"""How much GPU memory serving a model with vLLM takes, on each of the GPUs that it is split over. Pure.

    weights  1.02 of the safetensors files, shared out over tensor parallel GPUs, and by layers over stages
    KV cache 2 (key and value) x layers x KV heads x head dimension x bytes a token. KV heads are shared out over tensor
             parallel GPUs and repeated where there are fewer of them than GPUs; latent attention has one vector for all
             heads and nothing to share out; a sliding window's layers keep their window and the tokens in flight
    overhead 2.3 GiB for CUDA's context, NCCL, graphs and activations, and 5 % of the weights

The KV cache is vLLM's own arithmetic (`vllm.v1.core.kv_cache_utils`), and tests compare the two. Overhead and the 2 %
are KAITO's (`nodesestimator`), on the safe side.
"""

import math
from dataclasses import dataclass
from typing import Final

from provisioner.gpus.model_facts import ModelFacts

GIB: Final = 2**30
# What vLLM is told to use of a GPU (--gpu-memory-utilization); the rest is the driver's and what grows unseen.
UTILIZATION: Final = 0.9
# Tokens of the KV cache's pages on GPUs (vLLM's default block_size).
BLOCK: Final = 16
# Tokens of a batch by the memory of a GPU from which on vLLM takes so many (max_num_batched_tokens of its server).
_BATCHES: Final = ((160.0, 16384), (70.0, 8192), (0.0, 2048))
# Tokens that must fit whatever the model could do: fewer serve nobody. vLLM takes all that the memory has room for.
LEAST_CONTEXT: Final = 2048

_WEIGHTS_FACTOR: Final = 1.02
_OVERHEAD: Final = 2.3 * GIB
_ACTIVATIONS: Final = 0.05
# Numbers of layers of two kinds that are closer to each other make groups of the larger one.
_ALIKE: Final = 1.5
# Of 16-bit weights: a quarter, and embeddings and norms, which stay as they are.
_QLORA_WEIGHTS: Final = 0.32
_TUNING_ACTIVATIONS: Final = 0.3


@dataclass(frozen=True, kw_only=True)
class Need:
    """Bytes on each GPU."""

    weights: float
    overhead: float
    kv_cache: float

    @property
    def total(self) -> float:
        """Return the sum."""
        return self.weights + self.overhead + self.kv_cache


def need(
    facts: ModelFacts,
    *,
    tensor_parallel: int = 1,
    pipeline_parallel: int = 1,
    context: int,
    sequences: int = 1,
    memory_gib: float,
) -> Need:
    """Return what the model takes on each GPU of that memory for so many sequences of `context` tokens at once."""
    split = {"tensor_parallel": tensor_parallel, "pipeline_parallel": pipeline_parallel}
    weights = weights_bytes(facts, **split)
    flight = in_flight(memory_gib=memory_gib, pipeline_parallel=pipeline_parallel)
    return Need(
        weights=_WEIGHTS_FACTOR * weights,
        overhead=_OVERHEAD + _ACTIVATIONS * weights,
        kv_cache=kv_cache_bytes(facts, tokens=context, flight=flight, **split) * sequences + page_bytes(facts, **split),
    )


def weights_bytes(facts: ModelFacts, *, tensor_parallel: int = 1, pipeline_parallel: int = 1) -> float:
    """Return the bytes of weights on each GPU of the stage that has the most layers."""
    layers = max(facts.layers, 1)
    return facts.weights_bytes / tensor_parallel * math.ceil(layers / pipeline_parallel) / layers


def kv_cache_bytes(
    facts: ModelFacts,
    *,
    tensor_parallel: int = 1,
    pipeline_parallel: int = 1,
    tokens: int,
    flight: int,
    block: int = BLOCK,
) -> float:
    """Return the bytes of KV cache that one sequence of so many tokens takes on each GPU.

    `flight` is how many tokens vLLM has under way at most, `block` how many a page has.
    """
    full, windowed = _groups(facts)
    pages = full * math.ceil(tokens / block)
    # A window begins anywhere in a page, so one page more than it has tokens for.
    pages += windowed * (math.ceil(min(facts.window - 1 + flight, tokens) / block) + 1)
    split = {"tensor_parallel": tensor_parallel, "pipeline_parallel": pipeline_parallel}
    return pages * page_bytes(facts, block=block, **split)


def in_flight(*, memory_gib: float, pipeline_parallel: int = 1) -> int:
    """Return how many tokens vLLM has under way at most: their pages are kept where a window would not need them.

    One batch for each stage, and one that is made ready meanwhile. An A100 of 80 GiB takes smaller ones.
    """
    return (pipeline_parallel + 1) * next(batch for least, batch in _BATCHES if memory_gib >= least)


def page_bytes(facts: ModelFacts, *, tensor_parallel: int = 1, pipeline_parallel: int = 1, block: int = BLOCK) -> float:
    """Return the bytes of a page of the KV cache on each GPU. One of all is always kept free."""
    layers = math.ceil(_layers_a_page(facts) / pipeline_parallel)
    return layers * block * _bytes_a_token_and_layer(facts, tensor_parallel)


def tuning_bytes(facts: ModelFacts, *, quantized: bool) -> float:
    """Return what tuning an adapter takes on each GPU: all weights, activations of one short batch, the adapter's own.

    An estimate on the safe side. QLoRA holds the weights in 4 bits, and what does not become smaller is a fifth of it.
    """
    held = facts.weights_bytes * (_QLORA_WEIGHTS if quantized else 1.0)
    return held * (1 + _TUNING_ACTIVATIONS) + _OVERHEAD


def context_that_fits(
    facts: ModelFacts, *, tensor_parallel: int = 1, pipeline_parallel: int = 1, memory_gib: float
) -> int:
    """Return the longest sequence in tokens that GPUs of that memory have room for, at most the model's own; 0: none.

    vLLM finds the same by itself when it starts with `--max-model-len auto`.
    """
    low, high = 0, max(facts.context, LEAST_CONTEXT) // BLOCK
    while low < high:
        middle = (low + high + 1) // 2
        asked = need(
            facts,
            tensor_parallel=tensor_parallel,
            pipeline_parallel=pipeline_parallel,
            context=middle * BLOCK,
            memory_gib=memory_gib,
        )
        if asked.total <= usable(memory_gib):
            low = middle
        else:
            high = middle - 1
    return low * BLOCK


def usable(memory_gib: float) -> float:
    """Return the bytes of a GPU that vLLM is told to use."""
    return memory_gib * GIB * UTILIZATION


def _layers_a_page(facts: ModelFacts) -> int:
    """Return how many layers share a page: those of both kinds do so in groups of one size, filled up where uneven."""
    counts = [count for count in (facts.attention_layers, facts.window_layers) if count]
    if not counts:
        return 0
    # As vLLM does: rather some layers filled up than many small groups (_get_kv_cache_groups_uniform_page_size).
    return max(counts) if max(counts) < min(counts) * _ALIKE else min(counts)


def _groups(facts: ModelFacts) -> tuple[int, int]:
    """Return the groups of layers with a cache that grows with each token, and of those with a window."""
    size = max(_layers_a_page(facts), 1)
    return math.ceil(facts.attention_layers / size), math.ceil(facts.window_layers / size)


def _bytes_a_token_and_layer(facts: ModelFacts, tensor_parallel: int) -> int:
    size = 1 if facts.kv_cache_fp8 else 2
    if facts.latent is not None:
        return (facts.latent.kv_lora_rank + facts.latent.rope_head_dim) * size
    return 2 * math.ceil(facts.kv_heads / tensor_parallel) * facts.head_dim * size
