"""Tokens: the real WorkloadIdentityCredential against the server's Entra, and ARM's check of what it gets."""

import ssl
import time
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from azure.core.credentials import AccessToken
from azure.core.exceptions import ClientAuthenticationError
from azure.identity.aio import WorkloadIdentityCredential
from azure.mgmt.containerservice.aio import ContainerServiceClient

from fakes.azure import FakeAzure
from tests.fakes.sdk import answer_of, code_of


class FixedCredential:
    """An async credential that has one token, whatever it is asked for."""

    def __init__(self, token: str) -> None:
        self._token = AccessToken(token, 2**40)

    async def get_token(self, *_scopes: str, **_kwargs: Any) -> AccessToken:
        return self._token

    async def close(self) -> None:
        pass

    async def __aexit__(self, *_exc: object) -> None:
        pass


async def get_cluster(azure: FakeAzure, token: str) -> None:
    async with ContainerServiceClient(
        FixedCredential(token),  # type: ignore[arg-type]
        azure.ids.subscription,
        base_url=azure.endpoint,
        connection_verify=str(azure.ca_file),
        retry_total=0,
    ) as client:
        await client.managed_clusters.get(azure.ids.resource_group, azure.ids.cluster)


def credential(azure: FakeAzure, **changes: Any) -> WorkloadIdentityCredential:
    arguments: dict[str, Any] = {
        "tenant_id": azure.ids.tenant,
        "client_id": azure.ids.client,
        "token_file_path": str(azure.entra.federated_token_file),
        "authority": f"{azure.endpoint}/",
        "connection_verify": str(azure.ca_file),
        "retry_total": 0,
    }
    return WorkloadIdentityCredential(**(arguments | changes))


async def test_the_credential_gets_a_token_that_arm_takes(azure: FakeAzure) -> None:
    async with credential(azure) as identity:
        for scope in (azure.endpoint, "https://management.azure.com", "https://management.core.windows.net/"):
            await get_cluster(azure, (await identity.get_token(f"{scope}/.default")).token)
    assert azure.calls.count("entra.token", status=200) == 3


async def test_a_token_lives_as_long_as_the_settings_say(azure: FakeAzure) -> None:
    azure.settings.token_lifetime_real_seconds = 77
    asked = time.time()
    async with credential(azure) as identity:
        info = await identity.get_token_info("https://management.azure.com/.default")
    assert asked + 76 <= info.expires_on <= time.time() + 77


@pytest.mark.parametrize(
    ("changes", "scope", "code"),
    [
        ({"tenant_id": "00000000-0000-4000-8000-00000000dead"}, "https://management.azure.com/.default", "AADSTS90002"),
        (
            {"client_id": "00000000-0000-4000-8000-00000000dead"},
            "https://management.azure.com/.default",
            "AADSTS700016",
        ),
        ({}, "https://graph.microsoft.com/.default", "AADSTS70011"),
    ],
)
async def test_entra_refuses_what_it_does_not_know(
    azure: FakeAzure, changes: dict[str, str], scope: str, code: str
) -> None:
    async with credential(azure, **changes) as identity:
        with pytest.raises(ClientAuthenticationError, match=code):
            await identity.get_token(scope)


async def test_entra_refuses_a_foreign_assertion(azure: FakeAzure, tmp_path: Path) -> None:
    foreign = tmp_path / "token"
    foreign.write_text("eyJ.somebody.else")
    async with credential(azure, token_file_path=str(foreign)) as identity:
        with pytest.raises(ClientAuthenticationError, match="AADSTS700211"):
            await identity.get_token("https://management.azure.com/.default")
    assert azure.calls.count("entra.token", status=401) == 1


async def test_a_rotated_assertion_is_taken_and_the_file_is_private(azure: FakeAzure) -> None:
    before = azure.entra.federated_token_file.read_text()
    azure.entra.rotate_federated_token()
    assert azure.entra.federated_token_file.read_text() != before
    assert azure.entra.federated_token_file.stat().st_mode & 0o077 == 0
    assert azure.ca_file.parent.stat().st_mode & 0o077 == 0
    async with credential(azure) as identity:
        await identity.get_token("https://management.azure.com/.default")


@pytest.mark.parametrize(
    ("form", "status", "error"),
    [
        ({}, 400, "invalid_request"),
        ({"grant_type": "password"}, 400, "unsupported_grant_type"),
        ({"client_assertion_type": "saml"}, 400, "invalid_request"),
        ({"client_assertion": ""}, 400, "invalid_request"),
    ],
)
async def test_entra_answers_malformed_requests_with_oauth_errors(
    azure: FakeAzure, form: dict[str, str], status: int, error: str
) -> None:
    whole = {
        "grant_type": "client_credentials",
        "client_id": azure.ids.client,
        "scope": "https://management.azure.com/.default",
        "client_assertion_type": "urn:ietf:params:oauth:client-assertion-type:jwt-bearer",
        "client_assertion": azure.entra.federated_token_file.read_text(),
    }
    context = ssl.create_default_context(cafile=azure.ca_file)
    async with (
        aiohttp.ClientSession() as session,
        session.post(
            f"{azure.endpoint}/{azure.ids.tenant}/oauth2/v2.0/token", data=(whole | form) if form else {}, ssl=context
        ) as answer,
    ):
        assert answer.status == status
        assert (await answer.json())["error"] == error


async def test_arm_tells_an_expired_token_from_an_invalid_one(azure: FakeAzure) -> None:
    audience = "https://management.azure.com"
    good = azure.entra.issue(audience=audience, lifetime=60)
    await get_cluster(azure, good)
    for token, code in (
        (azure.entra.issue(audience=audience, lifetime=-1), "ExpiredAuthenticationToken"),
        (azure.entra.issue(audience="https://graph.microsoft.com", lifetime=60), "InvalidAuthenticationTokenAudience"),
        (good[:-1] + ("A" if good[-1] != "A" else "B"), "InvalidAuthenticationToken"),
        ("nonsense", "InvalidAuthenticationToken"),
    ):
        with pytest.raises(ClientAuthenticationError) as caught:
            await get_cluster(azure, token)
        assert caught.value.status_code == 401
        assert code_of(caught.value) == code
        assert answer_of(caught.value).headers["WWW-Authenticate"].startswith("Bearer ")


async def test_tokens_can_be_expired_before_their_time(azure: FakeAzure) -> None:
    early = azure.entra.issue(audience="https://management.azure.com", lifetime=60)
    azure.entra.expire_tokens()
    with pytest.raises(ClientAuthenticationError, match="is earlier than current UTC time"):
        await get_cluster(azure, early)
    await get_cluster(azure, azure.entra.issue(audience="https://management.azure.com", lifetime=60))


async def test_arm_wants_a_token(azure: FakeAzure) -> None:
    context = ssl.create_default_context(cafile=azure.ca_file)
    url = f"{azure.endpoint}{azure.ids.cluster_id}?api-version=2026-08-01"
    async with aiohttp.ClientSession() as session, session.get(url, ssl=context) as answer:
        assert answer.status == 401
        assert (await answer.json())["error"]["code"] == "AuthenticationFailed"
        assert "WWW-Authenticate" in answer.headers
