"""What vLLM's output says of its end."""

import pytest

from provisioner.serving.vllm_errors import LastWords

ANEW = "a file of the model's weights is damaged or incomplete: have it fetched or written anew"
LESS = "lower vllm.kv-cache-memory-bytes"
TOO_LONG = "To serve at least one request with the model's max seq len (16384), (1.0 GiB KV cache is needed"


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (
            ["vllm serve: error: unrecognized arguments: --foo=1"],
            "--foo=1: vLLM has no such option, remove it from inference_config.yaml",
        ),
        (
            ["vllm: error: argument --max-num-seqs: invalid int value: 'x'"],
            "argument --max-num-seqs: invalid int value: 'x': correct it in inference_config.yaml",
        ),
        (
            [
                f"(EngineCore_0 pid=9) ERROR 11-21 10:00:00 [core.py:1] ValueError: {TOO_LONG}.",
                "(APIServer pid=1) RuntimeError: Engine core initialization failed. See root cause above.",
            ],
            f"{TOO_LONG}: lower vllm.max-model-len or set auto",
        ),
        (
            ["ValueError: User-specified max_model_len (9) is greater than the derived max_model_len (8). To do"],
            "User-specified max_model_len (9) is greater than the derived max_model_len (8): lower vllm.max-model-len",
        ),
        (
            ["Available memory on node 0 (6/10 GiB) is less than requested memory for kv (20 GiB). Decrease"],
            f"Available memory on node 0 (6/10 GiB) is less than requested memory for kv (20 GiB): {LESS}",
        ),
        (
            ["KeyError: 'invalid tool call parser: nope (chose from { hermes,hf })'"],
            "invalid tool call parser: nope: set vllm.tool-call-parser to one that vLLM has",
        ),
        (
            ["safetensors_rust.SafetensorError: incomplete metadata"],
            f"incomplete metadata: {ANEW}",
        ),
        (
            [
                "pydantic_core._pydantic_core.ValidationError: 1 validation error for VllmConfig",
                "  Value error, Cannot find the config file for awq [type=value_error, input_value=1]",
            ],
            "Cannot find the config file for awq: correct it in inference_config.yaml",
        ),
        (
            [
                "pydantic_core._pydantic_core.ValidationError: 1 validation error for SchedulerConfig",
                "max_num_seqs",
                "  Input should be greater than or equal to 1 [type=greater_than_equal, input_value=0]",
            ],
            "max_num_seqs: Input should be greater than or equal to 1: correct it in inference_config.yaml",
        ),
        (
            ["RuntimeError: Worker failed with error 'no kernel of that shape', please check the stack trace above"],
            "no kernel of that shape",
        ),
        (
            ["torch.OutOfMemoryError: CUDA out of memory.", "Failed to load model - not enough GPU memory. Try lower"],
            "Failed to load model - not enough GPU memory: choose a size with more GPU memory, or a quantised model",
        ),
        (
            ["World size (8) is larger than the number of available GPUs (4) in this node. Set '--nnodes'"],
            "World size (8) is larger than the number of available GPUs (4): lower vllm.tensor-parallel-size",
        ),
        (
            [
                "(APIServer pid=1) ERROR 11-21 10:00:00 [a.py:1] EngineDeadError: EngineCore encountered an issue.",
                "WARNING 11-21 10:00:00 [a.py:8] MPClient: engine core exited unexpectedly; starting cleanup",
            ],
            "engine core exited unexpectedly: the pod may have run out of memory",
        ),
        (
            ["Worker proc VllmWorker-1 died unexpectedly (exit code: -9), shutting down executor."],
            "Worker proc VllmWorker-1 died unexpectedly (exit code: -9): the pod may have run out of memory",
        ),
        (
            ["Worker proc VllmWorker-1 died unexpectedly (exit code: -9), shutting down", "RuntimeError: CUDA error"],
            "RuntimeError: CUDA error",
        ),
        (["\x1b[31mKeyError: 'a'\x1b[0m", "ValueError: consequence"], "KeyError: 'a'"),
        (["RuntimeError: Engine core initialization failed. See root cause above."], "nothing"),
        (["INFO ready", ""], "nothing"),
        (["OSError: no access with hf_abcdefghijkl"], "OSError: no access with ***"),
        (["ValueError: " + "x" * 5000], "ValueError: " + "x" * 988),
    ],
)
def test_the_line_that_tells_why_is_kept(lines: list[str], expected: str) -> None:
    words = LastWords()
    for line in lines:
        words.read(line)

    assert words.text(otherwise="nothing") == expected


def test_what_others_have_seen_is_told_when_nothing_is_said() -> None:
    words = LastWords()
    words.suggest("its first request fails")
    assert words.text(otherwise="nothing") == "its first request fails"

    words.read("RuntimeError: no kernel")

    assert words.text(otherwise="nothing") == "RuntimeError: no kernel"


def test_what_a_server_was_asked_long_ago_is_not_why_it_ends() -> None:
    now = 0.0
    words = LastWords(clock=lambda: now)
    words.read("ValueError: a file is looked for that is not there")
    words.serving()
    assert words.text(otherwise="nothing") == "nothing"

    words.read("torch.OutOfMemoryError: CUDA out of memory")
    now = 1000.0
    assert words.text(otherwise="nothing") == "nothing"

    # However little it says: it is the last that was said.
    words.read("RuntimeError: the last")
    words.read("KeyError: a consequence")
    assert words.text(otherwise="nothing") == "RuntimeError: the last"


def test_the_adapter_that_vllm_stumbles_over_is_the_next_one() -> None:
    words = LastWords()
    words.read("INFO 11-21 10:00:00 [serving.py:226] Loaded new LoRA adapter: name 'a', path '/a'")
    assert (words.adapters, words.adapter_refused) == ({"a"}, False)

    words.read('(APIServer pid=1)   File "serving.py", line 139, in init_static_loras')

    assert (words.adapters, words.adapter_refused) == ({"a"}, True)
