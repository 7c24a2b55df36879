"""The queue of evictions: what is asked of the API server for a pod that is to go, how often, and what is told."""

import asyncio
import gc
import itertools
import random
import weakref
from collections.abc import Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest

from provisioner.apis.pod import Pod
from provisioner.kube.errors import Conflict, Forbidden, Gone, KubeError, Unavailable
from provisioner.kube.events import EventRecorder
from provisioner.kube.metrics import Registry
from provisioner.nodeclaim.evictions import Evictions
from provisioner.nodeclaim.node_metrics import NodeMetrics
from provisioner.nodeclaim.view import Eviction
from tests.unit.builders import NOW, node
from tests.unit.pod_builders import pod
from tests.unit.virtual_time import now, virtual_time

NODE = node("w1")
OTHER = node("w2")
WHY = "Forceful Termination"
BUDGET = Unavailable("POST p: 429: no", status=429, reason="TooManyRequests", told="The budget web needs 1 and has 1.")
BUDGETS = Unavailable(
    "POST p: 500: no",
    status=500,
    reason="InternalError",
    told="This pod has more than one PodDisruptionBudget, which the eviction subresource does not support.",
)


@dataclass
class Kube:
    """The API server: notes each request with its moment, and refuses as told."""

    requests: list[tuple[float, str, str, int | None]] = field(default_factory=list)
    errors: dict[str, Exception] = field(default_factory=dict)  # by the pod's name
    takes: float = 0.0
    at_once: int = 0
    most_at_once: int = 0
    events: list[dict[str, Any]] = field(default_factory=list)

    async def evict_pod(self, namespace: str, name: str, *, uid: str) -> None:
        await self._request("evict", name, uid, None)

    async def delete_pod(self, namespace: str, name: str, *, uid: str, grace_seconds: int) -> None:
        await self._request("delete", name, uid, grace_seconds)

    async def _request(self, verb: str, name: str, uid: str, grace: int | None) -> None:
        self.requests.append((now(), verb, uid, grace))
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        await asyncio.sleep(self.takes)
        self.at_once -= 1
        if name in self.errors and verb == "evict":
            raise self.errors[name]

    async def get_event(self, namespace: str, name: str) -> dict[str, Any] | None:
        return None

    async def create_event(self, body: Any) -> dict[str, Any]:
        self.events.append(body)
        return dict(body)

    async def patch_event(self, namespace: str, name: str, patch: Any) -> dict[str, Any]:
        raise AssertionError("each Event is written once here")

    @property
    def asked(self) -> list[tuple[str, str]]:
        return [(verb, uid) for _, verb, uid, _ in self.requests]

    @property
    def told(self) -> list[tuple[str, str, str]]:
        return [(event["type"], event["reason"], event["involvedObject"]["kind"]) for event in self.events]


class World:
    """Evictions at work."""

    def __init__(self, kube: Kube, evictions: Evictions, registry: Registry) -> None:
        self.kube, self.evictions, self.registry = kube, evictions, registry

    def want(self, *pods: Pod, grace: int | None = None, reason: str = WHY) -> None:
        self.evictions.want(NODE, [Eviction(pod=each, grace_seconds=grace) for each in pods], reason=reason)

    def lines(self, name: str) -> list[str]:
        return [line for line in self.registry.expose().splitlines() if line.startswith(name + "{")]


def in_world(test: Callable[[World], Awaitable[None]]) -> Callable[[], None]:
    """Run the test in virtual time, beside running evictions."""

    @virtual_time
    async def run() -> None:
        async with world() as made:
            await test(made)

    run.__name__ = test.__name__
    return run


@asynccontextmanager
async def world(*, workers: int = 20) -> Any:
    kube, registry = Kube(), Registry()
    async with EventRecorder(kube, clock=lambda: NOW, instance="pod-0") as recorder:
        evictions = Evictions(
            kube,
            recorder=recorder,
            rng=random.Random(7),  # noqa: S311 -- for jitter
            metrics=registry,
            node_metrics=NodeMetrics(registry, nodes=list, now=lambda: NOW),
            workers=workers,
        )
        running = asyncio.create_task(evictions.run())
        yield World(kube, evictions, registry)
        assert not running.done()
        running.cancel()


# The eviction API


