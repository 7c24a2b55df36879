"""Claims that cannot be served: each says why and what to do, nothing is asked of Azure for it, others go on."""

import copy
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import pytest
import pytest_asyncio

from fakes.aks import FakeAks
from fakes.cluster.interface import ControlPlane
from tests.claims import A100, kaito_claim
from tests.kube import CLAIMS, ApiError, Kube, Object, condition, eventually, has_reason, is_true
from tests.scenarios.on_azure import PUT, pools
from tests.scenarios.running import Running, running

pytestmark = pytest.mark.asyncio(loop_scope="module")

TYPE = "node.kubernetes.io/instance-type"
SKU = "karpenter.azure.com/sku-name"
T4 = "Standard_NC4as_T4_v3"
CRD = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
NODE_CLAIM_CRD = "nodeclaims.karpenter.sh"
# What KAITO shows of a message.
SHOWN = 256


def one_of(key: str, *values: str) -> Object:
    return {"key": key, "operator": "In", "values": list(values)}


def none_of(key: str, *values: str) -> Object:
    return {"key": key, "operator": "NotIn", "values": list(values)}


@dataclass(frozen=True, kw_only=True)
class Bad:
    """A claim of KAITO's with other requirements, storage, labels or taints; and what its owner should read."""

    reason: str
    says: tuple[str, ...]
    requirements: tuple[Object, ...] = (one_of(TYPE, A100),)
    storage: str = "87Gi"
    labels: tuple[tuple[str, str], ...] = ()
    taints: tuple[Object, ...] = ()

    def claim(self, name: str) -> dict[str, Any]:
        claim = kaito_claim(name, storage=self.storage, labels=dict(self.labels))
        claim["spec"]["requirements"] = list(self.requirements)
        claim["spec"]["taints"] = list(self.taints)
        return claim


