"""The real vLLM on CPU, behind the program of the serving image, with a tiny model that is made here."""

import asyncio
import json
import os
import random
import shutil
import socket
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
import yaml

from fakes.serving import environment
from fakes.serving.model import make_model
from fakes.serving.process import CPU_OPTIONS, ServingProcess
from tests.unit.serving_support import write_safetensors

_HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark all tests in here."""
    for item in items:
        if _HERE in item.path.parents:
            item.add_marker(pytest.mark.serving)
            # A start takes half a minute on two cores, and more of them where others work beside.
            item.add_marker(pytest.mark.timeout(600))


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip all of it where vLLM has not been installed; under CI it must be there."""
    if os.environ.get("CI") != "true" and (reason := environment.skip_reason()):
        pytest.skip(reason)


@pytest.fixture(scope="session")
def python() -> Path:
    """Return the Python that has vLLM. Raises EnvironmentMissing."""
    return environment.find()


@pytest.fixture(scope="session")
def tiny(python: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the directory of a model of 140,000 random parameters, with a tokenizer and a chat template."""
    directory = tmp_path_factory.mktemp("models") / "tiny"
    make_model(directory, python=python)
    return directory


def options(**changes: Any) -> str:
    """Return a user's configuration: what vLLM needs on CPU, and options beside it."""
    named = {name.replace("_", "-"): value for name, value in changes.items()}
    return yaml.safe_dump({"vllm": {**yaml.safe_load(CPU_OPTIONS)["vllm"], **named}})


def fixed_ports() -> int:
    """Return a port that is free together with the one after it, and that the kernel gives to nobody meanwhile.

    vLLM binds its own half a minute after it was started: until then one of the kernel's may belong to a connection.
    """
    chosen = random.SystemRandom()
    while True:
        port = chosen.randrange(10_000, 29_000)
        with socket.socket() as first, socket.socket() as second:
            try:
                first.bind(("", port))
                second.bind(("", port + 1))
            except OSError:
                continue
        return port


Maker = Callable[..., ServingProcess]


@pytest.fixture(scope="session")
def make_server(python: Path, tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Maker:
    """Return a maker of servers of the tiny model; `config` is the user's, `environment` the pod's beside the model."""
    # What vLLM has found out about the kind of model, in a process that takes as long as its start.
    known = str(tmp_path_factory.mktemp("vllm"))

    def make(root: Path, *, config: str = CPU_OPTIONS, port: int = 0, **environment: str) -> ServingProcess:
        variables = {"MODEL": str(tiny), "SERVED_MODEL_NAMES": "tiny", "VLLM_CACHE_ROOT": known, **environment}
        server = ServingProcess(python=python, root=root, environment=variables, port=port or fixed_ports())
        (root / "config" / "inference_config.yaml").write_text(config)
        return server

    return make


KEY = "a key of clients"


@dataclass(frozen=True, kw_only=True)
class Guarded:
    """A server with a key and all that a Workspace can ask for; `seen` are the states it went through."""

    server: ServingProcess
    environment: dict[str, str]
    seen: list[dict[str, Any]] = field(default_factory=list)


ADAPTERS = ("good", "weak", "wide", "foreign", "prompts", "odd", "gone")
TEMPLATE = (
    "{% for message in messages %}<|{{ message['role'] }}|>{{ message['content'] }}</s>"
    "{% if message['role'] == 'system' %}{{ raise_exception('no system role') }}{% endif %}{% endfor %}<|assistant|>"
)


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def guarded(make_server: Maker, tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Guarded]:
    """Start one server for all tests that only ask it: starts are what takes the time."""
    root = tmp_path_factory.mktemp("guarded")
    environment = {
        "API_KEY": f"{KEY}\n",
        "SERVED_MODEL_NAMES": "tiny,small",
        "TOOL_CALL_PARSER": "hermes",
        "REASONING_PARSER": "granite",
        "MAX_MODEL_LEN": "auto",
        "ADAPTERS": json.dumps([{"name": name, "strength": "0.5" if name == "weak" else "1"} for name in ADAPTERS]),
    }
    config = options(kv_cache_memory_bytes="256K", chat_template=TEMPLATE, allowed_origins=["https://x.example"])
    server = make_server(root, config=config, **environment)
    make_adapters(root / "adapters")
    guarded = Guarded(server=server, environment={"MODEL": str(tiny), **environment})
    async with server:
        while True:
            status, said = await server.health()
            if said and said not in guarded.seen:
                guarded.seen.append(said)
            if status == 200:
                break
            assert server.runs, server.log_text()[-2000:]
            await asyncio.sleep(0.2)
        yield guarded


def make_adapters(directory: Path) -> None:
    """Make the adapters: `good` and `weak` can be served, all others cannot."""
    make_adapter(directory / "good")
    make_adapter(directory / "weak")
    make_adapter(directory / "wide", rank=640)
    make_adapter(directory / "foreign", inner=256)
    # A module that the model has not, as nothing but vLLM can know.
    shutil.copytree(directory / "good", directory / "odd")
    weights = directory / "odd" / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes().replace(b".o_proj.", b".z_proj."))
    # What PEFT makes and no LoRA is.
    (directory / "prompts").mkdir()
    (directory / "prompts" / "adapter_config.json").write_text(json.dumps({"peft_type": "PROMPT_TUNING"}))


def make_adapter(directory: Path, *, rank: int = 8, inner: int = 128) -> None:
    """Write an adapter for models of the tiny one's shape, as PEFT does, that makes another model of it."""
    directory.mkdir(parents=True)
    config = {"peft_type": "LORA", "task_type": "CAUSAL_LM", "r": rank, "lora_alpha": 64, "bias": "none"}
    modules = {"self_attn.o_proj": 64, "mlp.down_proj": inner}
    targets = [module.partition(".")[2] for module in modules]
    (directory / "adapter_config.json").write_text(json.dumps({**config, "target_modules": targets}))
    chosen = random.Random(20)  # noqa: S311 -- the same every time
    tensors = {}
    for module, width in modules.items():
        name = f"base_model.model.model.layers.1.{module}"
        for half, shape in (("A", (rank, width)), ("B", (64, rank))):
            values = [chosen.gauss(0, 0.2) for _ in range(shape[0] * shape[1])]
            tensors[f"{name}.lora_{half}.weight"] = (shape, values)
    write_safetensors(directory / "adapter_model.safetensors", tensors)
