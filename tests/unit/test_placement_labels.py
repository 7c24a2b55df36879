"""The labels of VM sizes, as Karpenter's Azure provider and NVIDIA's discovery spell them."""

import pytest

from provisioner.apis import names
from provisioner.gpus.catalogue import GpuSize, sizes
from provisioner.placement import labels
from provisioner.placement.labels import traits
from provisioner.placement.size import Size
from tests.unit.builders import A100
from tests.unit.placement_builders import D4, FPGA, H100, MI300X, NEWER, changed

KEYS = sorted(labels.SIZE_KEYS)


def values(size: Size) -> dict[str, str]:
    """Return the labels that the size is known to have."""
    return {key: label.value for key, label in traits(size).labels.items() if label.spellings}


def test_labels_of_a_size_with_gpus() -> None:
    assert values(changed(A100)) == {
        names.INSTANCE_TYPE_LABEL: A100,
        names.SKU_NAME_LABEL: A100,
        names.ARCH_LABEL: "amd64",
        labels.FAMILY: "N",
        labels.SERIES: "NCads_v4",
        labels.VERSION: "4",
        labels.CPU: "24",
        labels.MEMORY: "225280",
        labels.GPU_NAME: "A100",
        labels.GPU_MANUFACTURER: "nvidia",
        labels.GPU_COUNT: "1",
        labels.NVIDIA_COUNT: "1",
        labels.NVIDIA_MEMORY: "81920",
    }


def test_labels_of_a_size_without_gpus() -> None:
    found = values(changed(D4))
    assert found[labels.GPU_COUNT] == "0"
    absent = {labels.GPU_NAME, labels.GPU_MANUFACTURER, labels.NVIDIA_COUNT, labels.NVIDIA_MEMORY}
    assert set(KEYS) - found.keys() == absent <= traits(changed(D4)).labels.keys()


def test_gpus_of_amd_have_none_of_nvidias_labels() -> None:
    found = values(changed(MI300X))
    assert (found[labels.GPU_MANUFACTURER], found[labels.GPU_NAME], found[labels.GPU_COUNT]) == ("amd", "MI300X", "8")
    assert found.keys().isdisjoint({labels.NVIDIA_COUNT, labels.NVIDIA_MEMORY})


def test_nothing_but_its_name_is_known_of_a_size_that_is_not_listed() -> None:
    assert values(Size(name="Standard_NC24ads_X9_v9")).keys() == {
        names.INSTANCE_TYPE_LABEL,
        names.SKU_NAME_LABEL,
        names.ARCH_LABEL,
        labels.FAMILY,
        labels.SERIES,
        labels.VERSION,
    }


@pytest.mark.parametrize(("name", "known"), [(A100, True), (D4, True), (FPGA, True), (NEWER, False)])
def test_gpus_are_known_unless_the_name_promises_some_that_no_list_has(name: str, known: bool) -> None:
    assert traits(changed(name)).gpus_known is known
    assert (labels.GPU_COUNT in traits(changed(name)).labels) is known


@pytest.mark.parametrize(
    ("name", "family", "series", "version"),
    [
        ("Standard_NC4as_T4_v3", "N", "NCas_v3", "3"),
        ("Standard_ND96isr_MI300X_v5", "N", "NDisr_v5", "5"),
        ("Standard_ND128isr_NDR_GB200_v6", "N", "NDisr_v6", "6"),
        ("Standard_NC24lds_xl_RTXPRO6000BSE_v6", "N", "NClds_v6", "6"),
        ("Standard_ND96is_flex_H100_v5", "N", "NDis_v5", "5"),
        ("Standard_ND128isrG5_GB300_v6", "N", "NDisrG5_v6", "6"),
        ("Standard_NV24", "N", "NV", "1"),
        ("Standard_NC24r_Promo", "N", "NCr", "1"),
        ("Standard_NP10s", "N", "NPs", "1"),
        ("Standard_D3_v2_Promo", "D", "D_v2", "2"),
        ("Standard_M8-2ms", "M", "Mms", "1"),
        ("Standard_M416s_8_v2", "M", "Ms_v2", "2"),
        ("Standard_EC48as_cc_v5", "E", "ECas_v5", "5"),
        ("Standard_HB120-16rs_v3", "H", "HBrs_v3", "3"),
        ("Standard_L12aos_v4", "L", "Laos_v4", "4"),
    ],
)
def test_family_series_and_version_are_read_from_the_name(name: str, family: str, series: str, version: str) -> None:
    found = values(Size(name=name))
    assert (found[labels.FAMILY], found[labels.SERIES], found[labels.VERSION]) == (family, series, version)


@pytest.mark.parametrize(
    "name", ["", "Standard_", "Standard_ZZZZ9", "nonsense", "Standard_D4s_v5 ", "Standard_" + "D" * 99]
)
def test_name_of_no_known_form_has_no_parts(name: str) -> None:
    found = traits(Size(name=name)).labels
    assert found.keys().isdisjoint({labels.FAMILY, labels.SERIES, labels.VERSION})


@pytest.mark.parametrize(
    ("name", "gpu", "value", "spellings"),
    [
        (A100, "A100", "A100", ("a100",)),
        (H100, "H100 NVL", "H100", ("h100", "h100nvl")),
        ("Standard_NC24lds_xl_RTXPRO6000BSE_v6", "RTX PRO 6000 BSE", "RTXPRO6000BSE", ("rtxpro6000bse",)),
        ("Standard_ND96asr_v4", "A100", "A100", ("a100",)),
        ("Standard_ND128isr_NDR_GB200_v6", "GB200", "GB200", ("gb200",)),
    ],
)
def test_gpu_is_named_as_karpenter_names_it(name: str, gpu: str, value: str, spellings: tuple[str, ...]) -> None:
    label = traits(Size(name=name, gpu_name=gpu, gpu_count=1)).labels[labels.GPU_NAME]
    assert (label.value, label.spellings) == (value, spellings)


@pytest.mark.parametrize("known", sizes(), ids=lambda size: str(size.name))
def test_every_gpu_size_of_the_catalogue_has_a_family_and_a_gpu_name_that_a_label_can_hold(known: GpuSize) -> None:
    size = Size(name=known.name, gpu_name=known.gpu, gpu_count=known.gpu_count)
    assert values(size)[labels.FAMILY] == "N"
    assert values(size)[labels.GPU_NAME].isalnum()
    assert traits(size).accelerated
