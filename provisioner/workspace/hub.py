"""Models of the Hugging Face Hub: their shape by config.json, and what their weights weigh.

https://huggingface.co/docs/hub/api. A model is looked up once and in the background; what was found is written into
the Workspace's status, so that a Hub that does not answer keeps nothing from running that runs.
"""

import asyncio
import hashlib
import json
import logging
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote

import aiohttp

from provisioner.gpus.model_config import UnusableConfig, parse_config
from provisioner.gpus.model_facts import ModelFacts
from provisioner.workspace.checks import is_hub_id
from provisioner.workspace.view import Model, Problem

_log: Final = logging.getLogger(__name__)

# Seconds for one answer, and bytes of one: a config is a few KiB, a list of files some hundred.
_TIMEOUT: Final = 20.0
_LARGEST: Final = 8 << 20
# Seconds until a model that could not be looked up is looked up again; they double.
_AGAIN: Final = 10.0
_AGAIN_MOST: Final = 600.0
# Look-ups at a time, and models that are remembered: names are anybody's to make up.
_AT_ONCE: Final = 4
_REMEMBERED: Final = 1000
# Bytes of weights that nobody means: 64 TiB.
_WEIGHTS_MOST: Final = 1 << 46
_MISTRAL: Final = "consolidated"
_COMMIT: Final = re.compile(r"[0-9a-f]{7,64}", re.ASCII)


class _Refused(Exception):
    """The Hub has no such model for us; the Problem says why."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.message)
        self.problem = problem


@dataclass(kw_only=True)
class _Entry:
    """What is known of a model for those who have that token. `due` is when it may be looked up (loop time)."""

    found: Model | Problem | None = None
    task: asyncio.Task[None] | None = None
    failures: int = 0
    due: float = 0.0


class Hub:
    """Looks models up. `on_news` is called with a model's name when something was found out about it.

    `endpoint` is the Hub's address, empty where nothing is looked up. What failed is looked up again when it is asked
    for later: of a model that nobody names any more nobody is asked.
    """

    def __init__(self, *, endpoint: str, on_news: Callable[[str], None]) -> None:
        self._endpoint = endpoint.rstrip("/")
        self._on_news = on_news
        self._entries: dict[tuple[str, str], _Entry] = {}
        self._at_once = asyncio.Semaphore(_AT_ONCE)

    def find(self, name: str, *, token: str = "") -> Model | Problem | None:
        """Return what is known of a model; None while it is looked up, which this starts. Never waits."""
        if not self._endpoint:
            return Problem(
                reason="UnknownPreset",
                message=f"{name} is no preset, and looking models up is switched off here (HF_ENDPOINT=none).",
            )
        if not is_hub_id(name):
            return Problem(reason="UnknownPreset", message=f"{name[:120]!r} is no preset and no Hugging Face ID.")
        # By token: what one team may see is not for another, and another token may do where one did not.
        key = (name, hashlib.sha256(token.encode()).hexdigest() if token else "")
        entry = self._entries.get(key)
        if entry is None:
            self._make_room()
            entry = self._entries[key] = _Entry()
        if entry.task is None and not isinstance(entry.found, Model) and asyncio.get_running_loop().time() >= entry.due:
            entry.task = asyncio.create_task(self._look_up(name, token, entry))
        return entry.found

    async def close(self) -> None:
        """Stop looking up."""
        tasks = [entry.task for entry in self._entries.values() if entry.task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _make_room(self) -> None:
        if len(self._entries) < _REMEMBERED:
            return
        oldest = next((key for key, entry in self._entries.items() if entry.task is None), None)
        if oldest is not None:
            del self._entries[oldest]

    async def _look_up(self, name: str, token: str, entry: _Entry) -> None:
        try:
            async with self._at_once:
                entry.found = Model(facts=await self._facts(name, token))
        except _Refused as error:
            entry.found = error.problem
        except (aiohttp.ClientError, TimeoutError, ValueError, RecursionError, OSError) as error:
            # Never the error itself: that of a refused request shows its headers, and with them the token.
            what = f"HTTP {error.status}" if isinstance(error, aiohttp.ClientResponseError) else type(error).__name__
            _log.warning("a model could not be looked up", extra={"model": name, "error": what})
            entry.found = Problem(
                reason="ModelLookupFailed",
                message=f"{name} could not be looked up: {what} from {self._endpoint}. It is tried again; check the "
                "way out of the cluster (proxy, firewall).",
            )
        pause = min(_AGAIN * 2**entry.failures, _AGAIN_MOST)
        entry.failures = min(entry.failures + 1, 10)
        entry.due = asyncio.get_running_loop().time() + pause
        entry.task = None
        self._on_news(name)

    async def _facts(self, name: str, token: str) -> ModelFacts:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        # A redirect may lead to another host; the token stays with the Hub.
        async with aiohttp.ClientSession(
            headers=headers, timeout=aiohttp.ClientTimeout(total=_TIMEOUT), trust_env=True
        ) as session:
            path = quote(name, safe="/")
            listing = await self._get(session, f"/api/models/{path}/revision/main?blobs=true", name)
            sha = listing.get("sha")
            revision = sha if isinstance(sha, str) and _COMMIT.fullmatch(sha) else ""
            files = _files(listing)
            is_mistral = "config.json" not in files and "params.json" in files
            config_file = "params.json" if is_mistral else "config.json"
            if config_file not in files:
                raise _Refused(
                    Problem(reason="UnsupportedModel", message=f"{name} has no config.json: it is no model for vLLM.")
                )
            config = await self._get(session, f"/{path}/resolve/{revision or 'main'}/{config_file}", name)
        weights = _weights(files)
        if not 0 < weights <= _WEIGHTS_MOST:
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
            body = bytearray()
            async for chunk in response.content.iter_any():
                body += chunk
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
        str(entry["rfilename"]): max(entry["size"], 0) if isinstance(entry.get("size"), int) else 0
        for entry in (siblings if isinstance(siblings, list) else ())
        if isinstance(entry, dict) and "rfilename" in entry
    }


def _weights(files: Mapping[str, int]) -> int:
    """Return the bytes of the weights, once: some models have them in two layouts."""
    tensors = {name: size for name, size in files.items() if name.endswith(".safetensors") and "/" not in name}
    mistral = {name: size for name, size in tensors.items() if name.startswith(_MISTRAL)}
    others = {name: size for name, size in tensors.items() if name not in mistral}
    return sum((others or mistral).values())
