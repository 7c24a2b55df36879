"""Tuning from end to end: data from a URL, LoRA and QLoRA by PEFT, an image in a registry, an adapter of the real vLLM.

Both trainings are ended on the way, one by SIGKILL as a container that is taken away, one by SIGTERM as a pod whose
Node is drained, and go on in the next container. A third one is left alone.
"""

import asyncio
import hashlib
import json
import signal
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio
import yaml
from aiohttp import web
from aiohttp.test_utils import TestServer

from fakes.serving.process import ServingProcess
from provisioner.serving.environment import FETCH, PULL, TUNE, TuneEnvironment, urls_to_env
from provisioner.serving.tune import COMPLETED
from tests.serving.conftest import Maker
from tests.unit.registry_double import PASSWORD, USER, Registry, serve

pytestmark = pytest.mark.asyncio(loop_scope="module")
TEXTS = [f"A node of the cluster has joined, number {number}." for number in range(40)]
DATA = "".join(json.dumps({"text": text}) + "\n" for text in TEXTS).encode()
STEPS = 40
CONFIG = {
    "training_config": {
        "LoraConfig": {"r": 4, "lora_alpha": 8},
        "TrainingArguments": {
            "per_device_train_batch_size": 2,
            "num_train_epochs": 2,
            "learning_rate": 0.01,
            "save_steps": 5,
            "logging_steps": 1,
        },
    }
}
# Of the logarithm of the probability of a token: what is learned here is several of it.
LEARNED = 0.5


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def source() -> AsyncIterator[str]:
    """Serve the data, and a file that says it is larger than any may be."""

    async def answer(request: web.Request) -> web.StreamResponse:
        if request.path == "/huge.jsonl":
            response = web.StreamResponse(headers={"Content-Length": str(1 << 50)})
            await response.prepare(request)
            return response
        return web.Response(body=DATA)

    app = web.Application()
    app.router.add_get("/{path:.*}", answer)
    async with TestServer(app) as server:
        yield f"http://127.0.0.1:{server.port}"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def registry() -> AsyncIterator[Registry]:
    async with serve(Registry(is_private=True)) as held:
        yield held


class Job:
    """The pod of a tuning: its mounts stay as they are from one container to the next."""

    def __init__(self, root: Path, *, python: Path, variables: Mapping[str, str]) -> None:
        self.root = root
        self._python = python
        # On a small machine threads of so small a model wait for each other.
        self._variables = {"OMP_NUM_THREADS": "1", "FETCH_ANY_ADDRESS": "true", **variables}

    def container(self, *arguments: str, **variables: str) -> ServingProcess:
        return ServingProcess(
            *arguments, python=self._python, root=self.root, environment={**self._variables, **variables}
        )

    async def run(self, *arguments: str, **variables: str) -> ServingProcess:
        """Run a container to its end."""
        container = self.container(*arguments, **variables)
        async with container:
            await container.wait()
        return container

    def progress(self) -> dict[str, Any]:
        """Return how far it is said to be."""
        path = self.root / "results" / "progress.json"
        found: dict[str, Any] = json.loads(path.read_text()) if path.is_file() else {"step": 0}
        return found

    def checkpoints(self) -> list[int]:
        """Return the steps of checkpoints that are whole."""
        found = (self.root / "results" / "checkpoints").glob("checkpoint-*/trainer_state.json")
        return sorted(int(path.parent.name.removeprefix("checkpoint-")) for path in found)

    def adapter(self) -> bytes:
        return (self.root / "results" / "adapter" / "adapter_model.safetensors").read_bytes()


