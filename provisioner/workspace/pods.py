"""What all pods of a Workspace have in common: where they run, as whom, and what they may take of a Node. Pure."""

from collections.abc import Iterable, Mapping
from typing import Any, Final

from provisioner.apis import names
from provisioner.apis.workspace import Workspace
from provisioner.placement.size import Size
from provisioner.serving.environment import CACHE, MODELS, REGISTRY_SECRETS
from provisioner.workspace.view import Sizing

# The user of the serving image.
USER: Final = 1000
# Part of a Node's CPU and memory that a pod asks for: with nothing asked for it is the first to be evicted, and the
# rest is the system's, the device plugin's and what else runs on every Node.
_SHARE: Final = 0.5
_SHARED_MEMORY: Final = "8Gi"

_REQUIRED: Final = "requiredDuringSchedulingIgnoredDuringExecution"
_TOLERATIONS: Final = (
    {"key": names.NVIDIA_GPU, "operator": "Exists", "effect": "NoSchedule"},
    {"key": "sku", "operator": "Equal", "value": "gpu", "effect": "NoSchedule"},
    {"key": "kubernetes.azure.com/scalesetpriority", "operator": "Equal", "value": "spot", "effect": "NoSchedule"},
)


def labels(workspace: Workspace) -> dict[str, str]:
    """Return the labels by which the Workspace's objects are found, as KAITO's are."""
    return {
        names.WORKSPACE_LABEL: workspace.name,
        names.WORKSPACE_NAMESPACE_LABEL: workspace.namespace,
        "app.kubernetes.io/managed-by": "gpu-provisioner",
    }


def owner(workspace: Workspace) -> dict[str, Any]:
    """Return the reference by which the Workspace's objects go with it."""
    return {
        "apiVersion": names.WORKSPACE_API_VERSION,
        "kind": names.WORKSPACE_KIND,
        "name": workspace.name,
        "uid": workspace.uid,
        "controller": True,
        "blockOwnerDeletion": True,
    }


def metadata(workspace: Workspace, name: str, *, annotations: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Return the metadata of an object of the Workspace."""
    return {
        "name": name,
        "namespace": workspace.namespace,
        "labels": labels(workspace),
        "ownerReferences": [owner(workspace)],
        **({"annotations": dict(annotations)} if annotations else {}),
    }


def scheduling(workspace: Workspace) -> dict[str, Any]:
    """Return affinity and tolerations: the Workspace's own Nodes (nodes.py) and no others."""
    return scheduled(workspace, {})


def scheduled(workspace: Workspace, spec: Mapping[str, Any]) -> dict[str, Any]:
    """Return affinity and tolerations of a pod's spec with what keeps it to the Workspace's own Nodes.

    Each of the author's node selector terms is narrowed: they hold one or the other.
    """
    expressions = [
        *selector(workspace),
        _expression(names.WORKSPACE_LABEL, "In", workspace.name),
        _expression(names.WORKSPACE_NAMESPACE_LABEL, "In", workspace.namespace),
    ]
    affinity = spec.get("affinity") or {}
    of_nodes = affinity.get("nodeAffinity") or {}
    terms = (of_nodes.get(_REQUIRED) or {}).get("nodeSelectorTerms") or [{}]
    narrowed = [{**term, "matchExpressions": [*(term.get("matchExpressions") or ()), *expressions]} for term in terms]
    return {
        "affinity": {**affinity, "nodeAffinity": {**of_nodes, _REQUIRED: {"nodeSelectorTerms": narrowed}}},
        "tolerations": [*(spec.get("tolerations") or ()), *(dict(toleration) for toleration in _TOLERATIONS)],
    }


def selector(workspace: Workspace) -> list[dict[str, Any]]:
    """Return the Workspace's own label selector as expressions of a node affinity."""
    chosen = workspace.resource.label_selector
    return [
        *(_expression(key, "In", value) for key, value in sorted(chosen.match_labels.items()) if not is_reserved(key)),
        *(
            {
                "key": expression.key,
                "operator": expression.operator,
                **({"values": list(expression.values)} if expression.values else {}),
            }
            for expression in chosen.match_expressions
            if not is_reserved(expression.key)
        ),
    ]


def is_reserved(label: str) -> bool:
    """Tell whether the label is ours to set, whatever a Workspace's selector says."""
    return label in (
        names.WORKSPACE_LABEL,
        names.WORKSPACE_NAMESPACE_LABEL,
        names.RAGENGINE_LABEL,
        "kaito.sh/ragenginenamespace",
        "karpenter.kaito.sh/workspace-name",
        "karpenter.kaito.sh/workspace-namespace",
        "karpenter.kaito.sh/inferenceset",
        "karpenter.kaito.sh/inferenceset-namespace",
    )


def resources(sizing: Sizing) -> dict[str, Any]:
    """Return what the main container asks for: all GPUs of a Node, half of its CPU and memory."""
    requests = _half(sizing.size) if sizing.size else {}
    gpus = {sizing.gpu_resource: str(sizing.gpus)} if sizing.gpus else {}
    return {"requests": {**requests, **gpus}, **({"limits": gpus} if gpus else {})}


def _half(size: Size) -> dict[str, str]:
    found = {}
    if size.vcpus:
        found["cpu"] = str(max(int(size.vcpus * _SHARE), 1))
    if size.memory_gib:
        found["memory"] = f"{max(int(size.memory_gib * _SHARE), 1)}Gi"
    return found


def security() -> dict[str, Any]:
    """Return the pod's security context, which the restricted Pod Security Standard allows."""
    return {
        "runAsNonRoot": True,
        "runAsUser": USER,
        "runAsGroup": USER,
        "fsGroup": USER,
        "fsGroupChangePolicy": "OnRootMismatch",
        "seccompProfile": {"type": "RuntimeDefault"},
    }


def container_security() -> dict[str, Any]:
    """Return a container's security context."""
    return {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}}


