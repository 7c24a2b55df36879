"""Error answers, in the two shapes that clients of AKS meet.

ARM's front door and Compute nest the error under `error`; what the AKS resource provider refuses at once comes flat,
with `details` and `subcode` beside `code` and `message`.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any, Literal

Shape = Literal["flat", "nested"]


class AzureError(Exception):
    """A request is refused: status, error code, message and the shape of the body.

    `retry_after` is in simulated seconds. `headers` go out with the answer.
    """

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        *,
        shape: Shape = "flat",
        target: str | None = None,
        details: Sequence[Mapping[str, Any]] | None = None,
        retry_after: float | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(f"{status} {code}: {message}")
        self.status = status
        self.code = code
        self.message = message
        self.shape = shape
        self.target = target
        self.details = details
        self.retry_after = retry_after
        self.headers = dict(headers or {})

    def body(self) -> dict[str, Any]:
        """Return the body of the answer."""
        if self.shape == "nested":
            return {"error": error(self.code, self.message, target=self.target, details=self.details)}
        body: dict[str, Any] = {"code": self.code, "details": self.details, "message": self.message, "subcode": ""}
        if self.target is not None:
            body["target"] = self.target
        return body


def error(
    code: str, message: str, *, target: str | None = None, details: Sequence[Mapping[str, Any]] | None = None
) -> dict[str, Any]:
    """Return an ARM error object, without the fields that say nothing: `additionalInfo: null` breaks azure-core."""
    body: dict[str, Any] = {"code": code, "message": message}
    if target is not None:
        body["target"] = target
    if details:
        body["details"] = [dict(detail) for detail in details]
    return body


# --- ARM's front door


def missing_token() -> AzureError:
    """No bearer token was sent."""
    return _unauthorized(
        "AuthenticationFailed", "Authentication failed. The 'Authorization' header is missing.", reason=None
    )


def invalid_token(what: str) -> AzureError:
    """The bearer token is none of Entra's."""
    return _unauthorized("InvalidAuthenticationToken", what, reason="The access token is invalid")


def expired_token(expired: str, now: str) -> AzureError:
    """The bearer token was good until a moment that is past."""
    return _unauthorized(
        "ExpiredAuthenticationToken",
        f"The access token expiry UTC time '{expired}' is earlier than current UTC time '{now}'.",
        reason="The access token is expired",
    )


def wrong_audience(audience: str, allowed: Sequence[str]) -> AzureError:
    """The bearer token is for somebody else."""
    listed = ",".join(f"'{each}'" for each in allowed)
    return _unauthorized(
        "InvalidAuthenticationTokenAudience",
        f"The access token has been obtained for wrong audience or resource '{audience}'. "
        f"It should exactly match with one of the allowed audiences {listed}.",
        reason="The access token is from wrong audience",
    )


def _unauthorized(code: str, message: str, *, reason: str | None) -> AzureError:
    challenge = 'Bearer authorization_uri="https://login.windows.net/"'
    if reason:
        challenge += f', error="invalid_token", error_description="{reason}"'
    return AzureError(401, code, message, shape="nested", headers={"WWW-Authenticate": challenge})


def missing_api_version() -> AzureError:
    """No usable `api-version`."""
    return AzureError(
        400,
        "MissingApiVersionParameter",
        "The api-version query parameter (?api-version=) is required for all requests.",
        shape="nested",
    )


def invalid_content(what: str) -> AzureError:
    """The body is no JSON object."""
    return AzureError(
        400,
        "InvalidRequestContent",
        f"The request content was invalid and could not be deserialized: '{what}'.",
        shape="nested",
    )


def subscription_not_found(subscription: str) -> AzureError:
    """No such subscription, or none of the caller's."""
    return AzureError(
        404, "SubscriptionNotFound", f"The subscription '{subscription}' could not be found.", shape="nested"
    )


def resource_group_not_found(group: str) -> AzureError:
    """No such resource group."""
    return AzureError(404, "ResourceGroupNotFound", f"Resource group '{group}' could not be found.", shape="nested")


