"""Objects of any kind: where they are asked for, and what becomes of answers that are none."""

from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self

import pytest

from provisioner.kube.errors import Conflict, Gone, KubeError, Rejected, Unavailable
from provisioner.kube.objects import Kind, Objects

SETS = Kind(api_version="apps/v1", kind="StatefulSet", plural="statefulsets")
SECRETS = Kind(api_version="v1", kind="Secret", plural="secrets")
MALFORMED = "failed to create typed patch object (ml/chat; apps/v1, Kind=StatefulSet): .spec.replicas: expected numeric"
NODES = Kind(api_version="v1", kind="Node", plural="nodes", is_namespaced=False)


class Answers:
    """An API server that has its answers ready, and notes what it was asked."""

    def __init__(self, *answers: dict[str, Any] | Exception) -> None:
        self._answers = list(answers)
        self.asked: list[tuple[str, str, dict[str, Any]]] = []

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None

    async def read(self, path: str, *, query: Mapping[str, str | int] | None = None) -> dict[str, Any]:
        return self._answer("GET", path, dict(query or {}))

    async def call(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str | int] | None = None,
        body: Mapping[str, Any] | None = None,
        content_type: str = "application/json",
    ) -> dict[str, Any]:
        return self._answer(method, path, {"query": dict(query or {}), "body": body, "type": content_type})

    def _answer(self, method: str, path: str, more: dict[str, Any]) -> dict[str, Any]:
        self.asked.append((method, path, more))
        answer = self._answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


@pytest.mark.parametrize(
    ("kind", "namespace", "name", "path"),
    [
        (SETS, "ml", "chat", "/apis/apps/v1/namespaces/ml/statefulsets/chat"),
        (SECRETS, "ml", "a/../../b", "/api/v1/namespaces/ml/secrets/a%2F..%2F..%2Fb"),
        (SECRETS, "ml", "a?watch=1#", "/api/v1/namespaces/ml/secrets/a%3Fwatch%3D1%23"),
        (NODES, "", "n1", "/api/v1/nodes/n1"),
    ],
)
async def test_path_of_an_object(kind: Kind, namespace: str, name: str, path: str) -> None:
    api = Answers({"kind": kind.kind})

    assert await Objects(api).get(kind, namespace, name) == {"kind": kind.kind}
    assert api.asked[0][:2] == ("GET", path)


@pytest.mark.parametrize("name", ["", ".", ".."])
async def test_nothing_has_the_name_of_a_folder(name: str) -> None:
    api = Answers()

    assert await Objects(api).get(SECRETS, "ml", name) is None
    assert api.asked == []


async def test_what_is_not_there_is_none_and_a_kind_that_is_not_served_is_no_empty_list() -> None:
    assert await Objects(Answers(Gone("404"))).get(SETS, "ml", "chat") is None
    with pytest.raises(Gone):
        await Objects(Answers(Gone("404"))).list(SETS)


async def test_list_goes_on_page_by_page() -> None:
    api = Answers(
        {"items": [{"a": 1}], "metadata": {"continue": "next", "resourceVersion": "7"}},
        {"items": None, "metadata": {"resourceVersion": "7"}},
    )

    assert await Objects(api).list(SETS, labels="kaito.sh/workspace") == ([{"a": 1}], "7")
    assert [more.get("continue") for _, _, more in api.asked] == [None, "next"]
    assert {more["labelSelector"] for _, _, more in api.asked} == {"kaito.sh/workspace"}


async def test_list_that_compaction_has_outrun_is_read_anew_at_once() -> None:
    api = Answers(
        {"items": [{"a": 1}], "metadata": {"continue": "next"}},
        Rejected("expired", status=410),
        {"items": [{"a": 1}, {"a": 2}], "metadata": {"resourceVersion": "9"}},
    )

    assert await Objects(api).list(SETS, labels="x") == ([{"a": 1}, {"a": 2}], "9")
    assert api.asked[-1][2] == {"labelSelector": "x"}


async def test_patch_is_valid_for_one_version() -> None:
    api = Answers({})
    await Objects(api).patch(SETS, "ml", "chat", {"spec": {"a": 1}}, resource_version="5", status=True)

    method, path, more = api.asked[0]
    assert (method, path) == ("PATCH", "/apis/apps/v1/namespaces/ml/statefulsets/chat/status")
    assert more["body"] == {"spec": {"a": 1}, "metadata": {"resourceVersion": "5"}}


async def test_apply_takes_fields_over() -> None:
    api = Answers({})
    await Objects(api).apply(SETS, {"metadata": {"namespace": "ml", "name": "chat"}}, manager="me")

    assert api.asked[0][2]["query"] == {"fieldManager": "me", "force": "true"}
    assert api.asked[0][2]["type"] == "application/apply-patch+yaml"


@pytest.mark.parametrize(
    ("status", "told", "becomes"),
    [
        (500, MALFORMED, Rejected),
        (500, "etcdserver: request timed out", Unavailable),
        (503, MALFORMED, Unavailable),
    ],
)
async def test_body_that_has_not_the_form_of_its_kind_is_rejected_for_good(
    status: int, told: str, becomes: type[KubeError]
) -> None:
    api = Answers(Unavailable(f"PATCH: {status}: {told}", status=status, told=told))
    with pytest.raises(becomes) as raised:
        await Objects(api).apply(SETS, {"metadata": {"namespace": "ml", "name": "chat"}}, manager="me")
    assert raised.value.told == told


@pytest.mark.parametrize(
    "current", [Gone("404"), {"metadata": {"uid": "another"}}], ids=["gone meanwhile", "made anew"]
)
async def test_object_that_went_needs_no_deletion(current: dict[str, Any] | Exception) -> None:
    api = Answers(Conflict("uid"), current)
    await Objects(api).delete(SETS, "ml", "chat", uid="mine")

    assert api.asked[0][2]["body"]["preconditions"] == {"uid": "mine"}


async def test_refused_deletion_of_the_very_object_is_told() -> None:
    with pytest.raises(Conflict):
        await Objects(Answers(Conflict("busy"), {"metadata": {"uid": "mine"}})).delete(SETS, "ml", "chat", uid="mine")
