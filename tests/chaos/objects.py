"""What a Kubernetes API server keeps, and by which rules it changes: versions, locks, finalizers, owners, budgets.

Nothing that was stored is ever changed in place, so whoever holds an object holds what it was.
"""

import functools
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from fakes.cluster.embedded.patches import merge_patch
from provisioner.apis import names
from provisioner.apis.times import format_time
from provisioner.kube.errors import Conflict, Gone, Rejected, Unavailable, Unserved

Raw = dict[str, Any]

CLAIMS: Final = names.NODECLAIM_PLURAL
NODE_CLASSES: Final = names.NODECLASS_PLURAL
NODES: Final = "nodes"
PODS: Final = "pods"
ATTACHMENTS: Final = "volumeattachments"
EVENTS: Final = "events"

_PATH: Final = re.compile(
    r"(?P<group>/api/v1|/apis/[^/]+/[^/]+)(/namespaces/(?P<namespace>[^/]+))?/(?P<plural>[a-z]+)"
    r"(/(?P<name>[^/]+)(/(?P<sub>[a-z]+))?)?"
)


@dataclass(frozen=True, kw_only=True)
class Kind:
    """A kind that is served. A change of the spec counts up the generation of those that have one."""

    group: str
    kind: str
    namespaced: bool = False
    has_status: bool = True
    has_generation: bool = False

    @property
    def api_version(self) -> str:
        """Return the apiVersion of its objects."""
        return self.group.removeprefix("/apis/").removeprefix("/api/")


KINDS: Final[Mapping[str, Kind]] = {
    CLAIMS: Kind(group=f"/apis/{names.NODECLAIM_API_VERSION}", kind=names.NODECLAIM_KIND, has_generation=True),
    NODE_CLASSES: Kind(
        group=f"/apis/{names.KAITO_GROUP}/{names.NODECLASS_VERSION}", kind=names.NODECLASS_KIND, has_generation=True
    ),
    NODES: Kind(group="/api/v1", kind="Node"),
    PODS: Kind(group="/api/v1", kind="Pod", namespaced=True),
    "persistentvolumeclaims": Kind(group="/api/v1", kind="PersistentVolumeClaim", namespaced=True),
    EVENTS: Kind(group="/api/v1", kind="Event", namespaced=True, has_status=False),
    ATTACHMENTS: Kind(group="/apis/storage.k8s.io/v1", kind="VolumeAttachment"),
}


@dataclass(frozen=True, kw_only=True)
class Change:
    """What became of one object: `before` is None where it is new, `after` where it is gone."""

    plural: str
    key: str
    before: Raw | None
    after: Raw | None
    last: Raw
    by: str


@dataclass(frozen=True, kw_only=True)
class Place:
    """What a path names."""

    plural: str
    namespace: str
    name: str
    sub: str

    @property
    def key(self) -> str:
        """Return under which key the object is kept."""
        return f"{self.namespace}/{self.name}" if KINDS[self.plural].namespaced else self.name


@functools.lru_cache(maxsize=4096)
def place_of(path: str) -> Place:
    """Read a path. Raises Unserved where nothing is served there."""
    match = _PATH.fullmatch(path)
    if match is None or match["plural"] not in KINDS or KINDS[match["plural"]].group != match["group"]:
        raise Unserved(f"{path}: 404: the server could not find the requested resource", status=404)
    return Place(
        plural=match["plural"], namespace=match["namespace"] or "", name=match["name"] or "", sub=match["sub"] or ""
    )


