"""What ARM, AKS and Compute answer at once, in their own words, and what becomes of it."""

import json

import pytest

from provisioner.apis.failure import Failure, FailureClass
from provisioner.apis.quota import Scope, Shortage
from provisioner.azure.errors import classify_response
from tests.unit.azure_texts import cores, flat, nested

# Bytes of a message that KAITO shows.
SHOWN = 256

IDENTITY = "11111111-2222-3333-4444-555555555555"
VM_SIZE = (
    "Virtual Machine size: 'Standard_ND96isr_H100_v5' is not supported for subscription "
    "0b1f6471-1bf0-4dda-aec3-cb9272f09590 in location 'westus'. Please refer to aka.ms/aks/vm-size-selector for the "
    "available VM sizes in your region."
)
FORBIDDEN = (
    f"The client 'app' with object id '{IDENTITY}' does not have authorization to perform action "
    "'Microsoft.ContainerService/managedClusters/agentPools/write' over scope '/subscriptions/s/resourceGroups/rg"
    "/providers/Microsoft.ContainerService/managedClusters/c/agentPools/p' or the scope is invalid. If access was "
    "recently granted, please refresh your credentials."
)
LINKED = (
    f"The client 'app' with object id '{IDENTITY}' has permission to perform action "
    "'Microsoft.ContainerService/managedClusters/agentPools/write' on scope '/subscriptions/s/resourceGroups/rg'; "
    "however, it does not have permission to perform action(s) 'Microsoft.Network/virtualNetworks/subnets/join/action' "
    "on the linked scope(s) '/subscriptions/s/resourceGroups/net/providers/Microsoft.Network/virtualNetworks/v/subnets/"
    "gpu' (respectively) or the linked scope(s) are invalid."
)
SUBNET = (
    "Pre-allocated IPs 1280 exceeds IPs available 1024 in Subnet Cidr 10.240.100.0/22, Subnet Name gpu. "
    "If Autoscaler is enabled, the max-count from each nodepool is counted towards this total. "
    "http://aka.ms/aks/insufficientsubnetsize"
)
POLICY = (
    'Resource \'p\' was disallowed by policy. Policy identifiers: \'[{"policyAssignment":{"name":"Allowed VM sizes",'
    '"id":"/subscriptions/s/providers/Microsoft.Authorization/policyAssignments/a"}}]\'.'
)

QUOTA, SKU, ZONE = FailureClass.QUOTA, FailureClass.SKU_RESTRICTED, FailureClass.ZONE
CONFLICT, THROTTLED, AUTH = FailureClass.CONFLICT, FailureClass.THROTTLED, FailureClass.AUTH
POLICIES, INVALID, INTERNAL = FailureClass.POLICY, FailureClass.INVALID, FailureClass.INTERNAL
PREFLIGHT = "ErrCode_InsufficientVCPUQuota"
PAGES = "https://learn.microsoft.com/azure/quotas"


def refuse(status: int, body: str) -> Failure:
    return classify_response(status=status, headers={}, body=body)


