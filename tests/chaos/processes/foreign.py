"""What is none of the controller's business and has to stay as it is: agent pools of users, and a claim for others."""

from collections.abc import Mapping
from copy import deepcopy
from functools import partial
from typing import Any, Final

from fakes.aks import FakeAks
from tests.chaos.processes.script import TAKEN
from tests.claims import kaito_claim
from tests.kube import CLAIMS, Kube, eventually
from tests.scenarios.azure_side import USERS_POOL
from tests.scenarios.on_azure import put_pool, wait_pool

_POOLS: Final[Mapping[str, Mapping[str, Any]]] = {
    TAKEN: {},
    # As people make them who bring nodes of their own to KAITO.
    "byonode": {"nodeLabels": {"kaito.sh/workspace": "ws", "karpenter.sh/nodepool": "kaito"}},
}
FOREIGN_POOLS: Final = ("systempool", *_POOLS)
FOREIGN_CLAIM: Final = "foreign"


async def put_foreign(aks: FakeAks, kube: Kube) -> None:
    """Make it all, and wait for the Nodes."""
    for name, properties in _POOLS.items():
        put_pool(aks, name, **{**USERS_POOL, **properties})
    claim = kaito_claim(FOREIGN_CLAIM)
    claim["metadata"]["labels"] = {}
    claim["spec"]["nodeClassRef"] = {"group": "example.com", "kind": "Other", "name": "default"}
    await kube.create(CLAIMS, claim)
    for name in _POOLS:
        await wait_pool(aks, name, "Succeeded")
        await eventually(partial(kube.nodes_of_pool, name), what=f"a Node of {name}")


async def look_at_foreign(aks: FakeAks, kube: Kube) -> dict[str, Any]:
    """Return all of it: agent pools as ARM shows them, but for their state, which VMs and Nodes, and the claim."""
    cluster = aks.azure.cluster
    pools = [cluster.pools[name] for name in FOREIGN_POOLS if name in cluster.pools]
    shown = {pool.name: deepcopy(pool.resource(cluster.ids)) for pool in pools}
    for resource in shown.values():
        del resource["properties"]["provisioningState"]
    return {
        "pools": shown,
        "machines": {name: [vm.vm_id for vm in cluster.pools[name].instances] for name in shown},
        "nodes": {name: [n["metadata"]["uid"] for n in await kube.nodes_of_pool(name)] for name in shown},
        "claim": await kube.claim(FOREIGN_CLAIM),
    }
