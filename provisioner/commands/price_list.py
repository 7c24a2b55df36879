"""Azure's public price list, read for as long as a person waits."""

import asyncio
import time
from typing import Final

from provisioner.azure.prices import Prices, PricesUnavailable
from provisioner.settings import SettingError

# Seconds. The list of GPU sizes' prices comes within a few, that of all sizes within about 40; a person waits for the
# first.
_PRICE_PATIENCE: Final = 15.0
_ALL_PRICES_PATIENCE: Final = 90.0
_LOOK: Final = 0.05
_OLD_PRICES: Final = "the prices shown are those of East US in June 2026."


def make_prices(location: str, *, endpoint: str) -> Prices:
    """Return the region's price list, not read yet. Raises SettingError."""
    try:
        return Prices(location=location, endpoint=endpoint, clock=time.monotonic)
    except ValueError as error:
        raise SettingError(f"PRICING_ENDPOINT is wrong: {error}") from error


async def learn_prices(prices: Prices, *, every_size: bool, patience: float | None = None) -> str:
    """Read prices for as long as a person waits, those of the GPU sizes alone unless `every_size`.

    Returns what there is to say about it, nothing where all went well.
    """
    if not prices.is_on:
        return f"no price list is read here; {_OLD_PRICES}"
    reading = asyncio.create_task(prices.refresh())
    try:
        async with asyncio.timeout(patience or (_ALL_PRICES_PATIENCE if every_size else _PRICE_PATIENCE)):
            # The GPU sizes come first and count from then on.
            while not reading.done() and (every_size or not prices.epoch):
                await asyncio.wait([reading], timeout=_LOOK)
        if reading.done():
            await reading
    except (PricesUnavailable, TimeoutError) as error:
        why = str(error) or "it takes too long"
        if prices.epoch:
            return f"the price list could not be read to its end: {why}."
        return f"the price list could not be read ({why}); {_OLD_PRICES}"
    finally:
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)
    return ""
