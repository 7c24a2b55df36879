"""How kopf is kept: started again where it has missed a kind, stopped when told, its death passed on."""

import asyncio
import gc
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any, NamedTuple

import kopf
import pytest
from aiohttp import web

from provisioner.apis import names
from provisioner.kube import watch
from provisioner.kube.access import ConfigException
from provisioner.kube.watch import Watched, run_watch
from tests.unit.kube_support import write_kubeconfig


class Resource(NamedTuple):
    """What of kopf's resource is looked at."""

    group: str
    version: str
    plural: str


CLAIMS = Resource("karpenter.sh", "v1", "nodeclaims")
Session = Callable[[Any, asyncio.Event], Awaitable[None]]


class Discovery:
    """An API server that serves NodeClaims, and nothing else."""

    def __init__(self) -> None:
        self.asked = 0

    async def handle(self, request: web.Request) -> web.StreamResponse:
        if request.path != "/apis/karpenter.sh/v1":
            return web.Response(status=404, text="404 page not found")
        self.asked += 1
        return web.json_response({"resources": [{"name": "nodeclaims"}, {"name": "nodeclaims/status"}]})


@pytest.fixture
async def discovery(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Discovery]:
    discovery, app = Discovery(), web.Application()
    app.router.add_route("*", "/{path:.*}", discovery.handle)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    write_kubeconfig(tmp_path / "kubeconfig", f"http://127.0.0.1:{runner.addresses[0][1]}", token="t")
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "kubeconfig"))
    monkeypatch.setattr(watch, "_CHECK_INTERVAL", 0.02)
    yield discovery
    await runner.cleanup()


def play(monkeypatch: pytest.MonkeyPatch, *sessions: Session) -> list[int]:
    """Let kopf live these lives, one after the other; returns a list that grows with each."""
    lived: list[int] = []

    async def operator(*, insights: Any, stop_flag: asyncio.Event, **_: Any) -> None:
        lived.append(len(lived))
        await sessions[lived[-1]](insights, stop_flag)

    monkeypatch.setattr(kopf, "operator", operator)
    return lived


def nobody(event: str, raw: dict[str, Any]) -> None:
    raise AssertionError(event, raw)


KINDS = (
    Watched(group=names.KARPENTER_GROUP, version="v1", plural="nodeclaims", handler=nobody),
    Watched(group="", version="v1", plural="nodes", handler=nobody),
    Watched(group=names.KAITO_GROUP, version=names.NODECLASS_VERSION, plural="kaitonodeclasses", handler=nobody),
)


async def test_kind_that_kopf_has_missed_makes_it_start_again_once(
    discovery: Discovery, monkeypatch: pytest.MonkeyPatch
) -> None:
    home, stop = asyncio.get_running_loop(), asyncio.Event()

    async def sees_nothing(_: Any, stopped: asyncio.Event) -> None:
        await stopped.wait()

    async def sees_claims(insights: Any, stopped: asyncio.Event) -> None:
        insights.watched_resources.add(CLAIMS)
        asked = discovery.asked
        await asyncio.sleep(0.2)
        assert discovery.asked == asked, "nobody asks for what is watched"
        home.call_soon_threadsafe(stop.set)
        await stopped.wait()

    lived = play(monkeypatch, sees_nothing, sees_claims)
    await run_watch(KINDS, stop=stop)
    assert lived == [0, 1]
    assert discovery.asked == 2, "it takes two looks in a row"


async def test_kind_that_kopf_sees_a_moment_later_does_not(
    discovery: Discovery, monkeypatch: pytest.MonkeyPatch
) -> None:
    home, stop = asyncio.get_running_loop(), asyncio.Event()

    async def sees_claims_late(insights: Any, stopped: asyncio.Event) -> None:
        while not discovery.asked:  # noqa: ASYNC110 -- the server lives in another loop
            await asyncio.sleep(0)
        insights.watched_resources.add(CLAIMS)
        await asyncio.sleep(0.2)
        assert not stopped.is_set()
        home.call_soon_threadsafe(stop.set)
        await stopped.wait()

    lived = play(monkeypatch, sees_claims_late)
    await run_watch(KINDS, stop=stop)
    assert lived == [0]


