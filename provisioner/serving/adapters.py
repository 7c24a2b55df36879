"""Adapters, before vLLM sees them: one that it could not load would keep the model and all other adapters from serving.

What is checked is what vLLM itself refuses (its PEFT helper), and what it would find only when it is too late: shapes
that belong to another model.
"""

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from provisioner.serving.arguments import allowed_rank
from provisioner.serving.problem import Problem
from provisioner.serving.weights import Tensor, Unreadable, read_header

CONFIG: Final = "adapter_config.json"
WEIGHTS: Final = "adapter_model.safetensors"
_OLD_WEIGHTS: Final = "adapter_model.bin"
_NAME: Final = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,126}[A-Za-z0-9])?")
_PLAIN_STARTS: Final = frozenset({"gaussian", "eva", "orthogonal", "mica", "lora_ga"})
_NOT_SERVED: Final = {
    "use_dora": "DoRA",
    "lora_bias": "a LoRA bias",
    "alora_invocation_tokens": "activated LoRA",
    "layer_replication": "layer replication",
    "use_bdlora": "block-diagonal LoRA",
    "use_qalora": "QALoRA",
}
# Whose layers are all of one shape, which their config tells. In others the same names may be of other widths: doubled
# by a gate, or a layer's own.
_UNIFORM: Final = frozenset({"LlamaForCausalLM", "MistralForCausalLM", "Qwen2ForCausalLM", "Qwen3ForCausalLM"})
_LAYER: Final = re.compile(r"(?:^|\.)layers\.(\d+)\.")
_PART: Final = re.compile(r"\.(?P<module>\w+)\.lora_(?P<half>[AB])(?:\.default)?\.weight$")
_PREFIX: Final = "base_model.model."
# What reads the model's hidden state, and what writes it.
_READS_HIDDEN: Final = frozenset({"q_proj", "k_proj", "v_proj", "qkv_proj", "gate_proj", "up_proj", "gate_up_proj"})
_WRITES_HIDDEN: Final = frozenset({"o_proj", "down_proj"})
_HEADS_OF: Final = {"q_proj": "num_attention_heads", "k_proj": "num_key_value_heads", "v_proj": "num_key_value_heads"}
# Parts of a model of several kinds of input that have shapes of their own.
_OTHER_TOWERS: Final = ("vision", "visual", "audio", "expert", "image")


class Unusable(ValueError):
    """The adapter cannot be served; the message tells why."""


@dataclass(frozen=True, kw_only=True)
class BaseShape:
    """What an adapter must fit to: numbers of the model's config, 0 where not known.

    `widths` are those of what modules read (A) and write (B) beside the hidden state, as far as they are known.
    """

    name: str
    hidden: int = 0
    layers: int = 0
    widths: Mapping[tuple[str, str], int] = field(default_factory=dict)

    @classmethod
    def of(cls, name: str, config: Mapping[str, Any]) -> "BaseShape":
        """Return the shape by a model's config.json."""
        text = config.get("text_config")
        fields = text if isinstance(text, Mapping) else config
        architectures = config.get("architectures")
        is_uniform = (
            isinstance(architectures, list) and architectures != [] and _UNIFORM.issuperset(map(str, architectures))
        )
        return cls(
            name=name,
            hidden=_whole(fields, "hidden_size"),
            layers=_whole(fields, "num_hidden_layers"),
            widths=_widths(fields) if is_uniform else {},
        )


@dataclass(frozen=True, kw_only=True)
class Adapter:
    """An adapter that can be served. `note` is what its owner should know."""

    name: str
    path: Path
    config: Mapping[str, Any]
    rank: int
    note: str = ""


def examine(name: str, directory: Path, *, base: BaseShape) -> Adapter:
    """Return the adapter in the directory. Raises Unusable."""
    if not _NAME.fullmatch(name):
        raise Unusable("its name may have letters, digits, dots, dashes and underscores alone")
    config = _config(directory)
    rank = _rank(config)
    _check_features(config)
    weights = directory / WEIGHTS
    if weights.is_file():
        try:
            _check_shapes(read_header(weights), config, base)
        except (Unreadable, OSError) as error:
            raise Unusable(str(error)) from error
    elif not (directory / _OLD_WEIGHTS).is_file():
        raise Unusable(f"it has no {WEIGHTS}")
    return Adapter(name=name, path=directory, config=config, rank=rank, note=_note(config, base))


