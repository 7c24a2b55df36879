"""Whatever a claim says: never a crash, always an offer that does or a reason, and the same one each time."""

from decimal import Decimal
from typing import Any

from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from provisioner.apis import names
from provisioner.apis.failure import FailureClass
from provisioner.apis.nodeclaim import NodeClaimSpec, Requirement
from provisioner.apis.quota import REGIONAL_USAGE, SPOT_USAGE, Usage
from provisioner.placement import labels
from provisioner.placement.labels import traits
from provisioner.placement.market import Market, Offer, Placement, Preference
from provisioner.placement.memory import OfferMemory
from provisioner.placement.place import place
from provisioner.placement.quota import RegionQuota
from provisioner.placement.resources import allocatable_memory, allocatable_millicores
from tests.unit.builders import LOCATION, NOW
from tests.unit.placement_builders import SIZES, Catalogue, failure, key

NAMING = (names.INSTANCE_TYPE_LABEL, names.SKU_NAME_LABEL)
KNOWN = tuple(size.name for size in SIZES)
OPERATORS = ("In", "NotIn", "Exists", "DoesNotExist", "Gt", "Lt", "Gte", "Lte")

_names = st.sampled_from(KNOWN) | st.sampled_from([name.lower() for name in KNOWN]) | st.text(max_size=80)
_numbers = st.integers(-5, 500_000).map(str)
_likely: dict[str, st.SearchStrategy[str]] = {
    **dict.fromkeys(NAMING, _names),
    names.ARCH_LABEL: st.sampled_from(["amd64", "arm64", "s390x"]),
    names.OS_LABEL: st.sampled_from(["linux", "windows"]),
    names.REGION_LABEL: st.sampled_from([LOCATION, "westus"]),
    names.ZONE_LABEL: st.sampled_from(["0", "eastus-1", "eastus-2", "eastus-3", "westus-1", "1"]),
    names.CAPACITY_TYPE_LABEL: st.sampled_from(["on-demand", "spot", "reserved"]),
    labels.FAMILY: st.sampled_from("NDEBn"),
    labels.SERIES: st.sampled_from(["NCads_v4", "ncas_v3", "Ds_v5"]),
    labels.VERSION: st.sampled_from("12345"),
    labels.CPU: _numbers,
    labels.MEMORY: _numbers,
    labels.GPU_NAME: st.sampled_from(["A100", "t4", "H100-NVL", "B200"]),
    labels.GPU_MANUFACTURER: st.sampled_from(["nvidia", "AMD"]),
    labels.GPU_COUNT: st.sampled_from("01248"),
    labels.NVIDIA_MEMORY: _numbers,
    labels.NVIDIA_COUNT: st.sampled_from("01248"),
    "team": st.sampled_from("abc"),
}


_NUMERIC = (labels.CPU, labels.MEMORY, labels.GPU_COUNT, labels.NVIDIA_MEMORY, labels.NVIDIA_COUNT, labels.VERSION)


@st.composite
def _likely_requirement(draw: st.DrawFn) -> dict[str, Any]:
    """Draw a requirement that an API server would store and that some size may well satisfy."""
    key = draw(st.sampled_from(sorted(_likely)))
    operator = draw(st.sampled_from(OPERATORS if key in _NUMERIC else OPERATORS[:3]))
    if operator in ("In", "NotIn"):
        values = draw(st.lists(_likely[key], min_size=1, max_size=6))
    else:
        values = [] if operator in ("Exists", "DoesNotExist") else [draw(_likely[key])]
    return {"key": key, "operator": operator, "values": values}


@st.composite
def _hostile_requirement(draw: st.DrawFn) -> dict[str, Any]:
    key = draw(st.sampled_from(sorted(_likely)) | st.text(max_size=320))
    values = draw(st.lists(_likely.get(key, st.nothing()) | st.text(max_size=80), max_size=3))
    made: dict[str, Any] = {"key": key, "operator": draw(st.sampled_from(OPERATORS)), "values": values}
    if draw(st.booleans()):
        made["minValues"] = draw(st.integers(-1, 50))
    return made


def _requirements(*, hostile: int) -> st.SearchStrategy[list[dict[str, Any]]]:
    """Return lists of requirements of which up to `hostile` may be anything."""
    likely = st.lists(_likely_requirement(), max_size=4)
    return st.builds(lambda one, other: one + other, likely, st.lists(_hostile_requirement(), max_size=hostile))


