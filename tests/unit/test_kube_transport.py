"""The gateway against a scripted server: what each answer becomes, and what is sent."""

import asyncio
import json
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from provisioner.kube.errors import Conflict, Forbidden, Gone, KubeError, Rejected, Unavailable, Unserved
from provisioner.kube.gateway import KubeGateway
from tests.unit.kube_support import write_kubeconfig

CLAIMS = "/apis/karpenter.sh/v1/nodeclaims"
RESET = object()
HOLD = object()


class Server:
    """Answers from a script; `RESET` breaks the connection, `HOLD` never answers. Notes what was asked."""

    def __init__(self) -> None:
        self.down = False
        self.end = asyncio.Event()
        self.script: deque[Any] = deque()
        self.seen: list[web.Request] = []
        self.bodies: list[Any] = []

    def then(self, answer: object, *, status: int = 200, **headers: str) -> None:
        self.script.append((answer, status, {name.replace("_", "-"): value for name, value in headers.items()}))

    def refuse(self, status: int, message: str = "no", reason: str = "", **headers: str) -> None:
        self.then({"kind": "Status", "message": message, "reason": reason}, status=status, **headers)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.seen.append(request)
        text = await request.text()
        self.bodies.append(json.loads(text) if text else None)
        answer, status, headers = (RESET, 0, {}) if self.down else self.script.popleft()
        if answer is HOLD:
            await self.end.wait()
        if answer is RESET or answer is HOLD:
            assert request.transport is not None
            request.transport.abort()
            return web.Response()
        if isinstance(answer, str):
            return web.Response(text=answer, status=status, headers=headers)
        return web.json_response(answer, status=status, headers=headers)


@pytest.fixture
async def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Server]:
    server = Server()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", server.handle)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    write_kubeconfig(tmp_path / "kubeconfig", f"http://127.0.0.1:{runner.addresses[0][1]}", token="first")
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "kubeconfig"))
    yield server
    server.end.set()
    assert not server.script, "more answers than questions"
    await runner.cleanup()


@pytest.fixture
async def gateway(server: Server) -> AsyncIterator[KubeGateway]:
    async with KubeGateway(request_timeout=5) as gateway:
        yield gateway


@pytest.mark.parametrize(
    ("status", "reason", "error"),
    [
        (400, "BadRequest", Rejected),
        (403, "Forbidden", Forbidden),
        (404, "NotFound", Gone),
        (409, "Conflict", Conflict),
        (413, "RequestEntityTooLarge", Rejected),
        (422, "Invalid", Rejected),
        (429, "TooManyRequests", Unavailable),
        (500, "InternalError", Unavailable),
        (503, "ServiceUnavailable", Unavailable),
    ],
)
async def test_each_refusal_has_its_exception(
    server: Server, gateway: KubeGateway, status: int, reason: str, error: type[KubeError]
) -> None:
    server.refuse(status, "because of this", reason)
    with pytest.raises(error, match="because of this") as caught:
        await gateway.patch_claim("w1", {}, resource_version="1")
    assert (caught.value.status, caught.value.reason) == (status, reason)
    assert len(server.seen) == 1, "no write is ever repeated"


@pytest.mark.parametrize(
    ("header", "seconds"), [("7", 7.0), (None, None), ("Wed, 21 Oct 2026 07:28:00 GMT", None), ("-1", None)]
)
async def test_retry_after_is_passed_on(
    server: Server, gateway: KubeGateway, header: str | None, seconds: float | None
) -> None:
    server.refuse(429, **({"Retry_After": header} if header else {}))
    with pytest.raises(Unavailable) as caught:
        await gateway.list_nodes()
    assert caught.value.retry_after == seconds


async def test_foreign_error_page_is_cut(server: Server, gateway: KubeGateway) -> None:
    server.then("<html>" + "x" * 10_000, status=502)
    with pytest.raises(Unavailable, match="<html>xxx") as caught:
        await gateway.list_nodes()
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize("answer", ["<html>", "[]"])
async def test_answer_that_is_no_object_is_no_answer(server: Server, gateway: KubeGateway, answer: str) -> None:
    server.then(answer)
    with pytest.raises(Unavailable, match="the answer is"):
        await gateway.get_claim("w1")


async def test_broken_connection_repeats_a_read(server: Server, gateway: KubeGateway) -> None:
    server.then(RESET)
    server.then({"items": [{"metadata": {"name": "n1"}}], "metadata": {"resourceVersion": "5"}})
    assert await gateway.list_nodes() == ([{"metadata": {"name": "n1"}}], "5")


