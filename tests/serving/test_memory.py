"""What a model is reckoned to take of a GPU's memory, and what vLLM itself reckons for it."""

import asyncio
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from provisioner.gpus.memory import kv_cache_bytes, page_bytes, weights_bytes
from provisioner.gpus.model_config import parse_config
from provisioner.gpus.model_facts import ModelFacts
from tests.unit.serving_support import free_ports

ROOT = Path(__file__).parents[2]
# Part of what vLLM says by which the weights may be off: beside them there is a header in each file, and what is not
# shared out. The cache may be off by nothing.
NEAR = 0.05
MIB = 2**20

LLAMA = {
    "model_type": "llama", "vocab_size": 512, "hidden_size": 256, "intermediate_size": 512, "num_hidden_layers": 4,
    "num_attention_heads": 8, "num_key_value_heads": 2, "head_dim": 32, "max_position_embeddings": 2048,
}  # fmt: skip
GEMMA = {**LLAMA, "model_type": "gemma3_text", "sliding_window": 128}
DEEPSEEK = {
    **LLAMA, "model_type": "deepseek_v2", "num_key_value_heads": 8, "kv_lora_rank": 64, "q_lora_rank": None,
    "qk_rope_head_dim": 32, "qk_nope_head_dim": 32, "v_head_dim": 32, "moe_intermediate_size": 128,
    "n_routed_experts": 4, "n_shared_experts": 1, "num_experts_per_tok": 2, "first_k_dense_replace": 1,
}  # fmt: skip


def layers(*, full: int, windowed: int) -> dict[str, Any]:
    return {
        "num_hidden_layers": full + windowed,
        "layer_types": ["sliding_attention"] * windowed + ["full_attention"] * full,
    }


@dataclass(frozen=True, kw_only=True)
class Case:
    """A model and what vLLM is told of it."""

    model: Mapping[str, Any]
    memory: int = 16 * MIB
    arguments: Mapping[str, Any] = field(default_factory=dict)
    is_fp8: bool = False
    tensor_parallel: int = 1
    pipeline_parallel: int = 1


# Layers with a window have pages of 32 tokens at least on CPU, so that all have them here.
FEW_TOKENS = {"block_size": 32, "max_num_batched_tokens": 256}
CASES = {
    "heads in groups": Case(model=LLAMA),
    "as many heads of each kind": Case(model={**LLAMA, "num_key_value_heads": 8}),
    "one head for all": Case(model={**LLAMA, "num_key_value_heads": 1}),
    "embeddings used twice": Case(model={**LLAMA, "model_type": "qwen2", "tie_word_embeddings": True}),
    "cache of 8 bits": Case(model=LLAMA, arguments={"kv_cache_dtype": "fp8"}, is_fp8=True),
    "latent attention": Case(model=DEEPSEEK),
    "five windows to one": Case(model={**GEMMA, **layers(full=1, windowed=5)}, arguments=FEW_TOKENS),
    "windows in groups filled up": Case(model={**GEMMA, **layers(full=2, windowed=5)}, arguments=FEW_TOKENS),
    "nearly as many windows": Case(model={**GEMMA, **layers(full=3, windowed=4)}, arguments=FEW_TOKENS),
    "windows alone": Case(model={**GEMMA, **layers(full=0, windowed=4)}, arguments=FEW_TOKENS),
    "window longer than the context": Case(
        model={**GEMMA, **layers(full=2, windowed=2), "sliding_window": 4096}, arguments=FEW_TOKENS
    ),
}
SPLIT = {
    "heads shared out": Case(model=LLAMA, tensor_parallel=2),
    "one head on both": Case(model={**LLAMA, "num_key_value_heads": 1}, tensor_parallel=2),
    "latent on both": Case(model=DEEPSEEK, tensor_parallel=2),
    "two stages": Case(model=LLAMA, pipeline_parallel=2),
    "uneven stages": Case(model={**LLAMA, "num_hidden_layers": 5}, pipeline_parallel=2),
    "stages with windows": Case(
        model={**GEMMA, "num_hidden_layers": 12, "layer_types": 2 * layers(full=1, windowed=5)["layer_types"]},
        arguments=FEW_TOKENS,
        pipeline_parallel=2,
    ),
}
WINDOW_WITHOUT_WORD = Case(model={**LLAMA, "model_type": "mistral", "sliding_window": 128}, arguments=FEW_TOKENS)
FITTED = Case(model={**LLAMA, "max_position_embeddings": 8192}, memory=1 * MIB, arguments={"max_model_len": -1})


