from collections.abc import Mapping
from typing import Any, cast

import pytest

from provisioner.apis.failure import Failure, FailureClass
from provisioner.azure.caller import Caller
from provisioner.azure.errors import ArmFailure
from provisioner.azure.session import AzureTarget
from provisioner.azure.skus import Sku, SkuCatalogue


class Session:
    """Lists what it is given."""

    def __init__(self, *items: Mapping[str, Any]) -> None:
        self.target = AzureTarget(subscription_id="sub", resource_group="rg", cluster_name="c")
        self.items = items
        self.error: ArmFailure | None = None
        self.asked: list[tuple[str, Mapping[str, str]]] = []

    async def list(
        self, path: str, *, operation: str, timeout: float, query: Mapping[str, str]
    ) -> tuple[Mapping[str, Any], ...]:
        self.asked.append((path, query))
        if self.error:
            raise self.error
        return self.items


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def catalogue(session: Session, *, location: str = "eastus", clock: Clock | None = None) -> SkuCatalogue:
    return SkuCatalogue(cast("Caller", session), location=location, clock=clock or Clock())


def entry(name: str = "Standard_NC24ads_A100_v4", **changes: Any) -> dict[str, Any]:
    capabilities = {"vCPUs": "24", "MemoryGB": "220", "GPUs": "1", "CpuArchitectureType": "x64"}
    capabilities |= changes.pop("capabilities", {})
    return {
        "resourceType": "virtualMachines",
        "name": name,
        "family": "StandardNCADSA100v4Family",
        "locations": ["eastus"],
        "locationInfo": [{"location": "eastus", "zones": ["3", "1"], "zoneDetails": []}],
        "capabilities": [{"name": key, "value": value} for key, value in capabilities.items() if value is not None],
        "restrictions": [],
        **changes,
    }


def restriction(kind: str, *, locations: list[str] | None = None, zones: list[str] | None = None) -> dict[str, Any]:
    return {
        "type": kind,
        "values": ["eastus"],
        "restrictionInfo": {"locations": locations or ["eastus"], **({"zones": zones} if zones else {})},
        "reasonCode": "NotAvailableForSubscription",
    }


async def only(item: Mapping[str, Any]) -> Sku:
    sizes = catalogue(Session(item))
    await sizes.refresh()
    sku = sizes.get(item["name"])
    assert sku is not None
    return sku


async def test_nothing_is_known_before_the_list_was_fetched() -> None:
    sizes = catalogue(Session(entry()))
    assert sizes.get("Standard_NC24ads_A100_v4") is None
    assert sizes.names() == ()
    assert sizes.age is None


async def test_a_size_is_found_in_any_case_and_spelled_as_azure_spells_it() -> None:
    session, clock = Session(entry()), Clock()
    sizes = catalogue(session, location="East US", clock=clock)
    await sizes.refresh()
    clock.now += 7
    assert sizes.get("standard_nc24ADS_a100_v4") == Sku(
        name="Standard_NC24ads_A100_v4",
        family="StandardNCADSA100v4Family",
        vcpus=24,
        memory_gib=220.0,
        gpus=1,
        architecture="amd64",
        zones=("1", "3"),
    )
    assert sizes.names() == ("Standard_NC24ads_A100_v4",)
    assert sizes.age == 7.0
    path, query = session.asked[0]
    assert path == "/subscriptions/sub/providers/Microsoft.Compute/skus"
    assert query == {"api-version": "2021-07-01", "$filter": "location eq 'eastus'"}


async def test_a_missing_gpu_capability_is_not_zero() -> None:
    sku = await only(entry(capabilities={"GPUs": None, "CpuArchitectureType": "Arm64"}))
    assert sku.gpus is None
    assert sku.architecture == "arm64"


@pytest.mark.parametrize(
    ("restrictions", "restricted", "zones", "closed"),
    [
        ([], False, ("1", "3"), ()),
        ([restriction("Location")], True, ("1", "3"), ()),
        ([restriction("Zone", zones=["1"])], False, ("3",), ("1",)),
        # A zone that does not have the size is not one that is closed to us.
        ([restriction("Zone", zones=["1", "2"])], False, ("3",), ("1",)),
        ([restriction("Location"), restriction("Zone", zones=["1", "3"])], True, (), ("1", "3")),
        ([restriction("Location", locations=["westus"])], False, ("1", "3"), ()),
        ([{"type": "Location", "values": ["EastUS"]}], True, ("1", "3"), ()),
    ],
)
async def test_restrictions(
    restrictions: list[Any], restricted: bool, zones: tuple[str, ...], closed: tuple[str, ...]
) -> None:
    sku = await only(entry(restrictions=restrictions))
    assert (sku.restricted, sku.zones, sku.closed_zones) == (restricted, zones, closed)


