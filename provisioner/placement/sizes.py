"""The VM sizes that are known: what Azure lists for the region, what it asks for them, and what is built in."""

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Final, Protocol

from provisioner.apis import names
from provisioner.gpus import catalogue
from provisioner.gpus.catalogue import AksSupport, GpuSize
from provisioner.gpus.successors import nearest
from provisioner.placement.size import Size


class ListedSize(Protocol):
    """A VM size as Azure lists it for a region."""

    @property
    def name(self) -> str:
        """Return Azure's spelling."""
        ...

    @property
    def family(self) -> str:
        """Return the name of the vCPU quota."""
        ...

    @property
    def vcpus(self) -> int:
        """Return the number of vCPUs."""
        ...

    @property
    def memory_gib(self) -> float:
        """Return the memory."""
        ...

    @property
    def gpus(self) -> int | None:
        """Return the `GPUs` capability, None where Azure gives none."""
        ...

    @property
    def architecture(self) -> str:
        """Return amd64 or arm64."""
        ...

    @property
    def zones(self) -> tuple[str, ...]:
        """Return the zones that this subscription may use."""
        ...

    @property
    def restriction(self) -> str:
        """Return why this subscription may not use the size in the region at all, empty where it may."""
        ...

    @property
    def low_priority_capable(self) -> bool:
        """Tell whether the size is sold as spot."""
        ...

    @property
    def ephemeral_os_disk_gib(self) -> int | None:
        """Return the largest OS disk that the VM's host has room for, 0 where it takes none, None where unknown."""
        ...


class ListedSizes(Protocol):
    """The region's sizes; empty until they were fetched."""

    @property
    def epoch(self) -> int:
        """Return a number that changes whenever another list was read."""
        ...

    def names(self) -> Collection[str]:
        """Return all names."""
        ...

    def all(self) -> Iterable[ListedSize]:
        """Return all sizes."""
        ...


class Prices(Protocol):
    """What Azure asks in the region at present."""

    @property
    def epoch(self) -> int:
        """Return a number that changes whenever other prices were read."""
        ...

    def price(self, size_name: str, /, *, spot: bool) -> Decimal | None:
        """Return US dollars an hour for a VM with Linux, None where it is not known."""
        ...


class NothingListed:
    """Azure's list before it was read."""

    epoch: Final = 0

    def names(self) -> Collection[str]:
        """Return no names."""
        return ()

    def all(self) -> Iterable[ListedSize]:
        """Return no sizes."""
        return ()


class NothingPriced:
    """Azure's prices before they were read."""

    epoch: Final = 0

    def price(self, size_name: str, /, *, spot: bool) -> Decimal | None:
        """Return None: no price is known."""
        return None


# The sizes with FPGAs and media accelerators have the capability `GPUs` too; nothing on them registers as one.
_NOT_GPU_PREFIXES: Final = ("standard_np", "standard_nm")
# What AMD calls its GPUs in the names of Azure's sizes; all others are NVIDIA's.
_AMD: Final = re.compile(r"_(MI\d+[A-Z]?|V[67]\d0)_", re.ASCII | re.IGNORECASE)


@dataclass(frozen=True, kw_only=True)
class _View:
    """What follows from one list and one set of prices: some 1,500 sizes, too many to derive for each claim."""

    epochs: tuple[int, int]
    sizes: tuple[Size, ...]
    by_name: Mapping[str, Size]
    is_complete: bool


