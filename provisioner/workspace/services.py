"""The Services of an inference Workspace: one for clients, and one by which its pods find each other. Pure."""

from typing import Any, Final

from provisioner.apis import names
from provisioner.apis.workspace import Workspace
from provisioner.serving.environment import PORT
from provisioner.workspace import pods
from provisioner.workspace.digest import sealed
from provisioner.workspace.view import SERVICE, Manifest

_CLIENT_PORT: Final = 80
_POD_NAME_LABEL: Final = "statefulset.kubernetes.io/pod-name"


def render(workspace: Workspace) -> tuple[Manifest, ...]:
    """Return both Services. No port but that of the model is on the one for clients, whatever its type."""
    return _for_clients(workspace), _headless(workspace)


def headless_name(workspace: Workspace) -> str:
    """Return the name of the Service that gives each pod a DNS name."""
    return f"{workspace.name}-headless"


def endpoint(workspace: Workspace) -> str:
    """Return where the model is served inside of the cluster."""
    return f"http://{workspace.name}.{workspace.namespace}.svc"


def _for_clients(workspace: Workspace) -> Manifest:
    is_public = workspace.annotations.get(names.ENABLE_LOAD_BALANCER_ANNOTATION, "").lower() == "true"
    template = workspace.inference is not None and workspace.inference.preset is None
    body = {
        "apiVersion": SERVICE.api_version,
        "kind": SERVICE.kind,
        "metadata": pods.metadata(workspace, workspace.name),
        "spec": {
            "type": "LoadBalancer" if is_public else "ClusterIP",
            # Of a group only the leader answers; the pods of a template are each others' equals.
            "selector": {names.WORKSPACE_LABEL: workspace.name}
            if template
            else {names.WORKSPACE_LABEL: workspace.name, _POD_NAME_LABEL: f"{workspace.name}-0"},
            "ports": [{"name": "http", "port": _CLIENT_PORT, "targetPort": PORT, "protocol": "TCP"}],
        },
    }
    return Manifest(kind=SERVICE, body=sealed(body))


def _headless(workspace: Workspace) -> Manifest:
    spec: dict[str, Any] = {
        "type": "ClusterIP",
        "clusterIP": "None",
        "selector": {names.WORKSPACE_LABEL: workspace.name},
        # Pods of a group find each other before any of them is ready.
        "publishNotReadyAddresses": True,
        "ports": [{"name": "http", "port": PORT, "targetPort": PORT, "protocol": "TCP"}],
    }
    body = {
        "apiVersion": SERVICE.api_version,
        "kind": SERVICE.kind,
        "metadata": pods.metadata(workspace, headless_name(workspace)),
        "spec": spec,
    }
    return Manifest(kind=SERVICE, body=sealed(body))
