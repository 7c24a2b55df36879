"""What pools are about to take of the vCPU quotas, beyond what Azure's usages show."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from provisioner.apis.agentpool import AgentPool
from provisioner.apis.node import Node
from provisioner.nodeclaim.asks import Ask
from provisioner.nodeclaim.holds import HoldKey, holds
from provisioner.placement.market import Offer
from provisioner.placement.size import Size
from tests.unit.builders import A100, NOW, node, pool

FAMILY = "StandardNCADSA100v4Family"
SIZE = Size(name=A100, family=FAMILY, vcpus=24, memory_gib=220, gpu_count=1)
ON_DEMAND: HoldKey = (FAMILY.lower(), "on-demand")
SPOT: HoldKey = (FAMILY.lower(), "spot")


def size_of(name: str) -> Size | None:
    return SIZE if name.lower() == A100.lower() else None


def held(*pools: AgentPool, nodes: tuple[Node, ...] = (), asks: dict[str, Ask] | None = None) -> dict[HoldKey, int]:
    return holds(pools, asks=asks or {}, size_of=size_of, nodes_of=lambda _: nodes, counted_at=NOW)


def ask(name: str) -> Ask:
    return Ask(pool=name, offer=Offer(size=SIZE, capacity_type="on-demand"), begun=NOW)


@pytest.mark.parametrize(
    ("changes", "vcpus"),
    [
        ({"state": "Creating"}, {ON_DEMAND: 24}),
        ({"state": "Scaling", "count": 3}, {ON_DEMAND: 72}),
        ({"state": "Creating", "spot": True}, {SPOT: 24}),
        ({"state": "Succeeded"}, {}),
        ({"state": "Failed"}, {}),
        ({"state": "Deleting"}, {}),
        ({"state": "Creating", "vm_size": "Standard_unheard_of"}, {}),
        # A tenth of the VMs, rounded up, is what AKS surges by unless the pool says otherwise.
        ({"state": "Upgrading", "count": 4}, {ON_DEMAND: 24}),
        ({"state": "UpgradingNodeImageVersion", "count": 4, "max_surge": "50%"}, {ON_DEMAND: 48}),
        ({"state": "Upgrading", "count": 4, "max_surge": "3"}, {ON_DEMAND: 72}),
        ({"state": "Upgrading", "count": 4, "max_surge": "0"}, {}),
        ({"state": "Upgrading", "count": 4, "max_surge": "lots"}, {ON_DEMAND: 24}),
    ],
)
def test_pool_holds_the_vms_that_are_still_to_come(changes: dict[str, Any], vcpus: dict[HoldKey, int]) -> None:
    assert held(replace(pool(), **changes)) == vcpus


def test_vm_whose_node_had_joined_when_the_usages_were_read_counts_in_them() -> None:
    before, after = node(created=NOW - timedelta(seconds=5)), node(created=NOW + timedelta(seconds=5))
    creating = replace(pool(state="Creating"), count=2)
    assert held(creating, nodes=(before,)) == {ON_DEMAND: 24}
    assert held(creating, nodes=(after,)) == {ON_DEMAND: 48}


def test_request_that_azure_has_not_answered_counts_once() -> None:
    assert held(asks={"a": ask("a"), "b": ask("b")}) == {ON_DEMAND: 48}
    creating = pool("a", state="Creating")
    assert held(creating, asks={"a": ask("a")}) == {ON_DEMAND: 24}
