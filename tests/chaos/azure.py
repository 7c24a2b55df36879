"""What Azure holds: one cluster's agent pools, their VMs, quota and capacity, and operations that end somehow.

Only the state and its rules; how requests reach it is another room's. Texts of errors are the fake Azure's, which has
them from Azure.
"""

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from fakes.azure import errors, shortages, skus
from fakes.azure.ids import ResourceIds
from fakes.azure.usages import CORES, SPOT_CORES
from provisioner.apis import names
from tests.chaos.loop import Life
from tests.chaos.world import World

Raw = dict[str, Any]

T4: Final = "Standard_NC4as_T4_v3"
A10: Final = "Standard_NC8ads_A10_v4"
A100: Final = "Standard_NC24ads_A100_v4"
A100X2: Final = "Standard_NC48ads_A100_v4"
H100: Final = "Standard_NC40ads_H100_v5"
SIZES: Final = (T4, A10, A100, A100X2, H100)

# All nodes have the newest one.
IMAGE: Final = "AKSUbuntu-2204gen2containerd-202611.04.0"
# Seconds by which a LIST is behind at most: less than the controller allows for.
_LAG: Final = 4.5


@functools.cache
def listing() -> tuple[Raw, ...]:
    """Return the sizes as Resource SKUs lists them, and what else is in that list."""
    rows = skus.listing(
        location=ResourceIds().location, odata_filter="location eq 'eastus'", restricted={}, retired=False
    )
    return tuple(row for row in rows if row["name"] in SIZES or row["resourceType"] != "virtualMachines")


@functools.cache
def sku(size: str) -> skus.Sku:
    """Return a size."""
    return skus.catalogue()[size.lower()]


@dataclass(eq=False, kw_only=True)
class Vm:
    """A VM of a pool; it is there until it is not."""

    pool: str
    number: int
    exists: bool = True


@dataclass(eq=False, kw_only=True)
class Pool:
    """An agent pool. `operation` counts what was begun with it: an operation that was overtaken changes nothing."""

    name: str
    properties: Raw
    etag: str
    first_etag: str = ""
    state: str = "Creating"
    error: Mapping[str, Any] | None = None
    operation: int = 0
    vm: Vm | None = None
    vms: int = 0
    born: float = 0.0
    # The run of the controller that was told that it has asked for it.
    told: Life | None = None
    is_foreign: bool = False
    raw: Raw = field(default_factory=dict)

    @property
    def uid(self) -> str:
        """Return whose it is by its tag."""
        return str((self.properties.get("tags") or {}).get(names.CLAIM_UID_TAG, ""))

    @property
    def size(self) -> str:
        """Return its VM size."""
        return str(self.properties["vmSize"])


