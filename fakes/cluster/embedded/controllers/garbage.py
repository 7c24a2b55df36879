"""Garbage collection by owner references, in the background, in the foreground, or not at all.

https://kubernetes.io/docs/concepts/architecture/garbage-collection/
"""

from fakes.cluster.embedded.objects import Object, is_deleting, uid_of, with_metadata
from fakes.cluster.embedded.rest import FOREGROUND, ORPHAN, Api, Deletion, Propagation, own_call
from fakes.cluster.embedded.store import Event, Item, Key


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
        if is_deleting(item.object) and ORPHAN in finalizers:
            for dependent in self._api.store.dependents(key[1]):
                self._disown(dependent, {key[1]})
            self._release(item, ORPHAN)
        elif is_deleting(item.object) and FOREGROUND in finalizers:
            dependents = self._api.store.dependents(key[1])
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
        here = {uid: owner for uid, owner in owners.items() if owner and owner.key[0] in {"", item.key[0]}}
        staying = [owner for owner in here.values() if not _waits(owner)]
        if staying and len(staying) < len(references):
            self._disown(item, owners.keys() - {_uid(owner) for owner in staying})
        elif not staying:
            mode: Propagation = "Foreground" if here and self._api.store.dependents(_uid(item)) else "Background"
            self._api.delete(item.resource, item.key, Deletion(uid=_uid(item), propagation=mode))

    def _disown(self, item: Item, owners: set[str]) -> None:
        def edit(content: Object) -> Object:
            left = [owner for owner in content["metadata"]["ownerReferences"] if owner["uid"] not in owners]
            return with_metadata(content, ownerReferences=left or None)

        self._write(item, edit(item.object))

    def _release(self, item: Item, finalizer: str) -> None:
        left = [entry for entry in item.object["metadata"]["finalizers"] if entry != finalizer]
        self._write(item, with_metadata(item.object, finalizers=left or None))

    def _write(self, item: Item, content: Object) -> None:
        kind = {"apiVersion": item.resource.api_version(item.resource.storage), "kind": item.resource.kind}
        self._api.update(item.resource, item.key, lambda _: {**content, **kind}, call=own_call())


def _uid(item: Item) -> str:
    return uid_of(item.object)


def _waits(owner: Item) -> bool:
    return is_deleting(owner.object) and FOREGROUND in (owner.object["metadata"].get("finalizers") or ())


def _blocks(item: Item, owner: str) -> bool:
    return any(o["uid"] == owner and o.get("blockOwnerDeletion") for o in item.object["metadata"]["ownerReferences"])
