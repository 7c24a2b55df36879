"""The custom resource of these tests, and small objects of built-in kinds."""

from typing import Any

from tests.semantics.client import Object, is_true, unique

CRDS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
GROUP = "semantics.example"
API_VERSION = f"{GROUP}/v1"
THINGS = f"/apis/{API_VERSION}/namespaces/default/things"
CONFIG_MAPS = "/api/v1/namespaces/default/configmaps"
NODES = "/api/v1/nodes"

is_established = is_true("Established")

_SPEC = {
    "size": {"type": "integer", "minimum": 1, "maximum": 9},
    "name": {"type": "string", "minLength": 2, "maxLength": 4, "pattern": "^[a-z]+$"},
    "mode": {"type": "string", "enum": ["A", "B"], "default": "A"},
    "fixed": {"type": "string", "x-kubernetes-validations": [{"rule": "self == oldSelf", "message": "is immutable"}]},
    "list": {"type": "array", "minItems": 1, "maxItems": 2, "items": {"type": "string"}},
    "set": {"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string"}},
    "byName": {
        "type": "array",
        "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": ["name"],
        "items": {
            "type": "object",
            "required": ["name"],
            "properties": {"name": {"type": "string"}, "value": {"type": "string"}},
        },
    },
    "port": {"x-kubernetes-int-or-string": True},
    "any": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
    "maybe": {"type": "string", "nullable": True},
    "flag": {"type": "boolean"},
    "number": {"type": "number"},
    "when": {"type": "string", "format": "date-time"},
    "counts": {"type": "object", "additionalProperties": {"type": "integer"}},
    "replicas": {"type": "integer"},
    "deep": {"type": "object", "properties": {"size": {"type": "integer", "default": 3}}},
}
_STATUS = {
    "phase": {"type": "string"},
    "replicas": {"type": "integer"},
    "conditions": {
        "type": "array",
        "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": ["type"],
        "items": {
            "type": "object",
            "required": ["type", "status"],
            "properties": {"type": {"type": "string"}, "status": {"type": "string"}},
        },
    },
}
_VERSION: Object = {
    "name": "v1",
    "served": True,
    "storage": True,
    "subresources": {
        "status": {},
        "scale": {"specReplicasPath": ".spec.replicas", "statusReplicasPath": ".status.replicas"},
    },
    "additionalPrinterColumns": [
        {"name": "Size", "type": "integer", "jsonPath": ".spec.size"},
        {"name": "Ready", "type": "string", "jsonPath": '.status.conditions[?(@.type=="Ready")].status'},
        {"name": "Zone", "type": "string", "jsonPath": r".metadata.labels.topology\.example/zone", "priority": 1},
        {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"},
    ],
    "schema": {
        "openAPIV3Schema": {
            "type": "object",
            "description": "A Thing has a size.",
            "properties": {
                "spec": {"type": "object", "required": ["size"], "properties": _SPEC},
                "status": {"type": "object", "properties": _STATUS},
            },
        }
    },
}


def crd(plural: str, kind: str, *versions: Object, scope: str = "Namespaced", **names: Any) -> Object:
    """Return a CustomResourceDefinition."""
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.{GROUP}"},
        "spec": {
            "group": GROUP,
            "scope": scope,
            "names": {"kind": kind, "plural": plural, **names},
            "versions": list(versions),
        },
    }


def open_version(name: str = "v1", *, storage: bool = True) -> Object:
    """Return a version of a CustomResourceDefinition that takes everything."""
    schema = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    return {"name": name, "served": True, "storage": storage, "schema": {"openAPIV3Schema": schema}}


CRD = crd("things", "Thing", _VERSION, shortNames=["th"], categories=["semantic"])


def thing(name: str | None = None, *, spec: Object | None = None, **metadata: Any) -> Object:
    """Return a Thing."""
    return {
        "apiVersion": API_VERSION,
        "kind": "Thing",
        "metadata": {"name": name or unique("thing"), **metadata},
        "spec": {"size": 1, **(spec or {})},
    }


def config_map(name: str | None = None, *, data: Object | None = None, **metadata: Any) -> Object:
    """Return a ConfigMap."""
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": name or unique("map"), **metadata},
        "data": data or {},
    }


def template(node: Object | None = None, **spec: Any) -> Object:
    """Return the template of a pod that may be put on the node of a test, and on no other."""
    labels = {"app": unique("app")}
    target = node["metadata"]["name"] if node is not None else "none"
    return {
        "metadata": {"labels": labels},
        "spec": {
            "containers": [{"name": "main", "image": "busybox:1"}],
            "nodeSelector": {"node": target},
            "tolerations": [{"key": "for", "value": target, "effect": "NoSchedule"}],
            **spec,
        },
    }


def pod(node: Object | None = None, *, labels: Object | None = None, **spec: Any) -> Object:
    """Return a pod, for the node of a test if there is one."""
    made = template(node, **spec)
    return {"metadata": {"name": unique("pod"), "labels": labels or {}}, "spec": made["spec"]}


def path(collection: str, item: Object) -> str:
    """Return where an object is."""
    return f"{collection}/{item['metadata']['name']}"
