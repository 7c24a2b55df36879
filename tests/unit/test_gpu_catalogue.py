import json
import re
from collections import Counter
from datetime import date
from fractions import Fraction
from importlib import resources

import pytest
from pydantic import ValidationError

from provisioner.gpus.catalogue import AksSupport, Driver, GpuSize, Interconnect, find, sizes
from provisioner.gpus.models import GpuArchitecture, GpuModel, models

TODAY = date(2026, 11, 21)
# The letters between the number of vCPUs and the accelerator: r stands for RDMA, m for more memory, and so on.
FEATURES = re.compile(r"^Standard_N[CDGV]C?(?P<vcpus>\d+)(?P<features>[a-z]*)")
ACCELERATOR = re.compile(r"_([A-Z]+\d+[A-Z]*)_v\d$")


def rows(file: str) -> list[dict[str, object]]:
    found: list[dict[str, object]] = json.loads(
        resources.files("provisioner.gpus").joinpath(file).read_text(encoding="utf-8")
    )
    return found


def test_no_size_and_no_model_occurs_twice() -> None:
    for file, loaded in (("catalogue.json", len(sizes())), ("models.json", len(models()))):
        counts = Counter(str(row["name"]).lower() for row in rows(file))
        assert [name for name, count in counts.items() if count > 1] == []
        assert loaded == len(counts)
    assert len(sizes()) > 90


def test_each_model_is_some_sizes() -> None:
    assert {size.gpu_model.name for size in sizes()} == set(models())


def test_names_are_found_in_any_case_and_keep_azures_spelling() -> None:
    size = find("STANDARD_NC24ADS_a100_V4")
    assert size is not None
    assert size.name == "Standard_NC24ads_A100_v4"


@pytest.mark.parametrize(
    "name", ["Standard_D4s_v5", "Standard_NP10s", "Standard_NP20s", "Standard_NP40s", "Standard_NM16ads_MA35D", ""]
)
def test_sizes_without_a_gpu_are_not_in_it(name: str) -> None:
    assert find(name) is None


@pytest.mark.parametrize("size", sizes(), ids=lambda size: size.name)
def test_each_size_agrees_with_its_name(size: GpuSize) -> None:
    assert find(size.name) is size
    match = FEATURES.match(size.name)
    assert match is not None
    assert int(match["vcpus"]) == size.vcpus
    # Older sizes do not say which GPU they have, newer ones say it up to its form: H100 stands for H100 NVL too.
    accelerator = ACCELERATOR.search(size.name)
    if accelerator:
        assert size.gpu.replace(" ", "").startswith(accelerator[1])
    assert size.rdma is ("r" in match["features"])


@pytest.mark.parametrize("size", sizes(), ids=lambda size: size.name)
def test_each_size_makes_sense(size: GpuSize) -> None:
    assert size.gpu_fraction.numerator == 1
    # ECC and virtualisation take a part of what a GPU is sold with, and GB are not GiB.
    assert 0.9 * size.sold_gpu_memory_gb < size.gpu_memory_gib <= size.sold_gpu_memory_gb
    assert (size.driver is Driver.NONE) is (size.vendor == "amd" or size.aks is AksSupport.NONE), "none for AMD"
    assert (size.architecture == "arm64") is size.gpu.startswith("GB")
    assert (size.interconnect is Interconnect.XGMI) is (size.gpu == "MI300X")
    if size.mig:
        assert size.gpu in ("A100", "H100", "H100 NVL", "H200"), "AKS partitions no others"
    if size.gpu_count >= 8:
        assert size.interconnect is not Interconnect.NONE
    if size.retired:
        assert size.price_per_hour is None, "a retired size must not look cheap"
        assert size.aks is AksSupport.NONE
        assert size.is_retired(on=TODAY)


@pytest.mark.parametrize("model", models().values(), ids=lambda model: model.name)
def test_each_model_makes_sense(model: GpuModel) -> None:
    assert models()[model.name] is model
    assert set(model.gpu.split()) <= set(model.name.split())
    assert 0.9 * model.memory_gb < model.memory_mib / 1024 <= model.memory_gb
    assert 2012 <= model.architecture.year <= TODAY.year


def test_newer_architectures_of_nvidia_have_the_higher_compute_capability() -> None:
    nvidia = [model for model in models().values() if model.vendor == "nvidia"]
    by_year = sorted(nvidia, key=lambda model: model.architecture.year)
    majors = [int(str(model.compute_capability).split(".")[0]) for model in by_year]
    assert majors == sorted(majors)


