"""Whether the resources exist that a node class names, and what is reserved."""

from collections.abc import Iterable, Mapping
from typing import Any, Final

from provisioner.apis.reservation import Reserved
from provisioner.azure.agentpools import READ_TIMEOUT
from provisioner.azure.caller import Caller
from provisioner.azure.errors import ArmFailure

# https://learn.microsoft.com/rest/api/virtualnetwork/subnets/get
_NETWORK_API: Final = "2024-05-01"
# https://learn.microsoft.com/rest/api/compute/capacity-reservations/list-by-capacity-reservation-group
_COMPUTE_API: Final = "2024-07-01"
# How ARM and the resource providers say that it is the resource, or what it is in, that is not there. A subscription
# that is not found may well be one that this identity cannot see.
_MISSING: Final = frozenset({"resourcenotfound", "notfound", "parentresourcenotfound", "resourcegroupnotfound"})
_NOT_FOUND: Final = 404


class References:
    """The gateway. Each call is one request, never repeated, or one a page.

    IDs go into its path as they are: whoever read the class has made sure that they are none but IDs.
    """

    def __init__(self, session: Caller) -> None:
        self._session = session

    async def subnet_exists(self, resource_id: str) -> bool:
        """Tell whether there is such a subnet. Raises ArmFailure."""
        try:
            await self._session.call(
                "GET",
                resource_id,
                operation="subnets.get",
                timeout=READ_TIMEOUT,
                accept=(200,),
                query={"api-version": _NETWORK_API},
            )
        except ArmFailure as error:
            if _is_missing(error):
                return False
            raise
        return True

    async def reservations(self, resource_id: str) -> frozenset[Reserved] | None:
        """Return what a capacity reservation group reserves, None where there is no such group. Raises ArmFailure.

        However many VMs: Azure takes more into a group than it reserves, where it has them
        (https://learn.microsoft.com/azure/virtual-machines/capacity-reservation-overallocate).
        """
        try:
            items = await self._session.list(
                f"{resource_id}/capacityReservations",
                operation="capacityreservations.list",
                timeout=READ_TIMEOUT,
                query={"api-version": _COMPUTE_API},
            )
        except ArmFailure as error:
            if _is_missing(error):
                return None
            raise
        return frozenset(_parse(items))


def _is_missing(error: ArmFailure) -> bool:
    return error.status == _NOT_FOUND and error.failure.code.lower() in _MISSING


def _parse(items: Iterable[Mapping[str, Any]]) -> Iterable[Reserved]:
    for item in items:
        sku, zones = item.get("sku"), item.get("zones") or [""]
        name = sku.get("name") if isinstance(sku, Mapping) else None
        if isinstance(name, str) and isinstance(zones, list):
            yield from (Reserved(size=name.lower(), zone=str(zone)) for zone in zones)
