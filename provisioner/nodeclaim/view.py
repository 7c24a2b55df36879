"""What a reconcile sees, and what it answers. Plain data: phases turn a View into a Draft, the controller acts."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Protocol

from provisioner.apis import names
from provisioner.apis.agentpool import AgentPool, pool_of_provider_id
from provisioner.apis.conditions import Condition, ConditionSet
from provisioner.apis.failure import Failure
from provisioner.apis.node import Node
from provisioner.apis.nodeclaim import NodeClaim
from provisioner.apis.nodeclass import DEFAULTS, NodeClassSpec
from provisioner.apis.pod import Pod
from provisioner.azure.inventory import Lookup
from provisioner.nodeclaim.agentpool_spec import creation_timestamp_label, pool_name
from provisioner.nodeclaim.delays import Delay
from provisioner.nodeclaim.nodeclass import ClassProblem
from provisioner.placement.market import Offer, OfferKey, Placement
from provisioner.placement.size import Size


class Pools(Protocol):
    """The agent pools as last listed; the inventory is one."""

    @property
    def pools(self) -> Mapping[str, AgentPool]:
        """Return the known pools by name."""
        ...

    @property
    def failure(self) -> Failure | None:
        """Return why the pools could not be listed lately, None where they could."""
        ...

    @property
    def is_settled(self) -> bool:
        """Tell whether they were listed late enough to show what an earlier run of the controller has asked for."""
        ...

    def of_claim(self, uid: str) -> Collection[AgentPool]:
        """Return the known pools that carry our tag for the claim of that UID."""
        ...

    def lookup(self, name: str) -> AgentPool | Lookup:
        """Return the pool, or whether it is certain that there is none."""
        ...

    def is_confirmed(self, uid: str, *, name: str) -> bool:
        """Tell whether they were listed since that was first asked for the claim of that UID.

        Claims of the pool `name` are looked at when they are.
        """
        ...


@dataclass(frozen=True, kw_only=True)
class Setback:
    """Azure's last refusal of a request that says nothing about the offer asked for.

    Kept in memory only, a restart asks Azure again. What says something about an offer is remembered for all claims.
    """

    failure: Failure
    request: type["CreatePool"] | type["DeletePool"]
    attempts: int
    retry_at: datetime


@dataclass(frozen=True, kw_only=True)
class Timeouts:
    """How long a claim may wait for its node class, for its Node and for its GPUs, and how long its Node may be unwell.

    None: without end.
    """

    launch: timedelta | None = None
    registration: timedelta | None = None
    gpus: timedelta | None = None
    unhealthy: timedelta | None = None


@dataclass(frozen=True, kw_only=True)
class Fleet:
    """The Nodes that a claim's own is one of: how many there are, and how many of them are not well."""

    total: int
    unhealthy: int


@dataclass(frozen=True, kw_only=True)
class Waiting:
    """What a claim has waited for, and since when, as the last look at it has seen it.

    Kept in memory only, a restart begins to count anew where the claim's conditions do not tell.
    """

    what: str
    since: datetime


@dataclass(frozen=True, kw_only=True)
class Target:
    """What the claim's node would be if its pool was made now; what is empty is not known now.

    `kubernetes_version` is the control plane's and `node_image` the newest for the pool, None where nobody asks for it.
    `class_hash` is None while the claim's node class is not known, and empty where there is none.
    """

    kubernetes_version: str = ""
    node_image: str | None = None
    class_hash: str | None = None


@dataclass(frozen=True, kw_only=True)
class NodeLoad:
    """What keeps a Node from being taken down, as just listed.

    `pods` are all that are bound to it, `volumes` the names of its VolumeAttachments that a pod which has to leave may
    still hold.
    """

    pods: tuple[Pod, ...]
    volumes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Eviction:
    """A pod that has to leave its Node: by an eviction, or with so many seconds of grace whatever budgets say."""

    pod: Pod
    grace_seconds: int | None = None


@dataclass(frozen=True, kw_only=True)
class NodeEvictions:
    """All that is to be evicted from a Node now, and why, as Events about the pods tell; none where it is drained."""

    node: Node
    evictions: tuple[Eviction, ...]
    reason: str


