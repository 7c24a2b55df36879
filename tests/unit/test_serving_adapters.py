"""Adapters: which are served, at which strength, and why others are left out."""

import json
import math
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from provisioner.serving import adapters, lora
from provisioner.serving.adapters import BaseShape, Unusable
from provisioner.serving.weights import Unreadable, read_header
from tests.unit.serving_support import make_adapter, read_safetensors, write_safetensors

BASE = BaseShape(name="org/model", hidden=8, layers=2)


def delta(directory: Path) -> list[list[float]]:
    """Return what the adapter adds to its module, as PEFT and vLLM reckon it."""
    config = json.loads((directory / "adapter_config.json").read_text())
    tensors = read_safetensors(directory / "adapter_model.safetensors")
    (name,) = [name for name in tensors if "lora_A" in name]
    module = name.partition(".lora_A")[0].rpartition(".")[2]
    a, b = tensors[name], tensors[name.replace("lora_A", "lora_B")]
    alpha = (config.get("alpha_pattern") or {}).get(module, config["lora_alpha"])
    rank = (config.get("rank_pattern") or {}).get(module, config["r"])
    scaling = alpha / (math.sqrt(rank) if config.get("use_rslora") else rank)
    return [[scaling * sum(x * y for x, y in zip(row, col, strict=True)) for col in zip(*a, strict=True)] for row in b]


@pytest.mark.parametrize("strength", ["0", "0.1", "0.5", "0.75"])
@pytest.mark.parametrize(
    "changes",
    [{}, {"use_rslora": True}, {"lora_alpha": 3.5}, {"alpha_pattern": {"q_proj": 6}, "rank_pattern": {"q_proj": 2}}],
    ids=["plain", "rslora", "fraction", "patterns"],
)
def test_the_strength_scales_what_the_adapter_adds(tmp_path: Path, strength: str, changes: dict[str, Any]) -> None:
    found = adapters.examine("a", make_adapter(tmp_path / "a", **changes), base=BASE)

    scaled = lora.at_strength(found, Decimal(strength), directory=tmp_path / "cache")

    whole, part = delta(tmp_path / "a"), delta(scaled)
    assert any(value for row in whole for value in row)
    for row, scaled_row in zip(whole, part, strict=True):
        assert scaled_row == pytest.approx([float(strength) * value for value in row])


def test_weights_are_linked_and_the_adapter_itself_stays_as_it_is(tmp_path: Path) -> None:
    directory = make_adapter(tmp_path / "a")
    before = (directory / "adapter_config.json").read_bytes()
    found = adapters.examine("a", directory, base=BASE)

    scaled = lora.at_strength(found, Decimal("0.5"), directory=tmp_path / "cache")

    assert (scaled / "adapter_model.safetensors").is_symlink()
    assert (directory / "adapter_config.json").read_bytes() == before
    # A second start finds what the first has left.
    assert lora.at_strength(found, Decimal("0.25"), directory=tmp_path / "cache") == scaled
    assert json.loads((scaled / "adapter_config.json").read_text())["lora_alpha"] == 1


