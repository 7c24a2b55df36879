"""What can be known before vLLM is started: a minute of loading is a bad way to learn that a file is missing.

What is certain is a Problem; what is only likely is a note in the log, for vLLM may still find a way.
"""

import importlib
import json
import os
import re
import shutil
import stat
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from provisioner.gpus.memory import GIB, LEAST_CONTEXT, need
from provisioner.gpus.model_config import UnusableConfig, parse_config
from provisioner.serving import adapters as adapter_files
from provisioner.serving import hub, lora
from provisioner.serving.arguments import LoraModule
from provisioner.serving.environment import ServeEnvironment
from provisioner.serving.options import Options
from provisioner.serving.places import Places
from provisioner.serving.problem import Problem, one_line
from provisioner.serving.weights import Unreadable, read_header

_HUB_ID: Final = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")
_CONFIGS: Final = ("config.json", "params.json")
_TOKENIZERS: Final = (
    "tokenizer.json", "tokenizer.model", "tokenizer_config.json", "vocab.json", "vocab.txt", "tekken.json",
    "spiece.model", "sentencepiece.bpe.model", "tokenizer.model.v3", "tiktoken.model",
)  # fmt: skip
# A tag that transformers adds to those of Jinja.
_GENERATION: Final = re.compile(r"\{%[-+]?\s*(?:end)?generation\s*[-+]?%\}")
_WEIGHTS: Final = ("*.safetensors", "*.bin", "*.pt", "*.gguf")
# Left free on the disk that is downloaded to.
_SPARE: Final = 1 << 30


@dataclass(frozen=True, kw_only=True)
class Findings:
    """What was found. `download_bytes` is what there is to be fetched, 0 where it is not known."""

    modules: tuple[LoraModule, ...] = ()
    left_out: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    download_bytes: int = 0


def examine(
    environment: ServeEnvironment, *, options: Options, places: Places, variables: Mapping[str, str]
) -> Findings:
    """Return what there is to serve. Raises Problem. Blocks: for the disk, the Hub and the driver."""
    notes: list[str] = []
    _check_template(options)
    config, weights, fetched = _model(environment, places, variables, notes)
    _check_memory(environment, options, config, weights, notes)
    base = adapter_files.BaseShape.of(environment.model, config)
    modules: list[LoraModule] = []
    left_out: dict[str, str] = {}
    taken = {environment.model, *environment.served_names}
    for served in environment.adapters:
        if served.name in taken:
            left_out[served.name] = "something else is served by that name already"
            continue
        try:
            found = adapter_files.examine(served.name, places.adapters / served.name, base=base)
            path = lora.at_strength(found, served.strength, directory=places.cache / "adapters")
        except (adapter_files.Unusable, OSError) as error:
            left_out[served.name] = one_line(str(error))
            continue
        taken.add(served.name)
        if found.note:
            notes.append(f"adapter {served.name}: {found.note}")
        modules.append(LoraModule(name=served.name, path=path, rank=found.rank))
    return Findings(modules=tuple(modules), left_out=left_out, notes=tuple(notes), download_bytes=fetched)


def _check_template(options: Options) -> None:
    template = options.values.get("chat-template")
    if not isinstance(template, str):
        return
    if "{" not in template and "\n" not in template:
        try:
            template = Path(template).read_text(encoding="utf-8")
        except (OSError, ValueError) as error:
            raise Problem(
                f"vllm.chat-template names the file {template}, which is not in the image: write the template itself"
            ) from error
    if wrong := _wrong_with(template):
        raise Problem(f"vllm.chat-template cannot be used: {wrong}")


def _wrong_with(template: str) -> str:
    """Return what no server could read the template for, nothing where that cannot be told."""
    try:
        jinja2 = importlib.import_module("jinja2")
    except ImportError:
        return ""
    try:
        jinja2.Environment(extensions=["jinja2.ext.loopcontrols"]).parse(_GENERATION.sub("", template))
    except jinja2.TemplateSyntaxError as error:
        return f"{error.message} (line {error.lineno})"
    return ""


