"""VM sizes as placement sees them, whoever knows of them."""

from collections.abc import Collection
from dataclasses import dataclass
from decimal import Decimal
from typing import Protocol

from provisioner.apis import names
from provisioner.gpus.mig import PROFILES


@dataclass(frozen=True, kw_only=True)
class Size:
    """A VM size in Azure's spelling and what its Node will offer. Zero and empty mean unknown.

    `gpu_count` is what the Node advertises as `gpu_resource`, `gpu_memory_gib` is of each of them. `family` is the name
    of its vCPU quota. `zones` are those that this subscription may use, None where nobody said. `restriction` is a
    sentence: why the subscription may not use the size in the region at all, and what to do. `only_by_name` says why it
    is for claims alone that name it. Prices are US dollars an hour, None where unknown.
    `retired` is the day on which Azure takes the size down, `successors` the nearest sizes that stay.
    `mig` says that AKS can partition its GPUs, and `gpu_instance_profile` by which profile they are: then counts and
    memory are those of the instances. `ephemeral_os_disk_gib` is the largest OS disk that the VM's host has room for, 0
    where it takes none.
    """

    name: str
    architecture: str = "amd64"
    family: str = ""
    vcpus: int = 0
    memory_gib: float = 0.0
    gpu_name: str = ""
    gpu_resource: str = names.NVIDIA_GPU
    gpu_count: int = 0
    gpu_memory_gib: float = 0.0
    zones: tuple[str, ...] | None = None
    restriction: str = ""
    only_by_name: str = ""
    sells_spot: bool = True
    price: Decimal | None = None
    spot_price: Decimal | None = None
    retired: str = ""
    successors: tuple[str, ...] = ()
    mig: bool = False
    gpu_instance_profile: str = ""
    ephemeral_os_disk_gib: int | None = None

    @property
    def whole_gpus(self) -> int:
        """Return how many GPUs the VM has, however they are partitioned."""
        mig = PROFILES.get(self.gpu_instance_profile)
        return self.gpu_count // mig.instances if mig is not None else self.gpu_count

    def __hash__(self) -> int:
        # What is derived of a size is cached by it; hashing all of its fields costs more than that saves.
        return hash(self.name)


class Sizes(Protocol):
    """The VM sizes that are known: from Azure's list of the region, and from what is built in."""

    def find(self, name: str) -> Size | None:
        """Return the size of that name, in any letter case."""
        ...

    @property
    def are_complete(self) -> bool:
        """Tell whether a size that is not known does not exist, or may be one we have not heard of."""
        ...

    def all(self) -> Collection[Size]:
        """Return the sizes that the region has; where Azure's list was not read, those that are built in."""
        ...
