"""Everything the controllers ask of the Kubernetes API, by name.

Bodies are raw dicts: the client library's typed models cost ten times the CPU on Nodes and are wrong for fields that a
newer server has. Writes carry the resourceVersion or UID they were decided on, so that a decision on an old
object is refused instead of carried out.
"""

from collections.abc import Mapping
from types import TracebackType
from typing import Any, Final, Self
from urllib.parse import quote

from provisioner.apis import names
from provisioner.kube.errors import Conflict, Forbidden, Gone, KubeError, Rejected, Unavailable, Unserved
from provisioner.kube.transport import MERGE_PATCH, REQUEST_TIMEOUT, Requests, Transport

__all__ = ["Conflict", "Forbidden", "Gone", "KubeError", "KubeGateway", "Rejected", "Unavailable", "Unserved"]

Raw = dict[str, Any]
Patch = Mapping[str, Any]

CLAIMS: Final = f"/apis/{names.NODECLAIM_API_VERSION}/{names.NODECLAIM_PLURAL}"
NODE_CLASSES: Final = f"/apis/{names.KAITO_GROUP}/{names.NODECLASS_VERSION}/{names.NODECLASS_PLURAL}"
NODES: Final = "/api/v1/nodes"
PODS: Final = "/api/v1/pods"
VOLUME_ATTACHMENTS: Final = "/apis/storage.k8s.io/v1/volumeattachments"

# Objects a page. A Node is 20 KiB of JSON and three times as much once it is parsed: 15 MiB at a time.
_PAGE: Final = 250
# Most of a listed Node, and nobody reads it: it goes page by page, before a thousand of them lie in memory together.
_BULK: Final[Mapping[str, tuple[str, ...]]] = {
    "metadata": ("managedFields",),
    "status": ("images", "nodeInfo", "volumesAttached", "volumesInUse"),
}
_NO_QUERY: Final[Mapping[str, str]] = {}


