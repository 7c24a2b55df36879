"""As much of protobuf as kubectl insists on: small objects that some of its commands send in no other form.

`kubectl create configmap`, `create secret`, `create namespace`, `create token`, `auth whoami`, `auth can-i` and `drain`
do; objects with pods in them are refused, manifests of them are always JSON. Field numbers are those of the
generated.proto files of k8s.io/api and k8s.io/apimachinery.
"""

import base64
from collections.abc import Iterator, Mapping
from typing import Any, Final

from fakes.cluster.embedded.objects import Object
from fakes.cluster.embedded.problems import unsupported_media

MEDIA_TYPE: Final = "application/vnd.kubernetes.protobuf"
_MAGIC: Final = b"k8s\x00"

# Message -> field number -> name and type: s string, b bytes, i number, - passed over, or another message;
# [] for lists, {} for maps from strings.
_MESSAGES: Final[Mapping[str, Mapping[int, str]]] = {
    "Unknown": {1: "type TypeMeta", 2: "raw b", 3: "- -", 4: "- -"},
    "TypeMeta": {1: "apiVersion s", 2: "kind s"},
    "ObjectMeta": {
        1: "name s",
        2: "generateName s",
        3: "namespace s",
        4: "- -",
        5: "uid s",
        6: "resourceVersion s",
        7: "- -",
        8: "- -",
        11: "labels {}s",
        12: "annotations {}s",
        14: "finalizers []s",
    },
    "ConfigMap": {1: "metadata ObjectMeta", 2: "data {}s", 3: "binaryData {}b", 4: "immutable i"},
    "Secret": {1: "metadata ObjectMeta", 2: "data {}b", 3: "type s", 4: "stringData {}s", 5: "immutable i"},
    "Namespace": {1: "metadata ObjectMeta", 2: "- -", 3: "- -"},
    "ServiceAccount": {1: "metadata ObjectMeta"},
    "TokenRequest": {1: "metadata ObjectMeta", 2: "spec TokenRequestSpec", 3: "- -"},
    "TokenRequestSpec": {1: "audiences []s", 4: "expirationSeconds i"},
    "SelfSubjectReview": {1: "metadata ObjectMeta", 2: "- -"},
    "SelfSubjectAccessReview": {1: "metadata ObjectMeta", 2: "spec AccessReviewSpec", 3: "- -"},
    "AccessReviewSpec": {1: "resourceAttributes ResourceAttributes", 2: "nonResourceAttributes NonResourceAttributes"},
    "ResourceAttributes": {
        1: "namespace s",
        2: "verb s",
        3: "group s",
        4: "version s",
        5: "resource s",
        6: "subresource s",
        7: "name s",
        8: "- -",
        9: "- -",
    },
    "NonResourceAttributes": {1: "path s", 2: "verb s"},
    "SelfSubjectRulesReview": {1: "metadata ObjectMeta", 2: "spec RulesReviewSpec", 3: "- -"},
    "RulesReviewSpec": {1: "namespace s"},
    "Eviction": {1: "metadata ObjectMeta", 2: "deleteOptions DeleteOptions"},
    "DeleteOptions": {
        1: "gracePeriodSeconds i",
        2: "preconditions Preconditions",
        4: "propagationPolicy s",
        5: "dryRun []s",
    },
    "Preconditions": {1: "uid s", 2: "resourceVersion s"},
}


def decode(text: bytes) -> Object:
    """Return the object. Raises Problem: 415 for what is not understood."""
    if not text.startswith(_MAGIC):
        raise unsupported_media("application/json", "application/yaml")
    envelope = _message("Unknown", text.removeprefix(_MAGIC))
    kind = envelope["type"]["kind"]
    return {**envelope["type"], **_message(kind, base64.b64decode(envelope.get("raw", "")))}


def _message(name: str, data: bytes) -> Object:
    made: Object = {}
    for number, value in _fields(data):
        known = _MESSAGES.get(name, {}).get(number)
        if known is None:
            raise unsupported_media(f"application/json: {name} is not understood as protobuf, use a manifest")
        field, kind = known.split()
        if kind.startswith("[]"):
            made.setdefault(field, []).append(_value(kind[2:], value))
        elif kind.startswith("{}"):
            entry = dict(_fields(value))
            made.setdefault(field, {})[entry.get(1, b"").decode()] = _value(kind[2:], entry.get(2, b""))
        elif kind != "-" and value != b"":
            made[field] = _value(kind, value)
    return made


def _value(kind: str, value: Any) -> Any:
    match kind:
        case "s":
            return value.decode()
        case "b":
            return base64.b64encode(value).decode()
        case "i":
            return value
    return _message(kind, value)


def _fields(data: bytes) -> Iterator[tuple[int, Any]]:
    """Yield number and value of each field: an int, or bytes."""
    position = 0
    while position < len(data):
        tag, position = _varint(data, position)
        value, position = _varint(data, position)
        if tag & 7 == 2:
            yield tag >> 3, data[position : position + value]
            position += value
        elif tag & 7 == 0:
            yield tag >> 3, value
        else:
            raise unsupported_media("application/json")


def _varint(data: bytes, position: int) -> tuple[int, int]:
    value = shift = 0
    while position < len(data):
        byte = data[position]
        position += 1
        value |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            return value, position
    raise unsupported_media("application/json")
