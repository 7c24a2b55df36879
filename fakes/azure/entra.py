"""Entra ID: tokens for `WorkloadIdentityCredential`, and how ARM checks them."""

import base64
import hashlib
import hmac
import json
import secrets
import time
import uuid
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from fakes.azure import errors
from fakes.azure.ids import ResourceIds
from fakes.azure.settings import Settings

_ASSERTION_TYPE: Final = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
_ARM_AUDIENCES: Final = (
    "https://management.core.windows.net/",
    "https://management.core.windows.net",
    "https://management.azure.com/",
    "https://management.azure.com",
)
# A projected service account token lives an hour by default; ours as long as anybody will wait.
_ASSERTION_LIFETIME: Final = 30 * 24 * 3600


class TokenRefusedError(Exception):
    """Entra issues no token: status, OAuth error, AADSTS code and text."""

    def __init__(self, status: int, error: str, code: int, text: str) -> None:
        super().__init__(f"AADSTS{code}: {text}")
        self.status = status
        self.error = error
        self.code = code
        self.text = text

    def body(self) -> dict[str, Any]:
        """Return the body of the answer."""
        now = datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%SZ")
        trace, correlation = str(uuid.uuid4()), str(uuid.uuid4())
        return {
            "error": self.error,
            "error_description": f"AADSTS{self.code}: {self.text} "
            f"Trace ID: {trace} Correlation ID: {correlation} Timestamp: {now}",
            "error_codes": [self.code],
            "timestamp": now,
            "trace_id": trace,
            "correlation_id": correlation,
            "error_uri": f"https://login.microsoftonline.com/error?code={self.code}",
        }


