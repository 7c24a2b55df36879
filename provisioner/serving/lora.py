"""The strength of an adapter: a factor on what it adds to the model.

What LoRA adds is `scaling x B x A`, with `scaling = lora_alpha / r`, or `lora_alpha / sqrt(r)` for rsLoRA: linear in
alpha either way, and in the alpha of each module that has one of its own (`alpha_pattern`). So a copy of the
adapter's config with its alphas multiplied is the adapter at that strength; the weights are linked, not copied.
vLLM has no option for it.
"""

import json
import shutil
from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any

from provisioner.serving.adapters import CONFIG, Adapter


def scaled_config(config: Mapping[str, Any], strength: Decimal) -> dict[str, Any]:
    """Return an adapter's config at that strength."""
    scaled = {**config, "lora_alpha": _times(config["lora_alpha"], strength)}
    pattern = config.get("alpha_pattern")
    if isinstance(pattern, Mapping):
        scaled["alpha_pattern"] = {module: _times(alpha, strength) for module, alpha in pattern.items()}
    return scaled


def at_strength(adapter: Adapter, strength: Decimal, *, directory: Path) -> Path:
    """Return where the adapter is at that strength: where it was at 1, else a copy under `directory`. Raises OSError.

    Made anew at each start: the adapter may be another one than that of the last.
    """
    if strength == 1:
        return adapter.path
    target = directory / adapter.name
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    for file in sorted(adapter.path.iterdir()):
        if file.name != CONFIG:
            (target / file.name).symlink_to(file.resolve())
    (target / CONFIG).write_text(json.dumps(scaled_config(adapter.config, strength), indent=2), encoding="utf-8")
    return target


def _times(alpha: Any, strength: Decimal) -> int | float:
    product = Decimal(str(alpha)) * strength
    return int(product) if product == product.to_integral_value() else float(product)
