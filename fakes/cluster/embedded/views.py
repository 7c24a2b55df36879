"""How objects are shown: as they are, or as the rows of a Table."""

import json
from collections.abc import Iterable
from dataclasses import dataclass

from fakes.cluster.embedded import tables
from fakes.cluster.embedded.kinds import Resource
from fakes.cluster.embedded.objects import Object
from fakes.cluster.embedded.store import Item


@dataclass(frozen=True)
class View:
    """Renders objects of a resource in a version, as tables where the client prefers them, as kubectl does."""

    resource: Resource
    version: str
    as_table: bool

    def one(self, item: Item) -> bytes:
        """Return one object."""
        if self.as_table:
            return json.dumps(tables.table(self.resource, self.version, [item.object])).encode()
        return item.whole(self.version)

    def many(self, items: Iterable[Item], metadata: Object) -> bytes:
        """Return a list of objects."""
        if self.as_table:
            found = tables.table(self.resource, self.version, [item.object for item in items])
            return json.dumps({**found, "metadata": metadata}).encode()
        head = {
            "kind": self.resource.list_kind,
            "apiVersion": self.resource.api_version(self.version),
            "metadata": metadata,
        }
        # Items of built-in kinds carry no kind of their own in a list, those of custom resources do.
        texts = (item.whole(self.version) if self.resource.custom else item.json for item in items)
        return json.dumps(head).encode()[:-1] + b',"items":[' + b",".join(texts) + b"]}"

    def event(self, change: str, item: Item) -> bytes:
        """Return a line of a watch."""
        return b'{"type":"%s","object":%s}\n' % (change.encode(), self.one(item))

    def bookmark(self, version: int, *, initial: bool = False) -> bytes:
        """Return the line that tells up to which version a watch has come."""
        metadata: Object = {"resourceVersion": str(version)}
        if initial:
            metadata["annotations"] = {"k8s.io/initial-events-end": "true"}
        kind = {"kind": self.resource.kind, "apiVersion": self.resource.api_version(self.version)}
        return json.dumps({"type": "BOOKMARK", "object": {**kind, "metadata": metadata}}).encode() + b"\n"


def wants_table(accept: str) -> bool:
    """Whether the first media type that a client accepts is a Table."""
    return "as=Table" in accept.split(",")[0]
