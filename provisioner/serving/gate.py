"""The gate: what clients, probes and metrics talk to, in front of vLLM, which listens on loopback alone.

vLLM's `--middleware` would save the hop, but it cannot do what the gate is for. It is loaded with the server, so there
is nothing that answers while weights load, for minutes to hours; it runs in the process that hangs when a signal comes
while requests are in flight, so it cannot hold new ones back and let those end; and it depends on how vLLM puts its
application together, which changes between releases. A proxy needs HTTP, and nothing of vLLM. The hop costs a fraction
of a millisecond; bodies go through in both directions as they come, no faster than the other side reads.

Without a key everything is open, as with vLLM. With one every path but /health needs it: vLLM's own --api-key leaves
/invocations, /tokenize, /metrics and others open.
"""

import asyncio
import hmac
import json
import logging
from collections.abc import Awaitable, Callable, Mapping
from types import TracebackType
from typing import Any, Final

import aiohttp
from aiohttp import web
from yarl import URL

from provisioner.serving.chat import BadChat, result, translate
from provisioner.serving.state import Phase, State

_log: Final = logging.getLogger(__name__)
# Of the connection, not of what is sent over it (RFC 9110, 7.6.1).
_HOP_BY_HOP: Final = frozenset(
    {
        "connection", "keep-alive", "proxy-authenticate", "proxy-authorization", "proxy-connection", "te", "trailer",
        "transfer-encoding", "upgrade", "host",
    }
)  # fmt: skip
# Seconds without a byte of an answer: a long prompt that waits in a queue, and then some.
_SILENCE: Final = 3600
_CONNECT: Final = 10
_HEALTH: Final = 5
_RETRY_AFTER: Final = "5"
# Bytes of a request of the old API, which is read whole.
_CHAT_LARGEST: Final = 8 << 20
_OPEN: Final = {Phase.SERVING}
_PREFLIGHT: Final = ("Origin", "Access-Control-Request-Method")