def test_full_strength_is_the_adapter_itself(tmp_path: Path) -> None:
    found = adapters.examine("a", make_adapter(tmp_path / "a"), base=BASE)

    assert lora.at_strength(found, Decimal("1.0"), directory=tmp_path / "cache") == tmp_path / "a"
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"peft_type": "PREFIX_TUNING"}, "of type PREFIX_TUNING"),
        ({"lora_alpha": None}, "lora_alpha is no number"),
        ({"lora_alpha": math.inf}, "lora_alpha is no number"),
        ({"lora_alpha": math.nan}, "lora_alpha is no number"),
        ({"alpha_pattern": {"q_proj": "4"}}, "alpha_pattern is no map of numbers"),
        ({"alpha_pattern": ["q_proj"]}, "alpha_pattern is no map of numbers"),
        ({"target_modules": None}, "no target_modules"),
        ({"r": 0}, "rank r"),
        ({"r": True}, "rank r"),
        ({"rank_pattern": {"x": "y"}}, "rank r"),
        ({"rank_pattern": {"x": 1000}}, "rank 1000 is larger than 512"),
        ({"r": 4}, "is of rank 2, its adapter_config.json says 4"),
        ({"rank_pattern": {"q_proj": 4}}, "is of rank 2, its adapter_config.json says 4"),
        ({"rank_pattern": {r"layers\.\d\.self_attn\.q_proj": 4}}, "is of rank 2, its adapter_config.json says 4"),
        ({"r": 4, "rank_pattern": {"k_proj": 2}}, "is of rank 2, its adapter_config.json says 4"),
        ({"rank_pattern": {"(": 4}}, "which is no expression"),
        ({"use_dora": True}, "DoRA"),
        ({"bias": "all"}, "biases"),
        ({"modules_to_save": ["lm_head"]}, "replaces whole modules"),
        ({"init_lora_weights": "pissa"}, "init_lora_weights=pissa"),
        ({"layer_replication": [[0, 2]]}, "layer replication"),
        ({"hidden": 16}, "made for another model: q_proj is 16 wide, org/model is 8"),
        ({"layer": 2}, "made for another model: it has a layer 2, org/model has 2"),
    ],
)
def test_an_adapter_that_cannot_be_served_says_why(tmp_path: Path, changes: dict[str, Any], says: str) -> None:
    make_adapter(tmp_path / "a", **{k: v for k, v in changes.items() if k in ("hidden", "layer")})
    path = tmp_path / "a" / "adapter_config.json"
    config = json.loads(path.read_text()) | {k: v for k, v in changes.items() if k not in ("hidden", "layer")}
    path.write_text(json.dumps({k: v for k, v in config.items() if v is not None}))

    with pytest.raises(Unusable, match=says):
        adapters.examine("a", tmp_path / "a", base=BASE)


@pytest.mark.parametrize(
    "changes",
    [
        {"rank": 4, "r": 2, "rank_pattern": {"self_attn.q_proj": 4}},
        # The first that matches is meant, and a pattern is for whole parts of names.
        {"rank": 4, "r": 2, "rank_pattern": {r"layers\.0\..*": 4, "q_proj": 2}},
        {"rank": 4, "r": 4, "rank_pattern": {"proj": 2}},
    ],
)
def test_ranks_may_be_of_each_module_its_own(tmp_path: Path, changes: dict[str, Any]) -> None:
    found = adapters.examine("a", make_adapter(tmp_path / "a", **changes), base=BASE)

    assert found.rank == 4


def test_experts_share_a_matrix_in_which_each_has_its_part(tmp_path: Path) -> None:
    directory = make_adapter(tmp_path / "a", target_modules=None, target_parameters=["mlp.experts.gate_up_proj"])
    module = "base_model.model.model.layers.0.mlp.experts.base_layer"
    write_safetensors(
        directory / "adapter_model.safetensors",
        {f"{module}.lora_A.weight": ((8, 8), [1.0] * 64), f"{module}.lora_B.weight": ((4, 8), [1.0] * 32)},
    )

    assert adapters.examine("a", directory, base=BASE).rank == 2


@pytest.mark.parametrize("name", ["", "..", "a/b", "a=b", "a b", "-a", "x" * 200])
def test_a_name_that_would_be_something_else_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(Unusable, match="its name"):
        adapters.examine(name, make_adapter(tmp_path / "a"), base=BASE)


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda d: (d / "adapter_config.json").unlink(), "no adapter_config.json"),
        (lambda d: (d / "adapter_config.json").write_text("{"), "cannot be read"),
        (lambda d: (d / "adapter_config.json").write_text("[]"), "no JSON object"),
        (lambda d: (d / "adapter_model.safetensors").unlink(), "no adapter_model.safetensors"),
        (lambda d: (d / "adapter_model.safetensors").write_bytes(b"\xff" * 40), "no safetensors file"),
        (lambda d: write_safetensors(d / "adapter_model.safetensors", {"x": ((1, 1), [1.0])}), "no LoRA weights"),
    ],
)
def test_files_that_are_missing_or_broken_are_named(tmp_path: Path, spoil: Any, says: str) -> None:
    directory = make_adapter(tmp_path / "a")
    spoil(directory)

    with pytest.raises(Unusable, match=says):
        adapters.examine("a", directory, base=BASE)


