"""What the SDK, its transport and its credentials raise, and what becomes of it."""

import json
from collections.abc import Mapping
from typing import Any

import aiohttp
import pytest
from azure.core.exceptions import (
    AzureError,
    ClientAuthenticationError,
    HttpResponseError,
    ServiceRequestError,
    ServiceRequestTimeoutError,
    ServiceResponseError,
    ServiceResponseTimeoutError,
)

from provisioner.apis.failure import Failure, FailureClass
from provisioner.azure.errors import ArmFailure, classify, outcome_unknown, status_unknown
from tests.unit.azure_texts import flat, nested

UNREAD = "unread"


class Response:
    """The little of an SDK response that an exception carries."""

    def __init__(self, status: int, body: str, headers: Mapping[str, str] | None = None) -> None:
        self.status_code = status
        self.reason = "Reason"
        self.headers = dict(headers or {})
        self._body = body

    def text(self, encoding: str | None = None) -> str:
        if self._body == UNREAD:
            raise AzureError("the body was not read")
        return self._body


def http_error(
    status: int,
    body: str,
    headers: Mapping[str, str] | None = None,
    *,
    kind: type[HttpResponseError] = HttpResponseError,
) -> HttpResponseError:
    response: Any = Response(status, body, headers)
    return kind(response=response)


def token_error(status: int, description: str, *, code: str = "invalid_client") -> HttpResponseError:
    body = json.dumps({"error": code, "error_description": description})
    return http_error(status, body, kind=ClientAuthenticationError)


def test_an_http_error_is_read_from_its_response() -> None:
    failure = classify(http_error(429, flat("Throttled", "slow down"), {"Retry-After": "9"}))
    assert (failure.kind, failure.code, failure.retry_after) == (FailureClass.THROTTLED, "Throttled", 9.0)


def test_an_http_error_whose_body_was_never_read_still_has_its_status() -> None:
    assert classify(http_error(409, UNREAD)).kind is FailureClass.CONFLICT


def test_a_failure_that_was_classified_already_stays_as_it_is() -> None:
    failure = Failure(kind=FailureClass.ZONE, message="no")
    assert classify(ArmFailure(failure)) is failure


@pytest.mark.parametrize(
    ("description", "advice"),
    [
        ("AADSTS70021: No matching federated identity record found for assertion.", "no federated credential"),
        ("AADSTS700213: No matching federated identity record found.", "no federated credential"),
        ("AADSTS700016: Application with identifier 'x' was not found.", "the tenant has no identity of this client"),
        ("AADSTS90002: Tenant 'x' not found.", "there is no such tenant"),
        ("AADSTS700024: Client assertion is not within its valid time range.", "the service account token has expired"),
        ("AADSTS999: Something else.", "check its client ID, tenant and federated credential"),
    ],
)
def test_a_refused_token_tells_what_to_set_right(description: str, advice: str) -> None:
    failure = classify(token_error(401, description))
    assert failure.kind is FailureClass.AUTH
    assert failure.message.startswith(f"No token for the Azure identity: {advice}")
    assert failure.message.endswith(description)
    assert failure.code == "invalid_client"


@pytest.mark.parametrize(("status", "kind"), [(503, FailureClass.INTERNAL), (429, FailureClass.THROTTLED)])
def test_entra_failing_is_no_lack_of_rights(status: int, kind: FailureClass) -> None:
    assert classify(token_error(status, "later", code="temporarily_unavailable")).kind is kind


def test_a_401_of_arm_is_not_taken_for_one_of_entra() -> None:
    body = nested("InvalidAuthenticationToken", "The access token is invalid.")
    failure = classify(http_error(401, body, kind=ClientAuthenticationError))
    assert failure.code == "InvalidAuthenticationToken"
    assert failure.message.startswith("Azure does not accept the identity")


def test_no_credential_at_all() -> None:
    failure = classify(ClientAuthenticationError(message="DefaultAzureCredential failed\nto retrieve a token"))
    assert failure.kind is FailureClass.AUTH
    assert failure.message.endswith("DefaultAzureCredential failed to retrieve a token")


def test_a_token_file_that_is_not_mounted() -> None:
    failure = classify(FileNotFoundError(2, "No such file or directory", "/var/run/secrets/azure/tokens/t"))
    assert failure.kind is FailureClass.AUTH
    assert "azure.workload.identity/use" in failure.message
    assert "/var/run/secrets/azure/tokens/t" in failure.message


@pytest.mark.parametrize(
    "error",
    [
        ServiceRequestError("Cannot connect to host management.azure.com:443"),
        ServiceResponseError("Connection closed"),
        ServiceResponseTimeoutError("Timeout on reading data from socket"),
        TimeoutError(),
        ConnectionResetError(104, "Connection reset by peer"),
        AzureError("something else"),
        RuntimeError(),
    ],
)
def test_whatever_keeps_an_answer_from_us_is_internal(error: Exception) -> None:
    failure = classify(error)
    assert failure.kind is FailureClass.INTERNAL
    assert failure.message.startswith("Azure ")


def connect_error() -> aiohttp.ClientConnectorError:
    key = aiohttp.client_reqrep.ConnectionKey("h", 443, True, True, None, None, None)
    return aiohttp.ClientConnectorError(key, OSError(111, "Connection refused"))


@pytest.mark.parametrize(
    ("error", "unknown"),
    [
        (ServiceRequestError("no", error=connect_error()), False),
        (ServiceRequestTimeoutError("no"), False),
        (ServiceRequestError("reset", error=aiohttp.ClientOSError(104, "Connection reset by peer")), True),
        (ServiceRequestError("gone", error=aiohttp.ServerDisconnectedError()), True),
        (ServiceResponseError("no"), True),
        (ServiceResponseTimeoutError("no"), True),
        (TimeoutError(), True),
        (ConnectionResetError(), True),
        (ClientAuthenticationError("no"), False),
        (FileNotFoundError(2, "no", "f"), False),
        (http_error(500, ""), True),
        (http_error(408, ""), True),
        (http_error(429, ""), False),
        (http_error(409, ""), False),
        (token_error(503, "later"), False),
    ],
)
def test_whether_a_request_may_have_taken_effect(error: Exception, unknown: bool) -> None:
    assert outcome_unknown(error) is unknown


@pytest.mark.parametrize(
    ("status", "unknown"),
    [(500, True), (503, True), (408, True), (206, True), (429, False), (400, False), (307, False)],
)
def test_statuses_that_leave_the_outcome_open(status: int, unknown: bool) -> None:
    assert status_unknown(status) is unknown
