"""Machines without a cloud, and waiting for conditions, for the tests of the fake nodes."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

Value = TypeVar("Value")

DEADLINE = 20.0
POLL = 0.03


@dataclass(frozen=True, kw_only=True)
class FakeMachine:
    """A regional A100 machine in a tainted pool, unless told otherwise."""

    pool: str
    name: str
    provider_id: str
    vm_size: str = "Standard_NC24ads_A100_v4"
    os_sku: str = "Ubuntu"
    location: str = "swedencentral"
    zone: str | None = None
    priority: str = "Regular"
    mode: str = "User"
    node_labels: Mapping[str, str] = field(default_factory=dict)
    node_taints: tuple[str, ...] = ("sku=gpu:NoSchedule",)
    node_image_version: str = "AKSUbuntu-2204gen2containerd-202601.27.0"
    kubernetes_version: str = "1.33.6"
    vcpus: int = 24
    memory_gib: float = 220.0
    gpu_count: int = 1
    gpu_vendor: str | None = "nvidia"
    gpu_managed: bool = False
    os_disk_gib: int = 128
    max_pods: int = 110
    created_at: float = 0.0


def machine(pool: str, index: int = 0, **fields: Any) -> FakeMachine:
    scale_set = f"aks-{pool}-12345678-vmss"
    group = "/subscriptions/0000/resourceGroups/mc_rg_aks_swedencentral"
    return FakeMachine(
        pool=pool,
        name=f"{scale_set}{index:06d}",
        provider_id=f"azure://{group}/providers/Microsoft.Compute/virtualMachineScaleSets/{scale_set}"
        f"/virtualMachines/{index}",
        **fields,
    )


class Machines:
    """A source in memory."""

    def __init__(self, *machines: FakeMachine) -> None:
        self._machines = list(machines)
        self._version = 0
        self._changed = asyncio.Condition()

    def machines(self) -> list[FakeMachine]:
        return list(self._machines)

    async def wait_changed(self, since: int) -> int:
        async with self._changed:
            await self._changed.wait_for(lambda: self._version > since)
            return self._version

    async def set(self, *machines: FakeMachine) -> None:
        async with self._changed:
            self._machines = list(machines)
            self._version += 1
            self._changed.notify_all()


async def until(check: Callable[[], Awaitable[Value | None]]) -> Value:
    """Return the first value of a check that is neither None nor False."""
    deadline = time.monotonic() + DEADLINE
    while True:
        value = await check()
        if value is not None and value is not False:
            return value
        assert time.monotonic() < deadline, "the condition did not come true"
        await asyncio.sleep(POLL)
