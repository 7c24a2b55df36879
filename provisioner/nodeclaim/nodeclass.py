"""KaitoNodeClass: what it says about nodes, and whether claims can be served with it. Pure."""

import hashlib
import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeGuard

from provisioner.apis import names
from provisioner.apis.nodeclaim import NodeClaim
from provisioner.apis.nodeclass import DEFAULTS, NodeClassSpec, read_spec
from provisioner.apis.reservation import Reserved
from provisioner.nodeclaim.class_verdict import ready_condition
from provisioner.placement.market import Terms

NOT_FOUND: Final = "NodeClassNotFound"
NOT_READY: Final = "NodeClassNotReady"
CLASS_REASONS: Final = frozenset({NOT_FOUND, NOT_READY})
# Of the rule below. Where a claim carries another one, its hash cannot be compared with one of today's.
HASH_VERSION: Final = "v1"
_HASH_LENGTH: Final = 16
# What a new claim gets changes with these; nothing is wrong with a node that was chosen before. Zones and prices only
# rule offers out, and one cap holds for VMs of all kinds and sizes: to lower it must not replace what runs below. What
# is expected of device plugins is no part of the node.
OF_CHOICE: Final = frozenset({"sizePreference", "zones", "maxPricePerHour", "devicePlugin"})
_SPOT: Final = "spot"
_IGNORED: Final = "Ignored"
OF_CHOICE_OF_SPOT: Final = frozenset({"maxPrice"})


@dataclass(frozen=True, kw_only=True)
class ClassProblem:
    """Why no node is made for claims of a class: a condition reason and its message."""

    reason: str
    message: str


def problem(name: str, raw: Mapping[str, Any] | None) -> ClassProblem | None:
    """Return why the class cannot be used, None where it can. One that is being deleted is missing, as in Karpenter.

    Without the default one defaults hold: KAITO names it in every claim and makes none.
    """
    if not _exists(raw):
        if name == names.DEFAULT_NODECLASS:
            return None
        message = f"There is no {names.NODECLASS_KIND} {name}. Create it, or write a claim that names another one."
        return ClassProblem(reason=NOT_FOUND, message=message)
    _, error = read_spec(raw.get("spec"))
    ready = ready_condition(raw)
    if not error and ready.get("status") != "False":
        return None
    # What can be seen at once need not be waited for.
    why = error or ready.get("message") or ready.get("reason")
    return ClassProblem(reason=NOT_READY, message=f"{names.NODECLASS_KIND} {name} is not Ready: {why}")


def spec_of(raw: Mapping[str, Any] | None) -> NodeClassSpec:
    """Return what a class says; one that does not exist, or cannot be read, says nothing."""
    return read_spec(raw.get("spec"))[0] if _exists(raw) else DEFAULTS


def ignores_gpus(claim: NodeClaim, raw: Mapping[str, Any] | None) -> bool:
    """Tell whether a claim's Node is ready for work whatever it has of its GPUs.

    The class says so as it is now; what it said at launch holds where it is gone, not listed yet, or cannot be read.
    """
    if _exists(raw):
        spec, error = read_spec(raw.get("spec"))
        if not error:
            return spec.device_plugin == _IGNORED
    return claim.annotations.get(names.DEVICE_PLUGIN_ANNOTATION) == _IGNORED


def launch_annotations(claim: NodeClaim, spec: NodeClassSpec) -> dict[str, str]:
    """Return what a claim carries of its class from its launch on, beside the hash."""
    if spec.device_plugin == _IGNORED or names.DEVICE_PLUGIN_ANNOTATION in claim.annotations:
        return {names.DEVICE_PLUGIN_ANNOTATION: spec.device_plugin}
    return {}


def terms(name: str, spec: NodeClassSpec, *, reserved: frozenset[Reserved] | None = None) -> Terms:
    """Return what the class of that name lays down for what may be offered.

    `reserved` is what its capacity reservation group reserves, where that is known.
    """
    return Terms(
        owner=f"{names.NODECLASS_KIND} {name}",
        zones=spec.zones,
        max_price=spec.max_price_per_hour,
        max_spot_price=spec.spot.max_price,
        gpu_instance_profile=spec.gpu_instance_profile or "",
        needs_ephemeral_os_disk=spec.os_disk_type == "Ephemeral",
        os_disk_gib=spec.os_disk_size_gb,
        reserved=reserved,
    )


def pool_hash(raw: Mapping[str, Any] | None) -> str:
    """Return a hash of what the class says about how nodes are made, empty where there is no such class.

    Every field of its spec counts but those that only choose among what could be made, so that a field which is new to
    the class needs no change here. What is empty or null is as good as left out.
    """
    if not _exists(raw):
        return ""
    spec = raw.get("spec")
    if not isinstance(spec, Mapping):
        return _hash({})
    fields = _without(spec, OF_CHOICE)
    if isinstance(fields.get(_SPOT), Mapping):
        fields[_SPOT] = _without(fields[_SPOT], OF_CHOICE_OF_SPOT)
    return _hash(fields)


def hash_annotations(class_hash: str) -> dict[str, str]:
    """Return the annotations of a claim whose pool is made as the class of that hash says; without one, by defaults."""
    return {
        names.NODECLASS_HASH_ANNOTATION: class_hash or _hash({}),
        names.NODECLASS_HASH_VERSION_ANNOTATION: HASH_VERSION,
    }


def _exists(raw: Mapping[str, Any] | None) -> TypeGuard[Mapping[str, Any]]:
    return raw is not None and "deletionTimestamp" not in (raw.get("metadata") or {})


def _without(fields: Mapping[str, Any], some: Collection[str]) -> dict[str, Any]:
    return {key: value for key, value in fields.items() if key not in some}


def _hash(spec: Mapping[str, Any]) -> str:
    text = json.dumps(_stripped(spec, empty=(None, "", {}, [])), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:_HASH_LENGTH]


def _stripped(value: Any, *, empty: Collection[Any]) -> Any:
    """Return JSON without what does not differ from being left out."""
    # A label or a tag without a value is one all the same.
    within: Collection[Any] = (None, {}, [])
    if isinstance(value, Mapping):
        members = {key: _stripped(member, empty=within) for key, member in value.items()}
        return {key: member for key, member in members.items() if member not in empty}
    return [_stripped(member, empty=within) for member in value] if isinstance(value, list) else value
