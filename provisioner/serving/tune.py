"""`serving tune`: from the data to an adapter in RESULTS, and to an image where one is asked for.

The training runs below this program, so that its last words can be told. What it was told, and which data it had, is
kept beside its results: a container that was started again goes on from the last checkpoint, and one that is told
something else begins anew.
"""

import asyncio
import hashlib
import json
import logging
import shutil
import signal
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from provisioner.serving import push, training_config, training_data
from provisioner.serving.adapters import CONFIG, WEIGHTS
from provisioner.serving.child import Child
from provisioner.serving.environment import TuneEnvironment
from provisioner.serving.places import Places
from provisioner.serving.problem import Problem, write_termination_message
from provisioner.serving.train import ADAPTER, CHECKPOINTS, PROGRESS
from provisioner.serving.training_data import Files
from provisioner.serving.vllm_errors import LastWords

_log: Final = logging.getLogger(__name__)
COMPLETED: Final = "fine_tuning_completed.txt"
_TOLD: Final = "run.json"
# Seconds to write a last checkpoint, of those that the pod has to end.
_END: Final = 120
_THIS_PROGRAM: Final = ("-m", "provisioner.serving", "train")


async def run(
    environment: TuneEnvironment,
    *,
    places: Places,
    variables: Mapping[str, str],
    command: Sequence[str] = (),
) -> None:
    """Tune and push. `command` stands in for the training's own. Raises Problem."""
    config = training_config.read(places.training_config, method=environment.method)
    files = training_data.choose(places.data, config.dataset)
    for note in config.notes:
        _log.warning("%s", note)
    try:
        _begin(places.results, _digest(environment, places, files))
        if not (places.results / COMPLETED).is_file():
            await _train(command or _command(environment), places, variables)
            now = datetime.now(UTC).isoformat(timespec="seconds")
            (places.results / COMPLETED).write_text(f"completed at {now}\n", encoding="utf-8")
    except OSError as error:
        raise Problem(f"{places.results}: {error.strerror or error}") from error
    adapter = [places.results / ADAPTER / name for name in (CONFIG, WEIGHTS)]
    missing = [path.name for path in adapter if not path.is_file()]
    if missing:
        raise Problem(f"the training has left no {missing[0]}")
    if environment.image:
        await push.run(
            environment.image,
            adapter,
            model=environment.model,
            secrets=places.registry_secrets,
            work=places.results,
        )


def _command(environment: TuneEnvironment) -> tuple[str, ...]:
    if environment.processes == 1:
        return (sys.executable, *_THIS_PROGRAM)
    many = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(environment.processes))
    return (sys.executable, *many, *_THIS_PROGRAM)


def _digest(environment: TuneEnvironment, places: Places, files: Files) -> str:
    """Return what the result depends on, in short; where it is pushed to is no part of that."""
    config = places.training_config
    told = {
        "model": environment.model,
        "revision": environment.revision,
        "method": environment.method,
        "config": config.read_text(encoding="utf-8") if config.is_file() else "",
        "data": [[str(path), path.stat().st_size] for path in files.paths],
    }
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()


def _begin(results: Path, digest: str) -> None:
    """Keep what there is of the same run, and nothing of another. Raises OSError."""
    note = results / _TOLD
    if note.is_file() and note.read_text(encoding="utf-8").strip() == digest:
        return
    (results / COMPLETED).unlink(missing_ok=True)
    (results / PROGRESS).unlink(missing_ok=True)
    for name in (CHECKPOINTS, ADAPTER):
        if (results / name).is_dir():
            shutil.rmtree(results / name)
    note.write_text(digest + "\n", encoding="utf-8")


async def _train(command: Sequence[str], places: Places, variables: Mapping[str, str]) -> None:
    words, ending = LastWords(), asyncio.Event()
    # The training tells what is wrong by itself where it knows it.
    write_termination_message(places.termination_message, "")
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ending.set)
    # Bars that redraw themselves are nothing for a log, and what is not written at once is lost with a killed program.
    environment = {"TQDM_DISABLE": "1", **variables, "PYTHONUNBUFFERED": "1"}
    child = await Child.start(command, environment=environment, on_line=words.read)
    running, asked = asyncio.create_task(child.wait()), asyncio.create_task(ending.wait())
    try:
        await asyncio.wait({running, asked}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in (running, asked):
            task.cancel()
        await asyncio.gather(running, asked, return_exceptions=True)
        code = await child.stop(patience=_END)
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)
    if code == 0:
        return
    if ending.is_set():
        raise Problem("the training was ended from outside; the next start goes on from its last checkpoint")
    raise Problem(_said(places.termination_message) or f"the training: {words.text(otherwise=_ended_by(code))}")


def _said(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").strip()
    except OSError:
        return ""


def _ended_by(code: int) -> str:
    if code == -signal.SIGKILL:
        return "it was killed: the pod may have run out of memory"
    return f"it was ended by signal {-code}" if code < 0 else f"it ended with exit code {code}"
