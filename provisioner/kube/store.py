"""The latest NodeClaims and Nodes, as watches, full lists and the answers to our own patches told of them.

Those three arrive in any order. What is older than what is here is dropped, and an object that was seen to go does
not come back by a late answer. Nothing here waits: all of it happens between two awaits.
"""

import logging
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any, Final, Generic, TypeVar

from provisioner.apis.node import Node, parse_node
from provisioner.apis.nodeclaim import NodeClaim, parse_nodeclaim

_log = logging.getLogger(__name__)

Item = TypeVar("Item", NodeClaim, Node)
Raw = Mapping[str, Any]

# UIDs of objects that went. An answer is late by seconds at most; so many do not go within that time.
_TOMBSTONES: Final = 4096
# What a parser can stumble over in an object that no API server should have accepted.
_UNREADABLE: Final = (KeyError, TypeError, ValueError, AttributeError, ArithmeticError)


class Store:
    """The objects by name, with the look-ups that reconcilers need. Not thread safe."""

    def __init__(self) -> None:
        self._claims = _Table[NodeClaim](
            parse_nodeclaim, {"uid": lambda claim: claim.uid, "pool": lambda claim: claim.agent_pool.lower()}
        )
        self._nodes = _Table[Node](
            parse_node,
            {"pool": lambda node: node.agent_pool.lower(), "provider_id": lambda node: node.provider_id.lower()},
        )

    @property
    def synced(self) -> bool:
        """Tell whether both kinds were listed in full once. Before that, absence here means nothing."""
        return self._claims.listed and self._nodes.listed

    # NodeClaims

    @property
    def claims(self) -> tuple[NodeClaim, ...]:
        """Return all claims."""
        return tuple(self._claims.items.values())

    def claim(self, name: str) -> NodeClaim | None:
        """Return the claim of that name."""
        return self._claims.items.get(name)

    def claim_by_uid(self, uid: str) -> NodeClaim | None:
        """Return the claim with that UID."""
        return next(iter(self._claims.find("uid", uid)), None)

    def claims_of_pool(self, agent_pool: str) -> list[NodeClaim]:
        """Return the claims that have recorded that agent pool, by name."""
        return self._claims.find("pool", agent_pool.lower())

    def put_claim(self, raw: Raw) -> bool:
        """Take a claim as the API server sent it. Returns whether that changed anything but its resourceVersion."""
        return self._claims.put(raw)

    def remove_claim(self, name: str, *, uid: str) -> NodeClaim | None:
        """Drop a deleted claim. Returns it, None where a claim with that UID is not here."""
        return self._claims.remove(name, uid)

    def replace_claims(self, raws: Iterable[Raw], *, resource_version: str) -> dict[str, NodeClaim]:
        """Take a full list, read at that version. Returns by name what is new, different or (as last seen) gone."""
        return self._claims.replace(raws, resource_version)

    # Nodes

    @property
    def nodes(self) -> tuple[Node, ...]:
        """Return all Nodes."""
        return tuple(self._nodes.items.values())

    def node(self, name: str) -> Node | None:
        """Return the Node of that name."""
        return self._nodes.items.get(name)

    def nodes_of_pool(self, agent_pool: str) -> list[Node]:
        """Return the Nodes of an agent pool, by name."""
        return self._nodes.find("pool", agent_pool.lower())

    def nodes_by_provider_id(self, provider_id: str) -> list[Node]:
        """Return the Nodes with that provider ID, whatever its case: one, but for a machine that joined anew."""
        return self._nodes.find("provider_id", provider_id.lower())

    def put_node(self, raw: Raw) -> bool:
        """Take a Node as the API server sent it. Returns whether anything we read changed, as no heartbeat does."""
        return self._nodes.put(raw)

    def remove_node(self, name: str, *, uid: str) -> Node | None:
        """Drop a deleted Node. Returns it, None where a Node with that UID is not here."""
        return self._nodes.remove(name, uid)

    def replace_nodes(self, raws: Iterable[Raw], *, resource_version: str) -> dict[str, Node]:
        """Take a full list, read at that version. Returns by name what is new, different or (as last seen) gone."""
        return self._nodes.replace(raws, resource_version)


class _Table(Generic[Item]):
    """Objects of one kind. An empty index key is not indexed."""

    def __init__(self, parse: Callable[[Raw], Item], indexes: Mapping[str, Callable[[Item], str]]) -> None:
        self._parse: Callable[[Raw], Item] = parse
        self._key_of: Mapping[str, Callable[[Item], str]] = indexes
        self._index: dict[str, defaultdict[str, set[str]]] = {index: defaultdict(set) for index in indexes}
        self._gone: OrderedDict[str, None] = OrderedDict()
        self.items: dict[str, Item] = {}
        self.listed = False

    def find(self, index: str, key: str) -> list[Item]:
        """Return the objects under an index key, by name."""
        return [self.items[name] for name in sorted(self._index[index].get(key, ()))]

    def put(self, raw: Raw) -> bool:
        """Take an object; returns whether what we read of it is new."""
        try:
            new = self._parse(raw)
        except _UNREADABLE as error:
            # Not the object itself: it may be of any size and hold anything.
            _log.warning("An object that cannot be read is left out: %s (%r)", _name(raw), error)
            return False
        old = self.items.get(new.name)
        if new.uid in self._gone or (old is not None and _is_older(new.resource_version, old.resource_version)):
            return False
        if old is not None:
            if old.uid != new.uid:
                self._bury(old.uid)
            self._unindex(old)
        self.items[new.name] = new
        for index, key_of in self._key_of.items():
            if key := key_of(new):
                self._index[index][key].add(new.name)
        return old is None or replace(new, resource_version=old.resource_version) != old

    def remove(self, name: str, uid: str) -> Item | None:
        """Drop an object for good."""
        self._bury(uid)
        old = self.items.get(name)
        if old is None or old.uid != uid:
            return None
        self._unindex(old)
        return self.items.pop(name)

    def replace(self, raws: Iterable[Raw], version: str) -> dict[str, Item]:
        """Take a full list as of a version."""
        changed: dict[str, Item] = {}
        names = set()
        for raw in raws:
            names.add(name := _name(raw))
            if self.put(raw):
                changed[name] = self.items[name]
        # An object that is newer than the list was made after it was read, or has been patched since.
        ghosts = [
            item
            for item in self.items.values()
            if item.name not in names and not _is_older(version, item.resource_version)
        ]
        for ghost in ghosts:
            self._unindex(ghost)
            changed[ghost.name] = self.items.pop(ghost.name)
            if _are_comparable(version, ghost.resource_version):
                self._bury(ghost.uid)
        self.listed = True
        return changed

    def _bury(self, uid: str) -> None:
        self._gone[uid] = None
        while len(self._gone) > _TOMBSTONES:
            self._gone.popitem(last=False)

    def _unindex(self, item: Item) -> None:
        for index, key_of in self._key_of.items():
            if key := key_of(item):
                names = self._index[index][key]
                names.discard(item.name)
                if not names:
                    del self._index[index][key]


def _is_older(version: str, than: str) -> bool:
    # Comparable by Kubernetes' own promise since 1.35 and in fact ever since: etcd's revision. Anything else (another
    # storage) is not compared but taken as it comes.
    return _are_comparable(version, than) and int(version) < int(than)


def _are_comparable(*versions: str) -> bool:
    return all(version.isdecimal() for version in versions)


def _name(raw: Raw) -> str:
    metadata = raw.get("metadata")
    return str(metadata.get("name", "")) if isinstance(metadata, Mapping) else ""
