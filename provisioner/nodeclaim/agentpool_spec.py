"""Renders the agent pool that a claim becomes: its name and the body of the PUT. Pure."""

import hashlib
import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any, Final

from provisioner.apis import names
from provisioner.apis.agentpool import POOL_NAME
from provisioner.apis.nodeclaim import NodeClaim, NodeClaimSpec
from provisioner.apis.taints import UNREGISTERED_TAINT, Taint
from provisioner.placement.market import Offer, Refusal

_BASE36: Final = "0123456789abcdefghijklmnopqrstuvwxyz"
_MAX_POOL_NAME: Final = 12

# AKS keeps these prefixes for itself (https://learn.microsoft.com/azure/aks/use-labels).
_RESERVED_PREFIXES: Final = ("kubernetes.azure.com/", "kubernetes.io/")
# Set by AKS or the kubelet on every Node, or refused from a kubelet by the NodeRestriction admission plugin: not
# for the pool's nodeLabels. Those of them that a claim carries are put on its Node when it registers.
_NODE_DOMAINS: Final = ("kubernetes.io", "k8s.io")
_SET_BY_AKS: Final = frozenset({"agentpool", "storageprofile", "storagetier", "accelerator"})
_WELL_KNOWN: Final = frozenset({names.OS_LABEL, names.ARCH_LABEL, "kubernetes.io/hostname"})

_NAME: Final = r"[A-Za-z0-9](?:[-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?"
_SUBDOMAIN: Final = r"(?=.{1,253}/)[a-z0-9](?:[-a-z0-9]*[a-z0-9])?(?:\.[a-z0-9](?:[-a-z0-9]*[a-z0-9])?)*"
_LABEL_KEY: Final = re.compile(rf"(?:{_SUBDOMAIN}/)?{_NAME}", re.ASCII)
_LABEL_VALUE: Final = re.compile(rf"(?:{_NAME})?", re.ASCII)

_SPOT_TAINT_KEY: Final = "kubernetes.azure.com/scalesetpriority"
_OS_SKUS: Final = {"ubuntu": "Ubuntu", "azurelinux": "AzureLinux"}
_DEFAULT_NODEPOOL: Final = "kaito"
# Azure/gpu-provisioner writes the claim's creation time so, in UTC; a label value takes no colons.
_TIMESTAMP: Final = "%Y-%m-%dT%H-%M-%SZ"


def pool_name(claim_name: str, *, alternative: bool = False) -> str:
    """Return the agent pool's name for a claim: the claim's own where AKS takes it, else one hashed from it.

    `alternative` is for a claim whose own name a foreign pool already has: always the hashed one.
    """
    if POOL_NAME.fullmatch(claim_name) and not alternative:
        return claim_name
    number = int.from_bytes(hashlib.sha256(claim_name.encode()).digest(), "big")
    digits = []
    for _ in range(_MAX_POOL_NAME - 1):
        number, digit = divmod(number, len(_BASE36))
        digits.append(_BASE36[digit])
    return "g" + "".join(digits)


def creation_timestamp_label(created: datetime) -> str:
    """Return the claim's creation time as the peer writes it into its pools' node labels."""
    return created.astimezone(UTC).strftime(_TIMESTAMP)


def launch_labels(claim: NodeClaim, offer: Offer, *, location: str) -> dict[str, str]:
    """Return the labels that a launched claim carries; what the user wrote wins over what we know."""
    known = dict(offer.labels)
    if offer.zone_label:
        known[names.ZONE_LABEL] = offer.zone_label
    if location:
        known[names.REGION_LABEL] = location
    return known | class_label(claim) | dict(claim.labels)


def class_label(claim: NodeClaim) -> dict[str, str]:
    """Return the label that names the claim's class; none where the name of the class does not fit into a label."""
    name = claim.class_name
    return {names.NODECLASS_LABEL: name} if _LABEL_VALUE.fullmatch(name) else {}


def check(claim: NodeClaim, spec: NodeClaimSpec) -> Refusal | None:
    """Return why AKS would refuse the claim's labels or taints, None where it would not."""
    return _check_labels(claim.labels) or _check_taints(spec.taints)


