"""What must hold of claims, agent pools and Nodes. Each function returns what does not, in words; pure."""

from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from fakes.azure.pools import Pool
from provisioner.apis.agentpool import pool_of_provider_id
from provisioner.apis.conditions import AWAITING_REASON, DEPENDENTS, INSTANCE_TERMINATING, LAUNCHED, READY
from provisioner.nodeclaim.agentpool_spec import pool_name
from provisioner.nodeclaim.launch import NOT_REGISTERING
from tests.chaos.processes.ledger import Entry, claim_uid
from tests.chaos.processes.observer import History
from tests.kube import Object, condition, is_true


@dataclass(frozen=True)
class Fates:
    """What was done to claims on purpose, by UID: who was written, who deleted, and who met with an accident."""

    written: dict[str, str] = field(default_factory=dict)
    deleted: set[str] = field(default_factory=set)
    hurt: dict[str, str] = field(default_factory=dict)


# --- while it burns


def rewritten(history: History) -> Iterator[str]:
    """A claim once Launched stays so, on the VM that it was launched on."""
    for uid, states in history.states.items():
        for (_, old), (at, new) in pairwise(states):
            if not is_true(LAUNCHED)(old):
                continue
            before, after = old["status"].get("providerID"), (new.get("status") or {}).get("providerID")
            if not is_true(LAUNCHED)(new) or before != after:
                yield f"{at:.1f}: launched claim {history.name(uid)} rewritten: {before} became {after}"


def revived(history: History) -> Iterator[str]:
    """A deleted claim does not turn Ready, nor does its deletion end otherwise than with the claim."""
    for uid, states in history.states.items():
        for (_, old), (at, new) in pairwise(states):
            if not old["metadata"].get("deletionTimestamp"):
                continue
            if not new["metadata"].get("deletionTimestamp"):
                yield f"{at:.1f}: deleted claim {history.name(uid)} lives again"
            if is_true(READY)(new) and not is_true(READY)(old):
                yield f"{at:.1f}: deleted claim {history.name(uid)} turned Ready"


def doubled(entries: Sequence[Entry], history: History) -> Iterator[str]:
    """Azure takes one PUT for a claim and no other before a DELETE, and none that changes a pool."""
    standing: dict[str, str] = {}
    for entry in entries:
        if not entry.uid:
            continue
        if entry.what == "delete":
            standing.pop(entry.uid, None)
            continue
        if entry.uid in standing or not entry.is_new:
            first = standing.get(entry.uid, "somebody else's")
            yield f"{entry.at:.1f}: second PUT for claim {history.name(entry.uid)}: {entry.pool} after {first}"
        standing[entry.uid] = entry.pool


def posthumous(
    entries: Sequence[Entry], history: History, *, longest_delay: float, late: Mapping[str, float]
) -> Iterator[str]:
    """No PUT is sent for a claim that the controller has called terminating, or that is gone.

    One that was sent before takes effect later than that by what delays it: so many simulated seconds at most, or so
    many more for the agent pools in `late`.
    """
    ends = dict(history.gone)
    for uid, states in history.states.items():
        ending = (at for at, state in states if condition(state, INSTANCE_TERMINATING))
        ends[uid] = min([*ending, ends.get(uid, float("inf"))])
    for entry in entries:
        end = ends.get(entry.uid, float("inf"))
        if entry.what == "put" and entry.uid and entry.at > end + longest_delay + late.get(entry.pool, 0.0):
            yield f"{entry.at:.1f}: PUT of {entry.pool} for {history.name(entry.uid)}, which had ended at {end:.1f}"


def lost(history: History, fates: Fates, *, slow_to_join: frozenset[str]) -> Iterator[str]:
    """Claims go that were deleted, whose machine met with an accident or whose pool is slow to join; no other does."""
    for uid, at in history.gone.items():
        spared = uid in fates.written and uid not in fates.deleted and uid not in fates.hurt
        name = fates.written.get(uid, "")
        if spared and slow_to_join.isdisjoint((pool_name(name), pool_name(name, alternative=True))):
            yield f"{at:.1f}: claim {name} is gone, and nobody has deleted it"


# --- in the end


@dataclass(frozen=True, kw_only=True)
class Scene:
    """What there is at a moment: the claims of this provisioner, all Nodes, and all agent pools but foreign ones."""

    claims: Sequence[Object]
    nodes: Sequence[Object]
    pools: Mapping[str, Pool]
    foreign: Collection[str]


def unsettled(scene: Scene, fates: Fates) -> list[str]:
    """Return what has yet to happen: claims to become Ready, or to go with their pool and their Node."""
    claims = {claim["metadata"]["uid"]: claim for claim in scene.claims}
    owned: defaultdict[str, list[str]] = defaultdict(list)
    for name, pool in scene.pools.items():
        owned[claim_uid(pool)].append(name)
    joined = Counter(pool_of_provider_id(node["spec"].get("providerID", "")) for node in scene.nodes)
    names = {uid: claim["metadata"]["name"] for uid, claim in claims.items()}
    return [
        *(f"agent pools {pools} have no claim" for uid, pools in owned.items() if uid not in claims),
        *(f"claim {names.get(uid, uid)} has agent pools {pools}" for uid, pools in owned.items() if len(pools) > 1),
        *(f"Node of {pool or 'no pool'} is left" for pool in joined if pool not in {*scene.pools, *scene.foreign}),
        *(f"agent pool {pool} has {number} Nodes" for pool, number in joined.items() if number > 1),
        *(f"claim {names[uid]} was deleted and is there" for uid in claims if uid in fates.deleted),
        *(why for uid, claim in claims.items() if (why := _unserved(claim, scene, owned[uid], fates.hurt.get(uid)))),
    ]


def _unserved(claim: Object, scene: Scene, pools: list[str], hurt: str | None) -> str:
    metadata, status = claim["metadata"], claim.get("status") or {}
    name, provider_id = metadata["name"], status.get("providerID", "")
    if metadata.get("deletionTimestamp"):
        return f"claim {name} is still going"
    if is_true(READY)(claim):
        nodes = [node["metadata"] for node in scene.nodes if node["spec"].get("providerID") == provider_id]
        owners = [(node["name"], owner["uid"]) for node in nodes for owner in node.get("ownerReferences", ())]
        right = owners == [(status.get("nodeName"), metadata["uid"])] and pools == [pool_of_provider_id(provider_id)]
        if right or hurt:
            return ""
        return f"claim {name} is Ready with agent pools {pools}, and Nodes with owners: {owners}"
    unmet = next((c for kind in DEPENDENTS if (c := condition(claim, kind)).get("status") != "True"), {})
    reason = unmet.get("reason", AWAITING_REASON)
    if reason == NOT_REGISTERING or (hurt and reason != AWAITING_REASON):
        return ""
    return f"claim {name} is not Ready: {reason}: {unmet.get('message', '')}"
