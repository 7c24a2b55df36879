"""Token buckets of ARM and of its resource providers, in simulated time.

AKS: https://learn.microsoft.com/azure/aks/quotas-skus-regions#throttling-limits-on-aks-resource-provider-apis.
ARM: https://learn.microsoft.com/azure/azure-resource-manager/management/request-limits-and-throttling; its limits for
the whole subscription are 15 times those of one principal, and this server has one principal.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal

from fakes.azure import errors
from fakes.azure.ids import ResourceIds
from fakes.azure.settings import Settings


class TokenBucket:
    """Full at first; one token a request; refilled at a steady rate up to its size."""

    def __init__(self, *, size: int, refill: float, now: Callable[[], float]) -> None:
        self._size = size
        self._refill = refill
        self._now = now
        self._tokens = float(size)
        self._filled = now()

    @property
    def left(self) -> int:
        """Whole tokens left."""
        self._fill()
        return int(self._tokens)

    def take(self) -> float:
        """Take a token and return 0, or return the seconds until there is one. A refused request costs nothing."""
        self._fill()
        # What was waited for is there, whatever floating point makes of the last digit.
        if self._tokens >= 1 - 1e-9:
            self._tokens = max(self._tokens - 1, 0.0)
            return 0.0
        return (1 - self._tokens) / self._refill

    def _fill(self) -> None:
        now = self._now()
        self._tokens = min(self._tokens + (now - self._filled) * self._refill, float(self._size))
        self._filled = now


Scope = Literal["pool", "cluster", "subscription"]


@dataclass(frozen=True)
class Limit:
    """A kind of bucket of the AKS resource provider: its size, tokens a second, whose it is."""

    size: int
    refill: float
    scope: Scope


_PUT_AGENT_POOL: Final = Limit(20, 1 / 60, "pool")
_GET_CLUSTER: Final = Limit(60, 1.0, "cluster")
_OPERATION: Final = Limit(200, 2.0, "subscription")
# One bucket for all the others together.
_OTHER: Final = Limit(60, 1.0, "subscription")

# With the handler that the answer names; that of the first is known, the others are made after it.
_LIMITS: Final = {
    "agentPools.put": ("PutAgentPoolHandler.PUT", _PUT_AGENT_POOL),
    "managedClusters.get": ("GetManagedClusterHandler.GET", _GET_CLUSTER),
    "operations.get": ("GetOperationStatusHandler.GET", _OPERATION),
    "operationResults.get": ("GetOperationResultHandler.GET", _OPERATION),
    "agentPools.get": ("GetAgentPoolHandler.GET", _OTHER),
    "agentPools.list": ("ListAgentPoolsHandler.GET", _OTHER),
    "agentPools.getUpgradeProfile": ("GetAgentPoolUpgradeProfileHandler.GET", _OTHER),
    "agentPools.delete": ("DeleteAgentPoolHandler.DELETE", _OTHER),
    "agentPools.deleteMachines": ("DeleteMachinesHandler.POST", _OTHER),
    "machines.get": ("GetMachineHandler.GET", _OTHER),
    "machines.list": ("ListMachinesHandler.GET", _OTHER),
}

# Reads of the Compute resource provider. The name of the group is made after those that its documents have.
_COMPUTE: Final = frozenset({"skus.list", "usages.list"})
_COMPUTE_GROUP: Final = "LowCostGetResources1Min"

# Size and tokens a second.
_ARM: Final = {"reads": (250, 25.0), "writes": (200, 10.0), "deletes": (200, 10.0)}


class Throttle:
    """Every bucket there is, made as it is first used."""

    def __init__(self, ids: ResourceIds, *, settings: Settings, now: Callable[[], float]) -> None:
        self._ids = ids
        self._settings = settings
        self._now = now
        self._buckets: dict[tuple[object, str], TokenBucket] = {}

    def reset(self) -> None:
        """Fill all buckets."""
        self._buckets.clear()

    def arm(self, method: str) -> dict[str, str]:
        """Count a request to ARM and return the headers that tell what is left. Raises 429, nested."""
        if not self._settings.throttling:
            return {}
        kind = {"GET": "reads", "HEAD": "reads", "DELETE": "deletes"}.get(method, "writes")
        size, refill = _ARM[kind]
        bucket = self._bucket("ARM", kind, size=size, refill=refill)
        wait = bucket.take()
        if wait:
            raise errors.arm_throttled(kind[:-1], self._ids.subscription, self._ids.client, seconds=wait)
        return {f"x-ms-ratelimit-remaining-subscription-{kind}": str(bucket.left)}

    def provider(self, operation: str, *, pool: str) -> None:
        """Count a request to a resource provider. Raises 429, flat from AKS and nested from Compute."""
        if self._settings.throttling and operation in _COMPUTE:
            self._compute()
        if operation not in _LIMITS or not self._settings.throttling:
            return
        handler, limit = _LIMITS[operation]
        scope: Scope = self._settings.put_pool_scope if limit is _PUT_AGENT_POOL else limit.scope
        owner, name = self._owner(scope, pool)
        wait = self._bucket(limit, owner, size=limit.size, refill=limit.refill).take()
        if wait:
            raise errors.throttled(handler, name, seconds=wait)

    def _compute(self) -> None:
        allowed = self._settings.compute_reads_per_minute
        if allowed is None:
            return
        wait = self._bucket("Compute", str(allowed), size=allowed, refill=allowed / 60).take()
        if wait:
            raise errors.compute_throttled(_COMPUTE_GROUP, allowed=allowed, measured=allowed + 1, seconds=wait)

    def _owner(self, scope: Scope, pool: str) -> tuple[str, str]:
        match scope:
            case "pool":
                return f"pool {pool}", f"agentpool {self._ids.pool_id(pool)}"
            case "cluster":
                return "cluster", f"managedcluster {self._ids.cluster_id}"
            case "subscription":
                return "subscription", f"SubID='{self._ids.subscription}'"

    def _bucket(self, kind: object, owner: str, *, size: int, refill: float) -> TokenBucket:
        key = (kind, owner)
        if key not in self._buckets:
            self._buckets[key] = TokenBucket(size=size, refill=refill, now=self._now)
        return self._buckets[key]
