"""Pods, volumes and attachments as they come from the API server, for tests."""

from typing import Any

from provisioner.apis import names
from provisioner.apis.pod import Pod, parse_pod
from provisioner.apis.times import format_time


def raw_pod(name: str = "p1", **changes: Any) -> dict[str, Any]:
    """Return a running pod.

    `changes` are `uid`, `deleted` and `started` (moments), `phase`, `mirror`, `owner` (a kind), `claims` (names of
    PersistentVolumeClaims), `annotations`, and whole fields of the spec.
    """
    metadata: dict[str, Any] = {
        "namespace": changes.pop("namespace", "default"),
        "name": name,
        "uid": changes.pop("uid", f"uid-of-{name}"),
        "annotations": changes.pop("annotations", {}),
    }
    if deleted := changes.pop("deleted", None):
        metadata["deletionTimestamp"] = format_time(deleted)
    if changes.pop("mirror", False):
        metadata["annotations"] |= {names.MIRROR_POD_ANNOTATION: "a"}
    if owner := changes.pop("owner", None):
        metadata["ownerReferences"] = [{"kind": owner, "name": "o"}]
    volumes = [{"name": claim, "persistentVolumeClaim": {"claimName": claim}} for claim in changes.pop("claims", ())]
    status = {"phase": changes.pop("phase", "Running")}
    if started := changes.pop("started", None):
        status["startTime"] = format_time(started)
    return {
        "metadata": metadata,
        "status": status,
        "spec": {"volumes": volumes, **changes},
    }


def pod(name: str = "p1", **changes: Any) -> Pod:
    """Return a running pod; see `raw_pod`."""
    return parse_pod(raw_pod(name, **changes))


def attachment(name: str, *, node: str, volume: str | None) -> dict[str, Any]:
    """Return a VolumeAttachment of a PersistentVolume, None: of an inline volume."""
    source: dict[str, Any] = {"persistentVolumeName": volume} if volume else {"inlineVolumeSpec": {}}
    return {"metadata": {"name": name}, "spec": {"nodeName": node, "source": source}}
