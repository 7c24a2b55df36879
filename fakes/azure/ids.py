"""Who and where: the one cluster that is served, and how Azure spells the IDs of what belongs to it."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

_BASE36: Final = "0123456789abcdefghijklmnopqrstuvwxyz"


@dataclass(frozen=True, kw_only=True)
class ResourceIds:
    """The names a client is configured with, and the resource IDs made of them."""

    subscription: str = "00000000-0000-4000-8000-00000000a125"
    resource_group: str = "rg-gpu"
    cluster: str = "aks-gpu"
    location: str = "eastus"
    tenant: str = "00000000-0000-4000-8000-00000000e17a"
    client: str = "00000000-0000-4000-8000-0000000c11e7"

    @property
    def node_resource_group(self) -> str:
        """The resource group of the scale sets."""
        return f"MC_{self.resource_group}_{self.cluster}_{self.location}"

    @property
    def cluster_id(self) -> str:
        """Resource ID of the managed cluster; the resource provider writes `resourcegroups` in lower case."""
        return (
            f"/subscriptions/{self.subscription}/resourcegroups/{self.resource_group}"
            f"/providers/Microsoft.ContainerService/managedClusters/{self.cluster}"
        )

    def pool_id(self, pool: str) -> str:
        """Return the resource ID of an agent pool."""
        return f"{self.cluster_id}/agentPools/{pool}"

    def machine_id(self, pool: str, machine: str) -> str:
        """Return the resource ID of a machine, the child of an agent pool."""
        return f"{self.pool_id(pool)}/machines/{machine}"

    def subnet_id(self, name: str, *, group: str = "rg-network", network: str = "vnet-1") -> str:
        """Return the resource ID of a subnet."""
        return (
            f"/subscriptions/{self.subscription}/resourceGroups/{group}/providers/Microsoft.Network"
            f"/virtualNetworks/{network}/subnets/{name}"
        )

    def reservation_id(self, name: str, *, group: str = "rg-network") -> str:
        """Return the resource ID of a capacity reservation group."""
        return (
            f"/subscriptions/{self.subscription}/resourceGroups/{group}/providers/Microsoft.Compute"
            f"/capacityReservationGroups/{name}"
        )

    @property
    def _digits(self) -> str:
        # Eight digits that all scale sets of a cluster share.
        digest = hashlib.sha256(self.cluster_id.lower().encode()).digest()
        return f"{int.from_bytes(digest[:8]) % 10**8:08d}"

    def scale_set(self, pool: str) -> str:
        """Return the name of a pool's scale set."""
        return f"aks-{pool}-{self._digits}-vmss"

    def node_name(self, pool: str, index: int) -> str:
        """Return the name of an instance and of its Node: the scale set's and six characters of base 36."""
        digits = ""
        while index:
            index, digit = divmod(index, 36)
            digits = _BASE36[digit] + digits
        return f"{self.scale_set(pool)}{digits:0>6}"

    def instance_id(self, pool: str, index: int, *, group: str | None = None) -> str:
        """Return the resource ID of a scale set instance; its number is decimal there."""
        return (
            f"/subscriptions/{self.subscription}/resourceGroups/{group or self.node_resource_group}"
            f"/providers/Microsoft.Compute/virtualMachineScaleSets/{self.scale_set(pool)}/virtualMachines/{index}"
        )

    def provider_id(self, pool: str, index: int) -> str:
        """Return the Node's providerID; the cloud provider lower-cases the resource group."""
        return "azure://" + self.instance_id(pool, index, group=self.node_resource_group.lower())


def find_id(resource_id: str, known: Iterable[str]) -> str | None:
    """Return the ID as it is known, None where it is not; ARM ignores the case of letters."""
    return next((each for each in known if each.lower() == resource_id.rstrip("/").lower()), None)


def parent(resource_id: str) -> str:
    """Return the ID of what a child is in."""
    return resource_id.rstrip("/").rsplit("/", 2)[0]
