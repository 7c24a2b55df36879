"""The Retail Prices API, as https://prices.azure.com/api/retail/prices answers: no token, no region in the path.

https://learn.microsoft.com/rest/api/cost-management/retail-prices/azure-retail-prices. A size has many rows in a
region: Linux and Windows, each on demand, spot and low priority, the latter for developers once more, Cloud Services
under the same size name for some, and reservations, whose price is that of the whole term. The price that a Linux VM
pays may well be one of `isPrimaryMeterRegion: false`. Shares and surcharges are those of Standard_D2s_v3 in East US.
"""

import functools
import hashlib
import json
import re
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import resources
from typing import Any, Final
from urllib.parse import quote, urlencode

from fakes.azure import odata, skus
from fakes.azure.settings import Settings
from fakes.azure.skus import Sku

_PREVIEW: Final = "2023-01-01-preview"
_VERSIONS: Final = frozenset({"", "2021-10-01-preview", _PREVIEW})
# Types that are no error to ask for. There are no rows of the last.
_TYPES: Final = frozenset({"consumption", "reservation", "devtestconsumption", "savingsplan"})
_MAX_URL: Final = 2048

# Dollars a vCPU and hour for Windows; what low priority costs of the full price.
_WINDOWS_LICENCE: Final = 0.046
_LOW_PRIORITY: Final = {"": 0.2, " Windows": 0.4}
# Where the fake knows prices beside the cluster's region, and how much dearer it is there.
_ELSEWHERE: Final = {"westeurope": 1.2, "eastus2": 1.0}
_PLACES: Final = {"eastus": "US East", "eastus2": "US East 2", "westeurope": "EU West"}
_HOURS: Final = {"1 Year": (8760, 0.59), "3 Years": (26280, 0.38)}
# Families whose sizes Cloud Services sell too, and the oldest ones, that nobody can reserve any more.
_CLOUD_SERVICES: Final = frozenset({"standardDADSv5Family", "standardDDSv5Family", "standardEDSv5Family"})
_UNRESERVABLE: Final = frozenset({"standardDSv3Family", "standardBSFamily", "standardDSv2Family", "standardAv2Family"})

# What filters call the fields, lower-cased. `priceType` is the one that rows call otherwise.
_FIELDS: Final = {
    name.lower(): name
    for name in (
        *("currencyCode", "armRegionName", "location", "meterId", "meterName", "productId", "productName", "skuId"),
        *("skuName", "serviceName", "serviceId", "serviceFamily", "unitOfMeasure", "armSkuName", "reservationTerm"),
        *("isPrimaryMeterRegion", "type"),
    )
} | {"pricetype": "type"}


@dataclass(frozen=True, kw_only=True)
class Page:
    """An answer: status and body."""

    status: int
    body: Any = None


class Prices:
    """The prices of all sizes, in the cluster's region as the settings have them."""

    def __init__(self, *, settings: Settings, region: str) -> None:
        self._settings = settings
        self._region = region

    def answer(self, url: str, *, query: Mapping[str, str]) -> Page:
        """Return a page of the rows that a query selects, or the API's refusal. `url` is as it was asked for."""
        if len(url) > _MAX_URL:
            return Page(status=404)
        version = query.get("api-version", "")
        if version not in _VERSIONS:
            return _refused("Unsupported API version")
        if query.get("currencyCode", "USD").strip("'") != "USD" or not query.get("$skip", "0").isdecimal():
            return _refused("Invalid parameters supplied")
        try:
            rows = self._select(query.get("$filter", ""), version=version)
        except odata.FilterError:
            return _refused("Invalid OData parameters supplied")
        if query.get("meterRegion", "").strip("'") == "primary":
            rows = [row for row in rows if row["isPrimaryMeterRegion"]]
        return Page(status=200, body=self._page(url.partition("?")[0], query, rows))

    def _select(self, text: str, *, version: str) -> list[dict[str, Any]]:
        rows = [
            row if version == _PREVIEW else {name: value for name, value in row.items() if name != "savingsPlan"}
            for row in _rows(self._region, tuple(sorted(self._settings.prices.items())))
        ]
        if not text:
            return rows
        # Values in filters have been case sensitive since that version.
        chosen = odata.parse(text, fields=_FIELDS, case_sensitive=version == _PREVIEW)
        for comparison in chosen.comparisons:
            if comparison.field == "pricetype" and str(comparison.value).lower() not in _TYPES:
                raise odata.FilterError(f"{comparison.value} is no type of price")
        return [row for row in rows if chosen.selects(row)]

    def _page(self, base: str, query: Mapping[str, str], rows: list[dict[str, Any]]) -> dict[str, Any]:
        start, size = int(query.get("$skip", "0")), self._settings.price_page_size
        items = rows[start : start + size]
        following = urlencode({**query, "$skip": str(start + size)}, safe="$", quote_via=quote)
        return {
            "BillingCurrency": "USD",
            "CustomerEntityId": "Default",
            "CustomerEntityType": "Retail",
            "Items": items,
            "NextPageLink": f"{base}?{following}" if start + size < len(rows) else None,
            "Count": len(items),
        }


def _refused(message: str) -> Page:
    return Page(status=400, body={"Error": {"Code": "BadRequest", "Message": message}})


@functools.cache
def _list_prices() -> Mapping[str, float]:
    """Return dollars an hour by size: Linux, on demand, East US. Not every size has a price."""
    text = resources.files(__package__).joinpath("prices.json").read_text(encoding="utf-8")
    return {str(name): float(price) for name, price in json.loads(text).items()}


