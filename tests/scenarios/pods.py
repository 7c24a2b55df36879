"""Pods, budgets and volumes of scenarios in which Nodes are drained."""

from collections.abc import Iterable, Mapping
from typing import Any, Final

from tests.kube import Kube, Object

PODS: Final = "/api/v1/namespaces/default/pods"
BUDGETS: Final = "/apis/policy/v1/namespaces/default/poddisruptionbudgets"
VOLUME_ATTACHMENTS: Final = "/apis/storage.k8s.io/v1/volumeattachments"

_NOTHING: Final[Mapping[str, str]] = {}


def bound_pod(
    name: str, node: str, *, annotations: Mapping[str, str] = _NOTHING, claims: Iterable[str] = (), **spec: Any
) -> Object:
    """Return a pod that nobody schedules, as it is bound to its Node already; its label `app` is its name.

    `claims` are names of PersistentVolumeClaims, the rest are fields of the spec.
    """
    volumes = [{"name": claim, "persistentVolumeClaim": {"claimName": claim}} for claim in claims]
    return {
        "metadata": {"name": name, "labels": {"app": name}, "annotations": dict(annotations)},
        "spec": {
            "nodeName": node,
            "containers": [{"name": "main", "image": "busybox:1"}],
            "volumes": volumes,
            **spec,
        },
    }


def budget(name: str) -> Object:
    """Return a budget that allows no eviction of the pod of that name."""
    return {"metadata": {"name": name}, "spec": {"selector": {"matchLabels": {"app": name}}, "minAvailable": 1}}


def attachment(name: str, node: str, *, volume: str) -> Object:
    """Return the VolumeAttachment of a PersistentVolume that a CSI driver of nobody's has attached."""
    source = {"persistentVolumeName": volume}
    return {"metadata": {"name": name}, "spec": {"attacher": "csi.example.com", "nodeName": node, "source": source}}


async def clear_pods(kube: Kube) -> None:
    """Take away what drains have left: pods that stay, by force, as nobody runs them any more."""
    for pod in await kube.items(PODS):
        name = pod["metadata"]["name"]
        if pod["metadata"].get("finalizers"):
            await kube.patch(PODS, name, {"metadata": {"finalizers": None}})
        await kube.delete(PODS, f"{name}?gracePeriodSeconds=0")
    for path in (BUDGETS, VOLUME_ATTACHMENTS):
        for item in await kube.items(path):
            await kube.delete(path, item["metadata"]["name"])
