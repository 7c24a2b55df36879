"""Agent pools by name and by the claim that their tag names, so that nobody has to look through all of them."""

from collections.abc import Iterable, Mapping
from types import MappingProxyType

from provisioner.apis.agentpool import AgentPool


class PoolIndex:
    """Agent pools, each found by its name and by the claim UID of its tag; those without the tag by name alone."""

    def __init__(self, pools: Iterable[AgentPool] = ()) -> None:
        self._by_name: dict[str, AgentPool] = {}
        # A claim has one pool as a rule, and nothing holds it to that: somebody may have copied a pool, tags and all.
        self._by_claim: dict[str, dict[str, AgentPool]] = {}
        for pool in pools:
            self.put(pool)

    @property
    def by_name(self) -> Mapping[str, AgentPool]:
        """Return all pools by name: a view, which changes with the index."""
        return MappingProxyType(self._by_name)

    def of_claim(self, uid: str) -> tuple[AgentPool, ...]:
        """Return the pools whose tag names the claim of that UID."""
        return tuple(self._by_claim.get(uid, {}).values())

    def put(self, pool: AgentPool) -> None:
        """Add a pool, in place of the one of its name."""
        self.drop(pool.name)
        self._by_name[pool.name] = pool
        if pool.claim_uid:
            self._by_claim.setdefault(pool.claim_uid, {})[pool.name] = pool

    def drop(self, name: str) -> None:
        """Remove the pool of that name, if there is one."""
        pool = self._by_name.pop(name, None)
        if pool is None or not pool.claim_uid:
            return
        of_claim = self._by_claim[pool.claim_uid]
        del of_claim[name]
        if not of_claim:
            del self._by_claim[pool.claim_uid]
