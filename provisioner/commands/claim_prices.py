"""What claims cost an hour: from the public price list where it answers, else as it is built in."""

from collections.abc import Iterable
from decimal import Decimal
from typing import Final

from provisioner.apis import names
from provisioner.apis.nodeclaim import NodeClaim
from provisioner.azure.prices import Prices
from provisioner.commands.phases import ClaimStatus, claim_status
from provisioner.commands.price_list import learn_prices, make_prices
from provisioner.placement.sizes import KnownSizes, NothingListed
from provisioner.settings import SettingError

# Seconds. Prices are a help, the state of the claims is what was asked for.
_PATIENCE: Final = 5.0


class ClaimPrices:
    """Prices of the claims' region, which their labels tell once they are launched."""

    def __init__(self, *, endpoint: str) -> None:
        """Take where prices are read, empty where they are not."""
        self._endpoint = endpoint
        self._prices: Prices | None = None
        self._sizes = KnownSizes(NothingListed())

    async def learn(self, claims: Iterable[NodeClaim]) -> None:
        """Read the prices of the claims' region once it is known. Never fails: what is built in serves as well."""
        known = list(claims)
        region = next((r for r in (claim.labels.get(names.REGION_LABEL) for claim in known) if r), "")
        if self._prices is not None or not region or not self._endpoint:
            return
        try:
            self._prices = make_prices(region, endpoint=self._endpoint)
        except SettingError:
            # The label is whatever somebody wrote: it is asked for once again with the next look.
            return
        every_size = any(not self._sizes.find(claim_status(claim).size) for claim in known)
        await learn_prices(self._prices, every_size=every_size, patience=_PATIENCE)
        self._sizes = KnownSizes(NothingListed(), prices=self._prices)

    def of(self, status: ClaimStatus) -> Decimal | None:
        """Return US dollars an hour, None where that is not known."""
        spot = status.capacity_type == names.CAPACITY_TYPE_SPOT
        size = self._sizes.find(status.size)
        if size is not None:
            return size.spot_price if spot else size.price
        return self._prices.price(status.size, spot=spot) if self._prices else None
