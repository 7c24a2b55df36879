"""The MIG profiles that AKS knows, and what a GPU becomes by them.

As many instances as fit on one GPU, and the eighths of its memory that each has: the same on A100, H100, H200 and their
successors (https://docs.nvidia.com/datacenter/tesla/mig-user-guide/#supported-mig-profiles). AKS makes all instances of
one kind (https://learn.microsoft.com/azure/aks/gpu-multi-instance).
"""

from collections.abc import Mapping
from typing import Final, NamedTuple


class MigProfile(NamedTuple):
    """How many instances a GPU is partitioned into, and how many eighths of its memory each of them has."""

    instances: int
    memory_eighths: int


PROFILES: Final[Mapping[str, MigProfile]] = {
    "MIG1g": MigProfile(7, 1),
    "MIG2g": MigProfile(3, 2),
    "MIG3g": MigProfile(2, 4),
    "MIG4g": MigProfile(1, 4),
    "MIG7g": MigProfile(1, 8),
}
