"""Schemas of the built-in kinds. Nobody has to write them: the Kubernetes client library has a model of each.

What its models do not tell is added here: which lists are merged by which keys, which strings are amounts, and which
values a field may have, as far as somebody would notice.
"""

from functools import cache
from typing import Any, Final

import kubernetes.client

from fakes.cluster.embedded.objects import Object
from fakes.cluster.embedded.schema import INT_OR_STRING, LIST_KEYS, LIST_TYPE, PRESERVE, QUANTITY

# Kind -> name of its model, where it is not V1 and the kind.
_MODELS: Final = {"Event": "CoreV1Event"}
# Too open to be checked: the schemas in CustomResourceDefinitions.
_OPEN: Final = "V1JSONSchemaProps"

# https://kubernetes.io/docs/reference/using-api/server-side-apply/#merge-strategy, patchMergeKey and listMapKey of
# k8s.io/api. Field, or model and field -> keys; a list of plain values that is a set has none.
_LISTS: Final[dict[str, tuple[str, ...]]] = {
    "conditions": ("type",),
    "containers": ("name",),
    "env": ("name",),
    "finalizers": (),
    "imagePullSecrets": ("name",),
    "initContainers": ("name",),
    "ownerReferences": ("uid",),
    "podIPs": ("ip",),
    "secrets": ("name",),
    "V1Container.ports": ("containerPort", "protocol"),
    "V1NodeStatus.addresses": ("type",),
    "V1ServiceSpec.ports": ("port", "protocol"),
    "volumeMounts": ("mountPath",),
    "volumes": ("name",),
}
_QUANTITIES: Final = {"allocatable", "capacity", "limits", "overhead", "requests", "sizeLimit", "divisor"}
_ENUMS: Final[dict[str, tuple[str, ...]]] = {
    "V1Container.imagePullPolicy": ("Always", "IfNotPresent", "Never"),
    "V1ContainerPort.protocol": ("SCTP", "TCP", "UDP"),
    "V1LabelSelectorRequirement.operator": ("In", "NotIn", "Exists", "DoesNotExist"),
    "V1NodeSelectorRequirement.operator": ("In", "NotIn", "Exists", "DoesNotExist", "Gt", "Lt"),
    "V1PodSpec.dnsPolicy": ("ClusterFirstWithHostNet", "ClusterFirst", "Default", "None"),
    "V1PodSpec.restartPolicy": ("Always", "OnFailure", "Never"),
    "V1Taint.effect": ("NoSchedule", "PreferNoSchedule", "NoExecute"),
    "V1Toleration.effect": ("NoSchedule", "PreferNoSchedule", "NoExecute"),
}


@cache
def schema_of(kind: str) -> Object:
    """Return the schema of a kind, or of `ObjectMeta`, with everything it refers to inside."""
    model = getattr(kubernetes.client, _MODELS.get(kind, f"V1{kind}")).model_json_schema()
    return _Converter(model.get("$defs", {})).model(model)


class _Converter:
    """Turns pydantic's JSON schema into a structural one."""

    def __init__(self, definitions: dict[str, Any]) -> None:
        self._definitions = definitions
        self._done: dict[str, Object] = {}

    def model(self, schema: dict[str, Any]) -> Object:
        name = str(schema["title"])
        if name not in self._done:
            made: Object = {"type": "object"}
            self._done[name] = made
            if name == _OPEN or not schema.get("properties"):
                made[PRESERVE] = True
            else:
                made["properties"] = {
                    field: self._field(name, field, inner) for field, inner in schema["properties"].items()
                }
                if schema.get("required"):
                    made["required"] = schema["required"]
        return self._done[name]

    def _field(self, model: str, field: str, schema: dict[str, Any]) -> Object:
        made = {**self._type(schema, quantity=field in _QUANTITIES)}
        keys = _LISTS.get(f"{model}.{field}", _LISTS.get(field))
        if keys is not None and made.get("type") == "array":
            made[LIST_TYPE] = "map" if keys else "set"
            if keys:
                made |= {LIST_KEYS: list(keys), "x-kubernetes-patch-merge-key": keys[0]}
            made["x-kubernetes-patch-strategy"] = "merge"
        if choices := _ENUMS.get(f"{model}.{field}"):
            made["enum"] = list(choices)
        return made

    def _type(self, schema: dict[str, Any], *, quantity: bool = False) -> Object:
        if reference := schema.get("$ref"):
            return self.model(self._definitions[reference.rsplit("/", 1)[1]])
        if kinds := [inner for inner in schema.get("anyOf", ()) if inner.get("type") != "null"]:
            return self._type(kinds[0], quantity=quantity) if len(kinds) == 1 else {INT_OR_STRING: True}
        match schema.get("type"):
            case "array":
                return {"type": "array", "items": self._type(schema["items"])}
            case "object" if isinstance(schema.get("additionalProperties"), dict):
                inner = self._type(schema["additionalProperties"], quantity=quantity)
                return {"type": "object", "additionalProperties": inner}
            case "string" if quantity:
                return {"type": "string", QUANTITY: True}
            case "string" | "integer" | "number" | "boolean" as plain:
                return {"type": plain, **({"format": schema["format"]} if "format" in schema else {})}
            case _:
                return {PRESERVE: True}