@dataclass(frozen=True, kw_only=True)
class View:
    """Everything that a decision about one claim rests on.

    `is_region_known` is False until the cluster's location and sizes were asked for: no pool is asked for before;
    `region_failure` says why they are not known. `is_quota_known` is False while newer usages are being read.
    `is_tried_by_another` says that somebody else is finding out whether the best offer can be had.
    `recorded_size` is what the claim's pool was asked for with, which later lists of sizes do not change.
    `nodes` are the Nodes of the claim's agent pool and those with its providerID. `instance_id` is the providerID of
    the pool's VM, known from Azure when no Node has told it. `node_class` is what the claim's node class says,
    `class_problem` why it cannot be used, and `is_node_class_known` is False while that cannot be told. `size_delay`
    holds for the best offer's size.
    `loads` are by Node's name, and only of Nodes that were asked about; `loads_error` says why they could not be read.
    `blocked` says of pods, by their UIDs, why they could not be made to leave when that was last tried.
    `replaces_drifted` is the wish that a claim whose node differs from the `target` be written anew, and
    `is_replacing_another` says that it is another's turn. `fleet` is counted where the claim's Node may be due for
    repair in a cluster that is settled, else None; `is_cluster_settled` is None where nobody asked lately.
    """

    claim: NodeClaim
    nodes: tuple[Node, ...]
    pools: Pools
    placement: Placement
    now: datetime
    location: str = ""
    is_region_known: bool = True
    is_quota_known: bool = True
    is_tried_by_another: bool = False
    region_failure: Failure | None = None
    recorded_size: Size | None = None
    setback: Setback | None = None
    instance_id: str = ""
    wait_for_gpus: bool = True
    node_class: NodeClassSpec = DEFAULTS
    class_problem: ClassProblem | None = None
    is_node_class_known: bool = True
    size_delay: Delay | None = None
    timeouts: Timeouts = Timeouts()
    waiting: Waiting | None = None
    loads: Mapping[str, NodeLoad] = field(default_factory=dict)
    loads_error: str = ""
    blocked: Mapping[str, str] = field(default_factory=dict)
    target: Target = Target()
    replaces_drifted: bool = False
    is_replacing_another: bool = False
    repair_missing_gpus: bool = False
    fleet: Fleet | None = None
    is_cluster_settled: bool | None = None

    @property
    def pool_name(self) -> str:
        """Return the recorded pool name, or the one that the claim would get."""
        return self.claim.agent_pool or pool_name(self.claim.name)

    def owns(self, pool: AgentPool) -> bool:
        """Tell whether the pool was made for this very claim: by our tag, or by the peer for a claim of this age."""
        if pool.claim_uid:
            return pool.claim_uid == self.claim.uid
        if not pool.has_peers_marks or pool.name != self.claim.name:
            return False
        return pool.node_labels.get(names.CREATION_TIMESTAMP_LABEL) == creation_timestamp_label(self.claim.created)

    def waits_until_retry(self, request: type["CreatePool"] | type["DeletePool"]) -> bool:
        """Tell whether Azure has refused that request lately and is not to be asked again yet."""
        return self.setback is not None and self.setback.request is request and self.now < self.setback.retry_at

    @property
    def size(self) -> Size | None:
        """Return the VM size of the claim's pool, recorded or to be asked for."""
        return self.recorded_size or (self.offer.size if self.offer else None)

    @property
    def offer(self) -> Offer | None:
        """Return what Azure is to be asked for, None where there is nothing to ask for."""
        return self.placement.best

    @property
    def joined_nodes(self) -> tuple[Node, ...]:
        """Return the claim's Nodes, oldest first.

        A Node older than the claim is the leftover of an earlier pool of that name: AKS numbers VMs from 0 again, and
        a Node object may outlive its VM.
        """
        provider_id, pool = self.claim.provider_id.lower(), self.pool_name
        found = [
            node
            for node in self.nodes
            if node.created >= self.claim.created
            and node.provider_id
            and (
                node.provider_id.lower() == provider_id
                if provider_id
                else pool_of_provider_id(node.provider_id) == pool
            )
        ]
        return tuple(sorted(found, key=lambda node: (node.created, node.name)))


@dataclass(frozen=True, kw_only=True)
class CreatePool:
    """Ask Azure for the pool, provided that none of that name exists."""

    name: str
    body: Mapping[str, Any]
    offer: Offer


@dataclass(frozen=True, kw_only=True)
class DeletePool:
    """Ask Azure to take the pool down."""

    name: str


