"""The vCPU quotas of one region and how much of them this subscription uses, as Compute counts them.

https://learn.microsoft.com/rest/api/compute/usage/list. A row for each VM family, named as Resource SKUs names it but
for the case of letters, one for all vCPUs of the region and one for spot VMs.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from provisioner.apis.quota import Usage
from provisioner.azure.caller import Caller
from provisioner.azure.skus import region_name

# The newest that there is of this API.
API_VERSION: Final = "2026-04-01"
# Seconds for all pages.
TIMEOUT: Final = 10.0
# Beyond what any subscription has; a number above it is none.
_MAX: Final = 10**9


class Usages:
    """What was last listed. Empty until the first refresh: whether a VM fits is then Azure's to judge."""

    def __init__(self, session: Caller, *, location: str, clock: Callable[[], float]) -> None:
        """Take the region in either form, `eastus` or `East US`, and a clock in monotonic seconds.

        Raises ValueError for what is no region.
        """
        self._session = session
        self._location = region_name(location)
        self._clock = clock
        self._by_name: Mapping[str, Usage] = {}
        self._fetched_at: float | None = None

    @property
    def location(self) -> str:
        """Return the region in Azure's short form."""
        return self._location

    @property
    def age(self) -> float | None:
        """Return the seconds since the list was asked for, None where it never was read."""
        return None if self._fetched_at is None else self._clock() - self._fetched_at

    @property
    def by_name(self) -> Mapping[str, Usage]:
        """Return the quotas by name in lower case."""
        return self._by_name

    async def refresh(self) -> None:
        """Fetch the list. Raises ArmFailure and then keeps what it had."""
        started = self._clock()
        items = await self._session.list(
            f"{self._session.target.subscription_path}/providers/Microsoft.Compute/locations/{self._location}/usages",
            operation="usages.list",
            timeout=TIMEOUT,
            query={"api-version": API_VERSION},
        )
        self._by_name = {usage.name.lower(): usage for usage in _parse_all(items)}
        self._fetched_at = started


def _parse_all(items: Iterable[Mapping[str, Any]]) -> Iterable[Usage]:
    for item in items:
        name = item.get("name")
        if not isinstance(name, Mapping) or not isinstance(name.get("value"), str) or not name["value"]:
            continue
        limit, used = _count(item.get("limit")), _count(item.get("currentValue"))
        # A row that cannot be read must not look like a quota that is used up.
        if limit is not None and used is not None:
            localized = name.get("localizedValue")
            yield Usage(
                name=name["value"], limit=limit, used=used, localized=localized if isinstance(localized, str) else ""
            )


def _count(value: object) -> int | None:
    # bool is an int to Python, and a NaN is in no range.
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= _MAX:
        return None
    return int(value)
