"""The server: ARM and Entra for one AKS cluster, and retail prices, over TLS on loopback."""

import asyncio
import contextlib
import dataclasses
import functools
import json
import ssl
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Self
from urllib.parse import parse_qsl

import trustme
from aiohttp import web

from fakes.azure import control
from fakes.azure.arm import Arm, Request, Response
from fakes.azure.calls import Call, CallLog
from fakes.azure.clock import Clock, Timeline
from fakes.azure.cluster import Cluster
from fakes.azure.entra import Entra, TokenRefusedError
from fakes.azure.errors import AzureError
from fakes.azure.faults import Answer, Delay, Disconnect, Fault, FaultBook
from fakes.azure.ids import ResourceIds
from fakes.azure.machines import Machine
from fakes.azure.prices import Prices
from fakes.azure.routes import Match, resolve
from fakes.azure.settings import Settings
from fakes.azure.throttling import Throttle

# Loopback only, and by name: Entra's clients insist on a host name that the certificate is for.
_HOST = "127.0.0.1"
_NAME = "localhost"
# As ARM.
_MAX_BODY = 4 << 20


class _TornDownError(Exception):
    """A fault has it that the caller gets no answer."""


class FakeAzure:
    """An Azure on loopback. `start` it before `endpoint` and `environment` are asked for; `stop` it afterwards.

    `directory` gets the CA certificate and the federated token; nothing else is written to disk.
    """

    def __init__(
        self,
        *,
        directory: Path,
        settings: Settings | None = None,
        ids: ResourceIds | None = None,
        port: int = 0,
        kubernetes_version: str = "1.34.2",
    ) -> None:
        self.settings = settings or Settings()
        self.ids = ids or ResourceIds()
        self.clock = Clock(scale=self.settings.scale)
        self.timeline = Timeline(self.clock)
        self.faults = FaultBook()
        self.calls = CallLog()
        self.ca_file = directory / "ca.pem"
        self.entra = Entra(self.ids, settings=self.settings, federated_token_file=directory / "azure-identity-token")
        self.cluster = Cluster(
            self.ids,
            settings=self.settings,
            timeline=self.timeline,
            fate=self.faults.outcome,
            kubernetes_version=kubernetes_version,
        )
        self.throttle = Throttle(self.ids, settings=self.settings, now=self.clock.now)
        self.settings.subscribe(self._settings_changed)
        self._directory = directory
        self._port = port
        self._arm: Arm | None = None
        self._prices = Prices(settings=self.settings, region=self.ids.location)
        self._runner: web.AppRunner | None = None
        self._pacemaker: asyncio.Task[None] | None = None

    # --- life

    async def start(self) -> None:
        """Serve. Raises OSError if the port is taken."""
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        context = self._certify()
        app = web.Application(client_max_size=_MAX_BODY)
        control.add_routes(app, self)
        app.router.add_route("*", "/{path:.*}", self._handle)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
        await self._runner.setup()
        site = web.TCPSite(self._runner, _HOST, self._port, ssl_context=context)
        try:
            await site.start()
        except OSError:
            await self._runner.cleanup()
            raise
        self._port = self._runner.addresses[0][1]
        self._arm = Arm(self.cluster, endpoint=self.endpoint)
        self.entra.allow_audience(self.endpoint)
        self.entra.rotate_federated_token()
        self._pacemaker = asyncio.create_task(self.timeline.run(), name="fake-azure-timeline")

    async def stop(self) -> None:
        """Stop serving. Raises what has stopped simulated time, if anything has."""
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None
        if self._pacemaker is not None:
            self._pacemaker.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._pacemaker
            self._pacemaker = None

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_exc: object) -> None:
        await self.stop()

    def _certify(self) -> ssl.SSLContext:
        authority = trustme.CA()
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert(_NAME, _HOST).configure_cert(context)
        authority.cert_pem.write_to_path(str(self.ca_file))
        return context

    # --- what its users need

    @property
    def arm(self) -> Arm:
        """The resource providers. Raises RuntimeError before `start`."""
        if self._arm is None:
            raise RuntimeError("the server has not been started")
        return self._arm

    @property
    def endpoint(self) -> str:
        """The ARM endpoint, without a slash at the end."""
        return f"https://{_NAME}:{self._port}"

    @property
    def pricing_endpoint(self) -> str:
        """The URL of the retail prices, in place of https://prices.azure.com/api/retail/prices."""
        return f"{self.endpoint}/api/retail/prices"

    def environment(self) -> dict[str, str]:
        """Return what unmodified production code reads to find this Azure and to trust it."""
        return {
            "ARM_SUBSCRIPTION_ID": self.ids.subscription,
            "ARM_RESOURCE_GROUP": self.ids.resource_group,
            "AZURE_CLUSTER_NAME": self.ids.cluster,
            "AZURE_TENANT_ID": self.ids.tenant,
            "AZURE_CLIENT_ID": self.ids.client,
            "AZURE_FEDERATED_TOKEN_FILE": str(self.entra.federated_token_file),
            "AZURE_AUTHORITY_HOST": f"{self.endpoint}/",
            "AZURE_CLOUD": "custom",
            "ARM_ENDPOINT": self.endpoint,
            "PRICING_ENDPOINT": self.endpoint,
            "SSL_CERT_FILE": str(self.ca_file),
        }

    def add_fault(self, fault: Fault) -> str:
        """Let something go wrong; returns an ID to remove the fault by."""
        return self.faults.add(fault)

    def machines(self) -> list[Machine]:
        """Return the VMs that exist at this moment."""
        return self.cluster.machines()

    async def wait_changed(self, since: int) -> int:
        """Return the cluster's revision as soon as it is greater than `since`."""
        return await self.cluster.wait_changed(since)

    def _settings_changed(self) -> None:
        self.timeline.advance()
        if self.settings.scale != self.clock.scale:
            self.clock.scale = self.settings.scale
        self.timeline.reschedule()

    # --- a call

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        match = resolve(request.method, request.path)
        pool = match.pool or self._pool_of_operation(match)
        arrived, status = self.clock.now(), None
        try:
            response = await self._serve(request, match=match, pool=pool)
            status = response.status
        except _TornDownError:
            if request.transport is not None:
                request.transport.abort()
            # Written to a connection that is gone.
            response = web.Response()
        finally:
            self.calls.add(
                Call(
                    time=arrived,
                    method=request.method,
                    path=request.path,
                    operation=match.operation,
                    pool=pool,
                    status=status,
                    client_request_id=request.headers.get("x-ms-client-request-id", ""),
                    user_agent=request.headers.get("User-Agent", ""),
                )
            )
        return response

    def _pool_of_operation(self, match: Match) -> str:
        operation = self.cluster.operations.find(match.arguments.get("operation", ""))
        return operation.pool if operation else ""

    async def _serve(self, request: web.Request, *, match: Match, pool: str) -> web.Response:
        body = await request.read()
        hit = functools.partial(self._hit, match.operation, method=request.method, pool=pool)
        answer = await hit(after_effect=False)
        if answer is not None:
            return self._faulty_response(answer)
        response = self._response(self._answer(request, match=match, body=body))
        answer = await hit(after_effect=True)
        return response if answer is None else self._faulty_response(answer)

    async def _hit(self, operation: str, *, method: str, pool: str, after_effect: bool) -> Answer | None:
        claim = functools.partial(self.faults.claim, operation, method=method, pool=pool, after_effect=after_effect)
        delay = claim(Delay)
        if delay is not None:
            await asyncio.sleep(self.clock.real(delay.seconds))
        if claim(Disconnect) is not None:
            raise _TornDownError
        return claim(Answer)

    def _answer(self, request: web.Request, *, match: Match, body: bytes) -> Response:
        headers: dict[str, str] = {}
        try:
            if match.operation == "entra.token":
                form = dict(parse_qsl(body.decode("utf-8", "replace")))
                return Response(status=200, body=self.entra.token(match.arguments["tenant"], form))
            if match.operation == "prices.list":
                page = self._prices.answer(f"{self.endpoint}{request.raw_path}", query=request.query)
                return Response(status=page.status, body=page.body)
            self.entra.check(request.headers.get("Authorization"))
            arm_request = Request(
                match=match,
                method=request.method,
                path=request.path,
                query=request.query,
                headers={name.lower(): value for name, value in request.headers.items()},
                body=body,
            )
            headers = self.throttle.arm(request.method)
            self.arm.check(arm_request)
            self.throttle.provider(match.operation, pool=match.pool)
            response = self.arm.answer(arm_request)
        except TokenRefusedError as error:
            return Response(status=error.status, body=error.body())
        except AzureError as error:
            response = Response(
                status=error.status, body=error.body(), headers=error.headers, retry_after=error.retry_after
            )
        return dataclasses.replace(response, headers={**headers, **response.headers})

    # --- answers

    def _response(self, response: Response) -> web.Response:
        answer = web.Response(status=response.status, headers=self._headers(response.headers, response.retry_after))
        if response.body is not None:
            answer.content_type, answer.charset = "application/json", "utf-8"
            answer.text = json.dumps(response.body)
        return answer

    def _faulty_response(self, fault: Answer) -> web.Response:
        response = web.Response(status=fault.status, headers=self._headers(fault.headers, fault.retry_after))
        if fault.body is not None:
            text = isinstance(fault.body, str)
            response.content_type = fault.content_type or ("text/html" if text else "application/json")
            response.charset = "utf-8"
            response.text = fault.body if isinstance(fault.body, str) else json.dumps(fault.body)
        return response

    def _headers(self, headers: Mapping[str, str], retry_after: float | None) -> dict[str, str]:
        request_id = str(uuid.uuid4())
        common = {
            "Cache-Control": "no-cache",
            "x-ms-request-id": request_id,
            "x-ms-correlation-request-id": request_id,
            "x-ms-routing-request-id": f"{self.ids.location.upper()}:{request_id}",
        }
        if retry_after is not None:
            common["Retry-After"] = str(self.clock.retry_after(retry_after))
        return common | dict(headers)