def cluster_not_found(cluster: str, group: str) -> AzureError:
    """No such managed cluster."""
    return AzureError(
        404,
        "ResourceNotFound",
        f"The Resource 'Microsoft.ContainerService/managedClusters/{cluster}' under resource group '{group}' was not "
        "found. For more details please go to https://aka.ms/ARMResourceNotFoundFix",
        shape="nested",
    )


def parent_not_found(parent: str) -> AzureError:
    """What the resource is a child of does not exist, such as the managed cluster of an agent pool."""
    return AzureError(
        404,
        "ParentResourceNotFound",
        f"Can not perform requested operation on nested resource. Parent resource '{parent}' not found.",
        shape="nested",
    )


def resource_not_found(kind: str, name: str, group: str) -> AzureError:
    """No such resource, as ARM says of those that are no child of another."""
    return AzureError(
        404,
        "ResourceNotFound",
        f"The Resource '{kind}/{name}' under resource group '{group}' was not found. For more details please go to "
        "https://aka.ms/ARMResourceNotFoundFix",
        shape="nested",
    )


def child_not_found(resource_id: str) -> AzureError:
    """No such child of a resource that is there, as Network says."""
    return AzureError(404, "NotFound", f"Resource {resource_id} not found.", shape="nested")


def unknown_resource_type(path: str) -> AzureError:
    """Nothing is served under that path."""
    return AzureError(404, "InvalidResourceType", f"No resource type is served under '{path}'.", shape="nested")


def method_not_allowed(method: str) -> AzureError:
    """The path is served, the method is not."""
    return AzureError(
        405, "MethodNotAllowed", f"The HTTP method '{method}' is not supported at this scope.", shape="nested"
    )


def no_such_location(location: str, version: str, kind: str, known: Sequence[str]) -> AzureError:
    """A resource provider is asked about a region that it is not in, or that is none."""
    return AzureError(
        400,
        "NoRegisteredProviderFound",
        f"No registered resource provider found for location '{location}' and API version '{version}' for type "
        f"'{kind}'. The supported api-versions are '{version}'. The supported locations are '{', '.join(known)}'.",
        shape="nested",
    )


def arm_throttled(kind: str, subscription: str, actor: str, *, seconds: float) -> AzureError:
    """ARM's token bucket of the subscription is empty."""
    return AzureError(
        429,
        "SubscriptionRequestsThrottled",
        f"Number of '{kind}' requests for subscription '{subscription}' actor '{actor}' exceeded. "
        f"Please try again after '{_whole(seconds)}' seconds.",
        shape="nested",
        retry_after=seconds,
    )


# --- Compute


def compute_throttled(group: str, *, allowed: int, measured: int, seconds: float) -> AzureError:
    """A limit of the Compute resource provider is used up; the code is the one that quotas and conflicts have too.

    https://learn.microsoft.com/troubleshoot/azure/virtual-machines/troubleshooting-throttling-errors
    """
    counts = {"operationGroup": group, "allowedRequestCount": allowed, "measuredRequestCount": measured}
    return AzureError(
        429,
        "OperationNotAllowed",
        "The server rejected the request because too many requests have been received for this subscription.",
        shape="nested",
        details=[{"code": "TooManyRequests", "target": group, "message": json.dumps(counts)}],
        retry_after=seconds,
    )


# --- The AKS resource provider


def throttled(handler: str, scope: str, *, seconds: float) -> AzureError:
    """A token bucket of the AKS resource provider is empty."""
    return AzureError(
        429,
        "Throttled",
        f"The {handler} request limit has been exceeded for {scope}, please retry again in {_whole(seconds)} seconds. "
        "For more information, please visit aka.ms/aks/throttling",
        retry_after=seconds,
    )


def pool_not_found(pool: str, cluster: str) -> AzureError:
    """No such agent pool; Azure/gpu-provisioner looks for the last three words."""
    return AzureError(404, "NotFound", f"Could not find '{pool}' in managed cluster '{cluster}': Agent Pool not found.")


def machine_not_found(machine: str, pool: str) -> AzureError:
    """No such machine."""
    return AzureError(404, "NotFound", f"Could not find machine '{machine}' in agent pool '{pool}'.")


def operation_not_found(operation: str) -> AzureError:
    """No such operation, or one of long ago."""
    return AzureError(404, "NotFound", f"The operation '{operation}' could not be found.")


