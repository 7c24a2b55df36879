"""The training itself, once for each GPU: transformers, peft, trl and, for QLoRA, bitsandbytes.

Their imports are inside of functions: they take seconds, and nothing else of the program needs them.
"""

import importlib
import json
import logging
import os
import signal
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from provisioner.serving import training_config, training_data
from provisioner.serving.adapters import WEIGHTS
from provisioner.serving.environment import TuneEnvironment
from provisioner.serving.places import Places
from provisioner.serving.problem import Problem
from provisioner.serving.training_config import TrainingConfig
from provisioner.serving.weights import read_header

_log: Final = logging.getLogger(__name__)
CHECKPOINTS: Final = "checkpoints"
ADAPTER: Final = "adapter"
PROGRESS: Final = "progress.json"


def run(environment: TuneEnvironment, *, places: Places) -> None:
    """Train, from the last checkpoint where there is one, and save the adapter. Raises Problem."""
    config = training_config.read(places.training_config, method=environment.method)
    is_first = os.environ.get("RANK", "0") == "0"
    files = training_data.choose(places.data, config.dataset)
    trainer, tokenizer = _trainer(environment, config, files, places)
    checkpoint = last_checkpoint(places.results / CHECKPOINTS)
    if is_first:
        _log.info("training%s", f" from {checkpoint.name}" if checkpoint else "")
    trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    if trainer.control.should_training_stop and trainer.state.global_step < trainer.state.max_steps and _ended():
        raise Problem(f"ended at step {trainer.state.global_step} of {trainer.state.max_steps}; the next start goes on")
    trainer.save_model(str(places.results / ADAPTER))
    if is_first:
        tokenizer.save_pretrained(str(places.results / ADAPTER))


def last_checkpoint(directory: Path) -> Path | None:
    """Return the checkpoint with the most steps that is whole."""
    found = {
        int(path.name.removeprefix("checkpoint-")): path
        for path in (directory.glob("checkpoint-*") if directory.is_dir() else ())
        if path.name.removeprefix("checkpoint-").isdecimal()
    }
    return next((found[steps] for steps in sorted(found, reverse=True) if _is_whole(found[steps])), None)


def _is_whole(checkpoint: Path) -> bool:
    """Tell whether all of a checkpoint was written.

    Its state comes last, but a program can be killed while it writes that, and a Node that went may leave files cut
    short. To begin with such a one would fail at each start.
    """
    try:
        json.loads((checkpoint / "trainer_state.json").read_text(encoding="utf-8"))
        read_header(checkpoint / WEIGHTS)
        return all(zipfile.is_zipfile(path) for path in checkpoint.glob("*.pt"))
    except (OSError, ValueError, RecursionError):
        return False


def progress_of(state: Mapping[str, Any]) -> dict[str, Any]:
    """Return what people are told of a trainer's state."""
    step, total = int(state.get("global_step") or 0), int(state.get("max_steps") or 0)
    history = state.get("log_history") or []
    losses = [entry["loss"] for entry in history if isinstance(entry, dict) and "loss" in entry]
    return {
        "step": step,
        "steps": total,
        "percent": round(100 * step / total, 1) if total else 0.0,
        "epoch": round(float(state.get("epoch") or 0), 2),
        "loss": losses[-1] if losses else None,
    }


def training_arguments(config: TrainingConfig, *, output: Path, has_gpu: bool) -> dict[str, Any]:
    """Return the arguments of trl's trainer."""
    given = {**config.training, "output_dir": str(output), "report_to": "none"}
    if not has_gpu:
        return {name: value for name, value in given.items() if name not in ("bf16", "fp16")} | {"use_cpu": True}
    if "bf16" not in given and "fp16" not in given:
        given["bf16"] = config.dtype == "bfloat16"
    return given


def _make(kind: Any, section: str, arguments: Mapping[str, Any]) -> Any:
    try:
        return kind(**arguments)
    except (TypeError, ValueError) as error:
        raise Problem(f"training_config.yaml: {section}: {error}") from error


