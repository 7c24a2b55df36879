"""Long answers, as streams."""

import json
from collections.abc import AsyncIterator

import aiohttp

# Of one answer, and no more than the context: it is written in two seconds, so there are several in a stream.
_LENGTH = 1900
_ANSWERS = 4
# All that a stream has.
TOKENS = _ANSWERS * _LENGTH


def stream_of(tokens: int = _LENGTH) -> dict[str, object]:
    """Return a request for answers of so many tokens each: more of them than are written at a time."""
    body = {"model": "tiny", "prompt": "A node", "n": _ANSWERS, "max_tokens": tokens, "ignore_eos": True, "seed": 1}
    return {**body, "stream": True, "stream_options": {"include_usage": True}}


async def parts(answer: aiohttp.ClientResponse) -> AsyncIterator[str]:
    """Yield what the stream's events hold."""
    async for line in answer.content:
        if line.startswith(b"data: "):
            yield line.removeprefix(b"data: ").strip().decode()


async def read(answer: aiohttp.ClientResponse) -> tuple[int, str]:
    """Return how many tokens the stream has told that it had, and its last part."""
    told, last = 0, ""
    async for part in parts(answer):
        last = part
        if part != "[DONE]" and (usage := json.loads(part).get("usage")):
            told = usage["completion_tokens"]
    return told, last
