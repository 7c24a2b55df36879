"""The first tokens: a server that says it is well may still fail at its first request, and often does.

Kernels that do not fit the GPU or the model's shape, and chat templates that do not compile, show when they are used.
"""

import json
import logging
from typing import Any, Final

import aiohttp

from provisioner.serving import bodies
from provisioner.serving.problem import Problem, one_line

_log: Final = logging.getLogger(__name__)
# Seconds; kernels may be compiled for the first request.
_TIMEOUT: Final = 900
_LARGEST: Final = 1 << 16


class Failed(Exception):
    """The server could not answer; the message is what it said."""


async def warm_up(upstream: str, *, model: str, has_template: bool) -> None:
    """Have the server write a token, and with a template of the user's another through it. Raises Problem, Failed."""
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=_TIMEOUT)) as session:
        body: dict[str, Any] = {"model": model, "max_tokens": 1, "temperature": 0}
        status, said = await _ask(session, f"{upstream}/v1/completions", {**body, "prompt": "Hello"})
        if 400 <= status < 500:
            _log.info("the model does not complete texts (%d): %s", status, said)
        elif status != 200:
            raise Failed(f"the server fails at its first request ({status}): {said}")
        if not has_template:
            return
        messages = [{"role": "user", "content": "Hello"}]
        status, said = await _ask(session, f"{upstream}/v1/chat/completions", {**body, "messages": messages})
        if status != 200:
            raise Problem(f"vllm.chat-template cannot be used: {said}")


async def _ask(session: aiohttp.ClientSession, url: str, body: dict[str, Any]) -> tuple[int, str]:
    try:
        async with session.post(url, json=body) as answer:
            text = (await bodies.read(answer.content, _LARGEST)).decode(errors="replace")
            return answer.status, one_line(_message(text))
    except (aiohttp.ClientError, TimeoutError) as error:
        raise Failed(f"the server does not answer its first request ({type(error).__name__})") from error


def _message(text: str) -> str:
    try:
        said = json.loads(text)
        return str(said["error"]["message"])
    except (ValueError, TypeError, KeyError, RecursionError):
        return text
