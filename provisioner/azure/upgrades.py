"""The newest node images, as AKS's upgrade profiles of agent pools tell of them.

https://learn.microsoft.com/rest/api/aks/agent-pools/get-upgrade-profile. A profile is asked for by pool, and its answer
depends on the kind of image and on the Kubernetes version alone: so one pool of each kind is asked, once in a long
while, however many there are. Images come out weekly.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final
from urllib.parse import quote

from provisioner.apis.agentpool import AgentPool
from provisioner.apis.failure import Failure, FailureClass
from provisioner.apis.versions import image_name, kubernetes_version
from provisioner.azure.agentpools import API_VERSION, READ_TIMEOUT
from provisioner.azure.caller import Caller
from provisioner.azure.errors import ArmFailure, unusable

_log: Final = logging.getLogger(__name__)

# Seconds between two looks at which pools there are.
_ROUND: Final = 60.0
_SHORTEST_ROUND: Final = 1.0
# Seconds after which is asked again what Azure did not tell; sooner where it is to be asked sooner anyway.
_RETRY: Final = 3600.0

# The image's name, which has the distribution, the generation of VMs, the architecture and whether it is for GPUs, and
# the minor version of Kubernetes, which images are made for.
_Kind = tuple[str, tuple[int, ...]]


@dataclass
class _Known:
    """What was learned of one kind: `newest` is the last answer, empty before there was one."""

    newest: str = ""
    due_at: float = 0.0


class NodeImages:
    """What was last read, by kind of image; to be used from one event loop. Nothing is known before `run` has asked."""

    def __init__(
        self,
        session: Caller,
        *,
        pools: Callable[[], Iterable[AgentPool]],
        on_news: Callable[[], None],
        clock: Callable[[], float],
        interval: float,
    ) -> None:
        """Take what gives the pools of interest, whom to tell of a newer image, and a clock in monotonic seconds.

        `interval` is how many seconds what was read is good for; 0 turns reading off.
        """
        self._session = session
        self._pools = pools
        self._on_news = on_news
        self._clock = clock
        self._interval = interval
        self._known: dict[_Kind, _Known] = {}
        self._failure: Failure | None = None

    @property
    def is_on(self) -> bool:
        """Tell whether images are asked for at all."""
        return self._interval > 0

    def newest(self, pool: AgentPool) -> str:
        """Return the newest image of the pool's kind, an empty string while it is not known."""
        known = self._known.get(_kind(pool))
        return known.newest if known is not None else ""

    async def run(self) -> None:
        """Keep what is known fresh, until cancelled. Failures are logged, and what was known before stays."""
        while True:
            await self.refresh()
            await asyncio.sleep(max(min(_ROUND, self._interval), _SHORTEST_ROUND))

    async def refresh(self) -> None:
        """Ask for each kind of image that is due, of one pool each."""
        due: dict[_Kind, AgentPool] = {}
        for pool in self._pools():
            kind = _kind(pool)
            if kind[0] and self._clock() >= self._known.setdefault(kind, _Known()).due_at:
                due.setdefault(kind, pool)
        for kind, pool in due.items():
            await self._learn(self._known[kind], pool)

    async def _learn(self, known: _Known, pool: AgentPool) -> None:
        asked_at = self._clock()
        try:
            newest = await self._read(pool.name)
        except ArmFailure as error:
            known.due_at = asked_at + max(min(self._interval, _RETRY), error.failure.retry_after or 0.0)
            self._tell(error.failure)
            return
        known.due_at, self._failure = asked_at + self._interval, None
        if newest != known.newest:
            known.newest = newest
            _log.info("newest node image", extra={"image": newest, "agent_pool": pool.name})
            self._on_news()

    async def _read(self, name: str) -> str:
        """Return the newest image for a pool. Raises ArmFailure."""
        response = await self._session.call(
            "GET",
            f"{self._session.target.cluster_path}/agentPools/{quote(name, safe='')}/upgradeProfiles/default",
            operation="upgradeprofiles.get",
            timeout=READ_TIMEOUT,
            accept=(200,),
            query={"api-version": API_VERSION},
        )
        properties = response.json().get("properties")
        newest = properties.get("latestNodeImageVersion") if isinstance(properties, dict) else None
        if not isinstance(newest, str) or not image_name(newest):
            raise unusable("it names no newest node image", status=response.status)
        return newest

    def _tell(self, failure: Failure) -> None:
        if self._failure is None or self._failure.kind is not failure.kind:
            hint = (
                " Grant Microsoft.ContainerService/managedClusters/agentPools/upgradeProfiles/read, or set "
                "NODE_IMAGE_CHECK_SECONDS=0."
                if failure.kind is FailureClass.AUTH
                else ""
            )
            _log.warning(
                "the newest node image cannot be read; no node counts as drifted from it.%s",
                hint,
                extra={"error": failure.message},
            )
        self._failure = failure


def _kind(pool: AgentPool) -> _Kind:
    return image_name(pool.node_image_version), kubernetes_version(pool.kubernetes_version)[:2]