@pytest.mark.parametrize("answer", [Gone("missing", status=404), Conflict("another UID", status=409)])
def test_pod_that_is_gone_or_made_anew_is_done_without_an_event(answer: KubeError) -> None:
    @in_world
    async def run(world: World) -> None:
        world.kube.errors = {"p1": answer}
        world.want(pod())
        await asyncio.sleep(5)
        world.want(pod())
        await asyncio.sleep(2)
        assert world.kube.asked == [("evict", "uid-of-p1")]
        assert world.kube.told == []
        assert world.evictions.blocked(NODE.name) == {}
        assert world.lines("karpenter_pods_drained_total") == []
        assert world.lines("karpenter_pods_eviction_requests_total") == [
            f'karpenter_pods_eviction_requests_total{{code="{answer.status}"}} 1'
        ]

    run()


@in_world
async def test_pod_that_no_budget_guards_is_evicted_and_told_so(world: World) -> None:
    world.want(pod(), reason="Expired")
    await asyncio.sleep(1)
    assert world.kube.asked == [("evict", "uid-of-p1")]
    [event] = world.kube.events
    assert (event["type"], event["reason"], event["message"]) == ("Normal", "Evicted", "Evicted pod: Expired")
    assert event["involvedObject"] == {
        "apiVersion": "v1",
        "kind": "Pod",
        "name": "p1",
        "uid": "uid-of-p1",
        "namespace": "default",
    }
    assert event["metadata"]["namespace"] == "default"


@in_world
async def test_evicted_pods_are_counted_by_reason(world: World) -> None:
    world.want(pod("a"), pod("b"))
    world.evictions.want(OTHER, [Eviction(pod=pod("c"))], reason="unhealthy")
    await asyncio.sleep(1)
    assert world.lines("karpenter_pods_drained_total") == [
        'karpenter_pods_drained_total{reason="Forceful Termination"} 2',
        'karpenter_pods_drained_total{reason="unhealthy"} 1',
    ]
    assert world.lines("karpenter_pods_eviction_requests_total") == [
        'karpenter_pods_eviction_requests_total{code="200"} 3'
    ]


@pytest.mark.parametrize("refusal", [BUDGET, BUDGETS])
def test_budgets_that_forbid_are_told_on_the_node_until_they_allow(refusal: Unavailable) -> None:
    @in_world
    async def run(world: World) -> None:
        world.kube.errors = {"p1": refusal}
        world.want(pod())
        await asyncio.sleep(60)
        assert world.kube.told == [("Warning", "FailedDraining", "Node")]
        [event] = world.kube.events
        assert event["involvedObject"]["name"] == NODE.name
        assert event["message"] == f"Pod default/p1 cannot be evicted: {refusal.told}"
        assert world.evictions.blocked(NODE.name) == {"uid-of-p1": refusal.told}
        assert world.evictions.blocked(OTHER.name) == {}
        world.kube.errors = {}
        await asyncio.sleep(10)
        assert world.kube.told[1:] == [("Normal", "Evicted", "Pod")]
        assert world.evictions.blocked(NODE.name) == {}

    run()


@in_world
async def test_budget_that_allows_after_a_while_is_asked_again_without_being_told_of_the_pod_again(
    world: World,
) -> None:
    world.kube.errors = {"p1": BUDGET}
    for _ in range(30):
        world.want(pod())
        await asyncio.sleep(1)
    world.kube.errors = {}
    for _ in range(10):
        world.want(pod())
        await asyncio.sleep(1)
    assert world.kube.told == [("Warning", "FailedDraining", "Node"), ("Normal", "Evicted", "Pod")]


@in_world
async def test_pauses_grow_from_a_tenth_of_a_second_to_ten(world: World) -> None:
    world.kube.errors = {"p1": BUDGET}
    world.want(pod())
    await asyncio.sleep(120)
    moments = [moment for moment, *_ in world.kube.requests]
    pauses = [after - before for before, after in itertools.pairwise(moments)]
    nominal = [min(10.0, 0.1 * 2**n) for n in range(len(pauses))]
    assert len(pauses) > 12
    assert all(half / 2 <= pause <= half + 0.01 for pause, half in zip(pauses, nominal, strict=True))
    assert len(set(pauses[7:])) > 1, "pods that failed together part ways"


@in_world
async def test_wait_that_the_api_server_asks_for_is_kept(world: World) -> None:
    world.kube.errors = {"p1": Unavailable("busy", status=429, retry_after=4.0)}
    world.want(pod())
    for _ in range(15):
        await asyncio.sleep(0.25)
        world.want(pod())
    assert len(world.kube.requests) == 1
    await asyncio.sleep(1)
    assert len(world.kube.requests) == 2


