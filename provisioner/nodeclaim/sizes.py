"""The VM sizes that are known: what Azure lists for the region, and what is built in."""

from collections.abc import Collection, Mapping
from typing import Protocol

from provisioner.apis import names
from provisioner.gpus.catalogue import GpuSize, find, sizes
from provisioner.placement.offer import Size


class ListedSize(Protocol):
    """A VM size as Azure lists it for a region."""

    @property
    def name(self) -> str:
        """Return Azure's spelling."""
        ...

    @property
    def gpus(self) -> int | None:
        """Return the `GPUs` capability, None where Azure gives none."""
        ...

    @property
    def architecture(self) -> str:
        """Return amd64 or arm64."""
        ...


class ListedSizes(Protocol):
    """The region's sizes; empty until they were fetched."""

    def get(self, name: str) -> ListedSize | None:
        """Return the size of that name, in any letter case."""
        ...

    def names(self) -> Collection[str]:
        """Return all names."""
        ...


# FPGA sizes have the capability `GPUs` too; nothing on them registers as one.
_NOT_GPU_PREFIXES = ("standard_np",)


class NothingListed:
    """Azure's list before it was read."""

    def get(self, name: str) -> ListedSize | None:
        """Return None: nothing is known of any name."""
        return None

    def names(self) -> Collection[str]:
        """Return no names."""
        return ()


class KnownSizes:
    """Looks a size up in the catalogue first: it knows what the Node advertises, which Azure's list does not."""

    def __init__(self, listed: ListedSizes) -> None:
        self._listed = listed
        self._spelling: Mapping[str, str] = {size.name.lower(): size.name for size in sizes()}

    @property
    def are_complete(self) -> bool:
        """Tell whether Azure's list was read, so that a size missing from it does not exist here."""
        return bool(self._listed.names())

    def all_names(self) -> Collection[str]:
        """Return the names of all known sizes."""
        return self._listed.names() or self._spelling.values()

    def find(self, name: str) -> Size | None:
        """Return the size of that name, in any letter case.

        A size of the catalogue that Azure does not list is returned all the same: the list may lag behind, and it is
        Azure that decides.
        """
        listed, known = self._listed.get(name), find(name)
        if known is not None:
            return _from_catalogue(known, spelling=listed.name if listed else known.name)
        if listed is None:
            return None
        gpus = 0 if listed.name.lower().startswith(_NOT_GPU_PREFIXES) else listed.gpus or 0
        return Size(name=listed.name, architecture=listed.architecture, gpu_count=gpus)


def _from_catalogue(size: GpuSize, *, spelling: str) -> Size:
    return Size(
        name=spelling,
        architecture=size.architecture,
        gpu_resource=names.AMD_GPU if size.vendor == "amd" else names.NVIDIA_GPU,
        gpu_count=size.gpu_count,
        retired=size.retired.isoformat() if size.retired else "",
    )
