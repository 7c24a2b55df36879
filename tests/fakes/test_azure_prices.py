"""The Retail Prices API over the wire, asked through an azure-core pipeline without a credential."""

import contextlib
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import quote

import pytest
from azure.core import AsyncPipelineClient
from azure.core.rest import HttpRequest
from hypothesis import given
from hypothesis import strategies as st

from fakes.azure import Answer, FakeAzure
from fakes.azure.odata import MAX_COMPARISONS, FilterError, parse

SIZE = "Standard_NC24ads_A100_v4"
PREVIEW = "2023-01-01-preview"
CONSUMPTION = (
    "priceType eq 'Consumption' and currencyCode eq 'USD' and serviceFamily eq 'Compute' and "
    "serviceName eq 'Virtual Machines' and armRegionName eq 'eastus'"
)


class Retail:
    """A client that needs no token."""

    def __init__(self, client: Any, azure: FakeAzure) -> None:
        self._client = client
        self._azure = azure

    async def get(self, odata: str | None = None, **query: str) -> Any:
        asked = {"$filter": odata, **query} if odata else query
        url = "&".join(f"{name}={quote(value)}" for name, value in asked.items())
        return await self.follow(f"{self._azure.pricing_endpoint}?{url}")

    async def follow(self, url: str) -> Any:
        return await self._client.send_request(HttpRequest("GET", url))

    async def rows(self, odata: str | None = None, **query: str) -> list[dict[str, Any]]:
        answer, rows = await self.get(odata, **query), list[dict[str, Any]]()
        while True:
            assert answer.status_code == 200
            body = answer.json()
            assert body["Count"] == len(body["Items"])
            assert (body["BillingCurrency"], body["CustomerEntityId"]) == ("USD", "Default")
            rows += body["Items"]
            if body["NextPageLink"] is None:
                return rows
            answer = await self.follow(body["NextPageLink"])

    async def refusal(self, odata: str | None = None, **query: str) -> str:
        answer = await self.get(odata, **query)
        assert answer.status_code == 400
        assert answer.json()["Error"]["Code"] == "BadRequest"
        return str(answer.json()["Error"]["Message"])


@pytest.fixture
async def retail(azure: FakeAzure) -> AsyncIterator[Retail]:
    pipeline: AsyncPipelineClient[Any, Any] = AsyncPipelineClient(azure.endpoint, connection_verify=str(azure.ca_file))
    async with pipeline as client:
        yield Retail(client, azure)


def linux(rows: list[dict[str, Any]], size: str) -> dict[str, float]:
    """Return the prices of a Linux VM as Karpenter picks them: on demand under "", spot under "Spot"."""
    found: dict[str, float] = {}
    for row in rows:
        unwanted = row["productName"].endswith((" Windows", " CloudServices"))
        if row["armSkuName"] != size or unwanted or row["meterName"].endswith(" Low Priority"):
            continue
        kind = "Spot" if row["skuName"].endswith(" Spot") else ""
        assert kind not in found
        found[kind] = row["retailPrice"]
    return found


async def test_on_demand_and_spot_prices_of_a_region(retail: Retail, azure: FakeAzure) -> None:
    rows = await retail.rows(CONSUMPTION, **{"api-version": PREVIEW})
    assert {row["armRegionName"] for row in rows} == {"eastus"}
    assert {row["type"] for row in rows} == {"Consumption"}
    prices = linux(rows, SIZE)
    assert prices[""] == 3.673
    assert 0 < prices["Spot"] < prices[""]
    assert linux(rows, "Standard_D2s_v3")[""] == 0.096
    # Retired sizes still have a price; a size may have none.
    assert linux(rows, "Standard_NC6s_v3")[""] == 3.06
    assert linux(rows, "Standard_ND128isr_GB300_v6") == {}
    assert azure.calls.count("prices.list", status=200) == 1


