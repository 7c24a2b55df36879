"""A last look at each HTTP request before its first byte, for whoever may lose the right to send it meanwhile.

A process may be held up anywhere, by SIGSTOP, a starved node or a suspended VM, and go on as if no time had passed with
what it had decided before. A request has waited by then for a token, for a connection that is free, for TLS.
"""

from collections.abc import Callable

import aiohttp


def last_look(look: Callable[[str, str], None]) -> aiohttp.TraceConfig:
    """Have `look` called with method and path when a request is about to be written; where it raises nothing is sent.

    What it raises is what the caller gets, but for a request whose leave has gone between headers and body: that one
    fails with aiohttp's ClientConnectionError. aiohttp keeps headers back until the body is written with them, which
    before Python 3.12 is done by a task of its own, after whatever else is due.
    """

    async def before(
        _: aiohttp.ClientSession,
        __: object,
        request: aiohttp.TraceRequestHeadersSentParams | aiohttp.TraceRequestChunkSentParams,
    ) -> None:
        look(request.method, request.url.path)

    trace = aiohttp.TraceConfig()
    trace.on_request_headers_sent.append(before)
    trace.on_request_chunk_sent.append(before)
    return trace
