"""Probes and metrics over HTTP."""

import socket

import aiohttp
import pytest

from provisioner.kube.health import HealthServer
from provisioner.kube.metrics import Registry


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port: int = taken.getsockname()[1]
        return port


async def get(port: int, path: str) -> tuple[int, str, str]:
    async with aiohttp.ClientSession() as session, session.get(f"http://127.0.0.1:{port}{path}") as answer:
        return answer.status, await answer.text(), answer.headers["Content-Type"]


class Checks:
    def __init__(self) -> None:
        self.reasons: list[str] = []

    def __call__(self) -> list[str]:
        return self.reasons


def serve(
    *, health: int | None, metrics: int | None, live: Checks | None = None, ready: Checks | None = None
) -> HealthServer:
    registry = Registry()
    registry.counter("a_total", text="é").inc()
    return HealthServer(
        host="127.0.0.1",
        health_port=health,
        metrics_port=metrics,
        live=live or Checks(),
        ready=ready or Checks(),
        metrics=registry,
    )


async def test_probes_tell_what_is_missing() -> None:
    port, live, ready = free_port(), Checks(), Checks()
    async with serve(health=port, metrics=None, live=live, ready=ready):
        assert (await get(port, "/healthz"))[:2] == (200, "ok\n")
        ready.reasons = ["claims are not listed yet", "no leader"]
        assert (await get(port, "/readyz"))[:2] == (503, "claims are not listed yet\nno leader\n")
        assert (await get(port, "/healthz"))[0] == 200
        live.reasons = ["the watch has ended"]
        assert (await get(port, "/healthz"))[:2] == (503, "the watch has ended\n")
        ready.reasons = []
        assert (await get(port, "/readyz"))[0] == 200
        assert (await get(port, "/metrics"))[0] == 404


async def test_metrics_have_their_own_port_and_type() -> None:
    health, metrics = free_port(), free_port()
    async with serve(health=health, metrics=metrics):
        status, text, content_type = await get(metrics, "/metrics")
        assert (await get(metrics, "/healthz"))[0] == 404
    assert status == 200
    assert content_type == "text/plain; version=0.0.4; charset=utf-8"
    assert text == "# HELP a_total é\n# TYPE a_total counter\na_total 1\n"


async def test_one_port_serves_both() -> None:
    port = free_port()
    async with serve(health=port, metrics=port):
        assert (await get(port, "/metrics"))[0] == 200
        assert (await get(port, "/readyz"))[0] == 200
    with pytest.raises(aiohttp.ClientConnectionError):
        await get(port, "/readyz")


@pytest.mark.parametrize("off", [None, 0])
async def test_port_that_is_off_is_not_served(off: int | None) -> None:
    port = free_port()
    async with serve(health=off, metrics=port):
        assert (await get(port, "/metrics"))[0] == 200
        assert (await get(port, "/healthz"))[0] == 404


async def test_taken_port_leaves_none_behind() -> None:
    health = free_port()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(OSError, match="in use"):
            await serve(health=health, metrics=taken.getsockname()[1]).__aenter__()
    with pytest.raises(aiohttp.ClientConnectionError):
        await get(health, "/healthz")