@pytest.mark.parametrize(
    ("made_for", "served", "noted"),
    [
        ("org/model", "org/model", False),
        ("Org/Model", "org/model", False),
        ("/mnt/weights/model", "org/model", False),
        ("other/model", "org/model", True),
        ("org/model", "/models/model", False),
        ("org/other", "/models/model", True),
        (None, "org/model", False),
    ],
)
def test_another_base_by_name_is_noted_and_served(
    tmp_path: Path, made_for: str | None, served: str, noted: bool
) -> None:
    directory = make_adapter(tmp_path / "a", base_model_name_or_path=made_for)

    found = adapters.examine("a", directory, base=BaseShape(name=served))

    assert bool(found.note) is noted


def test_a_file_cut_short_is_found(tmp_path: Path) -> None:
    path = make_adapter(tmp_path / "a") / "adapter_model.safetensors"
    path.write_bytes(path.read_bytes()[:-4])

    with pytest.raises(Unreadable, match="incomplete"):
        read_header(path)


LLAMA = {
    "architectures": ["LlamaForCausalLM"], "hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "intermediate_size": 32,
}  # fmt: skip
FITTING = {
    "q_proj": (8, 8), "k_proj": (8, 4), "v_proj": (8, 4), "o_proj": (8, 8), "gate_proj": (8, 32), "up_proj": (8, 32),
    "down_proj": (32, 8),
}  # fmt: skip


@pytest.mark.parametrize(
    ("config", "module", "shape", "says"),
    [
        *((LLAMA, module, shape, "") for module, shape in FITTING.items()),
        (LLAMA, "k_proj", (8, 8), "k_proj is 8 wide, org/model is 4"),
        (LLAMA, "v_proj", (8, 2), "v_proj is 2 wide, org/model is 4"),
        (LLAMA, "o_proj", (16, 8), "o_proj is 16 wide, org/model is 8"),
        (LLAMA, "gate_proj", (8, 16), "gate_proj is 16 wide, org/model is 32"),
        (LLAMA, "up_proj", (8, 16), "up_proj is 16 wide, org/model is 32"),
        (LLAMA, "down_proj", (16, 8), "down_proj is 16 wide, org/model is 32"),
        ({**LLAMA, "head_dim": 4}, "q_proj", (8, 16), ""),
        ({**LLAMA, "head_dim": 4}, "q_proj", (8, 8), "q_proj is 8 wide, org/model is 16"),
        ({**LLAMA, "num_key_value_heads": None}, "k_proj", (8, 8), ""),
        # Widths that the config does not tell, or means otherwise: vLLM is the judge.
        ({**LLAMA, "architectures": ["Qwen3NextForCausalLM"]}, "q_proj", (8, 16), ""),
        ({**LLAMA, "architectures": []}, "gate_proj", (8, 16), ""),
        ({**LLAMA, "intermediate_size": "x"}, "gate_proj", (8, 16), ""),
    ],
)
def test_an_adapter_must_be_as_wide_as_the_model(
    tmp_path: Path, config: dict[str, Any], module: str, shape: tuple[int, int], says: str
) -> None:
    directory = make_adapter(tmp_path / "a")
    reads, writes = shape
    name = f"base_model.model.model.layers.0.x.{module}"
    write_safetensors(
        directory / "adapter_model.safetensors",
        {
            f"{name}.lora_A.weight": ((2, reads), [1.0] * (2 * reads)),
            f"{name}.lora_B.weight": ((writes, 2), [1.0] * (2 * writes)),
        },
    )
    base = BaseShape.of("org/model", config)

    if says:
        with pytest.raises(Unusable, match=f"made for another model: {says}"):
            adapters.examine("a", directory, base=base)
    else:
        assert adapters.examine("a", directory, base=base).rank == 2