_quantities = (
    st.integers(-2, 200).map(str)
    | st.sampled_from(["500m", "1Gi", "87Gi", "9Ti", "1e99", "0.1", "1E", "9" * 60, "1n", "-1Ei", "1500m"])
    | st.integers(0, 3000).map(lambda gib: f"{gib}Gi")
)
_known_resources = st.sampled_from(
    [names.NVIDIA_GPU, names.AMD_GPU, "cpu", "memory", "pods", "storage", "ephemeral-storage"]
)
_modest = st.integers(0, 9).map(str) | st.sampled_from(["500m", "1Gi", "87Gi"])
_requests = st.dictionaries(_known_resources, _modest, max_size=2) | st.dictionaries(
    _known_resources | st.just("example.com/fpga") | st.text(max_size=80), _quantities, max_size=3
)


def _spec(requirements: list[dict[str, Any]], requests: dict[str, str]) -> NodeClaimSpec:
    return NodeClaimSpec.model_validate({"requirements": requirements, "resources": {"requests": requests}})


_specs = st.builds(_spec, _requirements(hostile=0) | _requirements(hostile=2), _requests)


@st.composite
def _market(draw: st.DrawFn) -> Market:
    rows = {size.family.lower() for size in SIZES} | {REGIONAL_USAGE.lower(), SPOT_USAGE.lower()}
    limited = draw(st.dictionaries(st.sampled_from(sorted(rows)), st.integers(0, 60), max_size=4))
    memory = OfferMemory()
    keys = st.builds(
        key, st.sampled_from(KNOWN), st.sampled_from("0123"), st.sampled_from([names.CAPACITY_TYPE_SPOT, "on-demand"])
    )
    for failed in draw(st.lists(keys, max_size=8)):
        memory.remember([failed], failure=failure(draw(st.sampled_from(FailureClass))), now=NOW)
    preference: Preference = draw(st.sampled_from(["Price", "Listed"]))
    sizes = draw(st.lists(st.sampled_from(SIZES), unique=True)) if draw(st.booleans()) else SIZES
    return Market(
        sizes=Catalogue(tuple(sizes), complete=draw(st.booleans())),
        now=NOW,
        location=draw(st.sampled_from([LOCATION, ""])),
        quota=RegionQuota(usages={name: Usage(name=name, limit=limit, used=0) for name, limit in limited.items()}),
        memory=memory,
        preference=preference,
    )


def kind(placement: Placement) -> str:
    if placement.offers:
        return "offers"
    return "unavailable" if placement.unavailable else f"refusal: {placement.refusal and placement.refusal.reason}"


def satisfies(label: str | None, requirement: Requirement, *, same: Any) -> bool:
    """Tell whether a Node with that label matches, by the words of the Kubernetes API."""
    values = requirement.values
    match requirement.operator:
        case "In":
            return label is not None and any(same(label, value) for value in values)
        case "NotIn":
            return label is None or not any(same(label, value) for value in values)
        case "Exists":
            return label is not None
        case "DoesNotExist":
            return label is None
    if label is None or not label.lstrip("+-").isdecimal():
        return False
    number, bound = int(label), int(values[0])
    compared = {"Gt": number > bound, "Gte": number >= bound, "Lt": number < bound, "Lte": number <= bound}
    return compared[requirement.operator]


def same(key: str, label: str, value: str) -> bool:
    fold = labels.FOLDS.get(key)
    return label == value if fold is None else fold(label) == fold(value)


def labels_of(offer: Offer, *, location: str) -> dict[str, list[str | None]]:
    """Return what each label of the offer's Node may be by; a zonal one is in one of its zones."""
    known: dict[str, list[str | None]] = {
        key: list(label.spellings) if key == labels.GPU_NAME and label.spellings else [label.value or None]
        for key, label in traits(offer.size).labels.items()
    }
    return {
        **{key: [value] for key, value in offer.labels if key not in labels.SIZE_KEYS},
        **known,
        names.CAPACITY_TYPE_LABEL: [offer.capacity_type],
        names.OS_LABEL: ["linux"],
        names.REGION_LABEL: [location],
        names.ZONE_LABEL: [f"{LOCATION}-{zone}" for zone in offer.zones] or ["0"],
    }


