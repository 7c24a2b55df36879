"""What the lists and gateways of this package need of a connection to ARM; `AzureSession` is one."""

from collections.abc import Collection, Mapping
from typing import Any, Protocol

from provisioner.azure.session import ArmResponse, AzureTarget


class Caller(Protocol):
    """Makes requests to ARM. Each raises ArmFailure, and Postponed where it may not be sent now."""

    @property
    def target(self) -> AzureTarget:
        """Return the cluster that paths are about."""
        ...

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
        """Make one request within `timeout` seconds, and return a response whose status is in `accept`."""
        ...

    async def list(
        self, path: str, *, operation: str, timeout: float, query: Mapping[str, str]
    ) -> tuple[Mapping[str, Any], ...]:
        """Return the items of all pages of a collection, within `timeout` seconds."""
        ...