def render(claim: NodeClaim, spec: NodeClaimSpec, offer: Offer) -> dict[str, Any]:
    """Return the body of the PUT.

    Where Azure/gpu-provisioner sets a field, the value is the same as its. What is added: the tags that prove
    ownership, and the fields of what it cannot do (spot, zones).
    """
    image_family = claim.annotations.get(names.NODE_IMAGE_FAMILY_ANNOTATION, "").lower()
    properties: dict[str, Any] = {
        "count": 1,
        "mode": "User",
        "nodeLabels": _node_labels(claim, offer),
        "nodeTaints": [_aks_taint(taint) for taint in spec.taints if not _is_set_elsewhere(taint)],
        "osSKU": _OS_SKUS.get(image_family, "Ubuntu"),
        "osType": "Linux",
        "tags": {names.CLAIM_TAG: claim.name, names.CLAIM_UID_TAG: claim.uid},
        "type": "VirtualMachineScaleSets",
        "vmSize": offer.size.name,
    }
    if offer.os_disk_gib is not None:
        properties["osDiskSizeGB"] = offer.os_disk_gib
    if offer.size.gpu_resource == names.AMD_GPU:
        # AKS has no AMD driver and refuses these sizes unless it is told to install none.
        properties["gpuProfile"] = {"driver": "None"}
    if offer.zones:
        properties["availabilityZones"] = list(offer.zones)
    if offer.capacity_type == names.CAPACITY_TYPE_SPOT:
        # Up to the on-demand price; an evicted GPU VM is deleted, it holds nothing that its claim would want back.
        properties |= {"scaleSetPriority": "Spot", "scaleSetEvictionPolicy": "Delete", "spotMaxPrice": -1}
    return {"properties": properties}


def _node_labels(claim: NodeClaim, offer: Offer) -> dict[str, str]:
    # The claim already carries what its launch derived; only what its author wrote goes to AKS, as the peer does.
    derived = dict(offer.labels).keys() | {names.NODECLASS_LABEL}
    own = {
        key: value
        for key, value in claim.labels.items()
        if (key not in derived or key == names.NODEPOOL_LABEL) and key not in _SET_BY_AKS and not _is_node_domain(key)
    }
    return {
        names.NODEPOOL_LABEL: _DEFAULT_NODEPOOL,
        **own,
        names.MACHINE_TYPE_LABEL: "gpu" if "Standard_N" in offer.size.name else "cpu",
        names.CREATION_TIMESTAMP_LABEL: creation_timestamp_label(claim.created),
    }


def _is_node_domain(key: str) -> bool:
    domain = key.partition("/")[0] if "/" in key else ""
    return any(domain == suffix or domain.endswith(f".{suffix}") for suffix in _NODE_DOMAINS)


def _is_set_elsewhere(taint: Taint) -> bool:
    return taint == UNREGISTERED_TAINT or taint.key == _SPOT_TAINT_KEY


def _aks_taint(taint: Taint) -> str:
    return f"{taint.key}={taint.value}:{taint.effect}"


def _check_labels(labels: Mapping[str, str]) -> Refusal | None:
    for key, value in labels.items():
        if key.startswith(_RESERVED_PREFIXES) and key not in _WELL_KNOWN:
            return _invalid_label(key, "AKS keeps this prefix for itself")
        if not _LABEL_KEY.fullmatch(key) or not _LABEL_VALUE.fullmatch(value):
            return _invalid_label(key, f"{key}={value} is no valid label")
    return None


def _invalid_label(key: str, why: str) -> Refusal:
    return Refusal(reason="InvalidLabel", message=f"Label {key}: {why}. Write a new claim without it.")


def _check_taints(taints: Iterable[Taint]) -> Refusal | None:
    seen: set[tuple[str, str]] = set()
    for taint in taints:
        if _is_set_elsewhere(taint):
            continue
        if taint.key.startswith(_RESERVED_PREFIXES):
            return _invalid_taint(taint, "AKS keeps this prefix for itself")
        if not _LABEL_KEY.fullmatch(taint.key) or not _LABEL_VALUE.fullmatch(taint.value):
            return _invalid_taint(taint, "key or value is not valid")
        if (taint.key, taint.effect) in seen:
            return _invalid_taint(taint, "key and effect occur twice")
        seen.add((taint.key, taint.effect))
    return None


def _invalid_taint(taint: Taint, why: str) -> Refusal:
    return Refusal(reason="InvalidTaint", message=f"Taint {taint}: {why}. Write a new claim without it.")
