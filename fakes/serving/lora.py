"""`python -m fakes.serving.lora MODEL DIRECTORY JSON`: LoRA adapters of random weights for a model, made by PEFT.

Run by the Python of the serving environment. JSON maps names of directories below DIRECTORY to fields of PEFT's
LoraConfig; all adapters of a call are made in one process, as importing it is what takes the time.
"""

import json
import sys
from pathlib import Path
from typing import Any, Final

import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

_DEFAULTS: Final[dict[str, Any]] = {
    "r": 8,
    "lora_alpha": 64,
    "target_modules": ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"],
    "task_type": "CAUSAL_LM",
}


def make(model: Path, directory: Path, *, changes: dict[str, Any]) -> None:
    """Write an adapter whose answers differ from the model's: B is not zero, as it is before any training."""
    torch.manual_seed(20)
    adapted = get_peft_model(AutoModelForCausalLM.from_pretrained(model), LoraConfig(**{**_DEFAULTS, **changes}))
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if ".lora_B." in name:
                parameter.normal_(std=0.2)
    adapted.save_pretrained(directory)


if __name__ == "__main__":
    for name, changes in json.loads(sys.argv[3]).items():
        make(Path(sys.argv[1]), Path(sys.argv[2]) / name, changes=changes)
