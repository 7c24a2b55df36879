"""What Kubernetes adds to a plan: the node classes, and which Nodes have joined. A plan can do without."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from provisioner.apis.node import Node, parse_node
from provisioner.kube.access import ConfigException
from provisioner.kube.gateway import KubeError, KubeGateway

# Seconds for a call.
_PATIENCE: Final = 5.0


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """What was read; `note` says why something was not."""

    node_classes: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    nodes: tuple[Node, ...] = ()
    note: str = ""


async def read_cluster(kubeconfig: str) -> Cluster:
    """Read what can be read. `kubeconfig` is empty for the pod's service account, else ~/.kube/config."""
    if kubeconfig:
        os.environ["KUBECONFIG"] = kubeconfig
    try:
        async with KubeGateway(request_timeout=_PATIENCE) as kube:
            classes = await kube.list_node_classes()
            nodes, _ = await kube.list_nodes()
    except (KubeError, ConfigException) as error:
        return Cluster(
            note=f"Kubernetes is not asked ({error}): what KaitoNodeClasses say is left out, but for those in files."
        )
    return Cluster(
        node_classes={item["metadata"]["name"]: item for item in classes}, nodes=tuple(map(parse_node, nodes))
    )
