"""What the author of pods tells the serving image is what it reads."""

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from provisioner.serving.environment import BadEnvironment, ServedAdapter, ServeEnvironment, TuneEnvironment

# What a variable can hold: text of any kind but NUL.
TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=30)
NAMES = st.text(st.characters(exclude_characters="\0,", exclude_categories=["Cs"]), min_size=1, max_size=20)
NUMBERS = st.integers(min_value=1, max_value=10**8)
PARTS = st.decimals(min_value=0, max_value=1, places=3)

SERVED = st.builds(
    ServeEnvironment,
    model=TEXT.filter(bool),
    revision=TEXT,
    served_names=st.lists(NAMES, max_size=3).map(tuple),
    tensor_parallel=NUMBERS,
    pipeline_parallel=NUMBERS,
    data_parallel=NUMBERS,
    nodes=NUMBERS,
    leader=TEXT,
    gpu_memory_utilization=PARTS.filter(bool),
    max_model_len=st.just(0) | NUMBERS,
    dtype=TEXT,
    tool_parser=TEXT,
    reasoning_parser=TEXT,
    adapters=st.lists(st.builds(ServedAdapter, name=TEXT, strength=PARTS), max_size=3).map(tuple),
)
TUNED = st.builds(
    TuneEnvironment,
    model=TEXT.filter(bool),
    method=st.sampled_from(["lora", "qlora"]),
    revision=TEXT,
    image=TEXT,
    urls=st.lists(TEXT, max_size=3).map(tuple),
    processes=NUMBERS,
)


@given(told=SERVED)
def test_what_is_told_about_serving_is_what_is_read(told: ServeEnvironment) -> None:
    assert ServeEnvironment.from_env(told.to_env()) == told


@given(told=TUNED)
def test_what_is_told_about_tuning_is_what_is_read(told: TuneEnvironment) -> None:
    assert TuneEnvironment.from_env(told.to_env()) == told


def test_rank_is_the_pods_own_to_know() -> None:
    told = ServeEnvironment(model="m", nodes=2, rank=1, leader="a")

    assert "RANK" not in told.to_env()
    assert ServeEnvironment.from_env({**told.to_env(), "RANK": "1"}) == told


def test_variables_that_say_nothing_are_left_out() -> None:
    assert set(TuneEnvironment(model="m", method="lora").to_env()) == {"MODEL", "METHOD", "PROCESSES"}
    assert ServeEnvironment(model="m").to_env()["MAX_MODEL_LEN"] == "auto"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("MODEL", ""),
        ("TENSOR_PARALLEL_SIZE", "0"),
        ("TENSOR_PARALLEL_SIZE", "-1"),
        ("TENSOR_PARALLEL_SIZE", "1.5"),
        ("PIPELINE_PARALLEL_SIZE", "two"),
        ("NODES", "٣"),
        ("NODES", "9" * 5000),
        ("RANK", "-1"),
        ("MAX_MODEL_LEN", "0"),
        ("MAX_MODEL_LEN", "-1"),
        ("GPU_MEMORY_UTILIZATION", "0"),
        ("GPU_MEMORY_UTILIZATION", "1.01"),
        ("GPU_MEMORY_UTILIZATION", "nan"),
        ("GPU_MEMORY_UTILIZATION", "sNaN"),
        ("GPU_MEMORY_UTILIZATION", "Infinity"),
        ("GPU_MEMORY_UTILIZATION", "much"),
        ("ADAPTERS", "{"),
        ("ADAPTERS", '{"name": "a"}'),
        ("ADAPTERS", '[{"strength": "1"}]'),
        ("ADAPTERS", '["a"]'),
        ("ADAPTERS", '[{"name": "a", "strength": "NaN"}]'),
        ("ADAPTERS", '[{"name": "a", "strength": "2"}]'),
        ("ADAPTERS", "[" * 100_000),
    ],
)
def test_variable_that_says_nothing_that_can_be_meant_is_named(name: str, value: str) -> None:
    with pytest.raises(BadEnvironment, match=name):
        ServeEnvironment.from_env({"MODEL": "m", name: value})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("MODEL", ""),
        ("METHOD", ""),
        ("METHOD", "full"),
        ("PROCESSES", "0"),
        ("DATA_URLS", "https://data.example"),
        ("DATA_URLS", "[1]"),
        ("DATA_URLS", "[" * 100_000),
    ],
)
def test_tuning_variable_that_says_nothing_that_can_be_meant_is_named(name: str, value: str) -> None:
    with pytest.raises(BadEnvironment, match=name):
        TuneEnvironment.from_env({"MODEL": "m", "METHOD": "lora", name: value})


def test_letters_of_a_method_may_be_large() -> None:
    assert TuneEnvironment.from_env({"MODEL": "m", "METHOD": "QLoRA"}).method == "qlora"


def test_strength_is_exact() -> None:
    told = ServeEnvironment(model="m", adapters=(ServedAdapter(name="a", strength=Decimal("0.1")),))

    assert ServeEnvironment.from_env(told.to_env()).adapters[0].strength == Decimal("0.1")
