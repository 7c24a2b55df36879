"""Claims that are right but not as KAITO writes them, and what claims leave to choice."""

import re
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from fakes.aks import FakeAks
from fakes.cluster.interface import ControlPlane
from tests.claims import A100, kaito_claim
from tests.kube import CLAIMS, NODE_CLASSES, NODES, Kube, Object, condition, eventually, has_reason, is_true
from tests.scenarios.azure_side import Wishes, calls, record_wishes, wait_calls
from tests.scenarios.on_azure import LIST, PUT, pools
from tests.scenarios.running import Running, running

pytestmark = pytest.mark.asyncio(loop_scope="module")

POOL_ANNOTATION = "gpu-provisioner.kaito.sh/agent-pool"
WORKSPACE = "kaito.sh/workspace"
FOREIGN_CLASS = {"group": "karpenter.azure.com", "kind": "AKSNodeClass", "name": "default"}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def cluster(control_plane: ControlPlane, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Running]:
    async with running(control_plane, log=tmp_path_factory.mktemp("unusual") / "controller.log") as cluster:
        yield cluster


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def wishes(cluster: Running) -> Wishes:
    """What was asked of Azure, by pool."""
    return record_wishes(cluster.aks)


@pytest.fixture
def kube(cluster: Running) -> Kube:
    return cluster.kube


@pytest.fixture
def aks(cluster: Running) -> FakeAks:
    return cluster.aks


async def ready(cluster: Running, claim: dict[str, Any]) -> tuple[Object, Object]:
    """Write the claim; return it and its Node once it is Ready, after one PUT."""
    await cluster.kube.create(CLAIMS, claim)
    seen = await cluster.kube.wait_claim(claim["metadata"]["name"], is_true("Ready"))
    node = await cluster.kube.get(NODES, seen["status"]["nodeName"])
    assert node is not None
    assert len(calls(cluster.aks, PUT, seen["metadata"]["annotations"][POOL_ANNOTATION])) == 1
    return seen, node


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("team-a-gpu", "gz02ax6nvdn7"),
        ("a-name.with-dots.and-of-more-than-sixty-three-characters-as-karpenter-makes-them", "g5bvgcc5i0ul"),
        ("0starts2with", "g4g332jq6t0s"),
    ],
)
async def test_name_that_is_no_pool_name_gets_the_same_pool_name_always(
    cluster: Running, aks: FakeAks, kube: Kube, name: str, expected: str
) -> None:
    claim, node = await ready(cluster, kaito_claim(name))

    assert claim["metadata"]["annotations"][POOL_ANNOTATION] == expected
    assert node["metadata"]["labels"]["kubernetes.azure.com/agentpool"] == expected
    assert expected in pools(aks)


@pytest.mark.parametrize(
    ("name", "storage", "asked_for"),
    [("wsnodisk", None, None), ("wssmall", "512Mi", 30), ("wsfraction", "87.5Gi", 88), ("wsbig", "1Ti", 1024)],
)
async def test_storage_becomes_the_os_disk_in_sizes_that_aks_takes(
    cluster: Running, kube: Kube, wishes: Wishes, name: str, storage: str | None, asked_for: int | None
) -> None:
    await ready(cluster, kaito_claim(name, storage=storage))

    (wish,) = wishes[name]
    assert wish.get("osDiskSizeGB") == asked_for
    assert ("osDiskSizeGB" in wish) == (asked_for is not None)


async def test_size_in_another_letter_case_is_spelled_as_azure_does(cluster: Running, aks: FakeAks, kube: Kube) -> None:
    claim, node = await ready(cluster, kaito_claim("wscase", instance_type="standard_nc24ADS_a100_V4"))

    created = pools(aks)["wscase"].properties
    assert created["vmSize"] == A100
    assert claim["metadata"]["labels"]["node.kubernetes.io/instance-type"] == A100
    assert node["metadata"]["labels"]["node.kubernetes.io/instance-type"] == A100

    async def messages() -> list[str]:
        return [event["message"] for event in await kube.events_of("wscase")]

    seen = await eventually(messages, until=lambda texts: any(f"spelled {A100} by Azure" in text for text in texts))
    assert sum("spelled" in text for text in seen) == 1


