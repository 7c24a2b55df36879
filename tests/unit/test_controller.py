"""What the controller learns from the answers to its own requests is as good as what a watch tells it."""

import asyncio
import random
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from provisioner.apis import names
from provisioner.apis.conditions import DRAINED, INSTANCE_TERMINATING, LAUNCHED, REGISTERED, VOLUMES_DETACHED
from provisioner.kube.events import EventRecorder
from provisioner.kube.gateway import KubeGateway
from provisioner.kube.metrics import Registry
from provisioner.nodeclaim.assembly import Assembly
from provisioner.settings import Settings
from tests.chaos.apiserver import ApiServer
from tests.chaos.objects import CLAIMS, NODES, Change, Objects, Raw, place_of
from tests.chaos.world import World
from tests.unit import ways_out
from tests.unit.builders import kaito_claim, provider_id, raw_node, reached


class Cluster(ways_out.Kubernetes):
    """An API server that nobody watches. Somebody takes the finalizers off a Node just before the controller does."""

    def __init__(self) -> None:
        self.objects = Objects(now=lambda: datetime.now(UTC))
        self._server = ApiServer(World(1), self.objects)

    def answer(self, method: str, path: str, query: Mapping[str, str | int], body: Mapping[str, Any] | None) -> Raw:
        place = place_of(path)
        if method == "PATCH" and place.plural == NODES and self.objects.get(NODES, place.key) is not None:
            self.objects.patch(NODES, place.key, {"metadata": {"finalizers": None}}, by="person")
        return self._server.answer(method, path, query, body)


async def test_claim_whose_node_was_gone_when_it_was_to_be_let_go_is_let_go_itself() -> None:
    cluster = Cluster()
    objects = cluster.objects
    done = (LAUNCHED, REGISTERED, DRAINED, VOLUMES_DETACHED, INSTANCE_TERMINATING)
    status = {"providerID": provider_id("ws1"), "nodeName": "n", "conditions": reached(*done)}
    annotations = {names.AGENT_POOL_ANNOTATION: "ws1"}
    finalizers = (names.TERMINATION_FINALIZER,)
    objects.create(
        CLAIMS, kaito_claim("ws1", status=status, finalizers=finalizers, annotations=annotations), by="client"
    )
    objects.create(NODES, raw_node("ws1", name="n", finalizers=finalizers), by="kubelet")
    objects.delete(NODES, "n", by="controller")
    objects.delete(CLAIMS, "ws1", by="client")
    gone = asyncio.Event()

    def on_change(change: Change) -> None:
        if change.plural == CLAIMS and change.after is None:
            gone.set()

    objects.on_change.append(on_change)
    kube, loop, slept = KubeGateway(transport=cluster), asyncio.get_running_loop(), [0.0]
    parts = Assembly(
        Settings(subscription_id="s", resource_group="r", cluster_name="c", deployment_mode="managed"),
        kube=kube,
        recorder=EventRecorder(kube, clock=lambda: datetime.now(UTC), instance="i"),
        session=ways_out.Azure(),
        metrics=Registry(),
        monotonic=lambda: loop.time() + slept[0],
        now=lambda: datetime.now(UTC),
        rng=random.Random(1),  # noqa: S311
    )
    # No LIST is so soon that it could miss what an earlier run has asked for.
    slept[0] = 100.0
    await parts.collector.collect()
    tasks = [asyncio.create_task(parts.controller.work()), asyncio.create_task(parts.inventory.run())]

    async with asyncio.timeout(10.0):
        await gone.wait()

    assert objects.get(NODES, "n") is None
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
