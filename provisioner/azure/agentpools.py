"""The agent pools of one AKS cluster: create, delete, list, and the machines in one."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final
from urllib.parse import quote

from provisioner.apis.agentpool import AgentPool, parse_agent_pool
from provisioner.apis.failure import FailureClass
from provisioner.azure.caller import Caller
from provisioner.azure.errors import ArmFailure, unusable

__all__ = ["AgentPools", "ArmFailure", "Machine", "ManagedCluster", "PoolExists"]

# The generally available API that has gpuProfile; https://learn.microsoft.com/rest/api/aks/agent-pools. Pinned apart
# from the SDK's, so that an update of the package does not change what is on the wire.
API_VERSION: Final = "2026-08-01"
# Seconds for a whole call, token included. AKS checks quota and policies before it answers a PUT.
WRITE_TIMEOUT: Final = 60.0
READ_TIMEOUT: Final = 30.0

_RESOURCE_GROUP: Final = re.compile(r"(?<=/resourceGroups/)[^/]+", re.IGNORECASE)

_QUERY: Final[Mapping[str, str]] = {"api-version": API_VERSION}


class PoolExists(Exception):
    """A pool of that name is there already, and was left as it is."""


@dataclass(frozen=True, kw_only=True)
class Machine:
    """One VM of an agent pool. `name` is that of its Node, `provider_id` the Node's spec.providerID."""

    name: str
    provider_id: str


@dataclass(frozen=True, kw_only=True)
class ManagedCluster:
    """The cluster itself. States are free strings of Azure's; `max_agent_pools` is None where Azure does not say."""

    location: str
    node_resource_group: str
    provisioning_state: str
    power_state: str
    kubernetes_version: str
    max_agent_pools: int | None = None

    @property
    def is_settled_running(self) -> bool:
        """Tell whether the cluster runs and no operation on it is going on, so that AKS takes agent pool requests.

        It takes them too after an operation that has failed.
        """
        settled = self.provisioning_state.lower() in ("succeeded", "failed", "canceled")
        return settled and self.power_state.lower() != "stopped"


