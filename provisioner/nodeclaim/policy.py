"""How long to wait after Azure has refused something. Pure."""

from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from provisioner.apis.failure import Failure, FailureClass


@dataclass(frozen=True)
class _Backoff:
    first: timedelta
    longest: timedelta


# Requests that the next try may well see granted start short. Quota and capacity change when people or Azure act:
# asking every few minutes costs nobody anything and lets a waiting claim go on by itself.
_BACKOFF: Final = {
    FailureClass.QUOTA: _Backoff(timedelta(minutes=1), timedelta(minutes=10)),
    FailureClass.SKU_RESTRICTED: _Backoff(timedelta(minutes=5), timedelta(hours=1)),
    FailureClass.CAPACITY: _Backoff(timedelta(minutes=2), timedelta(minutes=30)),
    FailureClass.ZONE: _Backoff(timedelta(minutes=5), timedelta(hours=1)),
    FailureClass.THROTTLED: _Backoff(timedelta(seconds=10), timedelta(minutes=5)),
    FailureClass.CONFLICT: _Backoff(timedelta(seconds=5), timedelta(minutes=1)),
    FailureClass.AUTH: _Backoff(timedelta(seconds=30), timedelta(minutes=5)),
    FailureClass.POLICY: _Backoff(timedelta(minutes=5), timedelta(hours=1)),
    FailureClass.INVALID: _Backoff(timedelta(minutes=5), timedelta(hours=1)),
    FailureClass.INTERNAL: _Backoff(timedelta(seconds=5), timedelta(minutes=2)),
}
_SOON: Final = timedelta(seconds=1)
_MAX_DOUBLINGS: Final = 16
# What these say is true for every claim that asks for the same.
_OF_OFFERS: Final = frozenset(
    {FailureClass.QUOTA, FailureClass.CAPACITY, FailureClass.ZONE, FailureClass.SKU_RESTRICTED}
)
_JITTER: Final = 0.2


def concerns_offer(failure: Failure) -> bool:
    """Tell whether a failure is about what was asked for, so that another offer may do better and others should know.

    A subnet without addresses is a quota of Azure's too, and the same for every size.
    """
    return failure.kind in _OF_OFFERS and (failure.kind is not FailureClass.QUOTA or failure.shortage is not None)


def retry_delay(failure: Failure, *, attempts: int, luck: float) -> timedelta:
    """Return how long to wait before asking again.

    `attempts` counts refusals in a row, from 1. `luck` is in [0, 1) and spreads claims that were refused together.
    Azure's Retry-After is never undercut.
    """
    backoff = _BACKOFF[failure.kind]
    delay = min(backoff.first * float(1 << min(attempts - 1, _MAX_DOUBLINGS)), backoff.longest)
    if failure.retry_after is not None:
        named = timedelta(seconds=failure.retry_after)
        # Where it is told when to come, a throttled claim has a moment of its own already.
        delay = max(named, _SOON) if failure.kind is FailureClass.THROTTLED else max(delay, named)
    return delay * (1 + _JITTER * luck)
