"""`python -m fakes.serving.vllm_memory DIRECTORY RANK WORLD PORT`: the memory that vLLM itself reckons for models.

Reads cases from standard input and writes what it found to standard output, both JSON lists. Run by the Python of the
serving environment, once for each rank: models are made and asked for their caches by vLLM's own code, but no engine is
started and no cache is taken, so that a case costs a part of a second where a server costs half a minute.
"""

import importlib
import json
import os
import sys
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM


def make(directory: Path, fields: dict[str, Any]) -> None:
    """Write a model of random weights without a tokenizer."""
    torch.manual_seed(20)
    config = AutoConfig.for_model(**fields)
    AutoModelForCausalLM.from_config(config).to(torch.bfloat16).save_pretrained(directory)


def reckon(directory: Path, case: dict[str, Any], *, rank: int, world: int, port: str) -> dict[str, Any]:
    """Return what vLLM makes of a model: bytes of its weights, and of its cache on this rank."""
    config = _engine_config(directory, case, world=world)
    current, caches = _module("vllm.config").set_current_vllm_config, _module("vllm.v1.core.kv_cache_utils")
    loader, types = _module("vllm.model_executor.model_loader.utils"), _module("vllm.utils.torch_utils")
    with current(config), types.set_default_torch_dtype(config.model_config.dtype):
        _join(rank=rank, world=world, stages=case["stages"], port=port)
        # What is there before the weights are loaded is not yet packed for this processor's instructions.
        model = loader.initialize_model(vllm_config=config)
        spec = _module("vllm.v1.worker.gpu.attn_utils").get_kv_cache_spec(config)
        _choose_layout(config, spec)
        # How layers share pages is decided for all stages together.
        specs: list[Any] = [None] * world
        torch.distributed.all_gather_object(specs, spec)
        plan = caches.get_kv_cache_configs(config, specs, [case["memory"]] * world)[rank]
    concurrency = caches.get_max_concurrency_for_kv_cache_config(config, plan)
    weights = {weight.data_ptr(): weight.numel() * weight.element_size() for weight in model.parameters()}
    return {
        "checkpoint": sum(file.stat().st_size for file in directory.glob("*.safetensors")),
        "weights": sum(weights.values()),
        "kv_cache": max(tensor.size for tensor in plan.kv_cache_tensors) / concurrency,
        "block": next(iter(plan.kv_cache_groups)).kv_cache_spec.block_size,
        "context": config.model_config.max_model_len,
        "in_flight": config.max_in_flight_tokens,
        "kinds": sorted({type(layer).__name__ for layer in spec.values()}),
        "config": json.loads((directory / "config.json").read_text()),
    }


def _join(*, rank: int, world: int, stages: int, port: str) -> None:
    parallel = _module("vllm.distributed.parallel_state")
    if not torch.distributed.is_initialized():
        parallel.init_distributed_environment(world, rank, f"tcp://127.0.0.1:{port}", rank, "gloo")
    # Its groups are those of the model: one of experts has one more.
    parallel.destroy_model_parallel()
    parallel.ensure_model_parallel_initialized(world // stages, stages)


def _choose_layout(config: Any, spec: dict[str, Any]) -> None:
    """Do what the engine does before it plans."""
    _module("vllm.v1.core.single_type_kv_cache_manager").register_all_kvcache_specs(config)
    worker, backends = _module("vllm.v1.worker.worker_base"), _module("vllm.v1.attention.backends.utils")
    possible = worker.get_supported_kv_cache_layouts(worker.get_current_attn_backends(config))
    backends.resolve_kv_cache_layout(config, [[layout.name for layout in possible]], spec.values())


def _inspect_here(architecture: str) -> None:
    """Have vLLM look at its class of the model in this process: for each it would start another one, for seconds."""
    registry = _module("vllm.model_executor.models.registry").ModelRegistry
    lazy = registry.models[architecture]
    if hasattr(lazy, "module_name"):
        registry.register_model(architecture, lazy.load_model_cls())


def _module(name: str) -> Any:
    return importlib.import_module(name)


def _engine_config(directory: Path, case: dict[str, Any], *, world: int) -> Any:
    _inspect_here(json.loads((directory / "config.json").read_text())["architectures"][0])
    arguments = _module("vllm.engine.arg_utils").EngineArgs(
        model=str(directory),
        skip_tokenizer_init=True,
        enforce_eager=True,
        tensor_parallel_size=world // case["stages"],
        pipeline_parallel_size=case["stages"],
        kv_cache_memory_bytes=case["memory"],
        **case["arguments"],
    )
    return arguments.create_engine_config()


def main() -> None:
    """Answer each case."""
    directory, rank, world, port = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
    # Whatever the libraries print is no part of the answer, nor what is printed by what they start.
    answers = os.dup(sys.stdout.fileno())
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    cases = json.load(sys.stdin)
    models = [directory / f"{number}-{rank}" for number in range(len(cases))]
    # Before any is asked for: what has joined others leaves the writing of models to the first of them.
    for model, case in zip(models, cases, strict=True):
        make(model, case["model"])
    found = [reckon(model, case, rank=rank, world=world, port=port) for model, case in zip(models, cases, strict=True)]
    with os.fdopen(answers, "w") as file:
        json.dump(found, file)


if __name__ == "__main__":
    main()
