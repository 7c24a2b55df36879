"""Whose turn it is to be replaced: one claim at a time, and only while all others have their nodes."""

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Final

from provisioner.apis.conditions import READY
from provisioner.apis.nodeclaim import NodeClaim

# After a claim is gone, and before whoever wrote it has written it anew, all claims that there are are Ready. Counted
# from the last look at it of a claim that waits, which comes every few seconds.
QUIET: Final = timedelta(seconds=15)


class Replacements:
    """Remembers in memory alone when a replacement was last seen to go on; a restart counts as one."""

    def __init__(self, *, now: datetime) -> None:
        self._seen_at = now

    def begin(self, *, now: datetime) -> None:
        """Note that a claim is about to be deleted for another. To be called before anything is awaited."""
        self._seen_at = now

    def is_anothers_turn(self, claim: NodeClaim, *, claims: Iterable[NodeClaim], now: datetime) -> bool:
        """Tell whether the claim has to wait: another one is going or is not Ready, or was so a moment ago."""
        if any(
            other.is_managed and other.uid != claim.uid and (other.is_deleting or not other.is_true(READY))
            for other in claims
        ):
            self._seen_at = now
            return True
        return now - self._seen_at < QUIET
