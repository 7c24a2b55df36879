"""The fault proxy: what it reads in a request, and what a client of the real API server sees through it."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from uuid import uuid4

import aiohttp
import pytest

from fakes.cluster.components import free_port
from fakes.cluster.interface import ControlPlane
from fakes.nodes.api import ApiError, KubeApi, Object
from fakes.proxy import (
    Answer,
    Call,
    CutWatch,
    Delay,
    DelayEvents,
    Disconnect,
    DropEvents,
    FailWatch,
    FaultProxy,
    StallWatch,
)
from fakes.proxy.faults import Fault, FaultBook
from fakes.proxy.watch import WatchRelay
from provisioner.kube.errors import Unavailable
from provisioner.kube.gateway import KubeGateway
from tests.kube import eventually

REVIEWS = "/apis/authentication.k8s.io/v1/selfsubjectreviews"
MAPS = "/api/v1/namespaces/default/configmaps"
DEADLINE = 20.0
BROKEN = (aiohttp.ClientError, OSError)


# Requests


@pytest.mark.parametrize(
    ("method", "path", "query", "expected"),
    [
        ("GET", "/apis/karpenter.sh/v1/nodeclaims", {}, ("list", "karpenter.sh", "nodeclaims", "", "")),
        ("GET", "/apis/karpenter.sh/v1/nodeclaims", {"watch": "true"}, ("watch", "karpenter.sh", "nodeclaims", "", "")),
        ("GET", "/api/v1/nodes", {"watch": "1"}, ("watch", "", "nodes", "", "")),
        ("GET", "/api/v1/nodes", {"watch": "0"}, ("list", "", "nodes", "", "")),
        ("GET", "/api/v1/nodes", {"fieldSelector": "metadata.name=n1"}, ("list", "", "nodes", "", "n1")),
        ("GET", "/api/v1/nodes/n1", {}, ("get", "", "nodes", "", "n1")),
        ("PUT", "/api/v1/nodes/n1", {}, ("update", "", "nodes", "", "n1")),
        ("DELETE", "/api/v1/nodes", {}, ("deletecollection", "", "nodes", "", "")),
        ("PATCH", "/apis/a.b/v1/things/t/status", {}, ("patch", "a.b", "things/status", "", "t")),
        ("GET", "/api/v1/namespaces/ns/events/e", {}, ("get", "", "events", "ns", "e")),
        ("DELETE", "/api/v1/namespaces/ns", {}, ("delete", "", "namespaces", "ns", "ns")),
        ("PUT", "/api/v1/namespaces/ns/finalize", {}, ("update", "", "namespaces/finalize", "ns", "ns")),
        ("GET", "/api/v1/namespaces", {}, ("list", "", "namespaces", "", "")),
        ("POST", "/api/v1/namespaces/ns/pods/p/eviction", {}, ("create", "", "pods/eviction", "ns", "p")),
        ("GET", "/apis/karpenter.sh/v1", {}, ("get", "", "", "", "")),
        ("GET", "/readyz", {}, ("get", "", "", "", "")),
    ],
)
def test_request_is_read_as_rbac_has_it(
    method: str, path: str, query: dict[str, str], expected: tuple[str, ...]
) -> None:
    call = Call.of(method, path, query=query)
    assert (call.verb, call.group, call.resource, call.namespace, call.name) == expected


@pytest.mark.parametrize(
    ("body", "name"), [(b'{"metadata": {"name": "e"}}', "e"), (b'{"metadata": {}}', ""), (b"[", ""), (b"[]", "")]
)
def test_create_is_about_the_new_object(body: bytes, name: str) -> None:
    call = Call.of("POST", "/api/v1/namespaces/ns/events", query={}, body=body)
    assert (call.verb, call.name) == ("create", name)


@pytest.mark.parametrize(
    ("fault", "hits"),
    [
        (Disconnect(verb="patch"), True),
        (Disconnect(verb="p*"), True),
        (Disconnect(verb="get"), False),
        (Disconnect(resource="nodeclaims*"), True),
        (Disconnect(resource="nodeclaims"), False),
        (Disconnect(name="ws*"), True),
        (Disconnect(name="other"), False),
        (Delay(seconds=1), False),
    ],
)
def test_fault_hits_the_calls_that_it_names(fault: Fault, hits: bool) -> None:
    book = FaultBook()
    book.add(fault)
    call = Call.of("PATCH", "/apis/karpenter.sh/v1/nodeclaims/ws1/status", query={})
    assert (book.claim(Disconnect, call) is not None) == hits


def test_fault_hits_as_often_as_it_says_and_until_cleared() -> None:
    book, call = FaultBook(), Call.of("GET", "/api/v1/nodes", query={})
    first, second = book.add(Disconnect(times=2)), book.add(Disconnect(times=None))
    assert [book.claim(Disconnect, call) for _ in range(4)] == [first, first, second, second]
    assert (first.hits, first.spent, second.hits, second.spent) == (2, True, 2, False)
    book.clear(second)
    assert book.claim(Disconnect, call) is None
    book.add(Disconnect())
    book.clear()
    assert book.claim(Disconnect, call) is None


async def test_watch_is_passed_on_as_it_is_however_it_is_cut_into_chunks() -> None:
    table = {"kind": "Table", "metadata": {"resourceVersion": "8"}, "rows": []}
    events = [
        {"type": "ADDED", "object": {"metadata": {"name": "a"}}},
        {"type": "MODIFIED", "object": table},
        {"type": "BOOKMARK", "object": {"metadata": {"resourceVersion": "9"}}},
    ]
    text = b"".join(json.dumps(event).encode() + b"\n" for event in events)
    written: list[bytes] = []

    async def write(line: bytes) -> None:
        written.append(line)

    async def chunks() -> AsyncIterator[bytes]:
        for start in range(0, len(text), 7):
            yield text[start : start + 7]

    book = FaultBook()
    book.add(DropEvents(name="b", times=None))
    await WatchRelay(Call(verb="watch"), faults=book, write=write).run(chunks())
    assert b"".join(written) == text


class Away:
    """A cluster whose API server is not there."""

    def __init__(self, kubeconfig: Path) -> None:
        self.kubeconfig = kubeconfig
        self.url = f"https://127.0.0.1:{free_port()}"

    def start(self) -> None:
        raise NotImplementedError

    def stop(self) -> None:
        raise NotImplementedError


# Through the proxy


@pytest.fixture
async def proxy(control_plane: ControlPlane) -> AsyncIterator[FaultProxy]:
    async with FaultProxy(control_plane) as proxy:
        yield proxy


@pytest.fixture
async def client(proxy: FaultProxy) -> AsyncIterator[KubeApi]:
    async with KubeApi(proxy.kubeconfig) as client:
        yield client


@pytest.fixture
async def direct(control_plane: ControlPlane) -> AsyncIterator[KubeApi]:
    async with KubeApi(control_plane.kubeconfig) as client:
        yield client


async def make(api: KubeApi, name: str = "") -> Object:
    body = {"metadata": {"name": name or f"m{uuid4().hex[:9]}"}, "data": {"key": "1"}}
    return await api.call("POST", MAPS, body=body)


def name_of(item: Object) -> str:
    return str(item["metadata"]["name"])


async def patch(api: KubeApi, item: Object, value: str) -> Object:
    return await api.call("PATCH", f"{MAPS}/{name_of(item)}", body={"data": {"key": value}})


async def value(api: KubeApi, item: Object) -> str:
    return str((await api.call("GET", f"{MAPS}/{name_of(item)}"))["data"]["key"])


class Watching:
    """A watch of all ConfigMaps from an object's creation on: what it has told, and how it ended."""

    def __init__(self, api: KubeApi, since: Object) -> None:
        self.events: list[tuple[str, str, str]] = []
        self.task = asyncio.create_task(self._watch(api, str(since["metadata"]["resourceVersion"])))

    async def _watch(self, api: KubeApi, version: str) -> None:
        async for kind, item in api.watch(MAPS, version=version, seconds=60):
            if kind != "BOOKMARK":
                self.events.append((kind, name_of(item), (item.get("data") or {}).get("key", "")))

    async def until(self, *events: tuple[str, str, str]) -> None:
        await until(lambda: set(events) <= set(self.events))

    async def ended(self) -> BaseException | None:
        async with asyncio.timeout(DEADLINE):
            await asyncio.wait([self.task])
        return self.task.exception()


