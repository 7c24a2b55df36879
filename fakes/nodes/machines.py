"""What this package asks of the side that owns the virtual machines.

Protocols instead of an import of the fake Azure, so that the two can be used one without the other: anything with
these attributes is a machine, anything with these two methods a source of them.
"""

from collections.abc import Mapping, Sequence
from typing import Protocol


class Machine(Protocol):
    """One virtual machine of an agent pool, as ARM shows it. Its name is the name its Node will have."""

    @property
    def pool(self) -> str:
        """Name of the agent pool."""

    @property
    def name(self) -> str:
        """`aks-<pool>-<8 digits>-vmss<6 characters of base 36>`."""

    @property
    def provider_id(self) -> str:
        """`azure:///subscriptions/...`."""

    @property
    def vm_size(self) -> str:
        """`Standard_...`."""

    @property
    def os_sku(self) -> str:
        """`Ubuntu`, `Ubuntu2404`, `AzureLinux`, ..."""

    @property
    def location(self) -> str:
        """Azure region."""

    @property
    def zone(self) -> str | None:
        """Availability zone (`"1"`), None for a regional machine."""

    @property
    def priority(self) -> str:
        """`Regular` or `Spot`."""

    @property
    def mode(self) -> str:
        """`System` or `User`."""

    @property
    def node_labels(self) -> Mapping[str, str]:
        """The pool's nodeLabels."""

    @property
    def node_taints(self) -> tuple[str, ...]:
        """The pool's nodeTaints, `key=value:Effect`."""

    @property
    def node_image_version(self) -> str:
        """`AKSUbuntu-2204gen2containerd-202601.27.0`."""

    @property
    def kubernetes_version(self) -> str:
        """`1.33.6`."""

    @property
    def vcpus(self) -> int:
        """Virtual CPUs of the size."""

    @property
    def memory_gib(self) -> float:
        """Memory of the size in GiB."""

    @property
    def gpu_count(self) -> int:
        """What a device plugin would advertise; 0 without GPUs."""

    @property
    def gpu_vendor(self) -> str | None:
        """`nvidia`, `amd` or None."""

    @property
    def gpu_managed(self) -> bool:
        """Whether AKS runs the device plugin on the machine itself."""

    @property
    def os_disk_gib(self) -> int:
        """OS disk in GiB."""

    @property
    def max_pods(self) -> int:
        """The pool's maxPods."""

    @property
    def created_at(self) -> float:
        """When the VM was created; tells it from an earlier one of the same name."""


class MachineSource(Protocol):
    """Where the machines come from."""

    def machines(self) -> Sequence[Machine]:
        """All machines whose VM exists at this moment."""

    async def wait_changed(self, since: int) -> int:
        """Return the source's version as soon as it is greater than `since`."""
