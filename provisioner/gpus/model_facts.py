"""What there is to know about a language model to tell how much GPU memory it takes and how it can be split. Pure."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class LatentAttention:
    """Multi-head latent attention (DeepSeek's): one compressed vector a token and layer, the same on every GPU."""

    kv_lora_rank: int
    rope_head_dim: int


@dataclass(frozen=True, kw_only=True)
class ModelFacts:
    """A model's shape, as its config and its files tell.

    `name` is its Hugging Face ID, `revision` the commit that the facts are of, empty where they are of no commit in
    particular. `weights_bytes` are its safetensors files together, as they are stored: a quantised model's are small.
    `context` is the longest sequence that it was made for, in tokens. `attention_layers` are those of `layers` whose
    KV cache grows with every token, `window_layers` those where it stops growing at `window` tokens; linear attention
    and state space layers are neither.
    """

    name: str
    revision: str = ""
    architecture: str = ""
    weights_bytes: int
    layers: int
    attention_layers: int
    attention_heads: int
    kv_heads: int
    head_dim: int
    context: int
    window: int = 0
    window_layers: int = 0
    latent: LatentAttention | None = None
    quantization: str = ""
    kv_cache_fp8: bool = False

    @property
    def weights_gib(self) -> float:
        """Return the size of the weights."""
        return self.weights_bytes / 2**30
