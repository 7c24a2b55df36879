"""The main job: a claim as KAITO writes it becomes a ready GPU node, and goes away with all that was made for it."""

import pytest

from fakes.aks import FakeAks, claim_name
from fakes.controller import ControllerProcess
from tests.claims import kaito_claim
from tests.kube import CLAIMS, NODES, Kube, condition, eventually, is_true


@pytest.fixture
def name() -> str:
    return claim_name()


async def test_claim_becomes_a_ready_gpu_node(
    aks: FakeAks, kube: Kube, controller: ControllerProcess, name: str
) -> None:
    await kube.create(CLAIMS, kaito_claim(name))

    claim = await kube.wait_claim(name, is_true("Ready"))

    node = await kube.get(NODES, claim["status"]["nodeName"])
    assert node is not None
    assert claim["status"]["providerID"] == node["spec"]["providerID"]
    assert node["status"]["allocatable"]["nvidia.com/gpu"] == "1"
    labels = node["metadata"]["labels"]
    for key, value in kaito_claim(name)["metadata"]["labels"].items():
        assert labels[key] == value
    assert labels["node.kubernetes.io/instance-type"] == "Standard_NC24ads_A100_v4"
    assert labels["karpenter.sh/registered"] == "true"
    assert labels["karpenter.sh/initialized"] == "true"
    assert {"key": "sku", "value": "gpu", "effect": "NoSchedule"} in node["spec"]["taints"]
    assert node["metadata"]["ownerReferences"] == [
        {
            "apiVersion": "karpenter.sh/v1",
            "kind": "NodeClaim",
            "name": name,
            "uid": claim["metadata"]["uid"],
            "blockOwnerDeletion": True,
        }
    ]
    assert all(c["reason"] for c in claim["status"]["conditions"])
    assert aks.azure.calls.count("agentPools.put") == 1


async def test_deleted_claim_takes_pool_and_node_with_it(
    aks: FakeAks, kube: Kube, controller: ControllerProcess, name: str
) -> None:
    await kube.create(CLAIMS, kaito_claim(name))
    claim = await kube.wait_claim(name, is_true("Ready"))

    await kube.delete(CLAIMS, name)
    await kube.wait_gone(CLAIMS, name)

    assert [pool["name"] for pool in aks.pools()] == ["systempool"]
    assert await kube.get(NODES, claim["status"]["nodeName"]) is None
    assert aks.azure.calls.count("agentPools.delete") == 1


async def test_events_tell_the_story(aks: FakeAks, kube: Kube, controller: ControllerProcess, name: str) -> None:
    await kube.create(CLAIMS, kaito_claim(name))
    await kube.wait_claim(name, is_true("Ready"))

    async def reasons() -> set[str]:
        return {event["reason"] for event in await kube.events_of(name)}

    await eventually(reasons, until=lambda seen: {"CreatingAgentPool", "Ready"} <= seen)


async def test_deleted_claim_that_was_never_ready_never_turns_ready(
    aks: FakeAks, kube: Kube, controller: ControllerProcess, name: str
) -> None:
    await kube.create(CLAIMS, kaito_claim(name))
    await kube.wait_claim(name, lambda c: condition(c, "Launched").get("reason") == "CreatingAgentPool")
    await kube.delete(CLAIMS, name)
    seen: list[str] = []

    async def gone() -> bool:
        claim = await kube.claim(name)
        if claim is not None:
            seen.append(condition(claim, "Ready").get("status", ""))
        return claim is None

    await eventually(gone)
    assert "True" not in seen
    assert [pool["name"] for pool in aks.pools()] == ["systempool"]
