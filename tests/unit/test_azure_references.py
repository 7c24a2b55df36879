"""Whether a resource exists: what Azure answers, and what that means."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, cast

import pytest

from provisioner.apis.failure import FailureClass
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

    async def call(self, method: str, path: str, *, operation: str, query: Mapping[str, str], **_: Any) -> ArmResponse:
        self.calls.append((method, path, operation, query))
        if self.status != 200:
            failure = classify_response(status=self.status, headers={}, body=self.body)
            raise ArmFailure(failure, status=self.status)
        return ArmResponse(status=self.status, text=self.body)


def references(session: Session) -> References:
    return References(cast("Caller", session))


async def test_one_get_of_the_very_resource() -> None:
    session = Session()
    assert await references(session).subnet_exists(SUBNET)
    assert await references(session).reservation_exists(RESERVATION)
    assert session.calls == [
        ("GET", SUBNET, "subnets.get", {"api-version": "2024-05-01"}),
        ("GET", RESERVATION, "capacityreservationgroups.get", {"api-version": "2024-07-01"}),
    ]


@pytest.mark.parametrize("code", ["ResourceNotFound", "NotFound", "ParentResourceNotFound", "ResourceGroupNotFound"])
async def test_resource_or_what_it_is_in_is_missing(code: str) -> None:
    session = Session(404, nested(code, f"The Resource {SUBNET} was not found."))
    assert not await references(session).subnet_exists(SUBNET)
    assert not await references(session).reservation_exists(RESERVATION)


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
    with pytest.raises(ArmFailure) as failed:
        await references(Session(status, body)).subnet_exists(SUBNET)
    assert (failed.value.status, failed.value.failure.kind) == (status, kind)
