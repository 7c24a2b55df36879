"""Bodies of HTTP answers that are read whole, up to a limit."""

import aiohttp


async def read(stream: aiohttp.StreamReader, limit: int) -> bytes:
    """Return the body's first `limit` bytes; a single `read` of a stream returns what has come so far."""
    body = b""
    while len(body) < limit and (chunk := await stream.read(limit - len(body))):
        body += chunk
    return body
