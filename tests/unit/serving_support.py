"""What tests of the serving program share: models and adapters on disk, the fake of vLLM, free ports."""

import asyncio
import json
import os
import socket
import struct
import sys
import time
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

from provisioner.serving.environment import ServedAdapter, ServeEnvironment
from provisioner.serving.places import Places
from provisioner.serving.supervise import Server, Timing

FAKE_VLLM = Path(__file__).parent / "fake_vllm" / "vllm"
CONFIG = {"hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2, "architectures": ["LlamaForCausalLM"]}
QUICK = Timing(drain=20, end=5, end_loading=0.5, poll=0.02, progress=60, group_period=0.02, group_lost=1)
# Seconds until a condition that never comes fails its test; how long it takes is asserted nowhere.
PATIENCE = 30.0


def write_safetensors(path: Path, tensors: Mapping[str, tuple[tuple[int, ...], list[float]]]) -> None:
    """Write 32-bit floats as a safetensors file."""
    header: dict[str, Any] = {}
    body = b""
    for name, (shape, values) in tensors.items():
        data = struct.pack(f"<{len(values)}f", *values)
        header[name] = {"dtype": "F32", "shape": list(shape), "data_offsets": [len(body), len(body) + len(data)]}
        body += data
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + body)


def read_safetensors(path: Path) -> dict[str, list[list[float]]]:
    """Return the matrices in such a file."""
    raw = path.read_bytes()
    (length,) = struct.unpack("<Q", raw[:8])
    found = {}
    for name, entry in json.loads(raw[8 : 8 + length]).items():
        begin, end = entry["data_offsets"]
        rows, columns = entry["shape"]
        flat = struct.unpack(f"<{rows * columns}f", raw[8 + length + begin : 8 + length + end])
        found[name] = [list(flat[row * columns : (row + 1) * columns]) for row in range(rows)]
    return found


def make_model(directory: Path, *, tokenizer: bool = True, config: Mapping[str, Any] = CONFIG) -> Path:
    directory.mkdir(parents=True)
    (directory / "config.json").write_text(json.dumps(config))
    write_safetensors(directory / "model.safetensors", {"w": ((1, 1), [1.0])})
    if tokenizer:
        (directory / "tokenizer.json").write_text("{}")
    return directory


def make_adapter(directory: Path, *, rank: int = 2, hidden: int = 8, layer: int = 0, **changes: Any) -> Path:
    directory.mkdir(parents=True)
    config = {
        "peft_type": "LORA",
        "r": rank,
        "lora_alpha": 4,
        "target_modules": ["q_proj"],
        "base_model_name_or_path": "model",
        **changes,
    }
    (directory / "adapter_config.json").write_text(json.dumps({k: v for k, v in config.items() if v is not None}))
    module = f"base_model.model.model.layers.{layer}.self_attn.q_proj"
    write_safetensors(
        directory / "adapter_model.safetensors",
        {
            f"{module}.lora_A.weight": ((rank, hidden), [0.5 * (n + 1) for n in range(rank * hidden)]),
            f"{module}.lora_B.weight": ((hidden, rank), [0.25 * (n - 3) for n in range(rank * hidden)]),
        },
    )
    return directory


def make_places(root: Path) -> Places:
    places = Places(root=root)
    for path in (places.models, places.cache, places.adapters, places.data, places.results, places.registry_secrets):
        path.mkdir()
    places.inference_config.parent.mkdir()
    places.status.parent.mkdir()
    places.termination_message.parent.mkdir()
    return places


def free_ports() -> int:
    """Return a port that is free together with the one after it."""
    while True:
        with socket.socket() as first, socket.socket() as second:
            first.bind(("127.0.0.1", 0))
            port = int(first.getsockname()[1])
            try:
                second.bind(("127.0.0.1", port + 1))
            except OSError:
                continue
            return port


def make_server(places: Places, model: Path, how: Mapping[str, Any], **changes: Any) -> tuple[Server, int]:
    """Return a server over the fake, and its port."""
    port = free_ports()
    variables = {
        "PATH": os.environ["PATH"],
        "FAKE_VLLM": json.dumps(how),
        "HF_HUB_OFFLINE": "1",
        **changes.pop("variables", {}),
    }
    adapters: tuple[ServedAdapter, ...] = changes.pop("adapters", ())
    fields = {"model": str(model), "served_names": ("tiny",), "adapters": adapters, **changes.pop("fields", {})}
    server = Server(
        ServeEnvironment(**fields),
        places=places,
        variables=variables,
        command=(sys.executable, str(FAKE_VLLM)),
        host="127.0.0.1",
        port=port,
        timing=changes.pop("timing", QUICK),
        **changes,
    )
    return server, port


async def until(condition: Callable[[], Awaitable[bool] | bool]) -> None:
    """Wait for a condition."""
    end = time.monotonic() + PATIENCE
    while True:
        found = condition()
        if found if isinstance(found, bool) else await found:
            return
        assert time.monotonic() < end, "the condition has not come"
        await asyncio.sleep(0.01)