@functools.lru_cache(maxsize=8)
def _rows(region: str, overrides: tuple[tuple[str, float], ...]) -> tuple[dict[str, Any], ...]:
    """Return the rows of all regions, in an order of the API's own."""
    own = dict(overrides)
    found: list[dict[str, Any]] = []
    for where, factor in {**_ELSEWHERE, region: 1.0}.items():
        for sku in skus.catalogue().values():
            listed = _list_prices().get(sku.name)
            price = None if listed is None else round(listed * factor, 5)
            here = own if where == region else {}
            price = here.get(sku.name, price)
            spot = here.get(f"{sku.name}/spot", None if price is None else round(price * _spot_share(sku), 6))
            found += _Meters(sku, region=where).rows(price=price, spot=spot)
        found.append(_other_service(where))
    return tuple(sorted(found, key=lambda row: (row["meterId"], row["type"], row.get("reservationTerm", ""))))


def _digest(*parts: str) -> int:
    return int.from_bytes(hashlib.sha256("/".join(parts).encode()).digest()[:8])


def _spot_share(sku: Sku) -> float:
    # Between a tenth and six tenths, one for all sizes of a family.
    return 0.1 + _digest(sku.family) % 51 / 100


class _Meters:
    """The rows of one size in one region."""

    def __init__(self, sku: Sku, *, region: str) -> None:
        self._sku = sku
        self._region = region
        self._name = sku.name.removeprefix("Standard_").replace("_", " ")
        self._series = re.sub(r"^([A-Z]+)\d+([a-z]*) ?", r"\1\2", self._name)

    def rows(self, *, price: float | None, spot: float | None) -> Iterator[dict[str, Any]]:
        for system in ("", " Windows"):
            product = f"Virtual Machines {self._series} Series{system}"
            licence = self._sku.vcpus * _WINDOWS_LICENCE if system else 0.0
            if price is not None:
                full = round(price + licence, 5)
                row = self._row(product, "", full)
                if not system and not self._sku.retired:
                    row["savingsPlan"] = [
                        {"unitPrice": rate, "retailPrice": rate, "term": term}
                        for term, rate in (("3 Years", round(full * 0.47, 6)), ("1 Year", round(full * 0.69, 6)))
                    ]
                yield row
                yield self._row(product, " Low Priority", round(full * _LOW_PRIORITY[system], 3))
            if spot is not None:
                yield self._row(product, " Spot", round(spot + licence * _spot_share(self._sku), 6))
            if system and price is not None and spot is not None:
                # Developers do not pay for Windows.
                for suffix, rate in (("", price), (" Spot", spot), (" Low Priority", round(price * 0.2, 3))):
                    yield self._row(product, suffix, rate, kind="DevTestConsumption")
        if price is not None and self._sku.family in _CLOUD_SERVICES:
            yield self._row(f"{self._series} Series CloudServices", "", round(price * 1.7, 5))
        if price is not None and self._sku.family not in _UNRESERVABLE and not self._sku.retired:
            for term, (hours, share) in _HOURS.items():
                whole = float(round(price * share * hours))
                product = f"Virtual Machines {self._series} Series"
                yield self._row(product, "", whole, kind="Reservation") | {"reservationTerm": term}

    def _row(self, product: str, suffix: str, price: float, *, kind: str = "Consumption") -> dict[str, Any]:
        name = f"{self._name}{suffix}"
        primary = suffix == " Spot" or _digest(self._sku.name, self._region) % 3 > 0
        return {
            "currencyCode": "USD",
            "tierMinimumUnits": 0.0,
            "retailPrice": price,
            "unitPrice": price,
            "armRegionName": self._region,
            "location": _PLACES.get(self._region, self._region),
            "effectiveStartDate": "2025-11-01T00:00:00Z",
            "meterId": str(uuid.uuid5(uuid.NAMESPACE_URL, f"{self._region}/{product}/{name}")),
            "meterName": name,
            **_product(product, name),
            "skuName": name,
            "serviceName": "Virtual Machines",
            "serviceId": "DZH313Z7MMC8",
            "serviceFamily": "Compute",
            "unitOfMeasure": "1 Hour",
            "type": kind,
            "isPrimaryMeterRegion": primary,
            "armSkuName": self._sku.name,
        }


def _product(product: str, name: str) -> dict[str, str]:
    product_id = f"DZH318Z{_digest(product) % 36**5:05X}"
    return {"productId": product_id, "skuId": f"{product_id}/{_digest(name) % 16**4:04X}", "productName": product}


def _other_service(region: str) -> dict[str, Any]:
    """Return a row of another service: filters have to name the one that is meant."""
    return {
        "currencyCode": "USD",
        "tierMinimumUnits": 0.0,
        "retailPrice": 0.0184,
        "unitPrice": 0.0184,
        "armRegionName": region,
        "location": _PLACES.get(region, region),
        "effectiveStartDate": "2025-11-01T00:00:00Z",
        "meterId": str(uuid.uuid5(uuid.NAMESPACE_URL, f"{region}/storage")),
        "meterName": "Hot LRS Data Stored",
        **_product("General Block Blob v2", "Hot LRS"),
        "skuName": "Hot LRS",
        "serviceName": "Storage",
        "serviceId": "DZH317F1HKN0",
        "serviceFamily": "Storage",
        "unitOfMeasure": "1 GB/Month",
        "type": "Consumption",
        "isPrimaryMeterRegion": True,
        "armSkuName": "",
    }