async def make_job(
    root: Path, *, python: Path, source: str, registry: Registry, model: Path, method: str, image: str = ""
) -> Job:
    """Return a tuning whose data is there and whose training was not started."""
    environment = TuneEnvironment(
        model=str(model), method=method, image=f"{registry.host}/{image}" if image else "", urls=()
    )
    job = Job(root, python=python, variables=environment.to_env())
    url = f"{source}/texts.jsonl?signature=s3cret#sha256={hashlib.sha256(DATA).hexdigest()}"
    container = await job.run(FETCH, str(root / "data"), **urls_to_env((url,)))
    assert container.process.returncode == 0, container.log_text()
    assert "s3cret" not in container.log_text()
    (root / "config" / "training_config.yaml").write_text(yaml.safe_dump(CONFIG))
    auths = {"auths": {registry.host: {"username": USER, "password": PASSWORD}}}
    (root / "registry" / "push.json").write_text(json.dumps(auths))
    return job


async def until(job: Job, container: ServingProcess, *, step: int, checkpoint: int) -> None:
    """Wait until it is so far."""
    async with asyncio.timeout(180):
        while job.progress()["step"] < step or max(job.checkpoints(), default=0) < checkpoint:
            assert container.process.returncode is None, container.log_text()[-2000:]
            await asyncio.sleep(0.01)


@dataclass(frozen=True, kw_only=True)
class Resumed:
    """A tuning that is done. `progress` and `checkpoints` are those that its first container has left."""

    job: Job
    first: ServingProcess
    progress: Mapping[str, Any]
    checkpoints: Sequence[int]
    second: ServingProcess


async def killed(job: Job) -> Resumed:
    """Tune in two containers, of which the first is killed after its first checkpoint."""
    async with job.container(TUNE) as first:
        await until(job, first, step=6, checkpoint=5)
    return await resumed(job, first)


async def ended(job: Job) -> Resumed:
    """Tune in two containers, of which the first is told to end before its first checkpoint."""
    async with job.container(TUNE) as first:
        await until(job, first, step=2, checkpoint=0)
        first.terminate()
        await first.wait()
    return await resumed(job, first)


async def resumed(job: Job, first: ServingProcess) -> Resumed:
    assert not (job.root / "results" / COMPLETED).exists()
    assert not (job.root / "results" / "adapter").exists()
    progress, checkpoints = job.progress(), job.checkpoints()
    second = await job.run(TUNE)
    assert second.process.returncode == 0, second.log_text()[-2000:]
    return Resumed(job=job, first=first, progress=progress, checkpoints=checkpoints, second=second)


@dataclass(frozen=True, kw_only=True)
class Tunings:
    """The tunings; `whole` was never ended, and pushed nothing."""

    lora: Resumed
    qlora: Resumed
    whole: Job


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def tunings(
    python: Path, source: str, registry: Registry, tiny: Path, tmp_path_factory: pytest.TempPathFactory
) -> Tunings:
    async def make(name: str, method: str, image: str) -> Job:
        return await make_job(
            tmp_path_factory.mktemp(name),
            python=python,
            source=source,
            registry=registry,
            model=tiny,
            method=method,
            image=image,
        )

    lora, qlora, whole = (
        await make("lora", "lora", "team/tuned:lora"),
        await make("qlora", "qlora", "team/tuned:qlora"),
        await make("whole", "lora", ""),
    )
    first, second, alone = await asyncio.gather(killed(lora), ended(qlora), whole.run(TUNE))
    assert alone.process.returncode == 0, alone.log_text()[-2000:]
    return Tunings(lora=first, qlora=second, whole=whole)


@pytest.mark.parametrize(
    ("path", "says"),
    [
        (f"texts.jsonl#sha256={'0' * 64}", "its SHA-256 is not the one that was said"),
        ("huge.jsonl", "the data is larger than 200 GiB"),
    ],
    ids=["checksum", "size"],
)
async def test_data_that_is_not_as_it_should_be_is_not_there(
    python: Path, source: str, tmp_path: Path, path: str, says: str
) -> None:
    job = Job(tmp_path, python=python, variables={})

    container = await job.run(FETCH, str(tmp_path / "data"), **urls_to_env((f"{source}/{path}",)))

    assert container.process.returncode == 1
    assert says in container.termination_message()
    assert list((tmp_path / "data").iterdir()) == []