def _config(directory: Path) -> Mapping[str, Any]:
    path = directory / CONFIG
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise Unusable(f"it has no {CONFIG}") from None
    except (OSError, ValueError, RecursionError) as error:
        raise Unusable(f"its {CONFIG} cannot be read: {error}") from error
    if not isinstance(config, dict):
        raise Unusable(f"its {CONFIG} is no JSON object")
    kind = config.get("peft_type", "LORA")
    if kind != "LORA":
        raise Unusable(f"it is of type {kind!s:.40}: only LORA is served")
    if not _is_number(config.get("lora_alpha")):
        raise Unusable("its lora_alpha is no number")
    alphas = config.get("alpha_pattern") or {}
    if not isinstance(alphas, dict) or not all(map(_is_number, alphas.values())):
        raise Unusable("its alpha_pattern is no map of numbers")
    if not config.get("target_modules") and not config.get("target_parameters"):
        raise Unusable("it has no target_modules")
    return config


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _rank(config: Mapping[str, Any]) -> int:
    pattern = config.get("rank_pattern") or {}
    ranks = [config.get("r"), *(pattern.values() if isinstance(pattern, dict) else (None,))]
    if not all(isinstance(rank, int) and not isinstance(rank, bool) and rank > 0 for rank in ranks):
        raise Unusable("its rank r must be a whole number from 1")
    largest = max(rank for rank in ranks if isinstance(rank, int))
    try:
        allowed_rank(largest)
    except Problem as problem:
        raise Unusable(f"its {problem}") from problem
    return largest


def _rank_of(module: str, config: Mapping[str, Any]) -> int:
    """Return the rank that a module has by the first pattern for it, as PEFT and vLLM choose it."""
    for pattern, rank in (config.get("rank_pattern") or {}).items():
        try:
            matches = re.match(rf"(.*\.)?({pattern})$", module.removeprefix(_PREFIX))
        except re.error as error:
            raise Unusable(f"its rank_pattern has {pattern[:80]!r}, which is no expression: {error}") from error
        if matches:
            return int(rank)
    return int(config["r"])


def _check_features(config: Mapping[str, Any]) -> None:
    for feature, what in _NOT_SERVED.items():
        if config.get(feature):
            raise Unusable(f"it uses {what}, which vLLM does not serve")
    if config.get("bias", "none") != "none":
        raise Unusable("it has biases, which vLLM does not serve")
    saved = config.get("modules_to_save") or []
    if not isinstance(saved, list) or set(map(str, saved)) - {"classifier", "score"}:
        raise Unusable(f"it replaces whole modules ({saved!s:.80}), which vLLM does not serve")
    start = config.get("init_lora_weights", True)
    if isinstance(start, str) and start.lower() not in _PLAIN_STARTS:
        raise Unusable(f"it was made with init_lora_weights={start:.40}, which changes the base model")


def _check_shapes(tensors: Mapping[str, Tensor], config: Mapping[str, Any], base: BaseShape) -> None:
    found = False
    for name, tensor in tensors.items():
        part = _PART.search(name)
        if part is None or len(tensor.shape) != 2:
            continue
        found = True
        inner, outer = tensor.shape if part["half"] == "A" else reversed(tensor.shape)
        rank = _rank_of(name[: part.start("half") - len(".lora_")], config)
        # All experts of a layer may have one matrix, in which each has its own part of that rank.
        if inner != rank and "expert" not in name:
            raise Unusable(f"{name[:120]} is of rank {inner}, its {CONFIG} says {rank}")
        if any(tower in name for tower in _OTHER_TOWERS):
            continue
        layer = _LAYER.search(name)
        if layer and base.layers and int(layer[1]) >= base.layers:
            raise Unusable(f"it was made for another model: it has a layer {layer[1]}, {base.name} has {base.layers}")
        touches = _READS_HIDDEN if part["half"] == "A" else _WRITES_HIDDEN
        width = base.hidden if part["module"] in touches else base.widths.get((part["module"], part["half"]), 0)
        if width and outer != width:
            raise Unusable(f"it was made for another model: {part['module']} is {outer} wide, {base.name} is {width}")
    if not found:
        raise Unusable(f"its {WEIGHTS} has no LoRA weights in it")


def _widths(config: Mapping[str, Any]) -> dict[tuple[str, str], int]:
    heads = _whole(config, "num_attention_heads")
    head = _whole(config, "head_dim") or (_whole(config, "hidden_size") // heads if heads else 0)
    found = {(module, "B"): (_whole(config, of) or heads) * head for module, of in _HEADS_OF.items()}
    found["o_proj", "A"] = heads * head
    inner = _whole(config, "intermediate_size")
    return found | {("gate_proj", "B"): inner, ("up_proj", "B"): inner, ("down_proj", "A"): inner}


def _whole(config: Mapping[str, Any], name: str) -> int:
    value = config.get(name)
    return value if isinstance(value, int) and not isinstance(value, bool) else 0


def _note(config: Mapping[str, Any], base: BaseShape) -> str:
    made_for = config.get("base_model_name_or_path")
    if not isinstance(made_for, str) or not made_for:
        return ""
    # A path says where somebody kept the model, not which one it was.
    if "/" in made_for.strip("/") and not made_for.startswith(("/", ".")) and not base.name.startswith("/"):
        same = made_for.lower() == base.name.lower()
    else:
        same = made_for.rstrip("/").rpartition("/")[2].lower() == base.name.rstrip("/").rpartition("/")[2].lower()
    return "" if same else f"it was made for {made_for[:120]}, not for {base.name}"
