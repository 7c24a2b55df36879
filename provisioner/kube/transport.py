"""One HTTP call to the Kubernetes API: raw dicts in and out, every failure as one of `provisioner.kube.errors`."""

import contextlib
import json
import logging
from collections.abc import Callable, Iterator, Mapping
from types import TracebackType
from typing import Any, Final, Protocol, Self

import aiohttp
from kubernetes.aio.client.api_client import ApiClient
from tenacity import AsyncRetrying, retry_if_exception, stop_after_attempt, wait_exponential

from provisioner.fencing import last_look
from provisioner.kube.access import ConfigException, load_configuration
from provisioner.kube.errors import Conflict, Forbidden, Gone, KubeError, Rejected, Unavailable, Unserved

_log = logging.getLogger(__name__)

MERGE_PATCH: Final = "application/merge-patch+json"
# JSON is YAML, and this is the type that every API server takes.
APPLY_PATCH: Final = "application/apply-patch+yaml"

# Seconds. An API server answers in milliseconds; its own limit for a request is 60 s (--request-timeout).
REQUEST_TIMEOUT: Final = 30.0
# A broken connection says little about the server: a kept-alive one may have been cut long ago, an API server behind
# the load balancer been replaced. Three attempts within 0.3 s; a server that is away takes longer than a read may.
_READ_ATTEMPTS: Final = 3
_WRITES: Final = ("POST", "PUT", "PATCH", "DELETE")
# Characters of an answer that is not a Status object, a proxy's error page for instance.
_MAX_FOREIGN_MESSAGE: Final = 256
# What an API server says of a path under a group that it serves. Where it does not serve the group either, it answers
# with a line of text and no Status object, as it does for the groups of CRDs.
_UNSERVED: Final = "the server could not find the requested resource"


class Requests(Protocol):
    """A connection to an API server, as the gateway uses it; `Transport` is one."""

    async def __aenter__(self) -> Self: ...

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    async def read(self, path: str, *, query: Mapping[str, str | int] | None = None) -> dict[str, Any]:
        """Answer a GET. Raises a `KubeError`."""
        ...

    async def call(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str | int] | None = None,
        body: Mapping[str, Any] | None = None,
        content_type: str = "application/json",
    ) -> dict[str, Any]:
        """Answer one request. Raises a `KubeError`."""
        ...