async def test_broken_connection_does_not_repeat_a_read_for_ever(server: Server, gateway: KubeGateway) -> None:
    server.down = True
    with pytest.raises(Unavailable) as caught:
        await gateway.get_node("n1")
    assert caught.value.lost
    assert 3 <= len(server.seen) <= 6


async def test_broken_connection_does_not_repeat_a_write(server: Server, gateway: KubeGateway) -> None:
    server.then(RESET)
    with pytest.raises(Unavailable):
        await gateway.patch_claim("w1", {}, resource_version="1")
    assert len(server.seen) == 1


async def test_unreachable_server_is_unavailable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_kubeconfig(tmp_path / "kubeconfig", "http://127.0.0.1:1", token="t")
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "kubeconfig"))
    async with KubeGateway() as gateway:
        with pytest.raises(Unavailable, match="GET /api/v1/nodes"):
            await gateway.list_nodes()


async def test_refused_token_is_read_anew_once(server: Server, gateway: KubeGateway, tmp_path: Path) -> None:
    server.refuse(401, "Unauthorized")
    server.then({"metadata": {"name": "w1"}})
    kubeconfig = tmp_path / "kubeconfig"
    kubeconfig.write_text(kubeconfig.read_text().replace("first", "second"))
    await gateway.patch_claim("w1", {"metadata": {"labels": {"a": "b"}}}, resource_version="1")
    assert [request.headers["Authorization"] for request in server.seen] == ["Bearer first", "Bearer second"]
    server.refuse(401, "Unauthorized")
    server.refuse(401, "Unauthorized")
    with pytest.raises(Unavailable, match="Unauthorized"):
        await gateway.get_claim("w1")


async def test_patch_carries_the_version_it_was_decided_on(server: Server, gateway: KubeGateway) -> None:
    patch = {"metadata": {"finalizers": None}, "spec": {"taints": []}}
    server.then({"metadata": {"name": "n1"}})
    assert await gateway.patch_node("n1", patch, resource_version="77") == {"metadata": {"name": "n1"}}
    [request] = server.seen
    assert (request.method, request.path) == ("PATCH", "/api/v1/nodes/n1")
    assert request.headers["Content-Type"] == "application/merge-patch+json"
    assert server.bodies == [{"metadata": {"finalizers": None, "resourceVersion": "77"}, "spec": {"taints": []}}]
    assert patch == {"metadata": {"finalizers": None}, "spec": {"taints": []}}, "the caller's is left alone"


async def test_status_is_patched_where_it_lives(server: Server, gateway: KubeGateway) -> None:
    for _ in range(2):
        server.then({})
    await gateway.patch_claim_status("w1", {"status": {"nodeName": "n"}}, resource_version="1")
    await gateway.patch_node_class_status("default", {"status": {}}, resource_version="2")
    assert [request.path for request in server.seen] == [
        f"{CLAIMS}/w1/status",
        "/apis/kaito.sh/v1alpha1/kaitonodeclasses/default/status",
    ]


async def test_long_list_is_read_in_pages(server: Server, gateway: KubeGateway) -> None:
    server.then({"items": [{"n": 1}], "metadata": {"resourceVersion": "9", "continue": "a&b="}})
    server.then({"items": [{"n": 2}], "metadata": {"resourceVersion": "9"}})
    assert await gateway.list_claims() == ([{"n": 1}, {"n": 2}], "9")
    assert [dict(request.query) for request in server.seen] == [
        {"limit": "250"},
        {"limit": "250", "continue": "a&b="},
    ]


async def test_listed_nodes_come_without_what_nobody_reads(server: Server, gateway: KubeGateway) -> None:
    metadata, capacity = {"name": "n1", "labels": {"a": "b"}}, {"nvidia.com/gpu": "1"}
    bulky = {
        "metadata": {**metadata, "managedFields": [{"manager": "kubelet"}]},
        "status": {"capacity": capacity, "images": [{"names": ["a"]}], "nodeInfo": {"kernelVersion": "6.8"}},
    }
    server.then({"items": [bulky, {"status": None}], "metadata": {"resourceVersion": "9"}})
    nodes, _ = await gateway.list_nodes()
    assert nodes == [{"metadata": metadata, "status": {"capacity": capacity}}, {"status": None}]