async def test_kopf_that_dies_takes_the_watch_with_it(discovery: Discovery, monkeypatch: pytest.MonkeyPatch) -> None:
    async def dies(_insights: Any, _stopped: asyncio.Event) -> None:
        raise RuntimeError("a fatal answer")

    play(monkeypatch, dies)
    with pytest.raises(RuntimeError, match="a fatal answer"):
        await run_watch(KINDS, stop=asyncio.Event())


async def test_kopf_that_ends_unasked_is_an_error(discovery: Discovery, monkeypatch: pytest.MonkeyPatch) -> None:
    async def ends(_insights: Any, _stopped: asyncio.Event) -> None:
        return

    play(monkeypatch, ends)
    with pytest.raises(RuntimeError, match="ended by itself"):
        await run_watch(KINDS, stop=asyncio.Event())


async def test_watch_that_is_stopped_before_it_began_ends(
    discovery: Discovery, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def lives(_: Any, stopped: asyncio.Event) -> None:
        await stopped.wait()

    play(monkeypatch, lives)
    stop = asyncio.Event()
    stop.set()
    await asyncio.wait_for(run_watch(KINDS, stop=stop), 10)


async def test_kopf_that_dies_when_nobody_waits_for_it_any_more_is_not_complained_of(
    discovery: Discovery, monkeypatch: pytest.MonkeyPatch
) -> None:
    left, complaints, stop = threading.Event(), [], asyncio.Event()

    async def dies_late(_: Any, stopped: asyncio.Event) -> None:
        await stopped.wait()
        await asyncio.to_thread(left.wait, 10)
        raise AssertionError

    play(monkeypatch, dies_late)
    monkeypatch.setattr(watch, "_STOP_TIMEOUT", 0.0)
    asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
    asyncio.get_running_loop().call_later(0.1, stop.set)
    await run_watch(KINDS, stop=stop)
    left.set()
    for thread in threading.enumerate():
        if thread.name == "kopf":
            await asyncio.to_thread(thread.join, 10)
    await asyncio.sleep(0)
    gc.collect()
    assert complaints == []


async def test_without_access_there_is_no_watch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "absent"))
    with pytest.raises(ConfigException):
        await run_watch(KINDS, stop=asyncio.Event())


def test_backoffs_never_end() -> None:
    backoffs = watch._settings().networking.error_backoffs
    assert not hasattr(backoffs, "__len__")
    assert not isinstance(backoffs, float)
    first = [delay for delay, _ in zip(backoffs, range(100), strict=False)]
    assert first[0] == 1
    assert first[-1] == 30


def test_kopf_s_finalizer_is_not_ours() -> None:
    assert "karpenter" not in watch._settings().persistence.finalizer
    assert not watch._settings().posting.enabled


async def test_signs_of_life_are_given_while_the_loop_of_kopf_turns(
    discovery: Discovery, monkeypatch: pytest.MonkeyPatch
) -> None:
    home, signs, stop, free = asyncio.get_running_loop(), asyncio.Queue[None](), asyncio.Event(), threading.Event()
    monkeypatch.setattr(watch, "_SIGN_INTERVAL", 0.01)
    monkeypatch.setattr(watch, "_CHECK_INTERVAL", 60.0)
    seen: list[int] = []

    def look() -> None:
        seen.append(signs.qsize())

    async def turns_and_is_stuck(_: Any, stopped: asyncio.Event) -> None:
        await asyncio.sleep(0.2)
        home.call_soon_threadsafe(look)
        # As long as this, nothing in kopf's loop goes on.
        free.wait(0.5)
        home.call_soon_threadsafe(look)
        home.call_soon_threadsafe(stop.set)
        await stopped.wait()

    play(monkeypatch, turns_and_is_stuck)
    await run_watch(KINDS, stop=stop, alive=lambda: signs.put_nowait(None))

    assert seen[0] > 1
    assert seen[1] == seen[0]
