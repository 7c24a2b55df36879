"""A market as placement sees it, for tests: a region with sizes of every kind, and nothing that stands in the way."""

import dataclasses
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from provisioner.apis import names
from provisioner.apis.failure import Failure, FailureClass
from provisioner.apis.nodeclaim import NodeClaimSpec
from provisioner.apis.quota import Shortage
from provisioner.placement.market import Market, Offer, OfferKey, Placement, Refusal, Remembered
from provisioner.placement.place import place
from provisioner.placement.size import Size
from tests.unit.builders import A100, LOCATION, NOW, T4, spec

NC48 = "Standard_NC48ads_A100_v4"
H100 = "Standard_NC40ads_H100_v5"
MI300X = "Standard_ND96isr_MI300X_v5"
GB200 = "Standard_ND128isr_NDR_GB200_v6"
V100 = "Standard_NC6s_v3"
FPGA = "Standard_NP10s"
NEWER = "Standard_NC64ads_B300_v7"
D2, D4, D8 = "Standard_D2s_v5", "Standard_D4s_v5", "Standard_D8s_v5"
D4_ARM = "Standard_D4ps_v5"
B1 = "Standard_B1s"
DC4 = "Standard_DC4as_v5"
E4_CONSTRAINED = "Standard_E8-4s_v5"
BASIC = "Basic_A3"

ON_DEMAND, SPOT = names.CAPACITY_TYPE_ON_DEMAND, names.CAPACITY_TYPE_SPOT


def gpu(name: str, gpu_name: str, vcpus: int, memory_gib: float, price: str | None, **fields: Any) -> Size:
    """Return a size with one NVIDIA GPU of 80 GiB, less what is given."""
    defaults: dict[str, Any] = {"gpu_count": 1, "gpu_memory_gib": 80.0, "family": f"standard{gpu_name}Family"}
    return Size(
        name=name,
        gpu_name=gpu_name,
        vcpus=vcpus,
        memory_gib=memory_gib,
        price=Decimal(price) if price else None,
        **defaults | fields,
    )


def cpu(name: str, vcpus: int, price: str | None, **fields: Any) -> Size:
    """Return a size without GPU and 4 GiB a vCPU, less what is given."""
    defaults: dict[str, Any] = {"memory_gib": vcpus * 4.0, "family": "standardDSv5Family"}
    return Size(name=name, vcpus=vcpus, price=Decimal(price) if price else None, **defaults | fields)


SIZES: Sequence[Size] = (
    gpu(A100, "A100", 24, 220, "3.673", spot_price=Decimal("1.469"), zones=("1", "3")),
    gpu(NC48, "A100", 48, 440, "7.346", gpu_count=2),
    gpu(T4, "T4", 4, 28, "0.526", gpu_memory_gib=16.0, spot_price=Decimal("0.110")),
    gpu(H100, "H100 NVL", 40, 320, "6.980", gpu_memory_gib=94.0, sells_spot=False),
    gpu(MI300X, "MI300X", 96, 1850, "48.000", gpu_count=8, gpu_memory_gib=192.0, gpu_resource=names.AMD_GPU),
    gpu(GB200, "GB200", 128, 864, None, gpu_count=4, gpu_memory_gib=192.0, architecture="arm64"),
    gpu(V100, "V100", 6, 112, "0.100", gpu_memory_gib=16.0, retired="2025-09-30", successors=(T4, A100)),
    cpu(FPGA, 10, "0.001", memory_gib=168.0, family="standardNPSFamily"),
    cpu(NEWER, 64, "0.002", family="standardNCB300v7Family"),
    cpu(D2, 2, "0.096"),
    cpu(D4, 4, "0.192", spot_price=Decimal("0.040")),
    cpu(D8, 8, "0.384"),
    cpu(D4_ARM, 4, "0.150", architecture="arm64"),
    cpu(B1, 1, "0.010", memory_gib=1.0),
    cpu(DC4, 4, "0.020"),
    cpu(E4_CONSTRAINED, 8, "0.030"),
    cpu(BASIC, 4, "0.005"),
)


@dataclass(frozen=True)
class Catalogue:
    """The sizes of a region; `complete` where Azure's list was read."""

    sizes: Sequence[Size] = SIZES
    complete: bool = True

    def find(self, name: str) -> Size | None:
        return next((size for size in self.sizes if size.name.lower() == name.lower()), None)

    @property
    def are_complete(self) -> bool:
        return self.complete

    def all(self) -> Collection[Size]:
        return self.sizes


@dataclass(frozen=True)
class Short:
    """Quotas that lack something for some sizes, whatever their capacity type."""

    of: Mapping[str, Shortage] = field(default_factory=dict)

    def shortage(self, size: Size, *, capacity_type: str) -> Shortage | None:
        return self.of.get(size.name)


@dataclass(frozen=True)
class Failed:
    """Failures of offers as they were remembered."""

    of: Mapping[OfferKey, Remembered] = field(default_factory=dict)

    def recall(self, key: OfferKey) -> Remembered | None:
        return self.of.get(key)


def key(size: str = A100, zone: str = "0", capacity_type: str = ON_DEMAND) -> OfferKey:
    """Return the key of an offer."""
    return OfferKey(size=size.lower(), zone=zone, capacity_type=capacity_type)


def failure(kind: FailureClass = FailureClass.CAPACITY, message: str = "", **fields: Any) -> Failure:
    """Return a failure of that class."""
    return Failure(kind=kind, message=message or f"{kind.value}: 24 needed.", **fields)


def market(*sizes: Size, complete: bool = True, **fields: Any) -> Market:
    """Return the market of a region with these sizes, or with those of every kind."""
    region = Catalogue(sizes or SIZES, complete)
    return Market(**{"sizes": region, "now": NOW, "location": LOCATION, **fields})


def asked(*requirements: Mapping[str, Any], requests: Mapping[str, Any] | None = None) -> NodeClaimSpec:
    """Return the spec of a claim with these requirements and resource requests."""
    return spec(*requirements, resources={"requests": dict(requests or {})})


def placed(
    *requirements: Mapping[str, Any], requests: Mapping[str, Any] | None = None, at: Market | None = None
) -> Placement:
    """Return the placement of a claim with these requirements and resource requests."""
    return place(asked(*requirements, requests=requests), market=at or market())


def offered(*requirements: Mapping[str, Any], **fields: Any) -> list[str]:
    """Return the names of the sizes that are offered, best first."""
    return [offer.size.name for offer in placed(*requirements, **fields).offers]


def best(*requirements: Mapping[str, Any], **fields: Any) -> Offer:
    """Return the best offer of a claim that gets one."""
    placement = placed(*requirements, **fields)
    assert placement.best is not None, placement
    return placement.best


def refused(*requirements: Mapping[str, Any], **fields: Any) -> Refusal:
    """Return the refusal of a claim that no size does for."""
    placement = placed(*requirements, **fields)
    assert placement.refusal is not None, placement
    assert not placement.offers
    return placement.refusal


def unavailable(*requirements: Mapping[str, Any], **fields: Any) -> tuple[Failure, Placement]:
    """Return the failure of a claim whose sizes cannot be had now, and the whole placement."""
    placement = placed(*requirements, **fields)
    assert placement.unavailable is not None, placement
    return placement.unavailable, placement


def changed(name: str, **fields: Any) -> Size:
    """Return a size of the region with some fields changed."""
    (size,) = (size for size in SIZES if size.name == name)
    return dataclasses.replace(size, **fields)
