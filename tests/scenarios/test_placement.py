"""Which size a claim gets, and what happens when Azure does not have it: the next one, or the truth about why not.

All in one region: each test has GPU families of its own, since what one claim learns of a size all others know.
"""

import asyncio
from collections.abc import AsyncIterator, Iterable
from typing import Any

import pytest
import pytest_asyncio

from fakes.aks import FakeAks
from fakes.azure import Answer, Delay
from fakes.cluster.interface import ControlPlane
from provisioner.gpus.catalogue import find
from tests.claims import kaito_claim
from tests.kube import CLAIMS, NODE_CLASSES, Kube, Object, condition, eventually, has_reason, is_true
from tests.scenarios.azure_side import calls, wait_calls
from tests.scenarios.on_azure import AGES, DELETE, LIST, PUT, pools, wait_hit, wait_pool
from tests.scenarios.running import Running, running

pytestmark = pytest.mark.asyncio(loop_scope="module")

# What clients show of a message.
SHOWN = 256
# KAITO's RAG engine ends its wait at this sentence.
ALL_UNAVAILABLE = "all requested instance types were unavailable during launch"
# Real seconds.
CAPACITY_RETRY = 4
THROTTLED_FOR = 90

T4, T4_FAMILY = "Standard_NC4as_T4_v3", "Standard NCASv3_T4 Family"
A100, A100_FAMILY = "Standard_NC24ads_A100_v4", "StandardNCADSA100v4Family"
H100, H100_FAMILY = "Standard_NC40ads_H100_v5", "StandardNCadsH100v5Family"
A10, A10_FAMILY = "Standard_NV36ads_A10_v5", "StandardNVADSA10v5Family"
V100 = "Standard_ND40rs_v2"
ND_A100, ND_H100, ND_H200 = "Standard_ND96asr_v4", "Standard_ND96isr_H100_v5", "Standard_ND96isr_H200_v5"
RTX, RTX_TWO = "Standard_NC144lds_xl_RTXPRO6000BSE_v6", "Standard_NC288lds_xl_RTXPRO6000BSE_v6"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def cluster(control_plane: ControlPlane, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Running]:
    async def prepare(aks: FakeAks, _: Kube) -> None:
        aks.azure.settings.quota = {A100_FAMILY: 0, T4_FAMILY: 3}
        aks.azure.settings.usage_lag_seconds = 0

    settings = {"QUOTA_SECONDS": "1", "CAPACITY_RETRY_SECONDS": str(CAPACITY_RETRY)}
    log = tmp_path_factory.mktemp("placement") / "controller.log"
    async with running(control_plane, log=log, prepare=prepare, settings=settings) as cluster:
        yield cluster


@pytest.fixture
def kube(cluster: Running) -> Kube:
    return cluster.kube


@pytest.fixture
def aks(cluster: Running) -> FakeAks:
    return cluster.aks


def asking(name: str, *requirements: tuple[str, str, list[str]], requests: dict[str, str] | None = None) -> Object:
    """A claim of any client's, with these requirements."""
    claim = kaito_claim(name, storage=None)
    claim["spec"]["requirements"] = [
        {"key": key, "operator": operator, **({"values": values} if values else {})}
        for key, operator, values in requirements
    ]
    claim["spec"]["resources"] = {"requests": requests or {}}
    return claim


def one_of(name: str, *sizes: str, **more: Any) -> Object:
    return asking(name, ("node.kubernetes.io/instance-type", "In", list(sizes)), **more)


def puts(aks: FakeAks, names: Iterable[str]) -> int:
    return sum(len(calls(aks, PUT, name)) for name in names)


def shown(claim: Object) -> str:
    message: str = condition(claim, "Launched")["message"]
    return message.encode()[:SHOWN].decode(errors="ignore")


async def ready(kube: Kube, name: str) -> Object:
    return await kube.wait_claim(name, is_true("Ready"))


async def test_family_without_quota_is_passed_over_without_asking(aks: FakeAks, kube: Kube) -> None:
    names = [f"wsfall{number}" for number in range(5)]
    for name in names:
        await kube.create(CLAIMS, one_of(name, A100, H100))

    for name in names:
        claim = await ready(kube, name)
        assert claim["metadata"]["labels"]["node.kubernetes.io/instance-type"] == H100
    assert puts(aks, names) == len(names)


async def test_many_claims_that_do_not_fit_cost_no_request_and_go_on_when_quota_is_freed(
    aks: FakeAks, kube: Kube
) -> None:
    names = [f"wsmany{number}" for number in range(50)]
    await asyncio.gather(*(kube.create(CLAIMS, one_of(name, T4)) for name in names))
    for name in names:
        claim = await kube.wait_claim(name, has_reason("Launched", "QuotaExceeded"))
        assert condition(claim, "Launched")["status"] == "False"
        for words in ("4 needed, 3 left", T4_FAMILY, ALL_UNAVAILABLE):
            assert words in shown(claim)
    assert puts(aks, names) == 0

    # Room for three more: three go on, and nobody asks for what the others still lack.
    aks.azure.settings.quota = {**aks.azure.settings.quota, T4_FAMILY: 12}

    async def launched() -> list[str]:
        return [name for name in names if pools(aks).get(name)]

    await eventually(launched, until=lambda found: len(found) == 3, what="three pools")
    going = await launched()
    for name in going:
        await ready(kube, name)
    assert puts(aks, names) == 3

    for name in names:
        await kube.delete(CLAIMS, name)
    for name in names:
        await kube.wait_gone(CLAIMS, name)


