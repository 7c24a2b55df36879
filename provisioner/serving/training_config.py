"""The user's own options of tuning: training_config.yaml, as KAITO's users write it. Pure but for reading the file.

    training_config:
      ModelConfig, QuantizationConfig, LoraConfig, TrainingArguments, DatasetConfig, DataCollator

What is there is handed on to transformers, peft and trl; what is not is as in KAITO's own templates. Where the model
comes from, where results go and what is reported to whom is not the configuration's to say.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from provisioner.serving import config_file
from provisioner.serving.problem import Problem

_SECTIONS: Final = (
    "ModelConfig", "QuantizationConfig", "LoraConfig", "TrainingArguments", "DatasetConfig", "DataCollator",
)  # fmt: skip
_OURS: Final[Mapping[str, frozenset[str]]] = {
    "ModelConfig": frozenset(
        {"pretrained_model_name_or_path", "revision", "cache_dir", "state_dict", "from_tf", "proxies", "device_map",
         "output_loading_info", "resume_download", "quantization_config", "token"}
    ),
    "QuantizationConfig": frozenset({"quant_method"}),
    "LoraConfig": frozenset({"task_type", "base_model_name_or_path", "peft_type"}),
    "TrainingArguments": frozenset(
        {"output_dir", "logging_dir", "report_to", "push_to_hub", "hub_token", "hub_model_id", "resume_from_checkpoint",
         "overwrite_output_dir", "local_rank", "deepspeed", "fsdp"}
    ),
    "DatasetConfig": frozenset(),
    "DataCollator": frozenset({"tokenizer"}),
}  # fmt: skip
_LORA: Final[Mapping[str, Any]] = {"r": 8, "lora_alpha": 8, "lora_dropout": 0.0, "target_modules": "all-linear"}
_QLORA: Final[Mapping[str, Any]] = {
    "load_in_4bit": True,
    "bnb_4bit_quant_type": "nf4",
    "bnb_4bit_compute_dtype": "bfloat16",
    "bnb_4bit_use_double_quant": True,
}
_TRAINING: Final[Mapping[str, Any]] = {
    "num_train_epochs": 4,
    "per_device_train_batch_size": 1,
    "logging_steps": 10,
    "ddp_find_unused_parameters": False,
}
# Steps between checkpoints where the user does not say: a Node that goes costs minutes of work, not all of it.
_SAVE_STEPS: Final = 200
_DTYPES: Final = frozenset({"bfloat16", "float16", "float32", "auto"})


@dataclass(frozen=True, kw_only=True)
class DatasetConfig:
    """Which data, and which of its columns. `train_part` is the part that is trained with; the rest is for checking."""

    path: str = ""
    kind: str = ""
    shuffle: bool = True
    seed: int = 42
    context: str = ""
    response: str = "text"
    messages: str = ""
    train_part: float = 1.0


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """All that tuning is told. The maps are arguments of the libraries' own."""

    dtype: str = "bfloat16"
    chat_template: str = ""
    trust_remote_code: bool = False
    local_files_only: bool = False
    lora: Mapping[str, Any] = field(default_factory=lambda: dict(_LORA))
    quantization: Mapping[str, Any] = field(default_factory=dict)
    training: Mapping[str, Any] = field(default_factory=dict)
    dataset: DatasetConfig = field(default_factory=DatasetConfig)
    notes: tuple[str, ...] = ()