async def test_list_that_expires_between_pages_is_read_at_once(server: Server, gateway: KubeGateway) -> None:
    server.then({"items": [{"n": 1}], "metadata": {"resourceVersion": "9", "continue": "t"}})
    server.refuse(410, "too old", "Expired")
    server.then({"items": [{"n": 1}, {"n": 2}], "metadata": {"resourceVersion": "12"}})
    assert await gateway.list_claims() == ([{"n": 1}, {"n": 2}], "12")
    assert not server.seen[-1].query


async def test_kind_that_is_not_served_is_no_empty_list_of_claims(server: Server, gateway: KubeGateway) -> None:
    server.then("404 page not found", status=404)
    with pytest.raises(Gone):
        await gateway.list_claims()
    server.then("404 page not found", status=404)
    assert await gateway.list_node_classes() == []


@pytest.mark.parametrize("said", ["text", "status"])
async def test_kind_that_is_not_served_is_no_missing_object(server: Server, gateway: KubeGateway, said: str) -> None:
    asks: list[Callable[[], Awaitable[object]]] = [
        lambda: gateway.get_claim("w1"),
        lambda: gateway.delete_claim("w1", uid="u"),
        lambda: gateway.patch_claim("w1", {}, resource_version="1"),
    ]
    for ask in asks:
        if said == "text":
            server.then("404 page not found", status=404)
        else:
            server.refuse(404, "the server could not find the requested resource", "NotFound")
        with pytest.raises(Unserved):
            await ask()


async def test_missing_object_is_none(server: Server, gateway: KubeGateway) -> None:
    for _ in range(3):
        server.refuse(404)
    assert await gateway.get_claim("w1") is None
    assert await gateway.get_node("n1") is None
    assert await gateway.get_event("default", "e") is None


async def test_deletion_is_of_that_very_object(server: Server, gateway: KubeGateway) -> None:
    server.then({"kind": "Status"})
    await gateway.delete_claim("w1", uid="u1")
    [request] = server.seen
    assert (request.method, request.path) == ("DELETE", f"{CLAIMS}/w1")
    assert server.bodies == [{"apiVersion": "v1", "kind": "DeleteOptions", "preconditions": {"uid": "u1"}}]


async def test_deletion_of_what_is_gone_or_made_anew_is_done(server: Server, gateway: KubeGateway) -> None:
    server.refuse(404)
    await gateway.delete_node("n1", uid="u1")
    server.refuse(409, "Precondition failed: UID", "Conflict")
    server.then({"metadata": {"name": "n1", "uid": "u2"}})
    await gateway.delete_node("n1", uid="u1")
    server.refuse(409, "Precondition failed: UID", "Conflict")
    server.refuse(404)
    await gateway.delete_node("n1", uid="u1")


async def test_deletion_refused_for_another_reason_is_a_conflict(server: Server, gateway: KubeGateway) -> None:
    server.refuse(409, "being changed", "Conflict")
    server.then({"metadata": {"name": "n1", "uid": "u1"}})
    with pytest.raises(Conflict):
        await gateway.delete_node("n1", uid="u1")


async def test_pods_are_listed_by_their_node(server: Server, gateway: KubeGateway) -> None:
    server.then({"items": [{"n": 1}], "metadata": {"continue": "t"}})
    server.then({"items": [{"n": 2}], "metadata": {}})
    assert await gateway.list_pods(node="aks-w1-0") == [{"n": 1}, {"n": 2}]
    assert {request.path for request in server.seen} == {"/api/v1/pods"}
    assert [dict(request.query) for request in server.seen] == [
        {"fieldSelector": "spec.nodeName=aks-w1-0", "limit": "250"},
        {"fieldSelector": "spec.nodeName=aks-w1-0", "limit": "250", "continue": "t"},
    ]


async def test_eviction_is_of_that_very_pod(server: Server, gateway: KubeGateway) -> None:
    server.then({"kind": "Status", "status": "Success"}, status=201)
    await gateway.evict_pod("team a", "p1", uid="u1")
    [request] = server.seen
    assert (request.method, request.path) == ("POST", "/api/v1/namespaces/team a/pods/p1/eviction")
    assert server.bodies == [
        {
            "apiVersion": "policy/v1",
            "kind": "Eviction",
            "metadata": {"name": "p1", "namespace": "team a"},
            "deleteOptions": {"preconditions": {"uid": "u1"}},
        }
    ]