async def until(condition: Callable[[], bool]) -> None:
    async def look() -> bool:
        return condition()

    await eventually(look, patience=DEADLINE)


async def begin_watch(client: KubeApi, proxy: FaultProxy) -> tuple[Watching, Object]:
    """Return a watch that has begun, and an object that it has told of."""
    first = await make(client)
    watching = Watching(client, first)
    told = await patch(client, first, "2")
    await watching.until(("MODIFIED", name_of(first), "2"))
    return watching, told


async def test_call_goes_through_and_is_logged(proxy: FaultProxy, client: KubeApi, direct: KubeApi) -> None:
    made = await make(client)
    assert await client.call("GET", f"{MAPS}/{name_of(made)}") == await direct.call("GET", f"{MAPS}/{name_of(made)}")
    assert {name_of(item) for item in (await client.call("GET", MAPS))["items"]} >= {name_of(made)}
    with pytest.raises(ApiError, match="404 NotFound"):
        await client.call("GET", f"{MAPS}/nothing")
    assert [(call.verb, call.resource, call.namespace, call.name, call.status) for call in proxy.calls] == [
        ("create", "configmaps", "default", name_of(made), 201),
        ("get", "configmaps", "default", name_of(made), 200),
        ("list", "configmaps", "default", "", 200),
        ("get", "configmaps", "default", "nothing", 404),
    ]
    assert proxy.calls.counts() == {("create", "configmaps"): 1, ("get", "configmaps"): 2, ("list", "configmaps"): 1}
    assert proxy.calls.count("get", name="m*", agent="fake-kubelet") == 1
    proxy.calls.reset()
    assert not list(proxy.calls)


