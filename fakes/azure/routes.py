"""Which path is which operation. ARM ignores the case of letters in paths."""

import re
from dataclasses import dataclass
from typing import Final

_CLUSTER: Final = (
    "/subscriptions/{subscription}/resourceGroups/{group}/providers/Microsoft.ContainerService"
    "/managedClusters/{cluster}"
)
_POOL: Final = f"{_CLUSTER}/agentPools/{{pool}}"
_LOCATION: Final = "/subscriptions/{subscription}/providers/Microsoft.ContainerService/locations/{location}"
# Any resource group, not the cluster's alone.
_GROUP: Final = "/subscriptions/{subscription}/resourceGroups/{owner}/providers"

_TABLE: Final = (
    ("POST", "/{tenant}/oauth2/v2.0/token", "entra.token"),
    ("GET", _CLUSTER, "managedClusters.get"),
    ("GET", f"{_CLUSTER}/agentPools", "agentPools.list"),
    ("GET", _POOL, "agentPools.get"),
    ("PUT", _POOL, "agentPools.put"),
    ("DELETE", _POOL, "agentPools.delete"),
    ("POST", f"{_POOL}/deleteMachines", "agentPools.deleteMachines"),
    ("GET", f"{_POOL}/upgradeProfiles/default", "agentPools.getUpgradeProfile"),
    ("GET", f"{_POOL}/machines", "machines.list"),
    ("GET", f"{_POOL}/machines/{{machine}}", "machines.get"),
    ("GET", f"{_LOCATION}/operations/{{operation}}", "operations.get"),
    ("GET", f"{_LOCATION}/operationresults/{{operation}}", "operationResults.get"),
    ("GET", "/subscriptions/{subscription}/providers/Microsoft.Compute/skus", "skus.list"),
    ("GET", "/subscriptions/{subscription}/providers/Microsoft.Compute/locations/{location}/usages", "usages.list"),
    ("GET", f"{_GROUP}/Microsoft.Network/virtualNetworks/{{network}}/subnets/{{subnet}}", "subnets.get"),
    (
        "GET",
        f"{_GROUP}/Microsoft.Compute/capacityReservationGroups/{{reservation}}/capacityReservations",
        "capacityReservations.list",
    ),
    ("GET", "/api/retail/prices", "prices.list"),
)

# Operations of paths and methods that are not served.
UNKNOWN: Final = "unknown"
METHOD_NOT_ALLOWED: Final = "methodNotAllowed"


@dataclass(frozen=True, kw_only=True)
class Match:
    """An operation, and the segments of the path that are its arguments."""

    operation: str
    arguments: dict[str, str]

    @property
    def pool(self) -> str:
        """The agent pool that the path names, lower-cased; empty if none."""
        return self.arguments.get("pool", "").lower()


def _compile(template: str) -> re.Pattern[str]:
    parts = re.split(r"\{(\w+)\}", template)
    pattern = "".join(f"(?P<{part}>[^/]+)" if index % 2 else re.escape(part) for index, part in enumerate(parts))
    return re.compile(pattern + "/?", re.IGNORECASE | re.ASCII)


_ROUTES: Final = tuple((method, _compile(template), operation) for method, template, operation in _TABLE)


def resolve(method: str, path: str) -> Match:
    """Return the operation of a request, `UNKNOWN` or `METHOD_NOT_ALLOWED` where there is none."""
    operation = UNKNOWN
    for served, pattern, name in _ROUTES:
        match = pattern.fullmatch(path)
        if match is None:
            continue
        if served == method:
            return Match(operation=name, arguments=match.groupdict())
        operation = METHOD_NOT_ALLOWED
    return Match(operation=operation, arguments={})