class KnownSizes:
    """Sizes as placement sees them.

    Azure's list says what there is, of which vCPUs, memory and quota family, for whom and where; the catalogue says
    what the Node advertises and which GPU it is, which Azure's list does not. CPU architecture is the catalogue's too:
    where the list lacks it, it means amd64, and GB200 is not. Prices are Azure's, else the catalogue's; of spot VMs it
    has none.
    """

    def __init__(self, listed: ListedSizes, *, prices: Prices | None = None) -> None:
        self._listed = listed
        self._prices: Prices = prices or NothingPriced()
        self._view: _View | None = None

    @property
    def are_complete(self) -> bool:
        """Tell whether Azure's list was read, so that a size missing from it does not exist here."""
        return self._current().is_complete

    def all_names(self) -> Collection[str]:
        """Return the names of all known sizes."""
        return self._listed.names() or [size.name for size in catalogue.sizes()]

    def all(self) -> Collection[Size]:
        """Return the sizes that Azure lists for the region; before its list was read, the catalogue's that stay."""
        return self._current().sizes

    def find(self, name: str) -> Size | None:
        """Return the size of that name, in any letter case.

        A size of the catalogue that Azure does not list is returned all the same: the list may lag behind, and it is
        Azure that decides.
        """
        return self._current().by_name.get(name.lower())

    def _current(self) -> _View:
        epochs = (self._listed.epoch, self._prices.epoch)
        if self._view is None or self._view.epochs != epochs:
            self._view = self._derive(epochs)
        return self._view

    def _derive(self, epochs: tuple[int, int]) -> _View:
        listed = {sku.name.lower(): sku for sku in self._listed.all()}
        region = [size for size in catalogue.sizes() if not listed or _is_open(listed.get(size.name.lower()))]
        by_name = {
            size.name.lower(): self._from_catalogue(size, listed=listed.get(size.name.lower()), region=region)
            for size in catalogue.sizes()
        }
        by_name |= {name: self._from_azure(sku) for name, sku in listed.items() if name not in by_name}
        sizes = (
            [by_name[name] for name in listed] if listed else [size for size in by_name.values() if not size.retired]
        )
        return _View(epochs=epochs, sizes=tuple(sizes), by_name=by_name, is_complete=bool(listed))

    def _from_catalogue(self, size: GpuSize, *, listed: ListedSize | None, region: Iterable[GpuSize]) -> Size:
        return Size(
            name=listed.name if listed else size.name,
            architecture=size.architecture,
            family=(listed.family if listed else "") or size.family,
            vcpus=listed.vcpus if listed else size.vcpus,
            memory_gib=listed.memory_gib if listed else size.memory_gib,
            gpu_name=size.gpu,
            gpu_resource=names.AMD_GPU if size.vendor == "amd" else names.NVIDIA_GPU,
            gpu_count=size.gpu_count,
            gpu_memory_gib=size.gpu_memory_gib,
            zones=listed.zones if listed else None,
            restriction=listed.restriction if listed else "",
            only_by_name="is of a kind that AKS makes no GPU nodes of" if size.aks is AksSupport.NONE else "",
            sells_spot=listed.low_priority_capable if listed else True,
            price=self._price(size),
            spot_price=self._prices.price(size.name, spot=True),
            retired=size.retired.isoformat() if size.retired else "",
            successors=tuple(found.name for found in nearest(size, region, price=self._price)) if size.retired else (),
            mig=size.mig,
            ephemeral_os_disk_gib=listed.ephemeral_os_disk_gib if listed else None,
        )

    def _from_azure(self, sku: ListedSize) -> Size:
        gpus = 0 if sku.name.lower().startswith(_NOT_GPU_PREFIXES) else sku.gpus or 0
        return Size(
            name=sku.name,
            architecture=sku.architecture,
            family=sku.family,
            vcpus=sku.vcpus,
            memory_gib=sku.memory_gib,
            gpu_resource=names.AMD_GPU if _AMD.search(sku.name) else names.NVIDIA_GPU,
            gpu_count=gpus,
            zones=sku.zones,
            restriction=sku.restriction,
            sells_spot=sku.low_priority_capable,
            price=self._prices.price(sku.name, spot=False),
            spot_price=self._prices.price(sku.name, spot=True),
            ephemeral_os_disk_gib=sku.ephemeral_os_disk_gib,
        )

    def _price(self, size: GpuSize) -> Decimal | None:
        live = self._prices.price(size.name, spot=False)
        return size.price_per_hour if live is None else live


def _is_open(listed: ListedSize | None) -> bool:
    return listed is not None and not listed.restriction