BAD = {
    "toobig": Bad(
        reason="NoFittingInstanceType",
        says=("karpenter.azure.com/sku-cpu",),
        requirements=({"key": "karpenter.azure.com/sku-cpu", "operator": "Gt", "values": ["5000"]},),
    ),
    "disjoint": Bad(
        reason="ContradictoryRequirements",
        says=(f"no value of {TYPE}", "Write a new claim"),
        requirements=(one_of(TYPE, A100), one_of(TYPE, T4)),
    ),
    "excluded": Bad(
        reason="ContradictoryRequirements",
        says=(f"no value of {TYPE}", f"NotIn [{A100}]"),
        requirements=(one_of(TYPE, A100), none_of(TYPE, A100)),
    ),
    "twosizes": Bad(
        reason="ContradictoryRequirements",
        says=(f"{TYPE} and {SKU} have no size in common",),
        requirements=(one_of(TYPE, A100), one_of(SKU, T4)),
    ),
    "arm": Bad(
        reason="ContradictoryRequirements",
        says=(f"{A100} is amd64",),
        requirements=(one_of(TYPE, A100), one_of("kubernetes.io/arch", "arm64")),
    ),
    "windows": Bad(
        reason="UnsupportedRequirement",
        says=("kubernetes.io/os must allow linux",),
        requirements=(one_of(TYPE, A100), one_of("kubernetes.io/os", "windows")),
    ),
    "reserved": Bad(
        reason="UnsupportedRequirement",
        says=("karpenter.sh/capacity-type must allow on-demand or spot",),
        requirements=(one_of(TYPE, A100), one_of("karpenter.sh/capacity-type", "reserved")),
    ),
    "elsewhere": Bad(
        reason="UnsupportedRequirement",
        says=("zones such as eastus-1", "not here"),
        requirements=(one_of(TYPE, A100), one_of("topology.kubernetes.io/zone", "here")),
    ),
    "misspelled": Bad(
        reason="UnknownInstanceType",
        says=("Standard_NC24ads_A100_v5: no VM size of that name", f"Did you mean {A100}"),
        requirements=(one_of(TYPE, "Standard_NC24ads_A100_v5"),),
    ),
    "nodisk": Bad(reason="InvalidStorage", says=("above 0 and at most 2048Gi",), storage="0"),
    "negative": Bad(reason="InvalidStorage", says=("above 0 and at most 2048Gi",), storage="-5Gi"),
    "toolarge": Bad(reason="InvalidStorage", says=("at most 2048Gi, not 2049.0Gi", "Leave it out"), storage="2049Gi"),
    "akslabel": Bad(
        reason="InvalidLabel",
        says=("Label kubernetes.azure.com/mode: AKS keeps this prefix for itself",),
        labels=(("kubernetes.azure.com/mode", "system"),),
    ),
    "akstaint": Bad(
        reason="InvalidTaint",
        says=("Taint kubernetes.azure.com/mine=yes:NoSchedule: AKS keeps this prefix for itself",),
        taints=({"key": "kubernetes.azure.com/mine", "value": "yes", "effect": "NoSchedule"},),
    ),
    "sametaint": Bad(
        reason="InvalidTaint",
        says=("key and effect occur twice",),
        taints=(
            {"key": "sku", "value": "gpu", "effect": "NoSchedule"},
            {"key": "sku", "value": "cpu", "effect": "NoSchedule"},
        ),
    ),
    # The CRD's pattern lets more through than a quantity is.
    "noquantity": Bad(
        reason="InvalidSpec",
        says=("spec.resources.requests.storage: '1e1.5' is not a Kubernetes quantity", "Write a new claim"),
        storage="1e1.5",
    ),
}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def cluster(control_plane: ControlPlane, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Running]:
    """All bad claims and a good one, written before the controller looks for the first time."""
    claims = [bad.claim(name) for name, bad in BAD.items()]
    claims.insert(len(claims) // 2, kaito_claim("wsgood"))

    async def prepare(_: FakeAks, kube: Kube) -> None:
        for claim in claims:
            await kube.create(CLAIMS, claim)

    log = tmp_path_factory.mktemp("bad-input") / "controller.log"
    async with running(control_plane, log=log, prepare=prepare) as cluster:
        yield cluster


@pytest.mark.parametrize("name", BAD)
async def test_owner_is_told_what_is_wrong(cluster: Running, name: str) -> None:
    await assert_refused(cluster.kube, name, reason=BAD[name].reason, says=BAD[name].says)


async def test_good_claim_beside_them_becomes_ready_and_is_all_that_azure_hears_of(cluster: Running) -> None:
    await cluster.kube.wait_claim("wsgood", is_true("Ready"))
    for name in BAD:
        await cluster.kube.wait_claim(name, has_reason("Launched", BAD[name].reason))

    assert {call.pool for call in cluster.aks.azure.calls if call.operation == PUT} == {"wsgood"}
    assert set(pools(cluster.aks)) == {"wsgood"}


async def test_claim_that_cannot_be_read_is_refused_like_any_other(cluster: Running) -> None:
    kube = cluster.kube
    claim = kaito_claim("unreadable")
    claim["spec"]["requirements"].append({"key": TYPE, "operator": "Near", "values": [A100]})
    with pytest.raises(ApiError, match="operator"):
        await kube.create(CLAIMS, claim)
    await store_without_validation(kube, claim)

    await assert_refused(
        kube, "unreadable", reason="InvalidSpec", says=("spec.requirements.4.operator", "Write a new claim")
    )
    await kube.delete(CLAIMS, "unreadable")
    await kube.wait_gone(CLAIMS, "unreadable")


async def test_controller_lives_on_after_the_crd_has_changed_under_it(cluster: Running) -> None:
    kube = cluster.kube
    await store_without_validation(kube, kaito_claim("wsafter"))

    await kube.wait_claim("wsafter", is_true("Ready"))


async def test_refused_claim_can_be_deleted_at_once(cluster: Running) -> None:
    kube = cluster.kube
    await kube.create(CLAIMS, BAD["toolarge"].claim("shortlived"))
    claim = await kube.wait_claim("shortlived", has_reason("Launched", "InvalidStorage"))
    assert "finalizers" not in claim["metadata"]

    await kube.delete(CLAIMS, "shortlived")

    assert await kube.claim("shortlived") is None


async def assert_refused(kube: Kube, name: str, *, reason: str, says: tuple[str, ...]) -> None:
    claim = await kube.wait_claim(name, lambda seen: condition(seen, "Launched").get("status") == "False")
    launched = condition(claim, "Launched")
    assert launched["reason"] == reason
    shown = launched["message"].encode()[:SHOWN].decode(errors="ignore")
    for words in says:
        assert words in shown
    assert condition(claim, "Ready")["status"] == "False"
    assert "providerID" not in claim["status"]

    async def warnings() -> list[Object]:
        return [event for event in await kube.events_of(name) if event["type"] == "Warning"]

    (event,) = await eventually(warnings, what=f"a Warning about {name}")
    assert (event["reason"], event["message"]) == (reason, launched["message"])


async def store_without_validation(kube: Kube, claim: dict[str, Any]) -> None:
    """Store a claim under a CRD that takes anything, as an older or a foreign one might have; then restore ours."""
    original = await kube.get(CRD, NODE_CLAIM_CRD)
    assert original is not None
    loose = copy.deepcopy(original["spec"]["versions"])
    loose[0]["schema"] = {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}}
    probe = kaito_claim("probe")
    probe["spec"]["expireAfter"] = "whenever"
    try:
        await kube.patch(CRD, NODE_CLAIM_CRD, {"spec": {"versions": loose}})
        await eventually(lambda: is_accepted(kube, probe), what="the loose CRD is in force")
        await kube.create(CLAIMS, claim)
    finally:
        await kube.patch(CRD, NODE_CLAIM_CRD, {"spec": {"versions": original["spec"]["versions"]}})
    await eventually(lambda: is_accepted(kube, probe), until=lambda taken: not taken, what="our CRD is in force again")


async def is_accepted(kube: Kube, claim: dict[str, Any]) -> bool:
    try:
        await kube.create(f"{CLAIMS}?dryRun=All", claim)
    except ApiError as error:
        if error.status != 422:
            raise
        return False
    return True
