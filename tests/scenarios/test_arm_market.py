"""What VMs are left and what they cost, as the real SDK and a plain client read it from Azure."""

import time
from collections.abc import AsyncIterator
from decimal import Decimal
from pathlib import Path

import pytest

from fakes.azure import Answer
from provisioner.apis.failure import FailureClass
from provisioner.apis.quota import REGIONAL_USAGE, SPOT_USAGE, Scope
from provisioner.azure.agentpools import AgentPools
from provisioner.azure.prices import Prices
from provisioner.azure.session import AzureSession
from provisioner.azure.skus import SkuCatalogue
from provisioner.azure.usages import Usages
from tests.scenarios.arm_bench import BODY, Bench, arm_bench, refused

A100, A100_FAMILY = "Standard_NC24ads_A100_v4", "StandardNCADSA100v4Family"


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    async with arm_bench(tmp_path / "azure") as running:
        yield running


@pytest.fixture
async def session(bench: Bench) -> AsyncIterator[AzureSession]:
    async with bench.session() as opened:
        yield opened


async def test_quotas_of_the_region(bench: Bench, session: AzureSession) -> None:
    bench.azure.settings.change({"quota": {A100_FAMILY: 48, "cores": 100}, "usage": {A100_FAMILY: 24}})
    usages = Usages(session, location="East US", clock=time.monotonic)
    await usages.refresh()
    family = usages.by_name[A100_FAMILY.lower()]
    assert (family.limit, family.used) == (48, 24)
    assert usages.by_name[REGIONAL_USAGE.lower()].limit == 100
    assert usages.by_name[SPOT_USAGE.lower()].name == SPOT_USAGE
    assert usages.age is not None


async def test_quotas_over_several_pages(bench: Bench, session: AzureSession) -> None:
    whole, paged = (Usages(session, location="eastus", clock=time.monotonic) for _ in range(2))
    await whole.refresh()
    bench.azure.settings.change({"usage_page_size": 20})
    await paged.refresh()
    assert paged.by_name == whole.by_name
    assert bench.azure.calls.count("usages.list") > 2


async def test_quotas_that_may_not_be_read(bench: Bench, session: AzureSession) -> None:
    body = {"error": {"code": "AuthorizationFailed", "message": "no"}}
    bench.azure.add_fault(Answer(operation="usages.list", status=403, body=body))
    usages = Usages(session, location="eastus", clock=time.monotonic)
    error = await refused(usages.refresh())
    assert error.failure.kind is FailureClass.AUTH
    assert usages.age is None


async def test_the_families_of_sizes_are_those_of_quotas(session: AzureSession) -> None:
    sizes = SkuCatalogue(session, location="eastus", clock=time.monotonic)
    usages = Usages(session, location="eastus", clock=time.monotonic)
    await sizes.refresh()
    await usages.refresh()
    families = {sku.family.lower() for sku in sizes.all() if sku.name.startswith("Standard_N")}
    assert len(families) > 10
    assert families <= set(usages.by_name)


async def test_a_quota_that_does_not_suffice_is_known_by_its_numbers(bench: Bench, session: AzureSession) -> None:
    bench.azure.settings.change({"quota": {A100_FAMILY: 30}, "usage": {A100_FAMILY: 24}})
    error = await refused(AgentPools(session).create("gpu1", BODY))
    assert error.failure.kind is FailureClass.QUOTA
    shortage = error.failure.shortage
    assert shortage is not None
    assert (shortage.scope, shortage.needed, shortage.left) == (Scope.FAMILY, 24, 6)
    assert shortage.family.lower() == A100_FAMILY.lower()


async def test_sizes_that_the_subscription_may_not_use(bench: Bench, session: AzureSession) -> None:
    bench.azure.settings.change({"restricted": {A100: (), "Standard_NC4as_T4_v3": ("1",)}})
    sizes = SkuCatalogue(session, location="eastus", clock=time.monotonic)
    await sizes.refresh()
    closed, zonal = sizes.get(A100), sizes.get("Standard_NC4as_T4_v3")
    assert closed is not None
    assert zonal is not None
    assert closed.restricted
    assert closed.restriction.startswith(f"{A100} is closed to this subscription in eastus (")
    assert not zonal.restricted
    assert zonal.closed_zones == ("1",)
    assert "1" not in zonal.zones


async def test_spot_and_zones_of_a_pool_are_read_back(session: AzureSession) -> None:
    pools = AgentPools(session)
    wish = {**BODY["properties"], "scaleSetPriority": "Spot", "availabilityZones": ["1"]}
    await pools.create("gpu1", {"properties": {**wish, "upgradeSettings": {"maxSurge": "1"}}})
    (pool,) = [pool for pool in await pools.list() if pool.name == "gpu1"]
    assert (pool.spot, pool.zones, pool.max_surge) == (True, ("1",), "1")


async def test_prices_of_the_region(bench: Bench) -> None:
    bench.azure.settings.change({"prices": {A100: 3.5, f"{A100}/spot": 0.7}, "price_page_size": 50})
    prices = Prices(location="eastus", endpoint=bench.azure.pricing_endpoint, clock=time.monotonic)
    await prices.refresh()
    assert prices.price(A100.lower(), spot=False) == Decimal("3.5")
    assert prices.price(A100, spot=True) == Decimal("0.7")
    cheap = prices.price("Standard_D2s_v5", spot=False)
    assert cheap is not None
    assert cheap < 1
    assert bench.azure.calls.count("entra.token") == 0
    assert bench.azure.calls.count("prices.list") > 4
