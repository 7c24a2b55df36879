"""How many more VMs the vCPU quotas let be created. Pure."""

from collections.abc import Mapping
from typing import Final

from provisioner.apis.quota import REGIONAL_USAGE, SPOT_USAGE, Usage
from provisioner.placement.labels import traits
from provisioner.placement.size import Size

Usages = Mapping[str, Usage]

_TITLES: Final = {REGIONAL_USAGE.lower(): "Total Regional vCPUs", SPOT_USAGE.lower(): "Total Regional Spot vCPUs"}


def title(usage: Usage) -> str:
    """Return the quota's name for people: of a family, that by which messages and Azure's API call it."""
    return _TITLES.get(usage.name.lower(), usage.name)


def own_quota(size: Size, usages: Usages, *, spot: bool) -> Usage | None:
    """Return the quota that VMs of the size count against beside the region's, None where there is no such row."""
    return usages.get(SPOT_USAGE.lower() if spot else size.family.lower())


def left(usage: Usage) -> int:
    """Return the vCPUs that are left; a quota that was cut below what is used has none."""
    return max(usage.limit - usage.used, 0)


def room(size: Size, usages: Usages, *, spot: bool) -> int | None:
    """Return how many more VMs of the size fit, None where that cannot be known."""
    own = own_quota(size, usages, spot=spot)
    if own is None or not size.vcpus:
        return None
    region = usages.get(REGIONAL_USAGE.lower())
    vcpus = left(own) if region is None else min(left(own), left(region))
    return vcpus // size.vcpus


def has_gpu(size: Size) -> bool:
    """Tell whether the size has GPUs, or may have as far as is known of it; those with FPGAs have none."""
    known = traits(size)
    return known.accelerated and (size.gpu_count > 0 or not known.gpus_known)
