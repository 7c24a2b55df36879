"""Tuning: its configuration, its data, and what is there when a container is started again."""

import asyncio
import json
import shutil
import sys
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from provisioner.serving import training_config, training_data, tune
from provisioner.serving.environment import TuneEnvironment
from provisioner.serving.places import Places
from provisioner.serving.problem import Problem
from provisioner.serving.train import last_checkpoint, progress_of, training_arguments
from provisioner.serving.training_config import DatasetConfig, TrainingConfig
from tests.unit.registry_double import Registry, serve
from tests.unit.serving_support import make_places, write_safetensors


def read(tmp_path: Path, sections: Mapping[str, Any], *, method: str = "lora") -> TrainingConfig:
    path = tmp_path / "training_config.yaml"
    path.write_text(yaml.safe_dump({"training_config": dict(sections)}))
    return training_config.read(path, method=method)


def test_without_a_configuration_it_is_as_in_kaitos_templates(tmp_path: Path) -> None:
    lora = training_config.read(tmp_path / "none.yaml", method="lora")
    qlora = training_config.read(tmp_path / "none.yaml", method="qlora")

    assert (lora.dtype, lora.lora["r"], lora.lora["lora_alpha"], lora.quantization) == ("bfloat16", 8, 8, {})
    assert qlora.quantization == {
        "load_in_4bit": True,
        "bnb_4bit_quant_type": "nf4",
        "bnb_4bit_compute_dtype": "bfloat16",
        "bnb_4bit_use_double_quant": True,
    }
    assert lora.training["save_strategy"] == "steps"
    assert lora.dataset == DatasetConfig()


def test_what_is_said_is_handed_on_and_what_is_ours_is_not(tmp_path: Path) -> None:
    config = read(
        tmp_path,
        {
            "ModelConfig": {"torch_dtype": "float16", "local_files_only": True, "device_map": "auto", "odd": 1},
            "LoraConfig": {"r": 16, "target_modules": ["q_proj"], "task_type": "SEQ_CLS"},
            "TrainingArguments": {
                "output_dir": "/etc", "push_to_hub": True, "report_to": "wandb", "num_train_epochs": 1,
                "save_strategy": "epoch", "evaluation_strategy": "epoch", "max_seq_length": 512,
            },
            "DatasetConfig": {"train_test_split": 0.8, "shuffle_dataset": False, "messages_column": "m"},
            "DataCollator": {"mlm": True},
        },
    )  # fmt: skip

    assert config.dtype == "float16"
    assert config.local_files_only
    assert config.lora == {"r": 16, "lora_alpha": 8, "lora_dropout": 0.0, "target_modules": ["q_proj"]}
    assert {"output_dir", "push_to_hub", "report_to"}.isdisjoint(config.training)
    assert config.training["num_train_epochs"] == 1
    assert config.training["save_strategy"] == "epoch"
    assert config.training["eval_strategy"] == "epoch"
    assert config.training["max_length"] == 512
    assert config.dataset == DatasetConfig(train_part=0.8, shuffle=False, messages="m")
    assert [note.partition(" ")[0] for note in config.notes] == [
        "ModelConfig.device_map",
        "LoraConfig.task_type",
        "TrainingArguments.output_dir",
        "TrainingArguments.push_to_hub",
        "TrainingArguments.report_to",
        "ModelConfig.odd",
        "DataCollator.mlm",
    ]


def test_strategies_that_yaml_reads_as_false_are_no(tmp_path: Path) -> None:
    path = tmp_path / "training_config.yaml"
    path.write_text("training_config: {TrainingArguments: {evaluation_strategy: no, logging_strategy: no}}")

    training = training_config.read(path, method="lora").training

    assert (training["eval_strategy"], training["logging_strategy"]) == ("no", "no")


@pytest.mark.parametrize(
    ("sections", "method", "says"),
    [
        ({"Lora": {}}, "lora", "training_config.Lora is not one of"),
        ({"LoraConfig": []}, "lora", "LoraConfig must be a map"),
        ({"ModelConfig": {"torch_dtype": "int3"}}, "lora", "torch_dtype is int3"),
        ({"QuantizationConfig": {"load_in_4bit": True}}, "lora", "the method is lora: set it to qlora"),
        ({"DatasetConfig": {"train_test_split": 0}}, "lora", "train_test_split must be above 0"),
        ({"DatasetConfig": {"train_test_split": True}}, "lora", "train_test_split must be above 0"),
        ({"DatasetConfig": {"shuffle_seed": "x"}}, "lora", "shuffle_seed"),
    ],
)
def test_a_configuration_that_cannot_be_meant_is_refused(
    tmp_path: Path, sections: Mapping[str, Any], method: str, says: str
) -> None:
    with pytest.raises(Problem, match=says):
        read(tmp_path, sections, method=method)


