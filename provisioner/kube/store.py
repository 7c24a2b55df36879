"""The latest NodeClaims and Nodes, with the look-ups that reconcilers of claims need; table.py says how they last."""

from collections.abc import Iterable

from provisioner.apis.node import Node, parse_node
from provisioner.apis.nodeclaim import NodeClaim, parse_nodeclaim
from provisioner.kube.table import Raw, Table


class Store:
    """The objects by name, with the look-ups that reconcilers need. Not thread safe."""

    def __init__(self) -> None:
        self._claims = Table[NodeClaim](
            parse_nodeclaim, {"uid": lambda claim: claim.uid, "pool": lambda claim: claim.agent_pool.lower()}
        )
        self._nodes = Table[Node](
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
