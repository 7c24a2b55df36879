"""Objects as they come from the API server and from Azure, for tests: each with what is usual, less what is given."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from types import MappingProxyType
from typing import Any

from provisioner.apis import names
from provisioner.apis.agentpool import AgentPool, ProvisioningError, parse_agent_pool
from provisioner.apis.failure import Failure, FailureClass
from provisioner.apis.node import Node, parse_node
from provisioner.apis.nodeclaim import NodeClaim, NodeClaimSpec, parse_nodeclaim
from provisioner.apis.times import format_time
from provisioner.azure.inventory import Lookup
from provisioner.nodeclaim.agentpool_spec import creation_timestamp_label
from provisioner.nodeclaim.view import CreatePool, DeletePool, Setback, View
from provisioner.placement.market import Market, Memory, Offer, Placement, Quota, Refusal, Unknown
from provisioner.placement.place import place
from provisioner.placement.size import Size

CREATED = datetime(2026, 11, 21, 4, 34, 24, tzinfo=UTC)
NOW = CREATED + timedelta(seconds=2)
LOCATION = "eastus"
A100 = "Standard_NC24ads_A100_v4"
T4 = "Standard_NC4as_T4_v3"
NAME = "ws09f153898"
UID = "0d6c1c1e-7a5b-4a0e-9a51-7f1c7a1f0001"

GPU_TAINT = {"effect": "NoSchedule", "key": "sku", "value": "gpu"}
NOT_READY_TAINT = {"effect": "NoSchedule", "key": "node.kubernetes.io/not-ready"}


def requirement(key: str, operator: str, *values: str) -> dict[str, Any]:
    """Return a requirement as a client writes it."""
    return {"key": key, "operator": operator, **({"values": list(values)} if values else {})}


def kaito_claim(name: str = NAME, *, size: str = A100, storage: str | None = "87Gi", **changes: Any) -> dict[str, Any]:
    """Return a claim exactly as KAITO's workspace controller writes it, as the API server then has it.

    `changes` replace whole fields: of the spec (`taints`, `requirements` ...), or `labels`, `annotations`, `status`,
    `uid`, `finalizers`, `deleted` (a moment), `created`, `generation`.
    """
    metadata: dict[str, Any] = {
        "name": name,
        "uid": changes.pop("uid", UID),
        "resourceVersion": "100",
        "generation": changes.pop("generation", 1),
        "creationTimestamp": format_time(changes.pop("created", CREATED)),
        "annotations": {names.NODE_IMAGE_FAMILY_ANNOTATION: "ubuntu", "karpenter.sh/do-not-disrupt": "true"}
        | changes.pop("annotations", {}),
        "labels": changes.pop(
            "labels",
            {
                "apps": "phi-4",
                names.WORKSPACE_LABEL: "workspace-phi-4-mini",
                "kaito.sh/workspacenamespace": "default",
                names.NODEPOOL_LABEL: "kaito",
            },
        ),
    }
    if finalizers := changes.pop("finalizers", None):
        metadata["finalizers"] = list(finalizers)
    if deleted := changes.pop("deleted", None):
        # The API server counts the generation up when it marks an object as being deleted.
        metadata |= {"deletionTimestamp": format_time(deleted), "generation": metadata["generation"] + 1}
    status = changes.pop("status", {})
    spec: dict[str, Any] = {
        "expireAfter": "Never",
        "nodeClassRef": {"group": "kaito.sh", "kind": "KaitoNodeClass", "name": "default"},
        "requirements": [
            requirement(names.NODEPOOL_LABEL, "In", "kaito"),
            requirement(names.INSTANCE_TYPE_LABEL, "In", size),
            requirement(names.OS_LABEL, "In", "linux"),
            requirement(names.SKU_NAME_LABEL, "In", size),
        ],
        "resources": {"requests": {"storage": storage} if storage is not None else {}},
        "taints": [GPU_TAINT],
    }
    return {
        "apiVersion": names.NODECLAIM_API_VERSION,
        "kind": names.NODECLAIM_KIND,
        "metadata": metadata,
        "spec": spec | changes,
        "status": status,
    }


def claim(name: str = NAME, **changes: Any) -> NodeClaim:
    """Return KAITO's claim as the controller reads it."""
    return parse_nodeclaim(kaito_claim(name, **changes))


def recorded_claim(name: str = NAME, *, pool: str = "", **changes: Any) -> NodeClaim:
    """Return a claim that has our finalizer, the label of its class, its agent pool's name and the size asked for."""
    recorded = {names.AGENT_POOL_ANNOTATION: pool or name, names.INSTANCE_TYPE_ANNOTATION: A100}
    changes["annotations"] = recorded | changes.get("annotations", {})
    if "labels" not in changes:
        changes["labels"] = {**kaito_claim()["metadata"]["labels"], names.NODECLASS_LABEL: names.DEFAULT_NODECLASS}
    return claim(name, finalizers=(names.TERMINATION_FINALIZER,), **changes)


def spec(*requirements: Mapping[str, Any], **fields: Any) -> NodeClaimSpec:
    """Return a claim's spec with these requirements and nothing else."""
    return NodeClaimSpec.model_validate({"requirements": requirements, **fields})