@pytest.mark.parametrize(
    ("given", "bits"), [({"load_in_8bit": True}, 8), ({"bnb_4bit_quant_type": "fp4"}, 4), ({"load_in_4bit": False}, 4)]
)
def test_qlora_always_quantises(tmp_path: Path, given: Mapping[str, Any], bits: int) -> None:
    found = read(tmp_path, {"QuantizationConfig": given}, method="qlora").quantization

    assert found["load_in_4bit"] is (bits == 4)
    assert found.get("load_in_8bit", False) is (bits == 8)


@pytest.mark.parametrize(
    ("given", "has_gpu", "expected"),
    [
        ({}, True, {"bf16": True}),
        ({"fp16": True}, True, {"fp16": True}),
        ({"bf16": True}, False, {"use_cpu": True}),
    ],
)
def test_the_trainer_is_told_where_results_go(given: Mapping[str, Any], has_gpu: bool, expected: Any) -> None:
    found = training_arguments(TrainingConfig(training=given), output=Path("/results/c"), has_gpu=has_gpu)

    assert found == {"output_dir": "/results/c", "report_to": "none", **expected}


@pytest.mark.parametrize(
    ("files", "config", "loader", "chosen"),
    [
        (["b.parquet", "a.parquet", "README.md"], DatasetConfig(), "parquet", ["a.parquet", "b.parquet"]),
        (["a.json", "b.jsonl"], DatasetConfig(), "json", ["a.json", "b.jsonl"]),
        (["a.json", "x/b.csv"], DatasetConfig(path="x/b.csv"), "csv", ["x/b.csv"]),
        (["a.json", "b.csv"], DatasetConfig(path="/data/b.csv"), "csv", ["b.csv"]),
        (["a.json", "b.csv"], DatasetConfig(kind="csv"), "csv", ["b.csv"]),
        (["a.txt"], DatasetConfig(path="a.txt", kind="jsonl"), "json", ["a.txt"]),
        ([".a.json.part", ".b.json", "c.json"], DatasetConfig(), "json", ["c.json"]),
    ],
)
def test_which_files_are_tuned_with(
    tmp_path: Path, files: list[str], config: DatasetConfig, loader: str, chosen: list[str]
) -> None:
    for name in files:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()

    found = training_data.choose(tmp_path, config)

    assert (found.loader, [str(path.relative_to(tmp_path)) for path in found.paths]) == (loader, chosen)


@pytest.mark.parametrize(
    ("files", "config", "says"),
    [
        ([], DatasetConfig(), "there is no data in"),
        (["a.txt"], DatasetConfig(), "there is no data in"),
        (["a.json", "b.csv"], DatasetConfig(), "several kinds"),
        (["a.json"], DatasetConfig(path="../etc/passwd"), "leads elsewhere"),
        (["a.json"], DatasetConfig(path="b.json"), "there is no file"),
        (["a.xls"], DatasetConfig(path="a.xls"), "data must be of"),
    ],
)
def test_data_that_is_not_there_is_told_of(tmp_path: Path, files: list[str], config: DatasetConfig, says: str) -> None:
    for name in files:
        (tmp_path / name).touch()

    with pytest.raises(Problem, match=says):
        training_data.choose(tmp_path, config)


ROW = {"text": "t", "q": "why", "a": "so", "messages": [{"role": "user", "content": "x"}]}


@pytest.mark.parametrize(
    ("columns", "config", "expected"),
    [
        (["text"], DatasetConfig(), {"text": "t"}),
        (["a"], DatasetConfig(), {"text": "so"}),
        (["messages", "q"], DatasetConfig(), {"messages": ROW["messages"]}),
        (["messages", "text"], DatasetConfig(), {"text": "t"}),
        (["q", "a"], DatasetConfig(context="q", response="a"), {"prompt": "why", "completion": "so"}),
        (["q", "a"], DatasetConfig(response="a"), {"text": "so"}),
    ],
)
def test_rows_become_what_the_trainer_takes(
    columns: list[str], config: DatasetConfig, expected: Mapping[str, Any]
) -> None:
    assert training_data.shape({name: ROW[name] for name in columns}, columns, config) == expected


@pytest.mark.parametrize(
    "config", [DatasetConfig(), DatasetConfig(context="x", response="a"), DatasetConfig(messages="m")]
)
def test_a_column_that_is_not_there_is_named_with_those_that_are(config: DatasetConfig) -> None:
    with pytest.raises(Problem, match=r"no column .+ \(DatasetConfig\.\w+_column\); it has q, a"):
        training_data.shape({"q": "", "a": ""}, ["q", "a"], config)


def make_checkpoint(directory: Path, steps: int) -> Path:
    made = directory / f"checkpoint-{steps}"
    made.mkdir()
    (made / "trainer_state.json").write_text(json.dumps({"global_step": steps}))
    write_safetensors(made / "adapter_model.safetensors", {"w": ((1, 2), [1.0, 2.0])})
    with zipfile.ZipFile(made / "optimizer.pt", "w") as archive:
        archive.writestr("data.pkl", b"x")
    return made


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