async def test_a_size_has_rows_for_all_that_can_be_bought_under_its_name(retail: Retail) -> None:
    rows = await retail.rows("armSkuName eq 'Standard_D2s_v3' and armRegionName eq 'eastus'")
    by_type = {kind: [row for row in rows if row["type"] == kind] for kind in ("Consumption", "DevTestConsumption")}
    assert {kind: len(found) for kind, found in by_type.items()} == {"Consumption": 6, "DevTestConsumption": 3}
    prices = {(row["productName"][-7:], row["skuName"]): row["retailPrice"] for row in by_type["Consumption"]}
    assert prices["Windows", "D2s v3"] == 0.188
    assert prices["Windows", "D2s v3 Low Priority"] == 0.075
    assert prices[" Series", "D2s v3 Low Priority"] == 0.019
    assert len({row["meterId"] for row in by_type["Consumption"]}) == 6
    reserved = await retail.rows(f"armSkuName eq '{SIZE}' and priceType eq 'Reservation' and armRegionName eq 'eastus'")
    assert sorted(row["reservationTerm"] for row in reserved) == ["1 Year", "3 Years"]
    assert min(row["retailPrice"] for row in reserved) > 10_000


async def test_cloud_services_are_sold_under_the_same_name_for_more(retail: Retail) -> None:
    rows = await retail.rows(f"{CONSUMPTION} and armSkuName eq 'Standard_D4ds_v5' and contains(productName, 'Cloud')")
    assert [(row["productName"], row["skuName"]) for row in rows] == [("Ddsv5 Series CloudServices", "D4ds v5")]


async def test_the_price_that_counts_need_not_be_of_a_primary_meter(retail: Retail) -> None:
    rows = await retail.rows(CONSUMPTION)
    plain = [row for row in rows if " " not in row["productName"].rpartition("Series")[2]]
    assert {row["isPrimaryMeterRegion"] for row in plain} == {True, False}
    primary = await retail.rows(f"{CONSUMPTION} and isPrimaryMeterRegion eq true")
    assert len(primary) < len(rows)
    assert await retail.rows(CONSUMPTION, meterRegion="'primary'") == primary


