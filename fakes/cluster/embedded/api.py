"""What may be done with objects: create, change, apply, delete. No HTTP here, and nothing that waits."""

import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Literal

from fakes.cluster.embedded import ownership, problems, resources, rules
from fakes.cluster.embedded.objects import (
    Object,
    dig,
    is_deleting,
    name_of,
    namespace_of,
    now,
    suffix,
    uid_of,
    with_metadata,
)
from fakes.cluster.embedded.problems import TYPE_INVALID, Problem, bad_request
from fakes.cluster.embedded.resources import Registry, Resource
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
_STALE: Final = "the object has been modified; please apply your changes to the latest version and try again"


@dataclass(frozen=True, kw_only=True)
class Call:
    """How a write is meant, by default as controllers mean it. `warnings` is what to say beside the answer."""

    manager: str = "kube-controller-manager"
    subresource: str = ""
    dry_run: bool = False
    validation: str = "Ignore"
    is_patch: bool = True
    warnings: list[str] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class Deletion:
    """How a deletion is meant: of which UID and version, with how many seconds of grace."""

    uid: str | None = None
    version: str | None = None
    grace: int | None = None
    propagation: Propagation | None = None
    dry_run: bool = False


class Api:
    """The resources and their objects."""

    def __init__(self) -> None:
        self.registry = Registry()
        self.store = Store()
        for resource in self.registry:
            self.store.open(resource.path)

    def kind(self, plural: str) -> Resource:
        """Return a built-in resource."""
        return self.registry.built_in[plural]

    def get(self, resource: Resource, key: Key) -> Item:
        """Return an object. Raises Problem: 404."""
        item = self.store.get(resource, key)
        if item is None:
            raise resource.not_found(key[1])
        return item

    def objects(self, plural: str, *, namespace: str = "") -> list[Object]:
        """Return all objects of a built-in resource, or those of a namespace."""
        items = self.store.collection(self.kind(plural)).items.values()
        return [item.object for item in items if not namespace or item.key[0] == namespace]

    def find(self, plural: str, key: Key) -> Object | None:
        """Return an object of a built-in resource, None where there is none."""
        item = self.store.get(self.kind(plural), key)
        return None if item is None else item.object

    def write(self, plural: str, item: Object, **fields: Any) -> None:
        """Replace fields of an object of a built-in resource, as controllers do: nobody owns them, nothing checks."""
        present = self.get(self.kind(plural), (namespace_of(item), name_of(item)))
        self.keep(present.become({**present.object, **fields}))

    def keep(self, item: Item) -> Item:
        """Store an object; one that is to go and that nothing holds any more goes."""
        content = item.object
        ends = is_deleting(content) and not content["metadata"].get("deletionGracePeriodSeconds")
        if ends and not _is_held(content):
            return self.store.remove(item)
        present = self.store.get(item.resource, item.key)
        return present if present is not None and present.object == content else self.store.put(item)

    def create(
        self,
        resource: Resource,
        body: Object,
        *,
        namespace: str = "",
        call: Call | None = None,
        owners: ownership.Owners | None = None,
    ) -> Item:
        """Create an object. Raises Problem."""
        call = call or Call()
        metadata = {**_metadata(body)}
        _check_place(metadata, namespace)
        if metadata.get("resourceVersion"):
            raise Problem(500, "", "resourceVersion should not be set on objects to be created")
        if not metadata.get("name"):
            if not metadata.get("generateName"):
                raise resource.invalid("", [problems.required("metadata.name", "name or generateName is required")])
            metadata["name"] = metadata["generateName"] + suffix()
        self._check_namespace(resource, namespace, str(metadata["name"]))
        metadata = {key: value for key, value in metadata.items() if key not in _SERVERS}
        item = self._shaped(resource, {**body, "metadata": metadata}, call)
        generation = 1 if resource.has_generation else None
        item = with_metadata(
            item, namespace=namespace or None, uid=str(uuid.uuid4()), creationTimestamp=now(), generation=generation
        )
        if resource.has_status and resource.path != "nodes":
            item.pop(STATUS, None)
        try:
            if not resource.custom:
                rules.complete(resource.plural, item)
        except (AttributeError, KeyError, TypeError):
            # What has another shape than is thought of is told of as such; anything else is a bug.
            self._validate(resource, item, None, call)
            raise
        self._validate(resource, item, None, call)
        if self.store.get(resource, (namespace, name_of(item))) is not None:
            raise resource.problem(409, "AlreadyExists", name_of(item), "already exists")
        if resource.plural == resources.CRDS:
            item = with_metadata(item, finalizers=[*item["metadata"].get("finalizers", ()), CRD_CLEANUP])
            if ignored := resources.rules_ignored(item["spec"]["versions"]):
                call.warnings.append(f"{ignored} rules of x-kubernetes-validations are not evaluated by this server")
        made = Item(resource, item, writer=call.manager, owners=owners)
        return made if call.dry_run else self.store.put(made)

    def update(
        self,
        resource: Resource,
        key: Key,
        edit: Edit,
        call: Call | None = None,
        *,
        owners: ownership.Owners | None = None,
    ) -> Item:
        """Change an object: `edit` makes the new one of the old one. Raises Problem."""
        call = call or Call()
        old = self.get(resource, key)
        before = old.object
        proposed = edit(before)
        _check_identity(old, _metadata(proposed), call)
        kept = {name: before["metadata"].get(name) for name in ("name", "namespace", *_SERVERS)}
        new = self._shaped(resource, with_metadata(proposed, **kept), call)
        if call.subresource == STATUS:
            # Labels and annotations of custom resources are not written by the way, those of built-in kinds are.
            metadata = before["metadata"] if resource.custom else new["metadata"]
            new = _with(before, metadata=metadata, status=new.get(STATUS))
        elif resource.has_status:
            new = _with(new, status=before.get(STATUS))
        if not new["metadata"].get("finalizers"):
            new = with_metadata(new, finalizers=None)
        self._validate(resource, new, before, call)
        if owners is None and old.owners is not None:
            me = (call.manager, ownership.UPDATE, call.subresource)
            owners = ownership.after_update(resource.schema, old.owners, before, new, me)
        if new == before:
            if owners is not None and not call.dry_run:
                old.owners = owners
            return old
        if resource.has_generation and _wish(new, resource) != _wish(before, resource):
            new = with_metadata(new, generation=before["metadata"]["generation"] + 1)
        # Who reports has not written what the object asks for.
        made = Item(resource, new, writer=old.writer if call.subresource == STATUS else call.manager, owners=owners)
        return made if call.dry_run else self.keep(made)

    def apply(self, resource: Resource, key: Key, config: Object, *, call: Call, force: bool) -> tuple[Item, bool]:
        """Apply a configuration; return the object and whether it is new. Raises Problem."""
        me = (call.manager, ownership.APPLY, call.subresource)
        wanted = {**self._shaped(resource, config, call, defaults=False), **resource.head}
        live = self.store.get(resource, key)
        if live is None:
            if call.subresource:
                raise resource.not_found(key[1])
            owners = ownership.applied(resource.schema, wanted, me)
            return self.create(resource, wanted, namespace=key[0], call=call, owners=owners), True
        merged, owners = ownership.apply(resource, live, wanted, me=me, force=force)
        return self.update(resource, key, lambda _: merged, call, owners=owners), False

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

    def _check_namespace(self, resource: Resource, namespace: str, name: str) -> None:
        if not resource.namespaced:
            return
        found = self.find("namespaces", ("", namespace))
        if found is None:
            raise self.kind("namespaces").not_found(namespace)
        if is_deleting(found):
            why = f"unable to create new content in namespace {namespace} because it is being terminated"
            raise resource.problem(403, "Forbidden", name, f"is forbidden: {why}")

    def _shaped(self, resource: Resource, body: Object, call: Call, *, defaults: bool = True) -> Object:
        unknown: list[str] = []
        try:
            made = shape(resource.schema, body, unknown=unknown, defaults=defaults)
            if resource.path == "secrets":
                rules.code_secret(made)
        except (ValueError, AttributeError) as error:
            raise _undecodable(resource, str(error)) from error
        if unknown and call.validation == "Strict":
            fields = ", ".join(f'unknown field "{path}"' for path in unknown)
            raise _undecodable(resource, f"strict decoding error: {fields}")
        if call.validation == "Warn":
            call.warnings.extend(f'unknown field "{path}"' for path in unknown)
        return {key: value for key, value in made.items() if key not in resource.head}

    def _validate(self, resource: Resource, item: Object, old: Object | None, call: Call) -> None:
        causes = list(check(resource.schema, item, old=ABSENT if old is None else old))
        # Built-in kinds are decoded into Go's types, and so is everybody's metadata: a wrong type ends it right there.
        for cause in causes:
            if cause.reason == TYPE_INVALID and (not resource.custom or cause.field.startswith("metadata")):
                if call.is_patch:
                    raise resource.invalid(name_of(item), [cause])
                raise _undecodable(resource, f"json: cannot unmarshal: {cause.field}: {cause.message}")
        causes += rules.check_metadata(resource.plural, item, old)
        if not resource.custom and not causes:
            causes += rules.check(resource.plural, item, old)
        if causes:
            raise resource.invalid(name_of(item), causes)


