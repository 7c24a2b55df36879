"""One authenticated connection to ARM: every request of ours goes through `AzureSession.call`.

The SDK gives identity, token handling and the pipeline; bodies stay plain JSON. Its models are not used: building
them for a region's VM sizes holds the event loop for a second, and a plain dict survives every API version.
"""

import asyncio
import json
import re
import ssl
import time
from collections.abc import Callable, Collection, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final, Self, cast
from urllib.parse import quote, unquote, urlsplit
from uuid import uuid4

import aiohttp
from azure.core.pipeline.policies import HeadersPolicy, RequestIdPolicy, UserAgentPolicy
from azure.core.pipeline.transport import AioHttpTransport
from azure.core.rest import AsyncHttpResponse, HttpRequest
from azure.mgmt.containerservice.aio import ContainerServiceClient

from provisioner import __version__
from provisioner.azure.budget import Budget, Wait
from provisioner.azure.cloud import Cloud
from provisioner.azure.credentials import (
    Authentication,
    Credentials,
    RenewableCredential,
    make_credential,
    silence_sdk_loggers,
)
from provisioner.azure.errors import (
    CALL_ERRORS,
    ArmFailure,
    Postponed,
    Withheld,
    classify,
    classify_response,
    outcome_unknown,
    status_unknown,
    unusable,
)
from provisioner.fencing import last_look

__all__ = ["ArmResponse", "AzureSession", "AzureTarget", "CallRecord", "Credentials"]

# Seconds to connect. The time for a whole call is the caller's to say.
CONNECT_TIMEOUT: Final = 10.0
# Connections to ARM and Entra at a time, beyond which calls wait: each costs 300 KiB that never come back, see
# kube/access.py. AKS takes seconds for a PUT, and its limits let us send eight of them a second for long.
CONNECTIONS: Final = 32
# A list that has more pages than that does not end.
MAX_PAGES: Final = 200
# Characters. Longer bodies are parsed in a thread: 1,500 VM sizes are 5 MB and 60 ms.
_LARGE: Final = 262_144
_TOO_MANY: Final = 429
_POOL: Final = re.compile(r"/agentPools/([^/?]+)", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True)
class AzureTarget:
    """The AKS cluster that is worked on."""

    subscription_id: str
    resource_group: str
    cluster_name: str

    @property
    def subscription_path(self) -> str:
        """Return the ARM path of the subscription."""
        return f"/subscriptions/{quote(self.subscription_id, safe='')}"

    @property
    def cluster_path(self) -> str:
        """Return the ARM path of the cluster."""
        return (
            f"{self.subscription_path}/resourceGroups/{quote(self.resource_group, safe='')}"
            f"/providers/Microsoft.ContainerService/managedClusters/{quote(self.cluster_name, safe='')}"
        )


@dataclass(frozen=True, kw_only=True)
class CallRecord:
    """One finished call: `status` is None and `error` the exception's class where no response came.

    `pool` is the agent pool that it is about, where it is about one. `seconds` include getting a token where one was
    needed. `correlation_id` and `request_id` are what Azure's support asks for (x-ms-correlation-request-id and
    x-ms-request-id of the response), `client_request_id` is our own mark on the request, x-ms-client-request-id: all
    that there is where no response came.
    """

    operation: str
    method: str
    pool: str
    status: int | None
    error: str
    seconds: float
    correlation_id: str
    request_id: str
    client_request_id: str


@dataclass(frozen=True, kw_only=True)
class ArmResponse:
    """A response that the caller said it can take."""

    status: int
    text: str

    def json(self) -> Mapping[str, Any]:
        """Return the JSON object of the body. Raises ArmFailure where it is none."""
        try:
            document = json.loads(self.text)
        except (ValueError, RecursionError):
            document = None
        if not isinstance(document, dict):
            raise unusable(f"HTTP {self.status} without a JSON object", status=self.status)
        return document