async def test_deletion_of_a_pod_has_its_grace_and_is_of_that_very_pod(server: Server, gateway: KubeGateway) -> None:
    server.then({"metadata": {"name": "p1"}})
    await gateway.delete_pod("default", "p1", uid="u1", grace_seconds=7)
    [request] = server.seen
    assert (request.method, request.path) == ("DELETE", "/api/v1/namespaces/default/pods/p1")
    [body] = server.bodies
    assert (body["gracePeriodSeconds"], body["preconditions"]) == (7, {"uid": "u1"})


@pytest.mark.parametrize(("status", "error"), [(404, Gone), (409, Conflict)])
async def test_pod_that_is_gone_or_made_anew_is_told_from_one_that_leaves(
    server: Server, gateway: KubeGateway, status: int, error: type[KubeError]
) -> None:
    server.refuse(status)
    with pytest.raises(error):
        await gateway.evict_pod("default", "p1", uid="u1")
    server.refuse(status)
    with pytest.raises(error):
        await gateway.delete_pod("default", "p1", uid="u1", grace_seconds=1)


async def test_refused_eviction_names_the_budget_that_forbids_it(server: Server, gateway: KubeGateway) -> None:
    message, cause = "Cannot evict pod.", "The disruption budget web needs 1 healthy pods and has 1 currently"
    details = {"causes": [{"reason": "DisruptionBudget", "message": cause}]}
    server.then({"kind": "Status", "message": message, "details": details}, status=429)
    with pytest.raises(Unavailable) as caught:
        await gateway.evict_pod("default", "p1", uid="u1")
    assert caught.value.told == f"{message} {cause}."
    assert str(caught.value) == f"POST /api/v1/namespaces/default/pods/p1/eviction: 429: {message} {cause}."


@pytest.mark.parametrize(
    "details",
    [
        {"causes": [{"message": "spec is immutable"}, {"message": ""}, {}]},
        {"causes": ["spec", 1, None]},
        {"causes": {"message": "x"}},
        {},
        "x",
        None,
    ],
)
async def test_causes_that_say_nothing_new_are_left_out(server: Server, gateway: KubeGateway, details: object) -> None:
    message = "w1 is invalid: spec is immutable"
    server.then({"kind": "Status", "message": message, "details": details}, status=422)
    with pytest.raises(Rejected) as caught:
        await gateway.patch_claim("w1", {}, resource_version="1")
    assert caught.value.told == message


async def test_without_an_answer_the_error_itself_is_what_is_told(server: Server, gateway: KubeGateway) -> None:
    server.then(RESET)
    with pytest.raises(Unavailable) as caught:
        await gateway.evict_pod("default", "p1", uid="u1")
    assert caught.value.told == str(caught.value)


async def test_volumes_are_read_where_they_live(server: Server, gateway: KubeGateway) -> None:
    server.then({"items": [{"n": 1}], "metadata": {}})
    assert await gateway.list_volume_attachments() == [{"n": 1}]
    server.then({"spec": {"volumeName": "pv-1"}})
    assert await gateway.get_volume_claim("team/a", "data") == {"spec": {"volumeName": "pv-1"}}
    server.refuse(404)
    assert await gateway.get_volume_claim("default", "data") is None
    assert [request.raw_path.partition("?")[0] for request in server.seen] == [
        "/apis/storage.k8s.io/v1/volumeattachments",
        "/api/v1/namespaces/team%2Fa/persistentvolumeclaims/data",
        "/api/v1/namespaces/default/persistentvolumeclaims/data",
    ]


async def test_storage_api_that_is_not_served_is_no_empty_list(server: Server, gateway: KubeGateway) -> None:
    server.then("404 page not found", status=404)
    with pytest.raises(Gone):
        await gateway.list_volume_attachments()


async def test_names_cannot_leave_their_path(server: Server, gateway: KubeGateway) -> None:
    server.refuse(404)
    assert await gateway.get_claim("../nodes/n1?x=1") is None
    assert server.seen[0].path == f"{CLAIMS}/../nodes/n1?x=1"
    assert "%2F" in server.seen[0].raw_path


async def test_answer_that_does_not_come_is_waited_for_so_long_only(server: Server) -> None:
    server.then(HOLD)
    async with KubeGateway(request_timeout=0.05) as gateway:
        with pytest.raises(Unavailable, match=r"no answer within 0\.05 s") as caught:
            await gateway.patch_claim("w1", {}, resource_version="1")
    assert not caught.value.lost
