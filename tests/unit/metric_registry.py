"""All metrics of both controllers, as the programs register them when they start; nothing is connected."""

import random
import time
from datetime import UTC, datetime
from functools import lru_cache

from provisioner.kube.events import EventRecorder
from provisioner.kube.gateway import KubeGateway
from provisioner.kube.lease import LeaderElection
from provisioner.kube.metrics import Registry
from provisioner.kube.objects import Objects
from provisioner.kube.transport import Transport
from provisioner.nodeclaim import run as claims
from provisioner.nodeclaim.assembly import Assembly
from provisioner.settings import Settings
from provisioner.workspace import run as workspaces
from provisioner.workspace.settings import WorkspaceSettings


@lru_cache
def labels_by_metric() -> dict[str, frozenset[str]]:
    """Return the labels of each name that a scrape may show, those of the format included."""
    labels: dict[str, frozenset[str]] = {}
    for registry in (_of_claims(), _of_workspaces()):
        for metric in registry._metrics.values():
            own = frozenset(metric.labels)
            if metric.kind in ("counter", "gauge"):
                labels[metric.name] = own
                continue
            labels |= {f"{metric.name}_sum": own, f"{metric.name}_count": own}
            if metric.kind == "histogram":
                labels[f"{metric.name}_bucket"] = own | {"le"}
            else:
                labels[metric.name] = own | {"quantile"}
    return labels


def _now() -> datetime:
    return datetime.now(UTC)


def _of_claims() -> Registry:
    registry, transport = Registry(), Transport()
    settings = Settings(subscription_id="s", resource_group="r", cluster_name="c", deployment_mode="managed")
    kube = KubeGateway(transport=transport)
    Assembly(
        settings,
        kube=kube,
        recorder=EventRecorder(kube, clock=_now, instance="i"),
        session=claims._session(settings, registry),
        metrics=registry,
        monotonic=time.monotonic,
        now=_now,
        rng=random.Random(1),  # noqa: S311
    )
    LeaderElection(Objects(transport), namespace="n", name=claims.LEASE_NAME, identity="i", now=_now, metrics=registry)
    return registry


def _of_workspaces() -> Registry:
    transport = Transport()
    recorder = EventRecorder(KubeGateway(transport=transport), clock=_now, instance="i")
    return workspaces._Parts(WorkspaceSettings(), objects=Objects(transport), recorder=recorder)._metrics
