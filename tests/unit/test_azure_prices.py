"""The price list over TLS, from a server that answers as a test says."""

import json
import ssl
from collections.abc import AsyncIterator, Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import trustme
from aiohttp import web

from provisioner.azure import prices as module
from provisioner.azure.prices import Prices, PricesUnavailable

A100 = "Standard_NC24ads_A100_v4"
Answer = Callable[[web.Request], web.StreamResponse]


def row(**changes: Any) -> dict[str, Any]:
    return {
        "currencyCode": "USD",
        "retailPrice": 3.673,
        "unitPrice": 3.673,
        "armRegionName": "eastus",
        "productName": "Virtual Machines NCadsA100v4 Series",
        "skuName": "NC24ads A100 v4",
        "meterName": "NC24ads A100 v4",
        "unitOfMeasure": "1 Hour",
        "type": "Consumption",
        "armSkuName": A100,
        **changes,
    }


def cpu(**changes: Any) -> dict[str, Any]:
    return row(armSkuName="Standard_D4s_v5", productName="Virtual Machines Dsv5 Series", retailPrice=0.192, **changes)


def page(*rows: Any, following: object = None) -> Answer:
    return lambda _request: web.json_response({"Items": list(rows), "NextPageLink": following, "Count": len(rows)})


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


class PriceList:
    """What is answered to the filter on GPU sizes and to the one on the whole region, and what was asked."""

    def __init__(self) -> None:
        self.endpoint = ""
        self.gpus: Answer = page(row())
        self.whole: Answer = page(row(), cpu())
        self.seen: list[web.Request] = []
        self.clock = Clock()

    async def answer(self, request: web.Request) -> web.StreamResponse:
        self.seen.append(request)
        return self.gpus(request) if "startswith" in request.query.get("$filter", "") else self.whole(request)

    def everywhere(self, answer: Answer) -> None:
        self.gpus = self.whole = answer

    def prices(self, *, location: str = "eastus") -> Prices:
        return Prices(location=location, endpoint=self.endpoint, clock=self.clock)