def unmarshal(what: str) -> AzureError:
    """A property has the wrong JSON type."""
    return AzureError(400, "UnmarshalError", f"UnmarshalEntity encountered error: json: cannot unmarshal {what}.")


def invalid_parameter(message: str, *, target: str | None = None) -> AzureError:
    """A property has a value that is not allowed."""
    return AzureError(400, "InvalidParameter", message, target=target)


def bad_request(message: str, *, target: str | None = None) -> AzureError:
    """A request that is refused without a code of its own."""
    return AzureError(400, "BadRequest", message, target=target)


def property_change(name: str) -> AzureError:
    """A property cannot change once the pool exists."""
    return AzureError(
        400,
        "PropertyChangeNotAllowed",
        f"Changing property 'properties.{name}' is not allowed.",
        target=f"properties.{name}",
    )


def vm_size_not_supported(size: str, subscription: str, location: str) -> AzureError:
    """The VM size does not exist, is retired, or is not for this subscription.

    Wording: karpenter-provider-azure, pkg/fake/aksmachinesapi.go.
    """
    return AzureError(
        400,
        "VMSizeNotSupported",
        f"Virtual Machine size: '{size}' is not supported for subscription {subscription} in location '{location}'. "
        f"Please refer to aka.ms/aks/vm-size-selector to find supported VM sizes in location '{location}'.",
    )


def zone_not_supported(zones: Sequence[str], pool: str, location: str, supported: Sequence[str]) -> AzureError:
    """A zone is refused."""
    listed = ", ".join(supported) or "(empty)"
    return AzureError(
        400,
        "AvailabilityZoneNotSupported",
        f"The zone(s) {', '.join(zones)} for resource {pool} is not supported. "
        f"The supported zones for location {location} are {listed}.",
    )


def precondition_failed(message: str) -> AzureError:
    """If-Match or If-None-Match does not hold."""
    return AzureError(412, "PreconditionFailed", message)


_PENDING = "See https://aka.ms/aks-pending-operation for more details"


def cluster_busy(state: str) -> AzureError:
    """An operation on the whole cluster blocks its pools."""
    return _conflict(
        f"Operation is not allowed: Another operation ({state}) is in progress, "
        f"please wait for it to finish before starting a new operation. {_PENDING}"
    )


def pool_busy(pool: str, operation: str) -> AzureError:
    """An operation on an agent pool blocks the next."""
    return _conflict(
        f"Operation is not allowed: Another agentpool operation ({pool} - {operation}) is in progress, "
        f"please wait for it to finish before starting a new operation. {_PENDING}"
    )


def create_in_progress() -> AzureError:
    """The pool is still being created; Azure/gpu-provisioner looks for this text and adopts the pool."""
    return _conflict("Operation is not allowed because there's an in progress create node pool operation")


def cluster_stopped(subscription: str, group: str) -> AzureError:
    """The cluster is stopped."""
    return _conflict(
        f"An error has occurred in subscription {subscription}, resourceGroup: {group} request: "
        "Managed Cluster is in stopped state, no operations except for start are allowed."
    )


def last_system_pool() -> AzureError:
    """A cluster keeps at least one System pool."""
    return _conflict("There has to be at least one system agent pool.")


def _conflict(message: str) -> AzureError:
    return AzureError(409, "OperationNotAllowed", message)


def preempted_by_delete() -> dict[str, Any]:
    """Return the error of an operation that a DELETE has ended."""
    return error("AKSOperationPreemptedByDelete", "This operation has been preempted by Deleting operation.")


def no_system_pool() -> AzureError:
    """The cluster's only System pool would become a User pool."""
    return AzureError(400, "MustDefineAtLeastOneSystemPool", "Must define at least one system pool.")


def no_machines_to_delete(pool: str, valid: Sequence[str]) -> AzureError:
    """None of the named machines is there."""
    return invalid_parameter(
        "Cannot find any valid machines to delete. Please check your input machine names. "
        f"The valid machines to delete in agent pool '{pool}' are: {', '.join(valid)}."
    )


def _whole(seconds: float) -> int:
    return max(int(-(-seconds // 1)), 1)