async def test_killed_training_goes_on_from_its_checkpoint_to_the_same_adapter(tunings: Tunings) -> None:
    tuning = tunings.lora

    assert tuning.first.process.returncode == -signal.SIGKILL
    assert f"training from checkpoint-{tuning.checkpoints[-1]}\n" in tuning.second.log_text()
    assert tuning.job.adapter() == tunings.whole.adapter()


async def test_training_that_is_told_to_end_writes_a_checkpoint_and_goes_on_from_it(tunings: Tunings) -> None:
    tuning = tunings.qlora

    assert tuning.first.process.returncode == 1
    assert tuning.first.log_text().count("the training was ended from outside; the next start goes on") == 1
    assert tuning.checkpoints == [tuning.progress["step"]]
    assert f"training from checkpoint-{tuning.checkpoints[-1]}\n" in tuning.second.log_text()
    # Nothing of the first container is left as the last word of the second.
    assert tuning.second.termination_message() == ""


@pytest.mark.parametrize("method", ["lora", "qlora"])
async def test_progress_is_told_while_it_trains_and_at_the_end(tunings: Tunings, method: str) -> None:
    tuning: Resumed = getattr(tunings, method)
    before, after = tuning.progress, tuning.job.progress()

    assert 0 < before["step"] < before["steps"] == STEPS
    assert before["percent"] == 100 * before["step"] / STEPS
    assert (after["step"], after["steps"], after["percent"], after["epoch"]) == (STEPS, STEPS, 100.0, 2.0)
    assert after["loss"] < before["loss"]
    assert f"INFO step {before['step']} of {STEPS} (" in tuning.first.log_text()
    assert (tuning.job.root / "results" / COMPLETED).is_file()


async def test_what_is_learned_beside_weights_in_four_bits_is_not_the_same(tunings: Tunings) -> None:
    # All else is: the data, its order, the seed. That the same comes to the same is shown above.
    assert tunings.qlora.job.adapter() != tunings.whole.adapter()


async def test_tuning_that_is_done_pushes_what_is_not_there_and_nothing_else(
    tunings: Tunings, registry: Registry
) -> None:
    registry.calls.clear()

    container = await tunings.lora.job.run(TUNE)

    assert container.process.returncode == 0, container.log_text()[-2000:]
    assert [call for call in registry.calls if call.startswith("PUT")] == ["PUT /v2/team/tuned/manifests/lora"]


async def score(server: ServingProcess, model: str) -> float:
    """Return the mean logarithm of the probability that a model gives to each token of a text of the data."""
    body = {"model": model, "prompt": TEXTS[7], "max_tokens": 1, "prompt_logprobs": 0}
    async with aiohttp.ClientSession(server.url) as session, session.post("/v1/completions", json=body) as answer:
        assert answer.status == 200, await answer.text()
        given = (await answer.json())["choices"][0]["prompt_logprobs"][1:]
    found = [float(entry["logprob"]) for place in given for entry in place.values()]
    return sum(found) / len(found)


async def test_image_of_an_adapter_is_pulled_and_served_by_its_name(
    tunings: Tunings, registry: Registry, make_server: Maker, tmp_path: Path
) -> None:
    jobs = {"lora": tunings.lora.job, "qlora": tunings.qlora.job}
    server = make_server(tmp_path, DTYPE="float32", ADAPTERS=json.dumps([{"name": name} for name in jobs]))
    for name, job in jobs.items():
        directory = tmp_path / "adapters" / name
        container = await job.run(PULL, f"{registry.host}/team/tuned:{name}", str(directory))
        assert container.process.returncode == 0, container.log_text()[-2000:]
        assert (directory / "adapter_model.safetensors").read_bytes() == job.adapter()

    async with server:
        await server.wait_serving()
        scores = {name: await score(server, name) for name in ("tiny", *jobs)}
        _, health = await server.health()

    assert health["adapters_left_out"] == {}
    assert all(scores[name] > scores["tiny"] + LEARNED for name in jobs), scores
