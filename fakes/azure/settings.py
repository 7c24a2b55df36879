"""How this Azure behaves. Every setting may change while it runs."""

from collections.abc import Callable, Mapping
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, field_validator

from fakes.azure import skus
from fakes.azure.capacity import Place
from fakes.azure.usages import canonical

# Some sizes are closed to any subscription, in the whole region or in a zone.
_RESTRICTED: Final[Mapping[str, tuple[str, ...]]] = {
    "Standard_NCC40ads_H100_v5": (),
    "Standard_ND128isr_GB300_v6": (),
    "Standard_M64s": (),
    "Standard_HB120rs_v3": (),
    "Standard_NV72ads_A10_v5": ("2",),
    "Standard_E64s_v5": ("1", "3"),
    "Standard_L8s_v3": ("3",),
}

AllocationError = Literal[
    "AllocationFailed",
    "ZonalAllocationFailed",
    "OverconstrainedAllocationRequest",
    "OverconstrainedZonalAllocationRequest",
    "SkuNotAvailable",
]


class Settings(BaseModel):
    """Durations are simulated seconds unless the name says `real`; validated whenever one is set.

    Mappings are to be set as a whole, not changed in place: names in them are read in any case of letters and kept in
    Azure's own.
    """

    model_config = ConfigDict(validate_assignment=True, extra="forbid", allow_inf_nan=False)

    scale: float = Field(default=60.0, gt=0, description="simulated seconds a real second")

    create_seconds: float = Field(default=300.0, ge=0, description="PUT of a new pool to the operation's end")
    update_seconds: float = Field(default=60.0, ge=0, description="PUT of an existing pool to the operation's end")
    delete_seconds: float = Field(default=120.0, ge=0, description="DELETE to the pool's end")
    delete_machines_seconds: float = Field(default=90.0, ge=0, description="deleteMachines to the operation's end")
    vm_seconds: float = Field(
        default=90.0, ge=0, description="PUT to the VMs being there, at the latest when the operation ends"
    )
    vm_delete_seconds: float = Field(
        default=60.0, ge=0, description="DELETE to the VMs being gone, at the latest when the operation ends"
    )
    operation_retry_after_seconds: float | None = Field(
        default=None, gt=0, description="Retry-After of a running operation; none is sent by default, as AKS does"
    )

    page_size: int = Field(default=100, ge=1, description="agent pools and machines a page")
    sku_page_size: int = Field(default=1000, ge=1, description="Compute SKUs a page")

    usage_page_size: int = Field(default=1000, ge=1, description="Compute usages a page; Compute has one page")
    price_page_size: int = Field(default=1000, ge=1, description="retail prices a page")

    node_image_release: str = Field(
        default="202611.04.0",
        pattern=r"^\d{6}\.\d{1,2}\.\d{1,2}$",
        description="newest release of the node images: what new pools get and upgrade profiles tell of",
    )

    max_agent_pools: int = Field(default=100, ge=1, description="agent pools a cluster, reported as maxAgentPools")
    max_nodes_per_pool: int = Field(default=1000, ge=1, description="nodes a scale set pool")
    max_nodes_per_cluster: int = Field(default=5000, ge=1, description="nodes a cluster, of the Standard tier")
    refused_zones: tuple[str, ...] = Field(
        default=(), description="zones that AKS refuses although the Compute SKUs list them"
    )

    quota: dict[str, Annotated[int, Field(ge=0)]] = Field(
        default={}, description="limits of Compute's usages by name: a vCPU family, cores, lowPriorityCores, ..."
    )
    usage: dict[str, Annotated[int, Field(ge=0)]] = Field(
        default={}, description="what others in the subscription use of those; the cluster's own VMs come on top"
    )
    usage_lag_seconds: float = Field(default=10.0, ge=0, description="how late the list of usages is")
    quota_preflight: bool = Field(
        default=True, description="AKS looks at quotas before it accepts a PUT; otherwise only Compute does, later"
    )
    quota_preflight_counts_pending: bool = Field(
        default=True, description="the look counts accepted VMs that are still to come; otherwise a burst gets past it"
    )

    capacity: dict[str, Annotated[int, Field(ge=0)]] = Field(
        default={},
        description="VMs that can still be had, by SIZE, SIZE/ZONE, SIZE/spot or SIZE/ZONE/spot; goes down and up as "
        "VMs come and go; unlimited where nothing is said",
    )
    allocation_failure_seconds: float = Field(
        default=240.0, ge=0, description="PUT to the operation's failure where there is no capacity"
    )
    allocation_error: AllocationError | None = Field(
        default=None, description="how Compute calls missing capacity; by zones, priority and constraints if not set"
    )

    restricted: dict[str, tuple[str, ...]] = Field(
        default=dict(_RESTRICTED),
        description="sizes that are not for this subscription: in these zones, or with none named in the whole region",
    )
    list_retired_sizes: bool = Field(
        default=True, description="Compute lists sizes that are no longer to be had, and says no word of it"
    )

    sell_retired_sizes: bool = Field(default=False, description="what has been retired is to be had as it once was")

    prices: dict[str, Annotated[float, Field(ge=0)]] = Field(
        default={}, description="dollars an hour in the cluster's region, by SIZE or SIZE/spot"
    )

    serialise_pool_operations: bool = Field(
        default=False, description="one pool operation at a time in the whole cluster, the strict reading of AKS's docs"
    )
    max_parallel_pool_operations: int | None = Field(
        default=None, ge=1, description="pool operations at a time; no bound by default"
    )

    throttling: bool = Field(default=True, description="token buckets of ARM and of the AKS resource provider")
    put_pool_scope: Literal["pool", "cluster"] = Field(
        default="pool", description="whose the bucket of PUT AgentPool is; Azure's documents say both"
    )

    subnets: tuple[str, ...] = Field(
        default=(),
        description="resource IDs of the subnets that there are; the cluster's own pool is in the first when it "
        "starts, without any it is in a network of AKS's own",
    )
    capacity_reservation_groups: dict[str, tuple[str, ...]] = Field(
        default={},
        description="capacity reservation groups by resource ID: what is reserved, as SIZE or SIZE/ZONE; of how many "
        "VMs does not matter",
    )

    compute_reads_per_minute: int | None = Field(
        default=None, ge=1, description="reads of Compute (SKUs, usages) that it serves; its limit is not published"
    )

    token_lifetime_real_seconds: int = Field(
        default=3600, ge=1, description="expires_in of access tokens, real seconds: credentials count those"
    )

    _listeners: list[Callable[[], None]] = PrivateAttr(default_factory=list)

    @field_validator("quota", "usage")
    @classmethod
    def _name_rows(cls, values: dict[str, int]) -> dict[str, int]:
        return {canonical(name): value for name, value in values.items()}

    @field_validator("capacity")
    @classmethod
    def _name_places(cls, values: dict[str, int]) -> dict[str, int]:
        return {str(Place.parse(key)): value for key, value in values.items()}

    @field_validator("prices")
    @classmethod
    def _name_priced(cls, values: dict[str, float]) -> dict[str, float]:
        places = {Place.parse(key): value for key, value in values.items()}
        if any(place.zone for place in places):
            raise ValueError("prices are the same in all zones")
        return {str(place): value for place, value in places.items()}

    @field_validator("restricted")
    @classmethod
    def _name_sizes(cls, values: dict[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
        unknown = [name for name in values if name.lower() not in skus.catalogue()]
        if unknown:
            raise ValueError(f"no VM sizes of the region: {', '.join(unknown)}")
        return {skus.catalogue()[name.lower()].name: zones for name, zones in values.items()}

    def subscribe(self, listener: Callable[[], None]) -> None:
        """Call a function after every change."""
        self._listeners.append(listener)

    def change(self, values: Mapping[str, Any]) -> None:
        """Set several settings, all or none. Raises pydantic's ValidationError."""
        checked = Settings.model_validate(self.model_dump() | dict(values))
        for name in values:
            setattr(self, name, getattr(checked, name))

    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(name, value)
        if name in type(self).model_fields:
            for listener in self._listeners:
                listener()
