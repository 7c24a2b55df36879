"""Whether a VM size that does for a claim can be had now."""

from typing import Final, NamedTuple

from provisioner.apis.failure import Failure, FailureClass
from provisioner.placement.ask import Zone
from provisioner.placement.market import REGIONAL_ZONE, Because, LeftOut, Market, OfferKey, Remembered
from provisioner.placement.size import Size


class Available(NamedTuple):
    """The size can be had in these zones, or regionally without any; it failed lately where all of that did."""

    zones: tuple[Zone, ...]
    failed_lately: bool


_REGIONAL: Final = (REGIONAL_ZONE,)
_ANYWHERE: Final = Available((), failed_lately=False)


def look(size: Size, *, capacity_type: str, zones: tuple[Zone, ...], market: Market) -> Available | LeftOut:
    """Return where in these zones the size can be had, regionally without any, or why not."""
    if size.restriction:
        failure = Failure(kind=FailureClass.SKU_RESTRICTED, message=size.restriction)
        return _left_out(size, capacity_type, Because.RESTRICTED, failure)
    if size.zones is not None and zones:
        asked = tuple(zone.number for zone in zones)
        zones = tuple(zone for zone in zones if zone.number in size.zones)
        if not zones:
            failure = Failure(kind=FailureClass.ZONE, message=_not_there(size, asked=asked), zones=asked)
            return _left_out(size, capacity_type, Because.ZONE, failure)
    shortage = market.quota.shortage(size, capacity_type=capacity_type)
    if shortage is not None:
        failure = Failure(kind=FailureClass.QUOTA, message=shortage.message, shortage=shortage)
        return _left_out(size, capacity_type, Because.QUOTA, failure)
    return _unless_failed(size, capacity_type, zones=zones, market=market)


def _unless_failed(size: Size, capacity_type: str, *, zones: tuple[Zone, ...], market: Market) -> Available | LeftOut:
    name = size.name.lower()
    remembered: dict[str, Remembered] = {}
    numbers = tuple(zone.number for zone in zones) if zones else _REGIONAL
    for number in numbers:
        last = market.memory.recall(OfferKey(size=name, zone=number, capacity_type=capacity_type))
        if last is not None and market.now < last.forgotten_at:
            remembered[number] = last
    if not remembered:
        return Available(zones, failed_lately=False) if zones else _ANYWHERE
    blocked = {number: last for number, last in remembered.items() if market.now < last.until}
    if len(blocked) == len(numbers):
        first = min(blocked.values(), key=lambda last: last.until)
        return LeftOut(
            size=size.name,
            because=Because.FAILED,
            message=first.failure.message,
            capacity_type=capacity_type,
            failure=first.failure,
            until=first.until,
        )
    free = tuple(zone for zone in zones if zone.number not in blocked)
    return Available(free, failed_lately=all(number in remembered for number in numbers if number not in blocked))


def _left_out(size: Size, capacity_type: str, because: Because, failure: Failure) -> LeftOut:
    return LeftOut(
        size=size.name, because=because, message=failure.message, capacity_type=capacity_type, failure=failure
    )


def _not_there(size: Size, *, asked: tuple[str, ...]) -> str:
    zone = f"zone {asked[0]}" if len(asked) == 1 else f"zones {', '.join(asked)}"
    has = f"only in {', '.join(size.zones)}" if size.zones else "in none"
    return f"{size.name} cannot be had in {zone}, {has}. Ask for another zone, or for none."
