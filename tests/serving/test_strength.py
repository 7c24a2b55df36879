"""The strength of adapters: the real vLLM serves a model with `W + strength x scaling x B x A` in place of its weights.

What it gives to each token of a prompt is compared with what transformers and PEFT reckon for those weights, in 32 bits
on both sides. The adapters are those of PEFT's whose scaling is not the same everywhere, too.
"""

import asyncio
import json
import os
import shutil
import subprocess
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio

from fakes.serving.process import ServingProcess
from tests.serving.conftest import Maker

pytestmark = pytest.mark.asyncio(loop_scope="module")
ROOT = Path(__file__).parents[2]
# Of a logarithm of a probability. What 32 bits lose is a tenth of it; strengths here differ by thousands of it.
TOLERANCE = 1e-5
PROMPT = [5, 17, 300, 42, 7, 260, 99, 401]
# Fields of PEFT's LoraConfig. Patterns are of both kinds that it knows, ends of names and expressions.
MADE: Mapping[str, Mapping[str, Any]] = {
    "plain": {},
    "stable": {"use_rslora": True},
    "uneven": {
        "rank_pattern": {"q_proj": 16, "layers.1.mlp.up_proj": 2},
        "alpha_pattern": {"o_proj": 8, r"layers\.\d\.mlp\.down_proj": 96},
    },
}
# What it is served as, which adapter it is and at which strength.
SERVED = {
    "off": ("plain", "0"),
    "weak": ("plain", "0.25"),
    "weaker": ("plain", "0.2"),
    "plain": ("plain", "1"),
    "stable": ("stable", "0.5"),
    "uneven": ("uneven", "0.3"),
    "uneven-whole": ("uneven", "1"),
}
# Of another rank than its configuration says, for all modules and for one.
LYING = {"narrow": {"r": 4}, "wide": {"rank_pattern": {"q_proj": 16}}}


def reckon(python: Path, model: Path, directory: Path) -> dict[str, list[float]]:
    """Make the adapters; return what they come to."""
    told = {"made": MADE, "asked": [[name, float(s)] for name, s in SERVED.values()], "prompt": PROMPT}
    ended = subprocess.run(
        [str(python), "-m", "fakes.serving.merged", str(model), str(directory)],
        cwd=ROOT,
        env={"PATH": os.environ["PATH"], "HF_HUB_OFFLINE": "1", "HOME": str(directory), "OMP_NUM_THREADS": "1"},
        input=json.dumps(told),
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr[-2000:]
    return dict(zip(SERVED, json.loads(ended.stdout), strict=True))


def mount(made: Path, adapters: Path) -> None:
    """Lay them where pods have them, and beside them those that are not what they say."""
    for name, (adapter, _) in SERVED.items():
        shutil.copytree(made / adapter, adapters / name)
    for name, changes in LYING.items():
        shutil.copytree(made / "plain", adapters / name)
        config = adapters / name / "adapter_config.json"
        config.write_text(json.dumps(json.loads(config.read_text()) | changes))


@dataclass(frozen=True, kw_only=True)
class Compared:
    """A server, and what each of its adapters should give."""

    server: ServingProcess
    expected: Mapping[str, list[float]]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def compared(
    make_server: Maker, python: Path, tiny: Path, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Compared]:
    root, made = tmp_path_factory.mktemp("strength"), tmp_path_factory.mktemp("made")
    expected = await asyncio.to_thread(reckon, python, tiny, made)
    listed = [{"name": name, "strength": strength} for name, (_, strength) in SERVED.items()]
    listed += [{"name": name} for name in LYING]
    server = make_server(root, DTYPE="float32", ADAPTERS=json.dumps(listed))
    mount(made, root / "adapters")
    async with server:
        await server.wait_serving()
        yield Compared(server=server, expected=expected)


async def logprobs(server: ServingProcess, model: str) -> list[float]:
    """Return what a model gives to each token of the prompt but the first."""
    body = {"model": model, "prompt": PROMPT, "max_tokens": 1, "temperature": 0, "prompt_logprobs": 0}
    async with aiohttp.ClientSession(server.url) as session, session.post("/v1/completions", json=body) as answer:
        assert answer.status == 200, await answer.text()
        given = (await answer.json())["choices"][0]["prompt_logprobs"]
    return [given[place][str(token)]["logprob"] for place, token in enumerate(PROMPT) if place]


@pytest.mark.parametrize("name", SERVED)
async def test_adapter_counts_with_its_strength(compared: Compared, name: str) -> None:
    assert await logprobs(compared.server, name) == pytest.approx(compared.expected[name], abs=TOLERANCE)


async def test_without_any_strength_it_is_the_model_itself(compared: Compared) -> None:
    assert await logprobs(compared.server, "off") == pytest.approx(await logprobs(compared.server, "tiny"))


async def test_strengths_that_are_near_each_other_differ(compared: Compared) -> None:
    weak = await logprobs(compared.server, "weak")

    assert weak != pytest.approx(compared.expected["weaker"], abs=1000 * TOLERANCE)


async def test_adapters_of_another_rank_than_they_say_are_left_out(compared: Compared) -> None:
    _, health = await compared.server.health()

    assert {name: "is of rank 8" in why for name, why in health["adapters_left_out"].items()} == dict.fromkeys(
        LYING, True
    )