def spec_of(claim: NodeClaim) -> NodeClaimSpec:
    """Return the spec of a claim that has one."""
    assert claim.spec is not None, claim.spec_error
    return claim.spec


def condition(kind: str, status: str, reason: str, message: str = "", **changes: Any) -> dict[str, Any]:
    """Return a condition as the API server has it."""
    return {
        "type": kind,
        "status": status,
        "reason": reason,
        "message": message,
        "lastTransitionTime": format_time(changes.pop("since", CREATED)),
        "observedGeneration": changes.pop("generation", 1),
    }


def reached(*kinds: str, generation: int = 1) -> list[dict[str, Any]]:
    """Return conditions that are True by Karpenter's default reason."""
    return [condition(kind, "True", kind, generation=generation) for kind in kinds]


def provider_id(pool: str, *, number: int = 0) -> str:
    """Return the providerID of a VM of the pool."""
    return (
        "azure:///subscriptions/0b1f6471-1bf0-4dda-aec3-cb9272f09590/resourceGroups/mc_rg_aks_eastus/providers/"
        f"Microsoft.Compute/virtualMachineScaleSets/aks-{pool}-12345678-vmss/virtualMachines/{number}"
    )


def raw_node(pool: str = NAME, *, number: int = 0, size: str = A100, gpus: int | None = 1, **changes: Any) -> Any:
    """Return a Node as AKS and the kubelet leave it once everything on it runs.

    `ready` is the status of its Ready condition since `since`, `conditions` are further ones, `labels` come on top,
    `taints` replace those of the pool.
    """
    amounts = {"cpu": "24", "memory": "220Gi", "pods": "110"}
    if gpus is not None:
        amounts[names.NVIDIA_GPU] = str(gpus)
    name = changes.pop("name", f"aks-{pool}-12345678-vmss{number:06d}")
    metadata: dict[str, Any] = {
        "name": name,
        "uid": changes.pop("uid", f"uid-of-{name}"),
        "resourceVersion": "200",
        "creationTimestamp": format_time(changes.pop("created", CREATED + timedelta(minutes=4))),
        "labels": {
            "agentpool": pool,
            names.AKS_AGENT_POOL_LABEL: pool,
            names.AKS_NODE_IMAGE_VERSION_LABEL: "AKSUbuntu-2204gen2containerd-202611.10.0",
            names.INSTANCE_TYPE_LABEL: size,
            names.OS_LABEL: "linux",
            names.ARCH_LABEL: "amd64",
            names.REGION_LABEL: LOCATION,
            names.ZONE_LABEL: "0",
        }
        | changes.pop("labels", {}),
        "annotations": changes.pop("annotations", {}),
    }
    if owner := changes.pop("owner", None):
        metadata["ownerReferences"] = [{"uid": owner}]
    if finalizers := changes.pop("finalizers", None):
        metadata["finalizers"] = list(finalizers)
    if changes.pop("deleting", False):
        metadata["deletionTimestamp"] = format_time(NOW)
    made = {
        "metadata": metadata,
        "spec": {
            "providerID": changes.pop("provider_id", provider_id(pool, number=number)),
            "taints": changes.pop("taints", [GPU_TAINT]),
        },
        "status": {
            "conditions": [
                {"type": "MemoryPressure", "status": "False"},
                node_condition("Ready", changes.pop("ready", "True"), since=changes.pop("since", CREATED)),
                *changes.pop("conditions", ()),
            ],
            "capacity": changes.pop("capacity", dict(amounts)),
            "allocatable": changes.pop("allocatable", dict(amounts)),
        },
    }
    assert not changes, f"no field of a Node: {changes}"
    return made


def node_condition(kind: str, status: str, *, since: datetime = CREATED) -> dict[str, Any]:
    """Return a condition of a Node."""
    return {"type": kind, "status": status, "lastTransitionTime": format_time(since)}


def node(pool: str = NAME, **changes: Any) -> Node:
    """Return a Node as the controller reads it."""
    return parse_node(raw_node(pool, **changes))


def pool(
    name: str = NAME,
    *,
    state: str = "Succeeded",
    uid: str = UID,
    owner: str = "",
    error: ProvisioningError | None = None,
    size: str = A100,
) -> AgentPool:
    """Return a pool that carries our tags for the claim `owner` (of its own name unless given) with that UID."""
    tags = {names.CLAIM_TAG: owner or name, names.CLAIM_UID_TAG: uid} if uid else {}
    return AgentPool(name=name, state=state, vm_size=size, count=1, tags=tags, node_labels={}, error=error)


def users_pool(name: str = NAME, *, state: str = "Succeeded", **labels: str) -> AgentPool:
    """Return a pool that somebody has made by hand."""
    return AgentPool(name=name, state=state, vm_size=T4, count=3, tags={"team": "vision"}, node_labels=labels)