def read(path: Path, *, method: str) -> TrainingConfig:
    """Return what the file says, over what is so anyway. Raises Problem."""
    document = config_file.read(path)
    sections = config_file.section(document, "training_config", file=path.name)
    notes: list[str] = []
    unknown = sorted(set(sections) - set(_SECTIONS))
    if unknown:
        raise Problem(f"{path.name}: training_config.{unknown[0][:60]} is not one of {', '.join(_SECTIONS)}")
    parts: dict[str, dict[str, Any]] = {}
    for name in _SECTIONS:
        found = dict(config_file.section(sections, name, file=path.name))
        for key in sorted(_OURS[name] & set(found)):
            notes.append(f"{name}.{key} has no effect")
            del found[key]
        parts[name] = found
    model = parts["ModelConfig"]
    dtype = str(model.pop("torch_dtype", None) or model.pop("dtype", None) or "bfloat16").removeprefix("torch.")
    if dtype not in _DTYPES:
        raise Problem(
            f"{path.name}: ModelConfig.torch_dtype is {dtype[:40]}: must be one of {', '.join(sorted(_DTYPES))}"
        )
    config = TrainingConfig(
        dtype=dtype,
        chat_template=str(model.pop("chat_template", None) or ""),
        trust_remote_code=model.pop("trust_remote_code", False) is True,
        local_files_only=model.pop("local_files_only", False) is True,
        lora={**_LORA, **parts["LoraConfig"]},
        quantization=_quantization(parts["QuantizationConfig"], method=method, file=path.name),
        training=_training(parts["TrainingArguments"], notes),
        dataset=_dataset(parts["DatasetConfig"], file=path.name),
        notes=(),
    )
    notes += [f"ModelConfig.{key} has no effect" for key in sorted(model)]
    if parts["DataCollator"].get("mlm"):
        notes.append("DataCollator.mlm has no effect: the model is trained to go on with a text")
    if config.trust_remote_code:
        notes.append("ModelConfig.trust_remote_code: code from the model's repository runs in this pod")
    return TrainingConfig(**{**vars(config), "notes": tuple(notes)})


def _quantization(given: Mapping[str, Any], *, method: str, file: str) -> dict[str, Any]:
    wants = given.get("load_in_4bit") is True or given.get("load_in_8bit") is True
    if method == "lora":
        if wants:
            raise Problem(f"{file}: QuantizationConfig loads in 4 or 8 bits, and the method is lora: set it to qlora")
        return {}
    if given.get("load_in_8bit") is True:
        return {**given, "load_in_4bit": False}
    return {**_QLORA, **given, "load_in_4bit": True}


def _training(given: Mapping[str, Any], notes: list[str]) -> dict[str, Any]:
    arguments = {**_TRAINING, **given}
    if "evaluation_strategy" in arguments:
        # As transformers called it once.
        arguments["eval_strategy"] = arguments.pop("evaluation_strategy")
    for name in ("save_strategy", "eval_strategy", "logging_strategy"):
        if arguments.get(name) is False:
            # What YAML makes of a bare no.
            arguments[name] = "no"
    if arguments.get("save_strategy") == "no":
        notes.append("TrainingArguments.save_strategy: no has no effect: there must be a checkpoint to go on from")
        del arguments["save_strategy"]
    arguments.setdefault("save_strategy", "steps")
    if arguments["save_strategy"] == "steps":
        arguments.setdefault("save_steps", _SAVE_STEPS)
    arguments.setdefault("save_total_limit", 2)
    if "max_seq_length" in arguments:
        arguments["max_length"] = arguments.pop("max_seq_length")
    return arguments


def _dataset(given: Mapping[str, Any], *, file: str) -> DatasetConfig:
    part = given.get("train_test_split", 1.0)
    if isinstance(part, bool) or not isinstance(part, (int, float)) or not 0 < part <= 1:
        raise Problem(f"{file}: DatasetConfig.train_test_split must be above 0 and at most 1")
    seed = given.get("shuffle_seed", 42)
    if isinstance(seed, bool) or not isinstance(seed, int):
        raise Problem(f"{file}: DatasetConfig.shuffle_seed must be a whole number")
    return DatasetConfig(
        path=str(given.get("dataset_path") or ""),
        kind=str(given.get("dataset_extension") or "").lstrip(".").lower(),
        shuffle=given.get("shuffle_dataset", True) is not False,
        seed=seed,
        context=str(given.get("context_column") or ""),
        response=str(given.get("response_column") or "text"),
        messages=str(given.get("messages_column") or ""),
        train_part=float(part),
    )
