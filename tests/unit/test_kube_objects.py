"""Objects of any kind: what an answer to an apply becomes."""

from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self

import pytest

from provisioner.kube.errors import KubeError, Rejected, Unavailable
from provisioner.kube.objects import Kind, Objects

STATEFUL_SET = Kind(api_version="apps/v1", kind="StatefulSet", plural="statefulsets")
BODY = {"metadata": {"name": "phi", "namespace": "default"}}
MALFORMED = (
    "failed to create typed patch object (default/phi; apps/v1, Kind=StatefulSet): .spec.replicas: expected numeric"
)


class Failing:
    """A connection on which every call fails."""

    def __init__(self, error: KubeError) -> None:
        self._error = error

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    async def read(self, path: str, *, query: Mapping[str, str | int] | None = None) -> dict[str, Any]:
        raise self._error

    async def call(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str | int] | None = None,
        body: Mapping[str, Any] | None = None,
        content_type: str = "application/json",
    ) -> dict[str, Any]:
        raise self._error


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
    objects = Objects(Failing(Unavailable(f"PATCH: {status}: {told}", status=status, told=told)))
    with pytest.raises(becomes) as raised:
        await objects.apply(STATEFUL_SET, BODY, manager="me")
    assert raised.value.told == told
