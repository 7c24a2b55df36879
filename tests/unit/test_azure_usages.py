from collections.abc import Mapping
from typing import Any, cast

import pytest

from provisioner.apis.failure import Failure, FailureClass
from provisioner.apis.quota import Usage
from provisioner.azure.caller import Caller
from provisioner.azure.errors import ArmFailure
from provisioner.azure.session import AzureTarget
from provisioner.azure.usages import Usages


class Session:
    """Lists what it is given."""

    def __init__(self, *items: Mapping[str, Any]) -> None:
        self.target = AzureTarget(subscription_id="sub", resource_group="rg", cluster_name="c")
        self.items = items
        self.error: ArmFailure | None = None
        self.asked: list[tuple[str, str, Mapping[str, str]]] = []

    async def list(
        self, path: str, *, operation: str, timeout: float, query: Mapping[str, str]
    ) -> tuple[Mapping[str, Any], ...]:
        self.asked.append((path, operation, query))
        if self.error:
            raise self.error
        return self.items


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def usages(session: Session, *, location: str = "eastus", clock: Clock | None = None) -> Usages:
    return Usages(cast("Caller", session), location=location, clock=clock or Clock())


def row(name: str, /, limit: object = 48, used: object = 24, **changes: Any) -> dict[str, Any]:
    named = {"value": name, "localizedValue": f"{name} vCPUs"}
    return {"limit": limit, "unit": "Count", "currentValue": used, "name": named, **changes}


async def test_nothing_is_known_before_the_first_list() -> None:
    listed = usages(Session(row("cores")))
    assert listed.by_name == {}
    assert listed.age is None


async def test_quotas_are_found_by_name_in_any_case_and_spelled_as_azure_spells_them() -> None:
    session, clock = Session(row("cores", 100, 30), row("Standard NCASv3_T4 Family", 64, 4)), Clock()
    listed = usages(session, location="East US", clock=clock)
    await listed.refresh()
    clock.now += 7
    assert listed.by_name == {
        "cores": Usage(name="cores", limit=100, used=30, localized="cores vCPUs"),
        "standard ncasv3_t4 family": Usage(
            name="Standard NCASv3_T4 Family", limit=64, used=4, localized="Standard NCASv3_T4 Family vCPUs"
        ),
    }
    assert listed.age == 7.0
    (asked,) = session.asked
    assert asked == (
        "/subscriptions/sub/providers/Microsoft.Compute/locations/eastus/usages",
        "usages.list",
        {"api-version": "2026-04-01"},
    )


@pytest.mark.parametrize(
    "broken",
    [
        {},
        row(""),
        row("cores", name="cores"),
        row("cores", name={"value": 7}),
        row("cores", limit=None),
        row("cores", limit="48"),
        row("cores", limit=-1),
        row("cores", limit=True),
        row("cores", used=float("nan")),
        row("cores", used=float("inf")),
        row("cores", used=10**30),
    ],
)
async def test_a_row_that_cannot_be_read_is_no_quota(broken: Mapping[str, Any]) -> None:
    listed = usages(Session(broken, row("lowPriorityCores")))
    await listed.refresh()
    assert list(listed.by_name) == ["lowprioritycores"]


async def test_a_row_without_a_name_for_people_counts() -> None:
    listed = usages(Session(row("cores", 10.0, 2, name={"value": "cores", "localizedValue": None})))
    await listed.refresh()
    assert listed.by_name["cores"] == Usage(name="cores", limit=10, used=2)


async def test_a_failed_refresh_keeps_what_was_known() -> None:
    session, clock = Session(row("cores")), Clock()
    listed = usages(session, clock=clock)
    await listed.refresh()
    clock.now += 50
    session.error = ArmFailure(Failure(kind=FailureClass.AUTH, message="no"))
    with pytest.raises(ArmFailure):
        await listed.refresh()
    assert list(listed.by_name) == ["cores"]
    assert listed.age == 50.0


def test_a_location_that_is_none_is_refused() -> None:
    with pytest.raises(ValueError, match="is no Azure region"):
        usages(Session(), location="../providers")
