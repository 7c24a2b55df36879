"""What vLLM says when it cannot serve: the line that matters, and what to do about it. Pure.

vLLM's last line is always that its engine did not start; the reason is above it, in one of several processes' output,
behind their names, times and file names.
"""

import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from provisioner.serving.problem import one_line

# In front of a line: the process, then level, time and place in the code.
_PREFIX: Final = re.compile(
    r"^(\([\w .:=-]+\)\s*)*((DEBUG|INFO|WARNING|ERROR|CRITICAL)\s+[\d-]+\s+[\d:.]+\s+(\[[^\]]*\]\s*)?)?"
)
# Seconds from the reason to the end, once a server serves.
_OLD: Final = 120.0
_ANSI: Final = re.compile(r"\x1b\[[0-9;]*m")


@dataclass(frozen=True, kw_only=True)
class _Known:
    pattern: re.Pattern[str]
    advice: str
    weight: int


def _known(pattern: str, advice: str, *, weight: int = 10) -> _Known:
    return _Known(pattern=re.compile(pattern), advice=advice, weight=weight)


# `what` of a pattern is what is told, else it is the whole line. None begins with what may be anything: lines are long.
_CORRECT: Final = "correct it in inference_config.yaml"
_LARGER: Final = "choose a size with more GPU memory, or a quantised model"
_MEMORY: Final = "the pod may have run out of memory"
_DISK: Final = "the Node's disk is full: ask for a larger OS disk (resource storage) or size"
_LICENCE: Final = "accept the model's licence and put a token into the Secret of modelAccessSecret"
_NAME: Final = "check the model's name, and the Secret of modelAccessSecret if it is private"
_TABLE: Final = (
    _known(
        r"error: unrecognized arguments?: (?P<what>.+)",
        "vLLM has no such option, remove it from inference_config.yaml",
    ),
    _known(r"error: (?P<what>argument .+)", _CORRECT),
    _known(
        r"(?P<what>Free memory on device .+? on startup is less than desired .+)",
        "something else holds memory of this GPU; lower vllm.gpu-memory-utilization if it is to stay",
    ),
    # On CPU, where a share of the GPU's memory is one of the node's.
    _known(
        r"(?P<what>Available memory on node .+? is less than desired CPU memory utilization.+?\))",
        "lower vllm.gpu-memory-utilization",
    ),
    _known(
        r"(?P<what>Available memory on node .+? is less than requested memory for kv .+?\))",
        "lower vllm.kv-cache-memory-bytes",
    ),
    _known(r"(?P<what>Failed to load model - not enough GPU memory)", _LARGER),
    _known(r"(?P<what>No available memory for the cache blocks)", f"{_LARGER}, or raise vllm.gpu-memory-utilization"),
    _known(
        r"(?P<what>To serve at least one request with the model's max seq len .+?)(?:\. Try |$)",
        "lower vllm.max-model-len or set auto",
    ),
    _known(
        r"(?P<what>User-specified max_model_len .+? is greater than the derived max_model_len[^,]*?)(?:\. To |,|$)",
        "lower vllm.max-model-len",
    ),
    _known(
        r"(?P<what>World size \(\d+\) is larger than the number of available GPUs \(\d+\))",
        "lower vllm.tensor-parallel-size",
    ),
    _known(
        r"(?P<what>Total number of attention heads .+? must be divisible by tensor parallel size[^.]*)",
        "set vllm.tensor-parallel-size to a divisor of the heads",
    ),
    _known(r"(?P<what>invalid tool call parser: [\w.-]+)", "set vllm.tool-call-parser to one that vLLM has"),
    _known(r"(?P<what>Reasoning parser '[^']*' not found)", "set vllm.reasoning-parser to one that vLLM has"),
    _known(r"(?P<what>LoRA rank \d+ is greater than max_lora_rank \d+)", "raise vllm.max-lora-rank"),
    _known(r"(?P<what>No space left on device.*)", _DISK),
    _known(r"(?P<what>Disk quota exceeded.*)", "the volume is full"),
    _known(r"(?P<what>The supplied chat template .+)", "correct vllm.chat-template"),
    _known(r"Cannot find an appropriate cached snapshot folder", "unset HF_HUB_OFFLINE, or fill its cache"),
    _known(r"GatedRepoError|Cannot access gated repo|401 Client Error", _LICENCE),
    _known(r"RepositoryNotFoundError|is not a valid model identifier", _NAME),
    _known(
        r"requires you to execute|contains custom code which must be executed",
        "set vllm.trust-remote-code if you trust the code in the model's repository",
    ),
    _known(
        r"(?P<what>Model architectures \[.+?\] (?:are not supported|failed to be inspected))",
        "this vLLM does not serve it: choose another model",
    ),
    _known(r"(?P<what>Bfloat16 is only supported on GPUs with compute capability.*)", "set vllm.dtype to half"),
    _known(
        r"CUDA driver version is insufficient|NVIDIA driver on your system is too old",
        "the Node's driver is older than this image needs: use a Node image with a newer one",
    ),
    _known(
        r"No CUDA GPUs are available|Failed to infer device type",
        "the pod sees no GPU: look at the Node's device plugin",
    ),
    _known(r"CUDA out of memory|OutOfMemoryError", f"{_LARGER}, or run smaller batches", weight=8),
    _known(r"Address already in use", "something else in the pod listens there", weight=8),
    _known(r"[Cc]onnect.{0,200}(?:timed out|refused|reset)", "look at what this pod can reach", weight=4),
    _known(
        r"SafetensorError: (?P<what>.+)",
        "a file of the model's weights is damaged or incomplete: have it fetched or written anew",
    ),
    # Of pydantic, below a line that names the class alone.
    _known(r"^(?:Value error|Assertion failed), (?P<what>.+?)(?: \[type=|$)", _CORRECT, weight=3),
    # Of a process that has seen another end which said nothing.
    _known(r"(?P<what>engine core exited unexpectedly)", _MEMORY, weight=1),
    _known(r"(?P<what>Worker proc \S+ died unexpectedly \(exit code: -9\))", _MEMORY, weight=1),
    # Of a process that tells what another has died of.
    _known(r"Worker failed with error '(?P<what>.+)', please check", "", weight=2),
)
# What any Python process says when it dies.
_ANY: Final = re.compile(r"^(?P<what>(?:[\w.]+\.)?[A-Z]\w*(?:Error|Exception|Interrupt)\b: .+)")
_USELESS: Final = re.compile(r"Engine core initialization failed|See root cause above|EngineDeadError|cancelled")


