"""What the running of any controller takes: its ports, its loops, the first lists, and watches that are kept going."""

import asyncio
import contextlib
import logging
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final

from provisioner.kube.errors import Gone, KubeError
from provisioner.kube.health import HealthServer
from provisioner.kube.watch import Watched, run_watch
from provisioner.kube.watchdog import Watchdog
from provisioner.settings import SettingError

_log: Final = logging.getLogger(__name__)

_WATCH_PAUSES: Final = (1.0, 2.0, 5.0, 15.0)
# A watch that lasted this long was no false start: the next one may come at once again.
_WATCH_SOUND: Final = 60.0
# Seconds without a sign from the loop of the watches, which gives one every few; and for which they may die again and
# again, longer than an API server takes to be replaced.
_WATCH_SILENT: Final = 60.0
_WATCH_DEAD: Final = 300.0
_WATCHES: Final = "the watches"
_SYNC_PAUSE: Final = 2.0
_ENDING: Final = (signal.SIGTERM, signal.SIGINT)
# As shells report a process that a signal has ended.
_SIGNALLED: Final = 128


def stop_on_signals() -> asyncio.Event:
    """Return what the first SIGTERM or SIGINT sets. A second one ends the process at once, by 128 and its number.

    Of the second nothing is asked of the event loop, which may be what does not come to its end; and as process 1 of a
    container we would not die of a signal that nobody handles.
    """
    stop, loop = asyncio.Event(), asyncio.get_running_loop()

    def first(number: int) -> None:
        _log.info("asked to stop", extra={"signal": signal.Signals(number).name})
        stop.set()
        for each in _ENDING:
            signal.signal(each, lambda number, _: os._exit(_SIGNALLED + number))

    for number in _ENDING:
        loop.add_signal_handler(number, first, number)
    return stop


@asynccontextmanager
async def served(health: HealthServer) -> AsyncIterator[None]:
    """Serve health and metrics beside the body. Raises SettingError where a port is taken."""
    try:
        await health.__aenter__()
    except OSError as error:
        raise SettingError(f"HEALTH_PROBE_PORT, METRICS_PORT or BIND_ADDRESS cannot be used: {error}") from error
    try:
        yield
    finally:
        await health.__aexit__(None, None, None)


@asynccontextmanager
async def background(*coroutines: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Run loops beside the body; one that ends or dies takes the process down, for nobody would notice otherwise."""
    me = asyncio.current_task()
    failures: list[BaseException] = []

    def ended(task: asyncio.Task[None]) -> None:
        if not task.cancelled() and me is not None and not me.done():
            failures.append(task.exception() or RuntimeError(f"{task.get_coro()} has ended"))
            me.cancel()

    tasks = [asyncio.create_task(coroutine) for coroutine in coroutines]
    for task in tasks:
        task.add_done_callback(ended)
    try:
        yield
    except asyncio.CancelledError:
        if failures:
            raise failures[0] from None
        raise
    finally:
        for task in tasks:
            task.remove_done_callback(ended)
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@asynccontextmanager
async def working(
    workers: Coroutine[Any, Any, None], *, shut_down: Callable[[], None], seconds: float
) -> AsyncIterator[None]:
    """Run workers beside the body, and at its end have them finish what they are at, within so many seconds.

    `shut_down` keeps them from beginning anything else. Where the body ends by an exception nothing more is finished:
    whoever has lost the Lease must not go on while the rest of the process comes to its end. Workers that die take the
    process down.
    """
    task = asyncio.create_task(workers)

    async def watch() -> None:
        await asyncio.wait([task])
        task.result()

    try:
        async with background(watch()):
            yield
        shut_down()
        await asyncio.wait([task], timeout=seconds)
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def first_lists(synchronise: Callable[[], Awaitable[object]], *, kind: str, stop: asyncio.Event) -> bool:
    """Read once what there is before anything is decided. Returns False where we were stopped meanwhile.

    Where the CRD of that kind is not installed, the watch serves it as soon as it is.
    """
    while not stop.is_set():
        try:
            await synchronise()
        except Gone:
            _log.warning("the %s CRD is not installed; waiting for it", kind)
            return True
        except KubeError as error:
            _log.warning("the API server does not answer", extra={"error": str(error)})
            await _sleep(_SYNC_PAUSE, stop)
        else:
            return True
    return False


async def keep_watching(kinds: Sequence[Watched], *, stop: asyncio.Event, watchdog: Watchdog) -> None:
    """Watch until stopped; a watch that dies is started anew, since what it missed is found by the full lists.

    The watchdog is told while the loop of the watches turns and what it says arrives here. Watches that die again and
    again give no sign before one has lasted.
    """
    clock = asyncio.get_running_loop().time
    falls, started = 0, clock()

    def is_sound() -> bool:
        return clock() - started > _WATCH_SOUND

    def alive() -> None:
        if (not falls or is_sound()) and not stop.is_set():
            watchdog.expect(_WATCHES, within=_WATCH_SILENT)

    alive()
    while not stop.is_set():
        started = clock()
        try:
            await run_watch(kinds, stop=stop, alive=alive)
        except Exception:  # noqa: BLE001 -- logged with its traceback; whatever it was, watching must go on
            if stop.is_set():
                # kopf does not end well in the moments in which it starts; its end is what was asked for.
                _log.debug("the watch has died at its end", exc_info=True)
                break
            if is_sound():
                falls = 0
            if not falls:
                watchdog.expect(_WATCHES, within=_WATCH_DEAD)
            pause = _WATCH_PAUSES[min(falls, len(_WATCH_PAUSES) - 1)]
            falls += 1
            _log.exception("the watch has died; it is started anew", extra={"pause_seconds": pause})
            await _sleep(pause, stop)
    watchdog.forget(_WATCHES)


async def _sleep(seconds: float, stop: asyncio.Event) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await stop.wait()