@pytest.mark.parametrize(
    ("code", "says"),
    [
        ("NotAvailableForSubscription", "is closed to this subscription in eastus (NotAvailableForSubscription): ask "),
        ("QuotaId", "is not part of what this kind of subscription may buy in eastus (QuotaId): use another size"),
        ("SomethingNew", "is restricted for this subscription in eastus (SomethingNew): ask Azure for access"),
        (None, "is restricted for this subscription in eastus (Unexplained): "),
        ("{name} <b>\n", "is restricted for this subscription in eastus (Unexplained): "),
    ],
)
async def test_a_restriction_says_why_and_what_to_do(code: str | None, says: str) -> None:
    sku = await only(entry(restrictions=[{**restriction("Location"), "reasonCode": code}]))
    assert sku.restriction.startswith(f"Standard_NC24ads_A100_v4 {says}")
    assert "use another size" in sku.restriction


@pytest.mark.parametrize(("capability", "sells_spot"), [("True", True), ("False", False), (None, True)])
async def test_a_size_is_sold_as_spot_unless_azure_says_no(capability: str | None, sells_spot: bool) -> None:
    sku = await only(entry(capabilities={"LowPriorityCapable": capability}))
    assert sku.low_priority_capable is sells_spot


@pytest.mark.parametrize(
    ("capabilities", "gib"),
    [
        ({}, None),
        ({"EphemeralOSDiskSupported": "False", "CachedDiskBytes": str(256 << 30)}, 0),
        ({"EphemeralOSDiskSupported": "True"}, None),
        ({"EphemeralOSDiskSupported": "True", "CachedDiskBytes": str(256 << 30)}, 256),
        ({"EphemeralOSDiskSupported": "True", "CachedDiskBytes": "0", "MaxResourceVolumeMB": "307200"}, 300),
        ({"EphemeralOSDiskSupported": "True", "CachedDiskBytes": str(64 << 30), "NvmeDiskSizeInMiB": "915527"}, 64),
        (
            {
                "EphemeralOSDiskSupported": "True",
                "NvmeDiskSizeInMiB": "915527",
                "SupportedEphemeralOSDiskPlacements": "CacheDisk,NvmeDisk",
            },
            894,
        ),
    ],
)
async def test_room_for_an_os_disk_on_the_host_is_where_azure_says(
    capabilities: dict[str, str], gib: int | None
) -> None:
    sku = await only(entry(capabilities=capabilities))
    assert sku.ephemeral_os_disk_gib == gib


async def test_whoever_derives_something_of_the_list_sees_that_it_was_read_anew() -> None:
    session = Session(entry())
    sizes = catalogue(session)
    epochs = [sizes.epoch]
    await sizes.refresh()
    epochs.append(sizes.epoch)
    session.error = ArmFailure(Failure(kind=FailureClass.AUTH, message="no"))
    with pytest.raises(ArmFailure):
        await sizes.refresh()
    assert epochs[0] != epochs[1] == sizes.epoch
    assert [sku.name for sku in sizes.all()] == ["Standard_NC24ads_A100_v4"]


async def test_other_resources_and_entries_that_are_broken_are_left_out() -> None:
    session = Session(
        {"resourceType": "disks", "name": "Premium_LRS"},
        entry("Standard_Broken", capabilities={"vCPUs": None}),
        entry("Standard_Odd", capabilities={"vCPUs": "many"}),
        entry("Standard_List", capabilities={}, locationInfo="none"),
        entry(),
    )
    sizes = catalogue(session)
    await sizes.refresh()
    assert sizes.names() == ("Standard_NC24ads_A100_v4",)


async def test_a_failed_refresh_keeps_what_was_known() -> None:
    session, clock = Session(entry()), Clock()
    sizes = catalogue(session, clock=clock)
    await sizes.refresh()
    clock.now += 50
    session.error = ArmFailure(Failure(kind=FailureClass.AUTH, message="no"))
    with pytest.raises(ArmFailure):
        await sizes.refresh()
    assert sizes.names() == ("Standard_NC24ads_A100_v4",)
    assert sizes.age == 50.0


@pytest.mark.parametrize("location", ["", "east' or 1 eq 1", "x" * 100, "östlich"])
def test_a_location_that_is_none_is_refused(location: str) -> None:
    with pytest.raises(ValueError, match="is no Azure region"):
        catalogue(Session(), location=location)
