"""Whether a resource exists: what Azure answers, and what that means."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, cast

import pytest

from provisioner.apis.failure import FailureClass
from provisioner.apis.reservation import Reserved
from provisioner.azure.caller import Caller
from provisioner.azure.errors import ArmFailure, classify_response
from provisioner.azure.references import References
from provisioner.azure.session import ArmResponse
from tests.node_classes import RESERVATION, SUBNET
from tests.unit.azure_texts import nested


@dataclass
class Session:
    """An ARM that gives one answer."""

    status: int = 200
    body: str = "{}"
    calls: list[tuple[str, str, str, Mapping[str, str]]] = field(default_factory=list)

    async def list(
        self, path: str, *, operation: str, query: Mapping[str, str], **_: Any
    ) -> tuple[Mapping[str, Any], ...]:
        response = await self.call("GET", path, operation=operation, query=query)
        return tuple(response.json()["value"])

    async def call(self, method: str, path: str, *, operation: str, query: Mapping[str, str], **_: Any) -> ArmResponse:
        self.calls.append((method, path, operation, query))
        if self.status != 200:
            failure = classify_response(status=self.status, headers={}, body=self.body)
            raise ArmFailure(failure, status=self.status)
        return ArmResponse(status=self.status, text=self.body)


def references(session: Session) -> References:
    return References(cast("Caller", session))


async def test_one_get_of_the_very_resource_and_one_list_of_what_is_in_it() -> None:
    session = Session(body='{"value": []}')
    assert await references(session).subnet_exists(SUBNET)
    assert await references(session).reservations(RESERVATION) == frozenset()
    assert session.calls == [
        ("GET", SUBNET, "subnets.get", {"api-version": "2024-05-01"}),
        ("GET", f"{RESERVATION}/capacityReservations", "capacityreservations.list", {"api-version": "2024-07-01"}),
    ]


async def test_reservations_are_of_a_size_in_a_zone_or_in_none() -> None:
    rows = [
        {"sku": {"name": "Standard_NC4as_T4_v3", "capacity": 2}, "zones": ["2"]},
        {"sku": {"name": "Standard_NC4as_T4_v3", "capacity": 0}, "zones": ["1"]},
        {"sku": {"name": "Standard_ND96asr_v4"}, "zones": None},
        {"sku": {"name": "STANDARD_ND96ASR_V4"}},
        # None of a form that is known.
        {"sku": "Standard_ND96asr_v4", "zones": ["1"]},
        {"sku": {"name": 4}},
        {"sku": {"name": "Standard_D2s_v5"}, "zones": "1"},
        {},
    ]
    found = await references(Session(body=json.dumps({"value": rows}))).reservations(RESERVATION)
    t4 = "standard_nc4as_t4_v3"
    assert found == frozenset({Reserved(t4, "2"), Reserved(t4, "1"), Reserved("standard_nd96asr_v4", "")})


@pytest.mark.parametrize("code", ["ResourceNotFound", "NotFound", "ParentResourceNotFound", "ResourceGroupNotFound"])
async def test_resource_or_what_it_is_in_is_missing(code: str) -> None:
    session = Session(404, nested(code, f"The Resource {SUBNET} was not found."))
    assert not await references(session).subnet_exists(SUBNET)
    assert await references(session).reservations(RESERVATION) is None


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (404, nested("SubscriptionNotFound", "The subscription could not be found."), FailureClass.AUTH),
        (404, "<html>", FailureClass.INTERNAL),
        (403, nested("AuthorizationFailed", "does not have authorization"), FailureClass.AUTH),
        (429, nested("SubscriptionRequestsThrottled", "exceeded"), FailureClass.THROTTLED),
        (503, "", FailureClass.INTERNAL),
    ],
)
async def test_any_other_answer_tells_nothing(status: int, body: str, kind: FailureClass) -> None:
    gateway = references(Session(status, body))
    for ask, resource in ((gateway.subnet_exists, SUBNET), (gateway.reservations, RESERVATION)):
        with pytest.raises(ArmFailure) as failed:
            await ask(resource)
        assert (failed.value.status, failed.value.failure.kind) == (status, kind)
