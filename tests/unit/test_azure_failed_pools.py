"""Why Azure gave up on an agent pool after it had begun: the `provisioningError` of Failed pools."""

import json
from typing import Any

import pytest

from provisioner.apis.agentpool import AgentPool, ProvisioningError, parse_agent_pool
from provisioner.apis.failure import FailureClass
from provisioner.apis.quota import Scope, Shortage
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
        "Standard_NC24ads_A100_v4 cannot be had in eastus now: a capacity restriction, which may pass. Use another ",
    ),
    (
        "SKU not available to the subscription",
        "SkuNotAvailable",
        (
            "The requested size for resource 'r' is currently not available in location 'eastus' zones '1,3' for "
            "subscription 's'. Please try another size or deploy to a different location or zones."
        ),
        SKU,
        "The VM size is not offered to this subscription in zones 1, 3 in eastus. Use another size or region, or ask ",
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
        "the cause is quoted with its quotes escaped, more than once",
        "ReconcileVMSSAgentPoolFailed",
        (
            "Category: InternalError; SubCode: x; OriginalError: autorest/azure: Service returned an error. Status=409 "
            'Code=\\"ResourceOperationFailure\\" Message=\\"It failed.\\" Details=[{Code=\\"ZonalAllocationFailed\\" '
            'Message=\\"Allocation failed. We do not have sufficient capacity for the requested VM size '
            'Standard_NC24ads_A100_v4 in zone 3.\\"}]'
        ),
        CAPACITY,
        "Azure has no capacity for Standard_NC24ads_A100_v4 in zone 3 now. ",
    ),
    (
        "the cause is named as the Go SDK prints it",
        "ReconcileVMSSAgentPoolFailed",
        "RESPONSE 409: 409 Conflict ERROR CODE: OverconstrainedAllocationRequest -------- the body",
        CAPACITY,
        "Azure has no capacity for the VM size under the constraints asked for: drop the zone, ",
    ),
    (
        "throttled inside of Azure",
        "VMSSAgentPoolReconcilerFailed",
        'Category: ClientError; SubCode: Throttled; Status=429 Code="TooManyRequests" Message="Retry later."',
        FailureClass.THROTTLED,
        "Azure throttles its API; it is tried again.",
    ),
    (
        "the cause is a document in the message",
        "CreateVMSSAgentPoolFailed",
        json.dumps({"error": {"code": "SkuNotAvailable", "message": "Standard_NC6s_v3 is gone in location 'eastus'."}}),
        SKU,
        "Standard_NC6s_v3 cannot be had in eastus now. Use another size, zone or region, or wait; the subscription ",
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


def nested(*errors: tuple[str, str]) -> dict[str, Any]:
    """Return an error whose detail is the next one."""
    (code, message), *rest = errors
    return {"code": code, "message": message, **({"details": [nested(*rest)]} if rest else {})}


def failed_pool(error: object) -> AgentPool:
    return parse_agent_pool(
        {"name": "gpu1", "properties": {"provisioningState": "Failed", "status": {"provisioningError": error}}}
    )


@pytest.mark.parametrize("depth", [0, 1, 5, 50])
def test_the_cause_is_found_however_deep_it_lies(depth: int) -> None:
    outer = [("ResourceOperationFailure", "The operation failed.")] * depth
    pool = failed_pool(nested(*outer, ("ZonalAllocationFailed", "Allocation failed. No capacity in zone 2.")))
    assert pool.error is not None
    failure = classify_provisioning_error(pool.error)
    assert (failure.kind, failure.code, failure.zones) == (CAPACITY, "ZonalAllocationFailed", ("2",))


def test_a_code_further_out_counts_where_the_cause_has_words_that_are_not_known() -> None:
    pool = failed_pool(nested(("QuotaExceeded", "The operation failed."), ("OperationNotAllowed", "Not one more.")))
    assert pool.error == ProvisioningError(
        code="OperationNotAllowed", message="Not one more.", outer_codes=("QuotaExceeded",)
    )
    failure = classify_provisioning_error(pool.error)
    assert (failure.kind, failure.code) == (QUOTA, "OperationNotAllowed")


@pytest.mark.parametrize(
    "error",
    [
        {"code": "X", "message": "y", "details": {"code": "Z"}},
        {"code": "X", "message": "y", "details": ["z"]},
        {"code": "X", "message": "y", "details": [{"code": "Z", "message": None}]},
        {"code": 7, "message": ["y"], "details": None},
    ],
)
def test_details_that_are_none_leave_the_outer_error(error: dict[str, Any]) -> None:
    pool = failed_pool(error)
    assert pool.error is not None
    assert pool.error.code == str(error["code"])
    assert classify_provisioning_error(pool.error).kind is INTERNAL


@pytest.mark.parametrize("error", [None, {}, "failed", ["failed"]])
def test_a_failed_pool_may_say_nothing(error: object) -> None:
    assert failed_pool(error).error is None


def test_a_shortage_at_compute_is_known_by_its_numbers() -> None:
    text = cores("LowPriorityCores", limit=0, usage=0, required=24)
    failure = classify_provisioning_error(ProvisioningError(code="OperationNotAllowed", message=text))
    assert failure.shortage == Shortage(scope=Scope.SPOT, region="eastus", needed=24, left=0, limit=0)


@pytest.mark.parametrize(
    ("text", "zones"),
    [
        ("no capacity in zone 2.", ("2",)),
        ("no capacity in zone '3'.", ("3",)),
        ("no capacity in zones 3, 1 and 2.", ("1", "2", "3")),
        ("not available in location 'eastus' zones '1,2' for", ("1", "2")),
        ("The zone(s) 2 for resource", ("2",)),
        ("in zone 2a", ()),
        ("in zone eastus-2", ()),
        ("in this zone. 2 of them", ()),
        ("Availability Zone", ()),
    ],
)
def test_which_zones_an_error_names(text: str, zones: tuple[str, ...]) -> None:
    failure = classify_provisioning_error(ProvisioningError(code="AllocationFailed", message=text))
    assert failure.zones == zones