@pytest.mark.parametrize(
    ("name", "count", "fraction", "each"),
    [
        # ECC may be on.
        ("Standard_NC4as_T4_v3", 1, Fraction(1), 15),
        ("Standard_NC64as_T4_v3", 4, Fraction(1), 15),
        # Parts of a GPU, for which Azure lists 1 GPU or none.
        ("Standard_NV6ads_A10_v5", 1, Fraction(1, 6), 4),
        ("Standard_NV12ads_A10_v5", 1, Fraction(1, 3), 8),
        ("Standard_NV18ads_A10_v5", 1, Fraction(1, 2), 12),
        ("Standard_NC24lds_xl_RTXPRO6000BSE_v6", 1, Fraction(1, 4), 24),
        ("Standard_NC72lds_xl_RTXPRO6000BSE_v6", 1, Fraction(1, 2), 48),
        ("Standard_NV4ads_V710_v5", 1, Fraction(1, 6), 4),
        ("Standard_NG8ads_V620_v1", 1, Fraction(1, 4), 8),
        # A whole GPU as a vGPU, and not as one.
        ("Standard_NV36ads_A10_v5", 1, Fraction(1), 24512 / 1024),
        ("Standard_NV72ads_A10_v5", 2, Fraction(1), 24512 / 1024),
        ("Standard_NC16ads_A10_v4", 1, Fraction(1), 23028 / 1024),
        ("Standard_NC144ds_xl_RTXPRO6000BSE_v6", 1, Fraction(1), 96),
        ("Standard_NC96ads_A100_v4", 4, Fraction(1), 80),
        ("Standard_ND96asr_v4", 8, Fraction(1), 40),
        ("Standard_NC40ads_H100_v5", 1, Fraction(1), 95830 / 1024),
        ("Standard_ND96isr_H100_v5", 8, Fraction(1), 81559 / 1024),
        ("Standard_ND96isr_H200_v5", 8, Fraction(1), 143771 / 1024),
        # Azure lists no GPUs for these.
        ("Standard_ND128isr_NDR_GB200_v6", 4, Fraction(1), 189471 / 1024),
        ("Standard_ND128isrG5_GB300_v6", 4, Fraction(1), 284208 / 1024),
        ("Standard_ND96is_MI300X_v5", 8, Fraction(1), 196288 / 1024),
    ],
)
def test_what_a_node_offers(name: str, count: int, fraction: Fraction, each: float) -> None:
    size = find(name)
    assert size is not None
    assert (size.gpu_count, size.gpu_fraction, size.gpu_memory_gib) == (count, fraction, each)
    assert size.total_gpu_memory_gib == count * each


@pytest.mark.parametrize(
    ("name", "architecture", "capability", "interconnect", "driver", "aks"),
    [
        ("Standard_NC4as_T4_v3", GpuArchitecture.TURING, "7.5", "none", "cuda-lts", "linux"),
        ("Standard_NV36ads_A10_v5", GpuArchitecture.AMPERE, "8.6", "none", "grid", "ubuntu"),
        ("Standard_NC24ads_A100_v4", GpuArchitecture.AMPERE, "8.0", "none", "cuda-lts", "linux"),
        ("Standard_NC48ads_A100_v4", GpuArchitecture.AMPERE, "8.0", "nvlink", "cuda-lts", "linux"),
        ("Standard_NC80adis_H100_v5", GpuArchitecture.HOPPER, "9.0", "nvlink", "cuda-lts", "linux"),
        ("Standard_ND96isr_H200_v5", GpuArchitecture.HOPPER, "9.0", "nvswitch", "cuda-lts", "linux"),
        ("Standard_ND40rs_v2", GpuArchitecture.VOLTA, "7.0", "nvlink", "cuda-lts", "linux"),
        ("Standard_NC288ds_xl_RTXPRO6000BSE_v6", GpuArchitecture.BLACKWELL, "12.0", "none", "grid-v20", "ubuntu"),
        ("Standard_ND128isr_NDR_GB200_v6", GpuArchitecture.BLACKWELL, "10.0", "nvswitch", "cuda-lts", "ubuntu"),
        ("Standard_ND128isr_GB300_v6", GpuArchitecture.BLACKWELL, "10.3", "nvswitch", "cuda-lts", "ubuntu"),
        ("Standard_ND96isr_MI300X_v5", GpuArchitecture.CDNA3, None, "xgmi", "none", "ubuntu"),
        ("Standard_NCC40ads_H100_v5", GpuArchitecture.HOPPER, "9.0", "none", "none", "none"),
    ],
)
def test_what_a_size_is_made_of(
    name: str, architecture: GpuArchitecture, capability: str | None, interconnect: str, driver: str, aks: str
) -> None:
    size = find(name)
    assert size is not None
    assert (size.gpu_architecture, size.compute_capability, size.interconnect) == (
        architecture,
        capability,
        interconnect,
    )
    assert (size.driver, size.aks) == (driver, aks)