_asked_to_end: list[bool] = []


def _ended() -> bool:
    return bool(_asked_to_end)


def _trainer(
    environment: TuneEnvironment, config: TrainingConfig, files: training_data.Files, places: Places
) -> tuple[Any, Any]:
    torch, transformers = importlib.import_module("torch"), importlib.import_module("transformers")
    peft, trl = importlib.import_module("peft"), importlib.import_module("trl")
    common = {
        "revision": environment.revision or None,
        "trust_remote_code": config.trust_remote_code,
        "local_files_only": config.local_files_only,
    }
    tokenizer = transformers.AutoTokenizer.from_pretrained(environment.model, **common)
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    if config.chat_template:
        template = Path(config.chat_template)
        is_file = "{" not in config.chat_template and template.is_file()
        tokenizer.chat_template = template.read_text(encoding="utf-8") if is_file else config.chat_template
    dtype = config.dtype if config.dtype == "auto" else getattr(torch, config.dtype)
    has_gpu = torch.cuda.is_available()
    quantization = None
    if config.quantization:
        quantization = _make(transformers.BitsAndBytesConfig, "QuantizationConfig", config.quantization)
    model = transformers.AutoModelForCausalLM.from_pretrained(
        environment.model,
        dtype=dtype,
        quantization_config=quantization,
        # A whole copy on each GPU: processes share out the data.
        device_map={"": int(os.environ.get("LOCAL_RANK", "0"))} if has_gpu else None,
        **common,
    )
    model.config.use_cache = False
    if quantization is not None:
        model = peft.prepare_model_for_kbit_training(model)
    train, check = _rows(files, config)
    arguments = _make(
        trl.SFTConfig,
        "TrainingArguments",
        training_arguments(config, output=places.results / CHECKPOINTS, has_gpu=has_gpu),
    )
    trainer = trl.SFTTrainer(
        model=model,
        args=arguments,
        train_dataset=train,
        eval_dataset=check,
        processing_class=tokenizer,
        peft_config=_make(peft.LoraConfig, "LoraConfig", {**config.lora, "task_type": "CAUSAL_LM"}),
        callbacks=[_callback(transformers, places.results / PROGRESS)],
    )
    return trainer, tokenizer


def _rows(files: training_data.Files, config: TrainingConfig) -> tuple[Any, Any]:
    datasets = importlib.import_module("datasets")
    try:
        rows = datasets.load_dataset(files.loader, data_files=[str(path) for path in files.paths], split="train")
    except Exception as error:  # each loader has exceptions of its own
        raise Problem(f"the data cannot be read as {files.loader}: {error}") from error
    columns = list(rows.column_names)
    if not len(rows):
        raise Problem("the data has no rows")

    def shaped(row: Mapping[str, Any]) -> dict[str, Any]:
        return training_data.shape(row, columns, config.dataset)

    shaped(rows[0])
    rows = rows.map(shaped, remove_columns=columns)
    if config.dataset.shuffle:
        rows = rows.shuffle(seed=config.dataset.seed)
    if config.dataset.train_part == 1:
        return rows, None
    parts = rows.train_test_split(test_size=1 - config.dataset.train_part, seed=config.dataset.seed)
    return parts["train"], parts["test"]


def _callback(transformers: Any, progress: Path) -> Any:
    def end(*_: object) -> None:
        _asked_to_end.append(True)

    signal.signal(signal.SIGTERM, end)

    class Watch(transformers.TrainerCallback):  # type: ignore[misc]
        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            if _ended():
                control.should_save = True
                control.should_training_stop = True

        def on_log(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            if state.is_world_process_zero:
                told = progress_of(vars(state))
                _log.info("step %(step)d of %(steps)d (%(percent)s %%), loss %(loss)s", told)
                # Whoever reads it meanwhile must not find half of it.
                temporary = progress.with_suffix(".new")
                temporary.write_text(json.dumps(told) + "\n", encoding="utf-8")
                temporary.replace(progress)

    return Watch()