def scratch() -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return volumes and mounts of what a pod writes: weights, compiled kernels, shared memory, temporary files."""
    volumes: list[dict[str, Any]] = [
        {"name": "models", "emptyDir": {}},
        {"name": "cache", "emptyDir": {}},
        {"name": "tmp", "emptyDir": {}},
        # What tensor parallel processes talk over; the runtime's default is 64 MiB.
        {"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": _SHARED_MEMORY}},
    ]
    mounts = [
        {"name": "models", "mountPath": MODELS},
        {"name": "cache", "mountPath": CACHE},
        {"name": "tmp", "mountPath": "/tmp"},  # noqa: S108 -- a mount of the pod's own
        {"name": "shm", "mountPath": "/dev/shm"},  # noqa: S108
    ]
    return volumes, mounts


def caches(hub: str = "") -> dict[str, str]:
    """Return the variables that lead libraries to those volumes and that hub, and away from the network otherwise."""
    return {
        **({"HF_ENDPOINT": hub} if hub else {}),
        "HOME": CACHE,
        "HF_HOME": MODELS,
        "XDG_CACHE_HOME": CACHE,
        "VLLM_CACHE_ROOT": f"{CACHE}/vllm",
        "TRITON_CACHE_DIR": f"{CACHE}/triton",
        "TORCHINDUCTOR_CACHE_DIR": f"{CACHE}/inductor",
        "VLLM_NO_USAGE_STATS": "1",
        "DO_NOT_TRACK": "1",
    }


def environment(values: Mapping[str, str], *, token_secret: str = "", fields: Mapping[str, str] | None = None) -> Any:
    """Return a container's `env`: values, the Hugging Face token of a Secret, and fields of the pod."""
    env: list[dict[str, Any]] = [{"name": name, "value": literal(value)} for name, value in sorted(values.items())]
    if token_secret:
        reference = {"name": token_secret, "key": "HF_TOKEN", "optional": False}
        env.append({"name": "HF_TOKEN", "valueFrom": {"secretKeyRef": reference}})
    for name, path in sorted((fields or {}).items()):
        env.append({"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}})
    return env


def literal(text: str) -> str:
    """Return a value or an argument that the kubelet hands on as `text`: it would put variables in for `$(NAME)`."""
    return text.replace("$", "$$")


def volume(name: str, source: Mapping[str, Any]) -> dict[str, Any]:
    """Return a volume of the author's own, under our name for it whatever it says."""
    return {**source, "name": name}


def registry_secrets(secrets: Iterable[str], *, volume: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the volume and the mount of Secrets of type kubernetes.io/dockerconfigjson, a file `NAME.json` each."""
    sources = [
        {"secret": {"name": name, "items": [{"key": ".dockerconfigjson", "path": f"{name}.json"}]}}
        for name in dict.fromkeys(secrets)
    ]
    return (
        {"name": volume, "projected": {"sources": sources, "defaultMode": 0o440}},
        {"name": volume, "mountPath": REGISTRY_SECRETS, "readOnly": True},
    )


def _expression(key: str, operator: str, *values: str) -> dict[str, Any]:
    return {"key": key, "operator": operator, "values": list(values)}
