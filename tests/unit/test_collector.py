"""What the collector counts for those who watch it: ages of lists, what watches have missed, pools left over."""

import json
import random
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from provisioner.apis import names
from provisioner.apis.conditions import LAUNCHED, READY
from provisioner.apis.failure import Failure, FailureClass
from provisioner.azure.errors import ArmFailure
from provisioner.azure.session import ArmResponse, AzureTarget
from provisioner.kube.errors import Unavailable
from provisioner.kube.events import EventRecorder
from provisioner.kube.gateway import KubeGateway
from provisioner.kube.metrics import Registry
from provisioner.nodeclaim.assembly import Assembly
from provisioner.nodeclaim.keys import NODE_KIND, Key
from provisioner.settings import Settings
from tests.unit import ways_out
from tests.unit.builders import NOW, kaito_claim, provider_id, raw_node, reached

SUBSCRIPTION = "0b1f6471-1bf0-4dda-aec3-cb9272f09590"


class Cluster(ways_out.Kubernetes):
    """An API server that has claims and Nodes to list, and lets claims be deleted."""

    def __init__(self) -> None:
        self.claims: list[dict[str, Any]] = []
        self.nodes: list[dict[str, Any]] = []
        self.deleted: list[str] = []
        self.is_away = False

    def answer(
        self, method: str, path: str, query: Mapping[str, str | int], body: Mapping[str, Any] | None
    ) -> dict[str, Any]:
        if self.is_away:
            raise Unavailable("it is away")
        kind, _, name = path.rpartition("/")
        if method == "GET":
            items = {"nodeclaims": self.claims, "nodes": self.nodes}.get(name, [])
            return {"metadata": {"resourceVersion": "1000"}, "items": items}
        assert (method, kind.rpartition("/")[2]) == ("DELETE", "nodeclaims")
        self.deleted.append(name)
        return {}


class Azure(ways_out.Azure):
    """An AKS cluster; while it is stopped nothing may be deleted."""

    target = AzureTarget(subscription_id=SUBSCRIPTION, resource_group="r", cluster_name="c")

    def __init__(self) -> None:
        self.pools: list[dict[str, Any]] = []
        self.is_away = False
        self.is_running = False
        # What happens while a list is on its way.
        self.meanwhile: Callable[[], None] = lambda: None

    def answer(self, operation: str) -> ArmResponse:
        assert operation == "managedclusters.get"
        properties = {
            "provisioningState": "Succeeded",
            "powerState": {"code": "Running" if self.is_running else "Stopped"},
            "nodeResourceGroup": "MC_rg_aks_eastus",
        }
        return ArmResponse(status=200, text=json.dumps({"location": "eastus", "properties": properties}))

    def listed(self) -> tuple[Mapping[str, Any], ...]:
        if self.is_away:
            raise ArmFailure(Failure(kind=FailureClass.INTERNAL, message="It is away."))
        pools = tuple(self.pools)
        self.meanwhile()
        return pools


class World:
    def __init__(self) -> None:
        self.cluster, self.azure, self.registry, self.now = Cluster(), Azure(), Registry(), 0.0
        kube = KubeGateway(transport=self.cluster)
        parts = Assembly(
            Settings(subscription_id=SUBSCRIPTION, resource_group="r", cluster_name="c", deployment_mode="managed"),
            kube=kube,
            recorder=EventRecorder(kube, clock=lambda: NOW, instance="i"),
            session=self.azure,
            metrics=self.registry,
            monotonic=lambda: self.now,
            now=lambda: NOW,
            rng=random.Random(1),  # noqa: S311
        )
        self.collector, self.queue = parts.collector, parts.queue

    async def looked_at(self) -> set[Key]:
        """Return what is to be looked at, and note that it has been."""
        keys = set()
        while len(self.queue):
            key = await self.queue.get()
            assert key is not None
            self.queue.done(key)
            keys.add(key)
        return keys

    def value(self, series: str) -> float | None:
        lines = (line.rpartition(" ") for line in self.registry.expose().splitlines())
        return next((float(number) for name, _, number in lines if name == series), None)


POOLS = 'gpu_provisioner_list_age_seconds{of="agentpools"}'
CLAIMS = 'gpu_provisioner_list_age_seconds{of="nodeclaims"}'
MISSED = 'gpu_provisioner_found_by_list_total{kind="nodeclaim"}'
ORPHANS = "gpu_provisioner_orphaned_agent_pools"


