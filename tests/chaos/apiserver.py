"""The Kubernetes API as one program meets it: answers take time, get lost, are refused, or come after somebody else."""

import asyncio
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Final, Self

from provisioner.kube.errors import KubeError, Rejected, Unavailable, Unserved
from provisioner.kube.transport import MERGE_PATCH, REQUEST_TIMEOUT
from tests.chaos.loop import Life
from tests.chaos.objects import CLAIMS, EVENTS, KINDS, NODE_CLASSES, NODES, Objects, Place, Raw, place_of
from tests.chaos.world import World

_READ_ATTEMPTS: Final = 3
# What goes wrong with one request while things go wrong, and how often of a thousand.
_FAULTS: Final = (
    ("lost request", 10),
    ("lost answer", 14),
    ("no answer", 4),
    ("429", 8),
    ("500", 8),
    ("503", 4),
    ("other writer first", 20),
)


class ApiServer:
    """The server, for everybody. While it is away no request reaches it."""

    def __init__(self, world: World, objects: Objects) -> None:
        self._world = world
        self._dice = world.dice("api server")
        self.objects = objects
        self.is_away = False
        # For moments after its start it does not serve the kinds of CRDs yet.
        self.lacks_crds = False
        # Pages of this many objects at most; less than what is asked for is allowed.
        self.page = self._dice.pick((1, 2, 5, 500))
        # Seconds that a list is on its way at most: in some histories it is a busy server.
        self.list_seconds = 8.0 if self._dice.chance(0.2) else 0.5
        self._pages: dict[str, tuple[list[Raw], int, str]] = {}

    def connect(self, life: Life) -> "Connection":
        """Return the way to it for one run of the controller."""
        return Connection(self._world, self, life)

    def answer(self, method: str, path: str, query: Mapping[str, Any], body: Mapping[str, Any] | None) -> Raw:
        """Carry a request out. Raises KubeError."""
        place = place_of(path)
        if self.lacks_crds and place.plural in (CLAIMS, NODE_CLASSES):
            raise Unserved(f"{method} {path}: 404: the server could not find the requested resource", status=404)
        objects = self.objects
        options: Mapping[str, Any] = body or {}
        match method, bool(place.name), place.sub:
            case "GET", False, "":
                return self._list(place, query)
            case "GET", True, "":
                return objects.must_get(place.plural, place.key)
            case "POST", False, "":
                return objects.create(place.plural, options, by="controller")
            case "POST", True, "eviction":
                uid = ((options.get("deleteOptions") or {}).get("preconditions") or {}).get("uid")
                return objects.evict(place.key, uid=uid, by="controller")
            case "PATCH", True, "" | "status":
                return objects.patch(place.plural, place.key, options, sub=place.sub, by="controller")
            case "DELETE", True, "":
                uid = (options.get("preconditions") or {}).get("uid")
                return objects.delete(place.plural, place.key, uid=uid, by="controller")
        raise Rejected(f"{method} {path}: 405: not served", status=405)

    def _list(self, place: Place, query: Mapping[str, Any]) -> Raw:
        token = str(query.get("continue", ""))
        if not token:
            items = self.objects.all(place.plural)
            if selector := str(query.get("fieldSelector", "")):
                field, _, value = selector.partition("=")
                if field != "spec.nodeName":
                    raise Rejected(f"field label not supported: {field}", status=400)
                items = [item for item in items if (item.get("spec") or {}).get("nodeName") == value]
            start, version = 0, str(self.objects.version)
        elif token not in self._pages or (self._world.faults_on and self._dice.chance(0.1)):
            raise Rejected("The provided continue parameter is too old", status=410, reason="Expired")
        else:
            items, start, version = self._pages.pop(token)
        size = min(int(query.get("limit", len(items) or 1)), self.page if "limit" in query else len(items) or 1)
        metadata: Raw = {"resourceVersion": version}
        if start + size < len(items):
            token = f"{place.plural}-{version}-{start + size}"
            self._pages[token] = (items, start + size, version)
            metadata["continue"] = token
        kind = KINDS[place.plural]
        return {
            "kind": f"{kind.kind}List",
            "apiVersion": kind.api_version,
            "metadata": metadata,
            "items": items[start : start + size],
        }

    def interfere(self, path: str) -> None:
        """Have somebody write to what a request is about: its version is another one then."""
        place = place_of(path)
        if place.plural in (CLAIMS, NODES) and place.name and self.objects.get(place.plural, place.key) is not None:
            annotations = {"example.com/touched": str(self.objects.version)}
            self.objects.patch(place.plural, place.key, {"metadata": {"annotations": annotations}}, by="other writer")


