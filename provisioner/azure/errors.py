"""From whatever the Azure SDK raises or ARM answers to one `Failure`.

Classes are decided on status, codes and message, never on the SDK's exception classes: any 409 is a
ResourceExistsError to it, quota and "busy" share the code OperationNotAllowed, and `error` is None for HTML bodies.
"""

import asyncio
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from aiohttp import ClientConnectorError
from azure.core.exceptions import (
    AzureError,
    ClientAuthenticationError,
    HttpResponseError,
    ServiceRequestError,
    ServiceRequestTimeoutError,
)

from provisioner.apis.agentpool import ProvisioningError
from provisioner.apis.failure import Failure, FailureClass
from provisioner.azure.arm_error import ArmError, clean, is_arm_body, read_body, read_retry_after, read_text
from provisioner.azure.budget import Wait
from provisioner.azure.explain import explain, explain_token, shortage_of
from provisioner.azure.zones import read_zones

# What a call may raise when Azure or the way to it fails. OSError: the federated token file, TLS, sockets.
CALL_ERRORS: Final = (AzureError, TimeoutError, OSError)


class ArmFailure(Exception):
    """A call that Azure refused, or that did not get through.

    `outcome_unknown` says that the request may have taken effect all the same: look before doing it again. `status`
    is the HTTP status, None where there was no response.
    """

    def __init__(self, failure: Failure, *, outcome_unknown: bool = False, status: int | None = None) -> None:
        super().__init__(failure.message)
        self.failure = failure
        self.outcome_unknown = outcome_unknown
        self.status = status


class Postponed(ArmFailure):
    """A call that was not sent, for now: our share of Azure's request limits is used up, or Azure wants a pause.

    Nothing is known to be wrong, so whoever has time simply asks again after `failure.retry_after`.
    """

    def __init__(self, wait: Wait) -> None:
        super().__init__(
            Failure(kind=FailureClass.THROTTLED, message=wait.message, retry_after=wait.seconds), outcome_unknown=False
        )
        self.by_azure = wait.by_azure


class Withheld(ArmFailure):
    """A call that was not sent, for good: this process may not act any more, and is about to end."""

    def __init__(self) -> None:
        message = "Not sent: another instance of the controller may act by now."
        super().__init__(Failure(kind=FailureClass.INTERNAL, message=message), outcome_unknown=False)


def unusable(what: str, *, status: int | None = None) -> ArmFailure:
    """Return the failure for a response that was meant well but is not what ARM documents; `what` says how."""
    message = f"Azure's answer cannot be used, it is asked again: {what}."
    return ArmFailure(Failure(kind=FailureClass.INTERNAL, message=message), status=status)


def _rule(
    kind: FailureClass, codes: str, message: str = ""
) -> tuple[FailureClass, frozenset[str], re.Pattern[str] | None]:
    return kind, frozenset(codes.lower().split()), re.compile(message, re.IGNORECASE) if message else None


