"""A cluster and a subscription of one claim, in memory: what the controller's shell, Azure and the kubelet would do.

It carries Steps out in the order of their fields, and holds each single write against what must never happen.
"""

import copy
import dataclasses
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import Any

from provisioner.apis import names
from provisioner.apis.agentpool import AgentPool, ProvisioningError
from provisioner.apis.conditions import INITIALIZED, LAUNCHED, REGISTERED
from provisioner.apis.failure import Failure
from provisioner.apis.node import Node, parse_node
from provisioner.apis.nodeclaim import NodeClaim, parse_nodeclaim
from provisioner.apis.pod import Pod
from provisioner.apis.times import format_time
from provisioner.nodeclaim.agentpool_spec import pool_name
from provisioner.nodeclaim.garbage import launched, lost_claims, orphaned_pools
from provisioner.nodeclaim.lifecycle import reconcile
from provisioner.nodeclaim.node_deletion import on_node
from provisioner.nodeclaim.nodeclass import NOT_FOUND, ClassProblem
from provisioner.nodeclaim.policy import concerns_offer
from provisioner.nodeclaim.repair import fleet_of, is_due
from provisioner.nodeclaim.termination import nodes_to_read
from provisioner.nodeclaim.view import (
    CreatePool,
    DeletePool,
    Eviction,
    FindInstance,
    NodeEvictions,
    NodeLoad,
    NodePatch,
    Setback,
    Step,
    Timeouts,
    Unavailable,
    View,
    Waiting,
)
from provisioner.placement.memory import CAPACITY, OfferMemory
from tests.unit.builders import (
    GPU_TAINT,
    NOT_READY_TAINT,
    NOW,
    Listed,
    failure,
    kaito_claim,
    node_condition,
    placement_of,
    pool_of_put,
    provider_id,
    raw_node,
    view,
)

NO_ROOM = ProvisioningError(code="AllocationFailed", message="Allocation failed. There is not enough capacity.")
NO_CLASS = ClassProblem(reason=NOT_FOUND, message="There is no KaitoNodeClass gold.")
RETRY = timedelta(minutes=2)
TIMEOUTS = Timeouts(
    launch=timedelta(minutes=5),
    registration=timedelta(minutes=15),
    gpus=timedelta(minutes=10),
    unhealthy=timedelta(minutes=10),
)
_MAX_LOOKS = 12


class Crash(Exception):
    """The controller dies, between two writes."""


def merge(target: Any, patch: Any) -> Any:
    """Apply a JSON merge patch (RFC 7386)."""
    if not isinstance(patch, dict):
        return copy.deepcopy(patch)
    merged = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            merged.pop(key, None)
        else:
            merged[key] = merge(merged.get(key), value)
    return merged


