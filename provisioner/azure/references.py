"""Whether the resources exist that a node class names."""

from typing import Final

from provisioner.azure.agentpools import READ_TIMEOUT
from provisioner.azure.caller import Caller
from provisioner.azure.errors import ArmFailure

# https://learn.microsoft.com/rest/api/virtualnetwork/subnets/get
_NETWORK_API: Final = "2024-05-01"
# https://learn.microsoft.com/rest/api/compute/capacity-reservation-groups/get
_COMPUTE_API: Final = "2024-07-01"
# How ARM and the resource providers say that it is the resource, or what it is in, that is not there. A subscription
# that is not found may well be one that this identity cannot see.
_MISSING: Final = frozenset({"resourcenotfound", "notfound", "parentresourcenotfound", "resourcegroupnotfound"})
_NOT_FOUND: Final = 404


class References:
    """The gateway. Each call is one request, never repeated.

    IDs go into its path as they are: whoever read the class has made sure that they are none but IDs.
    """

    def __init__(self, session: Caller) -> None:
        self._session = session

    async def subnet_exists(self, resource_id: str) -> bool:
        """Tell whether there is such a subnet. Raises ArmFailure."""
        return await self._exists(resource_id, operation="subnets.get", api=_NETWORK_API)

    async def reservation_exists(self, resource_id: str) -> bool:
        """Tell whether there is such a capacity reservation group. Raises ArmFailure."""
        return await self._exists(resource_id, operation="capacityreservationgroups.get", api=_COMPUTE_API)

    async def _exists(self, resource_id: str, *, operation: str, api: str) -> bool:
        try:
            await self._session.call(
                "GET",
                resource_id,
                operation=operation,
                timeout=READ_TIMEOUT,
                accept=(200,),
                query={"api-version": api},
            )
        except ArmFailure as error:
            if error.status == _NOT_FOUND and error.failure.code.lower() in _MISSING:
                return False
            raise
        return True
