"""What is asked of Azure for a claim of KAITO's: field by field what Azure/gpu-provisioner asks for, and our tags."""

from collections.abc import AsyncIterator, Mapping
from typing import Any

import pytest
import pytest_asyncio

from fakes.cluster.interface import ControlPlane
from tests.claims import kaito_claim
from tests.kube import CLAIMS, Object, eventually
from tests.scenarios.azure_side import CLAIM_TAG, CLAIM_UID_TAG, Wishes, peers_pool, record_wishes
from tests.scenarios.running import Running, running

pytestmark = pytest.mark.asyncio(loop_scope="module")

# What the peer leaves to AKS's default and we write down: the same value, stated.
STATED = {"mode": "User"}


def rag_engine() -> dict[str, Any]:
    claim = kaito_claim("re0123456789", storage="200Gi")
    claim["metadata"]["labels"] = {
        "apps": "rag",
        "kaito.sh/ragengine": "rag-1",
        "kaito.sh/ragenginenamespace": "default",
        "karpenter.sh/nodepool": "kaito",
    }
    return claim


def tainted() -> dict[str, Any]:
    claim = kaito_claim("ws000000004")
    claim["spec"]["taints"] += [
        {"key": "example.com/lonely", "effect": "NoExecute"},
        {"key": "example.com/both", "value": "x", "effect": "PreferNoSchedule"},
    ]
    claim["spec"]["startupTaints"] = [{"key": "example.com/later", "value": "x", "effect": "NoSchedule"}]
    return claim


# Each claim with the size of the OS disk that the peer would ask for, in GiB.
CLAIMS_OF_KAITO = {
    "a Workspace": (kaito_claim("ws09f153898"), 87),
    "template inference": (kaito_claim("ws000000001", storage="1Ti"), 1024),
    "a size without GPUs": (kaito_claim("ws000000002", instance_type="Standard_D4s_v5", storage="1Ti"), 1024),
    "Azure Linux": (kaito_claim("ws000000003", annotations={"kaito.sh/node-image-family": "azurelinux"}), 87),
    "taints of all kinds": (tainted(), 87),
    "a label over the node pool": (kaito_claim("ws000000005", labels={"karpenter.sh/nodepool": "other"}), 87),
    "a label selector": (kaito_claim("ws000000006", labels={"example.com/team": "a", "zone": ""}), 87),
    "a RAGEngine": (rag_engine(), 200),
}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def cluster(control_plane: ControlPlane, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Running]:
    async with running(control_plane, log=tmp_path_factory.mktemp("payload") / "controller.log") as cluster:
        yield cluster


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def wishes(cluster: Running) -> Wishes:
    """What is asked of Azure, by pool."""
    return record_wishes(cluster.aks)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def written(cluster: Running, wishes: Wishes) -> dict[str, Object]:
    """All claims, written at once, as they were before anybody else touched them."""
    return {what: await cluster.kube.create(CLAIMS, claim) for what, (claim, _) in CLAIMS_OF_KAITO.items()}


@pytest.mark.parametrize("what", CLAIMS_OF_KAITO)
async def test_body_is_the_peers_and_our_tags(wishes: Wishes, written: dict[str, Object], what: str) -> None:
    metadata = written[what]["metadata"]
    name = metadata["name"]

    async def asked() -> list[Mapping[str, Any]]:
        return wishes.get(name, [])

    (wish,) = await eventually(asked, what=f"PUT of {name}")

    peers = peers_pool(written[what], os_disk_gib=CLAIMS_OF_KAITO[what][1])
    tags = {CLAIM_TAG: name, CLAIM_UID_TAG: metadata["uid"]}
    assert wish == {**peers, **STATED, "tags": tags}