@pytest.mark.real_only("asks who it is, which the control plane in Python does not tell")
async def test_caller_is_who_he_is_by_his_own_token(control_plane: ControlPlane, proxy: FaultProxy) -> None:
    kubeconfig = proxy.kubeconfig_like(control_plane.kubeconfig_for("default", service_account="default"))
    assert kubeconfig.stat().st_mode & 0o777 == 0o600
    async with KubeApi(kubeconfig) as account:
        me = await account.call(
            "POST", REVIEWS, body={"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}
        )
        assert me["status"]["userInfo"]["username"] == "system:serviceaccount:default:default"
    kubeconfig.write_text(kubeconfig.read_text().replace('"token": "', '"token": "x'))
    async with KubeApi(kubeconfig) as nobody:
        with pytest.raises(ApiError, match="401"):
            await nobody.call("GET", MAPS)


async def test_kubectl_works_through_it(control_plane: ControlPlane, proxy: FaultProxy, client: KubeApi) -> None:
    if control_plane.kubectl is None:
        pytest.skip("no kubectl on the PATH, and none built: run `make control-plane`")
    made = await make(client)
    arguments = (f"--kubeconfig={proxy.kubeconfig}", "get", "configmaps", "--output=name")
    assert f"configmap/{name_of(made)}\n" in await asyncio.to_thread(control_plane.run_kubectl, *arguments)


async def test_answer_instead_of_the_call_and_after_it(proxy: FaultProxy, client: KubeApi, direct: KubeApi) -> None:
    one, other = await make(direct), await make(direct)
    proxy.add_fault(Answer(verb="patch", name=name_of(one), status=409, reason="Conflict"))
    proxy.add_fault(Answer(verb="patch", name=name_of(one), status=504, reason="Timeout", after_effect=True))
    with pytest.raises(ApiError, match="409 Conflict"):
        await patch(client, one, "2")
    assert await value(direct, one) == "1"
    await patch(client, other, "2")
    with pytest.raises(ApiError, match="504 Timeout"):
        await patch(client, one, "3")
    assert await value(direct, one) == "3"
    await patch(client, one, "4")
    assert [(call.status, call.spoiled) for call in proxy.calls] == [
        (409, True),
        (200, False),
        (504, True),
        (200, False),
    ]


async def test_connection_is_reset_before_or_after_the_effect(
    proxy: FaultProxy, client: KubeApi, direct: KubeApi
) -> None:
    made = await make(direct)
    proxy.add_fault(Disconnect(verb="patch"))
    with pytest.raises(BROKEN):
        await patch(client, made, "2")
    assert await value(direct, made) == "1"
    proxy.add_fault(Disconnect(verb="patch", after_effect=True))
    with pytest.raises(BROKEN):
        await patch(client, made, "3")
    assert await value(direct, made) == "3"
    assert [(call.status, call.spoiled) for call in proxy.calls] == [(None, True)] * 2


@pytest.mark.parametrize("after_effect", [True, False])
async def test_answer_is_late(proxy: FaultProxy, client: KubeApi, direct: KubeApi, after_effect: bool) -> None:
    made = await make(direct)
    delay = proxy.add_fault(Delay(verb="patch", seconds=1.0, after_effect=after_effect))
    started = time.monotonic()
    patching = asyncio.create_task(patch(client, made, "2"))
    await until(lambda: delay.hits == 1)
    assert await value(direct, made) == ("2" if after_effect else "1")
    await patching
    assert time.monotonic() - started >= 1.0


async def test_throttled_caller_is_told_how_long_to_wait(proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBECONFIG", str(proxy.kubeconfig))
    proxy.add_fault(Answer(verb="list", status=429, reason="TooManyRequests", retry_after=7))
    async with KubeGateway() as gateway:
        with pytest.raises(Unavailable) as refused:
            await gateway.list_nodes()
        assert (refused.value.status, refused.value.retry_after) == (429, 7.0)
        await gateway.list_nodes()


async def test_events_are_dropped_by_name_and_type(proxy: FaultProxy, client: KubeApi, direct: KubeApi) -> None:
    watching, first = await begin_watch(client, proxy)
    second = await make(direct)
    dropped = proxy.add_fault(DropEvents(resource="configmaps", name=name_of(first), times=None))
    proxy.add_fault(DropEvents(name=name_of(second), event="DELETED"))
    await patch(direct, first, "3")
    await patch(direct, second, "2")
    await direct.call("DELETE", f"{MAPS}/{name_of(second)}")
    last = await make(direct)
    await watching.until(("ADDED", name_of(last), "1"))
    proxy.clear()
    await patch(direct, first, "4")
    await watching.until(("MODIFIED", name_of(first), "4"))
    assert watching.events == [
        ("MODIFIED", name_of(first), "2"),
        ("ADDED", name_of(second), "1"),
        ("MODIFIED", name_of(second), "2"),
        ("ADDED", name_of(last), "1"),
        ("MODIFIED", name_of(first), "4"),
    ]
    assert dropped.hits == 1
    watching.task.cancel()


async def test_events_are_late_and_in_their_order(proxy: FaultProxy, client: KubeApi, direct: KubeApi) -> None:
    watching, first = await begin_watch(client, proxy)
    late = proxy.add_fault(DelayEvents(name=name_of(first), seconds=1.0, times=2))
    started = time.monotonic()
    await patch(direct, first, "3")
    await patch(direct, first, "4")
    other = await make(direct)
    await until(lambda: late.hits == 2)
    assert len(watching.events) == 1
    await watching.until(("ADDED", name_of(other), "1"))
    # Each is late by itself, not one after the other.
    assert 1.0 <= time.monotonic() - started < 2.0
    assert [value for _, _, value in watching.events] == ["2", "3", "4", "1"]
    assert late.handed_on == 2
    watching.task.cancel()


async def test_stalled_watch_is_open_and_silent_until_cleared(
    proxy: FaultProxy, client: KubeApi, direct: KubeApi
) -> None:
    watching, first = await begin_watch(client, proxy)
    stalled = proxy.add_fault(StallWatch())
    await until(lambda: stalled.hits == 1)
    await patch(direct, first, "3")
    other = Watching(client, first)
    await other.until(("MODIFIED", name_of(first), "3"))
    assert not watching.task.done()
    assert len(watching.events) == 1
    proxy.clear(stalled)
    await watching.until(("MODIFIED", name_of(first), "3"))
    for each in (watching, other):
        each.task.cancel()


async def test_open_watch_is_cut_or_fails(proxy: FaultProxy, client: KubeApi) -> None:
    watching, first = await begin_watch(client, proxy)
    proxy.add_fault(CutWatch(resource="configmaps"))
    assert isinstance(await watching.ended(), BROKEN)
    watching = Watching(client, first)
    await until(lambda: proxy.calls.count("watch") == 2)
    proxy.add_fault(FailWatch(resource="configmaps"))
    error = await watching.ended()
    assert isinstance(error, ApiError)
    assert (error.status, error.reason) == (410, "Expired")


@pytest.mark.real_only("it counts by the metrics of the API server")
async def test_watch_ends_at_the_api_server_with_its_client(
    proxy: FaultProxy, client: KubeApi, direct: KubeApi, control_plane: ControlPlane
) -> None:
    admin = control_plane.client()

    async def watches() -> int:
        text = await asyncio.to_thread(admin.request, "GET", "/metrics")
        lines = [line for line in text.splitlines() if line.startswith("apiserver_longrunning_requests{")]
        return sum(
            int(line.rpartition(" ")[2])
            for line in lines
            if 'resource="configmaps"' in line and 'scope="namespace"' in line
        )

    before = await watches()
    watching, _ = await begin_watch(client, proxy)
    assert await watches() == before + 1
    watching.task.cancel()

    async def over() -> bool:
        return await watches() == before

    await eventually(over)


async def test_api_server_that_is_away_breaks_the_connection(control_plane: ControlPlane) -> None:
    async with FaultProxy(Away(control_plane.kubeconfig)) as proxy, KubeApi(proxy.kubeconfig) as client:
        with pytest.raises(BROKEN):
            await client.call("GET", MAPS)
        assert {(call.verb, call.status, call.spoiled) for call in proxy.calls} == {("list", None, False)}
