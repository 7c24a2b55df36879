"""What VMs cost in one region, from Azure's public price list: US dollars an hour, before any agreement of yours.

https://learn.microsoft.com/rest/api/cost-management/retail-prices/azure-retail-prices. The list is there for the public
cloud alone, needs no identity, and must never be sent a token: so it has a connection of its own. It is of help in
choosing and nothing more; without it other prices serve, or none.
"""

import asyncio
import json
import re
import ssl
from collections.abc import Callable, Iterable, Mapping
from decimal import Decimal, InvalidOperation
from typing import Any, Final
from urllib.parse import quote, urlsplit

import aiohttp
from yarl import URL

from provisioner import __version__
from provisioner.azure.skus import region_name

PUBLIC_ENDPOINT: Final = "https://prices.azure.com"
_PATH: Final = "api/retail/prices"
# Also the version of which the values in a filter are case-sensitive; older ones list the same meters.
API_VERSION: Final = "2023-01-01-preview"
# Seconds: for one page, and for all that a refresh asks for. A whole region has more than 4,000 rows, 100 or 1,000 a
# page, and comes slowly.
PAGE_TIMEOUT: Final = 30.0
TIMEOUT: Final = 300.0
_CONNECT_TIMEOUT: Final = 10.0
# A list that has more pages, or a page that has more bytes, is none.
MAX_PAGES: Final = 200
MAX_PAGE_BYTES: Final = 8 << 20
# US dollars an hour. The dearest VM of Azure's costs a few hundred.
_MAX_PRICE: Final = Decimal(10_000)

# Cloud Services are sold under the same names of sizes.
_NOT_LINUX: Final = re.compile(r" Windows$| Cloud ?Services$")
_SIZE: Final = re.compile(r"Standard_[A-Za-z0-9_-]{1,80}", re.ASCII)

# As karpenter-provider-azure (pkg/providers/pricing) asks. The first list has the GPU sizes and is read in a second;
# that the API knows `startswith` is not documented, if widely relied on, so the whole region is asked for in any case.
_FILTER: Final = (
    "priceType eq 'Consumption' and currencyCode eq 'USD' and serviceFamily eq 'Compute' and "
    "serviceName eq 'Virtual Machines' and armRegionName eq '{region}'"
)
_GPUS: Final = f"{_FILTER} and startswith(armSkuName,'Standard_N')"

# By size in lower case, and whether it is spot.
_Found = dict[tuple[str, bool], Decimal]


class PricesUnavailable(Exception):
    """The price list could not be read, or not all of it; the text is for a log and has no line breaks."""


class Prices:
    """What was last listed. Empty until the first refresh, and for good where there is no endpoint."""

    def __init__(self, *, location: str, endpoint: str = PUBLIC_ENDPOINT, clock: Callable[[], float]) -> None:
        """Take the region in either form, `eastus` or `East US`, and a clock in monotonic seconds.

        `endpoint` is an https origin, with the path of the API after it or without; empty switches the list off, for
        clouds that have none and for networks that do not lead there. Raises ValueError for what is no region or no
        such origin.
        """
        self._location = region_name(location)
        self._endpoint = _origin(endpoint)
        self._clock = clock
        self._prices: _Found = {}
        self._fetched_at: float | None = None
        self._epoch = 0

    @property
    def is_on(self) -> bool:
        """Tell whether there is a list to read."""
        return self._endpoint is not None

    @property
    def epoch(self) -> int:
        """Return a number that changes whenever prices were read anew, for what is derived from them."""
        return self._epoch

    @property
    def age(self) -> float | None:
        """Return the seconds since the list was last read as a whole, None where it never was."""
        return None if self._fetched_at is None else self._clock() - self._fetched_at

    def price(self, size: str, *, spot: bool) -> Decimal | None:
        """Return US dollars an hour for a Linux VM of that size, in any case of letters; None where unknown."""
        return self._prices.get((size.lower(), spot))

    async def refresh(self) -> None:
        """Fetch the list: the GPU sizes first, which count from then on, and all sizes after them.

        Does nothing where the list is off. Raises PricesUnavailable and then keeps what it has.
        """
        if self._endpoint is None:
            return
        started = self._clock()
        try:
            async with asyncio.timeout(TIMEOUT), _open() as http:
                found = await self._read_gpus(http, self._endpoint)
                if found:
                    self._take_over({**self._prices, **found})
                found |= await self._read(http, self._endpoint, _FILTER)
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise PricesUnavailable(_described(error)) from error
        if not found:
            raise PricesUnavailable(f"the price list has no VM in {self._location}")
        self._take_over(found)
        self._fetched_at = started

    async def _read_gpus(self, http: aiohttp.ClientSession, endpoint: URL) -> _Found:
        try:
            return await self._read(http, endpoint, _GPUS)
        except PricesUnavailable:
            # It may be the filter that is not understood. The plain one has the last word.
            return {}

    async def _read(self, http: aiohttp.ClientSession, endpoint: URL, template: str) -> _Found:
        prices: _Found = {}
        # Quoted by hand: yarl would send a plus for a space.
        wanted = quote(template.format(region=self._location), safe="")
        url = URL(f"{endpoint}/{_PATH}?api-version={API_VERSION}&$filter={wanted}", encoded=True)
        for _ in range(MAX_PAGES):
            page = await _page(http, url)
            rows, following = page.get("Items"), page.get("NextPageLink")
            if not isinstance(rows, list):
                raise PricesUnavailable("the price list has no Items")
            for key, price in _parse(rows, region=self._location):
                # A size with several meters costs at most the dearest of them.
                prices[key] = max(price, prices.get(key, price))
            if not following:
                return prices
            url = _same_origin(endpoint, following)
        raise PricesUnavailable(f"the price list has more than {MAX_PAGES} pages")

    def _take_over(self, prices: _Found) -> None:
        self._prices = prices
        self._epoch += 1