@pytest.mark.parametrize(
    "error",
    [
        Forbidden("may not evict", status=403),
        Unavailable("no answer within 30 s"),
        Unavailable("etcd", status=500, told="etcdserver: request timed out"),
    ],
)
def test_other_refusals_are_logged_once_and_tried_again(error: KubeError, caplog: pytest.LogCaptureFixture) -> None:
    @in_world
    async def run(world: World) -> None:
        world.kube.errors = {"p1": error}
        world.want(pod())
        await asyncio.sleep(30)
        assert len(world.kube.requests) > 5
        assert world.kube.told == []
        assert world.evictions.blocked(NODE.name) == {"uid-of-p1": error.told}
        codes = world.lines("karpenter_pods_eviction_requests_total")
        assert len(codes) == (1 if error.status else 0), "without an answer there is no code"

    run()
    assert [record.levelname for record in caplog.records] == ["WARNING"]


@in_world
async def test_defect_in_one_eviction_ends_no_other(world: World) -> None:
    world.kube.errors = {"p1": ZeroDivisionError()}
    world.want(pod(), pod("p2"))
    await asyncio.sleep(30)
    assert ("evict", "uid-of-p2") in world.kube.asked
    assert world.kube.asked.count(("evict", "uid-of-p1")) > 5


# What is wanted


@in_world
async def test_pods_can_be_wanted_while_others_are_being_evicted(world: World) -> None:
    world.kube.takes = 0.5
    for count in range(1, 31):
        world.want(*(pod(f"p{number}") for number in range(count)))
        await asyncio.sleep(0.1)
    await asyncio.sleep(2)
    assert sorted(world.kube.asked) == sorted(("evict", f"uid-of-p{number}") for number in range(30))


@in_world
async def test_pod_wanted_many_times_is_asked_to_go_once(world: World) -> None:
    world.kube.takes = 0.5
    for _ in range(8):
        world.want(pod())
        await asyncio.sleep(1)
    assert world.kube.asked == [("evict", "uid-of-p1")]
    assert world.kube.told == [("Normal", "Evicted", "Pod")]


@in_world
async def test_pod_that_stays_though_its_eviction_was_accepted_is_asked_again(world: World) -> None:
    for _ in range(14):
        world.want(pod())
        await asyncio.sleep(1)
    assert world.kube.asked == [("evict", "uid-of-p1")] * 2


@in_world
async def test_pod_that_is_no_longer_wanted_is_left_alone(world: World) -> None:
    world.kube.errors = {"p1": BUDGET, "p2": BUDGET}
    world.want(pod(), pod("p2"))
    await asyncio.sleep(30)
    world.want(pod("p2"))
    before = world.kube.asked.count(("evict", "uid-of-p1"))
    await asyncio.sleep(30)
    assert world.kube.asked.count(("evict", "uid-of-p1")) == before
    assert set(world.evictions.blocked(NODE.name)) == {"uid-of-p2"}
    world.evictions.forget(NODE.name)
    before = len(world.kube.requests)
    await asyncio.sleep(30)
    assert len(world.kube.requests) == before
    assert world.evictions.blocked(NODE.name) == {}


@in_world
async def test_refusal_of_a_pod_that_is_no_longer_wanted_is_not_told(world: World) -> None:
    world.kube.errors = {"p1": BUDGET}
    world.kube.takes = 1.0
    world.want(pod())
    await asyncio.sleep(0.5)
    world.evictions.forget(NODE.name)
    await asyncio.sleep(30)
    assert len(world.kube.requests) == 1
    assert world.kube.told == []


@in_world
async def test_new_pod_of_the_same_name_is_another_one(world: World) -> None:
    world.want(pod(uid="first"))
    await asyncio.sleep(1)
    world.want(pod(uid="second"))
    await asyncio.sleep(1)
    assert world.kube.asked == [("evict", "first"), ("evict", "second")]


@in_world
async def test_nodes_are_apart(world: World) -> None:
    world.kube.errors = {"a": BUDGET}
    world.want(pod("a"))
    world.evictions.want(OTHER, [Eviction(pod=pod("b"))], reason=WHY)
    world.evictions.want(OTHER, [], reason=WHY)
    await asyncio.sleep(5)
    assert set(world.evictions.blocked(NODE.name)) == {"uid-of-a"}


