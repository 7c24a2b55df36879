"""The controller's two ways out, for tests: whatever is asked comes down to one answer, which a test gives."""

from collections.abc import Collection, Mapping
from types import TracebackType
from typing import Any, Self

from provisioner.azure.session import ArmResponse, AzureTarget


class Kubernetes:
    """An API server that `answer` is."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None

    def answer(
        self, method: str, path: str, query: Mapping[str, str | int], body: Mapping[str, Any] | None
    ) -> dict[str, Any]:
        """Return the answer to a request."""
        raise AssertionError(f"{method} {path} is not to be expected")

    async def read(self, path: str, *, query: Mapping[str, str | int] | None = None) -> dict[str, Any]:
        return self.answer("GET", path, query or {}, None)

    async def call(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str | int] | None = None,
        body: Mapping[str, Any] | None = None,
        content_type: str = "application/json",
    ) -> dict[str, Any]:
        return self.answer(method, path, query or {}, body)


class Azure:
    """A subscription that `answer` and `listed` are."""

    target = AzureTarget(subscription_id="s", resource_group="r", cluster_name="c")

    def answer(self, operation: str) -> ArmResponse:
        """Return the answer to a request that is no list."""
        raise AssertionError(f"{operation} is not to be expected")

    def listed(self) -> tuple[Mapping[str, Any], ...]:
        """Return what a list has."""
        return ()

    async def call(
        self,
        method: str,
        path: str,
        *,
        operation: str,
        timeout: float,
        accept: Collection[int],
        query: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        body: Mapping[str, Any] | None = None,
    ) -> ArmResponse:
        return self.answer(operation)

    async def list(
        self, path: str, *, operation: str, timeout: float, query: Mapping[str, str]
    ) -> tuple[Mapping[str, Any], ...]:
        return self.listed()