@pytest.fixture
async def price_list(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[PriceList]:
    listed = PriceList()
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    monkeypatch.setenv("NO_PROXY", "localhost")
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", listed.answer)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context)
    await site.start()
    listed.endpoint = f"https://localhost:{runner.addresses[0][1]}"
    yield listed
    await runner.cleanup()


async def refreshed(price_list: PriceList) -> Prices:
    prices = price_list.prices()
    await prices.refresh()
    return prices


async def unavailable(prices: Prices) -> str:
    with pytest.raises(PricesUnavailable) as caught:
        await prices.refresh()
    return str(caught.value)


async def test_prices_are_found_by_size_in_any_case(price_list: PriceList) -> None:
    price_list.whole = page(
        row(), cpu(), row(skuName="NC24ads A100 v4 Spot", meterName="NC24ads A100 v4 Spot", retailPrice=0.7346)
    )
    prices = price_list.prices(location="East US")
    assert prices.price(A100, spot=False) is None
    await prices.refresh()
    assert prices.price(A100.upper(), spot=False) == Decimal("3.673")
    assert prices.price(A100.lower(), spot=True) == Decimal("0.7346")
    assert prices.price("Standard_D4s_v5", spot=False) == Decimal("0.192")
    assert prices.price("Standard_D4s_v5", spot=True) is None
    assert prices.price("Standard_Nothing", spot=False) is None


async def test_the_list_is_asked_for_one_region_and_without_any_token(price_list: PriceList) -> None:
    await refreshed(price_list)
    first, second = price_list.seen
    common = (
        "priceType eq 'Consumption' and currencyCode eq 'USD' and serviceFamily eq 'Compute' and "
        "serviceName eq 'Virtual Machines' and armRegionName eq 'eastus'"
    )
    assert first.query["$filter"] == f"{common} and startswith(armSkuName,'Standard_N')"
    assert second.query["$filter"] == common
    for request in price_list.seen:
        assert request.path == "/api/retail/prices"
        assert request.query["api-version"] == "2023-01-01-preview"
        assert "+" not in request.raw_path
        assert not {"Authorization", "Cookie"} & set(request.headers)
        assert request.headers["User-Agent"].startswith("gpu-provisioner/")


@pytest.mark.parametrize(
    "other",
    [
        row(productName="Virtual Machines NCadsA100v4 Series Windows", retailPrice=9),
        row(productName="NCadsA100v4 Series CloudServices", retailPrice=9),
        row(productName="NCadsA100v4 Series Cloud Services", retailPrice=9),
        row(meterName="NC24ads A100 v4 Low Priority", retailPrice=9),
        row(skuName="NC24ads A100 v4 Low Priority", retailPrice=9),
        row(type="Reservation", retailPrice=9),
        row(type="DevTestConsumption", retailPrice=9),
        row(currencyCode="EUR", retailPrice=9),
        row(unitOfMeasure="1 Month", retailPrice=9),
        row(armRegionName="westus", retailPrice=9),
        row(retailPrice=0),
        row(retailPrice=-1),
        row(retailPrice=10_001),
        row(retailPrice="9"),
        row(retailPrice=True),
        row(retailPrice=None),
        row(retailPrice=[9]),
        row(productName=["x"], skuName=None, armSkuName={"a": 1}),
        row(armSkuName="", retailPrice=9),
        "a string",
        None,
        7,
    ],
)
async def test_what_is_no_price_of_a_linux_vm_by_the_hour_is_left_out(price_list: PriceList, other: Any) -> None:
    price_list.everywhere(page(other, row(), other))
    assert (await refreshed(price_list)).price(A100, spot=False) == Decimal("3.673")


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999999", "1e-400", "9" * 5000])
async def test_numbers_that_are_none_harm_nobody(price_list: PriceList, number: str) -> None:
    text = json.dumps({"Items": [row(retailPrice=0), row()]}).replace(": 0,", f": {number},", 1)
    price_list.everywhere(lambda _request: web.Response(text=text))
    prices = price_list.prices()
    try:
        await prices.refresh()
    except PricesUnavailable:
        assert prices.epoch == 0
    else:
        assert prices.price(A100, spot=False) == Decimal("3.673")


async def test_a_size_with_several_meters_costs_the_dearest(price_list: PriceList) -> None:
    price_list.everywhere(page(row(retailPrice=4), row(retailPrice=5), row(retailPrice=3)))
    assert (await refreshed(price_list)).price(A100, spot=False) == 5


async def test_pages_are_followed(price_list: PriceList) -> None:
    def answer(request: web.Request) -> web.StreamResponse:
        skip = int(request.query.get("$skip", "0"))
        # Azure's own links spell the port out and quote nothing.
        link = f"{price_list.endpoint}/api/retail/prices?$filter=serviceName eq 'VM'&$skip={skip + 1}"
        sizes = [f"Standard_D{number}s_v5" for number in (2, 4, 8)]
        return page(row(armSkuName=sizes[skip]), following=link if skip < 2 else "")(request)

    price_list.whole = answer
    prices = await refreshed(price_list)
    assert [prices.price(f"Standard_D{number}s_v5", spot=False) for number in (2, 4, 8)] == [Decimal("3.673")] * 3
    # What the first list has stays, should the second be shorter than it ought to be.
    assert prices.price(A100, spot=False) == Decimal("3.673")


@pytest.mark.parametrize(
    "link",
    ["https://evil.example/api", "http://localhost/", "//evil.example/x", "https://localhost:1/x", 7, ["x"], "::"],
)
async def test_a_link_that_leads_elsewhere_is_not_followed(price_list: PriceList, link: object) -> None:
    price_list.everywhere(page(row(), following=link))
    assert "leads away" in await unavailable(price_list.prices())
    assert len(price_list.seen) == 2


async def test_a_redirect_is_not_followed(price_list: PriceList) -> None:
    def answer(_request: web.Request) -> web.StreamResponse:
        raise web.HTTPFound("https://evil.example/")

    price_list.everywhere(answer)
    assert await unavailable(price_list.prices()) == "HTTP 302 from localhost"


async def test_a_list_without_end_is_none(price_list: PriceList, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_PAGES", 3)
    price_list.everywhere(lambda request: page(row(), following=str(request.url))(request))
    assert "more than 3 pages" in await unavailable(price_list.prices())
    assert len(price_list.seen) == 6


async def test_a_page_without_end_is_none(price_list: PriceList, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_PAGE_BYTES", 1000)
    price_list.everywhere(page(*[row()] * 10))
    assert "longer than 1000 bytes" in await unavailable(price_list.prices())


async def test_a_server_that_takes_too_long_is_given_up(price_list: PriceList, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "TIMEOUT", 0.0)
    assert await unavailable(price_list.prices()) == "TimeoutError"


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (lambda _: web.Response(status=429), "HTTP 429 from localhost"),
        (lambda _: web.Response(status=500, text="<html/>"), "HTTP 500 from localhost"),
        (lambda _: web.Response(text="<html/>"), "no JSON"),
        (lambda _: web.Response(body=b"\xff\xfe\xfa"), "no JSON"),
        (lambda _: web.Response(text="[" * 100_000), "no JSON"),
        (lambda _: web.Response(text="[]"), "no JSON object"),
        (lambda _: web.json_response({"Items": {}}), "no Items"),
        (page(), "no VM in eastus"),
        (page(row(type="Reservation")), "no VM in eastus"),
    ],
)
async def test_an_answer_that_is_no_price_list_changes_nothing(
    price_list: PriceList, answer: Answer, says: str
) -> None:
    prices = await refreshed(price_list)
    epoch = prices.epoch
    price_list.everywhere(answer)
    assert says in await unavailable(prices)
    assert prices.price(A100, spot=False) == Decimal("3.673")
    assert prices.epoch == epoch


async def test_a_filter_that_is_not_understood_is_done_without(price_list: PriceList) -> None:
    price_list.gpus = lambda _request: web.Response(status=400)
    prices = await refreshed(price_list)
    assert prices.price(A100, spot=False) == Decimal("3.673")
    assert prices.epoch == 1


async def test_the_prices_of_gpu_sizes_count_although_the_others_cannot_be_read(price_list: PriceList) -> None:
    price_list.whole = lambda _request: web.Response(status=503)
    prices = price_list.prices()
    assert await unavailable(prices) == "HTTP 503 from localhost"
    assert prices.price(A100, spot=False) == Decimal("3.673")
    assert (prices.epoch, prices.age) == (1, None)


async def test_what_is_no_longer_sold_is_forgotten(price_list: PriceList) -> None:
    prices = await refreshed(price_list)
    price_list.clock.now += 60
    assert prices.age == 60
    price_list.everywhere(page(cpu()))
    before = prices.epoch
    await prices.refresh()
    assert prices.price(A100, spot=False) is None
    assert prices.epoch > before
    assert prices.age == 0


async def test_a_server_that_is_not_trusted_is_not_read(price_list: PriceList, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SSL_CERT_FILE")
    assert "certificate" in (await unavailable(price_list.prices())).lower()
    assert not price_list.seen


async def test_nobody_answers(price_list: PriceList, monkeypatch: pytest.MonkeyPatch) -> None:
    prices = Prices(location="eastus", endpoint="https://localhost:1", clock=price_list.clock)
    assert "localhost:1" in await unavailable(prices)


async def test_the_list_can_be_switched_off() -> None:
    prices = Prices(location="eastus", endpoint="", clock=Clock())
    assert not prices.is_on
    await prices.refresh()
    assert prices.price(A100, spot=False) is None
    assert (prices.epoch, prices.age) == (0, None)


async def test_the_endpoint_may_have_the_path_of_the_api(price_list: PriceList) -> None:
    price_list.endpoint += "/api/retail/prices"
    assert (await refreshed(price_list)).is_on
    assert {request.path for request in price_list.seen} == {"/api/retail/prices"}


@pytest.mark.parametrize(
    "endpoint",
    [
        "http://prices.azure.com",
        "prices.azure.com",
        "https://",
        "https://user:hunter2@prices.azure.com",
        "https://prices.azure.com/other",
        "https://prices.azure.com?x=1",
        "https://prices.azure.com#x",
        "https://prices.azure.com:port",
    ],
)
def test_what_is_no_https_origin_is_refused(endpoint: str) -> None:
    with pytest.raises(ValueError, match="must be an https origin") as caught:
        Prices(location="eastus", endpoint=endpoint, clock=Clock())
    assert "hunter2" not in str(caught.value)


def test_a_location_that_is_none_is_refused() -> None:
    with pytest.raises(ValueError, match="is no Azure region"):
        Prices(location="x' or 1 eq 1", clock=Clock())