@in_world
async def test_nothing_is_kept_once_nothing_is_wanted(world: World) -> None:
    world.kube.errors = {"p1": BUDGET, "p2": Forbidden("no", status=403)}
    pods = [pod(), pod("p2"), pod("p3")]
    kept = [weakref.ref(each) for each in pods]
    world.want(*pods)
    world.want(*pods, grace=600)
    await asyncio.sleep(30)
    world.want()
    pods.clear()
    await asyncio.sleep(30)
    gc.collect()
    assert [each() for each in kept] == [None] * 3
    depth = 'workqueue_depth{name="eviction-queue"} 0'
    assert depth in world.registry.expose()


@virtual_time
async def test_so_many_are_asked_for_side_by_side_and_no_more() -> None:
    async with world(workers=4) as made:
        made.kube.takes = 1.0
        made.want(*(pod(f"p{number}") for number in range(10)))
        await asyncio.sleep(10)
        assert made.kube.most_at_once == 4
        assert len(made.kube.requests) == 10


# Deletions once time is up


@in_world
async def test_pod_is_deleted_with_the_grace_that_is_left_whatever_budgets_say(world: World) -> None:
    world.kube.errors = {"p1": BUDGET}
    world.want(pod(terminationGracePeriodSeconds=600), grace=45)
    await asyncio.sleep(5)
    assert world.kube.requests == [(0.0, "delete", "uid-of-p1", 45)]
    [event] = world.kube.events
    assert (event["type"], event["reason"]) == ("Normal", "Disrupted")
    assert event["message"].startswith("Deleted with 45 s of grace, of 600 s that the pod asks for")
    assert world.lines("karpenter_pods_eviction_requests_total") == []


@in_world
async def test_eviction_that_waits_becomes_a_deletion_at_once(world: World) -> None:
    world.kube.errors = {"p1": Unavailable("no", status=429, retry_after=9.0)}
    world.want(pod())
    await asyncio.sleep(1)
    world.want(pod(), grace=30)
    await asyncio.sleep(1)
    assert world.kube.requests == [(0.0, "evict", "uid-of-p1", None), (1.0, "delete", "uid-of-p1", 30)]
    await asyncio.sleep(20)
    assert len(world.kube.requests) == 2


@in_world
async def test_eviction_that_was_accepted_becomes_a_deletion_where_its_grace_is_too_long(world: World) -> None:
    world.want(pod())
    await asyncio.sleep(2)
    world.want(pod(), grace=30)
    await asyncio.sleep(1)
    assert [verb for _, verb, *_ in world.kube.requests] == ["evict", "delete"]


@in_world
async def test_eviction_in_flight_that_becomes_a_deletion_is_followed_by_it(world: World) -> None:
    world.kube.takes = 1.0
    world.want(pod())
    await asyncio.sleep(0.5)
    world.want(pod(), grace=30)
    await asyncio.sleep(5)
    assert world.kube.requests == [(0.0, "evict", "uid-of-p1", None), (1.0, "delete", "uid-of-p1", 30)]


@in_world
async def test_earlier_deadline_is_kept_against_a_looser_one(world: World) -> None:
    world.kube.takes = 1.0
    world.evictions.want(OTHER, [Eviction(pod=pod(f"before-{number}")) for number in range(20)], reason=WHY)
    await asyncio.sleep(0.25)
    world.want(pod(), grace=20)
    world.want(pod(), grace=300)
    world.want(pod())
    await asyncio.sleep(5)
    [(moment, verb, _, grace)] = [request for request in world.kube.requests if request[2] == "uid-of-p1"]
    assert (moment, verb, grace) == (1.0, "delete", 19), "the second that it has waited counts"


@in_world
async def test_same_deadline_seen_at_every_look_is_one_deletion(world: World) -> None:
    for left in range(9, 1, -1):
        world.want(pod(), grace=left)
        await asyncio.sleep(1.0)
    assert [grace for *_, grace in world.kube.requests] == [9]
    assert world.kube.told == [("Normal", "Disrupted", "Pod")]


@in_world
async def test_deadline_brought_forward_is_another_deletion(world: World) -> None:
    world.want(pod(), grace=300)
    await asyncio.sleep(1)
    world.want(pod(), grace=5)
    await asyncio.sleep(1)
    assert [grace for *_, grace in world.kube.requests] == [300, 5]
    assert world.kube.told == [("Normal", "Disrupted", "Pod")]


@pytest.mark.parametrize("grace", [1, 0, -90])
def test_grace_is_a_second_at_least_however_long_the_deadline_is_over(grace: int) -> None:
    # With none at all the API server would drop the pod while its containers run.
    @in_world
    async def run(world: World) -> None:
        world.want(pod(), grace=grace)
        await asyncio.sleep(5)
        assert [given for *_, given in world.kube.requests] == [1]

    run()