class Connection:
    """One program's way to the API server."""

    def __init__(self, world: World, server: ApiServer, life: Life) -> None:
        self._world = world
        self._server = server
        self._life = life
        self._dice = world.dice(f"connection {life.number}")

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return

    async def read(self, path: str, *, query: Mapping[str, str | int] | None = None) -> Raw:
        """GET, and again where the connection broke."""
        for _ in range(_READ_ATTEMPTS - 1):
            try:
                return await self.call("GET", path, query=query)
            except Unavailable as error:
                if not error.lost:
                    raise
            await asyncio.sleep(0.1)
        return await self.call("GET", path, query=query)

    async def call(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str | int] | None = None,
        body: Mapping[str, Any] | None = None,
        content_type: str = "application/json",
    ) -> Raw:
        """Send one request."""
        if (method == "PATCH") != (content_type == MERGE_PATCH):
            raise Rejected(f"{method} {path}: 415: {content_type}", status=415)
        world, dice, what = self._world, self._dice, f"{method} {path}"
        world.counts["kube requests"] += 1
        if method != "GET" and place_of(path).plural != EVENTS:
            world.counts["kube writes"] += 1
            self._life.writes()
        fault = self._fault(method, path)
        answered: asyncio.Future[Raw] = world.loop.create_future()

        def answer(result: Raw | KubeError) -> None:
            if world.is_traced and method != "GET":
                told = f"{type(result).__name__} {result}" if isinstance(result, KubeError) else _short(result)
                world.trace("kube", f"{what} <- {told}")
            if answered.done():
                return
            if isinstance(result, KubeError):
                answered.set_exception(result)
            else:
                answered.set_result(result)

        def arrive() -> None:
            if not self._life.is_alive and dice.chance(0.5):
                return
            result = self._carry_out(method, path, query or {}, body, fault=fault)
            is_list = method == "GET" and not place_of(path).name
            back = dice.between(0.0, self._server.list_seconds) if is_list else dice.short(0.0, 0.5)
            world.after(REQUEST_TIMEOUT if fault == "no answer" else back, lambda: answer(result))

        if world.is_traced and method != "GET":
            world.trace(f"controller{self._life.number}", f"{what} {_brief(body)}")
        world.after(dice.short(0.0, 0.3), arrive)
        return await answered

    def _carry_out(
        self, method: str, path: str, query: Mapping[str, Any], body: Mapping[str, Any] | None, *, fault: str
    ) -> Raw | KubeError:
        what = f"{method} {path}"
        lost = Unavailable(f"{what}: connection reset", lost=True)
        if self._server.is_away or fault == "lost request":
            return lost
        if fault == "other writer first":
            self._server.interfere(path)
        if fault in ("429", "500", "503"):
            pause = float(self._dice.whole(1, 20)) if fault == "429" else None
            return Unavailable(f"{what}: {fault}", status=int(fault), retry_after=pause)
        result: Raw | KubeError
        try:
            result = self._server.answer(method, path, query, body)
        except KubeError as error:
            result = error
        match fault:
            case "lost answer":
                return lost
            case "no answer":
                return Unavailable(f"{what}: no answer within {REQUEST_TIMEOUT:g} s")
        return result

    def _fault(self, method: str, path: str) -> str:
        if not self._world.faults_on:
            return ""
        drawn = self._dice.between(0, 1000) / self._world.mood
        for kind, share in _FAULTS:
            drawn -= share
            if drawn < 0:
                if kind == "other writer first" and method == "GET":
                    return ""
                self._world.fault(f"kube {kind}", f"{method} {path}")
                return kind
        return ""


def _short(raw: Raw) -> str:
    return f"version {(raw.get('metadata') or {}).get('resourceVersion', '')}"


def _brief(body: Mapping[str, Any] | None) -> str:
    text = str(dict(body)) if body else ""
    return text if len(text) < 600 else text[:600] + "..."