async def test_pages_are_followed_to_the_end(retail: Retail, azure: FakeAzure) -> None:
    whole = await retail.rows()
    assert len(whole) > 2000
    assert azure.calls.count("prices.list") == -(-len(whole) // 1000)
    first = (await retail.get()).json()
    assert first["Count"] == 1000
    assert first["NextPageLink"] == f"{azure.pricing_endpoint}?$skip=1000"
    azure.settings.price_page_size = 7
    answer = (await retail.get("contains(armSkuName, 'A100')")).json()
    assert (answer["Count"], "$filter=contains" in answer["NextPageLink"]) == (7, True)
    keys = {(row["meterId"], row["type"], row.get("reservationTerm")) for row in whole}
    assert len(keys) == len(whole)
    azure.settings.price_page_size = 500
    assert await retail.rows() == whole


async def test_other_regions_and_services_are_there_unless_the_filter_says_no(retail: Retail) -> None:
    rows = await retail.rows()
    assert {"eastus", "westeurope"} <= {row["armRegionName"] for row in rows}
    assert {row["serviceName"] for row in rows} == {"Virtual Machines", "Storage"}
    assert await retail.rows("armRegionName eq 'atlantis'") == []


async def test_savings_plans_and_cases_depend_on_the_version(retail: Retail) -> None:
    odata = f"armSkuName eq '{SIZE.lower()}' and armRegionName eq 'eastus'"
    old = await retail.rows(odata)
    assert old
    assert not any("savingsPlan" in row for row in old)
    assert await retail.rows(odata, **{"api-version": PREVIEW}) == []
    new = await retail.rows(odata.replace(SIZE.lower(), SIZE), **{"api-version": PREVIEW})
    (with_plan,) = [row for row in new if "savingsPlan" in row]
    assert [plan["term"] for plan in with_plan["savingsPlan"]] == ["3 Years", "1 Year"]
    assert linux([with_plan], SIZE) == {"": 3.673}
    assert await retail.refusal(**{"api-version": "2023-01-01"}) == "Unsupported API version"


async def test_prices_can_be_set_while_it_runs(retail: Retail, azure: FakeAzure) -> None:
    azure.settings.prices = {SIZE.upper(): 1.25, f"{SIZE}/SPOT": 0.5, "Standard_ND128isr_GB300_v6": 200.0}
    rows = await retail.rows(CONSUMPTION)
    assert linux(rows, SIZE) == {"": 1.25, "Spot": 0.5}
    assert linux(rows, "Standard_ND128isr_GB300_v6")[""] == 200.0
    elsewhere = await retail.rows(CONSUMPTION.replace("eastus", "westeurope"))
    assert linux(elsewhere, SIZE)[""] == pytest.approx(3.673 * 1.2)
    azure.settings.prices = {}
    assert linux(await retail.rows(CONSUMPTION), SIZE)[""] == 3.673


async def test_faults_hit_the_prices_too(retail: Retail, azure: FakeAzure) -> None:
    azure.add_fault(Answer(operation="prices.list", status=503, body="<html>busy</html>"))
    assert (await retail.get()).status_code == 503
    assert (await retail.get()).status_code == 200


async def test_no_token_is_asked_for_and_none_is_counted(retail: Retail, azure: FakeAzure) -> None:
    assert (await retail.get()).status_code == 200
    assert azure.calls.count("entra.token") == 0
    assert (await retail.follow(f"{azure.endpoint}/api/retail/other")).status_code == 401


@pytest.mark.parametrize(
    "odata",
    [
        "armSkuName in ('Standard_D2s_v3')",
        "not contains(productName, 'Windows')",
        "armSkuName ne 'x'",
        "termType eq 'x'",
        "priceType eq 'Spot'",
        "armSkuName eq",
        "armSkuName eq 'x",
        "armSkuName eq 'x')",
        "(armSkuName eq 'x'",
        "armSkuName eq 'x' armSkuName eq 'y'",
        "contains(armSkuName 'x')",
        "endswith(armSkuName, 'x')",
        "armSkuName",
        "and",
        "armSkuName eq ;",
        " or ".join(["armSkuName eq 'x'"] * 21),
        "(" * 60 + "armSkuName eq 'x'" + ")" * 60,
    ],
)
async def test_filters_that_are_not_served(retail: Retail, odata: str) -> None:
    assert await retail.refusal(odata) == "Invalid OData parameters supplied"


async def test_other_bad_requests(retail: Retail) -> None:
    assert await retail.refusal(currencyCode="'XYZ'") == "Invalid parameters supplied"
    assert await retail.refusal(**{"$skip": "-1"}) == "Invalid parameters supplied"
    assert (await retail.get("contains(armSkuName, '" + "x" * 2000 + "')")).status_code == 404
    assert await retail.rows("priceType eq 'SavingsPlan'") == []


FIELDS = {"a": "a", "b": "b", "kind": "type"}
ROW = {"a": "it's X", "b": 2.5, "type": "T"}


@pytest.mark.parametrize(
    ("text", "selected"),
    [
        ("a eq 'it''s X'", True),
        ("a eq 'it''s x'", False),
        ("A eq 'it''s X'", True),
        ("b eq 2.5 and kind eq 'T'", True),
        ("b eq 2", False),
        ("b eq '2.5'", False),
        ("a eq 'x' or b eq 2.5", True),
        ("a eq 'x' and b eq 1 or b eq 2.5", True),
        ("b eq 2.5 or a eq 'x' and b eq 1", True),
        ("(b eq 2.5 or a eq 'x') and b eq 1", False),
        ("contains(a,'s X')", True),
        (" startswith( a , 'it' ) ", True),
        ("startswith(a, 'X')", False),
        ("a eq true", False),
    ],
)
def test_what_a_filter_means(text: str, selected: bool) -> None:
    assert parse(text, fields=FIELDS, case_sensitive=True).selects(ROW) is selected


def test_cases_may_be_passed_over() -> None:
    assert parse("a eq 'IT''S x'", fields=FIELDS, case_sensitive=False).selects(ROW)
    assert parse("contains(a, 'T''S')", fields=FIELDS, case_sensitive=False).selects(ROW)


@given(st.integers(1, MAX_COMPARISONS + 5))
def test_so_many_comparisons_and_no_more(number: int) -> None:
    text = " or ".join(["a eq 'x'"] * number)
    if number <= MAX_COMPARISONS:
        assert len(parse(text, fields=FIELDS, case_sensitive=True).comparisons) == number
    else:
        with pytest.raises(FilterError):
            parse(text, fields=FIELDS, case_sensitive=True)


@given(st.lists(st.sampled_from(["a", "b", "eq", "and", "or", "(", ")", ",", "'x'", "2", "contains", "true", "?"])))
def test_whatever_is_sent_is_a_filter_or_is_refused_as_none(words: list[str]) -> None:
    text = " ".join(words)
    with contextlib.suppress(FilterError):
        chosen = parse(text, fields=FIELDS, case_sensitive=True)
        assert chosen.selects(ROW) in (True, False)
        assert 0 < len(chosen.comparisons) <= text.count("eq") + text.count("contains")
