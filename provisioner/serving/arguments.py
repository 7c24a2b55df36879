"""The command line of `vllm serve`: from the environment, the adapters that can be served and the user's options. Pure.

An option that vLLM does not know is found by vLLM itself: its parser ends in the same seconds that asking it for the
list of its options would take, as both are spent importing it, and vllm_errors.py makes one line of what it says.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from provisioner.serving.environment import DRAIN, GROUP_PORT, PORT, ServeEnvironment
from provisioner.serving.options import Options, Value, to_arguments
from provisioner.serving.problem import Problem

# Where vLLM listens, on loopback alone: the gate is in front of it.
UPSTREAM_HOST: Final = "127.0.0.1"
UPSTREAM_PORT: Final = PORT + 1
# What --max-lora-rank may be (vLLM's MaxLoRARanks).
RANKS: Final = (1, 8, 16, 32, 64, 128, 256, 320, 512)


@dataclass(frozen=True, kw_only=True)
class LoraModule:
    """An adapter as vLLM is to load it: the name that clients ask for, its files, its largest rank."""

    name: str
    path: Path
    rank: int


def build(
    environment: ServeEnvironment, *, options: Options, adapters: Sequence[LoraModule] = (), port: int = UPSTREAM_PORT
) -> list[str]:
    """Return the arguments after `vllm`. Raises Problem where the environment contradicts itself."""
    ours = _ours(environment, adapters)
    # One of each: of two the last would win, but a reader of the log should not have to know that.
    return ["serve", environment.model, *to_arguments({**ours, **options.values, **_fixed(environment, port)})]


def served_name(environment: ServeEnvironment, options: Options) -> str:
    """Return what to call the model when asking for it."""
    chosen = options.values.get("served-model-name")
    if isinstance(chosen, tuple) and chosen:
        return chosen[0]
    if isinstance(chosen, str):
        return chosen
    return environment.served_names[0] if environment.served_names else environment.model


def _ours(environment: ServeEnvironment, adapters: Sequence[LoraModule]) -> dict[str, Value]:
    values: dict[str, Value] = {
        "gpu-memory-utilization": str(environment.gpu_memory_utilization),
        "max-model-len": str(environment.max_model_len or "auto"),
        "tensor-parallel-size": str(environment.tensor_parallel),
    }
    if environment.pipeline_parallel > 1:
        values["pipeline-parallel-size"] = str(environment.pipeline_parallel)
    if environment.data_parallel > 1:
        values["data-parallel-size"] = str(environment.data_parallel)
    if environment.served_names:
        values["served-model-name"] = environment.served_names
    if environment.dtype:
        values["dtype"] = environment.dtype
    if environment.tool_parser:
        values |= {"tool-call-parser": environment.tool_parser, "enable-auto-tool-choice": True}
    if environment.reasoning_parser:
        values["reasoning-parser"] = environment.reasoning_parser
    if adapters:
        values |= {
            "enable-lora": True,
            "lora-modules": tuple(f"{adapter.name}={adapter.path}" for adapter in adapters),
            "max-loras": str(len(adapters)),
            "max-lora-rank": str(allowed_rank(max(adapter.rank for adapter in adapters))),
        }
    return values


def _fixed(environment: ServeEnvironment, port: int) -> dict[str, Value]:
    values: dict[str, Value] = {"shutdown-timeout": str(DRAIN)}
    if environment.revision:
        values["revision"] = environment.revision
    if environment.rank == 0:
        values |= {"host": UPSTREAM_HOST, "port": str(port)}
    if environment.nodes == 1:
        return values
    if not environment.leader:
        raise Problem(f"LEADER_ADDRESS is missing: the model is split over {environment.nodes} pods")
    if environment.rank >= environment.nodes:
        raise Problem(f"RANK is {environment.rank} in a group of {environment.nodes}: it counts from 0")
    values |= {
        "distributed-executor-backend": "mp",
        "master-addr": environment.leader,
        "master-port": str(GROUP_PORT),
        "nnodes": str(environment.nodes),
        "node-rank": str(environment.rank),
    }
    if environment.rank:
        values["headless"] = True
    return values


def allowed_rank(rank: int) -> int:
    """Return the least rank of vLLM's that has room for this one. Raises Problem where none has."""
    for allowed in RANKS:
        if allowed >= rank:
            return allowed
    raise Problem(f"rank {rank} is larger than {RANKS[-1]}, the most that vLLM serves")
