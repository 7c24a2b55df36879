"""The environment of the serving image: what the author of its pods tells it, and where it finds what is mounted. Pure.

One place for both sides: the pods are written by one image and read by another, of the same release.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation
from typing import Final

PORT: Final = 5000
# Between the nodes of a group (vLLM's --master-port).
GROUP_PORT: Final = 29501

# The subcommands of the image's program.
SERVE: Final = "serve"
TUNE: Final = "tune"
PULL: Final = "pull"
FETCH: Final = "fetch"
CHECK: Final = "check"

# Where things are mounted. The root file system is read-only.
MODELS: Final = "/models"
CACHE: Final = "/cache"
ADAPTERS: Final = "/adapters"
DATA: Final = "/data"
RESULTS: Final = "/results"
CONFIG: Final = "/config"
REGISTRY_SECRETS: Final = "/registry"
INFERENCE_CONFIG: Final = "inference_config.yaml"
TRAINING_CONFIG: Final = "training_config.yaml"

# Seconds. Endpoints forget a pod that goes before it stops to take requests, then what it has taken is answered.
PRE_STOP: Final = 15
DRAIN: Final = 60
# Until a server that does not come to its end is killed by its own parent.
MARGIN: Final = 15


# No number here has more; Python itself refuses to read those of some thousand.
_DIGITS: Final = 9


class BadEnvironment(ValueError):
    """A variable is missing or says nothing that can be meant; the message names it."""


@dataclass(frozen=True, kw_only=True)
class ServedAdapter:
    """A LoRA adapter under ADAPTERS/`name`, and the factor that its weights count with."""

    name: str
    strength: Decimal = Decimal(1)


@dataclass(frozen=True, kw_only=True)
class ServeEnvironment:
    """How a model is served.

    `model` is a Hugging Face ID or a path, `served_names` what clients may call it. `nodes` is the size of the group
    whose leader is at `leader`, `rank` this pod's number in it. `max_model_len` is 0 where vLLM is to find the longest
    that fits. `dtype` is empty for vLLM's choice.
    """

    model: str
    revision: str = ""
    served_names: tuple[str, ...] = ()
    tensor_parallel: int = 1
    pipeline_parallel: int = 1
    data_parallel: int = 1
    nodes: int = 1
    rank: int = 0
    leader: str = ""
    gpu_memory_utilization: Decimal = Decimal("0.9")
    max_model_len: int = 0
    dtype: str = ""
    tool_parser: str = ""
    reasoning_parser: str = ""
    adapters: tuple[ServedAdapter, ...] = field(default_factory=tuple)

    def to_env(self) -> dict[str, str]:
        """Return the variables, without those that say what is so anyway; RANK is the pod's own to know."""
        values = {
            "MODEL": self.model,
            "MODEL_REVISION": self.revision,
            "SERVED_MODEL_NAMES": ",".join(self.served_names),
            "TENSOR_PARALLEL_SIZE": str(self.tensor_parallel),
            "PIPELINE_PARALLEL_SIZE": str(self.pipeline_parallel),
            "DATA_PARALLEL_SIZE": str(self.data_parallel),
            "NODES": str(self.nodes),
            "LEADER_ADDRESS": self.leader,
            "GPU_MEMORY_UTILIZATION": str(self.gpu_memory_utilization),
            "MAX_MODEL_LEN": str(self.max_model_len) if self.max_model_len else "auto",
            "DTYPE": self.dtype,
            "TOOL_CALL_PARSER": self.tool_parser,
            "REASONING_PARSER": self.reasoning_parser,
            "ADAPTERS": json.dumps([{"name": a.name, "strength": str(a.strength)} for a in self.adapters])
            if self.adapters
            else "",
        }
        return {name: value for name, value in values.items() if value}

    @classmethod
    def from_env(cls, environment: Mapping[str, str]) -> "ServeEnvironment":
        """Read the variables. Raises BadEnvironment."""
        model = environment.get("MODEL", "")
        if not model:
            raise BadEnvironment("MODEL is missing: a Hugging Face ID or the path of a model")
        longest = environment.get("MAX_MODEL_LEN", "auto")
        return cls(
            model=model,
            revision=environment.get("MODEL_REVISION", ""),
            served_names=tuple(name for name in environment.get("SERVED_MODEL_NAMES", "").split(",") if name),
            tensor_parallel=_number(environment, "TENSOR_PARALLEL_SIZE", default=1),
            pipeline_parallel=_number(environment, "PIPELINE_PARALLEL_SIZE", default=1),
            data_parallel=_number(environment, "DATA_PARALLEL_SIZE", default=1),
            nodes=_number(environment, "NODES", default=1),
            rank=_number(environment, "RANK", default=0, least=0),
            leader=environment.get("LEADER_ADDRESS", ""),
            gpu_memory_utilization=_fraction(environment, "GPU_MEMORY_UTILIZATION", default=Decimal("0.9")),
            max_model_len=0 if longest == "auto" else _number(environment, "MAX_MODEL_LEN", default=0),
            dtype=environment.get("DTYPE", ""),
            tool_parser=environment.get("TOOL_CALL_PARSER", ""),
            reasoning_parser=environment.get("REASONING_PARSER", ""),
            adapters=_adapters(environment.get("ADAPTERS", "")),
        )


