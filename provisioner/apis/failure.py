"""Why Azure did not do what it was asked: one vocabulary for conditions, events, metrics and retry policy."""

from dataclasses import dataclass
from enum import StrEnum

from provisioner.apis.quota import Shortage


class FailureClass(StrEnum):
    """What kind of refusal it was. Each class has one condition reason and one retry policy."""

    QUOTA = "quota"
    SKU_RESTRICTED = "sku_restricted"
    CAPACITY = "capacity"
    ZONE = "zone"
    THROTTLED = "throttled"
    CONFLICT = "conflict"
    AUTH = "auth"
    POLICY = "policy"
    INVALID = "invalid"
    INTERNAL = "internal"

    @property
    def reason(self) -> str:
        """Return the condition reason that clients see."""
        return _REASONS[self]


_REASONS = {
    FailureClass.QUOTA: "QuotaExceeded",
    FailureClass.SKU_RESTRICTED: "SKUNotAvailable",
    FailureClass.CAPACITY: "InsufficientCapacity",
    FailureClass.ZONE: "ZoneNotAvailable",
    FailureClass.THROTTLED: "Throttled",
    FailureClass.CONFLICT: "OperationInProgress",
    FailureClass.AUTH: "AuthorizationFailed",
    FailureClass.POLICY: "DisallowedByPolicy",
    FailureClass.INVALID: "InvalidRequest",
    FailureClass.INTERNAL: "AzureError",
}


@dataclass(frozen=True, kw_only=True)
class Failure:
    """A classified refusal.

    `message` begins with the numbers and what to do, because clients show its first 256 bytes only. `code` is Azure's
    innermost error code, empty where there was none. `retry_after` is in seconds, from Azure's Retry-After header.
    `shortage` is the vCPU quota that does not suffice, where the failure is about one. `zones` are the zones it names,
    such as `2`; without any it concerns all that were asked for.
    """

    kind: FailureClass
    message: str
    code: str = ""
    retry_after: float | None = None
    shortage: Shortage | None = None
    zones: tuple[str, ...] = ()
