"""The models that a Workspace may name by a short name, with all that has to be known to size and to serve them. Pure.

Names, sizes of the weights and context lengths are those of KAITO's catalogue (kaito-project/kaito,
`presets/workspace/models/model_catalog.yaml`), shapes those of each model's published config.json. Which parsers of
tool calls and of reasoning a model wants is what its card and vLLM's documentation say.
"""

import functools
import json
from collections.abc import Mapping
from importlib import resources

from pydantic import BaseModel, ConfigDict, Field

from provisioner.gpus.model_facts import LatentAttention, ModelFacts

_GIB = 2**30


class _Latent(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    kv_lora_rank: int = Field(gt=0)
    rope_head_dim: int = Field(gt=0)


class Preset(BaseModel):
    """One model. `name` is its Hugging Face ID; `gated` ones are to be had with a token alone.

    `tuning` says whether it may be tuned. `window_layers` are those of `layers` with a sliding window.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(pattern=r"^[\w.-]+/[\w.-]+$")
    aliases: tuple[str, ...] = Field(min_length=1)
    architecture: str
    weights_gib: float = Field(gt=0)
    context: int = Field(gt=0)
    layers: int = Field(gt=0)
    attention_heads: int = Field(gt=0)
    kv_heads: int = Field(gt=0)
    head_dim: int = Field(gt=0)
    window: int = Field(default=0, ge=0)
    window_layers: int = Field(default=0, ge=0)
    latent: _Latent | None = None
    quantization: str = ""
    gated: bool = False
    tuning: bool = False
    tool_parser: str = ""
    reasoning_parser: str = ""

    @property
    def facts(self) -> ModelFacts:
        """Return what sizing needs of it."""
        return ModelFacts(
            name=self.name,
            architecture=self.architecture,
            weights_bytes=round(self.weights_gib * _GIB),
            layers=self.layers,
            attention_layers=self.layers - self.window_layers,
            attention_heads=self.attention_heads,
            kv_heads=self.kv_heads,
            head_dim=self.head_dim,
            context=self.context,
            window=self.window,
            window_layers=self.window_layers,
            latent=LatentAttention(**self.latent.model_dump()) if self.latent else None,
            quantization=self.quantization,
        )


def find(name: str) -> Preset | None:
    """Return the preset of that short name or Hugging Face ID, in any case, or None."""
    return _by_name().get(name.lower())


def presets() -> tuple[Preset, ...]:
    """Return all presets in the order of the data file."""
    return tuple(dict.fromkeys(_by_name().values()))


@functools.cache
def _by_name() -> Mapping[str, Preset]:
    text = resources.files(__package__).joinpath("presets.json").read_text(encoding="utf-8")
    found = [Preset.model_validate(item) for item in json.loads(text)]
    return {name.lower(): preset for preset in found for name in (preset.name, *preset.aliases)}
