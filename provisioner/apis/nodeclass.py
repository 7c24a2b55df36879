"""kaito.sh/v1alpha1 KaitoNodeClass: what nodes on Azure have in common, as far as it is written."""

import re
from collections.abc import Mapping
from decimal import Decimal
from typing import Annotated, Final, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StrictInt,
    StrictStr,
    ValidationError,
    model_validator,
)

from provisioner.apis import names
from provisioner.apis.labels import is_key, is_value, is_within
from provisioner.apis.taints import Effect, Taint

GpuInstanceProfile = Literal["MIG1g", "MIG2g", "MIG3g", "MIG4g", "MIG7g"]

# Azure keeps 50 tags for a resource, two of which are ours, and takes names and values of this length and without
# these characters: https://learn.microsoft.com/azure/azure-resource-manager/management/tag-resources#limitations.
_MAX_TAGS: Final = 48
_MAX_TAG_NAME: Final = 512
_MAX_TAG_VALUE: Final = 256
_NOT_IN_TAG_NAMES: Final = re.compile(r"[<>%&\\?/\x00-\x1f]")
_OWN_TAGS: Final = frozenset({names.CLAIM_TAG, names.CLAIM_UID_TAG})

# Of AKS, Kubernetes, Karpenter and KAITO, whose controllers and ours say something by them.
_RESERVED_DOMAINS: Final = (
    "kubernetes.azure.com",
    "kubernetes.io",
    "k8s.io",
    "karpenter.sh",
    "karpenter.azure.com",
    "kaito.sh",
)
# AKS sets these on Nodes: https://learn.microsoft.com/azure/aks/use-labels.
SET_BY_AKS: Final = frozenset({"agentpool", "storageprofile", "storagetier", "accelerator"})
_MAX_LABELS: Final = 50

# Names as https://learn.microsoft.com/azure/azure-resource-manager/management/resource-name-rules has them. An ID goes
# into the path of a request, so nothing else is taken.
_GROUP: Final = r"/subscriptions/[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}/resourceGroups/[-\w.()]{0,89}[-\w()]"
_NAME: Final = r"[a-z0-9](?:[-\w.]{0,78}\w)?"
_SUBNET_ID: Final = re.compile(
    rf"{_GROUP}/providers/Microsoft\.Network/virtualNetworks/{_NAME}/subnets/{_NAME}", re.ASCII | re.IGNORECASE
)
_RESERVATION_ID: Final = re.compile(
    rf"{_GROUP}/providers/Microsoft\.Compute/capacityReservationGroups/{_NAME}", re.ASCII | re.IGNORECASE
)

# US dollars an hour. Azure takes a spot VM's to five places; nothing that it sells costs as much as the highest.
_PRICE_PLACES: Final = 5
_MAX_PRICE: Final = 10_000


def _price(value: object) -> Decimal:
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal):
        raise ValueError("must be a number of US dollars an hour")  # noqa: TRY004 -- pydantic reports ValueErrors
    price = Decimal(str(value))
    if not price.is_finite() or not 0 < price <= _MAX_PRICE:
        raise ValueError(f"must be more than 0 and at most {_MAX_PRICE} US dollars an hour")
    if round(price, _PRICE_PLACES) != price:
        raise ValueError(f"must have {_PRICE_PLACES} decimal places at most")
    return price


def _subnet_id(value: str) -> str:
    if not _SUBNET_ID.fullmatch(value):
        raise ValueError(
            "must be /subscriptions/ID/resourceGroups/NAME/providers/Microsoft.Network/virtualNetworks/NAME/subnets/"
            "NAME"
        )
    return value


def _reservation_id(value: str) -> str:
    if not _RESERVATION_ID.fullmatch(value):
        raise ValueError(
            "must be /subscriptions/ID/resourceGroups/NAME/providers/Microsoft.Compute/capacityReservationGroups/NAME"
        )
    return value


def _tags(tags: dict[str, str]) -> dict[str, str]:
    if len(tags) > _MAX_TAGS:
        raise ValueError(f"there are {len(tags)} and must be {_MAX_TAGS} at most: Azure takes 50, and two are ours")
    folded: set[str] = set()
    for name, value in tags.items():
        if not 0 < len(name) <= _MAX_TAG_NAME or len(value) > _MAX_TAG_VALUE:
            raise ValueError(f"a name has 1 to {_MAX_TAG_NAME} characters and a value {_MAX_TAG_VALUE} at most")
        if _NOT_IN_TAG_NAMES.search(name):
            raise ValueError(f"the name {name[:80]!r} has one of < > % & \\ ? / or a control character")
        # Azure compares the names of tags without regard to case.
        if name.lower() in _OWN_TAGS:
            raise ValueError(f"{name} is written by the controller")
        if name.lower() in folded:
            raise ValueError(f"{name[:80]!r} is there twice, in another case of letters")
        folded.add(name.lower())
    return tags


def _check_key(key: str) -> None:
    if not is_key(key):
        raise ValueError(f"{key[:80]!r} is no key of a label or taint")
    if is_within(key, *_RESERVED_DOMAINS) or key in SET_BY_AKS:
        raise ValueError(f"{key} is reserved: its prefix is AKS's, Kubernetes's, Karpenter's or KAITO's")


def _labels(labels: dict[str, str]) -> dict[str, str]:
    if len(labels) > _MAX_LABELS:
        raise ValueError(f"there are {len(labels)} and must be {_MAX_LABELS} at most")
    for key, value in labels.items():
        _check_key(key)
        if not is_value(value):
            raise ValueError(f"{key}: {value[:80]!r} is no value of a label")
    return labels