@dataclass(frozen=True, kw_only=True)
class TuneEnvironment:
    """How a model is tuned.

    `method` is lora or qlora, `image` what the adapter is pushed as, empty where it stays in RESULTS. `urls` are where
    the data is fetched from into DATA, none where it is mounted there.
    """

    model: str
    method: str
    revision: str = ""
    image: str = ""
    urls: tuple[str, ...] = ()
    processes: int = 1

    def to_env(self) -> dict[str, str]:
        """Return the variables, without those that say nothing."""
        values = {
            "MODEL": self.model,
            "MODEL_REVISION": self.revision,
            "METHOD": self.method,
            "OUTPUT_IMAGE": self.image,
            **urls_to_env(self.urls),
            "PROCESSES": str(self.processes),
        }
        return {name: value for name, value in values.items() if value}

    @classmethod
    def from_env(cls, environment: Mapping[str, str]) -> "TuneEnvironment":
        """Read the variables. Raises BadEnvironment."""
        model, method = environment.get("MODEL", ""), environment.get("METHOD", "").lower()
        if not model:
            raise BadEnvironment("MODEL is missing: a Hugging Face ID or the path of a model")
        if method not in ("lora", "qlora"):
            raise BadEnvironment(f"METHOD is {method[:40]!r}: must be lora or qlora")
        return cls(
            model=model,
            method=method,
            revision=environment.get("MODEL_REVISION", ""),
            image=environment.get("OUTPUT_IMAGE", ""),
            urls=urls_from_env(environment),
            processes=_number(environment, "PROCESSES", default=1),
        )


def urls_from_env(environment: Mapping[str, str]) -> tuple[str, ...]:
    """Return where data is fetched from. Raises BadEnvironment."""
    return _urls(environment.get("DATA_URLS", ""))


def urls_to_env(urls: tuple[str, ...]) -> dict[str, str]:
    """Return the variable that tells where data is fetched from."""
    return {"DATA_URLS": json.dumps(list(urls))} if urls else {}


def _urls(text: str) -> tuple[str, ...]:
    if not text:
        return ()
    try:
        urls = json.loads(text)
    except (ValueError, RecursionError):
        urls = None
    if not isinstance(urls, list) or not all(isinstance(url, str) for url in urls):
        raise BadEnvironment("DATA_URLS must be a JSON list of addresses")
    return tuple(urls)


def _number(environment: Mapping[str, str], name: str, *, default: int, least: int = 1) -> int:
    text = environment.get(name, "")
    if not text:
        return default
    if not (text.isascii() and text.isdecimal() and len(text) <= _DIGITS) or int(text) < least:
        raise BadEnvironment(f"{name} is {text[:40]!r}: must be a whole number from {least}")
    return int(text)


def _fraction(environment: Mapping[str, str], name: str, *, default: Decimal) -> Decimal:
    text = environment.get(name, "")
    try:
        value = Decimal(text) if text else default
    except InvalidOperation:
        value = Decimal(0)
    if not (value.is_finite() and 0 < value <= 1):
        raise BadEnvironment(f"{name} is {text[:40]!r}: must be above 0 and at most 1")
    return value


def _adapters(text: str) -> tuple[ServedAdapter, ...]:
    if not text:
        return ()
    try:
        adapters = tuple(
            ServedAdapter(name=str(entry["name"]), strength=Decimal(str(entry.get("strength", "1"))))
            for entry in json.loads(text)
        )
    except (ValueError, TypeError, KeyError, AttributeError, ArithmeticError, RecursionError) as error:
        raise BadEnvironment('ADAPTERS must be a JSON list of {"name": ..., "strength": ...}') from error
    for adapter in adapters:
        if not (adapter.strength.is_finite() and 0 <= adapter.strength <= 1):
            raise BadEnvironment(f"ADAPTERS: the strength of {adapter.name[:80]!r} is no number from 0 to 1")
    return adapters
