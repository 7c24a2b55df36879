"""On request claims whose node has drifted are replaced: one at a time, and none that must not be disrupted."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from fakes.aks import FakeAks
from fakes.cluster.interface import ControlPlane
from tests.claims import kaito_claim
from tests.kube import CLAIMS, Kube, Object, condition, eventually, has_reason, is_true
from tests.scenarios.on_azure import DELETE, PUT, pools, statuses
from tests.scenarios.running import Running, running

pytestmark = pytest.mark.asyncio(loop_scope="module")

SETTINGS = {"NODE_IMAGE_CHECK_SECONDS": "1", "REPLACE_DRIFTED": "true"}
IN_TURN = ("wsfirst", "wssecond")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def cluster(control_plane: ControlPlane, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Running]:
    log = tmp_path_factory.mktemp("replacement") / "controller.log"
    async with running(control_plane, log=log, settings=SETTINGS) as cluster:
        await cluster.controller.wait_started()
        yield cluster


def disruptable(name: str) -> Object:
    return kaito_claim(name, annotations={"karpenter.sh/do-not-disrupt": "false"})


async def uids(kube: Kube) -> dict[str, str]:
    """Return the UIDs of the claims that nobody has deleted."""
    claims = [claim["metadata"] for claim in await kube.items(CLAIMS)]
    return {claim["name"]: claim["uid"] for claim in claims if "deletionTimestamp" not in claim}


def order(aks: FakeAks) -> list[tuple[str, str]]:
    """Return the requests about the pools of the disruptable claims, in order."""
    return [
        (call.operation, call.pool)
        for call in aks.azure.calls
        if call.operation in (PUT, DELETE) and call.pool in IN_TURN
    ]


async def test_drifted_claims_are_replaced_in_turn_and_kept_ones_told_of(cluster: Running) -> None:
    aks, kube = cluster.aks, cluster.kube
    for name in IN_TURN:
        await kube.create(CLAIMS, disruptable(name))
    await kube.create(CLAIMS, kaito_claim("wskept"))
    for name in (*IN_TURN, "wskept"):
        await kube.wait_claim(name, is_true("Ready"))
    before = await uids(kube)
    aks.azure.settings.change({"node_image_release": "202612.01.0"})

    async def missing() -> list[str]:
        return [name for name in IN_TURN if await kube.claim(name) is None]

    (first,) = await eventually(missing, what="one of the claims is gone")
    (second,) = set(IN_TURN) - {first}
    await kube.wait_claim(second, has_reason("Drifted", "ImageDrift"))
    assert (await uids(kube)).keys() == {second, "wskept"}

    # Its author writes it anew; only when that has its node is it the other's turn.
    await kube.create(CLAIMS, disruptable(first))
    await kube.wait_claim(first, is_true("Ready"))
    assert (await uids(kube))[second] == before[second]
    await kube.wait_gone(CLAIMS, second, patience=80)
    await kube.create(CLAIMS, disruptable(second))
    await kube.wait_claim(second, is_true("Ready"))

    assert order(aks)[2:] == [(DELETE, first), (PUT, first), (DELETE, second), (PUT, second)]
    for name in IN_TURN:
        assert pools(aks)[name].image_release == "202612.01.0"
        claim = await kube.wait_claim(name, is_true("Ready"))
        assert condition(claim, "Drifted") == {}

        async def replacements(name: str = name) -> list[tuple[str, int]]:
            return [(e["type"], e["count"]) for e in await kube.events_of(name) if e["reason"] == "DriftReplaced"]

        assert await eventually(replacements) == [("Warning", 1)]
    kept = await kube.wait_claim("wskept", has_reason("Drifted", "ImageDrift"))
    assert (await uids(kube))["wskept"] == kept["metadata"]["uid"] == before["wskept"]
    assert statuses(aks, DELETE, pool="wskept") == []
