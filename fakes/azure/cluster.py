"""The managed cluster and its agent pools: a state machine over simulated time that knows nothing of HTTP.

What AKS does when requests meet is in https://learn.microsoft.com/troubleshoot/azure/azure-kubernetes/ under
`operationnotallowed` and `aksoperationpreempted`: an operation on the cluster blocks all pools, one on a pool blocks
that pool, and a DELETE preempts whatever runs on its pool.
"""

import asyncio
import uuid
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, Literal

from fakes.azure import errors, rules, schema, skus
from fakes.azure.clock import Timeline
from fakes.azure.etags import Conditions
from fakes.azure.fleet import Fleet
from fakes.azure.ids import ResourceIds, find_id
from fakes.azure.machines import Machine, machine
from fakes.azure.operations import Kind, Operation, Operations
from fakes.azure.outcomes import Fate, Outcome
from fakes.azure.pools import Instance, Pool, complete, merge, node_version
from fakes.azure.settings import Settings
from fakes.azure.shortages import ShortageError
from fakes.azure.skus import Sku

PowerState = Literal["Running", "Stopped"]

# The provisioningState of a pool while an operation runs on it.
_STATE: Final[Mapping[Kind, str]] = {
    "Creating": "Creating",
    "Updating": "Updating",
    "Scaling": "Scaling",
    "Deleting": "Deleting",
    "DeletingMachines": "Scaling",
}
_RESERVATION: Final = "capacityReservationGroupID"


