"""Evictions against an API server of moods, under wishes that change at random: what must hold all the same."""

import asyncio
import math
import random
from dataclasses import dataclass, field
from typing import Any

import pytest

from provisioner.kube.errors import Conflict, Forbidden, Gone, Unavailable
from provisioner.kube.events import EventRecorder
from provisioner.kube.metrics import Registry
from provisioner.nodeclaim.evictions import Evictions
from provisioner.nodeclaim.node_metrics import NodeMetrics
from provisioner.nodeclaim.view import Eviction
from tests.unit.builders import NOW, node
from tests.unit.pod_builders import pod
from tests.unit.virtual_time import now, virtual_time

NODES = tuple(node(f"w{number}") for number in range(3))
PODS = {each.name: tuple(pod(f"{each.name}-{number}") for number in range(4)) for each in NODES}
WORKERS = 3


@dataclass
class World:
    """What is wanted, and what the API server has been asked; holds each request against the wishes of its moment.

    `deadlines` are the earliest that were told since the pod has been wanted. An assertion in a request would count as
    a defect of that eviction alone, so that violations are collected.
    """

    rng: random.Random
    wanted: dict[str, Eviction] = field(default_factory=dict)  # by the pod's UID
    deadlines: dict[str, float] = field(default_factory=dict)
    accepted: dict[str, set[str]] = field(default_factory=dict)
    in_flight: set[str] = field(default_factory=set)
    violations: list[str] = field(default_factory=list)
    is_calm: bool = False

    def require(self, holds: bool, what: str) -> None:
        if not holds:
            self.violations.append(f"{now():.2f}: {what}")

    async def evict_pod(self, namespace: str, name: str, *, uid: str) -> None:
        self.require(uid not in self.deadlines, "a pod with a deadline is not evicted any more")
        await self._request("evict", uid)

    async def delete_pod(self, namespace: str, name: str, *, uid: str, grace_seconds: int) -> None:
        self.require(grace_seconds >= 1, "there is always a grace")
        left = self.deadlines.get(uid, math.inf) - now()
        self.require(left < math.inf, "without a deadline a pod is evicted")
        # One second for what may be the same deadline, and half a one for whole seconds.
        self.require(grace_seconds <= max(left, 1) + 1.5, "the earliest deadline holds")
        await self._request("delete", uid)

    async def _request(self, verb: str, uid: str) -> None:
        self.require(uid in self.wanted, "nothing is asked for a pod that nobody wants gone")
        self.require(uid not in self.in_flight, "one request for a pod at a time")
        self.in_flight.add(uid)
        self.require(len(self.in_flight) <= WORKERS, "no more at once than there are workers")
        try:
            await asyncio.sleep(self.rng.choice([0, 0.01, 1.5]))
        finally:
            self.in_flight.discard(uid)
        if not self.is_calm and self.rng.random() < 0.6:
            raise self.rng.choice(
                [
                    Gone("gone", status=404),
                    Conflict("another", status=409),
                    Forbidden("no", status=403),
                    Unavailable("no answer"),
                    Unavailable("budget", status=429, retry_after=self.rng.choice([None, 3.0, 60.0])),
                    ZeroDivisionError(),
                ]
            )
        self.accepted.setdefault(uid, set()).add(verb)

    def change(self, evictions: Evictions) -> None:
        """Take one look at one Node."""
        where = self.rng.choice(NODES)
        chosen = [each for each in PODS[where.name] if self.rng.random() < 0.7]
        for each in PODS[where.name]:
            if each not in chosen:
                self.wanted.pop(each.uid, None)
                self.deadlines.pop(each.uid, None)
        for each in chosen:
            grace = self.rng.choice([None, None, -3, 0, 5, 60])
            self.wanted[each.uid] = Eviction(pod=each, grace_seconds=grace)
            if grace is not None:
                self.deadlines[each.uid] = min(self.deadlines.get(each.uid, math.inf), now() + grace)
        if not chosen and self.rng.random() < 0.5:
            evictions.forget(where.name)
        else:
            evictions.want(where, [self.wanted[each.uid] for each in chosen], reason="Expired")

    async def get_event(self, namespace: str, name: str) -> dict[str, Any] | None:
        return None

    async def create_event(self, body: Any) -> dict[str, Any]:
        return dict(body)

    async def patch_event(self, namespace: str, name: str, patch: Any) -> dict[str, Any]:
        return dict(patch)


@pytest.mark.parametrize("seed", range(40))
def test_only_what_is_wanted_is_asked_for_and_all_of_it_in_the_end(seed: int) -> None:
    rng = random.Random(seed)  # noqa: S311 -- to be repeated

    @virtual_time
    async def run() -> None:
        world, registry = World(rng), Registry()
        async with EventRecorder(world, clock=lambda: NOW, instance="pod-0") as recorder:
            evictions = Evictions(
                world,
                recorder=recorder,
                rng=rng,
                metrics=registry,
                node_metrics=NodeMetrics(registry, nodes=tuple, now=lambda: NOW),
                workers=WORKERS,
            )
            running = asyncio.create_task(evictions.run())
            for _ in range(60):
                world.change(evictions)
                await asyncio.sleep(rng.choice([0, 0.05, 1, 12]))
            world.is_calm = True
            world.accepted.clear()
            await asyncio.sleep(30)
            for where in NODES:
                # As at the next look: what was accepted before and is still there is asked for once more.
                left = [world.wanted[each.uid] for each in PODS[where.name] if each.uid in world.wanted]
                evictions.want(where, left, reason="Expired")
            await asyncio.sleep(30)
            expected = {uid: "delete" if uid in world.deadlines else "evict" for uid in world.wanted}
            assert {uid: verb for uid, verb in expected.items() if verb not in world.accepted[uid]} == {}
            assert not any(evictions.blocked(where.name) for where in NODES)
            assert not running.done()
            running.cancel()
        assert world.violations == []

    run()