async def test_size_that_aks_refuses_is_asked_for_once_whatever_the_number_of_claims(aks: FakeAks, kube: Kube) -> None:
    # Closed after the controller has read the list of sizes: nothing but Azure's answer tells.
    aks.azure.settings.restricted = {**aks.azure.settings.restricted, ND_A100: ()}
    names = [f"wsonce{number}" for number in range(20)]
    await asyncio.gather(*(kube.create(CLAIMS, one_of(name, ND_A100, ND_H100)) for name in names))

    for name in names:
        claim = await ready(kube, name)
        assert claim["metadata"]["labels"]["node.kubernetes.io/instance-type"] == ND_H100
    assert puts(aks, names) == len(names) + 1


async def test_pool_that_fails_for_want_of_capacity_is_deleted_and_the_next_size_asked_for(
    aks: FakeAks, kube: Kube
) -> None:
    aks.azure.settings.capacity = {**aks.azure.settings.capacity, A10: 0}
    await kube.create(CLAIMS, one_of("wsnext", A10, ND_H200))

    claim = await ready(kube, "wsnext")

    assert claim["metadata"]["labels"]["node.kubernetes.io/instance-type"] == ND_H200
    assert pools(aks)["wsnext"].sku.name == ND_H200
    told = [event["reason"] for event in await kube.events_of("wsnext") if event["type"] == "Warning"]
    assert told == ["InsufficientCapacity"]


async def test_size_without_capacity_is_tried_again_by_itself(aks: FakeAks, kube: Kube) -> None:
    aks.azure.settings.capacity = {**aks.azure.settings.capacity, V100: 0}
    await kube.create(CLAIMS, one_of("wsback", V100))
    claim = await eventually(
        lambda: kube.claim("wsback"),
        until=lambda seen: seen is not None and condition(seen, "Launched").get("status") == "False",
        what="no capacity",
    )
    assert claim is not None
    assert condition(claim, "Launched")["reason"] == "InsufficientCapacity"
    assert ALL_UNAVAILABLE in shown(claim)
    await wait_pool(aks, "wsback", None)

    aks.azure.settings.capacity = {**aks.azure.settings.capacity, V100: 1}
    await ready(kube, "wsback")


async def test_zone_without_capacity_is_left_out(aks: FakeAks, kube: Kube) -> None:
    aks.azure.settings.capacity = {**aks.azure.settings.capacity, f"{RTX}/2": 0}
    location = aks.azure.cluster.ids.location
    zone = ("topology.kubernetes.io/zone", "In", [f"{location}-2"])
    await kube.create(CLAIMS, asking("wszone", ("node.kubernetes.io/instance-type", "In", [RTX, RTX_TWO]), zone))

    claim = await ready(kube, "wszone")

    labels = claim["metadata"]["labels"]
    assert labels["node.kubernetes.io/instance-type"] == RTX_TWO
    assert labels["topology.kubernetes.io/zone"] == f"{location}-2"


async def test_spot_that_cannot_be_had_becomes_on_demand_where_the_claim_allows_both(aks: FakeAks, kube: Kube) -> None:
    size = "Standard_NC80adis_H100_v5"
    aks.azure.settings.capacity = {**aks.azure.settings.capacity, f"{size}/spot": 0}
    both = ("karpenter.sh/capacity-type", "In", ["spot", "on-demand"])
    await kube.create(CLAIMS, asking("wsspot", ("node.kubernetes.io/instance-type", "In", [size]), both))

    claim = await ready(kube, "wsspot")

    assert claim["metadata"]["labels"]["karpenter.sh/capacity-type"] == "on-demand"
    assert not pools(aks)["wsspot"].spot
    assert len(calls(aks, PUT, "wsspot")) == 2


async def test_claim_that_names_a_gpu_and_no_size_gets_the_cheapest_that_fits(aks: FakeAks, kube: Kube) -> None:
    memory = ("nvidia.com/gpu.memory", "Gt", ["70000"])
    await kube.create(CLAIMS, asking("wsgpu", memory, requests={"nvidia.com/gpu": "1"}))

    claim = await ready(kube, "wsgpu")

    # The A100 with 80 GB would be cheaper, and has no quota.
    assert claim["metadata"]["labels"]["node.kubernetes.io/instance-type"] == RTX


async def test_sizes_are_tried_as_listed_where_the_node_class_says_so(aks: FakeAks, kube: Kube) -> None:
    meta = {"apiVersion": "kaito.sh/v1alpha1", "kind": "KaitoNodeClass", "metadata": {"name": "listed"}}
    await kube.create(NODE_CLASSES, {**meta, "spec": {"sizePreference": "Listed"}})

    async def is_known() -> bool:
        return is_true("Ready")(await kube.get(NODE_CLASSES, "listed") or {})

    await eventually(is_known, what="the node class was seen")
    claim = one_of("wslisted", RTX_TWO, RTX)
    claim["spec"]["nodeClassRef"]["name"] = "listed"
    await kube.create(CLAIMS, claim)

    await ready(kube, "wslisted")

    assert pools(aks)["wslisted"].sku.name == RTX_TWO