class Cluster:
    """One AKS managed cluster. It starts with the pool `systempool`, as `az aks create` leaves it."""

    def __init__(
        self,
        ids: ResourceIds,
        *,
        settings: Settings,
        timeline: Timeline,
        fate: Fate,
        kubernetes_version: str,
    ) -> None:
        self.ids = ids
        self.settings = settings
        self.timeline = timeline
        self.kubernetes_version = kubernetes_version
        self.provisioning_state = "Succeeded"
        self.power_state: PowerState = "Running"
        self.etag = str(uuid.uuid4())
        self.pools: dict[str, Pool] = {}
        self.operations = Operations()
        self.fleet = Fleet(self.pools, settings=settings, region=ids.location, now=timeline.now)
        self._fate = fate
        self._revision = 0
        self._changed = asyncio.Event()
        self._add_system_pool()

    def _add_system_pool(self) -> None:
        # Past all checks: it was there before quotas and restrictions became what they are now.
        sku = skus.catalogue()["standard_d4s_v5"]
        wish: dict[str, Any] = {"mode": "System", "vmSize": sku.name}
        if self.settings.subnets:
            wish["vnetSubnetID"] = self.settings.subnets[0]
        pool = self._make_pool("systempool", wish, sku=sku)
        pool.state, pool.created = "Succeeded", True
        self.pools[pool.name] = pool
        self.fleet.found(pool)

    def _make_pool(self, name: str, wish: Mapping[str, Any], *, sku: Sku) -> Pool:
        properties = complete(wish, sku=sku, kubernetes_version=self.kubernetes_version)
        return Pool(
            name=name,
            sku=sku,
            properties=properties,
            version=self._node_version(properties),
            image_release=self.settings.node_image_release,
        )

    def _new_pool(self, name: str, wish: Mapping[str, Any]) -> Pool:
        sku = rules.check(self._request(name, wish, existing=None))
        self._check_free(name)
        subnet = next((found for other in self.pools.values() if (found := _subnet_of(other))), None)
        if subnet and not wish.get("vnetSubnetID"):
            wish = {**wish, "vnetSubnetID": subnet}
        if not self._is_reserved(wish):
            # With a warning and without the group, as documented:
            # https://learn.microsoft.com/azure/aks/use-capacity-reservation-groups.
            wish = {name: value for name, value in wish.items() if name != _RESERVATION}
        pool = self._make_pool(name, wish, sku=sku)
        self.fleet.preflight(pool, count=pool.count)
        self.pools[name] = pool
        return pool

    def _is_reserved(self, wish: Mapping[str, Any]) -> bool:
        groups = self.settings.capacity_reservation_groups
        found = find_id(wish.get(_RESERVATION) or "", groups)
        size = str(wish.get("vmSize")).lower()
        places = {f"{size}/{zone}" for zone in wish.get("availabilityZones") or ()} or {size}
        return found is not None and any(each.lower() in places for each in groups[found])

    def _change_pool(self, pool: Pool, wish: Mapping[str, Any]) -> None:
        rules.check(self._request(pool.name, wish, existing=pool))
        self._check_free(pool.name)
        merged = merge(pool.properties, wish)
        properties = complete(merged, sku=pool.sku, kubernetes_version=self.kubernetes_version)
        self.fleet.preflight(pool, count=properties["count"])
        pool.properties = properties
        pool.version = self._node_version(pool.properties)

    def _node_version(self, properties: Mapping[str, Any]) -> str:
        return node_version(properties["orchestratorVersion"], kubernetes_version=self.kubernetes_version)

    # --- what there is

    def pool(self, name: str) -> Pool:
        """Return the pool of that name. Raises 404."""
        pool = self.pools.get(name.lower())
        if pool is None:
            raise errors.pool_not_found(name, self.ids.cluster)
        return pool

    def machines(self) -> list[Machine]:
        """Return the VMs that exist at this moment; a stopped cluster has none."""
        self.timeline.advance()
        if self.power_state == "Stopped":
            return []
        return [machine(pool, instance, self.ids) for pool in self.pools.values() for instance in pool.instances]

    @property
    def revision(self) -> int:
        """Grows with every change of the cluster, its pools and its machines."""
        self.timeline.advance()
        return self._revision

    async def wait_changed(self, since: int) -> int:
        """Return the revision as soon as it is greater than `since`."""
        while self.revision <= since:
            await self._changed.wait()
        return self._revision

    def _change(self) -> None:
        self._revision += 1
        # A fresh event for later waiters: one that is cleared at once may miss those who have yet to be scheduled.
        self._changed.set()
        self._changed = asyncio.Event()

    # --- what is asked of it

    def set_state(
        self,
        *,
        provisioning_state: str | None = None,
        power_state: PowerState | None = None,
        kubernetes_version: str | None = None,
    ) -> None:
        """Put the cluster as a whole into a state, as `az aks stop`, `start` or an upgrade would.

        The version is that of the control plane alone: the nodes of pools that there are keep theirs.
        """
        self.kubernetes_version = kubernetes_version or self.kubernetes_version
        self.provisioning_state = provisioning_state or self.provisioning_state
        self.power_state = power_state or self.power_state
        self.etag = str(uuid.uuid4())
        for pool in self.pools.values():
            pool.power_state = self.power_state
            pool.touch()
        self._change()

    def put_pool(
        self, name: str, properties: Mapping[str, Any], *, conditions: Conditions | None = None
    ) -> tuple[Pool, Operation, bool]:
        """Create or update a pool. Returns the pool, the operation, and whether the pool is new.

        Raises AzureError: 400 for what the rules forbid, 409 while the pool or the cluster is busy, 412.
        """
        self.timeline.advance()
        existing = self.pools.get(name)
        (conditions or Conditions()).check_put(existing.etag if existing else None)
        wish = schema.decode(properties)
        if existing is None:
            pool = self._new_pool(name, wish)
            return pool, self._create(pool), True
        before = existing.count
        self._change_pool(existing, wish)
        if not existing.created:
            return existing, self._create(existing), False
        kind: Kind = "Updating" if existing.count == before else "Scaling"
        return existing, self._update(existing, kind), False

    def delete_pool(self, name: str, *, conditions: Conditions | None = None) -> Operation | None:
        """Delete a pool, preempting what runs on it. Returns None where there is none.

        Raises AzureError: 409 for the last System pool, a pool that is being deleted, a busy cluster; 412.
        """
        self.timeline.advance()
        pool = self.pools.get(name.lower())
        if pool is None:
            return None
        (conditions or Conditions()).check_delete(pool.etag)
        if pool.is_system and not any(other.stays_system for other in self.pools.values() if other is not pool):
            raise errors.last_system_pool()
        preempted = pool.busy
        if preempted is not None and preempted.kind != "Deleting":
            self._check_free(pool.name, preempting=preempted)
            preempted.end("Failed", error=errors.preempted_by_delete())
        else:
            self._check_free(pool.name)
        seconds = self.settings.delete_seconds
        return self._begin(
            pool,
            "Deleting",
            operation_name="agentPools.delete",
            seconds=seconds,
            machines_after=min(self.settings.vm_delete_seconds, seconds),
            machines=lambda: self._drop_instances(pool, pool.instances),
            success=lambda: self._drop_pool(pool),
        )

    def delete_machines(self, name: str, names: Iterable[str]) -> Operation:
        """Delete machines of a pool and lower its count by as many. Names that are not there are passed over.

        Raises AzureError: 400 when none is there or a System pool would be empty, 404, 409.
        """
        self.timeline.advance()
        pool = self.pool(name)
        valid = {self.ids.node_name(pool.name, instance.index).lower(): instance for instance in pool.instances}
        doomed = {valid[wanted.lower()] for wanted in names if wanted.lower() in valid}
        if not doomed:
            raise errors.no_machines_to_delete(pool.name, sorted(valid))
        if pool.is_system and len(doomed) >= pool.count:
            raise errors.last_system_pool()
        self._check_free(pool.name)

        def drop() -> None:
            pool.properties["count"] = max(pool.count - len(doomed), 0)
            self._drop_instances(pool, doomed)

        seconds = self.settings.delete_machines_seconds
        return self._begin(
            pool,
            "DeletingMachines",
            operation_name="agentPools.deleteMachines",
            seconds=seconds,
            machines_after=min(self.settings.vm_delete_seconds, seconds),
            machines=drop,
            success=lambda: self._succeed(pool),
        )

    def lose_machine(self, name: str) -> bool:
        """Take one VM away as an eviction or a hardware failure does; the pool does not notice. False if unknown."""
        self.timeline.advance()
        for pool in self.pools.values():
            for instance in pool.instances:
                if self.ids.node_name(pool.name, instance.index) == name:
                    # Whoever took it has it: the region has no more to give than before.
                    self._drop_instances(pool, [instance], returned=False)
                    return True
        return False

    # --- when it is busy

    def _check_free(self, name: str, *, preempting: Operation | None = None) -> None:
        if self.power_state == "Stopped":
            raise errors.cluster_stopped(self.ids.subscription, self.ids.resource_group)
        if self.provisioning_state not in ("Succeeded", "Failed", "Canceled"):
            raise errors.cluster_busy(self.provisioning_state)
        running = [pool.busy for pool in self.pools.values() if pool.busy is not None and pool.busy is not preempting]
        for operation in running:
            if operation.pool == name:
                if operation.kind == "Creating":
                    raise errors.create_in_progress()
                raise errors.pool_busy(name, _STATE[operation.kind])
        bound = 1 if self.settings.serialise_pool_operations else self.settings.max_parallel_pool_operations
        if bound is not None and len(running) >= bound:
            raise errors.pool_busy(running[0].pool, _STATE[running[0].kind])

    # --- operations

    def _create(self, pool: Pool) -> Operation:
        seconds = self.settings.create_seconds
        return self._begin(
            pool,
            "Creating",
            operation_name="agentPools.put",
            seconds=seconds,
            machines_after=min(self.settings.vm_seconds, seconds),
            machines=lambda: self._add_instances(pool),
            success=lambda: self._succeed(pool),
        )

    def _update(self, pool: Pool, kind: Kind) -> Operation:
        growing = pool.count > len(pool.instances)
        seconds = self.settings.create_seconds if growing else self.settings.update_seconds

        def match_count() -> None:
            surplus = sorted(pool.instances, key=lambda instance: instance.index)[pool.count :]
            if surplus:
                self._drop_instances(pool, surplus)
            self._add_instances(pool)

        delay = self.settings.vm_seconds if growing else self.settings.vm_delete_seconds
        return self._begin(
            pool,
            kind,
            operation_name="agentPools.put",
            seconds=seconds,
            machines_after=min(delay, seconds),
            machines=match_count,
            success=lambda: self._succeed(pool),
        )

    def _begin(
        self,
        pool: Pool,
        kind: Kind,
        *,
        operation_name: str,
        seconds: float,
        machines_after: float,
        machines: Callable[[], None],
        success: Callable[[], None],
    ) -> Operation:
        operation = self.operations.add(Operation(pool=pool.name, kind=kind))
        pool.operation, pool.state, pool.error = operation, _STATE[kind], None
        outcome = self._fate(operation_name, pool=pool.name)
        plan = operation.planned
        if outcome is None or outcome.machines:

            def act() -> None:
                try:
                    machines()
                except ShortageError as shortage:
                    self._fall_short(pool, operation, shortage, elapsed=machines_after)

            plan.append(self.timeline.after(machines_after, act))
        if outcome is None:
            plan.append(self.timeline.after(seconds, success))
        elif outcome.status != "Stuck":
            after = seconds if outcome.after is None else outcome.after
            plan.append(self.timeline.after(after, lambda: self._fail(pool, operation, outcome)))
        pool.touch()
        self._change()
        return operation

    def _succeed(self, pool: Pool) -> None:
        pool.state, pool.created = "Succeeded", True
        if pool.operation is not None:
            pool.operation.end("Succeeded")
        pool.touch()
        self._change()

    def _fail(self, pool: Pool, operation: Operation, outcome: Outcome) -> None:
        # A failed create leaves the pool behind; it counts to the limit until somebody deletes it.
        status: Literal["Failed", "Canceled"] = "Canceled" if outcome.status == "Canceled" else "Failed"
        pool.state, pool.error = status, outcome.error
        operation.end(status, error=outcome.error)
        pool.touch()
        self._change()

    def _fall_short(self, pool: Pool, operation: Operation, shortage: ShortageError, *, elapsed: float) -> None:
        # What would have come of it otherwise does not: neither success nor the fault that was to end it later.
        for due in operation.planned:
            due.cancel()
        seconds = max(self.settings.allocation_failure_seconds - elapsed, 0.0) if shortage.slow else 0.0
        outcome = Outcome(status="Failed", error=shortage.error)
        operation.planned.append(self.timeline.after(seconds, lambda: self._fail(pool, operation, outcome)))

    def _drop_pool(self, pool: Pool) -> None:
        del self.pools[pool.name]
        self.fleet.shrink(pool, pool.instances)
        if pool.operation is not None:
            pool.operation.end("Succeeded")
        self._change()

    # --- machines

    def _add_instances(self, pool: Pool) -> None:
        self.fleet.grow(pool)
        pool.touch()
        self._change()

    def _drop_instances(self, pool: Pool, doomed: Iterable[Instance], *, returned: bool = True) -> None:
        self.fleet.shrink(pool, doomed, returned=returned)
        pool.touch()
        self._change()

    def _request(self, name: str, wish: Mapping[str, Any], *, existing: Pool | None) -> rules.PutRequest:
        return rules.PutRequest(
            name=name,
            wish=wish,
            existing=existing,
            others=tuple(pool for pool in self.pools.values() if pool is not existing),
            ids=self.ids,
            settings=self.settings,
            kubernetes_version=self.kubernetes_version,
        )

    # --- as ARM shows it

    def upgrade_profile(self, name: str) -> dict[str, Any]:
        """Return what a pool can be upgraded to. Raises 404."""
        return self.pool(name).upgrade_profile(
            self.ids,
            kubernetes_version=self.kubernetes_version,
            image_release=self.settings.node_image_release,
        )

    def resource(self) -> dict[str, Any]:
        """Return the managed cluster as a GET does."""
        self.timeline.advance()
        ids = self.ids
        host = f"{ids.cluster}-dns-{uuid.uuid5(uuid.NAMESPACE_URL, ids.cluster_id).hex[:8]}"
        return {
            "id": ids.cluster_id,
            "name": ids.cluster,
            "type": "Microsoft.ContainerService/managedClusters",
            "location": ids.location,
            "eTag": self.etag,
            "sku": {"name": "Base", "tier": "Standard"},
            "properties": {
                "provisioningState": self.provisioning_state,
                "powerState": {"code": self.power_state},
                "kubernetesVersion": self.kubernetes_version,
                "currentKubernetesVersion": self.kubernetes_version,
                "dnsPrefix": f"{ids.cluster}-dns",
                "fqdn": f"{host}.hcp.{ids.location}.azmk8s.io",
                "azurePortalFQDN": f"{host}.portal.hcp.{ids.location}.azmk8s.io",
                "agentPoolProfiles": [{"name": pool.name, **pool.profile()} for pool in self.pools.values()],
                "nodeResourceGroup": ids.node_resource_group,
                "maxAgentPools": self.settings.max_agent_pools,
                "enableRBAC": True,
                "oidcIssuerProfile": {"enabled": True},
                "networkProfile": {"networkPlugin": "azure", "loadBalancerSku": "standard"},
            },
        }


def _subnet_of(pool: Pool) -> str | None:
    return pool.properties.get("vnetSubnetID")
