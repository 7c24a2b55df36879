"""What is learned about the cluster and its region: where it is, which VM sizes exist there and what they cost."""

import asyncio
import logging
import random
from collections.abc import Callable
from typing import Final

from provisioner.apis.failure import Failure, FailureClass
from provisioner.azure.agentpools import AgentPools, ArmFailure, ManagedCluster
from provisioner.azure.prices import Prices, PricesUnavailable
from provisioner.azure.skus import SkuCatalogue
from provisioner.placement.sizes import KnownSizes, NothingListed
from provisioner.settings import SettingError

_log: Final = logging.getLogger(__name__)

# Azure adds and retires sizes by the month; Karpenter reads its list as often.
_SKUS_EVERY: Final = 12 * 3600.0
_SKUS_RETRY: Final = 600.0
# Prices change by the month, and those that are built in serve as well while there are none.
_PRICES_EVERY: Final = 12 * 3600.0
_PRICES_RETRY: Final = 3600.0
# The cluster changes by hand, or by an upgrade of its maintenance window; one that is on its way is over in minutes.
_CLUSTER_EVERY: Final = 3600.0
_CLUSTER_UNSETTLED_EVERY: Final = 300.0
_NOT_FOUND: Final = 404
_FIRST_PAUSE: Final = 1.0
_LONGEST_PAUSE: Final = 60.0


class Region:
    """Location, VM sizes and prices, once `run` has learned them.

    `tried` is set when Azure was asked, in vain or not; `located` when it has told where the cluster is.
    """

    def __init__(
        self,
        *,
        arm: AgentPools,
        sizes_of: Callable[[str], SkuCatalogue],
        prices_of: Callable[[str], Prices],
        on_news: Callable[[], None],
    ) -> None:
        """Take the gateway, makers of a location's lists, and whom to tell when something was learned."""
        self._arm = arm
        self._sizes_of = sizes_of
        self._prices_of = prices_of
        self._on_news = on_news
        self._cluster: ManagedCluster | None = None
        self._is_cluster_fresh = False
        self._failure: Failure | None = None
        self._skus_tried = False
        self.tried = asyncio.Event()
        self.located = asyncio.Event()
        self.sizes = KnownSizes(NothingListed())

    @property
    def location(self) -> str:
        """Return the cluster's Azure location, empty while it is not known."""
        return self._cluster.location if self._cluster else ""

    @property
    def kubernetes_version(self) -> str:
        """Return the version of the control plane, empty while it is not known or may be about to change."""
        cluster = self._cluster
        return cluster.kubernetes_version if cluster is not None and cluster.is_settled_running else ""

    def note(self, cluster: ManagedCluster) -> None:
        """Take over what somebody else has just read of the cluster: it need not be read again so soon."""
        before, self._cluster, self._is_cluster_fresh = self.kubernetes_version, cluster, True
        if self.kubernetes_version != before:
            self._on_news()

    @property
    def is_known(self) -> bool:
        """Tell whether the cluster was read, and Azure asked for its list of sizes whatever came of it."""
        return self._cluster is not None and self._skus_tried

    @property
    def failure(self) -> Failure | None:
        """Return why the cluster could not be read, None where it was or was not tried yet."""
        return self._failure

    async def run(self) -> None:
        """Learn, then keep the list of sizes fresh, until cancelled.

        Raises SettingError where Azure knows no such cluster.
        """
        pause = _FIRST_PAUSE
        while self._cluster is None:
            try:
                self._cluster = await self._arm.cluster()
            except ArmFailure as error:
                if error.status == _NOT_FOUND:
                    # Nothing that waiting mends: better one line at the start than a controller that does nothing.
                    raise SettingError(error.failure.message) from error
                _log.warning("the AKS cluster cannot be read", extra={"error": error.failure.message})
                self.tried.set()
                if self._failure is None or self._failure.kind is not error.failure.kind:
                    # Claims that wait say why.
                    self._failure = error.failure
                    self._on_news()
                await asyncio.sleep(max(pause, error.failure.retry_after or 0.0))
                pause = min(pause * 2, _LONGEST_PAUSE)
        self.tried.set()
        self.located.set()
        self._failure = None
        listed, prices = self._sizes_of(self._cluster.location), self._prices_of(self._cluster.location)
        self.sizes = KnownSizes(listed, prices=prices)
        async with asyncio.TaskGroup() as group:
            group.create_task(self._keep_sizes(listed))
            group.create_task(self._keep_prices(prices))
            group.create_task(self._keep_cluster())

    async def _keep_cluster(self) -> None:
        age = 0.0
        while True:
            self._is_cluster_fresh = False
            await asyncio.sleep(_CLUSTER_UNSETTLED_EVERY)
            age = 0.0 if self._is_cluster_fresh else age + _CLUSTER_UNSETTLED_EVERY
            if self._is_cluster_fresh or (self.kubernetes_version and age < _CLUSTER_EVERY):
                continue
            age = 0.0
            try:
                self.note(await self._arm.cluster())
            except ArmFailure as error:
                _log.info("the AKS cluster was not read again", extra={"error": error.failure.message})

    async def _keep_sizes(self, listed: SkuCatalogue) -> None:
        while True:
            pause = await self._learn_sizes(listed)
            await asyncio.sleep(pause)

    async def _keep_prices(self, prices: Prices) -> None:
        while prices.is_on:
            try:
                await prices.refresh()
            except PricesUnavailable as error:
                _log.info("no current prices; those that are built in are used", extra={"error": str(error)})
                pause = _PRICES_RETRY
            else:
                pause = _PRICES_EVERY
            # Public and anonymous: not all controllers of the world at the same minute.
            await asyncio.sleep(pause * (1 + random.random() / 10))  # noqa: S311 -- spreads load, guards nothing

    async def _learn_sizes(self, listed: SkuCatalogue) -> float:
        try:
            await listed.refresh()
        except ArmFailure as error:
            hint = (
                " Grant Microsoft.Compute/skus/read on the subscription to have misspelled sizes found before Azure is "
                "asked for them."
                if error.failure.kind is FailureClass.AUTH
                else ""
            )
            _log.warning(
                "Azure's list of VM sizes cannot be read; sizes are not checked.%s",
                hint,
                extra={"error": error.failure.message},
            )
            pause = _SKUS_RETRY
        else:
            pause = _SKUS_EVERY
        self._skus_tried = True
        self._on_news()
        return pause