class _Frozen(BaseModel):
    # Fields of later versions are passed over. A field whose value is null is as good as left out, as in Kubernetes.
    model_config = ConfigDict(frozen=True, extra="ignore")

    @model_validator(mode="before")
    @classmethod
    def _without_nulls(cls, raw: object) -> object:
        return {key: value for key, value in raw.items() if value is not None} if isinstance(raw, Mapping) else raw


class _Taint(_Frozen):
    key: StrictStr
    value: StrictStr = ""
    effect: Effect

    @model_validator(mode="after")
    def _check(self) -> "_Taint":
        _check_key(self.key)
        if not is_value(self.value):
            raise ValueError(f"{self.value[:80]!r} is no value of a taint")
        return self


def _taints(taints: tuple[_Taint, ...]) -> tuple[_Taint, ...]:
    if len(taints) > _MAX_LABELS:
        raise ValueError(f"there are {len(taints)} and must be {_MAX_LABELS} at most")
    if len({(taint.key, taint.effect) for taint in taints}) < len(taints):
        raise ValueError("key and effect of each must be its own")
    return taints


Price = Annotated[Decimal, BeforeValidator(_price)]
_Tags = Annotated[dict[StrictStr, StrictStr], AfterValidator(_tags)]
_Labels = Annotated[dict[StrictStr, StrictStr], AfterValidator(_labels)]
_Zone = Annotated[StrictStr, Field(pattern=r"^[1-9]\z")]


class Spot(_Frozen):
    """What holds for spot VMs alone: what becomes of an evicted one, and US dollars an hour beyond which it is one."""

    eviction_policy: Literal["Delete", "Deallocate"] = Field(default="Delete", alias="evictionPolicy")
    max_price: Price | None = Field(default=None, alias="maxPrice")


class NodeClassSpec(_Frozen):
    """What a class says, by AKS's names; what it leaves out is decided as without a class.

    `zones` are numbers, none for any placement. Prices are US dollars an hour. `os_disk_size_gb` is in GiB, in spite
    of AKS's name for it.
    """

    size_preference: Literal["Price", "Listed"] = Field(default="Price", alias="sizePreference")
    vnet_subnet_id: Annotated[StrictStr, AfterValidator(_subnet_id)] | None = Field(default=None, alias="vnetSubnetID")
    tags: _Tags = Field(default_factory=dict)
    os_sku: Literal["Ubuntu", "Ubuntu2204", "Ubuntu2404", "AzureLinux"] | None = Field(default=None, alias="osSKU")
    os_disk_type: Literal["Managed", "Ephemeral"] | None = Field(default=None, alias="osDiskType")
    os_disk_size_gb: Annotated[StrictInt, Field(ge=30, le=2048)] | None = Field(default=None, alias="osDiskSizeGB")
    max_pods: Annotated[StrictInt, Field(ge=10, le=250)] | None = Field(default=None, alias="maxPods")
    zones: Annotated[tuple[_Zone, ...], Field(max_length=9)] = ()
    max_price_per_hour: Price | None = Field(default=None, alias="maxPricePerHour")
    spot: Spot = Spot()
    gpu_instance_profile: GpuInstanceProfile | None = Field(default=None, alias="gpuInstanceProfile")
    gpu_driver: Literal["Install", "None"] | None = Field(default=None, alias="gpuDriver")
    gpu_management_mode: Literal["Managed", "Unmanaged"] | None = Field(default=None, alias="gpuManagementMode")
    capacity_reservation_group_id: Annotated[StrictStr, AfterValidator(_reservation_id)] | None = Field(
        default=None, alias="capacityReservationGroupID"
    )
    labels: _Labels = Field(default_factory=dict)
    raw_taints: Annotated[tuple[_Taint, ...], AfterValidator(_taints)] = Field(default=(), alias="taints")
    device_plugin: Literal["Expected", "Ignored"] = Field(default="Expected", alias="devicePlugin")

    @model_validator(mode="after")
    def _check_driver(self) -> "NodeClassSpec":
        if self.gpu_driver == "None" and self.gpu_management_mode == "Managed":
            raise ValueError("gpuManagementMode Managed comes with the driver, and gpuDriver is None")
        return self

    @property
    def taints(self) -> tuple[Taint, ...]:
        """Return the taints that each Node of the class begins with."""
        return tuple(Taint(key=each.key, value=each.value, effect=each.effect) for each in self.raw_taints)

    @property
    def spot_max_price(self) -> Decimal | None:
        """Return what a spot VM may cost, None where it is evicted for its price only beyond the on-demand price."""
        caps = [cap for cap in (self.spot.max_price, self.max_price_per_hour) if cap is not None]
        return min(caps, default=None)


DEFAULTS: Final = NodeClassSpec()
# What pydantic calls by Python's names.
_TYPES: Final = {"model_type": "must be an object", "dict_type": "must be an object", "tuple_type": "must be a list"}


def read_spec(raw: object) -> tuple[NodeClassSpec, str]:
    """Read the spec of a class as the API server sent it: what it says, and what is wrong with it, empty for nothing.

    A class that was written before its CRD knew a rule, or past all rules, may say anything. Where something is wrong
    nothing of it is taken. The text begins with the field's name.
    """
    if raw is None:
        return DEFAULTS, ""
    try:
        return NodeClassSpec.model_validate(raw), ""
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        # Keys as they were written, which may be long.
        where = ".".join(str(part)[:80] for part in ("spec", *first["loc"]))
        what = _TYPES.get(first["type"]) or first["msg"].removeprefix("Value error, ")
        return DEFAULTS, f"{where}: {what}"
