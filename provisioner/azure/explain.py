"""What a user is told about a failure: the numbers and what to do first, Azure's own words after them.

Clients show 256 bytes of a message, so the first sentences have to stand alone.
"""

import re
from collections.abc import Callable, Mapping
from typing import Final

from provisioner.apis.failure import FailureClass
from provisioner.apis.quota import Scope, Shortage
from provisioner.azure.arm_error import ArmError
from provisioner.azure.shortage import read_shortage
from provisioner.azure.zones import read_supported, read_zones

_QUOTA_PAGE: Final = "https://learn.microsoft.com/azure/quotas/per-vm-quota-requests"

_ACCESS_PAGE: Final = "https://learn.microsoft.com/troubleshoot/azure/general/region-access-request-process"

_OF_SUBSCRIPTION: Final = re.compile(r"\bfor (?:this )?subscription\b", re.IGNORECASE)
_SIZE: Final = re.compile(r"\bStandard_[A-Za-z0-9_-]{2,60}")
_REGION: Final = re.compile(r"\b(?:in|for|location) (?:the )?(?:location|region) '?(\w{2,60})'?", re.IGNORECASE)
_ACTIONS: Final = re.compile(r"action(?:\(s\))? '(?P<action>[\w./*,' ]{3,200}?)'", re.IGNORECASE)
_SCOPE: Final = re.compile(r"(?:over|on the linked) scope(?:\(s\))? '(?P<scope>/[^'\s]{1,400})'", re.IGNORECASE)
_CLIENT: Final = re.compile(r"object id '(?P<id>[0-9a-f-]{36})'", re.IGNORECASE)
_PROVIDER: Final = re.compile(r"namespace '(?P<name>[\w.]{3,80})'", re.IGNORECASE)
_POLICY: Final = re.compile(r'"policyAssignment"\s*:\s*\{\s*"name"\s*:\s*"(?P<name>[^"]{1,120})"')
_SUBNET: Final = re.compile(
    r"pre-allocated ips (?P<needed>\d{1,9}) exceeds ips available (?:in subnet )?(?P<left>\d{1,9})"
    r"(?: in subnet cidr (?P<cidr>[\w./:]{3,50}))?",
    re.IGNORECASE,
)

# Roles with the least that a call needs: https://learn.microsoft.com/azure/role-based-access-control/built-in-roles.
_ROLES: Final = (
    ("microsoft.network/virtualnetworks/", "role 'Network Contributor' on the subnet"),
    ("microsoft.compute/capacityreservationgroups/", "role 'Contributor' on the capacity reservation group"),
    ("microsoft.compute/", "role 'Reader' on the subscription"),
    ("microsoft.managedidentity/", "role 'Managed Identity Operator' on the node identity"),
    ("", "role 'Azure Kubernetes Service Contributor Role' on the cluster"),
)

# https://learn.microsoft.com/entra/identity-platform/reference-error-codes
_TOKEN_ADVICE: Final = (
    (
        ("AADSTS70021", "AADSTS700211", "AADSTS700212", "AADSTS700213"),
        (
            "no federated credential of the managed identity matches this service account: add one for its issuer and "
            "subject (system:serviceaccount:NAMESPACE:NAME)"
        ),
    ),
    (("AADSTS700016",), "the tenant has no identity of this client ID: check AZURE_CLIENT_ID and AZURE_TENANT_ID"),
    (("AADSTS90002", "AADSTS900023", "AADSTS90013"), "there is no such tenant: check AZURE_TENANT_ID"),
    (("AADSTS700024", "AADSTS700082"), "the service account token has expired: check the clocks of node and cluster"),
    (
        ("cannot read",),
        (
            "the service account token is not mounted: check the pod label azure.workload.identity/use and the service "
            "account's annotations"
        ),
    ),
)


def explain(kind: FailureClass, error: ArmError, *, status: int | None, retry_after: float | None) -> str:
    """Return the message of a failure. `error.message` is clean already."""
    lead = _LEADS[kind](error.message, error)
    if kind is FailureClass.THROTTLED and retry_after is not None:
        lead = f"Azure throttles its API for another {retry_after:.0f} s; it is tried again then."
    origin = ", ".join(part for part in (error.code, f"HTTP {status}" if status else "") if part)
    if not error.message:
        return f"{lead} ({origin})" if origin else lead
    return f"{lead} Azure says ({origin}): {error.message}" if origin else f"{lead} Azure says: {error.message}"


def explain_token(message: str) -> str:
    """Return the message of a failure to get a token from Entra or the managed identity endpoint."""
    for marks, advice in _TOKEN_ADVICE:
        if any(re.search(rf"\b{mark}\b", message) for mark in marks):
            return f"No token for the Azure identity: {advice}. {message}"
    return f"No token for the Azure identity: check its client ID, tenant and federated credential. {message}".rstrip()


def shortage_of(error: ArmError) -> Shortage | None:
    """Return which vCPU quota an error of class QUOTA is about, None where it is about something else."""
    shortage = read_shortage(error.message)
    if shortage is None and "vcpuquota" in error.code.lower():
        return Shortage(scope=Scope.UNKNOWN)
    return shortage


def _quota(text: str, error: ArmError) -> str:
    if subnet := _SUBNET.search(text):
        where = f" in {subnet['cidr']}" if subnet["cidr"] else ""
        return (
            f"Subnet too small: {subnet['needed']} IP addresses needed{where}, {subnet['left']} available. "
            "Use a larger subnet, a lower maxPods, or delete agent pools."
        )
    if "subnet" in error.code.lower():
        return "The subnet has no IP addresses left: use a larger one, a lower maxPods, or delete agent pools."
    shortage = shortage_of(error)
    if shortage is None:
        return f"Quota exceeded. Ask for more: {_QUOTA_PAGE}, or delete what you do not need."
    return shortage.message


