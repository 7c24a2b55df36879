"""What Azure has taken on: each agent pool it was asked to create, change or delete, whatever answer came of it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from fakes.azure import FakeAzure
from fakes.azure.operations import Operation
from fakes.azure.pools import Pool
from provisioner.apis import names


def claim_uid(pool: Pool) -> str:
    """Return the UID of the claim that the pool was made for, or an empty string."""
    return str(pool.properties.get("tags", {}).get(names.CLAIM_UID_TAG, ""))


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A request that took effect, at simulated seconds. `is_new` tells that a PUT has found no pool of that name."""

    at: float
    what: Literal["put", "delete"]
    pool: str
    uid: str
    is_new: bool = False


class Ledger:
    """Writes down what the cluster of a fake Azure takes on, in the order in which it does."""

    def __init__(self, azure: FakeAzure) -> None:
        self.entries: list[Entry] = []
        cluster, now = azure.cluster, azure.clock.now
        put_pool, delete_pool = cluster.put_pool, cluster.delete_pool

        def put(name: str, properties: Mapping[str, Any], **more: Any) -> tuple[Pool, Operation, bool]:
            pool, operation, is_new = put_pool(name, properties, **more)
            self.entries.append(Entry(at=now(), what="put", pool=name, uid=claim_uid(pool), is_new=is_new))
            return pool, operation, is_new

        def delete(name: str, **more: Any) -> Operation | None:
            pool = cluster.pools.get(name)
            operation = delete_pool(name, **more)
            if pool is not None and operation is not None:
                self.entries.append(Entry(at=now(), what="delete", pool=name, uid=claim_uid(pool)))
            return operation

        cluster.put_pool = put  # type: ignore[method-assign]
        cluster.delete_pool = delete  # type: ignore[method-assign]
