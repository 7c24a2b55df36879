"""Node Leases, renewed in real time."""

from collections.abc import Callable

from fakes.nodes.api import ApiError, KubeApi, Object, uid_of
from fakes.nodes.clock import micro_timestamp
from fakes.nodes.settings import NodeSettings
from fakes.nodes.workqueue import WorkQueue

LEASES = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases"

# The kubelet's; the interval of renewal is a quarter of it.
LEASE_SECONDS = 40

# In a queue of their own, beside the one of the Nodes, so that a hundred nodes joining at once delay no renewal.
CONCURRENCY = 4


class Heartbeats:
    """Renews the Leases of all Nodes whose kubelet is up, one by one as they come due.

    `alive` returns the Node while its kubelet is up and the Node registered. A Lease is owned by its Node, so it goes
    with it.
    """

    def __init__(self, api: KubeApi, *, settings: NodeSettings, alive: Callable[[str], Object | None]) -> None:
        self._api = api
        self._settings = settings
        self._alive = alive
        self._beating: set[str] = set()
        self._queue = WorkQueue(self._renew, concurrency=CONCURRENCY)

    def start(self, name: str) -> None:
        """Begin with a Node, unless its heart beats already."""
        if name not in self._beating:
            self._beating.add(name)
            self._queue.add(name)

    async def run(self) -> None:
        """Renew until cancelled."""
        await self._queue.run()

    async def _renew(self, name: str) -> float | None:
        node = self._alive(name)
        if node is None:
            self._beating.discard(name)
            return None
        spec = {"holderIdentity": name, "leaseDurationSeconds": LEASE_SECONDS, "renewTime": micro_timestamp()}
        owner = {"apiVersion": "v1", "kind": "Node", "name": name, "uid": uid_of(node)}
        # The owner is sent each time: the Lease of a Node that was deleted and registered again may still be there.
        metadata = {"name": name, "ownerReferences": [owner]}
        try:
            await self._api.call("PATCH", f"{LEASES}/{name}", body={"metadata": metadata, "spec": spec})
        except ApiError as error:
            if error.status != 404:
                raise
            await self._api.call("POST", LEASES, body={"metadata": metadata, "spec": spec})
        return self._settings.lease_interval_real