class Entra:
    """One tenant with one application that trusts the tokens in one file."""

    def __init__(self, ids: ResourceIds, *, settings: Settings, federated_token_file: Path) -> None:
        self._ids = ids
        self._settings = settings
        self._key = secrets.token_bytes(32)
        # A kubelet's earlier tokens stay good until they expire, and credentials keep one for minutes.
        self._assertions: set[bytes] = set()
        self._valid_from = 0.0
        self.federated_token_file = federated_token_file
        self.audiences: tuple[str, ...] = _ARM_AUDIENCES

    def allow_audience(self, endpoint: str) -> None:
        """Take tokens for this ARM endpoint too."""
        self.audiences = (*_ARM_AUDIENCES, endpoint + "/", endpoint)

    def rotate_federated_token(self) -> None:
        """Write another token to the file, as the kubelet does now and then."""
        now = int(time.time())
        assertion = _jwt(
            {
                "iss": f"https://{self._ids.location}.oic.prod-aks.azure.com/{self._ids.tenant}/",
                "sub": "system:serviceaccount:gpu-provisioner:gpu-provisioner",
                "aud": ["api://AzureADTokenExchange"],
                "iat": now,
                "exp": now + _ASSERTION_LIFETIME,
                "jti": str(uuid.uuid4()),
            },
            key=self._key,
        )
        self._assertions.add(assertion.encode())
        # A rename, so that no reader finds half a token; never readable by others, not even for a moment.
        draft = self.federated_token_file.with_suffix(".new")
        draft.touch(mode=0o600)
        draft.write_text(assertion, encoding="ascii")
        draft.replace(self.federated_token_file)

    def expire_tokens(self) -> None:
        """Let all access tokens issued so far count as expired."""
        self._valid_from = time.time()

    def token(self, tenant: str, form: Mapping[str, str]) -> dict[str, Any]:
        """Answer a token request. Raises TokenRefusedError."""
        self._check_application(tenant, form)
        self._check_assertion(form)
        lifetime = self._settings.token_lifetime_real_seconds
        token = self.issue(audience=self._audience(form.get("scope", "")), lifetime=lifetime)
        return {"token_type": "Bearer", "expires_in": lifetime, "ext_expires_in": lifetime, "access_token": token}

    def issue(self, *, audience: str, lifetime: float) -> str:
        """Return an access token, good for so many real seconds from now; none if negative."""
        now = time.time()
        claims = {
            "aud": audience,
            "iss": f"https://sts.windows.net/{self._ids.tenant}/",
            "appid": self._ids.client,
            "tid": self._ids.tenant,
            "iat": now,
            "exp": now + lifetime,
        }
        return _jwt(claims, key=self._key)

    def check(self, authorization: str | None) -> None:
        """Raise 401 unless an Authorization header carries a token that ARM takes."""
        scheme, _, token = (authorization or "").partition(" ")
        if scheme.lower() != "bearer" or not token:
            raise errors.missing_token()
        claims = self._claims(token.strip())
        if claims["exp"] <= time.time() or claims["iat"] < self._valid_from:
            raise errors.expired_token(_american(min(claims["exp"], time.time())), _american(time.time()))
        if claims["aud"] not in self.audiences:
            raise errors.wrong_audience(claims["aud"], self.audiences)

    def _claims(self, token: str) -> dict[str, Any]:
        signed, _, signature = token.rpartition(".")
        if not hmac.compare_digest(signature.encode(), _signature(signed, key=self._key).encode()):
            raise errors.invalid_token("The access token is invalid.")
        payload = signed.partition(".")[2]
        claims: dict[str, Any] = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
        return claims

    def _check_application(self, tenant: str, form: Mapping[str, str]) -> None:
        if tenant.lower() != self._ids.tenant.lower():
            raise TokenRefusedError(
                400,
                "invalid_request",
                90002,
                f"Tenant '{tenant}' not found. Check to make sure you have the correct tenant ID and are signing into "
                "the correct cloud. Check with your subscription administrator, this may happen if there are no active "
                "subscriptions for the tenant.",
            )
        for name in ("grant_type", "client_id", "scope"):
            if not form.get(name):
                raise _missing(name)
        if form["grant_type"] != "client_credentials":
            raise TokenRefusedError(
                400,
                "unsupported_grant_type",
                70003,
                f"The app requested an unsupported grant type '{form['grant_type']}'.",
            )
        if form["client_id"].lower() != self._ids.client.lower():
            raise TokenRefusedError(
                400,
                "unauthorized_client",
                700016,
                f"Application with identifier '{form['client_id']}' was not found in the directory '{tenant}'.",
            )

    def _check_assertion(self, form: Mapping[str, str]) -> None:
        if form.get("client_assertion_type") != _ASSERTION_TYPE:
            raise _missing("client_assertion_type")
        assertion = form.get("client_assertion")
        if not assertion:
            raise _missing("client_assertion")
        if assertion.encode() not in self._assertions:
            raise TokenRefusedError(
                401,
                "invalid_client",
                700211,
                "No matching federated identity record found for presented assertion issuer. Please check your "
                "federated identity credential Subject, Audience and Issuer against the presented assertion. "
                "https://learn.microsoft.com/entra/workload-id/workload-identity-federation",
            )

    def _audience(self, scope: str) -> str:
        audience = scope.removesuffix("/.default")
        if audience == scope or audience not in self.audiences:
            raise TokenRefusedError(
                400,
                "invalid_scope",
                70011,
                f"The provided request must include a 'scope' input parameter. The provided value for the input "
                f"parameter 'scope' is not valid. The scope {scope} is not valid.",
            )
        return audience


def _missing(name: str) -> TokenRefusedError:
    return TokenRefusedError(
        400, "invalid_request", 900144, f"The request body must contain the following parameter: '{name}'."
    )


def _jwt(claims: Mapping[str, Any], *, key: bytes) -> str:
    signed = ".".join(_encode(json.dumps(part).encode()) for part in ({"typ": "JWT", "alg": "HS256"}, claims))
    return f"{signed}.{_signature(signed, key=key)}"


def _signature(signed: str, *, key: bytes) -> str:
    return _encode(hmac.digest(key, signed.encode(), hashlib.sha256))


def _encode(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode("ascii")


def _american(moment: float) -> str:
    # As ARM writes moments: 11/21/2026 3:54:29 PM.
    at = datetime.fromtimestamp(moment, UTC)
    return f"{at.month}/{at.day}/{at.year} {at.hour % 12 or 12}:{at:%M:%S %p}"
