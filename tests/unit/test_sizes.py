"""What is known of VM sizes: the catalogue knows what a Node will offer, Azure's list knows what there is."""

from collections.abc import Collection
from dataclasses import dataclass

import pytest

from provisioner.apis import names
from provisioner.gpus import catalogue
from provisioner.nodeclaim.sizes import KnownSizes, NothingListed
from provisioner.placement.offer import Offer, Refusal, Size, choose
from tests.unit.builders import A100, T4, requirement, spec


@dataclass(frozen=True)
class Entry:
    name: str
    gpus: int | None = None
    architecture: str = "amd64"


class AzuresList:
    def __init__(self, *entries: Entry) -> None:
        self._entries = {entry.name.lower(): entry for entry in entries}

    def get(self, name: str) -> Entry | None:
        return self._entries.get(name.lower())

    def names(self) -> Collection[str]:
        return [entry.name for entry in self._entries.values()]


UNREAD = KnownSizes(NothingListed())


@pytest.mark.parametrize("written", [A100, A100.lower(), A100.upper()])
@pytest.mark.parametrize("sizes", [UNREAD, KnownSizes(AzuresList(Entry(A100, gpus=1)))], ids=["unread", "listed"])
def test_size_is_found_in_any_letter_case(sizes: KnownSizes, written: str) -> None:
    assert sizes.find(written) == Size(name=A100, gpu_count=1)


@pytest.mark.parametrize(
    ("name", "architecture", "resource", "count", "retired"),
    [
        ("Standard_NV6ads_A10_v5", "amd64", names.NVIDIA_GPU, 1, ""),
        ("Standard_ND96isr_H100_v5", "amd64", names.NVIDIA_GPU, 8, ""),
        ("Standard_ND96isr_MI300X_v5", "amd64", names.AMD_GPU, 8, ""),
        ("Standard_ND128isr_NDR_GB200_v6", "arm64", names.NVIDIA_GPU, 4, ""),
        ("Standard_NC6s_v3", "amd64", names.NVIDIA_GPU, 1, "2025-09-30"),
    ],
)
def test_catalogue_tells_what_the_node_will_offer(
    name: str, architecture: str, resource: str, count: int, retired: str
) -> None:
    assert UNREAD.find(name) == Size(
        name=name, architecture=architecture, gpu_resource=resource, gpu_count=count, retired=retired
    )


def test_catalogue_wins_where_azure_counts_otherwise_but_azure_spells_the_name() -> None:
    sizes = KnownSizes(AzuresList(Entry(T4.upper(), gpus=9, architecture="arm64")))
    assert sizes.find(T4) == Size(name=T4.upper(), gpu_count=1)


@pytest.mark.parametrize(
    ("entry", "gpus"),
    [
        (Entry("Standard_NC1_FUTURE_v9", gpus=2), 2),
        (Entry("Standard_NC1_FUTURE_v9"), 0),
        (Entry("Standard_NP10s", gpus=1), 0),
        (Entry("Standard_D4s_v5"), 0),
    ],
    ids=["newer than the catalogue", "not told", "an FPGA", "no GPU"],
)
def test_size_that_only_azure_knows_offers_what_azure_says(entry: Entry, gpus: int) -> None:
    assert KnownSizes(AzuresList(entry)).find(entry.name.lower()) == Size(name=entry.name, gpu_count=gpus)


def test_size_of_the_catalogue_is_azures_to_refuse_although_its_list_lacks_it() -> None:
    found = KnownSizes(AzuresList(Entry("Standard_D4s_v5"))).find(A100)
    assert found is not None
    assert found.name == A100


def test_size_that_nobody_knows_does_not_exist_once_azures_list_was_read() -> None:
    asked = spec(requirement(names.INSTANCE_TYPE_LABEL, "In", "Standard_NC24ads_A100_v5"))
    read = KnownSizes(AzuresList(Entry(A100), Entry("Standard_D4s_v5")))
    assert (UNREAD.are_complete, read.are_complete) == (False, True)
    offer = choose(asked, sizes=UNREAD)
    assert isinstance(offer, Offer)
    assert offer.size == Size(name="Standard_NC24ads_A100_v5")
    refusal = choose(asked, sizes=read)
    assert isinstance(refusal, Refusal)
    assert refusal.reason == "UnknownInstanceType"
    assert f"Did you mean {A100}" in refusal.message


def test_names_are_azures_where_they_were_read_and_the_catalogues_before() -> None:
    assert set(UNREAD.all_names()) == {size.name for size in catalogue.sizes()}
    assert list(KnownSizes(AzuresList(Entry("Standard_D4s_v5"))).all_names()) == ["Standard_D4s_v5"]
