"""How this Azure behaves. Every setting may change while it runs."""

from collections.abc import Callable, Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr


class Settings(BaseModel):
    """Durations are simulated seconds unless the name says `real`; validated whenever one is set."""

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

    max_agent_pools: int = Field(default=100, ge=1, description="agent pools a cluster, reported as maxAgentPools")
    max_nodes_per_pool: int = Field(default=1000, ge=1, description="nodes a scale set pool")
    max_nodes_per_cluster: int = Field(default=5000, ge=1, description="nodes a cluster, of the Standard tier")
    refused_zones: tuple[str, ...] = Field(
        default=(), description="zones that AKS refuses although the Compute SKUs list them"
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

    token_lifetime_real_seconds: int = Field(
        default=3600, ge=1, description="expires_in of access tokens, real seconds: credentials count those"
    )

    _listeners: list[Callable[[], None]] = PrivateAttr(default_factory=list)

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