class Gate:
    """An HTTP server in front of another. `keys` are accepted, none means that everybody is let in."""

    def __init__(self, *, state: State, upstream: str, model: str, keys: tuple[str, ...] = ()) -> None:
        self._state = state
        self._upstream = upstream
        self._model = model
        self._keys = tuple(key.encode() for key in keys)
        self._in_flight = 0
        self._idle = asyncio.Event()
        self._idle.set()
        self._runner: web.AppRunner | None = None
        self._client: aiohttp.ClientSession | None = None

    async def start(self, *, host: str | None, port: int) -> int:
        """Listen, on all addresses where none is given; return the port. Raises OSError."""
        self._client = aiohttp.ClientSession(
            # A connection each: one that is kept may be closed by vLLM while the next request is on its way, and what
            # is no GET cannot be sent again.
            connector=aiohttp.TCPConnector(limit=0, force_close=True),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT, sock_read=_SILENCE),
            auto_decompress=False,
            trust_env=False,
        )
        app = web.Application(client_max_size=_CHAT_LARGEST)
        app.router.add_route("*", "/{path:.*}", self._answer)
        # A client that goes ends its request here, and thereby vLLM's work on it.
        self._runner = web.AppRunner(app, handler_cancellation=True, access_log=None, shutdown_timeout=1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, host, port)
        await site.start()
        return int(self._runner.addresses[0][1])

    async def stop(self) -> None:
        """Stop to listen, and cut what is still open."""
        if self._runner is not None:
            await self._runner.cleanup()
        if self._client is not None:
            await self._client.close()

    async def __aenter__(self) -> "Gate":
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    async def drain(self, *, seconds: float) -> bool:
        """Wait until all that was let in is answered; tell whether that took no longer than `seconds`.

        Nothing new is let in: the state must say so already.
        """
        try:
            await asyncio.wait_for(self._idle.wait(), timeout=seconds)
        except TimeoutError:
            return False
        return True

    @property
    def in_flight(self) -> int:
        """Return how many requests are being answered."""
        return self._in_flight

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        if request.path == "/health":
            return await self._health()
        if not self._may(request):
            return _error(
                401, "a valid key is needed: Authorization: Bearer KEY", headers={"WWW-Authenticate": "Bearer"}
            )
        if self._state.phase not in _OPEN:
            return _error(503, self._excuse(), headers={"Retry-After": _RETRY_AFTER})
        if request.path == "/" and request.method in ("GET", "HEAD"):
            return web.json_response({"status": "serving", "model": self._model})
        handler = self._chat if request.path == "/chat" and request.method == "POST" else self._forward
        return await self._counted(handler, request)

    async def _counted(
        self, handler: Callable[[web.Request], Awaitable[web.StreamResponse]], request: web.Request
    ) -> web.StreamResponse:
        self._in_flight += 1
        self._idle.clear()
        try:
            return await handler(request)
        finally:
            self._in_flight -= 1
            if not self._in_flight:
                self._idle.set()

    async def _health(self) -> web.Response:
        status = 503
        if self._state.phase is Phase.SERVING:
            status = 200 if await self.upstream_is_healthy() else 503
        return web.json_response(self._state.to_json(), status=status)

    async def upstream_is_healthy(self) -> bool:
        """Tell whether vLLM says that it is well."""
        assert self._client is not None  # noqa: S101 -- for the type checker: it has been started
        timeout = aiohttp.ClientTimeout(total=_HEALTH)
        try:
            async with self._client.get(f"{self._upstream}/health", timeout=timeout) as answer:
                return answer.status == 200
        except (aiohttp.ClientError, TimeoutError):
            return False

    def _may(self, request: web.Request) -> bool:
        if not self._keys:
            return True
        # A browser asks beforehand and without credentials whether it may ask. vLLM answers that before any path is
        # looked at; an OPTIONS without these fields would reach it, and /metrics answers every method.
        if request.method == "OPTIONS" and all(name in request.headers for name in _PREFLIGHT):
            return True
        scheme, _, given = request.headers.get("Authorization", "").partition(" ")
        shown = given.strip() if scheme.lower() == "bearer" else request.headers.get("x-api-key", "")
        return any(hmac.compare_digest(shown.encode(errors="surrogateescape"), key) for key in self._keys)

    def _excuse(self) -> str:
        state = self._state
        if state.phase is Phase.DRAINING:
            return "this server is about to end; try again"
        return f"the model is not served yet ({state.phase}{': ' + state.progress if state.progress else ''})"

    async def _forward(self, request: web.Request) -> web.StreamResponse:
        assert self._client is not None  # noqa: S101 -- for the type checker: it has been started
        if not request.raw_path.startswith("/"):
            return _error(400, "the request must name a path")
        try:
            upstream = await self._client.request(
                request.method,
                URL(self._upstream + request.raw_path, encoded=True),
                headers=_passed(request.headers),
                data=request.content if request.can_read_body else None,
                allow_redirects=False,
            )
        except (aiohttp.ClientError, TimeoutError) as error:
            return _error(502, f"the server does not answer ({type(error).__name__})")
        async with upstream:
            response = web.StreamResponse(status=upstream.status, reason=upstream.reason)
            response.headers.extend(_kept(upstream.headers))
            await response.prepare(request)
            try:
                async for chunk in upstream.content.iter_any():
                    await response.write(chunk)
            except (aiohttp.ClientError, TimeoutError) as error:
                # Its head is sent: what is cut short must not look whole.
                _log.warning("an answer was cut short: %s", type(error).__name__)
                if request.transport is not None:
                    request.transport.abort()
                return response
            await response.write_eof()
            return response

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        assert self._client is not None  # noqa: S101 -- for the type checker: it has been started
        try:
            translated = translate(json.loads(await request.text()), model=self._model)
        except (ValueError, RecursionError) as error:
            return _error(400, str(error))
        try:
            async with self._client.post(self._upstream + translated.path, json=translated.body) as answer:
                body = await answer.read()
                if answer.status != 200:
                    return web.Response(status=answer.status, body=body, content_type="application/json")
            return web.json_response(result(translated, json.loads(body)))
        except (aiohttp.ClientError, TimeoutError, BadChat, ValueError) as error:
            return _error(502, f"the server does not answer ({type(error).__name__})")


def _passed(headers: Mapping[str, str]) -> list[tuple[str, str]]:
    # The key is the gate's own affair.
    return [pair for pair in _kept(headers) if pair[0].lower() not in ("authorization", "x-api-key")]


def _kept(headers: Mapping[str, str]) -> list[tuple[str, str]]:
    named = {name.strip().lower() for name in headers.get("Connection", "").split(",")}
    return [(name, value) for name, value in headers.items() if name.lower() not in _HOP_BY_HOP | named]


def _error(status: int, message: str, *, headers: Mapping[str, str] | None = None) -> web.Response:
    kind = {401: "authentication_error", 400: "invalid_request_error"}.get(status, "server_error")
    body: dict[str, Any] = {"error": {"message": message, "type": kind, "code": status}}
    return web.json_response(body, status=status, headers=headers)
