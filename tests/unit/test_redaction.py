"""Secrets do not get into texts of ours, and what looks a little like one stays."""

import pytest

from provisioner.redaction import redact

JWT = "eyJ0eXAiOiJKV1QiLCJhbGciOiJSUzI1NiJ9.eyJhdWQiOiJodHRwczovL21hbmFnZW1lbnQifQ.c2lnbmF0dXJlLXRoYXQtaXMtbG9uZw"
SECRET = "s3cr3t-Value/with+all~of_it"


@pytest.mark.parametrize(
    ("text", "left"),
    [
        (f"Authorization: Bearer {JWT}", "Authorization: Bearer (token)"),
        (f"the token {JWT} is not valid", "the token (token) is not valid"),
        ("bearer abcdefghijklmnop.qrst", "Bearer (token)"),
        ("Authorization: Basic dXNlcjpwYXNzd29yZDEyMw==", "Authorization: Basic (hidden)"),
        ("hf_AbCdEfGhIjKlMnOpQrStUvWxYz", "(token)"),
        (f'{{"access_token": "{SECRET}", "expires_in": 3599}}', '{"access_token": "(hidden)", "expires_in": 3599}'),
        (f'{{\\"refresh_token\\": \\"{SECRET}\\"}}', '{\\"refresh_token\\": \\"(hidden)\\"}'),
        (f"client_assertion={SECRET}&client_id=me", "client_assertion=(hidden)&client_id=me"),
        (f"AccountKey={SECRET};EndpointSuffix=core", "AccountKey=(hidden);EndpointSuffix=core"),
        (f"sv=2024-11-04&sig={SECRET}&se=2027", "sv=2024-11-04&sig=(hidden)&se=2027"),
        (f"https://a.blob.core.windows.net/c?sv=1&sig={SECRET} is gone", "https://a.blob.core.windows.net/c is gone"),
        (f"https://user:{SECRET.replace('/', '')}@example.com/x", "https://example.com/x"),
    ],
)
def test_secrets_are_left_out(text: str, left: str) -> None:
    assert redact(text) == left
    assert redact(f"before {text} after").startswith("before ")


@pytest.mark.parametrize(
    "text",
    [
        "the bearer of this is tired",
        "Basic tier is not enough for Standard_NC24ads_A100_v4",
        "Secret default/hf-token has no key HF_TOKEN",
        "quota 0 of 24 vCPUs, design=none, hf_small",
        "GET https://management.azure.com/subscriptions/1: 404",
        "correlation_id 0c5d7dd8-1d0b-465e-88cf-779e9899e96d",
    ],
)
def test_what_is_no_secret_stays(text: str) -> None:
    assert redact(text) == text


def test_endless_text_is_cut() -> None:
    assert len(redact("x" * 1_000_000)) < 20_000
