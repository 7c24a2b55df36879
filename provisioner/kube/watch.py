"""The watches, by kopf: it lists, watches, reconnects and discovers; we take each event and do nothing with it here.

kopf runs in a thread with an event loop of its own. In ours it would take over SIGINT and SIGTERM, and at its end it
cancels every task that was created since its start, since it cannot tell its own from others': a PUT to Azure in
flight among them. Events come back to the caller's loop, in the order of the events.

Only `on.event` handlers are used: they store nothing on the objects and write nothing. With any other kind kopf
manages a finalizer, and `settings.persistence.finalizer` must never name ours: kopf would take it off.
"""

import asyncio
import contextlib
import functools
import itertools
import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

import kopf

# Not public, but the type of a parameter of kopf.operator: what kopf sees is to be had nowhere else.
from kopf._cogs.structs.references import Insights

from provisioner.kube.access import load_configuration
from provisioner.kube.errors import Gone, KubeError
from provisioner.kube.transport import Transport

_log = logging.getLogger(__name__)

EventType = Literal["ADDED", "MODIFIED", "DELETED"]
Handler = Callable[[EventType, dict[str, Any]], None]

# Seconds.
_SERVER_TIMEOUT: Final = 300
_REQUEST_TIMEOUT: Final = 30.0
_STOP_TIMEOUT: Final = 2.0
_CONNECT_TIMEOUT: Final = 10.0
# Nothing is asked of anybody while kopf watches all kinds.
_CHECK_INTERVAL: Final = 5.0
_SIGN_INTERVAL: Final = 5.0
_KOPF_LOGGERS: Final = {
    "kopf": logging.WARNING,
    "kopf._core.reactor.running": logging.ERROR,
    "kopf._core.reactor.observation": logging.ERROR,
}
# How long kopf keeps the last event of an object once it was handled. Its default of 5 s is for handlers that wait; of
# ours it would only hold the bodies of a thousand Nodes that join together.
_IDLE_TIMEOUT: Final = 0.1
# Objects a page of the first list.
_CHUNK: Final = 500


@dataclass(frozen=True, kw_only=True)
class Watched:
    """A kind of objects, and who is told of them.

    The handler is called with each event, in the loop that awaits `run_watch`; it must not wait and should not raise.
    An object that was there before the watch is ADDED, and comes again as such whenever a watch has to list anew. A
    deletion that falls into the gap before such a list is never told of: full lists have to find it.
    """

    group: str
    version: str
    plural: str
    handler: Handler

    @property
    def kind(self) -> tuple[str, str, str]:
        """Return group, version and plural."""
        return self.group, self.version, self.plural

    @property
    def is_built_in(self) -> bool:
        """Tell whether every API server has the kind, so that no CRD has to be waited for."""
        return "." not in self.group


async def run_watch(
    kinds: Sequence[Watched],
    *,
    stop: asyncio.Event,
    ready: asyncio.Event | None = None,
    alive: Callable[[], None] = lambda: None,
) -> None:
    """Watch those kinds until `stop` is set. `ready` is set once kopf has started.

    `alive` is called every few seconds in the loop that awaits this, as long as kopf's own loop turns.

    A kind whose CRD is missing is watched as soon as it is installed. Raises what kopf dies of: no access to the
    cluster, or an answer to a watch that no repetition helps.
    """
    await _Watch(kinds, ready=ready, alive=alive).run(stop)


