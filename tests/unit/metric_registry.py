"""All metrics of both controllers, as the programs register them when they start; nothing is connected."""

import random
import time
from datetime import UTC, datetime
from functools import lru_cache

from provisioner.azure.connect import connect
from provisioner.kube.build_info import publish_build
from provisioner.kube.events import EventRecorder
from provisioner.kube.gateway import KubeGateway
from provisioner.kube.leading import Leadership
from provisioner.kube.metrics import Registry
from provisioner.kube.objects import Objects
from provisioner.kube.transport import Transport
from provisioner.nodeclaim import run as claims
from provisioner.nodeclaim.arm_calls import ArmCalls
from provisioner.nodeclaim.assembly import Assembly
from provisioner.settings import ControllerSettings, Settings
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


def _leadership(settings: ControllerSettings, registry: Registry, *, name: str) -> Leadership:
    return Leadership(settings, objects=Objects(Transport()), name=name, now=_now, metrics=registry)


def _of_claims() -> Registry:
    registry = Registry()
    settings = Settings(
        subscription_id="s", resource_group="r", cluster_name="c", deployment_mode="managed", leader_election=True
    )
    kube, calls = KubeGateway(transport=Transport()), ArmCalls(registry)
    publish_build(registry)
    _leadership(settings, registry, name=claims.LEASE_NAME)
    Assembly(
        settings,
        kube=kube,
        recorder=EventRecorder(kube, clock=_now, instance="i"),
        session=connect(settings, on_call=calls.on_call, on_wait=calls.on_wait),
        metrics=registry,
        monotonic=time.monotonic,
        now=_now,
        rng=random.Random(1),  # noqa: S311
    )
    return registry


def _of_workspaces() -> Registry:
    registry, transport, settings = Registry(), Transport(), WorkspaceSettings()
    workspaces._Parts(
        settings,
        objects=Objects(transport),
        leadership=_leadership(settings, registry, name=workspaces.LEASE_NAME),
        recorder=EventRecorder(KubeGateway(transport=transport), clock=_now, instance="i"),
        metrics=registry,
    )
    return registry