class Azure:
    """The subscription. `on_vm` is told of VMs that come and go, `on_put` and `on_delete` of what is asked for."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._dice = world.dice("azure")
        self.ids = ResourceIds()
        self.pools: dict[str, Pool] = {}
        self.limits: dict[str, int] = {sku(size).family: 10_000 for size in SIZES}
        self.exhausted: set[str] = set()
        self.is_settled = True
        self.on_vm: Callable[[Pool, Vm], None] = lambda pool, vm: None
        self.on_put: Callable[[str, bool, Mapping[str, Any]], None] = lambda name, exists, body: None
        self.on_delete: Callable[[Pool], None] = lambda pool: None
        self.on_gone: Callable[[Pool], None] = lambda pool: None
        # In some histories VMs are there at once: what goes on meanwhile takes longer than they do.
        self.is_quick = self._dice.chance(0.2)
        self._etags = 0
        self._shown: list[tuple[float, tuple[Raw, ...]]] = [(0.0, ())]

    # Requests

    def cluster(self) -> Raw:
        """Answer GET of the managed cluster."""
        return {
            "id": self.ids.cluster_id,
            "name": self.ids.cluster,
            "location": self.ids.location,
            "properties": {
                "provisioningState": "Succeeded" if self.is_settled else "Updating",
                "powerState": {"code": "Running"},
                "currentKubernetesVersion": "1.34.2",
                "nodeResourceGroup": self.ids.node_resource_group,
                "maxAgentPools": 100,
            },
        }

    def put(self, name: str, headers: Mapping[str, str], body: Mapping[str, Any]) -> Raw:
        """Answer PUT of an agent pool. Raises AzureError."""
        old = self.pools.get(name)
        if old is not None and headers.get("If-None-Match") == "*":
            raise errors.precondition_failed(f"Agent pool {name} exists, and If-None-Match is *.")
        self.on_put(name, old is not None, body)
        if not self.is_settled:
            raise errors.cluster_busy("Updating")
        properties = dict(body["properties"])
        if not skus.find(properties["vmSize"]):
            raise errors.vm_size_not_supported(properties["vmSize"], self.ids.subscription, self.ids.location)
        size, spot = sku(properties["vmSize"]), properties.get("scaleSetPriority") == "Spot"
        left = self._left(size.family)
        if not spot and size.vcpus > left:
            raise shortages.family_preflight(size.family, self.ids.location, requested=size.vcpus, remaining=left)
        pool = Pool(name=name, properties=properties, etag=self._etag(), born=self._world.loop.time())
        self.pools[name] = pool
        self._world.counts["pools created"] += 1
        self._changed(pool, "is being created")
        pool.first_etag = pool.etag
        self._create(pool)
        return pool.raw

    def delete(self, name: str, headers: Mapping[str, str]) -> None:
        """Answer DELETE of an agent pool. Raises AzureError."""
        pool = self.pools.get(name)
        if pool is None:
            raise errors.pool_not_found(name, self.ids.cluster)
        wanted = headers.get("If-Match", "").strip('"')
        if wanted and wanted != pool.etag:
            raise errors.precondition_failed(f"The etag of agent pool {name} is another one.")
        self.on_delete(pool)
        if not self.is_settled:
            raise errors.cluster_busy("Updating")
        if pool.state == "Creating" and self._world.faults_on and self._dice.chance(0.15):
            raise errors.create_in_progress()
        if pool.state != "Deleting":
            self.take_down(pool)

    def listed(self) -> tuple[Raw, ...]:
        """Answer LIST of agent pools: what a replica shows that may be some seconds behind."""
        lag = self._dice.between(0.0, _LAG) if self._dice.chance(0.3) else 0.0
        moment = self._world.loop.time() - lag
        return next(shown for since, shown in reversed(self._shown) if since <= moment or since == 0.0)

    def machines(self, name: str) -> tuple[Raw, ...]:
        """Answer LIST of a pool's machines. Raises AzureError."""
        pool = self.pools.get(name)
        if pool is None:
            raise errors.pool_not_found(name, self.ids.cluster)
        if pool.vm is None or not pool.vm.exists:
            return ()
        machine, number = self.ids.node_name(name, pool.vm.number), pool.vm.number
        properties = {"resourceId": self.ids.instance_id(name, number)}
        return ({"id": self.ids.machine_id(name, machine), "name": machine, "properties": properties},)

    def upgrade_profile(self, name: str) -> Raw:
        """Answer GET of what a pool could be upgraded to. Raises AzureError."""
        if name not in self.pools:
            raise errors.pool_not_found(name, self.ids.cluster)
        return {"name": "default", "properties": {"kubernetesVersion": "1.34.2", "latestNodeImageVersion": IMAGE}}

    def usages(self) -> tuple[Raw, ...]:
        """Answer LIST of usages."""
        rows = [_usage(family, limit=limit, used=limit - self._left(family)) for family, limit in self.limits.items()]
        return (*rows, _usage(CORES, limit=100_000, used=0), _usage(SPOT_CORES, limit=100_000, used=0))

    def pools_told(self, name: str, etag: str, life: Life) -> None:
        """Note that a run of the controller was told that the pool is being created."""
        pool = self.pools.get(name)
        if pool is not None and pool.first_etag == etag:
            pool.told = life

    # What happens there

    def add_foreign(self, name: str, *, mode: str = "User") -> Pool:
        """Have a pool that somebody else has made, long ago."""
        properties = {"vmSize": T4, "count": 1, "mode": mode, "tags": {"team": "somebody"}}
        pool = Pool(name=name, properties=properties, etag=self._etag(), state="Succeeded", is_foreign=True)
        self.pools[name] = pool
        pool.vm = Vm(pool=name, number=0)
        self._changed(pool, "is a user's own")
        self.on_vm(pool, pool.vm)
        return pool

    def take_down(self, pool: Pool) -> None:
        """Begin to delete a pool, whoever wants that."""
        dice, world = self._dice, self._world
        pool.operation += 1
        pool.state, pool.error = "Deleting", None
        self._changed(pool, "is being deleted")
        seconds = dice.between(20.0, 240.0)
        if world.faults_on and dice.chance(0.08):
            seconds = dice.between(600.0, 1500.0)
            world.fault("operation stuck", f"deletion of {pool.name} for {seconds:.0f} s")
        if world.faults_on and dice.chance(0.1):
            world.fault("operation failed", f"deletion of {pool.name}")
            self._when(pool, seconds, lambda: self._fail(pool, _internal(pool.name)))
            return
        self._when(pool, seconds * dice.between(0.3, 0.9), lambda: self.lose_vm(pool))
        self._when(pool, seconds, lambda: self._gone(pool))

    def lose_vm(self, pool: Pool) -> None:
        """Have the VM of a pool vanish."""
        if pool.vm is not None and pool.vm.exists:
            pool.vm.exists = False
            self._world.trace("azure", f"the VM of {pool.name} is gone")
            self.on_vm(pool, pool.vm)

    def _create(self, pool: Pool) -> None:
        dice, world = self._dice, self._world
        seconds = dice.short(1.0, 10.0) if self.is_quick else dice.between(50.0, 300.0)
        fate = dice.between(0.0, 1.0) if world.faults_on else 1.0
        if world.faults_on and dice.chance(0.08):
            seconds = dice.between(600.0, 1500.0)
            world.fault("operation stuck", f"creation of {pool.name} for {seconds:.0f} s")
        size = sku(pool.size)
        error: Mapping[str, Any] | None = None
        if pool.size in self.exhausted or fate < 0.06:
            error = shortages.allocation_failed().error
        elif fate < 0.1:
            cores = {"limit": 100, "usage": 90, "required": size.vcpus}
            error = shortages.quota_exceeded(size.family, self.ids.location, **cores).error
        elif fate < 0.16:
            error = _internal(pool.name)
        if error is not None:
            world.fault("operation failed", f"creation of {pool.name}: {error['code']}")
            if dice.chance(0.2):
                # The VM was there before something else has failed.
                self._when(pool, seconds * 0.5, lambda: self._add_vm(pool))
            self._when(pool, seconds, lambda: self._fail(pool, error))
            return
        earliest = 0.1 if self.is_quick else 15.0
        self._when(pool, dice.between(earliest, 0.9 * min(seconds, 400.0)), lambda: self._add_vm(pool))
        self._when(pool, seconds, lambda: self._succeed(pool))

    def _when(self, pool: Pool, delay: float, action: Callable[[], None]) -> None:
        operation = pool.operation

        def act() -> None:
            if pool.operation == operation and self.pools.get(pool.name) is pool:
                action()

        self._world.after(delay, act)

    def _add_vm(self, pool: Pool) -> None:
        # AKS numbers the VMs of each pool from 0, also of a later pool of the same name.
        pool.vm = Vm(pool=pool.name, number=pool.vms)
        pool.vms += 1
        self.on_vm(pool, pool.vm)

    def _succeed(self, pool: Pool) -> None:
        pool.state = "Succeeded"
        self._changed(pool, "is done")

    def _fail(self, pool: Pool, error: Mapping[str, Any]) -> None:
        pool.state, pool.error = "Failed", error
        self._changed(pool, f"has failed: {error['code']}")

    def _gone(self, pool: Pool) -> None:
        self.lose_vm(pool)
        del self.pools[pool.name]
        self.on_gone(pool)
        self._show(f"{pool.name} is gone")

    def _changed(self, pool: Pool, text: str) -> None:
        pool.etag = self._etag()
        shown = {
            **pool.properties,
            "provisioningState": pool.state,
            "eTag": pool.etag,
            "nodeImageVersion": IMAGE,
            **({"status": {"provisioningError": dict(pool.error)}} if pool.error else {}),
        }
        pool.raw = {"id": self.ids.pool_id(pool.name), "name": pool.name, "properties": shown}
        self._show(f"{pool.name} {text}")

    def _show(self, text: str) -> None:
        self._world.trace("azure", text)
        now = self._world.loop.time()
        self._shown.append((now, tuple(pool.raw for pool in self.pools.values())))
        if len(self._shown) > 64:
            self._shown = [(0.0, self._shown[32][1]), *self._shown[33:]]

    def _left(self, family: str) -> int:
        used = sum(sku(pool.size).vcpus for pool in self.pools.values() if sku(pool.size).family == family)
        return self.limits[family] - used

    def _etag(self) -> str:
        self._etags += 1
        return f"etag-{self._etags}"


def _usage(name: str, *, limit: int, used: int) -> Raw:
    return {"limit": limit, "unit": "Count", "currentValue": used, "name": {"value": name, "localizedValue": name}}


def _internal(name: str) -> Mapping[str, Any]:
    text = f"Reconcile VMSS agent pool {name} failed: an internal error occurred."
    return errors.error("ReconcileVMSSAgentPoolFailed", text)