class _Watch:
    """One life of kopf in its thread."""

    def __init__(self, kinds: Sequence[Watched], *, ready: asyncio.Event | None, alive: Callable[[], None]) -> None:
        self._home = asyncio.get_running_loop()
        self._ended: asyncio.Future[None] = self._home.create_future()
        # Looked at even where nobody waits any more for the end of kopf, or asyncio complains of it in the log: after
        # a cancellation, and where kopf comes to its end later than we wait for it.
        self._ended.add_done_callback(asyncio.Future.exception)
        self._kinds = tuple(kinds)
        self._ready = ready
        self._alive = alive
        self._lock = threading.Lock()
        self._stopping = False
        self._stop_kopf: Callable[[], object] | None = None

    async def run(self, stop: asyncio.Event) -> None:
        _quieten()
        # A daemon: should kopf not come to its end, the process still can.
        threading.Thread(target=self._thread, name="kopf", daemon=True).start()
        stopped = asyncio.create_task(stop.wait())
        either: set[asyncio.Future[Any]] = {stopped, self._ended}
        try:
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        finally:
            stopped.cancel()
            self._stop()
            # Not awaited as such: a cancellation of ours must not cancel the future that the thread will set.
            await asyncio.wait([self._ended], timeout=_STOP_TIMEOUT)
        if not self._ended.done():
            # Stopped while it started, kopf waits for tasks that it leaves behind. It is a daemon, let it.
            return
        self._ended.result()
        if not stop.is_set():
            raise RuntimeError("kopf has ended by itself")

    def _stop(self) -> None:
        with self._lock:
            self._stopping = True
            # What kopf says from here on is about requests that it has cut off itself.
            for name in _KOPF_LOGGERS:
                logging.getLogger(name).setLevel(logging.CRITICAL)
            if self._stop_kopf is not None:
                self._stop_kopf()

    def _thread(self) -> None:
        try:
            asyncio.run(self._operate())
        except BaseException as error:  # noqa: BLE001 -- whatever it is, it is raised where run_watch is awaited
            self._tell(self._ended.set_exception, error)
        else:
            self._tell(self._ended.set_result, None)

    def _tell(self, callback: Callable[[Any], None], argument: object) -> None:
        # Whoever waited may have gone home, see `run`.
        with contextlib.suppress(RuntimeError):
            self._home.call_soon_threadsafe(callback, argument)

    async def _operate(self) -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(self._on_stray_error)
        signs = asyncio.create_task(self._give_signs())
        try:
            await self._live(loop)
        finally:
            signs.cancel()

    async def _live(self, loop: asyncio.AbstractEventLoop) -> None:
        async with Transport() as transport:
            again = True
            while again:
                stop, insights = asyncio.Event(), Insights()
                with self._lock:
                    if self._stopping:
                        return
                    self._stop_kopf = functools.partial(loop.call_soon_threadsafe, stop.set)
                # Before kopf starts: what starts later is kopf's to cancel.
                check = asyncio.create_task(self._stop_at_a_missed_kind(stop, transport=transport, insights=insights))
                try:
                    await kopf.operator(
                        registry=self._registry(),
                        settings=_settings(),
                        insights=insights,
                        clusterwide=True,
                        standalone=True,
                        stop_flag=stop,
                    )
                finally:
                    again = check.done()
                    check.cancel()
                    with self._lock:
                        self._stop_kopf = None

    async def _give_signs(self) -> None:
        with contextlib.suppress(RuntimeError):
            # Whoever waited may have gone home, see `run`.
            while True:
                self._home.call_soon_threadsafe(self._alive)
                await asyncio.sleep(_SIGN_INTERVAL)

    async def _stop_at_a_missed_kind(self, stop: asyncio.Event, *, transport: Transport, insights: Insights) -> None:
        """Stop kopf once a kind is served and kopf does not see it.

        kopf looks at what is served when a CRD changes. Where the API server that it then asks is behind the one that
        has told of the change, or while kopf lists CRDs anew after a broken connection, it misses the kind, and for
        good. Twice in a row, because the two of us never look at quite the same moment.
        """
        of_crds = [kind.kind for kind in self._kinds if not kind.is_built_in]
        before: set[tuple[str, str, str]] = set()
        while True:
            await asyncio.sleep(_CHECK_INTERVAL)
            watched = {(resource.group, resource.version, resource.plural) for resource in insights.watched_resources}
            missed = {kind for kind in of_crds if kind not in watched and await _is_served(transport, kind)}
            if repeated := missed & before:
                _log.warning("kopf has missed %s, starting it again", ", ".join(plural for _, _, plural in repeated))
                stop.set()
                return
            before = missed

    def _on_stray_error(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        # kopf leaves tasks behind when it is stopped while it starts; they fail on its closed session.
        if not self._stopping:
            loop.default_exception_handler(context)

    def _registry(self) -> kopf.OperatorRegistry:
        registry = kopf.OperatorRegistry()
        kopf.on.login(registry=registry, id="access", retries=5, backoff=5)(_login)
        kopf.on.startup(registry=registry, id="ready")(self._on_startup)
        for kind in self._kinds:
            kopf.on.event(*kind.kind, registry=registry, id=kind.plural)(self._forwarder(kind.handler))
        return registry

    async def _on_startup(self, **_: Any) -> None:
        if self._ready is not None:
            self._home.call_soon_threadsafe(self._ready.set)

    def _forwarder(self, handler: Handler) -> Callable[..., Any]:
        async def forward(event: Any, **_: Any) -> None:
            # kopf has no type for what it listed itself.
            self._home.call_soon_threadsafe(handler, event["type"] or "ADDED", event["object"])

        return forward


async def _is_served(transport: Transport, kind: tuple[str, str, str]) -> bool:
    group, version, plural = kind
    try:
        found = await transport.read(f"/apis/{group}/{version}")
    except Gone:
        return False
    except KubeError as error:
        _log.debug("What is served of %s could not be read: %s", group, error)
        return False
    return any(resource.get("name") == plural for resource in found.get("resources") or ())


class _Backoffs:
    """Seconds between the attempts of a request, for ever.

    kopf gives up, and the process with it, after as many attempts as `len` tells; so there is no `__len__`.
    """

    def __iter__(self) -> Iterator[float]:
        return itertools.chain((1, 1, 2, 3, 5, 8, 13, 21), itertools.repeat(30))


def _settings() -> kopf.OperatorSettings:
    settings = kopf.OperatorSettings()
    # kopf's Events are not deduplicated; ours are in provisioner.kube.events.
    settings.posting.enabled = False
    # Off would spare us the right to list CRDs, and would leave a CRD that is installed later unserved.
    settings.scanning.disabled = False
    settings.watching.server_timeout = _SERVER_TIMEOUT
    settings.watching.chunk_size = _CHUNK
    settings.queueing.idle_timeout = _IDLE_TIMEOUT
    settings.networking.request_timeout = _REQUEST_TIMEOUT
    settings.networking.connect_timeout = _CONNECT_TIMEOUT
    settings.networking.error_backoffs = _Backoffs()
    # Otherwise kopf kills the process, ten minutes after an end that it did not ask for itself.
    settings.process.ultimate_exiting_timeout = None
    return settings


async def _login(**_: Any) -> kopf.ConnectionInfo:
    """Return our own access as kopf takes it. kopf asks again whenever the server answers 401."""
    configuration = await load_configuration()
    header = await configuration.get_api_key_with_prefix("BearerToken") or ""
    scheme, _separator, token = header.rpartition(" ")
    return kopf.ConnectionInfo(
        server=configuration.host,
        ca_path=configuration.ssl_ca_cert,
        insecure=not configuration.verify_ssl,
        scheme=scheme or None,
        token=token or None,
        certificate_path=configuration.cert_file,
        private_key_path=configuration.key_file,
        proxy_url=configuration.proxy,
        # As kubernetes.aio has it: proxies from the environment, with NO_PROXY respected.
        trust_env=True,
    )


def _quieten() -> None:
    # At INFO kopf reports each handled event. Two warnings say nothing: that signals are ignored outside of the main
    # thread, which is what the thread is for, and that a kind is not served (yet), at every change of any CRD.
    for name, level in _KOPF_LOGGERS.items():
        logging.getLogger(name).setLevel(level)
