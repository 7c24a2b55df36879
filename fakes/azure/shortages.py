"""What AKS and Compute say when there is too little: no quota left, no machines left.

AKS looks before it begins (preflight) and then answers flat at once; what Compute refuses later comes as the error of
the operation and of the pool, Compute's own error under `details` and once more, as text, in the message. Wordings:
AKS's preflight from answers that its users have published; Compute's from karpenter-provider-azure,
pkg/fake/aksmachinesapi.go.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from fakes.azure.errors import AzureError, error

_ADVICE: Final = (
    "If you want to increase the quota, please follow this instruction: "
    "https://learn.microsoft.com/en-us/azure/quotas/view-quotas. Surge nodes would also consume vcpu quota, please "
    "consider use smaller maxSurge or use maxUnavailable to proceed upgrade without surge nodes, details: "
    "aka.ms/aks/maxUnavailable."
)
_REQUEST: Final = (
    "Submit a request for Quota increase at https://aka.ms/ProdportalCRP/#blade/Microsoft_Azure_Capacity/"
    "UsageAndQuota.ReactView by specifying parameters listed in the \u2018Details\u2019 section for deployment to "
    "succeed. Please read more about quota limits at "
    "https://docs.microsoft.com/en-us/azure/azure-supportability/per-vm-quota-requests"
)


class ShortageError(Exception):
    """Compute has no VMs for an operation that AKS had accepted; `error` is the operation's.

    An allocation is tried for a while before it is given up (`slow`); a quota is looked up at once.
    """

    def __init__(self, body: Mapping[str, Any], *, slow: bool) -> None:
        super().__init__(f"{body['code']}: {body['message']}")
        self.error = body
        self.slow = slow


# --- AKS's preflight


def family_preflight(family: str, region: str, *, requested: int, remaining: int) -> AzureError:
    """The vCPU quota of the size's family is too small."""
    return _preflight(
        f"Insufficient vcpu quota requested {requested}, remaining {remaining} for family {family} for region {region}."
    )


def regional_preflight(region: str, *, requested: int, remaining: int) -> AzureError:
    """The vCPU quota of the region is too small."""
    return _preflight(
        f"Insufficient regional vcpu quota left for location {region}. "
        f"left regional vcpu quota {remaining}, requested quota {requested}."
    )


def spot_preflight(region: str, *, requested: int, remaining: int) -> AzureError:
    """The vCPU quota for spot VMs is too small. Only the sentence with the numbers has been published."""
    return _preflight(
        f"Insufficient regional spot vcpu quota left for location {region}. "
        f"left regional spot vcpu quota {remaining}, requested quota {requested}."
    )


def _preflight(message: str) -> AzureError:
    return AzureError(400, "ErrCode_InsufficientVCPUQuota", f"{message} {_ADVICE}")


# --- Compute


def quota_exceeded(name: str, region: str, *, limit: int, usage: int, required: int) -> ShortageError:
    """Compute found a quota too small: `<family> Cores`, `Total Regional Cores` or `LowPriorityCores`."""
    message = (
        f"Operation could not be completed as it results in exceeding approved {name} quota. Additional details - "
        f"Deployment Model: Resource Manager, Location: {region}, Current Limit: {limit}, Current Usage: {usage}, "
        f"Additional Required: {required}, (Minimum) New Limit Required: {usage + required}. {_REQUEST}"
    )
    detail = error("OperationNotAllowed", message)
    outer = f'Code="OperationNotAllowed" Message="{message}"'
    return ShortageError(error("QuotaExceeded", outer, details=[detail]), slow=False)


def sku_not_available(size: str, region: str) -> ShortageError:
    """Compute has no spot VMs of the size, or none for this subscription."""
    return _allocation(
        "SkuNotAvailable",
        f"The requested VM size for resource 'Following SKUs have failed for Capacity Restrictions: {size}' is "
        f"currently not available in location '{region}'. Please try another size or deploy to a different location "
        "or different zone. See https://aka.ms/azureskunotavailable for details.",
        target="sku.name",
    )


def allocation_failed() -> ShortageError:
    """Compute has no VMs of the size anywhere in the region. The message names neither."""
    return _allocation(
        "AllocationFailed",
        "Allocation failed. If you are trying to add a new VM to a Virtual Machine Scale Set with a single placement "
        "group or update/resize an existing VM in a Virtual Machine Scale Set with a single placement group, please "
        "note that such allocation is scoped to a single cluster, and it is possible that the cluster is out of "
        "capacity. Please read more about improving likelihood of allocation success at "
        "http://aka.ms/allocation-guidance.",
        target="243",
    )


def zonal_allocation_failed(size: str, zone: str) -> ShortageError:
    """Compute has no VMs of the size in the one zone asked for."""
    return _allocation(
        "ZonalAllocationFailed",
        f"Allocation failed. We do not have sufficient capacity for the requested VM size {size} in zone {zone}. "
        "Read more about improving likelihood of allocation success at http://aka.ms/allocation-guidance",
    )


def overconstrained(constraints: Sequence[str], *, zonal: bool) -> ShortageError:
    """Compute finds no VM under all the constraints together."""
    listed = "".join(f"\n  - {constraint}" for constraint in constraints)
    return _allocation(
        "OverconstrainedZonalAllocationRequest" if zonal else "OverconstrainedAllocationRequest",
        "Allocation failed. VM(s) with the following constraints cannot be allocated, because the condition is too "
        "restrictive. Please remove some constraints and try again. Constraints applied are:" + listed + "\n",
        target="0",
    )


def _allocation(code: str, message: str, *, target: str | None = None) -> ShortageError:
    quoted = message.replace("\n", "\\n")
    outer = f'original error: Code="{code}" Message="{quoted}"' + (f' Target="{target}"' if target else "")
    return ShortageError(error(code, outer, details=[error(code, message, target=target)]), slow=True)