class AgentPools:
    """The gateway. Each call is one request (or one per page), never repeated, with a deadline for the whole."""

    def __init__(self, session: Caller) -> None:
        self._session = session
        self._target = session.target

    async def create(self, name: str, body: Mapping[str, Any]) -> AgentPool:
        """Ask for a new pool and return it as first answered, usually Creating. The operation goes on in Azure.

        `body` is the agent pool resource, `{"properties": {...}}`. Raises PoolExists where the name is taken, whoever
        owns that pool (it may be this very request's, sent a second time when its connection broke), and ArmFailure.
        """
        try:
            response = await self._session.call(
                "PUT",
                self._path(name),
                operation="agentpools.create",
                timeout=WRITE_TIMEOUT,
                accept=(200, 201, 202, 412),
                query=_QUERY,
                # Without it a PUT would rewrite a user's pool of the same name.
                headers={"If-None-Match": "*"},
                body=body,
            )
        except ArmFailure as error:
            raise self._located(error) from error
        if response.status == 412:
            raise PoolExists(name)
        try:
            return _parse(response.json())
        except ArmFailure as error:
            raise ArmFailure(error.failure, outcome_unknown=True, status=response.status) from error

    async def delete(self, name: str, *, etag: str = "") -> bool:
        """Ask for a pool to be deleted: True where Azure has accepted that, False where there was none.

        With an `etag` only the pool in that very state is deleted; one that has changed since counts as none.

        Raises ArmFailure, also where it is not the pool but the cluster that cannot be found: then nothing is known
        of the pool, and a wrong setting must not look like a pool that is gone.
        """
        try:
            response = await self._session.call(
                "DELETE",
                self._path(name),
                operation="agentpools.delete",
                timeout=WRITE_TIMEOUT,
                accept=(200, 202, 204, 412) if etag else (200, 202, 204),
                query=_QUERY,
                headers={"If-Match": f'"{etag}"'} if etag else {},
            )
        except ArmFailure as error:
            if _is_missing_pool(error):
                return False
            raise self._located(error) from error
        return response.status not in (204, 412)

    async def list(self) -> tuple[AgentPool, ...]:
        """Return all pools of the cluster. Raises ArmFailure, also where the cluster is not found."""
        try:
            items = await self._session.list(
                f"{self._target.cluster_path}/agentPools",
                operation="agentpools.list",
                timeout=READ_TIMEOUT,
                query=_QUERY,
            )
        except ArmFailure as error:
            raise self._located(error) from error
        return tuple(_parse(item) for item in items)

    async def machines(self, name: str) -> tuple[Machine, ...]:
        """Return the machines of a pool, none where there is no such pool. Raises ArmFailure."""
        try:
            items = await self._session.list(
                f"{self._path(name)}/machines", operation="machines.list", timeout=READ_TIMEOUT, query=_QUERY
            )
        except ArmFailure as error:
            if _is_missing_pool(error):
                return ()
            raise self._located(error) from error
        machines = []
        for item in items:
            properties = item.get("properties")
            resource_id = properties.get("resourceId") if isinstance(properties, Mapping) else None
            # A machine without a VM yet has no resource ID, and no Node to find by it.
            if isinstance(item.get("name"), str) and isinstance(resource_id, str) and resource_id:
                machines.append(Machine(name=item["name"], provider_id=_provider_id(resource_id)))
        return tuple(machines)

    async def cluster(self) -> ManagedCluster:
        """Return what is known of the cluster. Raises ArmFailure."""
        try:
            response = await self._session.call(
                "GET",
                self._target.cluster_path,
                operation="managedclusters.get",
                timeout=READ_TIMEOUT,
                accept=(200,),
                query=_QUERY,
            )
        except ArmFailure as error:
            raise self._located(error) from error
        document = response.json()
        try:
            properties = document["properties"]
            return ManagedCluster(
                location=document["location"],
                node_resource_group=properties.get("nodeResourceGroup") or "",
                provisioning_state=properties.get("provisioningState") or "",
                power_state=(properties.get("powerState") or {}).get("code") or "",
                kubernetes_version=properties.get("currentKubernetesVersion")
                or properties.get("kubernetesVersion")
                or "",
                max_agent_pools=properties.get("maxAgentPools"),
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise unusable("it is no managed cluster") from error

    def _path(self, name: str) -> str:
        return f"{self._target.cluster_path}/agentPools/{quote(name, safe='')}"

    def _located(self, error: ArmFailure) -> ArmFailure:
        """Return the failure with the names of what was not found, where that is the cluster."""
        if error.status != 404 or error.failure.kind is not FailureClass.AUTH:
            return error
        target = self._target
        message = (
            f"No AKS cluster {target.cluster_name!r} in resource group {target.resource_group!r} of subscription "
            f"{target.subscription_id}: check AZURE_CLUSTER_NAME, ARM_RESOURCE_GROUP and ARM_SUBSCRIPTION_ID "
            f"({error.failure.code}, HTTP {error.status})."
        )
        return ArmFailure(
            replace(error.failure, message=message), outcome_unknown=error.outcome_unknown, status=error.status
        )


def _provider_id(resource_id: str) -> str:
    # As Azure's cloud provider writes it on the Node (convertResourceGroupNameToLower in its azure_utils.go). Clients
    # compare it letter by letter, and it is never rewritten on a claim.
    return "azure://" + _RESOURCE_GROUP.sub(lambda match: match.group().lower(), resource_id, count=1)


def _is_missing_pool(error: ArmFailure) -> bool:
    # AKS answers for its own children with NotFound, ARM names the whole path; for a cluster, group or subscription
    # that is not there ARM answers itself.
    if error.status != 404:
        return False
    return error.failure.code.lower() == "notfound" or "/agentpools/" in error.failure.message.lower()


def _parse(raw: Mapping[str, Any]) -> AgentPool:
    try:
        return parse_agent_pool(raw)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise unusable("it is no agent pool") from error
