"""Where claims and sizes stand at the moment, counted when somebody scrapes."""

from collections.abc import Callable
from datetime import datetime

from provisioner.apis.conditions import READY
from provisioner.apis.nodeclaim import NodeClaim
from provisioner.kube.metrics import Registry
from provisioner.kube.store import Store
from provisioner.placement.memory import OfferMemory


def publish(metrics: Registry, *, store: Store, memory: OfferMemory, now: Callable[[], datetime]) -> None:
    """Add the gauges of claims by state, and of what is not asked of Azure at present."""
    claims = metrics.gauge(
        "gpu_provisioner_nodeclaims",
        text="NodeClaims of this provisioner by the state of Ready and the reason of the first unmet condition.",
        labels=("ready", "reason"),
    )

    def count_claims() -> None:
        claims.clear()
        counts: dict[tuple[str, str], int] = {}
        for claim in store.claims:
            if claim.is_managed:
                state = _state(claim)
                counts[state] = counts.get(state, 0) + 1
        for (ready, reason), number in counts.items():
            claims.set(number, ready=ready, reason=reason)

    metrics.before_scrape(count_claims)
    left_alone = metrics.gauge(
        "gpu_provisioner_offers_unavailable",
        text="1 for what is not asked of Azure at present, because it has failed lately; * stands for all.",
        labels=("vm_size", "zone", "capacity_type", "kind"),
    )

    def tell_unavailable() -> None:
        left_alone.clear()
        for key, entry in memory.active(now=now()):
            kind = entry.failure.kind.value
            left_alone.set(1, vm_size=key.size, zone=key.zone, capacity_type=key.capacity_type, kind=kind)

    metrics.before_scrape(tell_unavailable)


def _state(claim: NodeClaim) -> tuple[str, str]:
    if claim.is_deleting:
        return "False", "Terminating"
    ready = next((c for c in claim.conditions if c.type == READY), None)
    if ready is None:
        return "Unknown", "AwaitingReconciliation"
    if ready.status == "True":
        return "True", READY
    first = next((c for c in claim.conditions if c.type != READY and c.status != "True"), ready)
    return ready.status, first.reason
