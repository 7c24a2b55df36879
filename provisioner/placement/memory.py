"""The failures of offers, shared by all claims: fifty claims for an exhausted size make one request to Azure.

What a failure tells of beside the offer that was tried, and for how long, is as Karpenter's Azure provider has it
(karpenter-provider-azure, pkg/providers/instance/offerings), less one thing: it takes a size without capacity to speak
for all larger ones of its family too. That needs vCPUs and families, which the keys of offers do not have.
"""

from collections.abc import Callable, Collection, Iterator
from datetime import datetime, timedelta
from typing import Final

from provisioner.apis import names
from provisioner.apis.failure import Failure, FailureClass
from provisioner.apis.quota import Scope, Shortage
from provisioner.placement.market import REGIONAL_ZONE, OfferKey, Remembered

_QUOTA: Final = timedelta(minutes=10)
# Nothing was ever granted: only a person can change that.
_QUOTA_OF_NOTHING: Final = timedelta(hours=1)
# Also of zones: what AKS takes and what Azure has in them changes by the hour at best.
CAPACITY: Final = timedelta(hours=1)
_RESTRICTED: Final = timedelta(hours=23)
# Spot restrictions are for want of capacity.
_RESTRICTED_SPOT: Final = timedelta(hours=1)

# Quota in name only: the subnet has no addresses left, which no other size helps.
_SUBNET_CODES: Final = frozenset({"insufficientsubnetsize", "subnetisfull"})
# AKS's own check, which knows of no zones and capacity types.
_NOT_SUPPORTED: Final = "vmsizenotsupported"
_IN_ONE_ZONE: Final = frozenset({"zonalallocationfailed"})
_IN_ONE_ZONE_AND_TYPE: Final = frozenset({"overconstrainedzonalallocationrequest"})
_WHEREVER_PLACED_SO: Final = frozenset({"allocationfailed"})
_WHEREVER_PLACED_SO_OF_TYPE: Final = frozenset({"overconstrainedallocationrequest"})

# In place of a size, a zone or a capacity type: all of them; and of a zone: all but the regional placement.
_ALL: Final = "*"
_ZONAL: Final = "zonal"

_Where = tuple[str, str]


def ttl(failure: Failure, *, capacity_type: str, capacity: timedelta = CAPACITY) -> timedelta | None:
    """Return for how long an offer that failed so is not asked for again, None where that says nothing about it.

    `capacity` is for how long it is left alone for want of capacity.
    """
    match failure.kind:
        case FailureClass.QUOTA:
            if failure.code.lower() in _SUBNET_CODES:
                return None
            is_nothing = failure.shortage is not None and failure.shortage.limit == 0
            return _QUOTA_OF_NOTHING if is_nothing else _QUOTA
        case FailureClass.CAPACITY | FailureClass.ZONE:
            return capacity
        case FailureClass.SKU_RESTRICTED:
            is_spot = capacity_type == names.CAPACITY_TYPE_SPOT and failure.code.lower() != _NOT_SUPPORTED
            return min(_RESTRICTED_SPOT, capacity) if is_spot else _RESTRICTED
        case _:
            return None