def _model(
    environment: ServeEnvironment, places: Places, variables: Mapping[str, str], notes: list[str]
) -> tuple[Mapping[str, Any], int, int]:
    """Return the model's config, the bytes of its weights and those to be fetched, as far as they are known."""
    if environment.model.startswith(("/", ".")):
        config, weights = _local_model(Path(environment.model))
        return config, weights, 0
    if not _HUB_ID.fullmatch(environment.model):
        raise Problem(f"MODEL is {environment.model[:100]!r}: must be a Hugging Face ID or the path of a model")
    if not os.access(places.models, os.W_OK):
        raise Problem(f"{places.models} cannot be written: weights are downloaded to it")
    if variables.get("HF_HUB_OFFLINE", "").lower() in ("1", "true", "yes", "on"):
        return {}, 0, 0
    endpoint = variables.get("HF_ENDPOINT", "").rstrip("/") or "https://huggingface.co"
    try:
        found = hub.look_up(
            environment.model,
            revision=environment.revision,
            endpoint=endpoint,
            token=variables.get("HF_TOKEN", ""),
        )
    except hub.Silent as error:
        notes.append(f"not known before the download: {one_line(str(error))}")
        return {}, 0, 0
    _check_room(places.models, found.download_bytes)
    return found.config, found.weights_bytes, found.download_bytes


def _local_model(directory: Path) -> tuple[Mapping[str, Any], int]:
    if not directory.is_dir() or not os.access(directory, os.R_OK | os.X_OK):
        raise Problem(f"the model directory {directory} is not there or cannot be read")
    present = [name for name in _CONFIGS if (directory / name).is_file()]
    if not present:
        raise Problem(f"the model directory {directory} has no {_CONFIGS[0]}")
    if not any((directory / name).is_file() for name in _TOKENIZERS):
        raise Problem(f"the model directory {directory} has no tokenizer: put tokenizer.json there")
    files = next((found for kind in _WEIGHTS if (found := sorted(directory.glob(kind)))), [])
    if not files:
        raise Problem(f"the model directory {directory} has no weights (*.safetensors)")
    try:
        config = json.loads((directory / present[0]).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise Problem(f"{directory / present[0]} cannot be read: {error}") from error
    for file in files:
        if file.suffix == ".safetensors":
            try:
                read_header(file)
            except (Unreadable, OSError) as error:
                raise Problem(f"the model directory {directory} cannot be served: {error}") from error
    return config if isinstance(config, dict) else {}, sum(file.stat().st_size for file in files)


def _check_room(directory: Path, wanted: int) -> None:
    """Weights that are there already are not fetched again; where they are cannot be told without Hub's own library."""
    free, there = shutil.disk_usage(directory).free, bytes_under(directory)
    missing = wanted - there
    if missing + _SPARE > free and missing > 0:
        raise Problem(
            f"no space for the model: {missing / GIB:.1f} GiB are to be downloaded and {free / GIB:.1f} GiB are free;"
            " ask for a larger OS disk or size"
        )


def bytes_under(directory: Path) -> int:
    """Return the bytes of all files in a directory, links aside; files that go meanwhile do not count."""
    total = 0
    for folder, _, files in os.walk(directory):
        for name in files:
            try:
                found = os.lstat(os.path.join(folder, name))  # noqa: PTH118 -- thousands of them, twice a minute
            except OSError:
                continue
            if not stat.S_ISLNK(found.st_mode):
                total += found.st_blocks * 512
    return total


def gpu_memory_gib() -> tuple[float, ...]:
    """Return the memory of each GPU that the driver shows, nothing where it cannot be asked."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return ()
    command = [program, "--query-gpu=memory.total", "--format=csv,noheader,nounits"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)  # noqa: S603
        return tuple(float(line) / 1024 for line in answer.stdout.split())
    except (OSError, subprocess.SubprocessError, ValueError):
        return ()


def _check_memory(
    environment: ServeEnvironment, options: Options, config: Mapping[str, Any], weights: int, notes: list[str]
) -> None:
    gpus = gpu_memory_gib()
    if not gpus:
        return
    local = environment.tensor_parallel * environment.data_parallel
    if environment.nodes == 1:
        local *= environment.pipeline_parallel
    if local > len(gpus) and "tensor-parallel-size" not in options.values:
        raise Problem(f"the pod sees {len(gpus)} GPUs, the model is to be run on {local}")
    if not weights:
        return
    try:
        facts = parse_config(config, name=environment.model, weights_bytes=weights)
    except UnusableConfig as error:
        notes.append(f"memory is not reckoned: {error}")
        return
    smallest = min(gpus)
    wanted = need(
        facts,
        tensor_parallel=environment.tensor_parallel,
        pipeline_parallel=environment.pipeline_parallel,
        context=environment.max_model_len or LEAST_CONTEXT,
        memory_gib=smallest,
    )
    if wanted.total > smallest * GIB * float(environment.gpu_memory_utilization):
        notes.append(
            f"about {wanted.total / GIB:.1f} GiB are needed of each GPU, which has {smallest:.1f} GiB: it may not fit"
        )
