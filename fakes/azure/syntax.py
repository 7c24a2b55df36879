"""Labels, taints and tags as AKS and ARM take them."""

import re
from collections.abc import Iterable, Mapping
from typing import Final

from fakes.azure import errors

_SUBDOMAIN: Final = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*"
_SEGMENT: Final = r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?"
_KEY: Final = re.compile(rf"(?P<prefix>{_SUBDOMAIN})/{_SEGMENT}|{_SEGMENT}", re.ASCII)
_VALUE: Final = re.compile(rf"({_SEGMENT})?", re.ASCII)
_MAX_PREFIX: Final = 253
_MAX_NAME: Final = 63
_EFFECTS: Final = frozenset({"NoSchedule", "PreferNoSchedule", "NoExecute"})

# https://aka.ms/aks-node-labels-116
_KUBERNETES_DOMAINS: Final = ("kubernetes.io", "k8s.io")
_ALLOWED_DOMAINS: Final = ("kubelet.kubernetes.io", "node.kubernetes.io")
_AKS_DOMAIN: Final = "kubernetes.azure.com"

# https://learn.microsoft.com/azure/azure-resource-manager/management/tag-resources#limitations
_TAG_RESERVED: Final = re.compile(r"[<>%&\\?/\x00-\x1f]")
_MAX_TAGS: Final = 50
_MAX_TAG_NAME: Final = 512
_MAX_TAG_VALUE: Final = 256


def check_labels(labels: Mapping[str, str]) -> None:
    """Raise 400 for a label that is malformed or under a reserved prefix."""
    for key, value in labels.items():
        match = _match_key(key)
        if match is None or not _VALUE.fullmatch(value):
            raise errors.bad_request(
                f"Node label '{key}: {value}' does not meet syntax and character specifications. Please see "
                "https://kubernetes.io/docs/concepts/overview/working-with-objects/labels/ for more details.",
                target=f"{key}={value}",
            )
        prefix = match["prefix"] or ""
        if _within(prefix, (_AKS_DOMAIN,)):
            raise errors.bad_request(
                f"Invalid node label key {key}. The '{_AKS_DOMAIN}' prefix is preserved by aks system labels",
                target=f"{key}={value}",
            )
        if _within(prefix, _KUBERNETES_DOMAINS) and not _within(prefix, _ALLOWED_DOMAINS):
            raise errors.bad_request(
                "For Kubernetes version greater than or equal to 1.16, node label keys in the 'kubernetes.io' or "
                "'k8s.io' namespace must begin with an allowed prefix (kubelet.kubernetes.io, node.kubernetes.io). "
                "For more information, please check https://aka.ms/aks-node-labels-116.",
                target=f"{key}={value}",
            )


def check_taints(taints: Iterable[str]) -> None:
    """Raise 400 for a taint that is not `key=value:Effect`, or for two of the same key and effect."""
    seen: set[tuple[str, str]] = set()
    for taint in taints:
        key, equals, rest = taint.partition("=")
        value, _, effect = rest.rpartition(":")
        if not (equals and _match_key(key) and _VALUE.fullmatch(value) and effect in _EFFECTS):
            raise errors.bad_request(
                f"invalid taint spec: {taint}. Please see https://aka.ms/node-taints for more details.",
                target="agentPoolProfile.nodeTaints",
            )
        if (key, effect) in seen:
            raise errors.bad_request(
                f"duplicated taints with the same key and effect: {taint}. "
                "Please see https://aka.ms/node-taints for more details.",
                target="agentPoolProfile.nodeTaints",
            )
        seen.add((key, effect))


def check_tags(tags: Mapping[str, str]) -> None:
    """Raise 400 for tags that ARM refuses."""
    if len(tags) > _MAX_TAGS:
        raise errors.AzureError(
            400,
            "InvalidTags",
            f"The number of tags {len(tags)} exceeds the maximum of {_MAX_TAGS}.",
            shape="nested",
        )
    reserved = [name for name in tags if _TAG_RESERVED.search(name)]
    if reserved:
        raise errors.AzureError(
            400,
            "InvalidTagNameCharacters",
            f"The tag names '{','.join(reserved)}' have reserved characters '<,>,%,&,\\,?,/' or control characters.",
            shape="nested",
        )
    for name, value in tags.items():
        if not 0 < len(name) <= _MAX_TAG_NAME or len(value) > _MAX_TAG_VALUE:
            raise errors.AzureError(
                400,
                "InvalidTags",
                f"The tag '{name}' has a name of {len(name)} or a value of {len(value)} characters; the maximum is "
                f"{_MAX_TAG_NAME} and {_MAX_TAG_VALUE}.",
                shape="nested",
            )


def _match_key(key: str) -> re.Match[str] | None:
    # The length first: the pattern takes quadratic time over what is far too long.
    match = _KEY.fullmatch(key) if len(key) <= _MAX_PREFIX + 1 + _MAX_NAME else None
    return None if match is None or len(match["prefix"] or "") > _MAX_PREFIX else match


def _within(prefix: str, domains: Iterable[str]) -> bool:
    return any(prefix == domain or prefix.endswith(f".{domain}") for domain in domains)
