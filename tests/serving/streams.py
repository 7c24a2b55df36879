"""Long answers, as streams."""

import json
from collections.abc import AsyncIterator

import aiohttp

# Long enough to be in flight for a while, and no longer than the context.
TOKENS = 1900


def stream_of(tokens: int = TOKENS) -> dict[str, object]:
    """Return a request for so many tokens."""
    options = {"include_usage": True}
    body = {"model": "tiny", "prompt": "A node", "max_tokens": tokens, "temperature": 0, "ignore_eos": True}
    return {**body, "stream": True, "stream_options": options}


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
