"""The command line of vLLM: what of the environment and of the user's options is in it, and what is refused."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from provisioner.serving import options
from provisioner.serving.arguments import LoraModule, allowed_rank, build, served_name
from provisioner.serving.environment import ServeEnvironment
from provisioner.serving.options import Options
from provisioner.serving.problem import Problem

NONE = Options(values={})


def read(tmp_path: Path, text: str) -> Options:
    path = tmp_path / "inference_config.yaml"
    path.write_text(text)
    return options.read(path)


def test_a_model_on_one_gpu() -> None:
    assert build(ServeEnvironment(model="org/m"), options=NONE) == [
        "serve",
        "org/m",
        "--gpu-memory-utilization=0.9",
        "--host=127.0.0.1",
        "--max-model-len=auto",
        "--port=5001",
        "--shutdown-timeout=60",
        "--tensor-parallel-size=1",
    ]


def test_all_that_the_environment_can_say() -> None:
    environment = ServeEnvironment(
        model="org/m",
        revision="abc",
        served_names=("m", "org/m"),
        tensor_parallel=2,
        data_parallel=4,
        max_model_len=4096,
        dtype="half",
        tool_parser="hermes",
        reasoning_parser="qwen3",
    )
    modules = (
        LoraModule(name="a", path=Path("/adapters/a"), rank=9),
        LoraModule(name="b", path=Path("/cache/b"), rank=4),
    )

    argv = build(environment, options=NONE, adapters=modules)

    assert argv[2:] == [
        "--data-parallel-size=4",
        "--dtype=half",
        "--enable-auto-tool-choice",
        "--enable-lora",
        "--gpu-memory-utilization=0.9",
        "--host=127.0.0.1",
        "--lora-modules",
        "a=/adapters/a",
        "b=/cache/b",
        "--max-lora-rank=16",
        "--max-loras=2",
        "--max-model-len=4096",
        "--port=5001",
        "--reasoning-parser=qwen3",
        "--revision=abc",
        "--served-model-name",
        "m",
        "org/m",
        "--shutdown-timeout=60",
        "--tensor-parallel-size=2",
        "--tool-call-parser=hermes",
    ]


@pytest.mark.parametrize(("rank", "own"), [(0, ["--host=127.0.0.1"]), (1, ["--headless"])])
def test_a_group_knows_its_leader_and_workers_have_no_port(rank: int, own: list[str]) -> None:
    environment = ServeEnvironment(
        model="m", tensor_parallel=8, pipeline_parallel=2, nodes=2, rank=rank, leader="w-0.w-headless.ns.svc"
    )

    argv = build(environment, options=NONE)

    group = [
        "--distributed-executor-backend=mp",
        "--master-addr=w-0.w-headless.ns.svc",
        "--master-port=29501",
        "--nnodes=2",
        f"--node-rank={rank}",
        "--pipeline-parallel-size=2",
    ]
    assert set(group + own) <= set(argv)
    assert ("--port=5001" in argv) is (rank == 0)


@pytest.mark.parametrize(
    ("fields", "says"), [({"leader": ""}, "LEADER_ADDRESS"), ({"leader": "w-0.h", "rank": 2}, "RANK is 2")]
)
def test_a_group_that_cannot_be_is_refused(fields: dict[str, object], says: str) -> None:
    with pytest.raises(Problem, match=says):
        build(ServeEnvironment(model="m", nodes=2, **fields), options=NONE)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("yaml", "expected"),
    [
        ("max-model-len: 2048", ["--max-model-len=2048"]),
        ("max_model_len: -1", ["--max-model-len=-1"]),
        ("enforce-eager: true", ["--enforce-eager"]),
        ("enable_prefix_caching: false", ["--no-enable-prefix-caching"]),
        ("no-enable-prefix-caching: true", ["--no-enable-prefix-caching"]),
        ("no-enable-prefix-caching: false", ["--enable-prefix-caching"]),
        ("enforce-eager:", ["--enforce-eager"]),
        ("gpu-memory-utilization: 0.84", ["--gpu-memory-utilization=0.84"]),
        ("cudagraph-capture-sizes: [1, 2]", ["--cudagraph-capture-sizes", "1", "2"]),
        ("allowed-origins: [https://a, '*']", ['--allowed-origins=["https://a", "*"]']),
        ("speculative-config: {method: ngram, num: 2}", ['--speculative-config={"method": "ngram", "num": 2}']),
        ("compilation-config.pass_config.x: 3", ["--compilation-config.pass_config.x=3"]),
        ("chat-template: '--host=0.0.0.0'", ["--chat-template=--host=0.0.0.0"]),
    ],
)
def test_the_users_options_win_over_ours(tmp_path: Path, yaml: str, expected: list[str]) -> None:
    argv = build(ServeEnvironment(model="m"), options=read(tmp_path, f"vllm:\n  {yaml}\n"))

    at = argv.index(expected[0])
    assert argv[at : at + len(expected)] == expected
    name = expected[0].partition("=")[0]
    assert sum(argument.partition("=")[0] == name for argument in argv) == 1


@pytest.mark.parametrize(
    "name",
    [
        "host", "port", "uds", "ssl-keyfile", "ssl_certfile", "api-key", "api_key", "hf-token", "api", "po", "hos",
        "nnodes", "node-rank", "master-addr", "headless", "headl", "no-headless", "lora-modules", "config",
        "--host", "HOST", "data-parallel-address", "shutdown-timeout", "model", "grpc", "root-path",
    ],
)  # fmt: skip
def test_options_that_would_take_the_server_away_are_refused_by_name(tmp_path: Path, name: str) -> None:
    with pytest.raises(Problem, match=r"inference_config\.yaml: remove vllm"):
        read(tmp_path, f"vllm:\n  {name}: x\n")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("vllm: [a]", "vllm must be a map"),
        ("- a", "the document must be a map"),
        ("vllm: {a: [", "no YAML in line 1"),
        ("vllm: {'a b': 1}", "no name of an option"),
        ("vllm: {'': 1}", "no name of an option"),
        ("vllm: {max-model-len: 1, max_model_len: 2}", "there twice"),
        ("vllm: {cudagraph-capture-sizes: ['--host=0.0.0.0']}", "begins with a dash"),
        ("vllm: {1: 2}", "must be a map of names"),
        ("x: " + "a" * 70000, "larger than 64 KiB"),
        ("[" * 5000, "no YAML"),
    ],
)
def test_a_configuration_that_cannot_be_meant_is_one_line(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(Problem, match=says):
        read(tmp_path, text)


KEYS = st.one_of(
    st.sampled_from(["host", "headless", "api-key", "lora-modules", "max-model-len", "enforce-eager"]).flatmap(
        lambda name: st.sampled_from(
            [name, f"no-{name}", f"no-no-{name}", f"--{name}", name.replace("-", "_"), name.upper(), name[:-1],
             f"{name}.x", f"{name}=1", f" {name} ", f"-no_{name}"]
        )
    ),
    st.text(max_size=12),
)  # fmt: skip
SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8), st.just("--host=0.0.0.0"), st.just("--")
)
VALUES = st.one_of(SCALARS, st.lists(SCALARS, max_size=3), st.dictionaries(st.text(max_size=4), SCALARS, max_size=2))


@given(st.dictionaries(KEYS, VALUES, max_size=4))
def test_whatever_is_written_the_server_stays_where_it_is(tmp_path_factory: Any, vllm: dict[str, Any]) -> None:
    path = tmp_path_factory.getbasetemp() / "inference_config.yaml"
    path.write_text(yaml.safe_dump({"vllm": vllm}))
    try:
        argv = build(ServeEnvironment(model="m"), options=options.read(path))
    except Problem:
        return

    named = [argument.partition("=")[0] for argument in argv if argument.startswith("-")]
    assert argv[:2] == ["serve", "m"]
    assert len(named) == len(set(named))
    assert "--host=127.0.0.1" in argv
    refused = {"--api-key", "--api", "--headless", "--no-headless", "--lora-modules", "--no-host", "--hos"}
    assert refused.isdisjoint(named)
    assert all(name.startswith("--") and name != "--" for name in named)


def test_what_has_no_effect_or_some_danger_is_noted(tmp_path: Path) -> None:
    found = read(
        tmp_path,
        "max_probe_steps: 6\nkv_cache_cpu_memory_utilization: 0.5\nother: 1\nvllm: {trust-remote-code: true}\n",
    )

    assert [note.partition(" ")[0].rstrip(":") for note in found.notes] == [
        "max_probe_steps",
        "kv_cache_cpu_memory_utilization",
        "other",
        "vllm.trust-remote-code",
    ]


def test_no_configuration_is_none(tmp_path: Path) -> None:
    assert options.read(tmp_path / "inference_config.yaml") == NONE


@pytest.mark.parametrize(
    ("chosen", "expected"), [({}, "m"), ({"served-model-name": "x"}, "x"), ({"served-model-name": ("y", "z")}, "y")]
)
def test_the_name_to_ask_for_is_the_first_that_is_served(
    chosen: dict[str, str | tuple[str, ...]], expected: str
) -> None:
    environment = ServeEnvironment(model="org/m", served_names=("m",))

    assert served_name(environment, Options(values=chosen)) == expected


@pytest.mark.parametrize(("rank", "expected"), [(1, 1), (2, 8), (8, 8), (65, 128), (257, 320), (512, 512)])
def test_the_rank_is_the_next_that_vllm_allows(rank: int, expected: int) -> None:
    assert allowed_rank(rank) == expected


def test_a_rank_beyond_all_is_refused() -> None:
    with pytest.raises(Problem, match="rank 513"):
        allowed_rank(513)
