"""What may be done with objects: create, change, apply, delete. No HTTP here, and nothing that waits."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Literal

from fakes.cluster.embedded import kinds, ownership, problems, strategies
from fakes.cluster.embedded.kinds import Registry, Resource
from fakes.cluster.embedded.objects import (
    Object,
    dig,
    is_deleting,
    name_of,
    new_uid,
    now,
    suffix,
    uid_of,
    with_metadata,
)
from fakes.cluster.embedded.problems import TYPE_INVALID, Problem, bad_request
from fakes.cluster.embedded.schema import ABSENT, check, shape
from fakes.cluster.embedded.store import Item, Key, Store

STATUS: Final = "status"
ORPHAN: Final = "orphan"
FOREGROUND: Final = "foregroundDeletion"
CRD_CLEANUP: Final = "customresourcecleanup.apiextensions.k8s.io"
FINISHED: Final = ("Succeeded", "Failed")

Propagation = Literal["Background", "Foreground", "Orphan"]
Edit = Callable[[Object], Object]

# Metadata that nobody but the server writes.
_SERVERS: Final = (
    *("uid", "creationTimestamp", "generation", "deletionTimestamp", "deletionGracePeriodSeconds"),
    *("managedFields", "selfLink", "resourceVersion"),
)
# Kinds whose status can be given with the object itself.
_BORN_WITH_STATUS: Final = ("nodes", "persistentvolumes")


@dataclass(frozen=True, kw_only=True)
class Call:
    """How a write is meant. `warnings` collects what the caller should hear beside the answer."""

    manager: str = "unknown"
    subresource: str = ""
    dry_run: bool = False
    validation: str = "Warn"
    is_patch: bool = False
    warnings: list[str] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class Deletion:
    """How a deletion is meant: of which UID and version, with how many seconds of grace."""

    uid: str | None = None
    version: str | None = None
    grace: int | None = None
    propagation: Propagation | None = None
    dry_run: bool = False


def own_call(subresource: str = "") -> Call:
    """Return how controllers write."""
    return Call(manager="kube-controller-manager", subresource=subresource, is_patch=True)


class Api:
    """The resources and their objects."""

    def __init__(self) -> None:
        self.registry = Registry()
        self.store = Store()

    def get(self, resource: Resource, key: Key) -> Item:
        """Return an object. Raises Problem: 404."""
        item = self.store.get(resource, key)
        if item is None:
            raise resource.not_found(key[1])
        return item

    def objects(self, plural: str) -> Iterator[Object]:
        """Yield all objects of a built-in resource."""
        items = self.store.collection(self.registry.built_in(plural)).items
        return (item.object for item in tuple(items.values()))

    def find(self, plural: str, key: Key) -> Object | None:
        """Return an object of a built-in resource, None where there is none."""
        item = self.store.get(self.registry.built_in(plural), key)
        return None if item is None else item.object

    def create(
        self, resource: Resource, body: Object, *, namespace: str = "", version: str = "", call: Call | None = None
    ) -> Item:
        """Create an object. Raises Problem."""
        return self._create(resource, body, namespace, version or resource.storage, call or Call(), None)

    def update(self, resource: Resource, key: Key, edit: Edit, *, version: str = "", call: Call | None = None) -> Item:
        """Change an object: `edit` makes the new one of the old one. Raises Problem."""
        return self._update(resource, key, edit, version or resource.storage, call or Call(), None)

    def apply(
        self, resource: Resource, key: Key, config: Object, *, version: str, call: Call, force: bool
    ) -> tuple[Item, bool]:
        """Apply a configuration; return the object and whether it is new. Raises Problem."""
        me = (call.manager, ownership.APPLY, call.subresource)
        schema, kind = resource.schema(version), {"apiVersion": resource.api_version(version), "kind": resource.kind}
        wanted = {**self._shaped(resource, version, config, call, defaults=False), **kind}
        live = self.store.get(resource, key)
        if live is None:
            if call.subresource:
                raise resource.not_found(key[1])
            return self._create(resource, wanted, key[0], version, call, ownership.applied(schema, wanted, me)), True
        merged, owners = ownership.apply(
            schema, live.object, wanted, owners=ownership.owners_of(live, schema), me=me, force=force
        )
        return self._update(resource, key, lambda _: merged, version, replace(call, is_patch=True), owners), False

    def delete(self, resource: Resource, key: Key, how: Deletion | None = None) -> tuple[Item, bool]:
        """Begin or finish a deletion; return the last state and whether it is gone. Raises Problem."""
        how = how or Deletion()
        old = self.get(resource, key)
        _check_preconditions(old, how)
        metadata = old.object["metadata"]
        grace, finalizers = _grace(old, how), _finalizers(old, how)
        if how.dry_run:
            return old, True
        if not finalizers and not grace and not _is_held(old.object):
            return self.store.remove(old), True
        changes: Object = {}
        if not is_deleting(old.object) or grace < metadata.get("deletionGracePeriodSeconds", 0):
            end = datetime.now(UTC) + timedelta(seconds=grace)
            changes = {"deletionTimestamp": end.strftime("%Y-%m-%dT%H:%M:%SZ"), "deletionGracePeriodSeconds": grace}
        if "generation" in metadata and not is_deleting(old.object):
            changes["generation"] = metadata["generation"] + 1
        if finalizers != metadata.get("finalizers", []):
            changes["finalizers"] = finalizers or None
        if not changes:
            return old, False
        new = with_metadata(old.object, **changes)
        if resource.path == "namespaces":
            new = {**with_metadata(new, deletionGracePeriodSeconds=None), STATUS: {"phase": "Terminating"}}
        return self.store.put(old.become(new)), False

    def bind(self, pod: Object, node: str, conditions: list[Object]) -> None:
        """Put a pod on a node."""
        item = self.get(self.registry.built_in("pods"), (pod["metadata"]["namespace"], name_of(pod)))
        new = {**pod, "spec": {**pod["spec"], "nodeName": node}, STATUS: {**pod[STATUS], "conditions": conditions}}
        self.store.put(item.become(new))

    def write_status(self, plural: str, item: Object, status: Object) -> None:
        """Write the status of an object of a built-in resource."""
        key = (item["metadata"].get("namespace", ""), name_of(item))
        resource = self.registry.built_in(plural)
        self.update(resource, key, lambda old: {**old, STATUS: status}, call=own_call(STATUS))

    def _create(
        self,
        resource: Resource,
        body: Object,
        namespace: str,
        version: str,
        call: Call,
        owners: ownership.Owners | None,
    ) -> Item:
        metadata = {**_metadata(body)}
        _check_place(metadata, namespace)
        if why := strategies.refused(resource.group):
            raise problems.denied(resource.group, resource.plural, str(metadata.get("name", "")), why)
        if metadata.get("resourceVersion"):
            raise Problem(500, "", "resourceVersion should not be set on objects to be created")
        if not metadata.get("name"):
            if not metadata.get("generateName"):
                raise resource.invalid("", [problems.required("metadata.name", "name or generateName is required")])
            metadata["name"] = metadata["generateName"] + suffix()
        self._check_namespace(resource, namespace, str(metadata["name"]))
        metadata = {key: value for key, value in metadata.items() if key not in _SERVERS}
        item = self._shaped(resource, version, {**body, "metadata": metadata}, call)
        generation = 1 if resource.has_generation else None
        item = with_metadata(
            item, namespace=namespace or None, uid=new_uid(), creationTimestamp=now(), generation=generation
        )
        if resource.versions[version].has_status and resource.path not in _BORN_WITH_STATUS:
            item.pop(STATUS, None)
        if not resource.custom:
            strategies.on_create(resource.plural, item)
        self._validate(resource, version, item, None, call)
        if self.store.get(resource, (namespace, name_of(item))) is not None:
            raise problems.exists(resource.group, resource.plural, name_of(item))
        if resource.plural == kinds.CRDS:
            item = with_metadata(item, finalizers=[*item["metadata"].get("finalizers", ()), CRD_CLEANUP])
            if ignored := kinds.rules_ignored(item):
                call.warnings.append(f"{ignored} rules of x-kubernetes-validations are not evaluated by this server")
        made = Item(resource, item, writer=call.manager, owners=owners)
        return made if call.dry_run else self.store.put(made)

    def _update(
        self, resource: Resource, key: Key, edit: Edit, version: str, call: Call, owners: ownership.Owners | None
    ) -> Item:
        old = self.get(resource, key)
        before = old.object
        proposed = edit(before)
        _check_identity(old, _metadata(proposed), call)
        kept = {name: before["metadata"].get(name) for name in ("name", "namespace", *_SERVERS)}
        new = self._shaped(resource, version, with_metadata(proposed, **kept), call)
        if call.subresource == STATUS:
            # Labels and annotations of custom resources are not written by the way, those of built-in kinds are.
            metadata = before["metadata"] if resource.custom else new["metadata"]
            new = _with(before, metadata=metadata, status=new.get(STATUS))
        elif resource.versions[version].has_status:
            new = _with(new, status=before.get(STATUS))
        if not new["metadata"].get("finalizers"):
            new = with_metadata(new, finalizers=None)
        self._validate(resource, version, new, before, call)
        if owners is None and old.owners is not None:
            me = (call.manager, ownership.UPDATE, call.subresource)
            owners = ownership.after_update(resource.schema(version), old, new, me)
        if new == before:
            if owners is not None and not call.dry_run:
                old.owners = owners
            return old
        if resource.has_generation and _wish(new, resource) != _wish(before, resource):
            new = with_metadata(new, generation=before["metadata"]["generation"] + 1)
        # Who reports has not written what the object asks for.
        made = Item(resource, new, writer=old.writer if call.subresource == STATUS else call.manager, owners=owners)
        if call.dry_run:
            return made
        ends = is_deleting(new) and not new["metadata"].get("deletionGracePeriodSeconds") and not _is_held(new)
        return self.store.remove(made) if ends else self.store.put(made)

    def _check_namespace(self, resource: Resource, namespace: str, name: str) -> None:
        if not resource.namespaced:
            return
        found = self.find("namespaces", ("", namespace))
        if found is None:
            raise problems.not_found("", "namespaces", namespace)
        if is_deleting(found):
            why = f"unable to create new content in namespace {namespace} because it is being terminated"
            raise problems.denied(resource.group, resource.plural, name, why)

    def _shaped(self, resource: Resource, version: str, body: Object, call: Call, *, defaults: bool = True) -> Object:
        unknown: list[str] = []
        try:
            made = shape(resource.schema(version), body, unknown=unknown, defaults=defaults)
        except ValueError as error:
            raise _undecodable(resource, version, str(error)) from error
        if unknown and call.validation == "Strict":
            fields = ", ".join(f'unknown field "{path}"' for path in unknown)
            raise _undecodable(resource, version, f"strict decoding error: {fields}")
        if call.validation == "Warn":
            call.warnings.extend(f'unknown field "{path}"' for path in unknown)
        return {key: value for key, value in made.items() if key not in {"apiVersion", "kind"}}

    def _validate(self, resource: Resource, version: str, item: Object, old: Object | None, call: Call) -> None:
        causes = list(check(resource.schema(version), item, old=ABSENT if old is None else old))
        # Built-in kinds are decoded into Go's types, and so is everybody's metadata: a wrong type ends it right there.
        for cause in causes:
            if cause.reason == TYPE_INVALID and (not resource.custom or cause.field.startswith("metadata")):
                if call.is_patch:
                    raise resource.invalid(name_of(item), [cause])
                raise _undecodable(resource, version, f"json: cannot unmarshal: {cause.field}: {cause.message}")
        causes += strategies.check_metadata(resource.plural, item, old)
        if not resource.custom and not causes:
            causes += strategies.check(resource.plural, item, old)
        if causes:
            raise resource.invalid(name_of(item), causes)


def _check_preconditions(item: Item, how: Deletion) -> None:
    metadata = item.object["metadata"]
    for what, wanted, present, why in (
        ("UID", how.uid, metadata["uid"], "deleted and then recreated"),
        ("ResourceVersion", how.version, metadata["resourceVersion"], "modified"),
    ):
        if wanted is not None and wanted != present:
            text = (
                f"the {what} in the precondition ({wanted}) does not match the {what} in record ({present}). "
                f"The object might have been {why}"
            )
            raise problems.conflict("", item.resource.kind, item.key[1], text)


def _check_identity(old: Item, metadata: Object, call: Call) -> None:
    resource, (namespace, name) = old.resource, old.key
    if metadata.get("name", name) != name:
        raise bad_request(f"the name of the object ({metadata['name']}) does not match the name on the URL ({name})")
    _check_place(metadata, namespace)
    uid, version = metadata.get("uid"), metadata.get("resourceVersion")
    if uid and uid != uid_of(old.object):
        if call.is_patch:
            raise resource.invalid(name, [problems.wrong("metadata.uid", uid, "field is immutable")])
        text = f"Precondition failed: UID in precondition: {uid}, UID in object meta: {uid_of(old.object)}"
        raise problems.conflict(resource.group, resource.plural, name, text)
    ends = metadata.get("deletionTimestamp")
    if ends and ends != old.object["metadata"].get("deletionTimestamp"):
        raise resource.invalid(name, [problems.wrong("metadata.deletionTimestamp", ends, "field is immutable")])
    if version and version != old.object["metadata"]["resourceVersion"]:
        raise problems.stale(resource.group, resource.plural, name)
    if not version and resource.custom and not call.is_patch:
        text = "must be specified for an update"
        raise resource.invalid(name, [problems.wrong("metadata.resourceVersion", 0, text)])


def _check_place(metadata: Object, namespace: str) -> None:
    if namespace and metadata.get("namespace", namespace) != namespace:
        raise bad_request("the namespace of the provided object does not match the namespace sent on the request")


def _grace(item: Item, how: Deletion) -> int:
    """Return the seconds that a kubelet has to end a pod; everything else goes at once."""
    status = item.object.get(STATUS) or {}
    if item.resource.path != "pods" or not item.object["spec"].get("nodeName") or status.get("phase") in FINISHED:
        return 0
    return max(how.grace if how.grace is not None else item.object["spec"]["terminationGracePeriodSeconds"], 0)


def _finalizers(item: Item, how: Deletion) -> list[str]:
    """Return the finalizers with the one that stands for what is to become of the dependents."""
    finalizers = list(item.object["metadata"].get("finalizers") or ())
    propagation = how.propagation
    if item.resource.path == "jobs.batch" and propagation is None and not is_deleting(item.object):
        # For clients that were there before garbage collection was (jobStrategy.DefaultGarbageCollectionPolicy).
        propagation = "Orphan"
    if propagation is not None:
        finalizers = [entry for entry in finalizers if entry not in {ORPHAN, FOREGROUND}]
        finalizers += {"Orphan": [ORPHAN], "Foreground": [FOREGROUND]}.get(propagation, [])
    return finalizers


def _is_held(item: Object) -> bool:
    """Whether somebody has to let go of an object before it can go; a namespace keeps that in its spec."""
    return bool(item["metadata"].get("finalizers") or (dig(item, "spec", "finalizers") and "phase" in item[STATUS]))


def _undecodable(resource: Resource, version: str, why: str) -> Problem:
    return bad_request(f'{resource.kind} in version "{version}" cannot be handled as a {resource.kind}: {why}')


def _metadata(body: Object) -> Object:
    metadata = body.get("metadata") or {}
    if not isinstance(metadata, dict):
        raise bad_request("json: cannot unmarshal metadata: it has to be an object")
    return metadata


def _with(item: Object, **fields: Any) -> Object:
    """Return the object with other fields; one given as None is taken out."""
    return {key: value for key, value in {**item, **fields}.items() if value is not None}


def _wish(item: Object, resource: Resource) -> Any:
    """Return the part of an object that its generation counts."""
    if not resource.custom:
        return item.get("spec")
    has_status = resource.versions[resource.storage].has_status
    return {key: value for key, value in item.items() if key != "metadata" and not (has_status and key == STATUS)}