# First match wins, so a cause stands before the envelopes that it comes in. Codes and wordings: AKS's own
# (https://learn.microsoft.com/troubleshoot/azure/azure-kubernetes/), ARM's
# (https://learn.microsoft.com/azure/azure-resource-manager/troubleshooting/common-deployment-errors) and those that
# Karpenter's Azure provider handles (karpenter-provider-azure, pkg/providers/instance/offerings).
_RULES: Final = (
    _rule(FailureClass.POLICY, "RequestDisallowedByPolicy RequestDisallowedByAzure ScopeLocked"),
    _rule(
        FailureClass.AUTH,
        "AuthorizationFailed LinkedAuthorizationFailed LinkedAccessCheckFailed AuthenticationFailed "
        "InvalidAuthenticationToken InvalidAuthenticationTokenTenant ExpiredAuthenticationToken "
        "SubscriptionNotFound InvalidSubscriptionId TenantNotFound ReadOnlyDisabledSubscription "
        "MissingSubscriptionRegistration ResourceGroupNotFound ParentResourceNotFound",
    ),
    _rule(
        FailureClass.THROTTLED,
        "Throttled TooManyRequests SubscriptionRequestsThrottled ResourceRequestsThrottled RequestsThrottled",
    ),
    _rule(
        FailureClass.QUOTA,
        "ErrCode_InsufficientVCPUQuota InsufficientVCPUQuota QuotaExceeded ResourceQuotaExceeded QuotaLimitExceeded "
        "PublicIPCountLimitReached InsufficientSubnetSize SubnetIsFull",
        r"exceeding (approved .{1,80}? )?quota|exceeding quota limits|insufficient (regional )?vcpu quota"
        r"|submit a request for quota increase",
    ),
    _rule(
        FailureClass.ZONE,
        "AvailabilityZoneNotSupported InvalidAvailabilityZone ZonesNotSupported",
        r"the zone\(s\) .{0,80}? (is|are) not supported",
    ),
    _rule(
        FailureClass.SKU_RESTRICTED,
        "VMSizeNotSupported SkuNotAvailable SkuNotAllowed SubscriptionNotAuthorizedForSku NotAvailableForSubscription",
        r"vm ?size of \S{1,80} is not allowed in your subscription"
        r"|virtual machine size: .{1,80}? is not supported for subscription",
    ),
    _rule(
        FailureClass.CAPACITY,
        "AllocationFailed ZonalAllocationFailed OverconstrainedAllocationRequest OverconstrainedZonalAllocationRequest "
        "AllocationTimeout OutOfCapacity InsufficientCapacity AKSCapacityHeavyUsage AKSCapacityError",
        r"do not have sufficient capacity for the requested vm size|^allocation failed\.",
    ),
    # With the status of a conflict, but not one that passes.
    _rule(FailureClass.INVALID, "PropertyChangeNotAllowed"),
    _rule(
        FailureClass.CONFLICT,
        "AKSOperationPreempted AKSOperationPreemptedByDelete OperationPreempted OriginalEtagNotExpect EtagMismatch "
        "AnotherOperationInProgress Conflict",
        r"operation .{0,80}? ?(is )?in progress|in[- ]progress create node ?pool|preempted by"
        r"|\b(in a? ?stopped state|power ?state is)",
    ),
    _rule(
        FailureClass.INTERNAL,
        "InternalServerError InternalOperationError ReconcileVMSSAgentPoolFailed ServiceUnavailable ServerTimeout "
        "GatewayTimeout BadGateway OperationTimedOut",
    ),
)

_BY_STATUS: Final[Mapping[int, FailureClass]] = {
    401: FailureClass.AUTH,
    403: FailureClass.AUTH,
    408: FailureClass.INTERNAL,
    409: FailureClass.CONFLICT,
    412: FailureClass.CONFLICT,
    429: FailureClass.THROTTLED,
}
# What may be about some zones and not about others.
_OF_ZONES: Final = frozenset({FailureClass.ZONE, FailureClass.CAPACITY, FailureClass.SKU_RESTRICTED})
# Of the cluster: the only thing that a call of ours may find missing and that is not what it is about.
_NOT_FOUND: Final = frozenset({"resourcenotfound", "notfound"})
# Statuses that say more than any body: throttled calls carry codes such as OperationNotAllowed.
_STATUS_FIRST: Final = frozenset({401, 429})


def classify(error: BaseException) -> Failure:
    """Return what an exception of the SDK, its transport or its credentials means. Never raises.

    The class AUTH is wider than its name: everything that an administrator of the installation has to set right, such
    as an identity, a role, a provider registration or the name of the cluster. Waiting and trying again is right then.
    """
    if isinstance(error, ArmFailure):
        return error.failure
    if isinstance(error, HttpResponseError) and error.response is not None:
        status, headers, body = _read_response(error)
        if _is_of_token(error, body):
            return _token_failure(status, headers, read_body(body))
        return classify_response(status=status, headers=headers, body=body)
    if isinstance(error, ClientAuthenticationError):
        return _token_failure(None, {}, ArmError(message=clean(str(error), limit=600)))
    if isinstance(error, FileNotFoundError | PermissionError) and error.filename is not None:
        return _token_failure(None, {}, ArmError(message=clean(f"cannot read {error.filename}: {error.strerror}")))
    if isinstance(error, TimeoutError | asyncio.TimeoutError):
        return Failure(kind=FailureClass.INTERNAL, message="Azure did not answer in time; it is asked again.")
    text = clean(str(error), limit=300) or type(error).__name__
    return Failure(kind=FailureClass.INTERNAL, message=f"Azure could not be reached; it is tried again: {text}")