async def test_size_without_a_gpu_is_ready_without_one(cluster: Running, kube: Kube) -> None:
    claim, node = await ready(cluster, kaito_claim("wscpu", instance_type="Standard_D4s_v5", storage="1Ti"))

    assert "nvidia.com/gpu" not in node["status"]["allocatable"]
    assert claim["status"]["allocatable"] == node["status"]["allocatable"]


async def test_claim_of_another_provider_is_left_alone(cluster: Running, aks: FakeAks, kube: Kube) -> None:
    foreign = kaito_claim("foreign")
    foreign["metadata"]["labels"] = {"karpenter.sh/nodepool": "default"}
    foreign["spec"]["nodeClassRef"] = FOREIGN_CLASS
    written = await kube.create(CLAIMS, foreign)

    # Ours was written later: the controller has seen the foreign one before it.
    await ready(cluster, kaito_claim("wsours"))
    await wait_calls(aks, LIST, more=1)

    assert await kube.claim("foreign") == written
    assert "finalizers" not in written["metadata"]
    assert "conditions" not in written.get("status", {})
    assert not [call for call in aks.azure.calls if call.pool == "foreign"]
    assert not await kube.events_of("foreign")


@pytest.mark.parametrize("label", [WORKSPACE, "kaito.sh/ragengine"])
async def test_claim_of_another_node_class_with_a_label_of_kaito_is_ours(
    cluster: Running, kube: Kube, label: str
) -> None:
    claim = kaito_claim(f"old{label.rpartition('/')[2]}"[:12])
    claim["metadata"]["labels"] = {label: "phi-4", "karpenter.sh/nodepool": "kaito"}
    claim["spec"]["nodeClassRef"] = FOREIGN_CLASS

    _, node = await ready(cluster, claim)

    assert node["metadata"]["labels"][label] == "phi-4"


async def test_claim_without_any_label_of_kaito_is_ours_by_its_node_class(
    cluster: Running, aks: FakeAks, kube: Kube
) -> None:
    claim = kaito_claim("inference-a100-7f9c2")
    claim["metadata"]["labels"] = {}
    del claim["metadata"]["annotations"]

    seen, node = await ready(cluster, claim)

    assert node["metadata"]["labels"]["kaito.sh/kaitonodeclass"] == "default"
    name = seen["metadata"]["annotations"][POOL_ANNOTATION]
    assert re.fullmatch(r"[a-z][a-z0-9]{0,11}", name)
    await kube.delete(CLAIMS, "inference-a100-7f9c2")
    await kube.wait_gone(CLAIMS, "inference-a100-7f9c2")
    assert name not in pools(aks)


async def test_startup_taints_are_put_on_the_node_and_waited_for(kube: Kube, wishes: Wishes) -> None:
    claim = kaito_claim("wsstartup")
    startup = {"key": "example.com/agent", "value": "missing", "effect": "NoSchedule"}
    claim["spec"]["startupTaints"] = [startup]
    await kube.create(CLAIMS, claim)

    waiting = await kube.wait_claim("wsstartup", has_reason("Initialized", "StartupTaintsExist"))

    # A pool's taints stay for ever, so this one must not be among them.
    assert wishes["wsstartup"][0]["nodeTaints"] == ["sku=gpu:NoSchedule"]
    assert "example.com/agent=missing:NoSchedule" in condition(waiting, "Initialized")["message"]
    assert is_true("Registered")(waiting)
    node = await kube.get(NODES, waiting["status"]["nodeName"])
    assert node is not None
    assert startup in node["spec"]["taints"]
    assert "karpenter.sh/initialized" not in node["metadata"]["labels"]

    others = [taint for taint in node["spec"]["taints"] if taint["key"] != startup["key"]]
    await kube.patch(NODES, node["metadata"]["name"], {"spec": {"taints": others}})
    await kube.wait_claim("wsstartup", is_true("Ready"))

    node = await kube.get(NODES, node["metadata"]["name"])
    assert node is not None
    assert node["metadata"]["labels"]["karpenter.sh/initialized"] == "true"
    assert startup not in node["spec"]["taints"]


