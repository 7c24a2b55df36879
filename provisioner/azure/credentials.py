"""Who we are to Azure, and how a token is come by."""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final, Self

from azure.core.credentials import AccessToken, AccessTokenInfo, TokenRequestOptions
from azure.core.pipeline import PipelineRequest, PipelineResponse
from azure.core.pipeline.transport import AioHttpTransport
from azure.identity.aio import DefaultAzureCredential, WorkloadIdentityCredential
from azure.mgmt.core.policies import AsyncARMChallengeAuthenticationPolicy

from provisioner.azure.cloud import Cloud

MANAGED: Final = "managed"
# Attempts at a token beside the first, by the SDK and within the time of the call that needs it.
TOKEN_RETRIES: Final = 2

_GENERATION: Final = "gpu-provisioner.token-generation"

AnyCredential = WorkloadIdentityCredential | DefaultAzureCredential


@dataclass(frozen=True, kw_only=True)
class Credentials:
    """Who we are to Azure.

    With a federated token file (which AKS's workload identity webhook mounts) that identity is used; without one, or
    with `deployment_mode` "managed", whatever DefaultAzureCredential finds: environment, managed identity, `az login`.
    """

    tenant_id: str = ""
    client_id: str = ""
    federated_token_file: str = ""
    deployment_mode: str = ""

    @property
    def is_workload_identity(self) -> bool:
        """Tell whether a federated service account token is exchanged for one of Azure's."""
        return bool(self.federated_token_file) and self.deployment_mode.lower() != MANAGED


class RenewableCredential:
    """A credential whose tokens can be thrown away: those of azure-identity keep one until it expires by our clock."""

    def __init__(self, make: Callable[[], AnyCredential]) -> None:
        self._make = make
        self._current = make()

    def renew(self) -> None:
        """Forget all tokens. Nothing has to be closed: connections belong to the transport that was handed in."""
        self._current = self._make()

    async def get_token(self, *scopes: str, **options: Any) -> AccessToken:
        """Return a token, as the SDK asks for it."""
        return await self._current.get_token(*scopes, **options)

    async def get_token_info(self, *scopes: str, options: TokenRequestOptions | None = None) -> AccessTokenInfo:
        """Return a token with more about it, as the SDK asks for it."""
        return await self._current.get_token_info(*scopes, options=options)

    async def close(self) -> None:
        """End the use of the credential."""
        await self._current.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None = None,
        error: BaseException | None = None,
        traceback: TracebackType | None = None,
    ) -> None:
        await self.close()


class Authentication(AsyncARMChallengeAuthenticationPolicy):
    """Signs requests, and takes a new token where ARM refuses one that the credential still believes in.

    A clock that is slow, a revoked token or a new key of Entra's would otherwise refuse everything for as long as the
    token lasts, an hour or a day. A request that was refused with 401 has had no effect, so it is sent a second time.
    """

    def __init__(self, credential: RenewableCredential, *, scope: str) -> None:
        super().__init__(credential, scope)
        self._renewable = credential
        self._scope = scope
        self._generation = 0
        self._renewal = asyncio.Lock()

    async def on_request(self, request: PipelineRequest[Any]) -> None:
        """Sign the request."""
        generation = self._generation
        await super().on_request(request)
        request.context[_GENERATION] = generation

    async def on_challenge(self, request: PipelineRequest[Any], response: PipelineResponse[Any, Any]) -> bool:
        """Sign the refused request anew; return whether it is to be sent again."""
        if await super().on_challenge(request, response):
            return True
        async with self._renewal:
            # Of many requests that were refused together only the first throws the token away.
            if request.context.get(_GENERATION) == self._generation:
                self._generation += 1
                self._renewable.renew()
        await self.authorize_request(request, self._scope)
        return True


def make_credential(credentials: Credentials, *, cloud: Cloud, transport: AioHttpTransport) -> RenewableCredential:
    """Return the credential, which asks for a token when one is needed. Raises ValueError, naming what is missing."""
    if credentials.is_workload_identity:
        missing = [
            name
            for name, value in (("AZURE_TENANT_ID", credentials.tenant_id), ("AZURE_CLIENT_ID", credentials.client_id))
            if not value
        ]
        if missing:
            raise ValueError(f"workload identity needs {' and '.join(missing)}")
        return RenewableCredential(
            lambda: WorkloadIdentityCredential(
                tenant_id=credentials.tenant_id,
                client_id=credentials.client_id,
                token_file_path=credentials.federated_token_file,
                authority=cloud.authority,
                transport=transport,
                retry_total=TOKEN_RETRIES,
            )
        )
    return RenewableCredential(
        lambda: DefaultAzureCredential(
            authority=cloud.authority,
            managed_identity_client_id=credentials.client_id or None,
            # Caches of desktop applications. `az login` stays, for the commands that are run by hand.
            exclude_shared_token_cache_credential=True,
            exclude_visual_studio_code_credential=True,
            transport=transport,
        )
    )


def silence_sdk_loggers() -> None:
    """Keep the SDK's loggers at WARNING: below it they write headers and bodies of token requests, if masked.

    A level that somebody has set for them stays.
    """
    for name in ("azure", "msal"):
        logger = logging.getLogger(name)
        if logger.level == logging.NOTSET:
            logger.setLevel(logging.WARNING)
