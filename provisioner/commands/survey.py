"""What Azure tells of a region, asked once and side by side: sizes, prices, quotas, and the cluster's agent pools."""

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from provisioner.apis.agentpool import AgentPool
from provisioner.apis.failure import FailureClass
from provisioner.apis.quota import Usage
from provisioner.azure.agentpools import AgentPools, ArmFailure, ManagedCluster
from provisioner.azure.session import AzureSession
from provisioner.azure.skus import SkuCatalogue, region_name
from provisioner.azure.usages import Usages
from provisioner.commands.exits import Trouble
from provisioner.commands.price_list import learn_prices, make_prices
from provisioner.placement.size import Size
from provisioner.placement.sizes import KnownSizes

# How Compute answers for a region that it is not in.
_NO_SUCH_REGION: Final = "noregisteredproviderfound"


@dataclass(frozen=True, kw_only=True)
class Survey:
    """The answers. `usages` are by lower-case name, None where Azure does not give them; `notes` say what is missing.

    `cluster` is None where another region than the cluster's was asked for; `pools` are there where they were wanted.
    """

    location: str
    sizes: KnownSizes
    usages: Mapping[str, Usage] | None
    cluster: ManagedCluster | None = None
    pools: tuple[AgentPool, ...] = ()
    notes: tuple[str, ...] = ()

    def size(self, name: str) -> Size:
        """Return the size of that name. Raises Trouble."""
        size = self.sizes.find(name)
        if size is None:
            raise Trouble(f"{name}: no VM size of that name in {self.location}; `provisioner skus --all` lists them.")
        return size


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What to ask for. `all_prices` waits for those of sizes without a GPU too.

    Without sizes or usages that are needed there is no survey; without others there is one with a note.
    """

    region: str = ""
    pools: bool = False
    prices: bool = True
    all_prices: bool = False
    needs_sizes: bool = False
    needs_usages: bool = False


async def survey(session: AzureSession, *, prices_at: str, wanted: Wanted) -> Survey:
    """Ask. `prices_at` is the endpoint of the price list, empty without one. Raises ArmFailure, Trouble."""
    arm = AgentPools(session)
    cluster = None if wanted.region else await arm.cluster()
    location = region_name(cluster.location if cluster else wanted.region)
    catalogue = SkuCatalogue(session, location=location, clock=time.monotonic)
    usages = Usages(session, location=location, clock=time.monotonic)
    prices = make_prices(location, endpoint=prices_at if wanted.prices else "")
    notes: list[str] = []
    pools: tuple[AgentPool, ...] = ()
    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(_sizes(catalogue, is_needed=wanted.needs_sizes, notes=notes))
            counted = group.create_task(_usages(usages, is_needed=wanted.needs_usages, notes=notes))
            priced = group.create_task(learn_prices(prices, every_size=wanted.all_prices))
            listed = group.create_task(arm.list()) if wanted.pools else None
    except ExceptionGroup as failures:
        error = _first(failures)
        if isinstance(error, ArmFailure) and error.failure.code.lower() == _NO_SUCH_REGION:
            raise _no_region(location) from None
        raise error from None
    if listed is not None:
        pools = listed.result()
    if wanted.prices and (told := priced.result()):
        notes.append(told)
    if wanted.region and catalogue.age is not None and not catalogue.names():
        raise _no_region(location)
    return Survey(
        location=location,
        sizes=KnownSizes(catalogue, prices=prices),
        usages=usages.by_name if counted.result() else None,
        cluster=cluster,
        pools=pools,
        notes=tuple(notes),
    )


async def _sizes(catalogue: SkuCatalogue, *, is_needed: bool, notes: list[str]) -> None:
    try:
        await catalogue.refresh()
    except ArmFailure as error:
        if is_needed:
            raise
        notes.append(f"Azure's list of VM sizes cannot be read, those that are built in serve: {_told(error, 'skus')}")


async def _usages(usages: Usages, *, is_needed: bool, notes: list[str]) -> bool:
    try:
        await usages.refresh()
    except ArmFailure as error:
        if is_needed:
            raise
        notes.append(f"quota cannot be read, and Azure alone knows it: {_told(error, 'locations/usages')}")
        return False
    return True


def _no_region(location: str) -> Trouble:
    return Trouble(f"--region {location}: Azure lists no VM sizes there; `az account list-locations` has the regions.")


def _told(error: ArmFailure, what: str) -> str:
    grant = f" Grant Microsoft.Compute/{what}/read on the subscription." if _is_refused(error) else ""
    return f"{error.failure.message}{grant}"


def _is_refused(error: ArmFailure) -> bool:
    return error.failure.kind is FailureClass.AUTH


def _first(failures: ExceptionGroup[Exception]) -> Exception:
    """Return one failure of several: they were asked side by side, and one reason is enough."""
    error = failures.exceptions[0]
    return _first(error) if isinstance(error, ExceptionGroup) else error
