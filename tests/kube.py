"""A Kubernetes client for tests: raw objects, and waiting for what they should become."""

import asyncio
import json
import ssl
import time
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import aiohttp
import yaml

from fakes.cluster.api import ApiError as PlainApiError
from fakes.cluster.interface import ControlPlane

T = TypeVar("T")
Object = dict[str, Any]

CLAIMS = "/apis/karpenter.sh/v1/nodeclaims"
NODE_CLASSES = "/apis/kaito.sh/v1alpha1/kaitonodeclasses"
NODES = "/api/v1/nodes"
WORKSPACES = "/apis/kaito.sh/v1beta1/namespaces/default/workspaces"
CRDS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
EVENTS = "/api/v1/namespaces/default/events"
MERGE_PATCH = "application/merge-patch+json"

_POLL = 0.05
PATIENCE = 40.0


async def eventually(
    look: Callable[[], Awaitable[T]], *, until: Callable[[T], bool] = bool, patience: float = PATIENCE, what: str = ""
) -> T:
    """Look again and again until what is seen satisfies; fail with what was seen last."""
    deadline = time.monotonic() + patience
    while True:
        seen = await look()
        if until(seen):
            return seen
        if time.monotonic() > deadline:
            text = json.dumps(_readable(seen), indent=1, default=str)[:8000]
            raise AssertionError(f"not within {patience:g} s: {what}; last seen: {text}")
        await asyncio.sleep(_POLL)


def _readable(seen: object) -> object:
    """Return what was seen without the bookkeeping of field owners, which is longer than all the rest."""
    if isinstance(seen, dict):
        return {key: _readable(value) for key, value in seen.items() if key != "managedFields"}
    return [_readable(item) for item in seen] if isinstance(seen, list) else seen


class ApiError(Exception):
    """An answer of 400 or above."""

    def __init__(self, status: int, body: Object) -> None:
        super().__init__(f"{status}: {body.get('message')}")
        self.status = status
        self.body = body


class Kube:
    """The cluster as its administrator sees it."""

    def __init__(self, cluster: ControlPlane) -> None:
        self._cluster = cluster
        self._session: aiohttp.ClientSession

    async def __aenter__(self) -> Self:
        self._session = self._cluster_session()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._session.close()

    def _cluster_session(self) -> aiohttp.ClientSession:
        config = yaml.safe_load(self._cluster.kubeconfig.read_text())
        token = config["users"][0]["user"]["token"]
        context = ssl.create_default_context(cafile=str(self._cluster.ca))
        return aiohttp.ClientSession(
            base_url=self._cluster.url,
            headers={"Authorization": f"Bearer {token}"},
            connector=aiohttp.TCPConnector(ssl=context),
        )

    async def request(
        self, method: str, path: str, *, body: object = None, content_type: str = "application/json"
    ) -> Object:
        """Return the answer. Raises ApiError."""
        data = None if body is None else json.dumps(body)
        headers = {"Content-Type": content_type} if data is not None else {}
        deadline = time.monotonic() + PATIENCE
        while True:
            async with self._session.request(method, path, data=data, headers=headers) as response:
                answer: Object = await response.json()
            if response.status < 400:
                return answer
            # Just after a start of the API server a kind is answered for with 429 until its cache is filled.
            if response.status != 429 or time.monotonic() > deadline:
                raise ApiError(response.status, answer)
            await asyncio.sleep(_POLL)

    async def create(self, path: str, body: Mapping[str, Any]) -> Object:
        """Create an object."""
        return await self.request("POST", path, body=body)

    async def get(self, path: str, name: str) -> Object | None:
        """Return the object, None where there is none."""
        try:
            return await self.request("GET", f"{path}/{name}")
        except ApiError as error:
            if error.status == 404:
                return None
            raise

    async def items(self, path: str) -> list[Object]:
        """Return all objects."""
        return list((await self.request("GET", path))["items"])

    async def patch(self, path: str, name: str, patch: object) -> Object:
        """Merge-patch an object; `name` may go on with a subresource."""
        return await self.request("PATCH", f"{path}/{name}", body=patch, content_type=MERGE_PATCH)

    async def delete(self, path: str, name: str) -> None:
        """Delete an object; one that is not there is fine."""
        try:
            await self.request("DELETE", f"{path}/{name}")
        except ApiError as error:
            if error.status != 404:
                raise

    async def claim(self, name: str) -> Object | None:
        """Return the claim, None where there is none."""
        return await self.get(CLAIMS, name)

    async def wait_claim(self, name: str, until: Callable[[Object], bool], *, patience: float = PATIENCE) -> Object:
        """Wait until the claim is there and satisfies; return it."""
        seen = await eventually(
            lambda: self.claim(name),
            until=lambda claim: claim is not None and until(claim),
            patience=patience,
            what=f"claim {name}",
        )
        assert seen is not None
        return seen

    async def wait_gone(self, path: str, name: str, *, patience: float = PATIENCE) -> None:
        """Wait until there is no such object."""
        await eventually(
            lambda: self.get(path, name),
            until=lambda seen: seen is None,
            patience=patience,
            what=f"{path}/{name} is gone",
        )

    async def nodes_of_pool(self, pool: str) -> list[Object]:
        """Return the Nodes of an agent pool."""
        return await self.items(f"{NODES}?labelSelector=kubernetes.azure.com/agentpool={pool}")

    async def events_of(self, name: str) -> list[Object]:
        """Return the Events about a cluster-scoped object."""
        return await self.items(f"{EVENTS}?fieldSelector=involvedObject.name={name}")

    async def clear(self) -> None:
        """Take away what a test has left: Workspaces and claims with their finalizers, Nodes, Events."""
        has_workspaces = await self.get(CRDS, "workspaces.kaito.sh") is not None
        for path in (*((WORKSPACES,) if has_workspaces else ()), CLAIMS, NODE_CLASSES, NODES, EVENTS):
            for item in await self.items(path):
                name = item["metadata"]["name"]
                if item["metadata"].get("finalizers"):
                    await self.patch(path, name, {"metadata": {"finalizers": None}})
                await self.delete(path, name)


async def clear(cluster: ControlPlane) -> None:
    """Take away what tests have left in a cluster that knows our kinds."""
    async with Kube(cluster) as kube:
        await kube.clear()


def uninstall(cluster: ControlPlane, *paths: Path) -> None:
    """Take away the custom resources that manifests define, with all objects of theirs, and wait until they are gone.

    Without kubectl, which the embedded control plane may have to do without.
    """
    client = cluster.client()
    for path in paths:
        where = f"{CRDS}/{yaml.safe_load(path.read_text())['metadata']['name']}"
        deadline = time.monotonic() + PATIENCE
        # Again and again: it is there until the last object has gone, and only then is there nothing to delete.
        while True:
            try:
                client.request("DELETE", where)
            except PlainApiError as error:
                if error.status == 404:
                    break
                raise
            assert time.monotonic() < deadline, f"{where} is still there"
            time.sleep(_POLL)


def condition(obj: Object, kind: str) -> Object:
    """Return the condition of that type, an empty one where it is not there."""
    conditions = (obj.get("status") or {}).get("conditions") or ()
    return next((c for c in conditions if c["type"] == kind), {})


def is_true(kind: str) -> Callable[[Object], bool]:
    """Return a predicate: the condition is True."""

    def check(obj: Object) -> bool:
        return condition(obj, kind).get("status") == "True"

    return check


def has_reason(kind: str, reason: str) -> Callable[[Object], bool]:
    """Return a predicate: the condition has that reason."""

    def check(obj: Object) -> bool:
        return condition(obj, kind).get("reason") == reason

    return check