class AzureSession:
    """An async context manager; `call` works inside of it.

    Servers are trusted by OpenSSL's defaults as they are when the session opens (SSL_CERT_FILE and SSL_CERT_DIR replace
    them); HTTPS_PROXY and NO_PROXY are honoured. `on_call` is called after each call, `on_wait` with the operation of
    each that was kept back by the budget; neither must block. `may_act` is asked about each request before its first
    byte is sent, after whatever was waited for: a token, a connection. Where it says no, the request is Withheld.
    """

    def __init__(
        self,
        target: AzureTarget,
        *,
        cloud: Cloud,
        credentials: Credentials,
        on_call: Callable[[CallRecord], None] | None = None,
        budget: Budget | None = None,
        on_wait: Callable[[str, Wait], None] | None = None,
        may_act: Callable[[], bool] | None = None,
    ) -> None:
        self.target = target
        self.cloud = cloud
        self._credentials = credentials
        self._user_agent = f"gpu-provisioner/{__version__}"
        self._on_call = on_call
        self._budget = budget or Budget()
        self._on_wait = on_wait
        self._may_act = may_act
        self._stack = AsyncExitStack()
        self._client: ContainerServiceClient | None = None

    async def __aenter__(self) -> Self:
        silence_sdk_loggers()
        async with AsyncExitStack() as stack:
            # One pool of connections for ARM and Entra. azure-core's own transport would build a new TLS context for
            # each request as soon as a CA is given, and with it a new connection.
            http = await stack.enter_async_context(
                aiohttp.ClientSession(
                    connector=aiohttp.TCPConnector(ssl=ssl.create_default_context(), limit=CONNECTIONS),
                    cookie_jar=aiohttp.DummyCookieJar(),
                    auto_decompress=False,
                    trust_env=True,
                    trace_configs=[last_look(self._look)],
                )
            )
            transport = AioHttpTransport(session=http, session_owner=False, connection_timeout=CONNECT_TIMEOUT)
            credential = make_credential(self._credentials, cloud=self.cloud, transport=transport)
            stack.push_async_callback(credential.close)
            self._client = await stack.enter_async_context(self._make_client(credential, transport))
            self._stack = stack.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._client = None
        await self._stack.aclose()

    async def call(
        self,
        method: str,
        path: str,
        *,
        operation: str,
        timeout: float,
        accept: Collection[int],
        query: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        body: Mapping[str, Any] | None = None,
        continues: bool = False,
    ) -> ArmResponse:
        """Make one request within `timeout` seconds, and return a response whose status is in `accept`.

        Nothing is waited for and tried again: back-off belongs to the state machine, which knows what else there is to
        do. Two things are sent a second time at once: what ARM refused with 401, under a new token, and a GET, PUT or
        DELETE on a kept connection that turned out to be dead (aiohttp does that), which may then have had its effect
        already. Raises ArmFailure for every other status and for whatever keeps the request from being answered, and
        Postponed, which is one, where the budget does not let it be sent now; what `continues` a call is always sent.
        """
        if self._client is None:
            raise RuntimeError("the session is not open")
        if continues:
            self._budget.continue_with(operation)
        else:
            self._ask_budget(operation, path)
        mark = str(uuid4())
        # The SDK expects parameters that are quoted already.
        parameters = {name: quote(value, safe="") for name, value in (query or {}).items()}
        request = HttpRequest(method, path, params=parameters, headers=dict(headers or {}), json=body)
        started = time.monotonic()
        response: AsyncHttpResponse | None = None
        outcome = ""
        try:
            async with asyncio.timeout(timeout):
                # The body is read before this returns, inside of the time limit.
                response = await self._client.send_request(request, request_id=mark, read_timeout=timeout)
        except CALL_ERRORS as error:
            outcome = type(error).__name__
            raise ArmFailure(
                classify(error), outcome_unknown=method not in ("GET", "HEAD") and outcome_unknown(error)
            ) from error
        except BaseException as error:
            outcome = type(error).__name__
            raise
        finally:
            if self._on_call is not None:
                headers = response.headers if response is not None else {}
                self._on_call(
                    CallRecord(
                        operation=operation,
                        method=method,
                        pool=_pool(path),
                        status=response.status_code if response is not None else None,
                        error=outcome,
                        seconds=time.monotonic() - started,
                        correlation_id=headers.get("x-ms-correlation-request-id", ""),
                        request_id=headers.get("x-ms-request-id", ""),
                        client_request_id=mark,
                    )
                )
        try:
            accepted = _accepted(method, response, accept)
        except ArmFailure as error:
            if error.status == _TOO_MANY:
                self._budget.throttled(operation, path=path, failure=error.failure)
            else:
                self._budget.answered(operation)
            raise
        self._budget.answered(operation)
        return accepted

    async def list(
        self, path: str, *, operation: str, timeout: float, query: Mapping[str, str]
    ) -> tuple[Mapping[str, Any], ...]:
        """Return the items of all pages of a collection, within `timeout` seconds. Raises ArmFailure."""
        items: list[Mapping[str, Any]] = []
        deadline = time.monotonic() + timeout
        url, parameters = path, query
        for number in range(MAX_PAGES):
            remaining = max(deadline - time.monotonic(), 0.0)
            response = await self.call(
                "GET",
                url,
                operation=operation,
                timeout=remaining,
                accept=(200,),
                query=parameters,
                continues=number > 0,
            )
            large = len(response.text) > _LARGE
            page = await asyncio.to_thread(response.json) if large else response.json()
            values = page.get("value")
            if not isinstance(values, list) or not all(isinstance(value, dict) for value in values):
                # A proxy's idea of an answer. Taking it for an empty collection would make every pool vanish.
                raise unusable(f"{operation}: the answer has no list of values")
            items += values
            following = page.get("nextLink")
            if not following:
                return tuple(items)
            url, parameters = self._same_origin(following), {}
        raise unusable(f"{operation}: more than {MAX_PAGES} pages")

    def _same_origin(self, link: object) -> str:
        """Return the link for `call`, where it leads to ARM: the token goes wherever this points."""
        try:
            own, other = urlsplit(self.cloud.endpoint), urlsplit(str(link))
            same = other.scheme == "https" and (other.hostname, other.port or 443) == (own.hostname, own.port or 443)
        except ValueError:
            same = False
        if not same:
            raise unusable("the link to the next page leads away from ARM")
        # The client takes braces for its own placeholders.
        return str(link).replace("{", "%7B").replace("}", "%7D")

    def _make_client(self, credential: RenewableCredential, transport: AioHttpTransport) -> ContainerServiceClient:
        # An own list of policies, for what is not in it: the retry policy, which sleeps inside of the call for as long
        # as a Retry-After says; automatic registration of resource providers, which is not ours to decide and loops
        # until it is done; redirects, which could carry the token elsewhere and which ARM does not use; the body
        # decoder, which raises for HTML; and both loggers of requests.
        policies = [
            RequestIdPolicy(),
            HeadersPolicy(),
            UserAgentPolicy(user_agent=self._user_agent),
            Authentication(credential, scope=self.cloud.scope),
        ]
        return ContainerServiceClient(
            credential,
            self.target.subscription_id,
            base_url=self.cloud.endpoint,
            credential_scopes=[self.cloud.scope],
            policies=policies,
            transport=transport,
        )

    def _look(self, _: str, path: str) -> None:
        # Tokens, which come over the same transport, are anybody's.
        if path.startswith("/subscriptions/") and self._may_act is not None and not self._may_act():
            raise Withheld

    def _ask_budget(self, operation: str, path: str) -> None:
        wait = self._budget.admit(operation, path=path)
        if wait is not None:
            if self._on_wait is not None:
                self._on_wait(operation, wait)
            raise Postponed(wait)


def _pool(path: str) -> str:
    """Return the agent pool that a path is about, empty where it is about none."""
    match = _POOL.search(path)
    return unquote(match[1]) if match else ""


def _accepted(method: str, response: AsyncHttpResponse, accept: Collection[int]) -> ArmResponse:
    try:
        text = response.text()
    except (ValueError, LookupError):
        # Not the encoding that it claims to be: a broken body, and nothing that is read further.
        text = ""
    status = response.status_code
    if status in accept:
        return ArmResponse(status=status, text=text)
    raise ArmFailure(
        classify_response(status=status, headers=cast("Mapping[str, str]", response.headers), body=text),
        outcome_unknown=method not in ("GET", "HEAD") and status_unknown(status),
        status=status,
    )
