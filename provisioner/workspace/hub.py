"""Models of the Hugging Face Hub: their shape by config.json, and what their weights weigh.

https://huggingface.co/docs/hub/api. A model is looked up once and in the background; what was found is written into
the Workspace's status, so that a Hub that does not answer keeps nothing from running that runs.
"""

import asyncio
import json
import logging
from collections.abc import Callable, Mapping
from typing import Any, Final

import aiohttp

from provisioner.gpus.model_config import UnusableConfig, parse_config
from provisioner.gpus.model_facts import ModelFacts
from provisioner.workspace.view import Model, Problem

_log: Final = logging.getLogger(__name__)

# Seconds for one answer, and bytes of one: a config is a few KiB, a list of files some hundred.
_TIMEOUT: Final = 20.0
_LARGEST: Final = 8 << 20
# Seconds until a model that could not be looked up is looked up again; they double.
_AGAIN: Final = 10.0
_AGAIN_MOST: Final = 600.0
_MISTRAL: Final = "consolidated"


class _Refused(Exception):
    """The Hub has no such model for us; the Problem says why."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.message)
        self.problem = problem


class Hub:
    """Looks models up. `on_news` is called with a model's name when something was found out about it.

    `endpoint` is the Hub's address, empty where nothing is looked up.
    """

    def __init__(self, *, endpoint: str, on_news: Callable[[str], None]) -> None:
        self._endpoint = endpoint.rstrip("/")
        self._on_news = on_news
        self._found: dict[str, Model | Problem] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}

    def find(self, name: str, *, token: str = "") -> Model | Problem | None:
        """Return what is known of a model; None while it is looked up, which this starts. Never waits."""
        known = self._found.get(name)
        if isinstance(known, Model):
            return known
        if not self._endpoint:
            return Problem(
                reason="UnknownPreset",
                message=f"{name} is no preset, and looking models up is switched off here (HF_ENDPOINT=none).",
            )
        if name not in self._tasks:
            self._tasks[name] = asyncio.create_task(self._look_up(name, token))
        return known

    async def close(self) -> None:
        """Stop looking up."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _look_up(self, name: str, token: str) -> None:
        pause = _AGAIN
        while True:
            try:
                self._found[name] = Model(facts=await self._facts(name, token))
            except _Refused as error:
                self._found[name] = error.problem
            except (aiohttp.ClientError, TimeoutError, ValueError, OSError) as error:
                _log.warning("a model could not be looked up", extra={"model": name, "error": repr(error)})
                self._found[name] = Problem(
                    reason="ModelLookupFailed",
                    message=f"{name} could not be looked up: {type(error).__name__} from {self._endpoint}. It is tried "
                    "again; check the way out of the cluster (proxy, firewall).",
                )
            found = self._found[name]
            self._on_news(name)
            if isinstance(found, Model):
                del self._tasks[name]
                return
            await asyncio.sleep(pause)
            pause = min(pause * 2, _AGAIN_MOST)

    async def _facts(self, name: str, token: str) -> ModelFacts:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        # A redirect may lead to another host; the token stays with the Hub.
        async with aiohttp.ClientSession(
            headers=headers, timeout=aiohttp.ClientTimeout(total=_TIMEOUT), trust_env=True
        ) as session:
            listing = await self._get(session, f"/api/models/{name}/revision/main?blobs=true", name)
            revision = str(listing.get("sha") or "")
            files = _files(listing)
            is_mistral = "config.json" not in files and "params.json" in files
            config_file = "params.json" if is_mistral else "config.json"
            if config_file not in files:
                raise _Refused(
                    Problem(reason="UnsupportedModel", message=f"{name} has no config.json: it is no model for vLLM.")
                )
            config = await self._get(session, f"/{name}/resolve/{revision or 'main'}/{config_file}", name)
        weights = _weights(files)
        if not weights:
            raise _Refused(
                Problem(reason="UnsupportedModel", message=f"{name} has no weights in safetensors: it cannot be sized.")
            )
        try:
            return parse_config(config, name=name, weights_bytes=weights, revision=revision, is_mistral=is_mistral)
        except UnusableConfig as error:
            raise _Refused(Problem(reason="UnsupportedModel", message=f"{name}: {error}.")) from error

    async def _get(self, session: aiohttp.ClientSession, path: str, name: str) -> Mapping[str, Any]:
        async with session.get(self._endpoint + path) as response:
            if response.status in (401, 403, 404):
                hidden = "" if response.status == 404 else " It may be gated."
                raise _Refused(
                    Problem(
                        reason="ModelNotFound",
                        message=f"{name} is not to be had from {self._endpoint} (HTTP {response.status}).{hidden} "
                        "Check the name, and name a Secret with the key HF_TOKEN in presetOptions.modelAccessSecret.",
                    )
                )
            response.raise_for_status()
            body = await response.content.read(_LARGEST + 1)
        if len(body) > _LARGEST:
            raise ValueError("the answer is too large")
        document = json.loads(body)
        if not isinstance(document, dict):
            raise ValueError("the answer is no JSON object")  # noqa: TRY004 -- what an answer says is no type of ours
        return document


def _files(listing: Mapping[str, Any]) -> dict[str, int]:
    """Return the sizes of the model's files by name."""
    siblings = listing.get("siblings")
    return {
        str(entry["rfilename"]): entry["size"] if isinstance(entry.get("size"), int) else 0
        for entry in (siblings if isinstance(siblings, list) else ())
        if isinstance(entry, dict) and "rfilename" in entry
    }


def _weights(files: Mapping[str, int]) -> int:
    """Return the bytes of the weights, once: some models have them in two layouts."""
    tensors = {name: size for name, size in files.items() if name.endswith(".safetensors") and "/" not in name}
    mistral = {name: size for name, size in tensors.items() if name.startswith(_MISTRAL)}
    others = {name: size for name, size in tensors.items() if name not in mistral}
    return sum((others or mistral).values())
