"""Why Azure gave up on an agent pool after it had begun: the `provisioningError` of Failed pools."""

import json

import pytest

from provisioner.apis.agentpool import ProvisioningError
from provisioner.apis.failure import FailureClass
from provisioner.azure.errors import classify_provisioning_error
from tests.unit.azure_texts import cores

QUOTA, SKU, CAPACITY = FailureClass.QUOTA, FailureClass.SKU_RESTRICTED, FailureClass.CAPACITY
CONFLICT, INTERNAL = FailureClass.CONFLICT, FailureClass.INTERNAL

# What it is, code, message, class, how our message begins.
FAILED: tuple[tuple[str, str, str, FailureClass, str], ...] = (
    (
        "family quota at Compute",
        "OperationNotAllowed",
        cores("standardNCADSA100v4Family Cores", limit=48, usage=30, required=24),
        QUOTA,
        "standardNCADSA100v4Family vCPU quota in eastus: 24 needed, 18 left (limit 48). ",
    ),
    (
        "regional quota at Compute",
        "OperationNotAllowed",
        cores("Total Regional Cores", limit=100, usage=100, required=24),
        QUOTA,
        "Total regional vCPU quota in eastus: 24 needed, 0 left (limit 100). ",
    ),
    (
        "spot quota at Compute, none granted",
        "OperationNotAllowed",
        cores("LowPriorityCores", limit=0, usage=0, required=24),
        QUOTA,
        "Spot vCPU quota in eastus: 24 needed, 0 left (limit 0). ",
    ),
    (
        "regional quota in Compute's older words",
        "OperationNotAllowed",
        (
            "Operation results in exceeding quota limits of Core. Maximum allowed: 4, Current in use: 4, Additional "
            "requested: 2."
        ),
        QUOTA,
        "Total regional vCPU quota: 2 needed, 0 left (limit 4). ",
    ),
    (
        "SKU not available",
        "SkuNotAvailable",
        (
            "The requested VM size for resource 'Following SKUs have failed for Capacity Restrictions: "
            "Standard_NC24ads_A100_v4' is currently not available in location 'eastus'. Please try another size or "
            "deploy to a different location or different zone. See https://aka.ms/azureskunotavailable for details."
        ),
        SKU,
        "Standard_NC24ads_A100_v4 cannot be had in eastus now. ",
    ),
    (
        "allocation failed",
        "AllocationFailed",
        (
            "Allocation failed. If you are trying to add a new VM to a Virtual Machine Scale Set with a single "
            "placement group, it is possible that the cluster is out of capacity."
        ),
        CAPACITY,
        "Azure has no capacity for the VM size now. ",
    ),
    (
        "allocation failed in a zone",
        "ZonalAllocationFailed",
        (
            "Allocation failed. We do not have sufficient capacity for the requested VM size Standard_NC24ads_A100_v4 "
            "in zone 1. Read more about improving likelihood of allocation success at http://aka.ms/allocation-guidance"
        ),
        CAPACITY,
        "Azure has no capacity for Standard_NC24ads_A100_v4 in zone 1 now. ",
    ),
    (
        "overconstrained",
        "OverconstrainedZonalAllocationRequest",
        (
            "Allocation failed. VM(s) with the following constraints cannot be allocated, because the condition is "
            "too restrictive. Please remove some constraints and try again. Constraints applied are:\n"
            "  - Availability Zone\n"
        ),
        CAPACITY,
        "Azure has no capacity for the VM size under the constraints asked for: drop the zone, ",
    ),
    (
        "the cause is quoted in the message",
        "ReconcileVMSSAgentPoolFailed",
        (
            'VMSSAgentPoolReconciler retry failed: original error: Code="AllocationFailed" Message="Allocation failed. '
            'We do not have sufficient capacity for the requested VM size in this region." Target="0"'
        ),
        CAPACITY,
        "Azure has no capacity for the VM size now. ",
    ),
    (
        "the cause is a document in the message",
        "CreateVMSSAgentPoolFailed",
        json.dumps({"error": {"code": "SkuNotAvailable", "message": "Standard_NC6s_v3 is gone in location 'eastus'."}}),
        SKU,
        "Standard_NC6s_v3 cannot be had in eastus now. ",
    ),
    (
        "internal error",
        "ReconcileVMSSAgentPoolFailed",
        "We are unable to serve this request due to an internal error, Correlation ID: c, Operation ID: o.",
        INTERNAL,
        "Azure failed; it is tried again. ",
    ),
    (
        "preempted by a delete",
        "AKSOperationPreemptedByDelete",
        "This operation has been preempted by Deleting operation.",
        CONFLICT,
        "Azure is busy with another operation ",
    ),
    (
        "preempted",
        "AKSOperationPreempted",
        "This operation has been preempted by another operation with ID 12.",
        CONFLICT,
        "Azure is busy with another operation ",
    ),
    (
        "raced by an operation on the cluster",
        "OriginalEtagNotExpect",
        "The original etag does not match the expected.",
        CONFLICT,
        "Azure is busy with another operation ",
    ),
    (
        "subnet full, older words",
        "InsufficientSubnetSize",
        "Pre-allocated IPs 310 exceeds IPs available in Subnet 251",
        QUOTA,
        "Subnet too small: 310 IP addresses needed, 251 available. ",
    ),
    ("nothing said", "", "", INTERNAL, "Azure failed; it is tried again."),
)


@pytest.mark.parametrize(
    ("code", "message", "kind", "begins"), [case[1:] for case in FAILED], ids=[case[0] for case in FAILED]
)
def test_failed_pools(code: str, message: str, kind: FailureClass, begins: str) -> None:
    failure = classify_provisioning_error(ProvisioningError(code=code, message=message))
    assert failure.kind is kind
    assert failure.message.startswith(begins)