def _open() -> aiohttp.ClientSession:
    # A new one for each refresh, twice a day; proxies and certificates are as they are then.
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(ssl=ssl.create_default_context(), limit=1),
        cookie_jar=aiohttp.DummyCookieJar(),
        timeout=aiohttp.ClientTimeout(total=PAGE_TIMEOUT, connect=_CONNECT_TIMEOUT),
        headers={"User-Agent": f"gpu-provisioner/{__version__}", "Accept": "application/json"},
        trust_env=True,
    )


async def _page(http: aiohttp.ClientSession, url: URL) -> Mapping[str, Any]:
    async with http.get(url, allow_redirects=False) as response:
        if response.status != 200:
            raise PricesUnavailable(f"HTTP {response.status} from {url.host}")
        body = await response.content.read(MAX_PAGE_BYTES + 1)
        chunk = body
        while chunk and len(body) <= MAX_PAGE_BYTES:
            chunk = await response.content.read(MAX_PAGE_BYTES + 1 - len(body))
            body += chunk
    if len(body) > MAX_PAGE_BYTES:
        raise PricesUnavailable(f"a page of the price list is longer than {MAX_PAGE_BYTES} bytes")
    try:
        # Money is decimal, from the first digit on. In a thread: 1,000 rows are a megabyte.
        page = await asyncio.to_thread(json.loads, body, parse_float=Decimal)
    except (ValueError, RecursionError, InvalidOperation) as error:
        raise PricesUnavailable("the price list is no JSON") from error
    if not isinstance(page, dict):
        raise PricesUnavailable("the price list is no JSON object")
    return page


def _parse(rows: Iterable[Any], *, region: str) -> Iterable[tuple[tuple[str, bool], Decimal]]:
    """Yield the prices of Linux VMs by the hour. Rows that are of something else, or make no sense, are left out."""
    for row in rows:
        if not isinstance(row, dict):
            continue
        size, product, sku, meter = (
            value if isinstance(value := row.get(key), str) else ""
            for key in ("armSkuName", "productName", "skuName", "meterName")
        )
        price = _price(row.get("retailPrice"))
        if (
            price is None
            or not _SIZE.fullmatch(size)
            or row.get("type") != "Consumption"
            or row.get("currencyCode") != "USD"
            or row.get("unitOfMeasure") != "1 Hour"
            or str(row.get("armRegionName")).lower() != region
            or _NOT_LINUX.search(product)
            or any(name.endswith(" Low Priority") for name in (sku, meter))
        ):
            continue
        yield (size.lower(), sku.endswith(" Spot")), price


def _price(value: object) -> Decimal | None:
    if isinstance(value, bool) or not isinstance(value, int | Decimal):
        return None
    price = Decimal(value)
    # Nothing that is offered is free.
    return price if price.is_finite() and 0 < price <= _MAX_PRICE else None


def _origin(endpoint: str) -> URL | None:
    if not endpoint:
        return None
    # Not quoted in the error: what stands before an `@` may be a password.
    try:
        parts = urlsplit(endpoint)
        url = URL(endpoint)
        usable = (
            parts.scheme == "https"
            and url.host
            and "@" not in parts.netloc
            and url.path.strip("/") in ("", _PATH)
            and not parts.query
            and not parts.fragment
        )
    except ValueError:
        usable = False
    if not usable:
        raise ValueError(f"the price list must be an https origin such as {PUBLIC_ENDPOINT}, or empty")
    return url.origin()


def _same_origin(endpoint: URL, link: object) -> URL:
    try:
        url = URL(str(link))
        # The real one writes its port out.
        same = (url.scheme, url.host, url.port) == (endpoint.scheme, endpoint.host, endpoint.port)
    except ValueError:
        same = False
    if not same:
        raise PricesUnavailable("the link to the next page leads away from the price list")
    return url


def _described(error: BaseException) -> str:
    text = " ".join(str(error).split())[:300]
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