class Objects:
    """All objects. `now` is the wall clock; `on_change` is told of each change before anybody else can see it."""

    def __init__(self, *, now: Callable[[], datetime]) -> None:
        self._now = now
        self._kept: dict[str, dict[str, Raw]] = {plural: {} for plural in KINDS}
        self.version = 100
        self._made = 0
        self.on_change: list[Callable[[Change], None]] = []
        # Budgets of pods, as far as evictions go: those with a name in here are refused.
        self.protected_pods: set[str] = set()

    def get(self, plural: str, key: str) -> Raw | None:
        """Return an object."""
        return self._kept[plural].get(key)

    def all(self, plural: str) -> list[Raw]:
        """Return all objects of a kind, by key."""
        kept = self._kept[plural]
        return [kept[key] for key in sorted(kept)]

    def create(self, plural: str, raw: Mapping[str, Any], *, by: str) -> Raw:
        """Store a new object. Raises Conflict where there is one."""
        kind = KINDS[plural]
        metadata = dict(raw["metadata"])
        key = f"{metadata['namespace']}/{metadata['name']}" if kind.namespaced else metadata["name"]
        if key in self._kept[plural]:
            raise Conflict(f"{plural} {key!r} already exists", status=409, reason="AlreadyExists")
        self._made += 1
        metadata |= {"uid": f"{self._made:08x}-5eed-4000-8000-000000000000", "creationTimestamp": self._stamp()}
        if kind.has_generation:
            metadata["generation"] = 1
        made = {"apiVersion": kind.api_version, "kind": kind.kind, **raw, "metadata": metadata}
        return self._store(plural, key, None, made, by=by)

    def patch(self, plural: str, key: str, patch: Mapping[str, Any], *, sub: str = "", by: str) -> Raw:
        """Merge-patch an object or its status. Raises Gone, Conflict, Rejected."""
        old = self.must_get(plural, key)
        told = patch.get("metadata") or {}
        if told.get("resourceVersion", old["metadata"]["resourceVersion"]) != old["metadata"]["resourceVersion"]:
            raise Conflict(f"{plural} {key!r}: the object has been modified", status=409, reason="Conflict")
        if told.get("uid", old["metadata"]["uid"]) != old["metadata"]["uid"]:
            raise Conflict(f"{plural} {key!r}: Precondition failed: UID in precondition", status=409, reason="Conflict")
        kind = KINDS[plural]
        if sub == "status":
            new = merge_patch(old, {"status": patch.get("status", {})})
        else:
            new = merge_patch(old, {field: value for field, value in patch.items() if not self._is_apart(kind, field)})
        _validate(new)
        if "deletionTimestamp" in old["metadata"]:
            added = set(new["metadata"].get("finalizers") or ()) - set(old["metadata"].get("finalizers") or ())
            if added:
                raise Rejected(f"{key}: metadata.finalizers: no new finalizers can be added", status=422)
        if kind.has_generation and new.get("spec") != old.get("spec"):
            new = merge_patch(new, {"metadata": {"generation": old["metadata"]["generation"] + 1}})
        new["metadata"]["resourceVersion"] = old["metadata"]["resourceVersion"]
        if new == old:
            return old
        if "deletionTimestamp" in new["metadata"] and not new["metadata"].get("finalizers"):
            self._remove(plural, key, new, by=by)
            return dict(new)
        return self._store(plural, key, old, new, by=by)

    def delete(self, plural: str, key: str, *, uid: str | None = None, by: str) -> Raw:
        """Delete an object, or mark it where finalizers hold it. Raises Gone, Conflict."""
        old = self.must_get(plural, key)
        if uid is not None and uid != old["metadata"]["uid"]:
            raise Conflict(f"{plural} {key!r}: Precondition failed: UID in precondition", status=409, reason="Conflict")
        if not old["metadata"].get("finalizers"):
            self._remove(plural, key, old, by=by)
            return old
        if "deletionTimestamp" in old["metadata"]:
            return old
        marks: Raw = {"deletionTimestamp": self._stamp(), "deletionGracePeriodSeconds": 0}
        if KINDS[plural].has_generation:
            marks["generation"] = old["metadata"]["generation"] + 1
        return self._store(plural, key, old, merge_patch(old, {"metadata": marks}), by=by)

    def evict(self, key: str, *, uid: str | None, by: str) -> Raw:
        """Evict a pod, where its budget allows that. Raises Gone, Conflict, Unavailable."""
        if key in self.protected_pods:
            text = "Cannot evict pod as it would violate the pod's disruption budget."
            raise Unavailable(text, status=429, reason="TooManyRequests", retry_after=10.0)
        return self.delete(PODS, key, uid=uid, by=by)

    def orphans_of(self, uid: str) -> Iterator[tuple[str, str]]:
        """Yield what has that object for its owner and no other."""
        for plural, kept in self._kept.items():
            for key, raw in list(kept.items()):
                owners = raw["metadata"].get("ownerReferences")
                if owners and all(owner["uid"] == uid for owner in owners):
                    yield plural, key

    def must_get(self, plural: str, key: str) -> Raw:
        """Return an object. Raises Gone."""
        found = self._kept[plural].get(key)
        if found is None:
            raise Gone(f'{plural} "{key}" not found', status=404, reason="NotFound")
        return found

    @staticmethod
    def _is_apart(kind: Kind, field: str) -> bool:
        # What has a subresource for its status takes the status there alone. The kubelet's Nodes do, too.
        return field == "status" and kind.has_status

    def _stamp(self) -> str:
        return format_time(self._now())

    def _store(self, plural: str, key: str, old: Raw | None, new: Raw, *, by: str) -> Raw:
        self.version += 1
        new = {**new, "metadata": {**new["metadata"], "resourceVersion": str(self.version)}}
        self._kept[plural][key] = new
        self._tell(Change(plural=plural, key=key, before=old, after=new, last=new, by=by))
        return new

    def _remove(self, plural: str, key: str, last: Raw, *, by: str) -> None:
        self.version += 1
        before = self._kept[plural].pop(key)
        gone = {**last, "metadata": {**last["metadata"], "resourceVersion": str(self.version)}}
        self._tell(Change(plural=plural, key=key, before=before, after=None, last=gone, by=by))

    def _tell(self, change: Change) -> None:
        for listener in self.on_change:
            listener(change)


def _validate(raw: Raw) -> None:
    for condition in (raw.get("status") or {}).get("conditions") or ():
        if not condition.get("type") or (raw["kind"] == names.NODECLAIM_KIND and not condition.get("reason")):
            raise Rejected("status.conditions: a reason is required", status=422, reason="Invalid")