def _sku(text: str, error: ArmError) -> str:
    size, where = _size(text, begins=True), _where(text)
    # Compute has one code for both; the words that tell them apart are in the name of the resource, of all places.
    if error.code.lower() == "skunotavailable" and not _OF_SUBSCRIPTION.search(text):
        passes = ": a capacity restriction, which may pass" if "capacity restriction" in text.lower() else ""
        otherwise = "or wait" if passes else "or wait; the subscription may also be restricted"
        return (
            f"{size} cannot be had{where} now{passes}. Use another size, zone or region, {otherwise}: "
            "https://aka.ms/azureskunotavailable."
        )
    return (
        f"{size} is not offered to this subscription{where}. Use another size or region, or ask Azure support to lift "
        f"the restriction: {_ACCESS_PAGE}."
    )


def _capacity(text: str, error: ArmError) -> str:
    if "overconstrained" in error.code.lower():
        return (
            f"Azure has no capacity for {_size(text)} under the constraints asked for{_where(text)}: drop the zone, "
            "use a managed OS disk, or use another size."
        )
    return f"Azure has no capacity for {_size(text)}{_where(text)} now. Use another size, zone or region, or wait."


def _zone(text: str, _error: ArmError) -> str:
    zones = read_zones(text)
    which = f"Zone{'s' if len(zones) > 1 else ''} {', '.join(zones)}" if zones else "The zone"
    supported = read_supported(text)
    known = f" (AKS supports: {supported})" if supported else ""
    return f"{which} cannot be used here{known}. Ask for another zone, or for none."


def _auth(text: str, error: ArmError) -> str:
    codes = {code.lower() for code in error.codes}
    if "missingsubscriptionregistration" in codes:
        provider = match["name"] if (match := _PROVIDER.search(text)) else "Microsoft.ContainerService"
        return f"The subscription is not registered for {provider}: run `az provider register --namespace {provider}`."
    if "readonlydisabledsubscription" in codes:
        return "The subscription is disabled and read-only: enable it again."
    if "subscriptionnotfound" in codes or "invalidsubscriptionid" in codes:
        return "The subscription cannot be seen by this identity: check ARM_SUBSCRIPTION_ID and AZURE_TENANT_ID."
    if "resourcegroupnotfound" in codes:
        return "There is no such resource group: check ARM_RESOURCE_GROUP and ARM_SUBSCRIPTION_ID."
    if codes & {"parentresourcenotfound", "resourcenotfound", "notfound"}:
        # ARM names the path; in the one of a pool the cluster occurs too.
        if "/agentpools/" in text.lower():
            return "There is no such agent pool."
        return "There is no such cluster: check AZURE_CLUSTER_NAME, ARM_RESOURCE_GROUP and ARM_SUBSCRIPTION_ID."
    actions = list(_ACTIONS.finditer(text))
    if not actions:
        return "Azure does not accept the identity: check AZURE_CLIENT_ID, AZURE_TENANT_ID and its role on the cluster."
    # LinkedAuthorizationFailed names the permitted action first and the missing one last.
    action = actions[-1]["action"]
    who = f"Identity {match['id']}" if (match := _CLIENT.search(text)) else "The identity"
    scopes = [match["scope"] for match in _SCOPE.finditer(text)]
    role = next(role for prefix, role in _ROLES if action.lower().startswith(prefix))
    return f"{who} lacks {action}: give it the {role}." + (f" Scope: {scopes[-1]}." if scopes else "")


def _policy(text: str, error: ArmError) -> str:
    if error.code.lower() == "scopelocked":
        return "A resource lock on the cluster or its resource group forbids this: remove the lock."
    name = f" ({match['name']})" if (match := _POLICY.search(text)) else ""
    return f"An Azure Policy{name} forbids this: change the request or have the cluster exempted."


def _conflict(text: str, _error: ArmError) -> str:
    if "stopped state" in text.lower():
        return "The cluster is stopped: start it (`az aks start`), it is tried again then."
    return "Azure is busy with another operation on the cluster or the agent pool; it is tried again."


def _size(text: str, *, begins: bool = False) -> str:
    return match[0] if (match := _SIZE.search(text)) else "The VM size" if begins else "the VM size"


def _where(text: str) -> str:
    zones = read_zones(text)
    zone = f" in zone{'s' if len(zones) > 1 else ''} {', '.join(zones)}" if zones else ""
    region = f" in {match[1]}" if (match := _REGION.search(text)) else ""
    return zone + region


_LEADS: Final[Mapping[FailureClass, Callable[[str, ArmError], str]]] = {
    FailureClass.QUOTA: _quota,
    FailureClass.SKU_RESTRICTED: _sku,
    FailureClass.CAPACITY: _capacity,
    FailureClass.ZONE: _zone,
    FailureClass.AUTH: _auth,
    FailureClass.POLICY: _policy,
    FailureClass.THROTTLED: lambda _text, _error: "Azure throttles its API; it is tried again.",
    FailureClass.CONFLICT: _conflict,
    FailureClass.INVALID: lambda _text, _error: "Azure refuses the request as it is.",
    FailureClass.INTERNAL: lambda _text, _error: "Azure failed; it is tried again.",
}