@pytest.mark.parametrize(
    "spoil",
    [
        lambda c: (c / "trainer_state.json").unlink(),
        lambda c: cut(c / "trainer_state.json"),
        lambda c: (c / "adapter_model.safetensors").unlink(),
        lambda c: cut(c / "adapter_model.safetensors"),
        lambda c: (c / "optimizer.pt").write_bytes(b""),
        shutil.rmtree,
    ],
    ids=["no state", "half of a state", "no weights", "half of the weights", "empty optimizer", "none"],
)
def test_it_goes_on_from_the_last_checkpoint_that_is_whole(tmp_path: Path, spoil: Callable[[Path], None]) -> None:
    for steps in (9, 100, 200):
        make_checkpoint(tmp_path, steps)
    (tmp_path / "checkpoint-x").mkdir()

    assert last_checkpoint(tmp_path) == tmp_path / "checkpoint-200"
    spoil(tmp_path / "checkpoint-200")
    assert last_checkpoint(tmp_path) == tmp_path / "checkpoint-100"


def test_without_a_whole_checkpoint_it_begins_anew(tmp_path: Path) -> None:
    assert last_checkpoint(tmp_path / "none") is None
    cut(make_checkpoint(tmp_path, 5) / "trainer_state.json")

    assert last_checkpoint(tmp_path) is None


@pytest.mark.parametrize(
    ("given", "expected", "is_noted"),
    [
        ({}, ("steps", 200), False),
        ({"save_steps": 25}, ("steps", 25), False),
        ({"save_strategy": "steps", "save_steps": 25}, ("steps", 25), False),
        ({"save_strategy": "epoch"}, ("epoch", None), False),
        ({"save_strategy": "no"}, ("steps", 200), True),
        ({"save_strategy": False, "save_steps": 25}, ("steps", 25), True),
    ],
)
def test_there_is_a_checkpoint_every_so_many_steps(
    tmp_path: Path, given: Mapping[str, Any], expected: tuple[str, int | None], is_noted: bool
) -> None:
    config = read(tmp_path, {"TrainingArguments": given})

    assert (config.training["save_strategy"], config.training.get("save_steps")) == expected
    assert bool(config.notes) is is_noted


def test_progress_is_told_in_numbers() -> None:
    state = {"global_step": 5, "max_steps": 20, "epoch": 0.25, "log_history": [{"loss": 2.0}, {"loss": 1.5}, {"x": 1}]}

    assert progress_of(state) == {"step": 5, "steps": 20, "percent": 25.0, "epoch": 0.25, "loss": 1.5}
    assert progress_of({})["percent"] == 0.0


# Stands in for the training: counts its runs, and leaves an adapter unless it is to fail.
TRAINING = """
import pathlib, sys
results, fails = pathlib.Path(sys.argv[1]), sys.argv[2:]
with (results / "runs").open("a") as runs:
    runs.write("run\\n")
(results / "checkpoints").mkdir(exist_ok=True)
if fails:
    print(fails[0])
    sys.exit(1)
(results / "adapter").mkdir(exist_ok=True)
(results / "adapter" / "adapter_config.json").write_text("{}")
(results / "adapter" / "adapter_model.safetensors").write_text("w")
"""


@pytest.fixture
def places(tmp_path: Path) -> Places:
    places = make_places(tmp_path)
    (places.data / "a.jsonl").write_text("{}")
    return places


def run(places: Places, *fails: str, image: str = "", model: str = "org/m") -> None:
    asyncio.run(tuned(places, *fails, image=image, model=model))


async def tuned(places: Places, *fails: str, image: str = "", model: str = "org/m") -> None:
    await tune.run(
        TuneEnvironment(model=model, method="lora", image=image),
        places=places,
        variables={},
        command=(sys.executable, "-c", TRAINING, str(places.results), *fails),
    )


def runs(places: Places) -> int:
    return len((places.results / "runs").read_text().splitlines())


def test_a_tuning_that_is_done_is_not_done_again(places: Places) -> None:
    run(places)
    run(places)

    assert runs(places) == 1
    assert (places.results / tune.COMPLETED).read_text().startswith("completed at ")


def test_a_tuning_that_failed_is_gone_on_with(places: Places) -> None:
    with pytest.raises(Problem, match=r"CUDA out of memory.*: choose a size with more GPU memory"):
        run(places, "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2 GiB")
    assert not (places.results / tune.COMPLETED).exists()

    run(places)

    assert runs(places) == 2
    assert (places.results / "checkpoints").is_dir()


def test_a_volume_of_another_tuning_is_begun_anew(places: Places) -> None:
    run(places)
    (places.results / "checkpoints" / "checkpoint-5").mkdir()

    run(places, model="org/other")

    assert runs(places) == 2
    assert not (places.results / "checkpoints" / "checkpoint-5").exists()


async def test_the_adapter_is_pushed_again_until_it_is_there(places: Places) -> None:
    async with serve(Registry(is_private=True)) as held:
        image = f"{held.host}/tuned:1"
        with pytest.raises(Problem, match="refuses it"):
            await tuned(places, image=image)
        held.is_private = False
        await tuned(places, image=image)

        assert json.loads(held.manifests["1"])["annotations"] == {"sh.kaito.model.name": "org/m"}
    assert runs(places) == 1
