"""A model's shape from its `config.json`, as transformers write it, or from the `params.json` of Mistral's models."""

from collections.abc import Mapping
from typing import Any, Final

from provisioner.gpus.model_facts import LatentAttention, ModelFacts

# Of models of several parts, the one that writes text.
_TEXT_CONFIGS: Final = ("text_config", "llm_config", "language_config", "thinker_config")
# How configs call what they mean by a layer whose cache grows with each token, and one whose cache stops at a window.
_FULL: Final = frozenset({"full_attention", "attention", "global", "*"})
_WINDOWED: Final = frozenset({"sliding_attention", "chunked_attention", "local"})
# Mistral's own names: params.json.
_MISTRAL: Final[Mapping[str, str]] = {
    "dim": "hidden_size",
    "n_layers": "num_hidden_layers",
    "n_heads": "num_attention_heads",
    "n_kv_heads": "num_key_value_heads",
    "max_seq_len": "max_position_embeddings",
}
# GPT-2's, which some still have.
_OLD: Final[Mapping[str, str]] = {
    "n_embd": "hidden_size",
    "n_layer": "num_hidden_layers",
    "n_head": "num_attention_heads",
    "n_positions": "max_position_embeddings",
    "seq_length": "max_position_embeddings",
    "num_layers": "num_hidden_layers",
}
_MOST: Final = 10**6


class UnusableConfig(ValueError):
    """The config does not say what has to be known; the message names the field."""


def parse_config(
    config: Mapping[str, Any], *, name: str, weights_bytes: int, revision: str = "", is_mistral: bool = False
) -> ModelFacts:
    """Return the facts of a model by its config and the size of its weights. Raises UnusableConfig."""
    fields = _fields(config, is_mistral=is_mistral)
    layers = _number(fields, "num_hidden_layers")
    heads = _number(fields, "num_attention_heads")
    kv_heads = 1 if fields.get("multi_query") else _number(fields, "num_key_value_heads", default=heads)
    head_dim = _number(fields, "head_dim", default=0) or _number(fields, "hidden_size") // heads
    latent = None
    if rank := _number(fields, "kv_lora_rank", default=0):
        latent = LatentAttention(kv_lora_rank=rank, rope_head_dim=_number(fields, "qk_rope_head_dim", default=0))
    full, windowed = _attention(fields, layers)
    quantization = fields.get("quantization_config") or config.get("quantization_config") or {}
    return ModelFacts(
        name=name,
        revision=revision,
        architecture=_architecture(config),
        weights_bytes=weights_bytes,
        layers=layers,
        attention_layers=full,
        attention_heads=heads,
        kv_heads=kv_heads,
        head_dim=head_dim,
        context=_number(fields, "max_position_embeddings", default=0),
        window=_window(fields) if windowed else 0,
        window_layers=windowed,
        latent=latent,
        quantization=str(quantization.get("quant_method") or "") if isinstance(quantization, Mapping) else "",
        kv_cache_fp8=_has_fp8_cache(quantization),
    )


def _fields(config: Mapping[str, Any], *, is_mistral: bool) -> dict[str, Any]:
    fields = dict(config)
    for part in _TEXT_CONFIGS:
        if isinstance(inner := config.get(part), Mapping):
            fields |= inner
            # One level deeper in models that also hear and speak.
            for deeper in _TEXT_CONFIGS:
                if isinstance(inner.get(deeper), Mapping):
                    fields |= inner[deeper]
    for other, ours in {**_OLD, **(_MISTRAL if is_mistral else {})}.items():
        if other in fields:
            fields.setdefault(ours, fields[other])
    return fields


def _number(fields: Mapping[str, Any], name: str, *, default: int | None = None) -> int:
    value = fields.get(name)
    if value is None and default is not None:
        return default
    if isinstance(value, list) and value:
        # One number for each layer: what holds for the largest holds for all.
        value = max((item for item in value if isinstance(item, int)), default=None)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= _MOST * 100:
        raise UnusableConfig(f"the model's config.json has no usable {name}")
    if value == 0 and default is None:
        raise UnusableConfig(f"the model's config.json says {name} is 0")
    return value


def _attention(fields: Mapping[str, Any], layers: int) -> tuple[int, int]:
    """Return how many layers have a cache that grows with each token, and how many one that stops at the window."""
    kinds = fields.get("layer_types") or fields.get("layers_block_type")
    if isinstance(pattern := fields.get("hybrid_override_pattern"), str) and not kinds:
        kinds = list(pattern)
    if isinstance(kinds, list) and kinds and all(isinstance(kind, str) for kind in kinds):
        full = sum(kind in _FULL for kind in kinds)
        windowed = sum(kind in _WINDOWED for kind in kinds) if _window(fields) else 0
        if full + windowed:
            return full, windowed
    # A window without word of whose it is: taken for nobody's, which promises less room than there may be.
    return layers, 0


def _window(fields: Mapping[str, Any]) -> int:
    for name in ("sliding_window", "attention_chunk_size"):
        if isinstance(value := fields.get(name), int) and not isinstance(value, bool) and value > 0:
            return value
    return 0


def _architecture(config: Mapping[str, Any]) -> str:
    architectures = config.get("architectures")
    return str(architectures[0]) if isinstance(architectures, list) and architectures else ""


def _has_fp8_cache(quantization: object) -> bool:
    if not isinstance(quantization, Mapping):
        return False
    scheme = quantization.get("kv_cache_scheme")
    return isinstance(scheme, Mapping) and scheme.get("num_bits") == 8 and scheme.get("type") == "float"
