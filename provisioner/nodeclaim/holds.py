"""The vCPUs that agent pools are about to take and that Azure's usages do not show yet. Pure."""

import math
import re
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from typing import Final

from provisioner.apis import names
from provisioner.apis.agentpool import AgentPool
from provisioner.apis.node import Node
from provisioner.nodeclaim.asks import Ask
from provisioner.placement.size import Size

# Family in lower case, and capacity type.
HoldKey = tuple[str, str]

_GROWING: Final = frozenset({"creating", "scaling", "updating"})
_UPGRADING: Final = frozenset({"upgrading", "upgradingnodeimageversion"})
_PERCENT: Final = re.compile(r"(\d{1,3})%")
# What AKS upgrades with where a pool says nothing (https://learn.microsoft.com/azure/aks/upgrade-aks-node-pools-rolling).
_DEFAULT_SURGE: Final = "10%"


def holds(
    pools: Iterable[AgentPool],
    *,
    asks: Mapping[str, Ask],
    size_of: Callable[[str], Size | None],
    nodes_of: Callable[[str], Iterable[Node]],
    counted_at: datetime,
) -> dict[HoldKey, int]:
    """Return the vCPUs that are spoken for beyond usages which were read at `counted_at`.

    A pool that grows holds a VM for each Node that had not joined by then: a VM counts in the usages from when it is
    allocated, which is before it joins. A pool that is being upgraded holds its surge as well. `asks` are the requests
    that Azure has not answered yet, by the pool's name; those of pools that are listed already count once.
    """
    held: dict[HoldKey, int] = {}

    def hold(size: Size | None, capacity_type: str, vms: int) -> None:
        if size is not None and size.vcpus and vms > 0:
            key = size.family.lower(), capacity_type
            held[key] = held.get(key, 0) + size.vcpus * vms

    known = set()
    for pool in pools:
        known.add(pool.name)
        state = pool.state.lower()
        vms = 0
        if state in _GROWING:
            vms = pool.count - sum(node.created < counted_at for node in nodes_of(pool.name))
        elif state in _UPGRADING:
            vms = _surge(pool)
        if vms:
            hold(size_of(pool.vm_size), _capacity_type(pool), vms)
    for name, ask in asks.items():
        if name not in known:
            hold(ask.offer.size, ask.offer.capacity_type, 1)
    return held


def _capacity_type(pool: AgentPool) -> str:
    return names.CAPACITY_TYPE_SPOT if pool.spot else names.CAPACITY_TYPE_ON_DEMAND


def _surge(pool: AgentPool) -> int:
    text = pool.max_surge or _DEFAULT_SURGE
    if match := _PERCENT.fullmatch(text):
        return math.ceil(pool.count * int(match[1]) / 100)
    return int(text) if text.isascii() and text.isdigit() and len(text) < 5 else 1
