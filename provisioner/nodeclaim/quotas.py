"""The region's vCPU usages, read when a decision needs them and for as long as claims wait for quota."""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime
from typing import Final, Protocol

from provisioner.apis.failure import Failure, FailureClass
from provisioner.apis.quota import Shortage, Usage
from provisioner.azure.agentpools import ArmFailure
from provisioner.kube.metrics import Registry

_log: Final = logging.getLogger(__name__)

# Seconds after which usages are asked for again that Azure did not give: more each time, for a role that is missing is
# missing for good.
_RETRY: Final = 60.0
_LONGEST_RETRY: Final = 900.0
# Seconds until usages are read again that a refusal has shown to be wrong: they lag a little behind.
_DISTRUSTED: Final = 5.0


class UsageReader(Protocol):
    """What reads the usages; `provisioner.azure.usages` does."""

    @property
    def by_name(self) -> Mapping[str, Usage]:
        """Return the rows by lower-case name, as last read."""
        ...

    async def refresh(self) -> None:
        """Read them. Raises ArmFailure and keeps what it had."""
        ...


class Quotas:
    """Usages, no older than `interval` seconds where a claim is about to be launched."""

    def __init__(
        self,
        *,
        reader: Callable[[], Awaitable[UsageReader]],
        clock: Callable[[], float],
        now: Callable[[], datetime],
        on_news: Callable[[], None],
        on_freed: Callable[[str], None],
        interval: float,
        metrics: Registry,
    ) -> None:
        """Take what gives the reader once the region is known, and whom to tell what.

        `on_news` is called when usages were read, or could not be; `on_freed` before it with the lower-case name of
        each quota that Azure has refused something for and of which there is more now.
        """
        self._reader = reader
        self._clock = clock
        self._now = now
        self._on_news = on_news
        self._on_freed = on_freed
        self._interval = interval
        self._usages: Mapping[str, Usage] = {}
        self._read_at: float | None = None
        self._failed_at: float | None = None
        self._failure: Failure | None = None
        self._retry_after = _RETRY
        self._counted_at = now()
        # What usages said was left when Azure refused: usages lag, and AKS counts in its own way. Only when there is
        # more than that is it worth asking again; else a claim would be refused once a minute for ever.
        self._left_at_refusal: dict[str, int] = {}
        self._wanted = asyncio.Event()
        self._rethink = asyncio.Event()
        self._metrics = (
            metrics.gauge(
                "gpu_provisioner_quota_limit_vcpus",
                text="vCPU quota of a VM family with GPUs, or of the region, as last read.",
                labels=("quota",),
            ),
            metrics.gauge(
                "gpu_provisioner_quota_used_vcpus",
                text="vCPUs of that quota that are in use, as last read.",
                labels=("quota",),
            ),
        )

    @property
    def usages(self) -> Mapping[str, Usage]:
        """Return the usages by lower-case name; empty where Azure does not give them, and it alone decides then."""
        return self._usages if self._failed_at is None else {}

    @property
    def counted_at(self) -> datetime:
        """Return when the usages were asked for."""
        return self._counted_at

    @property
    def are_current(self) -> bool:
        """Tell whether a decision may rest on what is known, or first has to wait for what is being read.

        Usages that cannot be had hold nobody up: it is Azure that decides then.
        """
        if self._failed_at is not None:
            return True
        return self._read_at is not None and self._clock() - self._read_at < self._interval * 2

    def want(self) -> None:
        """Ask for usages that are no older than the interval. Calls are coalesced."""
        self._wanted.set()

    def distrust(self, shortage: Shortage) -> None:
        """Ask for new ones soon: Azure has just refused what they allowed."""
        if usage := self._usages.get(shortage.usage):
            self._left_at_refusal[shortage.usage] = _left(usage)
        if self._read_at is not None:
            self._read_at = min(self._read_at, self._clock() - self._interval + _DISTRUSTED)
        self._wanted.set()
        self._rethink.set()

    async def run(self) -> None:
        """Read whenever they are wanted and not fresh, until cancelled."""
        reader = await self._reader()
        while True:
            await self._wanted.wait()
            while (pause := self._due() - self._clock()) > 0:
                self._rethink.clear()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(pause):
                        await self._rethink.wait()
            # Who wants them from here on may have seen something that these do not show yet.
            self._wanted.clear()
            await self._read(reader)

    def _due(self) -> float:
        if self._failed_at is not None:
            return self._failed_at + self._retry_after
        return self._clock() if self._read_at is None else self._read_at + self._interval

    async def _read(self, reader: UsageReader) -> None:
        started, counted_at = self._clock(), self._now()
        try:
            await reader.refresh()
        except ArmFailure as error:
            self._failed_at = started
            self._retry_after = min(self._retry_after * 2 if self._failure else _RETRY, _LONGEST_RETRY)
            # By itself: nobody waits for them and so nobody asks.
            self._wanted.set()
            if self._failure is None or self._failure.kind is not error.failure.kind:
                hint = (
                    " Grant Microsoft.Compute/locations/usages/read on the subscription to have quota checked first."
                    if error.failure.kind is FailureClass.AUTH
                    else ""
                )
                _log.warning(
                    "quota cannot be read; Azure is asked for pools without knowing.%s",
                    hint,
                    extra={"error": error.failure.message},
                )
            self._failure = error.failure
        else:
            self._failed_at, self._failure = None, None
            self._read_at, self._counted_at = started, counted_at
            self._usages = reader.by_name
            self._measure()
            self._tell_freed()
        self._on_news()

    def _tell_freed(self) -> None:
        for name, left in list(self._left_at_refusal.items()):
            if name not in self._usages:
                continue
            if _left(self._usages[name]) > left:
                del self._left_at_refusal[name]
                self._on_freed(name)
            else:
                # What was known at the refusal may have been a minute old, and have come back before it is more.
                self._left_at_refusal[name] = _left(self._usages[name])

    def _measure(self) -> None:
        limits, used = self._metrics
        for usage in self._usages.values():
            # The others are of no interest to whoever watches GPU nodes, and there are a hundred of them.
            if usage.limit and usage.name.lower().replace(" ", "").startswith(("cores", "lowpriority", "standardn")):
                limits.set(usage.limit, quota=usage.name)
                used.set(usage.used, quota=usage.name)


def _left(usage: Usage) -> int:
    return usage.limit - usage.used
