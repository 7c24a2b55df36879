"""What is on the Nodes that are being taken down: their pods, and the volumes that pods have left attached."""

import asyncio
import logging
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Protocol

from provisioner.apis.node import Node
from provisioner.apis.pod import Pod, parse_pod
from provisioner.kube.errors import Forbidden, Gone
from provisioner.nodeclaim.drain_rules import is_drainable
from provisioner.nodeclaim.view import NodeLoad

_log: Final = logging.getLogger(__name__)

Raw = Mapping[str, Any]

# Seconds for which one LIST of all VolumeAttachments serves everybody: hundreds of Nodes may be drained side by side,
# each looked at once a second.
_SHARED: Final = 1.0


class LoadReader(Protocol):
    """What is asked of the Kubernetes API; the gateway is one."""

    async def list_pods(self, *, node: str) -> list[dict[str, Any]]:
        """Return the pods that are bound to the Node."""
        ...

    async def list_volume_attachments(self) -> list[dict[str, Any]]:
        """Return the VolumeAttachments of the cluster."""
        ...

    async def get_volume_claim(self, namespace: str, name: str) -> dict[str, Any] | None:
        """Return the PersistentVolumeClaim, or None."""
        ...


@dataclass(frozen=True, kw_only=True)
class _Attachment:
    name: str
    node: str
    volume: str


class Loads:
    """Reads what is on Nodes, when asked. Nothing of it is watched: only Nodes that go are of interest."""

    def __init__(self, kube: LoadReader, *, now: Callable[[], datetime]) -> None:
        """Take the API and the wall clock, which tells pods that hang in their termination."""
        self._kube = kube
        self._now = now
        self._listing: asyncio.Task[tuple[_Attachment, ...]] | None = None
        self._listed_at = 0.0
        self._complained = False

    async def read(self, nodes: Collection[Node]) -> Mapping[str, NodeLoad]:
        """Return what is on each of the Nodes, by its name.

        Raises KubeError where pods cannot be listed. A cluster that does not serve the storage API, or does not let us
        read it, has no volumes that would be waited for.
        """
        if not nodes:
            return {}
        attachments = await self._attachments()
        loads = await asyncio.gather(
            *(self._load(node.name, [each for each in attachments if each.node == node.name]) for node in nodes)
        )
        return {node.name: load for node, load in zip(nodes, loads, strict=True)}

    async def _load(self, node: str, attached: Collection[_Attachment]) -> NodeLoad:
        pods = tuple(_pods(await self._kube.list_pods(node=node)))
        if not attached:
            return NodeLoad(pods=pods)
        now = self._now()
        try:
            # A volume that a staying pod uses stays attached with it, for as long as the VM is there.
            kept = await self._volumes_of(pod for pod in pods if not is_drainable(pod, now=now))
        except Forbidden as error:
            # Waiting without knowing might be waiting for ever.
            self._complain(error)
            return NodeLoad(pods=pods)
        return NodeLoad(pods=pods, volumes=tuple(sorted(each.name for each in attached if each.volume not in kept)))

    async def _volumes_of(self, pods: Iterable[Pod]) -> set[str]:
        """Return the names of the PersistentVolumes that pods use."""
        claims = sorted({(pod.namespace, claim) for pod in pods for claim in pod.volume_claims})
        found = await asyncio.gather(*(self._kube.get_volume_claim(namespace, name) for namespace, name in claims))
        return {str((raw.get("spec") or {}).get("volumeName") or "") for raw in found if raw is not None}

    async def _attachments(self) -> tuple[_Attachment, ...]:
        now = asyncio.get_running_loop().time()
        if self._listing is None or (self._listing.done() and now - self._listed_at >= _SHARED):
            self._listed_at = now
            self._listing = asyncio.create_task(self._list())
            # Whoever has asked may have been cancelled by then, and nobody else be there to take the error.
            self._listing.add_done_callback(lambda task: task.cancelled() or task.exception())
        # The answer is everybody's: that one of them goes away must not take it from the others.
        return await asyncio.shield(self._listing)

    async def _list(self) -> tuple[_Attachment, ...]:
        try:
            found = await self._kube.list_volume_attachments()
        except (Gone, Forbidden) as error:
            self._complain(error)
            return ()
        # One without a PersistentVolume is of an inline volume, which belongs to its pod: Karpenter leaves it out too.
        return tuple(attachment for attachment in map(_parse_attachment, found) if attachment.volume)

    def _complain(self, error: Forbidden | Gone) -> None:
        if not self._complained:
            self._complained = True
            _log.warning(
                "Nodes are taken down without waiting for their volumes to be detached (said only once)",
                extra={"error": str(error)},
            )


def _pods(found: Iterable[Raw]) -> Iterable[Pod]:
    for raw in found:
        try:
            yield parse_pod(raw)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            # One that no API server should have accepted. Nothing can be asked for it, and no Node waits for it.
            _log.warning("A pod that cannot be read is left out", extra={"error": repr(error)})


def _parse_attachment(raw: Raw) -> _Attachment:
    spec = raw.get("spec") or {}
    return _Attachment(
        name=str((raw.get("metadata") or {}).get("name") or ""),
        node=str(spec.get("nodeName") or ""),
        volume=str((spec.get("source") or {}).get("persistentVolumeName") or ""),
    )
