"""What is known of VM sizes: the catalogue knows what a Node will offer, Azure's list what there is, and its prices."""

from collections.abc import Collection
from dataclasses import dataclass
from decimal import Decimal

import pytest

from provisioner.apis import names
from provisioner.gpus import catalogue
from provisioner.placement.size import Size, Sizes
from provisioner.placement.sizes import KnownSizes, NothingListed, Prices

A100 = "Standard_NC24ads_A100_v4"
T4 = "Standard_NC4as_T4_v3"
A10 = "Standard_NV36ads_A10_v5"
D4 = "Standard_D4s_v5"
NEW = "Standard_NC1_FUTURE_v9"
GONE = "Standard_NC6s_v3"


@dataclass(frozen=True)
class Entry:
    name: str
    gpus: int | None = None
    architecture: str = "amd64"
    family: str = "standardAnyFamily"
    vcpus: int = 4
    memory_gib: float = 16.0
    zones: tuple[str, ...] = ("1", "3")
    restriction: str = ""
    low_priority_capable: bool = True
    ephemeral_os_disk_gib: int | None = None


class AzuresList:
    """Counts how often it is read as a whole."""

    def __init__(self, *entries: Entry) -> None:
        self.epoch = 0
        self.readings = 0
        self._entries = entries

    def names(self) -> Collection[str]:
        return [entry.name for entry in self._entries]

    def all(self) -> Collection[Entry]:
        self.readings += 1
        return self._entries

    def refreshed(self, *entries: Entry) -> None:
        self.epoch += 1
        self._entries = entries


class AzuresPrices:
    def __init__(self, **prices: str) -> None:
        self.epoch = 0
        self.prices = prices

    def price(self, size: str, /, *, spot: bool) -> Decimal | None:
        price = self.prices.get(f"{size}{'_spot' if spot else ''}")
        return Decimal(price) if price else None


def of(*entries: Entry, prices: Prices | None = None) -> KnownSizes:
    return KnownSizes(AzuresList(*entries), prices=prices)


def found(sizes: Sizes, name: str) -> Size:
    size = sizes.find(name)
    assert size is not None
    return size


UNREAD = KnownSizes(NothingListed())


@pytest.mark.parametrize("written", [A100, A100.lower(), A100.upper()])
@pytest.mark.parametrize("sizes", [UNREAD, of(Entry(A100))], ids=["unread", "listed"])
def test_size_is_found_in_any_letter_case(sizes: KnownSizes, written: str) -> None:
    assert found(sizes, written).name == A100


def test_catalogue_fills_what_azures_list_would() -> None:
    assert UNREAD.find(A100) == Size(
        name=A100,
        family="StandardNCADSA100v4Family",
        vcpus=24,
        memory_gib=220,
        gpu_name="A100",
        gpu_count=1,
        gpu_memory_gib=80,
        zones=None,
        price=Decimal("3.673"),
        spot_price=None,
        mig=True,
    )


def test_azures_list_says_what_there_is_and_the_catalogue_what_is_in_it() -> None:
    entry = Entry(
        A100.upper(),
        gpus=9,
        architecture="arm64",
        family="standardRenamedFamily",
        vcpus=25,
        memory_gib=221,
        zones=("2",),
        restriction="is closed",
        low_priority_capable=False,
        ephemeral_os_disk_gib=256,
    )
    prices = AzuresPrices(**{A100: "4.5", f"{A100}_spot": "0.9"})
    assert of(entry, prices=prices).find(A100) == Size(
        name=A100.upper(),
        architecture="amd64",
        family="standardRenamedFamily",
        vcpus=25,
        memory_gib=221,
        gpu_name="A100",
        gpu_count=1,
        gpu_memory_gib=80,
        zones=("2",),
        restriction="is closed",
        sells_spot=False,
        price=Decimal("4.5"),
        spot_price=Decimal("0.9"),
        mig=True,
        ephemeral_os_disk_gib=256,
    )


@pytest.mark.parametrize(
    ("name", "architecture", "resource", "gpu", "count"),
    [
        ("Standard_NV6ads_A10_v5", "amd64", names.NVIDIA_GPU, "A10", 1),
        ("Standard_NC40ads_H100_v5", "amd64", names.NVIDIA_GPU, "H100 NVL", 1),
        ("Standard_ND96isr_MI300X_v5", "amd64", names.AMD_GPU, "MI300X", 8),
        ("Standard_ND96is_MI300X_v5", "amd64", names.AMD_GPU, "MI300X", 8),
        ("Standard_NV4ads_V710_v5", "amd64", names.AMD_GPU, "V710", 1),
        ("Standard_ND128isr_NDR_GB200_v6", "arm64", names.NVIDIA_GPU, "GB200", 4),
    ],
)
@pytest.mark.parametrize("listed", [None, 1], ids=["GPUs absent", "GPUs 1"])
def test_catalogue_tells_what_the_node_will_offer(
    name: str, architecture: str, resource: str, gpu: str, count: int, listed: int | None
) -> None:
    size = found(of(Entry(name, gpus=listed)), name)
    assert (size.architecture, size.gpu_resource, size.gpu_name, size.gpu_count) == (architecture, resource, gpu, count)
    assert size.gpu_memory_gib > 0