# What it is, status, body, class, code, how the message begins.
REFUSED: tuple[tuple[str, int, str, FailureClass, str, str], ...] = (
    (
        "family quota, AKS preflight",
        400,
        flat(
            PREFLIGHT,
            "Insufficient vcpu quota requested 24, remaining 6 for family standardEASv4Family for region northeurope. "
            "If you want to increase the quota, please follow https://aka.ms/aks/quota?x=1. Surge nodes would also "
            "consume vcpu quota, please consider that.",
        ),
        QUOTA,
        PREFLIGHT,
        (
            "standardEASv4Family vCPU quota in northeurope: 24 needed, 6 left. Ask for more: "
            f"{PAGES}/per-vm-quota-requests, or delete "
        ),
    ),
    (
        "family quota, a name with spaces",
        400,
        flat(
            PREFLIGHT,
            "Insufficient vcpu quota requested 4, remaining 0 for family Standard NCASv3_T4 Family for region westus.",
        ),
        QUOTA,
        PREFLIGHT,
        "Standard NCASv3_T4 Family vCPU quota in westus: 4 needed, 0 left. ",
    ),
    (
        "regional quota, AKS preflight",
        400,
        flat(
            PREFLIGHT,
            "Insufficient regional vcpu quota left for location westus2. left regional vcpu quota 4, requested quota "
            "6. If you want to increase the quota, please follow the instructions.",
        ),
        QUOTA,
        PREFLIGHT,
        f"Total regional vCPU quota in westus2: 6 needed, 4 left. Ask for more: {PAGES}/regional-quota-requests, or ",
    ),
    (
        "spot quota, AKS preflight",
        400,
        flat(
            PREFLIGHT,
            "Insufficient vcpu quota requested 24, remaining 3 for family lowPriorityCores for region westus2.",
        ),
        QUOTA,
        PREFLIGHT,
        f"Spot vCPU quota in westus2: 24 needed, 3 left. Ask for more: {PAGES}/spot-quota, or ",
    ),
    (
        "quota in words that are not known",
        400,
        flat(PREFLIGHT, "Not enough."),
        QUOTA,
        PREFLIGHT,
        "vCPU quota exceeded. Ask for more: https://",
    ),
    (
        "quota under the code that also means busy",
        409,
        nested("OperationNotAllowed", cores("standardNCADSA100v4Family Cores", limit=48, usage=48, required=24)),
        QUOTA,
        "OperationNotAllowed",
        "standardNCADSA100v4Family vCPU quota in eastus: 24 needed, 0 left (limit 48). ",
    ),
    (
        "quota in the details of a template error",
        400,
        nested(
            "InvalidTemplateDeployment",
            "The template deployment is not valid according to the validation procedure.",
            details=[
                {"code": "QuotaExceeded", "message": cores("Total Regional Cores", limit=10, usage=8, required=4)}
            ],
        ),
        QUOTA,
        "QuotaExceeded",
        "Total regional vCPU quota in eastus: 4 needed, 2 left (limit 10). ",
    ),
    (
        "public IP addresses",
        400,
        nested("PublicIPCountLimitReached", "Cannot create more than 10 public IP addresses for this subscription."),
        QUOTA,
        "PublicIPCountLimitReached",
        "Quota exceeded. Ask for more: https://",
    ),
    (
        "quota that only the advice tells of",
        409,
        nested("OperationNotAllowed", "The limit is reached. Submit a request for Quota increase at https://x.y."),
        QUOTA,
        "OperationNotAllowed",
        "Quota exceeded. Ask for more: https://",
    ),
    (
        "subnet full",
        400,
        flat("InsufficientSubnetSize", SUBNET),
        QUOTA,
        "InsufficientSubnetSize",
        "Subnet too small: 1280 IP addresses needed in 10.240.100.0/22, 1024 available. ",
    ),
    (
        "VM size not for this subscription",
        400,
        flat("VMSizeNotSupported", VM_SIZE),
        SKU,
        "VMSizeNotSupported",
        "Standard_ND96isr_H100_v5 is not offered to this subscription in westus. ",
    ),
    (
        "VM size not for this subscription, without a code of its own",
        400,
        flat("BadRequest", "The VM size of Standard_NC6 is not allowed in your subscription in location 'westus'."),
        SKU,
        "BadRequest",
        "Standard_NC6 is not offered to this subscription in westus. ",
    ),
    (
        "zone refused",
        400,
        flat(
            "AvailabilityZoneNotSupported",
            "The zone(s) 2 for resource nodepool1 is not supported. The supported zones for location centralus are "
            "(empty).",
        ),
        ZONE,
        "AvailabilityZoneNotSupported",
        "Zone 2 cannot be used here (AKS supports: empty). Ask for another zone, or for none.",
    ),
    (
        "zones refused, as the preflight quotes",
        400,
        flat(
            "AvailabilityZoneNotSupported",
            "Preflight validation check for resource(s) for container service c in resource group rg failed. Message: "
            "The zone(s) '2, 3' for resource 'gpu1' is not supported. The supported zones for location 'eastus' are "
            "'1'. Details: ",
        ),
        ZONE,
        "AvailabilityZoneNotSupported",
        "Zones 2, 3 cannot be used here (AKS supports: 1). Ask for another zone, or for none.",
    ),
    (
        "a zone that nobody names",
        400,
        flat("AvailabilityZoneNotSupported", "Availability zone is not supported in region westus."),
        ZONE,
        "AvailabilityZoneNotSupported",
        "The zone cannot be used here. Ask for another zone, or for none.",
    ),
    (
        "VM size not for this subscription, in zones of the region",
        409,
        nested(
            "SkuNotAvailable",
            "The requested size for resource '/subscriptions/s/vm' is currently not available in location 'eastus' "
            "zones '2' for subscription 's'. Please try another size or deploy to a different location or zones. "
            "Please see https://aka.ms/azureskunotavailable for details.",
        ),
        SKU,
        "SkuNotAvailable",
        "The VM size is not offered to this subscription in zone 2 in eastus. Use another size or region, or ask ",
    ),
    (
        "VM size not for this subscription, under a code that says nothing",
        400,
        flat("BadRequest", VM_SIZE),
        SKU,
        "BadRequest",
        "Standard_ND96isr_H100_v5 is not offered to this subscription in westus. ",
    ),
    (
        "cluster busy with a pool",
        409,
        flat(
            "OperationNotAllowed",
            "Operation is not allowed: another operation (Scaling) is in progress on agent pool (systempool).",
        ),
        CONFLICT,
        "OperationNotAllowed",
        "Azure is busy with another operation ",
    ),
    (
        "cluster busy",
        409,
        flat(
            "OperationNotAllowed",
            "Operation is not allowed: Another operation (Updating) is in progress, please wait for it to finish "
            "before starting a new operation. See https://aka.ms/aks-pending-operation for more details",
        ),
        CONFLICT,
        "OperationNotAllowed",
        "Azure is busy with another operation ",
    ),
    (
        "pool busy",
        409,
        flat(
            "OperationNotAllowed",
            "Operation is not allowed: Another agentpool operation (nodepool1 - Creating) is in progress, please wait "
            "for it to finish before starting a new operation.",
        ),
        CONFLICT,
        "OperationNotAllowed",
        "Azure is busy with another operation ",
    ),
    (
        "pool being created, whatever the status",
        400,
        flat(
            "OperationNotAllowed", "Operation is not allowed because there's an in progress create node pool operation"
        ),
        CONFLICT,
        "OperationNotAllowed",
        "Azure is busy with another operation ",
    ),
    (
        "cluster stopped",
        409,
        flat("OperationNotAllowed", "Managed Cluster is in stopped state, no operations except for start are allowed."),
        CONFLICT,
        "OperationNotAllowed",
        "The cluster is stopped: start it",
    ),
    ("any other 409", 409, nested("SomethingNew", "No."), CONFLICT, "SomethingNew", "Azure is busy"),
    ("etag", 412, flat("PreconditionFailed", "No match."), CONFLICT, "PreconditionFailed", "Azure is busy"),
    (
        "throttled by AKS",
        429,
        flat("Throttled", "The PutAgentPoolHandler.PUT request limit has been exceeded."),
        THROTTLED,
        "Throttled",
        "Azure throttles its API",
    ),
    (
        "throttled by ARM",
        429,
        nested(
            "SubscriptionRequestsThrottled",
            "Number of 'read' requests for subscription 's' actor 'x' exceeded. Please try again after '10' seconds.",
        ),
        THROTTLED,
        "SubscriptionRequestsThrottled",
        "Azure throttles its API for another 10 s",
    ),
    (
        "throttled by Compute, under the code that also means busy and quota",
        429,
        nested("OperationNotAllowed", "The server rejected the request because too many requests have been received."),
        THROTTLED,
        "OperationNotAllowed",
        "Azure throttles its API",
    ),
    (
        "throttled by AKS, for the whole subscription",
        429,
        flat(
            "Throttled",
            "The ListAgentPoolsHandler.GET request limit has been exceeded for SubID='s', please retry again in 7 "
            "seconds. For more information, please visit aka.ms/aks/throttling",
        ),
        THROTTLED,
        "Throttled",
        "Azure throttles its API for another 7 s; it is tried again then.",
    ),
    (
        "token expired",
        401,
        nested("ExpiredAuthenticationToken", "The access token expiry UTC time is earlier than current UTC time."),
        AUTH,
        "ExpiredAuthenticationToken",
        "Azure does not accept the identity: check AZURE_CLIENT_ID",
    ),
    (
        "role missing",
        403,
        nested("AuthorizationFailed", FORBIDDEN),
        AUTH,
        "AuthorizationFailed",
        (
            f"Identity {IDENTITY} lacks Microsoft.ContainerService/managedClusters/agentPools/write: give it the role "
            "'Azure Kubernetes Service Contributor Role' on the cluster. Scope: /subscriptions/s/resourceGroups/rg/"
        ),
    ),
    (
        "role on the subnet missing",
        403,
        nested("LinkedAuthorizationFailed", LINKED),
        AUTH,
        "LinkedAuthorizationFailed",
        (
            f"Identity {IDENTITY} lacks Microsoft.Network/virtualNetworks/subnets/join/action: give it the role "
            "'Network Contributor' on the subnet. Scope: /subscriptions/s/resourceGroups/net/"
        ),
    ),
    (
        "resource provider not registered",
        409,
        nested(
            "MissingSubscriptionRegistration",
            "The subscription is not registered to use namespace 'Microsoft.ContainerService'.",
        ),
        AUTH,
        "MissingSubscriptionRegistration",
        "The subscription is not registered for Microsoft.ContainerService: run `az provider register ",
    ),
    (
        "no such resource group",
        404,
        nested("ResourceGroupNotFound", "Resource group 'rg' could not be found."),
        AUTH,
        "ResourceGroupNotFound",
        "There is no such resource group: check ARM_RESOURCE_GROUP",
    ),
    (
        "no such subscription",
        404,
        nested("SubscriptionNotFound", "The subscription 's' could not be found."),
        AUTH,
        "SubscriptionNotFound",
        "The subscription cannot be seen by this identity: check ARM_SUBSCRIPTION_ID",
    ),
    (
        "no such cluster",
        404,
        nested(
            "ResourceNotFound",
            "The Resource 'Microsoft.ContainerService/managedClusters/c' under resource group 'rg' was not found.",
        ),
        AUTH,
        "ResourceNotFound",
        "There is no such cluster: check AZURE_CLUSTER_NAME",
    ),
    (
        "policy",
        403,
        nested("RequestDisallowedByPolicy", POLICY),
        POLICIES,
        "RequestDisallowedByPolicy",
        "An Azure Policy (Allowed VM sizes) forbids this: ",
    ),
    (
        "lock",
        409,
        nested("ScopeLocked", "The scope '/subscriptions/s' cannot perform delete operation because it is locked."),
        POLICIES,
        "ScopeLocked",
        "A resource lock on the cluster or its resource group forbids this: ",
    ),
    (
        "machines that are not there",
        400,
        flat(
            "InvalidParameter",
            "Cannot find any valid machines to delete. Please check your input machine names. The valid machines to "
            "delete in agent pool 'p' are: aks-p-1-vmss000000.",
        ),
        INVALID,
        "InvalidParameter",
        "Azure refuses the request as it is.",
    ),
    (
        "a change that is not allowed, which is no conflict that passes",
        409,
        flat("PropertyChangeNotAllowed", "Changing property 'properties.vmSize' is not allowed."),
        INVALID,
        "PropertyChangeNotAllowed",
        "Azure refuses the request as it is.",
    ),
    (
        "invalid request",
        400,
        flat("InvalidParameter", "The value of parameter agentPoolProfile.osDiskSizeGB is invalid."),
        INVALID,
        "InvalidParameter",
        "Azure refuses the request as it is. Azure says (InvalidParameter, HTTP 400): The value of parameter ",
    ),
    (
        "an API that this cloud does not have",
        404,
        nested("InvalidResourceType", "The resource type could not be found in the namespace."),
        INVALID,
        "InvalidResourceType",
        "Azure refuses the request as it is.",
    ),
    (
        "internal error",
        500,
        flat("InternalServerError", "Internal server error"),
        INTERNAL,
        "InternalServerError",
        "Azure failed; it is tried again. Azure says (InternalServerError, HTTP 500): ",
    ),
    (
        "a gateway's HTML",
        502,
        "<html><head><title>502 Bad Gateway</title></head><body><h1>502</h1></body></html>",
        INTERNAL,
        "",
        "Azure failed; it is tried again. Azure says (HTTP 502): 502 Bad Gateway",
    ),
    ("empty body", 503, "", INTERNAL, "", "Azure failed; it is tried again. (HTTP 503)"),
    ("a 404 that is not ARM's", 404, "<html></html>", INTERNAL, "", "Azure failed"),
    ("a 409 without a body", 409, "", CONFLICT, "", "Azure is busy"),
    ("timeout at a gateway", 408, "", INTERNAL, "", "Azure failed"),
    ("a redirect", 302, "", INTERNAL, "", "Azure failed"),
    ("JSON that is no object", 400, '["no", "object"]', INVALID, "", "Azure refuses"),
    (
        "an additionalInfo of null, which the SDK cannot read",
        400,
        json.dumps({"error": {"code": "BadRequest", "message": "No.", "details": None, "additionalInfo": None}}),
        INVALID,
        "BadRequest",
        "Azure refuses the request as it is. Azure says (BadRequest, HTTP 400): No.",
    ),
)