@dataclass(frozen=True, kw_only=True)
class FindInstance:
    """Ask Azure for the VM of the pool: it stands, but no Node of it has joined."""

    name: str


@dataclass(frozen=True, kw_only=True)
class NodePatch:
    """A merge patch of a Node."""

    node: Node
    patch: Mapping[str, Any]

    @property
    def is_of_version(self) -> bool:
        """Tell whether the patch is valid only for the version it was computed from: it replaces the list of taints.

        Labels and annotations are merged by the API server. Owner references are a list as well, but of a Node that has
        none, or none to keep.
        """
        return "spec" in self.patch


@dataclass(frozen=True, kw_only=True)
class Unavailable:
    """What Azure has failed to deliver: nobody asks for it again for a while."""

    keys: tuple[OfferKey, ...]
    failure: Failure


@dataclass(frozen=True, kw_only=True)
class Notice:
    """A Kubernetes Event about the claim, or about its Node where one is given."""

    reason: str
    message: str
    is_warning: bool = False
    node: Node | None = None


@dataclass(frozen=True, kw_only=True)
class Ailment:
    """What a claim is deleted for where its Node is not well: its condition, or the reason why it lacks GPUs."""

    condition: str
    image_id: str


@dataclass(frozen=True, kw_only=True)
class Step:
    """What is to be done now, carried out in the order of the fields; the first that fails ends it.

    The order is what makes a crash at any point safe: a pool's name is on the claim before Azure hears of it, a Node
    is labelled before the claim says so, the finalizer goes last. `going_nodes` are deleted and stay until our
    finalizer is taken off them, which happens to `deleted_nodes`. Where `status_follows`, the status tells that Azure
    has accepted the request: it is written after that, and not at all where Azure refuses. `delete_claim` is why the
    claim itself is to be deleted, as metrics name it, with its Node's `ailment` if that is why. `evictions`,
    `unavailable`, `waiting` and the wishes are for the controller's memory, and touch neither Azure nor Kubernetes;
    `wants_cluster` has it read whether the cluster runs.
    """

    metadata: Mapping[str, Any] | None = None
    node_patch: NodePatch | None = None
    going_nodes: tuple[Node, ...] = ()
    status: Mapping[str, Any] | None = None
    azure: CreatePool | DeletePool | FindInstance | None = None
    deleted_nodes: tuple[Node, ...] = ()
    release: bool = False
    delete_claim: str = ""
    status_follows: bool = False
    evictions: tuple[NodeEvictions, ...] = ()
    ailment: Ailment | None = None
    setback: Failure | None = None
    unavailable: Unavailable | None = None
    waiting: Waiting | None = None
    wants_quota: bool = False
    waits_for_another: bool = False
    wants_cluster: bool = False
    settled: bool = False
    notices: tuple[Notice, ...] = ()
    again_after: timedelta | None = None
    refresh: bool = False


@dataclass
class Draft:
    """The Step in the making: the phases fill it one after the other.

    `is_brief` says that what the claim waits for will be there in moments.
    """

    conditions: ConditionSet
    labels: dict[str, str | None] = field(default_factory=dict)
    annotations: dict[str, str] = field(default_factory=dict)
    add_finalizer: bool = False
    status: dict[str, Any] = field(default_factory=dict)
    node_patch: NodePatch | None = None
    going_nodes: tuple[Node, ...] = ()
    azure: CreatePool | DeletePool | FindInstance | None = None
    deleted_nodes: tuple[Node, ...] = ()
    release: bool = False
    delete_claim: str = ""
    status_follows: bool = False
    evictions: tuple[NodeEvictions, ...] = ()
    ailment: Ailment | None = None
    setback: Failure | None = None
    unavailable: Unavailable | None = None
    waiting: Waiting | None = None
    wants_quota: bool = False
    waits_for_another: bool = False
    wants_cluster: bool = False
    is_brief: bool = False
    settled: bool = False
    notices: list[Notice] = field(default_factory=list)
    again_after: timedelta | None = None
    refresh: bool = False

    def look_again(self, after: timedelta) -> None:
        """Reconcile once more after that time, or sooner where a phase has asked for it."""
        self.again_after = after if self.again_after is None else min(self.again_after, after)


def stored(view: View, condition: str) -> Condition | None:
    """Return the condition as it stands on the claim, None where it was never written."""
    return next((c for c in view.claim.conditions if c.type == condition), None)
