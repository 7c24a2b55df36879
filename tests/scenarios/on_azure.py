"""What scenarios ask of the fake Azure: its agent pools, who called, and calls that hang at an exact point."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

from fakes.aks import FakeAks
from fakes.azure import Fault
from fakes.azure.pools import Pool
from tests.kube import eventually

PUT: Final = "agentPools.put"
DELETE: Final = "agentPools.delete"
LIST: Final = "agentPools.list"

# Simulated seconds: beyond the end of any test, and soon over in a hurry.
AGES: Final = 100_000.0
_HURRY: Final = 500.0

_SYSTEM_POOL: Final = "systempool"


def pools(aks: FakeAks) -> dict[str, Pool]:
    """Return the agent pools but for the system pool, by name."""
    aks.azure.cluster.timeline.advance()
    return {name: pool for name, pool in aks.azure.cluster.pools.items() if name != _SYSTEM_POOL}


def statuses(aks: FakeAks, operation: str, *, pool: str = "") -> list[int | None]:
    """Return how the calls of an operation were answered, in that order; None where the connection was torn down.

    A call that still hangs is not among them. `pool` keeps to the calls about one pool.
    """
    return [
        call.status for call in aks.azure.calls if call.operation == operation and call.pool in (pool or call.pool,)
    ]


async def wait_hit(aks: FakeAks, *faults: Fault) -> None:
    """Wait until faults that were added have hit a call each."""

    async def unhit() -> list[str]:
        hits = {str(entry["fault"]): entry["hits"] for entry in aks.azure.faults.listing()}
        return [str(fault) for fault in faults if not hits[str(fault.model_dump(mode="json"))]]

    await eventually(unhit, until=lambda left: not left, what="each fault has hit a call")


async def wait_pool(aks: FakeAks, name: str, state: str | None) -> None:
    """Wait until a pool is in a provisioningState; None: until it is gone."""

    async def seen() -> str | None:
        pool = pools(aks).get(name)
        return pool.state if pool is not None else None

    await eventually(seen, until=lambda now: now == state, what=f"agent pool {name}: {state or 'gone'}")


def put_pool(aks: FakeAks, name: str, **properties: Any) -> Pool:
    """Make an agent pool as somebody else in Azure does."""
    pool, _, _ = aks.azure.cluster.put_pool(name, {"count": 1, "mode": "User", **properties})
    return pool


@contextmanager
def settings(aks: FakeAks, **values: Any) -> Iterator[None]:
    """Let Azure behave differently for what is begun meanwhile."""
    before: Mapping[str, Any] = {name: getattr(aks.azure.settings, name) for name in values}
    aks.azure.settings.change(values)
    try:
        yield
    finally:
        aks.azure.settings.change(before)


@contextmanager
def hurry(aks: FakeAks) -> Iterator[None]:
    """Let time fly in Azure and on the nodes, so that ages pass within a second or two."""
    with settings(aks, scale=aks.azure.settings.scale * _HURRY):
        aks.nodes.wake()
        yield
    aks.nodes.wake()
