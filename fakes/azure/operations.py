"""Long-running operations of the AKS resource provider, as `Azure-AsyncOperation` URLs show them."""

import uuid
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal

from fakes.azure.clock import Due

Kind = Literal["Creating", "Updating", "Scaling", "Deleting", "DeletingMachines"]
Status = Literal["InProgress", "Succeeded", "Failed", "Canceled"]

# AKS keeps the results of operations for a while; how long is not documented. Enough for any test, and bounded.
_KEPT = 10_000


def timestamp() -> str:
    """Return the wall clock as AKS writes it. Never simulated: clients compare it with their own clocks."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


@dataclass(kw_only=True)
class Operation:
    """One operation on an agent pool. `error` is the ARM error (`code`, `message`, `details`) of a failed one."""

    pool: str
    kind: Kind
    id: str = field(default_factory=lambda: str(uuid.uuid4()))
    status: Status = "InProgress"
    started: str = field(default_factory=timestamp)
    ended: str | None = None
    error: Mapping[str, Any] | None = None
    # What is still to come of it; cancelled when it is preempted.
    planned: list[Due] = field(default_factory=list, repr=False)

    @property
    def running(self) -> bool:
        """Tell whether the operation has yet to end."""
        return self.status == "InProgress"

    def end(self, status: Status, *, error: Mapping[str, Any] | None = None) -> None:
        """End the operation; nothing that was still planned for it happens."""
        self.status, self.error, self.ended = status, error, timestamp()
        for due in self.planned:
            due.cancel()
        self.planned.clear()

    def body(self) -> dict[str, Any]:
        """Return the operation as its status URL shows it."""
        body: dict[str, Any] = {"name": self.id, "status": self.status, "startTime": self.started}
        if self.ended:
            body["endTime"] = self.ended
        if self.error is not None:
            body["error"] = dict(self.error)
        return body


class Operations:
    """All operations by ID, the oldest ended ones dropped beyond a bound."""

    def __init__(self) -> None:
        self._all: OrderedDict[str, Operation] = OrderedDict()

    def add(self, operation: Operation) -> Operation:
        """Keep an operation."""
        self._all[operation.id] = operation
        while len(self._all) > _KEPT:
            oldest = next(iter(self._all.values()))
            if oldest.running:
                break
            del self._all[oldest.id]
        return operation

    def find(self, operation_id: str) -> Operation | None:
        """Return the operation of that ID, in any case of letters."""
        return self._all.get(operation_id.lower())