def classify_response(*, status: int, headers: Mapping[str, str], body: str) -> Failure:
    """Return what an error response of ARM means, whatever its body is."""
    error = read_body(body)
    retry_after = read_retry_after(headers, message=error.message)
    return _failure(_kind(status, error), error, status=status, retry_after=retry_after)


def classify_provisioning_error(error: ProvisioningError) -> Failure:
    """Return why an agent pool is Failed. Without a known code or wording that is an error inside Azure."""
    read = read_text(error.code, error.message)
    read = replace(read, codes=(*error.outer_codes, *read.codes))
    return _failure(_kind(None, read), read, status=None, retry_after=None)


def outcome_unknown(error: BaseException) -> bool:
    """Tell whether a request that failed so may have reached Azure and taken effect.

    azure-core maps a connection that breaks after the request was sent to ServiceRequestError too, which by its name
    was never sent; only a failed connect is known to have sent nothing.
    """
    if isinstance(error, HttpResponseError) and error.response is not None and error.status_code is not None:
        return status_unknown(error.status_code) and not isinstance(error, ClientAuthenticationError)
    if isinstance(error, ClientAuthenticationError | ServiceRequestTimeoutError):
        return False
    if isinstance(error, ServiceRequestError):
        return not isinstance(error.inner_exception, ClientConnectorError)
    return isinstance(error, AzureError | TimeoutError | ConnectionError)


def status_unknown(status: int) -> bool:
    """Tell whether a request may have taken effect though its response, of that status, is none that is understood."""
    return status >= 500 or status == 408 or 200 <= status < 300


def _failure(kind: FailureClass, error: ArmError, *, status: int | None, retry_after: float | None) -> Failure:
    return Failure(
        kind=kind,
        message=explain(kind, error, status=status, retry_after=retry_after),
        code=error.code,
        retry_after=retry_after,
        shortage=shortage_of(error) if kind is FailureClass.QUOTA else None,
        zones=read_zones(error.message) if kind in _OF_ZONES else (),
    )


def _kind(status: int | None, error: ArmError) -> FailureClass:
    if status in _STATUS_FIRST:
        return _BY_STATUS[status]
    codes = {code.lower() for code in error.codes}
    for kind, known, wording in _RULES:
        if codes & known or (wording is not None and wording.search(error.message)):
            return kind
    if status is None or status >= 500 or status < 400:
        return FailureClass.INTERNAL
    if status == 404 and not codes:
        # Without ARM's words it is a proxy's, or a wrong endpoint's.
        return FailureClass.INTERNAL
    if status == 404 and codes & _NOT_FOUND:
        return FailureClass.AUTH
    return _BY_STATUS.get(status, FailureClass.INVALID)


def _token_failure(status: int | None, headers: Mapping[str, str], error: ArmError) -> Failure:
    retry_after = read_retry_after(headers)
    if status is not None and (status >= 500 or status in (408, 429)):
        kind = FailureClass.THROTTLED if status == 429 else FailureClass.INTERNAL
        message = f"Entra gave no token (HTTP {status}); it is asked again. {error.message}".rstrip()
        return Failure(kind=kind, message=message, code=error.code, retry_after=retry_after)
    return Failure(
        kind=FailureClass.AUTH, message=explain_token(error.message), code=error.code, retry_after=retry_after
    )


def _is_of_token(error: HttpResponseError, body: str) -> bool:
    # Entra and the managed identity endpoint answer as OAuth does, where `error` is a string; in ARM it is an object.
    return isinstance(error, ClientAuthenticationError) and not is_arm_body(body)


def _read_response(error: HttpResponseError) -> tuple[int, Mapping[str, str], str]:
    response = error.response
    try:
        body = response.text() if response is not None else ""
    except (AzureError, ValueError, LookupError):
        # A body that was never read, is cut off, or is in no encoding that it claims to be.
        body = ""
    headers = dict(getattr(response, "headers", None) or {})
    return error.status_code or 0, headers, body