# Of pydantic too: the field is in the line above.
_FIELD: Final = re.compile(r"^(?P<what>Input should .+?)(?: \[type=|$)")
# When an adapter has been taken, and in whose traceback one was refused.
_TAKEN: Final = re.compile(r"Loaded new LoRA adapter: name '(?P<name>[^']+)'")
_REFUSED: Final = "init_static_loras"


class LastWords:
    """Reads a server's output line by line and keeps the one that tells why it ended.

    `adapters` are those that have been taken, `adapter_refused` tells that the next one was not.
    """

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._weight = 0
        self._text = ""
        self._before = ""
        self._when = 0.0
        self._serves = False
        self.adapters: set[str] = set()
        self.adapter_refused = False

    def serving(self) -> None:
        """Forget what was said while it loaded: that has not kept it from serving."""
        self._weight, self._text, self._serves = 0, "", True

    def read(self, line: str) -> None:
        """Look at a line of output."""
        text = _PREFIX.sub("", _ANSI.sub("", line)).strip()
        if taken := _TAKEN.search(text):
            self.adapters.add(taken["name"])
        self.adapter_refused = self.adapter_refused or _REFUSED in text
        for known in _TABLE:
            found = known.pattern.search(text)
            if found:
                what = found.groupdict().get("what", text).rstrip(". ")
                self._keep(f"{what}: {known.advice}" if known.advice else what, known.weight)
                return
        if found := _FIELD.search(text):
            self._keep(f"{self._before}: {found['what']}: {_CORRECT}", 3)
        elif (found := _ANY.search(text)) and not _USELESS.search(text):
            self._keep(found["what"], 2)
        self._before = text

    def suggest(self, text: str) -> None:
        """Take what somebody else has seen for the reason, unless the server says one itself."""
        self._keep(text, 1)

    def text(self, *, otherwise: str) -> str:
        """Return the reason in one line."""
        return one_line(otherwise if self._is_old() else self._text or otherwise)

    def _keep(self, text: str, weight: int) -> None:
        # The first of those that say most: later ones are consequences.
        if weight > self._weight or self._is_old():
            self._text, self._weight, self._when = text, weight, self._clock()

    def _is_old(self) -> bool:
        """Of a server that has served for weeks, what it said of a request long ago is not why it ends."""
        return self._serves and self._clock() - self._when > _OLD
