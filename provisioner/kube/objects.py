"""Objects of any kind: read, made, applied, patched and deleted by the kind that they are of.

Bodies are raw dicts, as in gateway.py, which has the calls that only NodeClaims, Nodes and pods need.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote

from provisioner.kube.errors import Conflict, Gone, Rejected, Unavailable
from provisioner.kube.transport import APPLY_PATCH, MERGE_PATCH, Requests

Raw = dict[str, Any]
Patch = Mapping[str, Any]

# What a path must not end in: it would lead to the collection, or out of it. Nothing has such a name.
_NO_NAMES: Final = ("", ".", "..")
# Objects a page, as client-go's pager.
_PAGE: Final = 500
# apimachinery/pkg/util/managedfields/internal/structuredmerge.go
_MALFORMED: Final = "failed to create typed patch object"


@dataclass(frozen=True, kw_only=True)
class Kind:
    """A kind of objects as the API serves it: `apps/v1` and `statefulsets`, for instance."""

    api_version: str
    kind: str
    plural: str
    is_namespaced: bool = True

    def collection(self, namespace: str = "") -> str:
        """Return the path of all objects of the kind, or of those in a namespace."""
        root = f"/apis/{self.api_version}" if "/" in self.api_version else f"/api/{self.api_version}"
        if self.is_namespaced and namespace:
            return f"{root}/namespaces/{quote(namespace, safe='')}/{self.plural}"
        return f"{root}/{self.plural}"

    def path(self, namespace: str, name: str) -> str:
        """Return the path of one object; `namespace` is empty for kinds that have none."""
        return f"{self.collection(namespace)}/{quote(name, safe='')}"


class Objects:
    """Calls about objects of any kind, over a connection that somebody else opens and closes.

    Every method raises a `KubeError`: `Unavailable` and `Forbidden` any of them, the others as their docstrings say.
    """

    def __init__(self, transport: Requests) -> None:
        self._transport = transport

    async def get(self, kind: Kind, namespace: str, name: str) -> Raw | None:
        """Return the object, or None where there is none of that name, nor of that kind."""
        if name in _NO_NAMES:
            return None
        try:
            return await self._transport.read(kind.path(namespace, name))
        except Gone:
            return None

    async def list(self, kind: Kind, *, namespace: str = "", labels: str = "") -> tuple[list[Raw], str]:
        """Return the objects that a label selector chooses, and the resourceVersion of the list.

        Raises `Gone` where the kind is not served, which is never the same as an empty list.
        """
        items: list[Raw] = []
        query: dict[str, str | int] = {"limit": _PAGE, **({"labelSelector": labels} if labels else {})}
        while True:
            try:
                page = await self._transport.read(kind.collection(namespace), query=query)
            except Rejected as error:
                if error.status != 410 or "continue" not in query:
                    raise
                # Compaction has outrun us between two pages. All at once then, as client-go's pager does.
                items, query = [], {"labelSelector": labels} if labels else {}
                continue
            items += page.get("items") or ()
            metadata = page.get("metadata") or {}
            if not metadata.get("continue"):
                return items, str(metadata.get("resourceVersion") or "")
            query["continue"] = metadata["continue"]

    async def create(self, kind: Kind, body: Patch) -> Raw:
        """Create the object. Raises `Conflict` where one of that name exists, `Rejected`, `Gone`."""
        namespace = str(body["metadata"].get("namespace") or "")
        return await self._transport.call("POST", kind.collection(namespace), body=body)

    async def apply(self, kind: Kind, body: Patch, *, manager: str) -> Raw:
        """Apply the object on the server's side, and take over fields that others have set. Raises `Rejected`."""
        metadata = body["metadata"]
        try:
            return await self._transport.call(
                "PATCH",
                kind.path(str(metadata.get("namespace") or ""), metadata["name"]),
                query={"fieldManager": manager, "force": "true"},
                body=body,
                content_type=APPLY_PATCH,
            )
        except Unavailable as error:
            # Of a body that has not the form of its kind the API server says so with a 500, again and again.
            if error.status == 500 and _MALFORMED in error.told:
                raise Rejected(str(error), status=error.status, reason=error.reason, told=error.told) from error
            raise

    async def patch(
        self, kind: Kind, namespace: str, name: str, patch: Patch, *, resource_version: str = "", status: bool = False
    ) -> Raw:
        """Merge-patch an object or its status, at that version alone where one is given.

        Raises `Conflict`, `Gone`, `Rejected`.
        """
        if resource_version:
            patch = {**patch, "metadata": {**patch.get("metadata", {}), "resourceVersion": resource_version}}
        path = kind.path(namespace, name) + ("/status" if status else "")
        return await self._transport.call("PATCH", path, body=patch, content_type=MERGE_PATCH)

    async def delete(self, kind: Kind, namespace: str, name: str, *, uid: str) -> bool:
        """Delete the object with that UID, in the background. Returns whether it was there still."""
        options = {
            "apiVersion": "v1",
            "kind": "DeleteOptions",
            "preconditions": {"uid": uid},
            "propagationPolicy": "Background",
        }
        try:
            await self._transport.call("DELETE", kind.path(namespace, name), body=options)
        except Gone:
            return False
        except Conflict:
            # The API has no machine-readable sign for "another UID", which means that ours is gone.
            current = await self.get(kind, namespace, name)
            if current is not None and current["metadata"]["uid"] == uid:
                raise
            return False
        return True
