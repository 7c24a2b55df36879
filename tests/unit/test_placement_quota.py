"""vCPU quotas as Azure counts them, with what pools that are being created will take."""

import pytest

from provisioner.apis.quota import Scope, Shortage, Usage
from provisioner.placement.quota import RegionQuota
from tests.unit.builders import A100
from tests.unit.placement_builders import ON_DEMAND, SPOT, changed

FAMILY = "standardNCADSA100v4Family"
SIZE = changed(A100, family="StandardNCADSA100v4Family")


def region(
    family: tuple[int, int] | None = (100, 0),
    cores: tuple[int, int] | None = (1000, 0),
    spot: tuple[int, int] | None = (100, 0),
    **holds: int,
) -> RegionQuota:
    rows = {FAMILY: family, "cores": cores, "lowPriorityCores": spot}
    keys = {
        "held": (FAMILY.lower(), ON_DEMAND),
        "held_spot": (FAMILY.lower(), SPOT),
        "other": ("other", ON_DEMAND),
        "other_spot": ("other", SPOT),
    }
    return RegionQuota(
        usages={
            name.lower(): Usage(name=name, limit=row[0], used=row[1]) for name, row in rows.items() if row is not None
        },
        region="eastus",
        holds={keys[name]: vcpus for name, vcpus in holds.items()},
    )


@pytest.mark.parametrize(
    ("quota", "capacity_type", "lacking"),
    [
        (region(), ON_DEMAND, None),
        (region(family=(24, 0)), ON_DEMAND, None),
        (region(family=(30, 7)), ON_DEMAND, (Scope.FAMILY, 23, 30, 0)),
        (region(family=(10, 12)), ON_DEMAND, (Scope.FAMILY, 0, 10, 0)),
        (region(family=(0, 0)), ON_DEMAND, (Scope.FAMILY, 0, 0, 0)),
        (region(cores=(100, 80)), ON_DEMAND, (Scope.REGIONAL, 20, 100, 0)),
        (region(cores=(100, 80)), SPOT, (Scope.REGIONAL, 20, 100, 0)),
        (region(family=(0, 0), cores=(0, 0)), ON_DEMAND, (Scope.FAMILY, 0, 0, 0)),
        # Spot counts against its own quota and not against the family's.
        (region(family=(0, 0)), SPOT, None),
        (region(spot=(0, 0)), ON_DEMAND, None),
        (region(spot=(23, 0)), SPOT, (Scope.SPOT, 23, 23, 0)),
        # Pools that are being created.
        (region(family=(48, 0), held=24), ON_DEMAND, None),
        (region(family=(47, 0), held=24), ON_DEMAND, (Scope.FAMILY, 23, 47, 24)),
        (region(family=(47, 20), held=24), ON_DEMAND, (Scope.FAMILY, 3, 47, 24)),
        (region(family=(48, 30), held=24), ON_DEMAND, (Scope.FAMILY, 0, 48, 24)),
        (region(family=(24, 0), held_spot=48), ON_DEMAND, None),
        (region(spot=(100, 0), held_spot=40, other_spot=40), SPOT, (Scope.SPOT, 20, 100, 80)),
        (region(spot=(100, 0), other=90), SPOT, None),
        (region(cores=(100, 10), other=40, other_spot=40), ON_DEMAND, (Scope.REGIONAL, 10, 100, 80)),
        # What is not known is Azure's to judge.
        (region(family=None, cores=None, spot=None), ON_DEMAND, None),
        (region(family=None, cores=None, spot=None), SPOT, None),
        (region(family=None, cores=(10, 0)), ON_DEMAND, (Scope.REGIONAL, 10, 10, 0)),
    ],
)
def test_one_more_vm_is_counted_against_the_quotas_of_its_kind(
    quota: RegionQuota, capacity_type: str, lacking: tuple[Scope, int, int, int] | None
) -> None:
    found = quota.shortage(SIZE, capacity_type=capacity_type)
    if lacking is None:
        assert found is None
        return
    scope, left, limit, held = lacking
    assert found == Shortage(
        scope=scope,
        region="eastus",
        family=FAMILY if scope is Scope.FAMILY else "",
        needed=24,
        left=left,
        limit=limit,
        held=held,
    )


@pytest.mark.parametrize("capacity_type", [ON_DEMAND, SPOT])
def test_size_without_known_vcpus_is_azures_to_judge(capacity_type: str) -> None:
    size = changed(A100, vcpus=0)
    assert region(family=(0, 0), cores=(0, 0), spot=(0, 0)).shortage(size, capacity_type=capacity_type) is None


def test_size_of_no_known_family_is_judged_by_the_total_alone() -> None:
    size = changed(A100, family="")
    assert region(family=(0, 0)).shortage(size, capacity_type=ON_DEMAND) is None
    found = region(cores=(10, 0)).shortage(size, capacity_type=ON_DEMAND)
    assert found is not None
    assert found.scope is Scope.REGIONAL


def shortage(scope: Scope, needed: int | None = 24) -> Shortage:
    return Shortage(scope=scope, family=FAMILY.upper() if scope is Scope.FAMILY else "", needed=needed)


@pytest.mark.parametrize(
    ("quota", "short", "has_room"),
    [
        (region(), shortage(Scope.FAMILY), True),
        (region(family=(24, 1)), shortage(Scope.FAMILY), False),
        (region(family=(24, 0), held=1), shortage(Scope.FAMILY), False),
        (region(family=(24, 23)), shortage(Scope.FAMILY, needed=None), True),
        (region(family=(24, 24)), shortage(Scope.FAMILY, needed=None), False),
        (region(family=None), shortage(Scope.FAMILY), False),
        (region(spot=(24, 0)), shortage(Scope.SPOT), True),
        (region(spot=(24, 0), other_spot=1), shortage(Scope.SPOT), False),
        (region(cores=(24, 0)), shortage(Scope.REGIONAL), True),
        (region(cores=(24, 0), other=1), shortage(Scope.REGIONAL), False),
        (region(), shortage(Scope.UNKNOWN), False),
    ],
)
def test_quota_has_room_again_where_usages_say_so(quota: RegionQuota, short: Shortage, has_room: bool) -> None:
    assert quota.has_room(short) is has_room