@pytest.mark.parametrize(
    ("status", "body", "kind", "code", "begins"), [case[1:] for case in REFUSED], ids=[case[0] for case in REFUSED]
)
def test_refusals(status: int, body: str, kind: FailureClass, code: str, begins: str) -> None:
    failure = refuse(status, body)
    assert failure.kind is kind
    assert failure.code == code
    assert failure.message.startswith(begins)


def test_what_to_do_stands_in_what_clients_show() -> None:
    cases = [case for case in REFUSED if case[3] in (QUOTA, AUTH, ZONE, SKU)]
    assert len(cases) > 20
    for _, status, body, *_ in cases:
        shown = refuse(status, body).message[:SHOWN]
        assert any(advice in shown for advice in ("Ask for", "check ", "give it", "Use a", "run `az")), shown


@pytest.mark.parametrize("name", ["zone refused", "zones refused, as the preflight quotes", "a zone that nobody names"])
def test_the_zones_of_a_refusal_are_known(name: str) -> None:
    (case,) = [case for case in REFUSED if case[0] == name]
    expected = {"zone refused": ("2",), "zones refused, as the preflight quotes": ("2", "3")}
    assert refuse(case[1], case[2]).zones == expected.get(name, ())


def test_only_refusals_for_want_of_vcpus_have_a_shortage() -> None:
    shortages = {name: refuse(status, body).shortage for name, status, body, *_ in REFUSED}
    assert {name for name, shortage in shortages.items() if shortage is not None} == {
        "family quota, AKS preflight",
        "family quota, a name with spaces",
        "regional quota, AKS preflight",
        "spot quota, AKS preflight",
        "quota in words that are not known",
        "quota under the code that also means busy",
        "quota in the details of a template error",
    }
    assert shortages["family quota, a name with spaces"] == Shortage(
        scope=Scope.FAMILY, family="Standard NCASv3_T4 Family", region="westus", needed=4, left=0
    )
    assert shortages["spot quota, AKS preflight"] == Shortage(scope=Scope.SPOT, region="westus2", needed=24, left=3)
    assert shortages["quota in words that are not known"] == Shortage(scope=Scope.UNKNOWN)
    assert shortages["quota under the code that also means busy"] == Shortage(
        scope=Scope.FAMILY, family="standardNCADSA100v4Family", region="eastus", needed=24, left=0, limit=48
    )
    assert shortages["quota in the details of a template error"] == Shortage(
        scope=Scope.REGIONAL, region="eastus", needed=4, left=2, limit=10
    )