class World:
    """One claim, its pools and its Nodes. `writes`, `told` and `events` collect what a client or an auditor sees."""

    def __init__(self, claim: dict[str, Any] | None = None) -> None:
        self.raw: dict[str, Any] | None = claim or kaito_claim()
        self.pools: dict[str, AgentPool] = {}
        self.nodes: dict[str, dict[str, Any]] = {}
        # By Node, and what is wanted of them.
        self.pods: dict[str, list[Pod]] = {}
        self.evicting: dict[str, tuple[Eviction, ...]] = {}
        self.now: datetime = NOW
        self.setback: Setback | None = None
        self.memory = OfferMemory()
        self.instance_id = ""
        self.waiting: Waiting | None = None
        # What Azure answers to a PUT or DELETE, and whether its list of pools can be had and shows VMs.
        self.refusal: Failure | None = None
        self.is_listed = True
        self.class_problem: ClassProblem | None = None
        self.has_machines = True
        self.repair_missing_gpus = False
        self.crash_in: int | None = None
        self.writes: list[str] = []
        self.told: list[tuple[str, str, str]] = []
        self.events: list[str] = []
        self.creations = 0

    # The controller

    @property
    def claim(self) -> NodeClaim:
        assert self.raw is not None, "the claim is gone"
        return parse_nodeclaim(self.raw)

    def view(self) -> View:
        nodes = [parse_node(raw) for raw in self.nodes.values()]
        is_unwell = is_due(self.claim, nodes, timeouts=TIMEOUTS, now=self.now, missing_gpus=self.repair_missing_gpus)
        return view(
            self.claim,
            *nodes,
            pools=self._listed(),
            placement=placement_of(self.claim, memory=self.memory, now=self.now),
            now=self.now,
            setback=self.setback,
            instance_id=self.instance_id,
            class_problem=self.class_problem,
            timeouts=TIMEOUTS,
            waiting=self.waiting,
            repair_missing_gpus=self.repair_missing_gpus,
            fleet=fleet_of(self.claim, nodes=nodes, claims=[self.claim]) if is_unwell else None,
            is_cluster_settled=True,
        )

    def _listed(self) -> Listed:
        if self.is_listed:
            return Listed(dict(self.pools))
        names_of = {self.claim.name, self.claim.agent_pool} if self.raw is not None else set()
        return Listed(unknown=names_of | {pool_name(name, alternative=True) for name in names_of} | set(self.pools))

    def look(self) -> Step:
        """Reconcile once and carry the step out."""
        self.now += timedelta(seconds=3, milliseconds=700)
        view = self.view()
        loads = {node.name: NodeLoad(pods=tuple(self.pods.get(node.name, ()))) for node in nodes_to_read(view)}
        step = reconcile(dataclasses.replace(view, loads=loads))
        self.waiting = step.waiting
        if step.settled:
            self.setback, self.instance_id = None, ""
        try:
            self._carry_out(step)
            self._look_at_nodes()
        except Crash:
            # What was only remembered is lost; the next look is the restarted controller's.
            self.crash_in = None
            self.restarts()
        return step

    def _carry_out(self, step: Step) -> None:
        order = [field.name for field in dataclasses.fields(Step)]
        if step.status_follows:
            order.remove("azure")
            order.insert(order.index("status"), "azure")
        for name in order:
            value = getattr(step, name)
            if value and (carry_out := getattr(self, f"_do_{name}", None)):
                carry_out(value, step)
            if name == "azure" and step.status_follows and self.refusal is not None:
                return

    def _look_at_nodes(self) -> None:
        """Look at the Nodes that somebody has deleted."""
        for raw in list(self.nodes.values()):
            node, claims = parse_node(raw), [self.claim] if self.raw is not None else []
            step = on_node(node, claims=claims, pools=self._listed())
            if step.delete_claim is not None:
                self._write("delete claim: its node was deleted")
                self.client_deletes()
            if step.release:
                self._write("node released")
                self._release_node(node.name)

    def settle(self) -> Step | None:
        """Reconcile until nothing is written any more; return the last step, None where the claim is gone."""
        for _ in range(_MAX_LOOKS):
            if self.raw is None:
                return None
            before, will_crash = len(self.writes), self.crash_in is not None
            step = self.look()
            has_crashed = will_crash and self.crash_in is None
            if len(self.writes) == before and not has_crashed:
                # What is said of a Node that is being drained is said at each look, and told once.
                assert all(notice.node for notice in step.notices), "a look that changes nothing tells nothing"
                self._check_rest(step)
                return step
        raise AssertionError(f"does not come to rest: {self.writes[-6:]}")

    def _check_rest(self, step: Step) -> None:
        """A claim that is not done is woken by its Node, by a timer, or by a change in the list of pools."""
        waits_for_node = self.claim.is_true(LAUNCHED) and not self.claim.is_deleting
        in_flight = any(pool.state in ("Creating", "Deleting") for pool in self.pools.values())
        assert waits_for_node or in_flight or step.refresh or step.again_after, "nobody looks at the claim again"

    def take(self) -> tuple[list[str], list[tuple[str, str, str]]]:
        """Return and forget the writes, and what they told the client."""
        writes, told = self.writes, self.told
        self.writes, self.told = [], []
        return writes, told

    def _write(self, what: str) -> None:
        if self.crash_in is not None:
            if self.crash_in == 0:
                raise Crash
            self.crash_in -= 1
        self.writes.append(what)

    def _do_metadata(self, patch: dict[str, Any], _: Step) -> None:
        self._write("metadata")
        self.raw = merge(self.raw, {"metadata": patch})

    def _do_node_patch(self, patch: NodePatch, _: Step) -> None:
        self._write("node")
        self.nodes[patch.node.name] = merge(self.nodes[patch.node.name], patch.patch)

    def _do_status(self, status: dict[str, Any], _: Step) -> None:
        self._write("status")
        before = self.claim
        self.raw = merge(self.raw, {"status": status})
        old = {c.type: (c.status, c.reason) for c in before.conditions}
        for condition in self.claim.conditions:
            assert condition.reason, f"{condition.type} has no reason"
            if old.get(condition.type) != (condition.status, condition.reason):
                self.told.append((condition.type, condition.status, condition.reason))
        self._check_status(before)

    def _check_status(self, before: NodeClaim) -> None:
        claim = self.claim
        if claim.is_true(LAUNCHED):
            assert claim.provider_id
            assert before.provider_id in ("", claim.provider_id), "the providerID of a claim never changes"
        else:
            assert not claim.is_true(REGISTERED)
        if claim.is_true(REGISTERED) and not before.is_true(REGISTERED):
            labels = self.nodes[claim.node_name]["metadata"]["labels"]
            assert labels["karpenter.sh/registered"] == "true"
            assert not claim.labels.items() - labels.items(), "the Node carries the claim's labels"
        if claim.is_true(INITIALIZED) and not before.is_true(INITIALIZED):
            node = parse_node(self.nodes[claim.node_name])
            assert claim.is_true(REGISTERED)
            assert node.is_ready
            assert node.labels["karpenter.sh/initialized"] == "true"

    def _do_unavailable(self, unavailable: Unavailable, _: Step) -> None:
        self.memory.remember(unavailable.keys, failure=unavailable.failure, now=self.now)

    def _do_notices(self, notices: tuple[Any, ...], _: Step) -> None:
        self.events += [("Warning " if notice.is_warning else "") + notice.reason for notice in notices]

    def _do_azure(self, request: CreatePool | DeletePool | FindInstance, step: Step) -> None:
        match request:
            case FindInstance():
                self.instance_id = provider_id(request.name) if self.has_machines else ""
                return
            case CreatePool():
                assert not self.claim.is_deleting
                assert self.claim.has_finalizer
                assert self.claim.agent_pool == request.name, "the pool's name is on the claim before Azure hears of it"
                assert request.name not in self.pools
                self._write(f"create {request.name}")
            case DeletePool():
                assert self.view().owns(self.pools[request.name])
                assert not self.pools[request.name].is_deleting
                self._write(f"delete {request.name}")
        if self.refusal is not None:
            if isinstance(request, CreatePool) and concerns_offer(self.refusal):
                self.memory.remember(request.offer.keys, failure=self.refusal, now=self.now)
            else:
                self._set_back(type(request), self.refusal)
        elif isinstance(request, CreatePool):
            self.creations += 1
            self.pools[request.name] = pool_of_put(request.name, request.body)
        else:
            self.pools[request.name] = dataclasses.replace(self.pools[request.name], state="Deleting")
            if step.setback is not None:
                self._set_back(CreatePool, step.setback)

    def _set_back(self, request: type[CreatePool] | type[DeletePool], failure: Failure) -> None:
        self.setback = Setback(failure=failure, request=request, attempts=1, retry_at=self.now + RETRY)

    def _do_going_nodes(self, nodes: tuple[Node, ...], _: Step) -> None:
        for node in nodes:
            assert names.TERMINATION_FINALIZER in node.finalizers, "it would be gone before it is drained"
            self._write("node deleted")
            self._delete_node(node.name)

    def _do_evictions(self, wanted: tuple[NodeEvictions, ...], _: Step) -> None:
        for entry in wanted:
            assert any(taint.key == names.DISRUPTED_TAINT_KEY for taint in entry.node.taints)
            self.evicting[entry.node.name] = entry.evictions

    def _do_deleted_nodes(self, nodes: tuple[Node, ...], _: Step) -> None:
        for node in nodes:
            self._write("node gone")
            self._release_node(node.name)
            self.nodes.pop(node.name, None)

    def _release_node(self, name: str) -> None:
        metadata = self.nodes[name]["metadata"]
        metadata["finalizers"] = [each for each in metadata.get("finalizers", ()) if "termination" not in each]
        if "deletionTimestamp" in metadata and not metadata["finalizers"]:
            del self.nodes[name]

    def _delete_node(self, name: str) -> None:
        metadata = self.nodes[name]["metadata"]
        if metadata.get("finalizers"):
            metadata["deletionTimestamp"] = format_time(self.now)
        else:
            del self.nodes[name]

    def _do_release(self, _: bool, step: Step) -> None:
        assert step.status is None
        assert not any(pool.claim_uid == self.claim.uid for pool in self.pools.values()), "a pool is left behind"
        self._write("released")
        assert self.raw is not None
        self.raw["metadata"]["finalizers"].remove(names.TERMINATION_FINALIZER)
        if not self.raw["metadata"]["finalizers"]:
            self.raw = None

    def _do_delete_claim(self, reason: str, _: Step) -> None:
        self._write(f"delete claim: {reason}")
        self.client_deletes()

    def restarts(self) -> None:
        """Lose what the controller only remembers."""
        self.setback, self.instance_id, self.waiting, self.memory = None, "", None, OfferMemory()

    # Everybody else

    def client_deletes(self) -> None:
        if self.raw is None or self.claim.is_deleting:
            return
        if not self.raw["metadata"].get("finalizers"):
            self.raw = None
            return
        self.raw["metadata"]["deletionTimestamp"] = format_time(self.now)
        self.raw["metadata"]["generation"] += 1

    def azure_finishes(self) -> None:
        """End every operation well; the kubelet of a VM that is gone reports no more."""
        for name, pool in list(self.pools.items()):
            if not pool.is_deleting:
                self.pools[name] = dataclasses.replace(pool, state="Succeeded")
                continue
            del self.pools[name]
            for raw in self.nodes.values():
                if parse_node(raw).agent_pool == name:
                    raw["status"]["conditions"] = [node_condition("Ready", "Unknown", since=self.now)]

    def azure_fails(self, error: ProvisioningError) -> None:
        """End every creation badly."""
        for name, pool in self.pools.items():
            if pool.state == "Creating":
                self.pools[name] = dataclasses.replace(pool, state="Failed", error=error)

    def node_joins(self, **changes: Any) -> None:
        """Have a Node of each pool register, unless the pool goes."""
        for name, pool in self.pools.items():
            raw = raw_node(name, created=self.now, since=self.now, **changes)
            if not pool.is_deleting and raw["metadata"]["name"] not in self.nodes:
                raw["metadata"]["labels"] |= pool.node_labels
                self.nodes[raw["metadata"]["name"]] = raw

    def kubelet_reports(self, **changes: Any) -> None:
        """Change what every Node with a VM says of itself: `ready`, `taints`, `gpus`."""
        for name, old in self.nodes.items():
            was = parse_node(old).condition("Ready")
            assert was is not None
            is_same = was.status == changes.get("ready", "True")
            new = raw_node(since=(is_same and was.since) or self.now, **changes)
            if parse_node(old).agent_pool in self.pools:
                self.nodes[name] = merge(old, {"status": new["status"], "spec": {"taints": new["spec"]["taints"]}})

    def pods_run(self, *pods: Pod) -> None:
        """Have pods on every Node, beside those that are there."""
        for name in self.nodes:
            self.pods[name] = [*self.pods.get(name, ()), *pods]

    def pods_leave(self) -> None:
        """End what was asked to go."""
        for name, wanted in self.evicting.items():
            uids = {eviction.pod.uid for eviction in wanted}
            self.pods[name] = [pod for pod in self.pods.get(name, ()) if pod.uid not in uids]

    def somebody_deletes_the_nodes(self) -> None:
        for name in list(self.nodes):
            self._delete_node(name)

    def somebody_deletes_the_pools(self) -> None:
        self.pools = {name: dataclasses.replace(pool, state="Deleting") for name, pool in self.pools.items()}

    def garbage_is_collected(self) -> None:
        claims = [self.claim] if self.raw is not None else []
        uids, claim_names = {claim.uid for claim in claims}, {claim.name for claim in claims}
        for pool in orphaned_pools(self.pools.values(), claim_uids=uids, claim_names=claim_names):
            self.pools[pool.name] = dataclasses.replace(pool, state="Deleting")
        by_provider_id = {node.provider_id.lower(): [node] for node in map(parse_node, self.nodes.values())}
        if lost_claims(claims, launched_before=launched(claims), pools=self.pools, nodes=by_provider_id):
            self.client_deletes()

    def everything_ends_well(self) -> None:
        """Take all obstacles away and give it time."""
        self.refusal, self.class_problem, self.is_listed, self.has_machines = None, None, True, True
        for _ in range(5):
            self.settle()
            self.pods_leave()
            self.settle()
            self.azure_finishes()
            self.garbage_is_collected()
            if self.raw is not None and not self.claim.is_deleting:
                self.node_joins()
                self.kubelet_reports()
            self.settle()
            self.retry_is_due()

    def retry_is_due(self) -> None:
        """Let pass what Azure's last refusal asks for, what is remembered of the size, and every timeout."""
        self.now += max(RETRY, CAPACITY)


