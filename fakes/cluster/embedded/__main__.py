"""The process of an embedded control plane; started by `fakes.cluster.embedded.cluster`, in the folder of that.

The folder holds certificates and tokens. Once requests are answered, the file `address` tells the ports: of the API,
and of the control channel, by which the API is closed and opened again while the objects stay.
"""

import asyncio
import csv
import json
import logging
import ssl
import sys
from datetime import UTC, datetime
from pathlib import Path

from aiohttp import web

from fakes.cluster.embedded.api import Api
from fakes.cluster.embedded.controllers.runner import Runner
from fakes.cluster.embedded.problems import Problem
from fakes.cluster.embedded.server import Server

_NAMESPACES = ("default", "kube-node-lease", "kube-public", "kube-system")


class Door:
    """The API as it is reached: a port that can be closed, with all connections through it, and opened again."""

    def __init__(self, server: Server, api: Api, context: ssl.SSLContext) -> None:
        self._server = server
        self._api = api
        self._context = context
        self._runner: web.ServerRunner | None = None
        self._port = 0

    async def open(self) -> int:
        """Listen, on the same port as before; return it. Opening what is open does nothing."""
        if self._runner is None:
            # A watch whose client has gone ends with it, and not when it has something to tell.
            server = web.Server(self._server.handle, handler_cancellation=True)
            self._runner, self._port = await _listen(server, self._context, self._port)
        return self._port

    async def close(self) -> None:
        """Break all connections and listen no more. What a restarted API server would not know is forgotten."""
        runner, self._runner = self._runner, None
        if runner is not None:
            await runner.cleanup()
            self._api.store.forget()
            self._server.lists.forget()

    async def control(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer on the control channel."""
        try:
            self._server.check_token(request)
        except Problem as problem:
            return web.Response(status=problem.code)
        match request.path:
            case "/open":
                await self.open()
            case "/close":
                await self.close()
            case _:
                return web.Response(status=404)
        return web.Response(text="done")


async def serve(folder: Path) -> None:
    """Serve until killed."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "serving.crt", folder / "serving.key")
    api = Api()
    runner = Runner(api)
    door = Door(Server(api, _tokens(folder / "tokens.csv")), api, context)
    for namespace in _NAMESPACES:
        api.create(api.kind("namespaces"), {"metadata": {"name": namespace}})
    working = asyncio.create_task(runner.run())
    port = await door.open()
    _, control_port = await _listen(web.Server(door.control), context, 0)
    address = folder / "address.new"
    address.write_text(json.dumps({"port": port, "control": control_port}))
    address.rename(folder / "address")
    await working


async def _listen(server: web.Server, context: ssl.SSLContext, port: int) -> tuple[web.ServerRunner, int]:
    """Listen on a port; 0 is any that is free. Return the port."""
    # Next to no time for those who are connected: a watch would use all of it. (0 would mean for ever.)
    runner = web.ServerRunner(server, shutdown_timeout=0.01)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port, ssl_context=context).start()
    return runner, runner.addresses[0][1]


def _tokens(path: Path) -> dict[str, datetime]:
    with path.open(newline="") as file:
        return {token: datetime.max.replace(tzinfo=UTC) for token, *_ in csv.reader(file)}


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    logging.getLogger("aiohttp.access").setLevel(logging.WARNING)
    asyncio.run(serve(Path(sys.argv[1])))
