"""What controllers of pods have in common."""

import hashlib
import json
from typing import Any, ClassVar

from fakes.cluster.embedded.objects import Object, condition, controller_of, is_deleting, name_of, namespace_of, uid_of
from fakes.cluster.embedded.rest import FINISHED, Api
from fakes.cluster.embedded.store import Event, Key

HASH_LABEL = "controller-revision-hash"


class Workload:
    """A controller of objects of one kind that own others. Subclasses say which, and what to do about one of them."""

    plural: ClassVar[str]
    kind: ClassVar[str]
    group: ClassVar[str] = "apps"
    owned: ClassVar[str] = "pods"

    def __init__(self, api: Api) -> None:
        self.api = api

    def keys(self, event: Event) -> list[Key]:
        """Return the objects that a change concerns: itself, or the controller of what has changed."""
        path, item = event.item.resource.path, event.item.object
        if path == f"{self.plural}.{self.group}":
            return [event.item.key]
        owner = controller_of(item) if path == self.owned else None
        return [(namespace_of(item), owner["name"])] if owner is not None and owner["kind"] == self.kind else []

    def sync(self, key: Key) -> None:
        """Bring one object on."""
        item = self.api.find(self.plural, key)
        if item is not None and not is_deleting(item):
            self.reconcile(item)

    def reconcile(self, item: Object) -> None:
        """Do what is due for an object that is there to stay."""
        raise NotImplementedError

    def dependents(self, item: Object) -> list[Object]:
        """Return the objects that this one controls, sorted by name."""
        found = (entry for entry in self.api.store.dependents(uid_of(item)) if entry.resource.path == self.owned)
        return sorted((entry.object for entry in found), key=name_of)

    def create_pod(self, owner: Object, *, name: str = "", labels: dict[str, str] | None = None, **spec: Any) -> None:
        """Create a pod of the template, with such a name or one made of its owner's; `spec` replaces fields."""
        template = owner["spec"]["template"]
        metadata = {key: template.get("metadata", {}).get(key) for key in ("annotations", "finalizers")}
        metadata["labels"] = {**(template.get("metadata", {}).get("labels") or {}), **(labels or {})}
        metadata |= {"name": name} if name else {"generateName": f"{name_of(owner)}-"}
        metadata["ownerReferences"] = [self.reference(owner)]
        body = {"metadata": metadata, "spec": {**template["spec"], **spec}}
        self.api.create(self.api.registry.built_in("pods"), body, namespace=namespace_of(owner))

    def delete(self, item: Object) -> None:
        """Delete a dependent, unless it is on its way."""
        if not is_deleting(item):
            resource = next(r for r in self.api.registry if r.path == self.owned)
            self.api.delete(resource, (namespace_of(item), name_of(item)))

    def write_status(self, item: Object, **status: Any) -> None:
        """Write the status, without what is None."""
        made = {"observedGeneration": item["metadata"]["generation"], **status}
        made = {key: value for key, value in made.items() if value is not None}
        if made != item.get("status"):
            self.api.write_status(self.plural, item, made)

    def reference(self, owner: Object) -> Object:
        """Return the owner reference of a controller."""
        api_version = f"{self.group}/v1"
        about = {"apiVersion": api_version, "kind": self.kind, "name": name_of(owner), "uid": uid_of(owner)}
        return {**about, "controller": True, "blockOwnerDeletion": True}


def is_active(pod: Object) -> bool:
    """Whether a pod counts: neither finished nor on its way out."""
    return pod["status"].get("phase") not in FINISHED and not is_deleting(pod)


def is_ready(pod: Object) -> bool:
    """Whether a pod is Ready and stays."""
    return condition(pod, "Ready").get("status") == "True" and is_active(pod)


def revision(item: Object) -> str:
    """Return a short name for the present template."""
    text = json.dumps(item["spec"]["template"], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:10]