_thorough = settings(max_examples=250, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@_thorough
@given(spec=_specs, market=_market())
def test_every_claim_gets_offers_or_one_reason_and_the_same_each_time(spec: NodeClaimSpec, market: Market) -> None:
    placement = place(spec, market=market)
    event(kind(placement))
    answers = [bool(placement.offers), placement.refusal is not None, placement.unavailable is not None]
    assert answers.count(True) == 1
    assert place(spec, market=market) == placement
    if placement.refusal is not None:
        assert placement.refusal.reason.isalpha()
        assert 0 < len(placement.refusal.message) < 4000
    if placement.unavailable is not None:
        shown = placement.unavailable.message.encode()[:256].decode(errors="ignore")
        assert "all requested instance types were unavailable during launch" in shown
    for entry in placement.left_out:
        assert entry.message
        assert (entry.failure is not None) == entry.because.may_pass


@_thorough
@given(spec=_specs, market=_market())
def test_every_offer_satisfies_every_requirement(spec: NodeClaimSpec, market: Market) -> None:
    for offer in place(spec, market=market).offers:
        has = labels_of(offer, location=market.location)
        for requirement in spec.requirements:
            if requirement.key in labels.SIZE_KEYS and requirement.key not in has:
                # Not known of the size, and so Azure's to judge.
                continue
            if requirement.key in (names.REGION_LABEL, names.ZONE_LABEL) and not market.location:
                # Neither the region is judged then, nor of which one a zone is.
                continue
            if requirement.key not in has and requirement.key not in labels.SIZE_KEYS:
                # A label of the user's own choice of values.
                continue
            compare = lambda label, value, key=requirement.key: same(key, label, value)  # noqa: E731
            spellings = has[requirement.key]
            check = all if requirement.operator == "NotIn" else any
            zonal = requirement.key == names.ZONE_LABEL
            holds = [satisfies(label, requirement, same=compare) for label in spellings]
            assert all(holds) if zonal else check(holds), (offer, requirement)


@_thorough
@given(spec=_specs, market=_market())
def test_every_offer_has_what_is_requested(spec: NodeClaimSpec, market: Market) -> None:
    requests = spec.requests
    for offer in place(spec, market=market).offers:
        size = offer.size
        for resource in (names.NVIDIA_GPU, names.AMD_GPU):
            has = size.gpu_count if size.gpu_resource == resource else 0
            assert requests.get(resource, Decimal(0)) <= has or not traits(size).gpus_known
        if size.vcpus:
            assert requests.get("cpu", Decimal(0)) * 1000 <= allocatable_millicores(size.vcpus)
        if size.memory_gib:
            assert requests.get("memory", Decimal(0)) <= allocatable_memory(size.memory_gib)
        assert offer.os_disk_gib is None or 30 <= offer.os_disk_gib <= 2048


def _is_about_gpus(requirement: dict[str, Any]) -> bool:
    return "gpu" in requirement["key"] or requirement["key"] in (labels.FAMILY, labels.SERIES)


@_thorough
@given(
    requirements=_requirements(hostile=1).map(
        lambda drawn: [r for r in drawn if not _is_about_gpus(r) and not (r["key"] in NAMING and r["operator"] == "In")]
    ),
    requests=st.dictionaries(st.sampled_from(["cpu", "memory", "pods", "storage"]), _modest, max_size=3),
    market=_market(),
)
def test_claim_that_names_no_size_and_asks_for_no_gpu_never_gets_one(
    requirements: list[dict[str, Any]], requests: dict[str, str], market: Market
) -> None:
    placement = place(_spec(requirements, requests), market=market)
    event(kind(placement))
    for offer in placement.offers:
        assert offer.size.gpu_count == 0
        assert not offer.size.name.startswith("Standard_N")
        assert offer.size.architecture == "amd64" or any(r["key"] == names.ARCH_LABEL for r in requirements)


@_thorough
@given(
    named=st.lists(_names, min_size=1, max_size=8),
    more=_requirements(hostile=1),
    requests=_requests,
    market=_market(),
)
def test_every_named_size_is_offered_or_left_out_with_a_reason(
    named: list[str], more: list[dict[str, Any]], requests: dict[str, str], market: Market
) -> None:
    naming = {"key": names.INSTANCE_TYPE_LABEL, "operator": "In", "values": named}
    others = [requirement for requirement in more if requirement["key"] not in NAMING]
    placement = place(_spec([naming, *others], requests), market=market)
    event(kind(placement))
    if placement.refusal is not None and (not placement.left_out or placement.refusal.reason == "MinValuesNotMet"):
        # The claim was refused before any size was looked at, or for want of choice among those that it could have.
        return
    seen = {offer.size.name.lower() for offer in placement.offers} | {e.size.lower() for e in placement.left_out}
    assert seen == {name.lower() for name in named}