def pool_of(uid: str) -> dict[str, Any]:
    tags = {names.CLAIM_TAG: "ws1", names.CLAIM_UID_TAG: uid}
    return {"name": "ws1", "properties": {"provisioningState": "Succeeded", "vmSize": "Standard_NC6", "tags": tags}}


async def test_lists_have_no_age_before_there_was_one() -> None:
    world = World()

    assert (world.value(POOLS), world.value(CLAIMS)) == (None, None)


async def test_the_age_of_a_list_grows_while_it_cannot_be_had_and_no_other_does() -> None:
    world = World()
    await world.collector.collect()
    world.now, world.azure.is_away = 700.0, True
    with pytest.raises(ArmFailure):
        await world.collector.collect()

    assert (world.value(POOLS), world.value(CLAIMS)) == (700, 0)

    world.azure.is_away, world.cluster.is_away = False, True
    with pytest.raises(Unavailable):
        await world.collector.collect()
    world.now = 1000.0

    assert (world.value(POOLS), world.value(CLAIMS)) == (300, 300)


async def test_what_a_list_finds_counts_as_missed_unless_it_is_the_first() -> None:
    world = World()
    world.cluster.claims = [kaito_claim("ws1", uid="1")]
    await world.collector.synchronise()

    assert world.value(MISSED) is None

    world.cluster.claims.append(kaito_claim("ws2", uid="2"))
    await world.collector.synchronise()
    await world.collector.synchronise()

    assert world.value(MISSED) == 1


async def test_pools_without_a_claim_are_shown_for_as_long_as_they_may_not_be_deleted() -> None:
    world = World()
    world.azure.pools = [pool_of("gone")]
    await world.collector.collect()

    assert world.value(ORPHANS) == 1

    world.cluster.claims = [kaito_claim("ws1", uid="gone")]
    await world.collector.collect()

    assert world.value(ORPHANS) == 0


def launched_claim() -> dict[str, Any]:
    status = {"providerID": provider_id("ws1"), "conditions": reached(LAUNCHED)}
    claim = kaito_claim("ws1", uid="1", status=status)
    claim["metadata"]["resourceVersion"] = "101"
    return claim


async def test_claim_that_is_launched_while_its_pool_cannot_be_on_the_list_yet_is_kept() -> None:
    world = World()
    world.azure.is_running = True
    world.cluster.nodes = [raw_node("nodepool1")]
    world.cluster.claims = [kaito_claim("ws1", uid="1")]
    await world.collector.synchronise()

    def launch() -> None:
        # The pool is asked for when the list has been put together; its Node joins before the claims are listed.
        world.azure.pools = [pool_of("1")]
        world.cluster.claims = [launched_claim()]
        world.cluster.nodes = [raw_node("nodepool1"), raw_node("ws1", ready="False")]

    world.azure.meanwhile = launch
    await world.collector.collect()

    assert world.cluster.deleted == []

    world.azure.meanwhile = world.azure.pools.clear
    await world.collector.collect()

    assert world.cluster.deleted == []

    await world.collector.collect()

    assert world.cluster.deleted == ["ws1"]


async def test_what_is_not_settled_is_looked_at_every_ten_minutes_though_nothing_has_changed() -> None:
    world = World()
    world.cluster.claims = [
        kaito_claim("waits", uid="1"),
        kaito_claim("ready", uid="2", status={"conditions": reached(READY)}),
        kaito_claim(
            "goes",
            uid="3",
            status={"conditions": reached(READY)},
            deleted=NOW,
            finalizers=(names.TERMINATION_FINALIZER,),
        ),
    ]
    world.cluster.nodes = [raw_node("a"), raw_node("b", deleting=True, name="going")]
    await world.collector.synchronise()
    await world.looked_at()

    world.now = 599.0
    await world.collector.synchronise()

    assert await world.looked_at() == set()

    world.now = 600.0
    await world.collector.synchronise()

    kind = names.NODECLAIM_KIND
    assert await world.looked_at() == {(kind, "waits"), (kind, "goes"), (NODE_KIND, "going")}

    world.now = 1199.0
    await world.collector.synchronise()

    assert await world.looked_at() == set()
