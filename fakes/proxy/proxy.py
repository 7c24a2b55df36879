"""The proxy: TLS on loopback, the caller's own token, watches event by event, everything else as it comes."""

import asyncio
import base64
import contextlib
import json
import socket
import ssl
import struct
import tempfile
from contextlib import AsyncExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import aiohttp
import trustme
import yaml
from aiohttp import web
from yarl import URL

from fakes.cluster.interface import Cluster
from fakes.proxy.calls import Call, CallLog
from fakes.proxy.faults import Active, Answer, Delay, Disconnect, F, FaultBook
from fakes.proxy.watch import WatchCutError, WatchRelay, status

_HOST: Final = "127.0.0.1"
# Above the API server's own limit of 3 MiB.
_MAX_BODY: Final = 4 << 20
_CONNECT_TIMEOUT: Final = 5.0
# Seconds that open watches get in the end; they would take any that they are given.
_SHUTDOWN: Final = 0.1
# Of one connection, not of what goes over it: https://www.rfc-editor.org/rfc/rfc9110.html#section-7.6.1
_HOP_BY_HOP: Final = frozenset(
    ("connection", "host", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade")
)
_ENCODINGS: Final = "accept-encoding"
# Closing a socket with it resets the connection instead of ending it in order.
_RESET_ON_CLOSE: Final = struct.pack("ii", 1, 0)


class _TornDownError(Exception):
    """A fault has it that the caller gets no answer."""


class FaultProxy:
    """A reverse proxy in front of a started cluster; use as `async with`.

    Faults may be added and cleared at any time and hit watches that are open. Connections that change protocol
    (`kubectl exec`) and watches in other formats than JSON are not for it.
    """

    def __init__(self, cluster: Cluster) -> None:
        self.calls = CallLog()
        self._cluster = cluster
        self._faults = FaultBook()
        self._stack = AsyncExitStack()
        self._folder: Path
        self._authority = trustme.CA()
        self._session: aiohttp.ClientSession
        self._url = ""

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            self._folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="fault-proxy-")))
            self._session = await stack.enter_async_context(self._upstream())
            app = web.Application(client_max_size=_MAX_BODY)
            app.router.add_route("*", "/{path:.*}", self._handle)
            # A watch ends at the API server as soon as its client goes.
            runner = web.AppRunner(app, access_log=None, shutdown_timeout=_SHUTDOWN, handler_cancellation=True)
            await runner.setup()
            stack.push_async_callback(runner.cleanup)
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self._authority.issue_cert(_HOST, "localhost").configure_cert(context)
            await web.TCPSite(runner, _HOST, 0, ssl_context=context).start()
            self._url = f"https://{_HOST}:{runner.addresses[0][1]}"
            self._stack = stack.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.__aexit__(kind, error, trace)

    @property
    def url(self) -> str:
        """Where the API is served through the proxy."""
        return self._url

    @property
    def kubeconfig(self) -> Path:
        """The administrator's kubeconfig, through the proxy."""
        return self.kubeconfig_like(self._cluster.kubeconfig)

    def kubeconfig_like(self, other: Path) -> Path:
        """Write a kubeconfig of the same user, through the proxy. Readable by its owner only."""
        config = yaml.safe_load(other.read_text())
        authority = base64.b64encode(self._authority.cert_pem.bytes()).decode()
        for entry in config["clusters"]:
            entry["cluster"] = {"server": self.url, "certificate-authority-data": authority}
        path = self._folder / other.name
        path.touch(mode=0o600)
        path.write_text(json.dumps(config))
        return path

    def add_fault(self, fault: F) -> Active[F]:
        """Put a fault in force. What is returned counts its hits, and clears it alone."""
        return self._faults.add(fault)

    def clear(self, active: Active[Any] | None = None) -> None:
        """Take a fault out of force; without one, all."""
        self._faults.clear(active)

    def _upstream(self) -> aiohttp.ClientSession:
        clusters = yaml.safe_load(self._cluster.kubeconfig.read_text())["clusters"]
        authority = base64.b64decode(clusters[0]["cluster"]["certificate-authority-data"]).decode()
        return aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, ssl=ssl.create_default_context(cadata=authority)),
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_TIMEOUT),
            skip_auto_headers=("Accept", "Accept-Encoding", "Content-Type", "User-Agent"),
            auto_decompress=False,
        )

    async def _handle(self, incoming: web.Request) -> web.StreamResponse:
        body = await incoming.read()
        call = Call.of(incoming.method, incoming.path, query=incoming.query, body=body)
        call.agent, call.time = incoming.headers.get("User-Agent", ""), asyncio.get_running_loop().time()
        self.calls.add(call)
        try:
            return await self._serve(incoming, call, body=body)
        except (_TornDownError, WatchCutError, aiohttp.ClientError, TimeoutError, OSError):
            # An API server that is away, or ends in the middle, is passed on for what it is.
            _reset(incoming)
            return web.Response()

    async def _serve(self, incoming: web.Request, call: Call, *, body: bytes) -> web.StreamResponse:
        if answer := await self._hit(call, after_effect=False):
            return self._spoiled(call, answer)
        hidden = _HOP_BY_HOP | ({_ENCODINGS} if call.verb == "watch" else set())
        async with self._session.request(
            incoming.method,
            URL(self._cluster.url + incoming.raw_path, encoded=True),
            headers=[(name, value) for name, value in incoming.headers.items() if name.lower() not in hidden],
            data=body or None,
            allow_redirects=False,
        ) as upstream:
            if answer := await self._hit(call, after_effect=True):
                return self._spoiled(call, answer)
            call.status = upstream.status
            return await self._pass_on(incoming, call, upstream=upstream)

    async def _hit(self, call: Call, *, after_effect: bool) -> Answer | None:
        if late := self._faults.claim(Delay, call, where=lambda fault: fault.after_effect == after_effect):
            await asyncio.sleep(late.fault.seconds)
        if self._faults.claim(Disconnect, call, where=lambda fault: fault.after_effect == after_effect):
            call.spoiled = True
            raise _TornDownError
        answer = self._faults.claim(Answer, call, where=lambda fault: fault.after_effect == after_effect)
        return answer.fault if answer else None

    def _spoiled(self, call: Call, fault: Answer) -> web.Response:
        call.status, call.spoiled = fault.status, True
        headers = {"Retry-After": str(fault.retry_after)} if fault.retry_after is not None else None
        body = status(fault.status, reason=fault.reason, message=fault.message)
        return web.json_response(body, status=fault.status, headers=headers)

    async def _pass_on(
        self, incoming: web.Request, call: Call, *, upstream: aiohttp.ClientResponse
    ) -> web.StreamResponse:
        response = web.StreamResponse(status=upstream.status, reason=upstream.reason)
        response.headers.extend((k, v) for k, v in upstream.headers.items() if k.lower() not in _HOP_BY_HOP)
        await response.prepare(incoming)
        chunks = upstream.content.iter_any()
        if call.verb == "watch" and upstream.ok:
            await WatchRelay(call, faults=self._faults, write=response.write).run(chunks)
        else:
            async for chunk in chunks:
                await response.write(chunk)
        await response.write_eof()
        return response


def _reset(incoming: web.Request) -> None:
    transport = incoming.transport
    if transport is None:
        return
    # None where whoever asked has gone: a client that was killed.
    connection = transport.get_extra_info("socket")
    if connection is not None:
        with contextlib.suppress(OSError):
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
    transport.abort()
