"""Twenty claims at once: each gets its own pool and Node, and Azure is asked no more often for all than for one."""

import time

from fakes.aks import FakeAks, claim_name
from fakes.controller import ControllerProcess
from provisioner.apis import names
from tests.claims import kaito_claim
from tests.kube import CLAIMS, NODES, Kube, Object, eventually, is_true
from tests.scenarios.on_azure import DELETE, LIST, PUT, pools, statuses

CLAIM_COUNT = 20
# Twenty Nodes with their device plugins take a scheduler and a controller manager on two busy cores a while.
PATIENCE = 120.0
# Real seconds between two LISTs of the inventory at its fastest, and of the garbage collector as conftest sets it.
INVENTORY_PACE, GARBAGE_PACE = 1.0, 1.0


async def claims_by_name(kube: Kube) -> dict[str, Object]:
    return {claim["metadata"]["name"]: claim for claim in await kube.items(CLAIMS)}


async def test_twenty_claims(aks: FakeAks, kube: Kube, controller: ControllerProcess) -> None:
    started = time.monotonic()
    wanted = {claim_name() for _ in range(CLAIM_COUNT)}
    for name in wanted:
        await kube.create(CLAIMS, kaito_claim(name))

    async def unready() -> list[str]:
        return [name for name, claim in (await claims_by_name(kube)).items() if not is_true("Ready")(claim)]

    await eventually(unready, until=lambda left: not left, patience=PATIENCE, what="all claims are Ready")

    claims = await claims_by_name(kube)
    assert {name: pool.properties["tags"][names.CLAIM_UID_TAG] for name, pool in pools(aks).items()} == {
        name: claim["metadata"]["uid"] for name, claim in claims.items()
    }
    for name, claim in claims.items():
        (node,) = await kube.nodes_of_pool(name)
        assert node["metadata"]["name"] == claim["status"]["nodeName"]
        assert [owner["uid"] for owner in node["metadata"]["ownerReferences"]] == [claim["metadata"]["uid"]]
    assert statuses(aks, PUT) == [201] * CLAIM_COUNT

    for name in wanted:
        await kube.delete(CLAIMS, name)
    await eventually(
        lambda: claims_by_name(kube), until=lambda left: not left, patience=PATIENCE, what="all claims are gone"
    )

    assert pools(aks) == {}
    assert statuses(aks, PUT) == [201] * CLAIM_COUNT
    assert statuses(aks, DELETE) == [202] * CLAIM_COUNT
    left = {node["metadata"]["name"] for node in await kube.items(NODES)}
    assert not left & {claim["status"]["nodeName"] for claim in claims.values()}
    assert_asks_together(aks, seconds=time.monotonic() - started)


def assert_asks_together(aks: FakeAks, *, seconds: float) -> None:
    """LISTs come at a pace in time, however many claims there are; nothing is asked for pool by pool."""
    at_that_pace = seconds / INVENTORY_PACE + seconds / GARBAGE_PACE
    # What each of the two asks at its start comes on top.
    assert len(statuses(aks, LIST)) <= at_that_pace + 2
    for single in ("agentPools.get", "machines.get", "operations.get", "operationResults.get"):
        assert statuses(aks, single) == []
    # Where a Node joins later than its pool is finished.
    assert len(statuses(aks, "machines.list")) <= CLAIM_COUNT
    # A look at the cluster before garbage is collected, and one at the start.
    assert len(statuses(aks, "managedClusters.get")) <= 1 + seconds / GARBAGE_PACE + 1