@pytest.mark.parametrize(
    ("name", "family"),
    [
        ("Standard_NC4as_T4_v3", "Standard NCASv3_T4 Family"),
        ("Standard_ND96asr_v4", "Standard NDASv4_A100 Family"),
        ("Standard_ND96amsr_A100_v4", "standard NDAMSv4_A100Family"),
        ("Standard_NC24ads_A100_v4", "StandardNCADSA100v4Family"),
        ("Standard_NC40ads_H100_v5", "StandardNCadsH100v5Family"),
        ("Standard_NCC40ads_H100_v5", "StandardNCCads2023Family"),
        ("Standard_ND96isr_H100_v5", "standardNDSH100v5Family"),
        # A pool of its own: two of them were all that a subscription's quota of this name allowed.
        ("Standard_ND96isrf_H100_v5", "standardNDSFH100v5Family"),
        ("Standard_ND96isr_H200_v5", "standardNDISRH200V5Family"),
        ("Standard_ND128isr_NDR_GB200_v6", "standardNDISRGB200V6NDRFamily"),
        ("Standard_NV12ads_A10_v5", "StandardNVADSA10v5Family"),
        ("Standard_ND96isf_H200_v5", ""),
    ],
)
def test_families_are_spelled_as_the_quota_is(name: str, family: str) -> None:
    size = find(name)
    assert size is not None
    assert size.family == family


def test_family_is_unknown_only_where_there_is_no_page_of_the_size() -> None:
    unknown = {size.name for size in sizes() if not size.family and not size.retired}
    assert unknown == {
        "Standard_ND96is_H200_v5",
        "Standard_ND96isf_H200_v5",
        "Standard_ND96isrf_H200_v5",
        "Standard_ND128isrf_NDR_GB200_v6",
    }


@pytest.mark.parametrize(
    ("name", "on", "retired"),
    [
        ("Standard_NV4as_v4", date(2026, 9, 29), False),
        ("Standard_NV4as_v4", date(2026, 9, 30), True),
        ("Standard_NC6s_v3", TODAY, True),
        ("Standard_NC24rs_v3", date(2025, 4, 1), True),
        ("Standard_NC128lds_xl_RTXPRO6000BSE_v6", TODAY, True),
        ("Standard_ND40rs_v2", TODAY, False),
        ("Standard_NC24ads_A100_v4", TODAY, False),
    ],
)
def test_when_a_size_is_retired(name: str, on: date, retired: bool) -> None:
    size = find(name)
    assert size is not None
    assert size.is_retired(on=on) is retired


def test_sizes_that_aks_supports_and_that_are_priced_can_be_compared() -> None:
    priced = [size for size in sizes() if size.aks is not AksSupport.NONE and size.price_per_hour]
    cheapest = min(priced, key=lambda size: size.price_per_hour or 0)
    assert cheapest.name == "Standard_NV4ads_V710_v5"
    assert {size.vendor for size in priced} == {"nvidia", "amd"}


ROW = rows("catalogue.json")[0]


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"gpu_model": "T1000"}, "no GPU model is named 'T1000'"),
        ({"gpu_model": 4}, "gpu_model"),
        ({"gpu_count": 0}, "gpu_count"),
        ({"gpu_fraction": "1/2", "gpu_count": 2}, "a part of a GPU comes alone"),
        ({"gpu_fraction": "1/2", "gpu_memory_mib": 8192}, "its memory follows from the part"),
        ({"gpu_fraction": "3/2"}, "gpu_fraction"),
        ({"interconnect": "nvlink"}, "none to be connected with"),
        ({"family": "NCASv3_T4"}, "family"),
        ({"price_per_hour": "0"}, "price_per_hour"),
        ({"name": "Standard_D4s_v5"}, "name"),
        ({"gpus": 1}, "gpus"),
    ],
)
def test_row_that_cannot_be_is_refused(change: dict[str, object], complaint: str) -> None:
    with pytest.raises(ValidationError, match=complaint):
        GpuSize.model_validate(ROW | change)


@pytest.mark.parametrize(("name", "capability"), [("T4", None), ("V710", "11.0"), ("T4", "7"), ("T4", 7.5)])
def test_model_with_an_impossible_compute_capability_is_refused(name: str, capability: object) -> None:
    row = next(row for row in rows("models.json") if row["name"] == name)
    with pytest.raises(ValidationError, match="compute"):
        GpuModel.model_validate(row | {"compute_capability": capability})