# The stages of a claim's life, each to be had from a new world.


def created(world: World) -> None:
    world.settle()


def joined(world: World) -> None:
    created(world)
    world.node_joins(ready="False", taints=[GPU_TAINT, NOT_READY_TAINT], gpus=None)
    world.settle()


def running(world: World) -> None:
    joined(world)
    world.kubelet_reports(gpus=None)
    world.settle()


def ready(world: World) -> None:
    running(world)
    world.azure_finishes()
    world.kubelet_reports()
    world.settle()


def refused(world: World) -> None:
    world.refusal = failure()
    world.settle()
    world.refusal = None


def failed(world: World) -> None:
    created(world)
    world.azure_fails(NO_ROOM)


def failed_and_going(world: World) -> None:
    failed(world)
    world.settle()


def without_node(world: World) -> None:
    created(world)
    world.azure_finishes()
    world.settle()
    # Until Azure was asked for the VM.
    world.now += timedelta(seconds=10)
    world.settle()


def not_listed(world: World) -> None:
    created(world)
    world.is_listed = False


STAGES: Mapping[str, Callable[[World], None]] = {
    "new": lambda world: None,
    "refused": refused,
    "created": created,
    "not listed": not_listed,
    "failed": failed,
    "failed and going": failed_and_going,
    "without node": without_node,
    "joined": joined,
    "running": running,
    "ready": ready,
}