class OfferMemory:
    """Remembers failures by size, zone and capacity type. Has no clock: the moment comes in with each call."""

    def __init__(self, *, capacity: timedelta = CAPACITY) -> None:
        self._capacity = capacity
        # By size, and in it by zone and capacity type; each of the three may be a wildcard.
        self._entries: dict[str, dict[_Where, Remembered]] = {}

    def __len__(self) -> int:
        return sum(map(len, self._entries.values()))

    def recall(self, key: OfferKey) -> Remembered | None:
        """Return what is remembered of the offer, of several failures the one that lasts longest."""
        own, wide = self._entries.get(key.size), self._entries.get(_ALL)
        if own is None and wide is None:
            return None
        found = None
        for entries in (own, wide):
            if entries is None:
                continue
            for zone in (key.zone, _ALL) if key.zone == REGIONAL_ZONE else (key.zone, _ALL, _ZONAL):
                for capacity_type in (key.capacity_type, _ALL):
                    entry = entries.get((zone, capacity_type))
                    if entry is not None and (found is None or entry.until > found.until):
                        found = entry
        return found

    def active(self, *, now: datetime) -> Iterator[tuple[OfferKey, Remembered]]:
        """Yield what is not asked for at present; `*` stands for all sizes, zones or capacity types."""
        for size, entries in self._entries.items():
            for (zone, capacity_type), entry in entries.items():
                if entry.until > now:
                    yield OfferKey(size=size, zone=zone, capacity_type=capacity_type), entry

    def remember(self, keys: Collection[OfferKey], *, failure: Failure, now: datetime) -> None:
        """Remember a failure of the offer with these keys, and of all that it speaks for."""
        self.prune(now=now)
        for key in keys:
            duration = ttl(failure, capacity_type=key.capacity_type, capacity=self._capacity)
            if duration is None:
                continue
            entry = Remembered(failure=failure, at=now, until=now + duration)
            named = frozenset(other.zone for other in keys).intersection(failure.zones)
            if named and key.zone not in named:
                continue
            size, where = _spoken_for(key, failure)
            entries = self._entries.setdefault(size, {})
            known = entries.get(where)
            # Of requests that were under way together, a shorter failure must not shorten a longer one.
            if known is None or known.until < entry.until:
                entries[where] = entry

    def forget(self, has_room: Callable[[Shortage], bool], *, as_of: datetime) -> None:
        """Forget quotas that have room again, by usages read at `as_of`.

        What failed since then stays: the usages may not show yet what it failed on.
        """
        self._drop(
            lambda entry: (
                entry.at < as_of
                and entry.failure.kind is FailureClass.QUOTA
                and entry.failure.shortage is not None
                and has_room(entry.failure.shortage)
            )
        )

    def prune(self, *, now: datetime) -> None:
        """Drop what means nothing any more."""
        self._drop(lambda entry: entry.forgotten_at <= now)

    def _drop(self, is_over: Callable[[Remembered], bool]) -> None:
        kept = {
            size: {where: entry for where, entry in entries.items() if not is_over(entry)}
            for size, entries in self._entries.items()
        }
        self._entries = {size: entries for size, entries in kept.items() if entries}


def _spoken_for(key: OfferKey, failure: Failure) -> tuple[str, _Where]:
    """Return the size, zone and capacity type that the failure of an offer speaks for."""
    code = failure.code.lower()
    placement = REGIONAL_ZONE if key.zone == REGIONAL_ZONE else _ZONAL
    match failure.kind:
        case FailureClass.QUOTA:
            scope = failure.shortage.scope if failure.shortage is not None else Scope.UNKNOWN
            if scope is Scope.REGIONAL:
                return _ALL, (_ALL, _ALL)
            if scope is Scope.SPOT:
                return _ALL, (_ALL, names.CAPACITY_TYPE_SPOT)
            return key.size, (_ALL, key.capacity_type)
        case FailureClass.SKU_RESTRICTED if code == _NOT_SUPPORTED:
            return key.size, (_ALL, _ALL)
        case FailureClass.SKU_RESTRICTED:
            return key.size, (placement, key.capacity_type)
        case FailureClass.ZONE:
            return key.size, (key.zone, _ALL)
        case _:
            code = "zonalallocationfailed" if not code and failure.zones else code
            return key.size, _spoken_for_capacity(key, code, placement=placement)


def _spoken_for_capacity(key: OfferKey, code: str, *, placement: str) -> _Where:
    if code in _IN_ONE_ZONE:
        return key.zone, _ALL
    if code in _IN_ONE_ZONE_AND_TYPE:
        return key.zone, key.capacity_type
    if code in _WHEREVER_PLACED_SO:
        return placement, _ALL
    if code in _WHEREVER_PLACED_SO_OF_TYPE:
        return placement, key.capacity_type
    return key.zone, key.capacity_type
