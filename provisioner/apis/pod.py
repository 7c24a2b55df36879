"""core/v1 Pod, as far as draining a Node needs it."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from provisioner.apis import names
from provisioner.apis.taints import Taint
from provisioner.apis.times import parse_time

# Kubernetes' default of spec.terminationGracePeriodSeconds.
_GRACE_SECONDS: Final = 30


@dataclass(frozen=True, kw_only=True)
class Toleration:
    """One entry of `spec.tolerations`; empty strings where it says nothing, which stands for everything."""

    key: str
    operator: str
    value: str
    effect: str

    def tolerates(self, taint: Taint) -> bool:
        """Tell whether it holds for the taint, by the rules of k8s.io/api's `ToleratesTaint`."""
        if self.effect and self.effect != taint.effect:
            return False
        if self.key and self.key != taint.key:
            return False
        if self.operator == "Exists":
            return True
        return self.operator in ("", "Equal") and self.key == taint.key and self.value == taint.value


@dataclass(frozen=True, kw_only=True)
class Pod:
    """A pod as last listed.

    `grace_seconds` is what it asks for at its end, `deleted` when it is to be gone by once somebody has deleted it
    (its deletionTimestamp), `started` its status.startTime. `volume_claims` are names of PersistentVolumeClaims in its
    namespace.
    """

    namespace: str
    name: str
    uid: str
    node_name: str
    phase: str
    grace_seconds: int
    deleted: datetime | None
    created: datetime | None
    started: datetime | None
    priority_class: str
    owner_kinds: tuple[str, ...]
    is_mirror: bool
    do_not_disrupt: str
    tolerations: tuple[Toleration, ...]
    volume_claims: tuple[str, ...]

    @property
    def is_terminal(self) -> bool:
        """Tell whether its containers have ended for good."""
        return self.phase in ("Succeeded", "Failed")

    @property
    def is_of_daemon_set(self) -> bool:
        """Tell whether a DaemonSet made it."""
        return "DaemonSet" in self.owner_kinds

    def tolerates(self, taint: Taint) -> bool:
        """Tell whether the pod may stay where the taint is."""
        return any(toleration.tolerates(taint) for toleration in self.tolerations)


def parse_pod(raw: Mapping[str, Any]) -> Pod:
    """Read a Pod as the API server sent it. Raises KeyError where metadata lacks namespace, name or uid."""
    metadata, spec, status = raw["metadata"], raw.get("spec") or {}, raw.get("status") or {}
    annotations = metadata.get("annotations") or {}
    grace = spec.get("terminationGracePeriodSeconds")
    return Pod(
        namespace=metadata["namespace"],
        name=metadata["name"],
        uid=metadata["uid"],
        node_name=spec.get("nodeName") or "",
        phase=status.get("phase") or "",
        grace_seconds=grace if isinstance(grace, int) else _GRACE_SECONDS,
        deleted=parse_time(metadata.get("deletionTimestamp")),
        created=parse_time(metadata.get("creationTimestamp")),
        started=parse_time(status.get("startTime")),
        priority_class=spec.get("priorityClassName") or "",
        owner_kinds=tuple(str(owner.get("kind", "")) for owner in metadata.get("ownerReferences") or ()),
        is_mirror=names.MIRROR_POD_ANNOTATION in annotations,
        do_not_disrupt=str(annotations.get(names.DO_NOT_DISRUPT_ANNOTATION) or ""),
        tolerations=tuple(
            Toleration(
                key=entry.get("key") or "",
                operator=entry.get("operator") or "",
                value=entry.get("value") or "",
                effect=entry.get("effect") or "",
            )
            for entry in spec.get("tolerations") or ()
        ),
        volume_claims=tuple(_volume_claims(metadata["name"], spec.get("volumes") or ())),
    )


def _volume_claims(pod: str, volumes: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    for volume in volumes:
        if claim := (volume.get("persistentVolumeClaim") or {}).get("claimName"):
            yield claim
        elif volume.get("ephemeral"):
            # A generic ephemeral volume's claim has the name of pod and volume.
            yield f"{pod}-{volume['name']}"