async def test_claim_without_gpu_gets_a_node_without_one(aks: FakeAks, kube: Kube) -> None:
    await kube.create(CLAIMS, asking("wscpu", requests={"cpu": "6", "memory": "20Gi"}))

    await ready(kube, "wscpu")

    sku = pools(aks)["wscpu"].sku
    assert sku.private.gpu_count == 0
    assert sku.vcpus >= 8


async def test_error_that_nobody_knows_is_told_word_for_word(aks: FakeAks, kube: Kube) -> None:
    body = {"code": "FluxCapacitorMissing", "details": None, "message": "No plutonium in eastus.", "subcode": ""}
    aks.azure.add_fault(Answer(operation=PUT, pool="wsodd", status=400, body=body, times=None))
    await kube.create(CLAIMS, one_of("wsodd", H100))

    claim = await kube.wait_claim("wsodd", has_reason("Launched", "InvalidRequest"))

    assert "FluxCapacitorMissing" in condition(claim, "Launched")["message"]
    assert "No plutonium in eastus." in shown(claim)


async def test_prices_rise_along_the_sizes_of_these_tests() -> None:
    """The tests above rest on which of two sizes is the cheaper one."""
    known = [size for size in map(find, (A10, A100, RTX, H100, ND_A100, ND_H200)) if size is not None]
    prices = [size.price_per_hour for size in known if size.price_per_hour is not None]
    assert len(prices) == 6
    assert prices == sorted(prices)


async def test_fall_back_survives_a_kill_and_leaves_no_pool_behind(cluster: Running, aks: FakeAks, kube: Kube) -> None:
    first, second = "Standard_NC8as_T4_v3", "Standard_NC16as_T4_v3"
    aks.azure.settings.quota = {**aks.azure.settings.quota, T4_FAMILY: 1000}
    aks.azure.settings.capacity = {**aks.azure.settings.capacity, first: 0}
    hangs = Delay(operation=DELETE, pool="wsmid", seconds=AGES, after_effect=True)
    aks.azure.add_fault(hangs)
    await kube.create(CLAIMS, one_of("wsmid", first, second))
    # The failed pool is being deleted, and nobody was told so.
    await wait_hit(aks, hangs)
    await cluster.controller.kill()
    await cluster.controller.start()

    claim = await ready(kube, "wsmid")

    assert claim["metadata"]["labels"]["node.kubernetes.io/instance-type"] == second
    mine = [pool for pool in pools(aks).values() if claim["metadata"]["uid"] in pool.properties["tags"].values()]
    assert [(pool.name, pool.sku.name) for pool in mine] == [("wsmid", second)]


async def test_size_without_quota_is_asked_for_once_where_usages_cannot_be_read(aks: FakeAks, kube: Kube) -> None:
    forbidden = {"error": {"code": "AuthorizationFailed", "message": "The client does not have authorization."}}
    aks.azure.add_fault(Answer(operation="usages.list", status=403, body=forbidden, times=None))
    before = aks.azure.calls.count("usages.list")

    async def refused() -> int:
        return aks.azure.calls.count("usages.list") - before

    size, dearer = "Standard_NC96ads_A100_v4", "Standard_ND96isr_H100_v5"
    # For a claim that waits for quota usages are read again and again.
    await kube.create(CLAIMS, one_of("wsblind", A100))
    await eventually(refused, what="usages were refused")
    names = [f"wsblind{number}" for number in range(10)]
    await asyncio.gather(*(kube.create(CLAIMS, one_of(name, size, dearer)) for name in names))

    for name in names:
        claim = await ready(kube, name)
        assert claim["metadata"]["labels"]["node.kubernetes.io/instance-type"] == dearer
    assert puts(aks, names) == len(names) + 1


async def test_throttling_of_one_claim_holds_back_all(aks: FakeAks, kube: Kube) -> None:
    """The last one: nobody is given a pool for a minute and a half from here on."""
    throttled = {"code": "Throttled", "details": None, "message": "The request is being throttled.", "subcode": ""}
    aks.azure.add_fault(
        Answer(operation=PUT, status=429, body=throttled, headers={"Retry-After": str(THROTTLED_FOR)}, times=2)
    )
    names = ["wsslow0", "wsslow1", "wsslow2"]
    for name in names:
        await kube.create(CLAIMS, one_of(name, H100))
        claim = await kube.wait_claim(name, has_reason("Launched", "Throttled"))
        assert condition(claim, "Launched")["status"] == "Unknown"
    # Lists have a budget of their own.
    await wait_calls(aks, LIST, more=3)
    # The first one may have been about its own pool alone; two of them are about all.
    assert puts(aks, names) == 2
    for name in names:
        await kube.delete(CLAIMS, name)
        await kube.wait_gone(CLAIMS, name)
