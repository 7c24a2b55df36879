"""What comes and goes with its container: the content of namespaces, and the objects of CustomResourceDefinitions."""

from fakes.cluster.embedded.kinds import CRDS
from fakes.cluster.embedded.objects import Object, is_deleting, with_metadata
from fakes.cluster.embedded.rest import CRD_CLEANUP, Api, own_call
from fakes.cluster.embedded.store import Event, Item, Key

_CRD_PATH = f"{CRDS}.apiextensions.k8s.io"


class Collections:
    """Serves CRDs, furnishes new namespaces, and empties both before they go. Keys are plural and name."""

    def __init__(self, api: Api) -> None:
        self._api = api

    def keys(self, event: Event) -> list[Key]:
        """Return the namespaces and CRDs to look at."""
        resource = event.item.resource
        if resource.path == _CRD_PATH:
            # At once: whoever has been told that a kind is there finds it served.
            if event.change != "DELETED":
                self._api.store.collection(self._api.registry.install(event.item.object))
            else:
                self._drop(event.item.object)
            return [(CRDS, event.item.key[1])]
        if resource.path == "namespaces":
            return [("namespaces", event.item.key[1])]
        if event.change == "DELETED":
            container = [("namespaces", event.item.key[0])] if resource.namespaced else []
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
        if plural == "namespaces":
            content = list(self._api.store.in_namespace(name))
        else:
            spec = container["spec"]
            resource = self._api.registry.get(spec["group"], spec["names"]["plural"])
            content = list(self._api.store.collection(resource).items.values()) if resource else []
        for item in content:
            self._delete(item)
        left = [item for item in content if self._api.store.by_uid(item.object["metadata"]["uid"])]
        if not left:
            self._let_go(plural, container)

    def _furnish(self, namespace: str) -> None:
        ca = {"metadata": {"name": "kube-root-ca.crt"}, "data": {"ca.crt": ""}}
        for plural, body in (("serviceaccounts", {"metadata": {"name": "default"}}), ("configmaps", ca)):
            if self._api.find(plural, (namespace, body["metadata"]["name"])) is None:
                self._api.create(self._api.registry.built_in(plural), body, namespace=namespace)

    def _delete(self, item: Item) -> None:
        if not is_deleting(item.object) and self._api.store.get(item.resource, item.key) is not None:
            self._api.delete(item.resource, item.key)

    def _let_go(self, plural: str, container: Object) -> None:
        def edit(content: Object) -> Object:
            if plural == "namespaces":
                return {**content, "spec": {}}
            left = [entry for entry in content["metadata"].get("finalizers", ()) if entry != CRD_CLEANUP]
            return with_metadata(content, finalizers=left or None)

        key = ("", container["metadata"]["name"])
        self._api.update(self._api.registry.built_in(plural), key, edit, call=own_call())

    def _drop(self, crd: Object) -> None:
        spec = crd["spec"]
        if resource := self._api.registry.get(spec["group"], spec["names"]["plural"]):
            self._api.registry.remove(crd)
            self._api.store.drop(resource)
