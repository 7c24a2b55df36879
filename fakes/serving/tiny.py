"""`python -m fakes.serving.tiny DIRECTORY`: a random Llama of 140,000 parameters that vLLM serves on any processor.

Run by the Python of the serving environment. The same every time: weights and tokenizer come from a seed and a text.
"""

import json
import sys
from pathlib import Path
from typing import Any, Final

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

# A head of 32 is the smallest that vLLM's attention on CPU has.
CONFIG: Final[dict[str, Any]] = {
    "vocab_size": 512,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 32,
    "max_position_embeddings": 2048,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "pad_token_id": 2,
}
_SPECIAL: Final = ["<s>", "</s>", "<pad>", "<|user|>", "<|assistant|>"]
_TEXT: Final = "A node of the cluster has joined, its graphics processors are ready and the model answers. " * 50
_TEMPLATE: Final = (
    "{% for message in messages %}<|{{ message['role'] }}|>{{ message['content'] }}</s>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


def make(directory: Path, *, changes: dict[str, Any] | None = None) -> None:
    """Write the model and its tokenizer; `changes` are fields of its configuration."""
    torch.manual_seed(20)
    model = LlamaForCausalLM(LlamaConfig(**{**CONFIG, **(changes or {})}))
    model.to(torch.bfloat16).save_pretrained(directory)
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=CONFIG["vocab_size"],
        special_tokens=_SPECIAL,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([_TEXT], trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", pad_token="<pad>", chat_template=_TEMPLATE
    )
    fast.save_pretrained(directory)


if __name__ == "__main__":
    make(Path(sys.argv[1]), changes=json.loads(sys.argv[2]) if len(sys.argv) > 2 else None)
