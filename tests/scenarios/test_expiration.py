"""A claim that has come to the age in its spec.expireAfter is deleted, unless it must not be disrupted."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from fakes.aks import FakeAks
from fakes.cluster.interface import ControlPlane
from tests.claims import kaito_claim
from tests.kube import CLAIMS, Kube, eventually, is_true
from tests.scenarios.azure_side import wait_calls
from tests.scenarios.on_azure import DELETE, LIST, pools, statuses
from tests.scenarios.running import Running, running

pytestmark = pytest.mark.asyncio(loop_scope="module")

# Real seconds: longer than a node takes to become ready at the scale of the tests.
AGE = 8


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def cluster(control_plane: ControlPlane, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Running]:
    log = tmp_path_factory.mktemp("expiration") / "controller.log"
    async with running(control_plane, log=log) as cluster:
        await cluster.controller.wait_started()
        yield cluster


@pytest.fixture
def kube(cluster: Running) -> Kube:
    return cluster.kube


@pytest.fixture
def aks(cluster: Running) -> FakeAks:
    return cluster.aks


def aging(name: str, *, kept: str = "false") -> dict[str, Any]:
    claim = kaito_claim(name, annotations={"karpenter.sh/do-not-disrupt": kept})
    claim["spec"]["expireAfter"] = f"{AGE}s"
    return claim


async def test_claim_goes_at_its_age_with_node_and_pool_and_others_are_kept(aks: FakeAks, kube: Kube) -> None:
    await kube.create(CLAIMS, aging("wskept", kept="true"))
    await kube.create(CLAIMS, kaito_claim("wsnever"))
    await kube.create(CLAIMS, aging("wsaging"))
    ready = await kube.wait_claim("wsaging", is_true("Ready"))
    assert "deletionTimestamp" not in ready["metadata"]

    await kube.wait_gone(CLAIMS, "wsaging")

    assert "wsaging" not in pools(aks)
    assert await kube.nodes_of_pool("wsaging") == []
    assert len(statuses(aks, DELETE, pool="wsaging")) == 1

    async def expiries() -> list[tuple[str, int]]:
        return [(e["type"], e["count"]) for e in await kube.events_of("wsaging") if e["reason"] == "Expired"]

    assert await eventually(expiries) == [("Warning", 1)]
    await wait_calls(aks, LIST, more=2)
    for name in ("wskept", "wsnever"):
        claim = await kube.wait_claim(name, is_true("Ready"))
        assert "deletionTimestamp" not in claim["metadata"]

    # As soon as it may be disrupted again, its time is up.
    await kube.patch(CLAIMS, "wskept", {"metadata": {"annotations": {"karpenter.sh/do-not-disrupt": None}}})
    await kube.wait_gone(CLAIMS, "wskept")
    assert "wskept" not in pools(aks)
