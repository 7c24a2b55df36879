"""`python -m fakes.serving.merged MODEL DIRECTORY`: what adapters at some strength come to, as transformers reckon it.

Run by the Python of the serving environment. Reads JSON from standard input: `made`, fields of PEFT's LoraConfig by the
names of the adapters that are made in DIRECTORY; `asked`, pairs of an adapter and a strength; `prompt`, a list of
tokens. Writes a JSON list to standard output: for each pair the logarithms of the probabilities that a model with
`W + strength x scaling x B x A` in place of its weights gives to each token of the prompt but the first.
"""

import json
import os
import sys
from pathlib import Path
from typing import Any, Final

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from peft.tuners.lora import LoraLayer
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


def logprobs(model: Path, adapter: Path, *, strength: float, prompt: list[int]) -> list[float]:
    """Return what a model gives whose weights have the adapter in them; PEFT tells the scaling of each module."""
    whole = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    merged = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    adapted = PeftModel.from_pretrained(whole, adapter).get_base_model()
    with torch.no_grad():
        for name, module in adapted.named_modules():
            if isinstance(module, LoraLayer):
                added = module.lora_B["default"].weight @ module.lora_A["default"].weight
                merged.get_submodule(name).weight += strength * module.scaling["default"] * added
        tokens = torch.tensor([prompt])
        scores = merged(tokens).logits[0, :-1].log_softmax(dim=-1)
    return [float(score) for score in scores.gather(1, tokens[0, 1:, None])[:, 0]]


def main() -> None:
    """Make the adapters and answer."""
    model, directory = Path(sys.argv[1]), Path(sys.argv[2])
    # Whatever the libraries print is no part of the answer.
    answers = os.dup(sys.stdout.fileno())
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    told = json.load(sys.stdin)
    for name, changes in told["made"].items():
        make(model, directory / name, changes=changes)
    found = [
        logprobs(model, directory / name, strength=strength, prompt=told["prompt"]) for name, strength in told["asked"]
    ]
    with os.fdopen(answers, "w") as file:
        json.dump(found, file)


if __name__ == "__main__":
    main()