async def test_labels_and_annotations_reach_the_node(cluster: Running, kube: Kube) -> None:
    labels = {"team.example.com/cost-centre": "4711", "node.kubernetes.io/purpose": "llm", "agentpool": "mine"}
    notes = {"example.com/contact": "ops@example.com"}
    _, node = await ready(cluster, kaito_claim("wslabels", labels=labels, annotations=notes))

    assert node["metadata"]["labels"].items() >= labels.items()
    assert node["metadata"]["annotations"].items() >= {**notes, "karpenter.sh/do-not-disrupt": "true"}.items()
    # AKS's own mark of the pool is not the claim's to change.
    assert node["metadata"]["labels"]["kubernetes.azure.com/agentpool"] == "wslabels"


@pytest.mark.parametrize(
    ("family", "sku"), [("AzureLinux", "AzureLinux"), ("azurelinux", "AzureLinux"), ("x", "Ubuntu")]
)
async def test_image_family_is_the_os_of_the_pool(
    cluster: Running, aks: FakeAks, kube: Kube, family: str, sku: str
) -> None:
    name = f"wsos{family.lower()[:3]}{sum(map(str.isupper, family))}"
    _, node = await ready(cluster, kaito_claim(name, annotations={"kaito.sh/node-image-family": family}))

    created = pools(aks)[name].properties
    assert created["osSKU"] == sku
    assert node["metadata"]["labels"]["kubernetes.azure.com/os-sku"] == sku


async def test_spot_is_bought_where_the_claim_asks_for_it(cluster: Running, aks: FakeAks, kube: Kube) -> None:
    claim = kaito_claim("wsspot")
    claim["spec"]["requirements"].append({"key": "karpenter.sh/capacity-type", "operator": "In", "values": ["spot"]})

    seen, node = await ready(cluster, claim)

    created = pools(aks)["wsspot"].properties
    assert (created["scaleSetPriority"], created["scaleSetEvictionPolicy"]) == ("Spot", "Delete")
    assert created["spotMaxPrice"] == -1
    assert seen["metadata"]["labels"]["karpenter.sh/capacity-type"] == "spot"
    assert node["metadata"]["labels"]["karpenter.sh/capacity-type"] == "spot"
    assert node["metadata"]["labels"]["kubernetes.azure.com/scalesetpriority"] == "spot"


async def test_zones_are_used_where_the_claim_asks_for_them(cluster: Running, aks: FakeAks, kube: Kube) -> None:
    claim = kaito_claim("wszone")
    zone = {"key": "topology.kubernetes.io/zone", "operator": "In", "values": ["eastus-3"]}
    claim["spec"]["requirements"].append(zone)

    seen, node = await ready(cluster, claim)

    created = pools(aks)["wszone"].properties
    assert created["availabilityZones"] == ["3"]
    assert seen["metadata"]["labels"]["topology.kubernetes.io/zone"] == "eastus-3"
    assert node["metadata"]["labels"]["topology.kubernetes.io/zone"] == "eastus-3"


async def test_node_class_object_is_ready_at_once(kube: Kube) -> None:
    body = {"apiVersion": "kaito.sh/v1alpha1", "kind": "KaitoNodeClass", "metadata": {"name": "default"}}
    await kube.create(NODE_CLASSES, body)

    async def look() -> Object | None:
        return await kube.get(NODE_CLASSES, "default")

    # About a second on an idle machine.
    seen = await eventually(look, until=lambda c: c is not None and is_true("Ready")(c), patience=10.0)
    assert seen is not None
    ready = condition(seen, "Ready")
    assert ready["observedGeneration"] == seen["metadata"]["generation"]
    assert ready["reason"]
