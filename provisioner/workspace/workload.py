"""StatefulSets and Jobs of Workspaces, as far as their status is told. Pure."""

from collections.abc import Mapping
from typing import Any

from provisioner.workspace.digest import ANNOTATION
from provisioner.workspace.view import JOB, STATEFUL_SET, Workload


def parse_stateful_set(raw: Mapping[str, Any]) -> Workload:
    """Read a StatefulSet as the API server sent it. Raises KeyError where metadata lacks namespace, name or uid."""
    metadata, spec, status = raw["metadata"], raw.get("spec") or {}, raw.get("status") or {}
    wanted = _number(spec.get("replicas"), default=1)
    observed = _number(status.get("observedGeneration")) >= _number(metadata.get("generation"))
    updated = status.get("updateRevision") in (None, "", status.get("currentRevision"))
    return Workload(
        kind=STATEFUL_SET,
        namespace=metadata["namespace"],
        name=metadata["name"],
        uid=metadata["uid"],
        resource_version=str(metadata.get("resourceVersion", "")),
        owner=_owner(metadata),
        digest=_digest(metadata),
        wanted=wanted,
        ready=_number(status.get("readyReplicas")),
        # The two revisions become one when the last pod of the old one is gone.
        is_rolled_out=observed and (updated or _number(status.get("updatedReplicas")) >= wanted),
        is_deleting="deletionTimestamp" in metadata,
    )


def parse_job(raw: Mapping[str, Any]) -> Workload:
    """Read a Job as the API server sent it. Raises KeyError where metadata lacks namespace, name or uid."""
    metadata, status = raw["metadata"], raw.get("status") or {}
    conditions = {str(c.get("type")): c.get("status") for c in status.get("conditions") or ()}
    return Workload(
        kind=JOB,
        namespace=metadata["namespace"],
        name=metadata["name"],
        uid=metadata["uid"],
        resource_version=str(metadata.get("resourceVersion", "")),
        owner=_owner(metadata),
        digest=_digest(metadata),
        wanted=1,
        ready=_number(status.get("ready")),
        is_rolled_out=True,
        active=_number(status.get("active")),
        succeeded=_number(status.get("succeeded")),
        failed=_number(status.get("failed")),
        # The first says that it is going to fail for certain, and stays alone until its pods are gone.
        is_failed="True" in (conditions.get("FailureTarget"), conditions.get("Failed")),
        is_deleting="deletionTimestamp" in metadata,
    )


def _owner(metadata: Mapping[str, Any]) -> str:
    owners = metadata.get("ownerReferences") or ()
    return next((str(owner.get("uid", "")) for owner in owners if owner.get("controller")), "")


def _digest(metadata: Mapping[str, Any]) -> str:
    return str((metadata.get("annotations") or {}).get(ANNOTATION, ""))


def _number(value: object, *, default: int = 0) -> int:
    return value if isinstance(value, int) else default