def peers_pool(
    name: str = NAME, *, state: str = "Succeeded", created: datetime = CREATED, kaito: bool = True
) -> AgentPool:
    """Return a pool as Azure/gpu-provisioner has made it for a claim of that name and age, KAITO's or another."""
    owner = {names.WORKSPACE_LABEL: "workspace-phi-4-mini"} if kaito else {}
    return AgentPool(
        name=name,
        state=state,
        vm_size=A100,
        count=1,
        tags={},
        node_labels={
            **owner,
            names.NODEPOOL_LABEL: "kaito",
            names.MACHINE_TYPE_LABEL: "gpu",
            names.CREATION_TIMESTAMP_LABEL: creation_timestamp_label(created),
        },
    )


def pool_of_put(name: str, body: Mapping[str, Any], *, state: str = "Creating") -> AgentPool:
    """Return the pool that Azure lists after a PUT of that body."""
    return parse_agent_pool({"name": name, "properties": {**body["properties"], "provisioningState": state}})


@dataclass
class Listed:
    """The inventory of agent pools as a test wants it to be, and the names that it was asked about."""

    known: dict[str, AgentPool] = field(default_factory=dict)
    unknown: set[str] = field(default_factory=set)
    failure: Failure | None = None
    asked: set[str] = field(default_factory=set)
    is_settled: bool = True
    confirmed: bool = True

    @property
    def pools(self) -> Mapping[str, AgentPool]:
        return MappingProxyType(self.known)

    def of_claim(self, uid: str) -> Collection[AgentPool]:
        return [pool for pool in self.known.values() if pool.claim_uid == uid]

    def lookup(self, name: str) -> AgentPool | Lookup:
        self.asked.add(name)
        if name in self.unknown:
            return Lookup.UNKNOWN
        return self.known.get(name, Lookup.ABSENT)

    def is_confirmed(self, uid: str, *, name: str) -> bool:
        self.asked.add(name)
        return self.confirmed


def listed(*pools: AgentPool, unknown: Iterable[str] = (), failure: Failure | None = None) -> Listed:
    """Return an inventory that shows these pools; it cannot tell whether there are those of the names `unknown`."""
    return Listed(known={pool.name: pool for pool in pools}, unknown=set(unknown), failure=failure)


@dataclass(frozen=True)
class Region:
    """VM sizes of a region; `complete` where Azure's list was read."""

    sizes: Sequence[Size] = (
        Size(name=A100, gpu_count=1),
        Size(name="Standard_NC48ads_A100_v4", gpu_count=2),
        Size(name=T4, gpu_count=1),
        Size(name="Standard_NC6s_v3", gpu_count=1, retired="2025-09-30"),
        Size(name="Standard_ND96isr_MI300X_v5", gpu_count=8, gpu_resource=names.AMD_GPU),
        Size(name="Standard_ND128isr_NDR_GB200_v6", architecture="arm64", gpu_count=4),
        Size(name="Standard_D4s_v5"),
    )
    complete: bool = True

    def find(self, name: str) -> Size | None:
        return next((size for size in self.sizes if size.name.lower() == name.lower()), None)

    @property
    def are_complete(self) -> bool:
        return self.complete

    def all(self) -> Collection[Size]:
        return self.sizes


REGION = Region()


def market(
    *, sizes: Region = REGION, quota: Quota | None = None, memory: Memory | None = None, now: datetime = NOW
) -> Market:
    """Return what there is to choose from; without quota and memory everything can be had."""
    unknown = Unknown()
    # By identity: an empty memory is false.
    known = unknown if memory is None else memory
    return Market(sizes=sizes, now=now, location=LOCATION, quota=quota or unknown, memory=known)


def placement_of(claim: NodeClaim, **of_market: Any) -> Placement:
    """Return what a claim can be given; one without a readable spec is refused for that."""
    if claim.spec is None:
        return Placement(refusal=Refusal(reason="InvalidSpec", message=claim.spec_error))
    return place(claim.spec, market=market(**of_market))


def offer_of(claim: NodeClaim, *, sizes: Region = REGION) -> Offer:
    """Return what Azure is asked for on behalf of a claim that can be served."""
    chosen = placement_of(claim, sizes=sizes)
    assert chosen.best is not None, chosen
    return chosen.best


def view(
    claim: NodeClaim, *nodes: Node, pools: Listed | None = None, placement: Placement | None = None, **changes: Any
) -> View:
    """Return a view of the claim in a region that is known."""
    return View(
        claim=claim,
        nodes=nodes,
        pools=pools if pools is not None else Listed(),
        placement=placement if placement is not None else placement_of(claim),
        **{"now": NOW, "location": LOCATION, **changes},
    )


def failure(kind: FailureClass = FailureClass.QUOTA, message: str = "24 vCPUs needed, 0 left.") -> Failure:
    """Return a refusal of Azure's."""
    return Failure(kind=kind, message=message, code="ErrCode_InsufficientVCPUQuota")


def setback(
    request: type[CreatePool] | type[DeletePool] = CreatePool,
    *,
    wait: timedelta = timedelta(minutes=1),
    kind: FailureClass = FailureClass.QUOTA,
) -> Setback:
    """Return the memory of a refusal; the next try may be made `wait` from NOW."""
    return Setback(failure=failure(kind), request=request, attempts=1, retry_at=NOW + wait)
