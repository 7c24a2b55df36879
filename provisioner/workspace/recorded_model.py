"""A looked-up model in a Workspace's status: what was found once holds, whether or not the Hub answers later. Pure."""

from collections.abc import Mapping
from typing import Any, Final

from provisioner.gpus.model_facts import LatentAttention, ModelFacts

# Characters of what a config of anybody's may say.
_TEXT: Final = 100


def to_status(facts: ModelFacts) -> dict[str, Any]:
    """Return the facts as `status.model` has them."""
    latent = facts.latent
    return {
        "name": facts.name,
        "revision": facts.revision,
        "architecture": facts.architecture[:_TEXT],
        "quantization": facts.quantization[:_TEXT],
        "weightsBytes": facts.weights_bytes,
        "layers": facts.layers,
        "attentionLayers": facts.attention_layers,
        "attentionHeads": facts.attention_heads,
        "kvHeads": facts.kv_heads,
        "headDim": facts.head_dim,
        "context": facts.context,
        "window": facts.window,
        "windowLayers": facts.window_layers,
        "kvLoraRank": latent.kv_lora_rank if latent else 0,
        "ropeHeadDim": latent.rope_head_dim if latent else 0,
        "kvCacheFp8": facts.kv_cache_fp8,
    }


def from_status(raw: Mapping[str, Any], *, name: str) -> ModelFacts | None:
    """Return the facts, None where there are none of that model, or none that can be read."""
    if raw.get("name") != name:
        return None
    try:
        rank = int(raw["kvLoraRank"])
        return ModelFacts(
            name=name,
            revision=str(raw["revision"]),
            architecture=str(raw["architecture"]),
            quantization=str(raw["quantization"]),
            weights_bytes=int(raw["weightsBytes"]),
            layers=int(raw["layers"]),
            attention_layers=int(raw["attentionLayers"]),
            attention_heads=int(raw["attentionHeads"]),
            kv_heads=int(raw["kvHeads"]),
            head_dim=int(raw["headDim"]),
            context=int(raw["context"]),
            window=int(raw["window"]),
            window_layers=int(raw["windowLayers"]),
            latent=LatentAttention(kv_lora_rank=rank, rope_head_dim=int(raw["ropeHeadDim"])) if rank else None,
            kv_cache_fp8=bool(raw["kvCacheFp8"]),
        )
    except (KeyError, TypeError, ValueError):
        return None
