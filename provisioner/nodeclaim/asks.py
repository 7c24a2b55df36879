"""Requests for agent pools that Azure has not answered yet.

They are what no list and no usage shows: the vCPUs that they will take are spoken for, and an offer that nobody got yet
is tried by one claim alone, so that fifty claims for a size that cannot be had make one call and not fifty.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from provisioner.placement.market import Offer, OfferKey

# After that an unanswered request holds up nobody else any more; AKS answers within seconds.
PATIENCE: Final = timedelta(seconds=10)
# For so long an accepted request tells that an offer can be had.
_PROVEN: Final = timedelta(minutes=10)


@dataclass(frozen=True, kw_only=True)
class Ask:
    """One request, on its way since `begun`, for the agent pool of that name."""

    pool: str
    offer: Offer
    begun: datetime


class Asks:
    """The requests on their way, by the UID of their claim."""

    def __init__(self) -> None:
        self._outstanding: dict[str, Ask] = {}
        self._accepted: dict[OfferKey, datetime] = {}
        self._waiting: set[str] = set()

    def begin(self, uid: str, ask: Ask) -> None:
        """Note a request before anything is awaited, so that the next decision knows of it."""
        self._outstanding[uid] = ask

    def accepted(self, uid: str, *, now: datetime) -> None:
        """Note that Azure has taken the request of that claim."""
        if ask := self._outstanding.get(uid):
            self._accepted |= dict.fromkeys(ask.offer.keys, now)

    def end(self, uid: str) -> frozenset[str]:
        """Forget the request, whatever came of it; return the names of the claims that have waited for its answer."""
        self._outstanding.pop(uid, None)
        waiting, self._waiting = frozenset(self._waiting), set()
        return waiting

    def refused(self, keys: Iterable[OfferKey]) -> None:
        """Note that an offer cannot be had: the next one who tries it tries alone."""
        for key in keys:
            self._accepted.pop(key, None)

    def wait(self, name: str) -> None:
        """Note that the claim of that name waits for an answer to somebody else."""
        self._waiting.add(name)

    def is_tried_by_another(self, offer: Offer, *, uid: str, now: datetime) -> bool:
        """Tell whether another claim is finding out whether this offer can be had."""
        keys = set(offer.keys)
        if all(now - self._accepted.get(key, datetime.min.replace(tzinfo=now.tzinfo)) < _PROVEN for key in keys):
            return False
        return any(
            other != uid and now - ask.begun < PATIENCE and not keys.isdisjoint(ask.offer.keys)
            for other, ask in self._outstanding.items()
        )

    def others(self, uid: str) -> Mapping[str, Ask]:
        """Return the requests of all other claims, by the name of the pool."""
        return {ask.pool: ask for other, ask in self._outstanding.items() if other != uid}
