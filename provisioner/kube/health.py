"""What the kubelet and Prometheus ask for: /healthz, /readyz and /metrics."""

from collections.abc import Awaitable, Callable, Iterable
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Final, Self

from aiohttp import web

from provisioner.kube.metrics import CONTENT_TYPE, Registry

# What speaks against it, one reason a line; nothing means yes. A check that raises is answered by 500, a no as well.
Check = Callable[[], Iterable[str]]

# Seconds that open connections get at the end; nothing here takes long.
_SHUTDOWN_TIMEOUT: Final = 1.0


class HealthServer:
    """Serves the probes and the metrics, on one port or two. Use as `async with`."""

    def __init__(
        self,
        *,
        host: str,
        health_port: int | None,
        metrics_port: int | None,
        live: Check,
        ready: Check,
        metrics: Registry,
    ) -> None:
        """Take the address to bind and the ports; a port of None or 0 is not served."""
        self._host = host
        health = [web.get("/healthz", _probe(live)), web.get("/readyz", _probe(ready))]
        scrape = [web.get("/metrics", _scrape(metrics))]
        self._routes: dict[int, list[web.RouteDef]] = {}
        for port, routes in ((health_port, health), (metrics_port, scrape)):
            if port:
                self._routes.setdefault(port, []).extend(routes)
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        """Listen. Raises OSError where a port is taken."""
        async with AsyncExitStack() as stack:
            for port, routes in self._routes.items():
                app = web.Application()
                app.add_routes(routes)
                runner = web.AppRunner(app, access_log=None, shutdown_timeout=_SHUTDOWN_TIMEOUT)
                await runner.setup()
                stack.push_async_callback(runner.cleanup)
                await web.TCPSite(runner, self._host, port).start()
            self._stack = stack.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()


def _probe(check: Check) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    async def answer(_: web.Request) -> web.StreamResponse:
        reasons = list(check())
        return web.Response(status=503 if reasons else 200, text="\n".join(reasons or ["ok"]) + "\n")

    return answer


def _scrape(metrics: Registry) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    async def answer(_: web.Request) -> web.StreamResponse:
        return web.Response(body=metrics.expose().encode(), headers={"Content-Type": CONTENT_TYPE})

    return answer
