"""Controllers with a flaw each, to see that somebody notices: what nothing can break proves nothing."""

from collections.abc import Collection, Mapping
from types import TracebackType
from typing import Any, Final, Self

from provisioner.apis import names
from provisioner.apis.conditions import INSTANCE_TERMINATING
from provisioner.azure.caller import Caller
from provisioner.azure.session import ArmResponse, AzureTarget
from provisioner.kube.transport import MERGE_PATCH, Requests
from tests.chaos.objects import Raw
from tests.chaos.program import Flaw

_CLAIM_STATUS: Final = f"/apis/{names.NODECLAIM_API_VERSION}/{names.NODECLAIM_PLURAL}/"


class Kube:
    """A way to the API server that leaves everything as it is."""

    def __init__(self, connection: Requests) -> None:
        self.inner = connection

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return

    async def read(self, path: str, *, query: Mapping[str, str | int] | None = None) -> Raw:
        return await self.inner.read(path, query=query)

    async def call(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str | int] | None = None,
        body: Mapping[str, Any] | None = None,
        content_type: str = "application/json",
    ) -> Raw:
        return await self.inner.call(method, path, query=query, body=body, content_type=content_type)

    async def patch(self, path: str, patch: Mapping[str, Any]) -> Raw:
        return await self.inner.call("PATCH", path, body=patch, content_type=MERGE_PATCH)


class _Impatient(Kube):
    """Lets a claim go with the first status that it gets while it is being deleted."""

    async def call(self, method: str, path: str, **rest: Any) -> Raw:
        answer = await super().call(method, path, **rest)
        if _is_claim_status(path) and answer["metadata"].get("deletionTimestamp"):
            await self.patch(path.removesuffix("/status"), {"metadata": {"finalizers": None}})
        return answer


class _Optimist(Kube):
    """Calls a claim Ready while its VM is taken down."""

    async def call(self, method: str, path: str, **rest: Any) -> Raw:
        body = rest.get("body") or {}
        conditions = body.get("status", {}).get("conditions", ()) if _is_claim_status(path) else ()
        if any(each["type"] == INSTANCE_TERMINATING for each in conditions):
            changed = [{**each, "status": "True"} for each in conditions]
            rest["body"] = {**body, "status": {**body["status"], "conditions": changed}}
        return await super().call(method, path, **rest)


class _Fickle(Kube):
    """Writes another providerID with each status that has none."""

    async def call(self, method: str, path: str, **rest: Any) -> Raw:
        body = rest.get("body") or {}
        if _is_claim_status(path) and "providerID" not in body["status"]:
            version = body["metadata"]["resourceVersion"]
            rest["body"] = {**body, "status": {**body["status"], "providerID": f"azure://{version}"}}
        return await super().call(method, path, **rest)


class _Raising(Kube):
    """Cannot patch Nodes."""

    async def call(self, method: str, path: str, **rest: Any) -> Raw:
        if method == "PATCH" and path.startswith("/api/v1/nodes/"):
            raise ValueError("not that")
        return await super().call(method, path, **rest)


class _Azure:
    """A way to ARM that leaves everything as it is."""

    def __init__(self, session: Caller) -> None:
        self.inner = session

    @property
    def target(self) -> AzureTarget:
        return self.inner.target

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
        return await self.inner.call(
            method,
            path,
            operation=operation,
            timeout=timeout,
            accept=accept,
            query=query,
            headers=headers,
            body=body,
        )

    async def list(
        self, path: str, *, operation: str, timeout: float, query: Mapping[str, str]
    ) -> tuple[Mapping[str, Any], ...]:
        return await self.inner.list(path, operation=operation, timeout=timeout, query=query)


class _Careless(_Azure):
    """Sends every PUT twice, as a client does that repeats what it had no answer to, and without If-None-Match."""

    async def call(self, method: str, path: str, **rest: Any) -> ArmResponse:
        if method != "PUT":
            return await super().call(method, path, **rest)
        await super().call(method, path, **{**rest, "headers": {}})
        return await super().call(method, path, **{**rest, "headers": {}})


class _Confused(_Azure):
    """Deletes another pool than it was told to."""

    async def call(self, method: str, path: str, **rest: Any) -> ArmResponse:
        if method == "DELETE":
            path = f"{path.rpartition('/')[0]}/nodepool1"
        return await super().call(method, path, **{**rest, "headers": {}})


class _Doubling(_Azure):
    """Asks for a second pool under another name."""

    async def call(self, method: str, path: str, **rest: Any) -> ArmResponse:
        if method == "PUT":
            await super().call(method, f"{path.rpartition('/')[0]}/second", **rest)
        return await super().call(method, path, **rest)


class _Chatty(_Azure):
    """Asks for every list thirty times."""

    async def list(self, path: str, **rest: Any) -> tuple[Mapping[str, Any], ...]:
        for _ in range(29):
            await super().list(path, **{**rest, "operation": "cluster"})
        return await super().list(path, **rest)


def _is_claim_status(path: str) -> bool:
    return path.startswith(_CLAIM_STATUS) and path.endswith("/status")


# What is wrong, and what is to be said of it.
FLAWS: Final[Mapping[str, tuple[Flaw, str]]] = {
    "lets claims go too early": (Flaw(kube=_Impatient), "is let go while its agent pool"),
    "calls claims ready": (Flaw(kube=_Optimist), "becomes Ready while it is being deleted"),
    "changes the providerID": (Flaw(kube=_Fickle), "the providerID"),
    "has a defect": (Flaw(kube=_Raising), "reports a defect"),
    "writes to pools that exist": (Flaw(arm=_Careless), "exists and is written to"),
    "deletes a user's pool": (Flaw(arm=_Confused), "is a user's and is deleted"),
    "asks for two pools": (Flaw(arm=_Doubling), "beside it"),
    "asks too often": (Flaw(arm=_Chatty), "does not come to rest"),
    "collects no garbage": (Flaw(collects=False), "after a quiet time"),
}