class KubeGateway:
    """The Kubernetes API for the controllers. Use as `async with`.

    Every method raises a `KubeError`: `Unavailable`, `Unserved` and `Forbidden` any of them, the others as their
    docstrings say.
    """

    def __init__(self, *, request_timeout: float = REQUEST_TIMEOUT, transport: Requests | None = None) -> None:
        """Take the limit of one call in seconds, or another connection than the kubeconfig's or the pod's own."""
        self._transport: Requests = transport or Transport(request_timeout=request_timeout)

    async def __aenter__(self) -> Self:
        await self._transport.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._transport.__aexit__(kind, error, trace)

    # NodeClaims

    async def get_claim(self, name: str) -> Raw | None:
        """Return the claim, or None where there is none of that name."""
        return await self._get(CLAIMS, name)

    async def list_claims(self) -> tuple[list[Raw], str]:
        """Return all claims and the resourceVersion of the list.

        Raises `Gone` where the kind is not served. That is never an empty list: while an API server starts, kinds of
        CRDs may be missing for a moment, and whoever took that for "no claims" would delete everybody's machines.
        """
        return await self._list(CLAIMS)

    async def patch_claim(self, name: str, patch: Patch, *, resource_version: str) -> Raw:
        """Merge-patch metadata. Returns the new object; raises `Conflict`, `Gone`, `Rejected`."""
        return await self._patch(_path(CLAIMS, name), patch, resource_version)

    async def patch_claim_status(self, name: str, patch: Patch, *, resource_version: str) -> Raw:
        """Merge-patch `{"status": {...}}`. Returns the new object; raises `Conflict`, `Gone`, `Rejected`."""
        return await self._patch(_path(CLAIMS, name) + "/status", patch, resource_version)

    async def delete_claim(self, name: str, *, uid: str) -> None:
        """Delete the claim with that UID. One that is missing, or has been made anew, is no error."""
        await self._delete(CLAIMS, name, uid)

    # Nodes

    async def get_node(self, name: str) -> Raw | None:
        """Return the Node, or None where there is none of that name."""
        return await self._get(NODES, name)

    async def list_nodes(self) -> tuple[list[Raw], str]:
        """Return all Nodes and the resourceVersion of the list."""
        return await self._list(NODES)

    async def patch_node(self, name: str, patch: Patch, *, resource_version: str) -> Raw:
        """Merge-patch metadata and spec; lists are replaced whole. Raises `Conflict`, `Gone`, `Rejected`."""
        return await self._patch(_path(NODES, name), patch, resource_version)

    async def patch_node_metadata(self, name: str, patch: Patch, *, uid: str) -> Raw:
        """Merge-patch metadata of the Node with that UID, whatever else is written to it meanwhile.

        A young Node is written to by kubelet, node lifecycle controller and cloud controller manager within moments; a
        patch that is bound to a version has to be decided anew after each of them. Raises `Conflict` where the Node has
        been made anew, `Gone`, `Rejected`.
        """
        path = _path(NODES, name)
        bound = {**patch, "metadata": {**patch.get("metadata", {}), "uid": uid}}
        try:
            return await self._patch(path, bound, None)
        except Rejected as error:
            # The API server says no more than that the UID cannot be changed.
            current = await self._get(NODES, name)
            if current is not None and current["metadata"]["uid"] != uid:
                raise Conflict(str(error), status=error.status, reason=error.reason) from error
            raise

    async def delete_node(self, name: str, *, uid: str) -> Raw | None:
        """Delete the Node with that UID. One that is missing, or has been made anew, is no error.

        Returns the Node as it waits for its finalizers, None where it is gone.
        """
        answer = await self._delete(NODES, name, uid)
        return answer if answer is not None and "deletionTimestamp" in answer.get("metadata", {}) else None

    # KaitoNodeClasses

    async def list_node_classes(self) -> list[Raw]:
        """Return all node classes; none where the kind is not served, since the CRD is optional."""
        try:
            items, _ = await self._list(NODE_CLASSES)
        except Gone:
            return []
        return items

    async def patch_node_class_status(self, name: str, patch: Patch, *, resource_version: str) -> Raw:
        """Merge-patch `{"status": {...}}`. Returns the new object; raises `Conflict`, `Gone`, `Rejected`."""
        return await self._patch(_path(NODE_CLASSES, name) + "/status", patch, resource_version)

    # Pods and volumes of a Node that is being taken down

    async def list_pods(self, *, node: str) -> list[Raw]:
        """Return the pods that are bound to the Node."""
        items, _ = await self._list(PODS, query={"fieldSelector": f"spec.nodeName={node}"})
        return items

    async def evict_pod(self, namespace: str, name: str, *, uid: str) -> None:
        """Ask for the eviction of the pod with that UID.

        Raises `Gone` where it is missing, `Conflict` where it has been made anew, `Unavailable` with status 429 where a
        PodDisruptionBudget does not allow it now, and with 500 where several budgets hold for the pod: the API server
        then allows none.
        """
        body = {
            "apiVersion": "policy/v1",
            "kind": "Eviction",
            "metadata": {"name": name, "namespace": namespace},
            "deleteOptions": {"preconditions": {"uid": uid}},
        }
        await self._transport.call("POST", f"{_pod(namespace, name)}/eviction", body=body)

    async def delete_pod(self, namespace: str, name: str, *, uid: str, grace_seconds: int) -> None:
        """Delete the pod with that UID, whatever budgets say.

        Raises `Gone` where it is missing, `Conflict` where it has been made anew.
        """
        body = {
            "apiVersion": "v1",
            "kind": "DeleteOptions",
            "gracePeriodSeconds": grace_seconds,
            "preconditions": {"uid": uid},
        }
        await self._transport.call("DELETE", _pod(namespace, name), body=body)

    async def list_volume_attachments(self) -> list[Raw]:
        """Return the VolumeAttachments of the cluster."""
        items, _ = await self._list(VOLUME_ATTACHMENTS)
        return items

    async def get_volume_claim(self, namespace: str, name: str) -> Raw | None:
        """Return the PersistentVolumeClaim, or None where there is none of that name."""
        return await self._get(f"/api/v1/namespaces/{quote(namespace, safe='')}/persistentvolumeclaims", name)

    # Events

    async def get_event(self, namespace: str, name: str) -> Raw | None:
        """Return the Event, or None: the API server forgets them after an hour."""
        return await self._get(_events(namespace), name)

    async def create_event(self, body: Mapping[str, Any]) -> Raw:
        """Create a core/v1 Event in the namespace of its metadata. Raises `Conflict` where its name exists."""
        return await self._transport.call("POST", _events(body["metadata"]["namespace"]), body=body)

    async def patch_event(self, namespace: str, name: str, patch: Patch) -> Raw:
        """Merge-patch an Event, last writer wins. Raises `Gone`, `Rejected`."""
        return await self._patch(_path(_events(namespace), name), patch, None)

    # What the above have in common

    async def _get(self, collection: str, name: str) -> Raw | None:
        try:
            return await self._transport.read(_path(collection, name))
        except Unserved:
            raise
        except Gone:
            return None

    async def _list(self, collection: str, *, query: Mapping[str, str] = _NO_QUERY) -> tuple[list[Raw], str]:
        # Without a resourceVersion the answer is the state as of the request. Version "0" would be cheaper, and is a
        # cache of any age: a new object might be missing from it.
        items: list[Raw] = []
        paging: dict[str, str | int] = {"limit": _PAGE}
        while True:
            try:
                page = await self._transport.read(collection, query={**query, **paging})
            except Rejected as error:
                if error.status != 410 or "continue" not in paging:
                    raise
                # Compaction has outrun us between two pages. All at once then, as client-go's pager does.
                items, paging = [], {}
                continue
            items += map(_without_bulk, page.get("items") or ())
            metadata = page.get("metadata") or {}
            if not metadata.get("continue"):
                return items, str(metadata.get("resourceVersion") or "")
            paging["continue"] = metadata["continue"]

    async def _patch(self, path: str, patch: Patch, resource_version: str | None) -> Raw:
        if resource_version is not None:
            # A resourceVersion in a merge patch makes the API server compare it: its optimistic lock.
            patch = {**patch, "metadata": {**patch.get("metadata", {}), "resourceVersion": resource_version}}
        return await self._transport.call("PATCH", path, body=patch, content_type=MERGE_PATCH)

    async def _delete(self, collection: str, name: str, uid: str) -> Raw | None:
        options = {"apiVersion": "v1", "kind": "DeleteOptions", "preconditions": {"uid": uid}}
        try:
            return await self._transport.call("DELETE", _path(collection, name), body=options)
        except Unserved:
            raise
        except Gone:
            return None
        except Conflict:
            # The API has no machine-readable sign for "another UID", which means that ours is gone.
            current = await self._get(collection, name)
            if current is not None and current["metadata"]["uid"] == uid:
                raise
            return None


def _without_bulk(item: Raw) -> Raw:
    for section, fields in _BULK.items():
        if isinstance(parent := item.get(section), dict):
            for field in fields:
                parent.pop(field, None)
    return item


def _path(collection: str, name: str) -> str:
    return f"{collection}/{quote(name, safe='')}"


def _pod(namespace: str, name: str) -> str:
    return f"/api/v1/namespaces/{quote(namespace, safe='')}/pods/{quote(name, safe='')}"


def _events(namespace: str) -> str:
    return f"/api/v1/namespaces/{quote(namespace, safe='')}/events"
