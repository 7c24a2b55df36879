"""What goes with something else: objects with their owners, the content of namespaces, and the objects of CRDs.

https://kubernetes.io/docs/concepts/architecture/garbage-collection/
"""

from datetime import UTC, datetime, timedelta
from typing import Final

from fakes.cluster.embedded.api import CRD_CLEANUP, FOREGROUND, ORPHAN, Api, Deletion, Propagation
from fakes.cluster.embedded.objects import Object, is_deleting, name_of, namespace_of, uid_of, with_metadata
from fakes.cluster.embedded.resources import CRDS
from fakes.cluster.embedded.store import Event, Item, Key

_CRD_PATH: Final = f"{CRDS}.apiextensions.k8s.io"
# How long the API server keeps events (its flag --event-ttl).
_EVENT_LIFE: Final = timedelta(hours=1)


class Garbage:
    """Looks at an object when it is new, when its owner has gone, and when it waits for its dependents."""

    def __init__(self, api: Api) -> None:
        self._api = api

    def keys(self, event: Event) -> list[Key]:
        """Return the UIDs to look at, as keys without a namespace."""
        item = event.item.object
        owners = [owner["uid"] for owner in item["metadata"].get("ownerReferences") or ()]
        if event.change == "DELETED":
            return [("", uid) for uid in (*owners, *map(_uid, self._api.store.dependents(uid_of(item))))]
        before = event.old.object["metadata"].get("ownerReferences") if event.old else None
        if is_deleting(item) or (owners and before != item["metadata"].get("ownerReferences")):
            return [("", uid_of(item))]
        return []

    def sync(self, key: Key) -> None:
        """Delete what nobody owns any more, and let go of owners whose dependents are gone."""
        item = self._api.store.by_uid(key[1])
        if item is None:
            return
        finalizers = item.object["metadata"].get("finalizers") or ()
        dependents = self._api.store.dependents(key[1])
        if is_deleting(item.object) and ORPHAN in finalizers:
            for dependent in dependents:
                self._disown(dependent, {key[1]})
            self._release(item, ORPHAN)
        elif is_deleting(item.object) and FOREGROUND in finalizers:
            for dependent in dependents:
                self._check_owners(dependent)
            if not any(_blocks(dependent, key[1]) for dependent in self._api.store.dependents(key[1])):
                self._release(item, FOREGROUND)
        elif item.object["metadata"].get("ownerReferences"):
            self._check_owners(item)

    def _check_owners(self, item: Item) -> None:
        if is_deleting(item.object):
            return
        references = item.object["metadata"]["ownerReferences"]
        # An owner is looked for where it can be: beside the object, or among those without a namespace.
        owners = {reference["uid"]: self._api.store.by_uid(reference["uid"]) for reference in references}
        here = [owner for owner in owners.values() if owner and owner.key[0] in {"", item.key[0]}]
        staying = [owner for owner in here if not _waits(owner)]
        if staying and len(staying) < len(references):
            self._disown(item, owners.keys() - set(map(_uid, staying)))
        elif not staying:
            mode: Propagation = "Foreground" if here and self._api.store.dependents(_uid(item)) else "Background"
            self._api.delete(item.resource, item.key, Deletion(uid=_uid(item), propagation=mode))

    def _disown(self, item: Item, owners: set[str]) -> None:
        left = [owner for owner in item.object["metadata"]["ownerReferences"] if owner["uid"] not in owners]
        self._api.keep(item.become(with_metadata(item.object, ownerReferences=left or None)))

    def _release(self, item: Item, finalizer: str) -> None:
        self._api.keep(item.become(_without_finalizer(item.object, finalizer)))


class Collections:
    """Serves CRDs, furnishes new namespaces, and empties both before they go. Keys are plural and name."""

    def __init__(self, api: Api) -> None:
        self._api = api

    def keys(self, event: Event) -> list[Key]:
        """Return the namespaces and CRDs to look at."""
        resource, (namespace, name) = event.item.resource, event.item.key
        if resource.path == _CRD_PATH:
            # At once: whoever has been told that a kind is there finds it served.
            if event.change == "DELETED":
                self._api.registry.remove(event.item.object)
                self._api.store.drop(name)
            else:
                self._api.registry.install(event.item.object)
                self._api.store.open(name)
            return [(CRDS, name)]
        if resource.path == "namespaces":
            return [("namespaces", name)]
        if event.change == "DELETED":
            container = [("namespaces", namespace)] if resource.namespaced else []
            return [*container, *([(CRDS, resource.path)] if resource.custom else [])]
        return []

    def sync(self, key: Key) -> None:
        """Furnish or empty one."""
        plural, name = key
        container = self._api.find(plural, ("", name))
        if container is None:
            return
        if not is_deleting(container):
            if plural == "namespaces":
                self._furnish(name)
            return
        for item in self._content(plural, name):
            if not is_deleting(item.object):
                self._api.delete(item.resource, item.key)
        if self._content(plural, name):
            return
        if plural == "namespaces":
            self._api.write(plural, container, spec={})
        else:
            self._api.write(plural, container, metadata=_without_finalizer(container, CRD_CLEANUP)["metadata"])

    def _content(self, plural: str, name: str) -> list[Item]:
        store = self._api.store
        if plural == "namespaces":
            return store.in_namespace(name)
        resource = next((resource for resource in self._api.registry if resource.path == name), None)
        return list(store.collection(resource).items.values()) if resource is not None else []

    def _furnish(self, namespace: str) -> None:
        ca = {"metadata": {"name": "kube-root-ca.crt"}, "data": {"ca.crt": ""}}
        for plural, body in (("serviceaccounts", {"metadata": {"name": "default"}}), ("configmaps", ca)):
            if self._api.find(plural, (namespace, body["metadata"]["name"])) is None:
                self._api.create(self._api.kind(plural), body, namespace=namespace)


class Expiry:
    """Deletes the events that are too old whenever there is a new one."""

    def __init__(self, api: Api) -> None:
        self._api = api

    def keys(self, event: Event) -> list[Key]:
        """Return one and the same key for all events."""
        return [("", "events")] if event.item.resource.path == "events" and event.change == "ADDED" else []

    def sync(self, _key: Key) -> None:
        """Delete, beginning with the oldest, which are the first ones."""
        for event in self._api.objects("events"):
            age = datetime.now(UTC) - datetime.fromisoformat(event["metadata"]["creationTimestamp"])
            if age < _EVENT_LIFE:
                return
            self._api.delete(self._api.kind("events"), (namespace_of(event), name_of(event)))


def _without_finalizer(content: Object, finalizer: str) -> Object:
    left = [entry for entry in content["metadata"].get("finalizers") or () if entry != finalizer]
    return with_metadata(content, finalizers=left or None)


def _uid(item: Item) -> str:
    return uid_of(item.object)


def _waits(owner: Item) -> bool:
    return is_deleting(owner.object) and FOREGROUND in (owner.object["metadata"].get("finalizers") or ())


def _blocks(item: Item, owner: str) -> bool:
    return any(o["uid"] == owner and o.get("blockOwnerDeletion") for o in item.object["metadata"]["ownerReferences"])