@pytest.mark.parametrize(
    ("name", "listed", "resource", "gpus"),
    [
        (NEW, 2, names.NVIDIA_GPU, 2),
        (NEW, None, names.NVIDIA_GPU, 0),
        ("Standard_ND96isr_MI355X_v6", 8, names.AMD_GPU, 8),
        ("Standard_NV48ads_V710_v6", 2, names.AMD_GPU, 2),
        ("Standard_NG64ads_V620_v2", 2, names.AMD_GPU, 2),
        ("Standard_NP10s", 1, names.NVIDIA_GPU, 0),
        ("Standard_NM16ads_MA35D", 1, names.NVIDIA_GPU, 0),
        (D4, None, names.NVIDIA_GPU, 0),
    ],
)
def test_size_that_only_azure_knows_offers_what_azure_says(
    name: str, listed: int | None, resource: str, gpus: int
) -> None:
    prices = AzuresPrices(**{name: "0.5", f"{name}_spot": "0.1"})
    entry = Entry(name, gpus=listed, architecture="arm64", restriction="is closed", low_priority_capable=False)
    assert of(entry, prices=prices).find(name.lower()) == Size(
        name=name,
        architecture="arm64",
        family="standardAnyFamily",
        vcpus=4,
        memory_gib=16,
        gpu_resource=resource,
        gpu_count=gpus,
        zones=("1", "3"),
        restriction="is closed",
        sells_spot=False,
        price=Decimal("0.5"),
        spot_price=Decimal("0.1"),
    )


def test_family_is_the_catalogues_where_azure_lists_none() -> None:
    assert found(of(Entry(T4, family="")), T4).family == "Standard NCASv3_T4 Family"


def test_size_without_a_gpu_has_no_price_but_azures() -> None:
    size = found(of(Entry(D4)), D4)
    assert (size.price, size.spot_price) == (None, None)


def test_all_are_the_catalogues_that_stay_before_azures_list_was_read() -> None:
    assert {size.name for size in UNREAD.all()} == {size.name for size in catalogue.sizes() if not size.retired}
    assert not UNREAD.are_complete


def test_all_are_azures_once_its_list_was_read() -> None:
    sizes = of(Entry(A100), Entry(D4), Entry(GONE))
    assert [size.name for size in sizes.all()] == [A100, D4, GONE]
    assert sizes.are_complete


def test_size_of_the_catalogue_is_azures_to_refuse_although_its_list_lacks_it() -> None:
    size = found(of(Entry(D4)), A100)
    assert (size.name, size.zones) == (A100, None)


def test_size_that_nobody_knows_does_not_exist_once_azures_list_was_read() -> None:
    assert (UNREAD.find(NEW), UNREAD.are_complete) == (None, False)
    read = of(Entry(A100))
    assert (read.find(NEW), read.are_complete) == (None, True)


def test_retired_size_is_marked_and_names_those_that_come_nearest() -> None:
    gone = found(UNREAD, GONE)
    assert gone.retired == "2025-09-30"
    assert gone.successors == (T4, "Standard_NC16ads_A10_v4", A100)
    assert (found(UNREAD, A100).retired, found(UNREAD, A100).successors) == ("", ())


def test_successors_are_of_the_region_open_to_us_and_in_the_order_of_its_prices() -> None:
    prices = AzuresPrices(**{A100: "1", A10: "2"})
    listed = (Entry(A100), Entry(A10), Entry(T4, restriction="is closed"), Entry(GONE), Entry(D4))
    assert found(of(*listed, prices=prices), GONE).successors == (A100, A10)
    assert found(of(Entry(GONE), Entry(D4)), GONE).successors == ()


def test_what_is_derived_is_kept_until_another_list_or_other_prices_were_read() -> None:
    listed, prices = AzuresList(Entry(A100)), AzuresPrices()
    sizes = KnownSizes(listed, prices=prices)
    kept = sizes.all()
    assert found(sizes, A100).zones == ("1", "3")
    assert sizes.all() is kept
    assert listed.readings == 1

    listed.refreshed(Entry(A100, zones=("2",)), Entry(D4))
    assert found(sizes, A100).zones == ("2",)
    assert len(sizes.all()) == 2
    assert [size.name for size in kept] == [A100], "what was handed out stays as it was"
    assert found(sizes, A100).price == Decimal("3.673")

    prices.prices, prices.epoch = {A100: "9"}, 1
    assert found(sizes, A100).price == Decimal(9)
    assert listed.readings == 3


def test_list_that_is_read_later_takes_the_place_of_the_catalogue() -> None:
    listed = AzuresList()
    sizes = KnownSizes(listed)
    assert not sizes.are_complete
    assert len(sizes.all()) > 1
    listed.refreshed(Entry(D4))
    assert sizes.are_complete
    assert [size.name for size in sizes.all()] == [D4]


def test_names_are_azures_where_they_were_read_and_the_catalogues_before() -> None:
    assert set(UNREAD.all_names()) == {size.name for size in catalogue.sizes()}
    assert list(of(Entry(D4)).all_names()) == [D4]