class Transport:
    """The connection. Use as `async with`; one instance serves any number of concurrent calls."""

    def __init__(
        self,
        *,
        request_timeout: float = REQUEST_TIMEOUT,
        user_agent: str = "gpu-provisioner",
        may_act: Callable[[], bool] | None = None,
    ) -> None:
        """Take the limit of one call in seconds, body included, and what is asked before anything that writes is sent.

        It is asked at the last moment, after a connection was waited for; where it says no, the call is Unavailable.
        """
        self._timeout = request_timeout
        self._user_agent = user_agent
        self._may_act = may_act
        self._client: Any = None

    async def __aenter__(self) -> Self:
        configuration = await load_configuration()
        configuration.trace_configs = [last_look(self._look)]
        self._client = ApiClient(configuration=configuration)
        self._client.user_agent = self._user_agent
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        client, self._client = self._client, None
        await client.close()

    async def read(self, path: str, *, query: Mapping[str, str | int] | None = None) -> dict[str, Any]:
        """GET, repeated at once where the connection broke: a kept-alive connection may be dead without our knowing."""
        retrying = AsyncRetrying(
            retry=retry_if_exception(lambda error: isinstance(error, Unavailable) and error.lost),
            stop=stop_after_attempt(_READ_ATTEMPTS),
            wait=wait_exponential(multiplier=0.1),
            reraise=True,
        )
        return await retrying(self.call, "GET", path, query=query)

    async def call(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str | int] | None = None,
        body: Mapping[str, Any] | None = None,
        content_type: str = "application/json",
    ) -> dict[str, Any]:
        """Send one request and return the parsed answer. Raises a `KubeError`.

        No PATCH or POST is ever repeated. A GET or DELETE whose connection broke is, once, by aiohttp itself.
        """
        try:
            return await self._send(method, path, query=query, body=body, content_type=content_type)
        except Unavailable as error:
            if error.status != 401:
                raise
            # The token has expired, and nothing was done. The new one goes into the connection that is there: a new
            # connection would break the calls that are under way on the old one.
            try:
                renewed = await load_configuration()
            except (ConfigException, OSError) as cause:
                raise error from cause
            self._client.configuration.api_key = renewed.api_key
            self._client.configuration.refresh_api_key_hook = renewed.refresh_api_key_hook
        return await self._send(method, path, query=query, body=body, content_type=content_type)

    def _look(self, method: str, path: str) -> None:
        if method in _WRITES and self._may_act is not None and not self._may_act():
            raise Unavailable(f"{method} {path}: not sent, another instance may hold the Lease by now")

    async def _send(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str | int] | None,
        body: Mapping[str, Any] | None,
        content_type: str,
    ) -> dict[str, Any]:
        what = f"{method} {path}"
        try:
            request = await self._client.param_serialize(
                method=method,
                resource_path=path,
                query_params=list((query or {}).items()),
                header_params={"Accept": "application/json", "Content-Type": content_type},
                body=body,
                auth_settings=["BearerToken"],
            )
            answer = await self._client.call_api(*request, _request_timeout=aiohttp.ClientTimeout(total=self._timeout))
            data = await answer.read()
        except TimeoutError as error:
            raise Unavailable(f"{what}: no answer within {self._timeout:g} s") from error
        except (aiohttp.ClientError, ConfigException, OSError) as error:
            raise Unavailable(f"{what}: {error or type(error).__name__}", lost=True) from error
        if answer.status >= 400:
            raise _failure(what, answer.status, answer.headers, data)
        try:
            parsed = json.loads(data)
        except ValueError as error:
            raise Unavailable(f"{what}: the answer is not JSON", status=answer.status) from error
        if not isinstance(parsed, dict):
            raise Unavailable(f"{what}: the answer is no object", status=answer.status)
        return parsed


def _failure(what: str, status: int, headers: Mapping[str, str], data: bytes) -> KubeError:
    details: dict[str, Any] = {}
    with contextlib.suppress(ValueError):
        parsed = json.loads(data)
        if isinstance(parsed, dict) and parsed.get("kind") == "Status":
            details = parsed
    told = details.get("message") or data[:_MAX_FOREIGN_MESSAGE].decode(errors="replace").strip() or "no explanation"
    told = " ".join((told, *_causes_untold(details, told)))
    message = f"{what}: {status}: {told}"
    reason = str(details.get("reason") or "")
    if status == 401 or status == 429 or status >= 500:
        retry_after = _seconds(headers.get("Retry-After"))
        return Unavailable(message, status=status, reason=reason, told=told, retry_after=retry_after)
    if status == 404 and (not details or told.startswith(_UNSERVED)):
        return Unserved(message, status=status, reason=reason, told=told)
    known = {403: Forbidden, 404: Gone, 409: Conflict}
    return known.get(status, Rejected)(message, status=status, reason=reason, told=told)


def _causes_untold(status: Mapping[str, Any], told: str) -> Iterator[str]:
    """Return the causes that the message leaves out: which disruption budget forbids an eviction, for one."""
    details = status.get("details")
    causes = details.get("causes") if isinstance(details, dict) else None
    for cause in causes if isinstance(causes, list) else ():
        text = cause.get("message") if isinstance(cause, dict) else None
        if isinstance(text, str) and text and text not in told:
            yield text if text.endswith(".") else f"{text}."


def _seconds(header: str | None) -> float | None:
    # The API server sends whole seconds; the date form, which a proxy may send, is not worth a clock.
    return float(header) if header and header.isdecimal() and header.isascii() and len(header) < 6 else None