def _check_preconditions(item: Item, how: Deletion) -> None:
    metadata = item.object["metadata"]
    wanted = (("UID", how.uid, metadata["uid"]), ("ResourceVersion", how.version, metadata["resourceVersion"]))
    for what, asked, present in wanted:
        if asked is not None and asked != present:
            text = f"the {what} in the precondition ({asked}) does not match the {what} in record ({present})"
            raise item.resource.conflict(item.key[1], text)


def _check_identity(old: Item, metadata: Object, call: Call) -> None:
    resource, (namespace, name), present = old.resource, old.key, old.object["metadata"]
    if metadata.get("name", name) != name:
        raise bad_request(f"the name of the object ({metadata['name']}) does not match the name on the URL ({name})")
    _check_place(metadata, namespace)
    if (uid := metadata.get("uid")) and uid != uid_of(old.object):
        if call.is_patch:
            raise resource.invalid(name, [problems.wrong("metadata.uid", uid, "field is immutable")])
        why = f"Precondition failed: UID in precondition: {uid}, UID in object meta: {uid_of(old.object)}"
        raise resource.conflict(name, why)
    if (ends := metadata.get("deletionTimestamp")) and ends != present.get("deletionTimestamp"):
        raise resource.invalid(name, [problems.wrong("metadata.deletionTimestamp", ends, "field is immutable")])
    version = metadata.get("resourceVersion")
    if version and version != present["resourceVersion"]:
        raise resource.conflict(name, _STALE)
    if not version and resource.custom and not call.is_patch:
        cause = problems.wrong("metadata.resourceVersion", 0, "must be specified for an update")
        raise resource.invalid(name, [cause])


def _check_place(metadata: Object, namespace: str) -> None:
    if namespace and metadata.get("namespace", namespace) != namespace:
        raise bad_request("the namespace of the provided object does not match the namespace sent on the request")


def _grace(item: Item, how: Deletion) -> int:
    """Return the seconds that a kubelet has to end a pod; everything else goes at once."""
    if item.resource.path != "pods" or not item.object["spec"].get("nodeName"):
        return 0
    if item.object[STATUS].get("phase") in FINISHED:
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


def _undecodable(resource: Resource, why: str) -> Problem:
    return bad_request(f'{resource.kind} in version "{resource.version}" cannot be handled as a {resource.kind}: {why}')


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
    return {key: v for key, v in item.items() if key != "metadata" and not (resource.has_status and key == STATUS)}