async def ask(python: Path, directory: Path, cases: list[Case], *, world: int = 1) -> list[dict[str, Any]]:
    """Return what vLLM says of each case on the first of `world` GPUs."""
    asked = [
        {
            "model": dict(case.model),
            "memory": case.memory,
            "stages": case.pipeline_parallel,
            "arguments": {"block_size": 16, "dtype": "bfloat16", **case.arguments},
        }
        for case in cases
    ]
    port = free_ports()
    answers = await asyncio.gather(
        *(_ask(python, directory, asked, rank=rank, world=world, port=port) for rank in range(world))
    )
    return answers[0]


async def _ask(
    python: Path, directory: Path, asked: list[dict[str, Any]], *, rank: int, world: int, port: int
) -> list[dict[str, Any]]:
    process = await asyncio.create_subprocess_exec(
        *(str(python), "-m", "fakes.serving.vllm_memory", str(directory), str(rank), str(world), str(port)),
        cwd=ROOT,
        env={
            "PATH": os.environ["PATH"],
            "HOME": str(directory),
            "HF_HUB_OFFLINE": "1",
            "VLLM_NO_USAGE_STATS": "1",
            "OMP_NUM_THREADS": "1",
            "GLOO_SOCKET_IFNAME": "lo",
            "VLLM_HOST_IP": "127.0.0.1",
            "VLLM_DIST_IDENT": str(port),
        },
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        said, noise = await process.communicate(json.dumps(asked).encode())
    except BaseException:
        process.kill()
        await process.wait()
        raise
    assert process.returncode == 0, noise.decode(errors="replace")[-3000:]
    found: list[dict[str, Any]] = json.loads(said)
    return found


def facts(case: Case, said: Mapping[str, Any]) -> ModelFacts:
    """Return what the config and the files tell, as they would be read from the Hub."""
    found = parse_config(said["config"], name="tiny", weights_bytes=said["checkpoint"])
    return replace(found, kv_cache_fp8=True) if case.is_fp8 else found


@pytest.fixture(scope="module")
def alone(python: Path, tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, dict[str, Any]]:
    cases = [*CASES.values(), WINDOW_WITHOUT_WORD, FITTED]
    said = asyncio.run(ask(python, tmp_path_factory.mktemp("alone"), cases))
    return dict(zip([*CASES, "without word", "fitted"], said, strict=True))


@pytest.fixture(scope="module")
def split(python: Path, tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, dict[str, Any]]:
    said = asyncio.run(ask(python, tmp_path_factory.mktemp("split"), list(SPLIT.values()), world=2))
    return dict(zip(SPLIT, said, strict=True))


def reckoned(case: Case, said: Mapping[str, Any]) -> float:
    """Return the bytes of cache of one sequence as long as the model takes."""
    return kv_cache_bytes(
        facts(case, said),
        tensor_parallel=case.tensor_parallel,
        pipeline_parallel=case.pipeline_parallel,
        tokens=said["context"],
        flight=said["in_flight"],
        block=said["block"],
    )


@pytest.mark.parametrize("name", CASES)
def test_cache_and_weights_are_as_vllm_has_them(alone: Mapping[str, dict[str, Any]], name: str) -> None:
    said = alone[name]

    assert reckoned(CASES[name], said) == pytest.approx(said["kv_cache"])
    assert said["checkpoint"] == pytest.approx(said["weights"], rel=NEAR)


@pytest.mark.parametrize("name", SPLIT)
def test_shares_of_two_gpus_are_as_vllm_has_them(split: Mapping[str, dict[str, Any]], name: str) -> None:
    case, said = SPLIT[name], split[name]

    assert reckoned(case, said) == pytest.approx(said["kv_cache"])
    held = weights_bytes(
        facts(case, said), tensor_parallel=case.tensor_parallel, pipeline_parallel=case.pipeline_parallel
    )
    assert held == pytest.approx(said["weights"], rel=NEAR)


def test_context_is_the_longest_beside_the_page_that_vllm_keeps_free(alone: Mapping[str, dict[str, Any]]) -> None:
    said = alone["fitted"]
    model, block = facts(FITTED, said), said["block"]

    def held(tokens: int) -> float:
        cache = kv_cache_bytes(model, tokens=tokens, flight=said["in_flight"], block=block)
        return cache + page_bytes(model, block=block)

    assert held(said["context"]) <= FITTED.memory < held(said["context"] + block)


def test_window_of_which_no_layer_is_said_to_be_promises_no_room(alone: Mapping[str, dict[str, Any]]) -> None:
    said = alone["without word"]

    assert said["kinds"] == ["SlidingWindowSpec"]
    assert reckoned(WINDOW_WITHOUT_WORD, said) > said["kv_cache"]
