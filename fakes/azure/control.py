"""The control API under `/fake/`: how a demo or a test in another process drives and inspects this Azure.

Quotas, the usage of others, capacity, restrictions and prices are settings: `PATCH /fake/settings` changes those that
it names, mappings as a whole. No authentication: the server listens on loopback only.
"""

from collections.abc import Awaitable, Callable
from dataclasses import asdict
from http import HTTPStatus
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

from aiohttp import web
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from fakes.azure.faults import FAULT
from fakes.azure.settings import Settings

if TYPE_CHECKING:
    from fakes.azure.server import FakeAzure

_OBJECT: Final = TypeAdapter(dict[str, Any])
_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class ClusterState(BaseModel):
    """Body of `PUT /fake/cluster`; what is left out stays."""

    model_config = ConfigDict(extra="forbid")

    provisioning_state: str | None = None
    power_state: Literal["Running", "Stopped"] | None = None
    kubernetes_version: Annotated[str, Field(pattern=r"^\d+\.\d+\.\d+$")] | None = None


def add_routes(app: web.Application, azure: "FakeAzure") -> None:
    """Serve the control API of an Azure."""
    control = _Control(azure)
    routes = (
        ("GET", "/fake/calls", control.get_calls),
        ("POST", "/fake/calls/reset", control.reset_calls),
        ("GET", "/fake/settings", control.get_settings),
        ("PUT", "/fake/settings", control.put_settings),
        ("PATCH", "/fake/settings", control.patch_settings),
        ("GET", "/fake/faults", control.get_faults),
        ("POST", "/fake/faults", control.add_fault),
        ("DELETE", "/fake/faults", control.clear_faults),
        ("DELETE", "/fake/faults/{id}", control.remove_fault),
        ("GET", "/fake/pools", control.get_pools),
        ("GET", "/fake/machines", control.get_machines),
        ("DELETE", "/fake/machines/{name}", control.lose_machine),
        ("GET", "/fake/cluster", control.get_cluster),
        ("PUT", "/fake/cluster", control.put_cluster),
        ("POST", "/fake/throttling/reset", control.reset_throttling),
        ("POST", "/fake/tokens/expire", control.expire_tokens),
        ("POST", "/fake/tokens/rotate", control.rotate_federated_token),
    )
    for method, path, handler in (*routes, ("*", "/fake/{path:.*}", control.not_found)):
        app.router.add_route(method, path, _checked(handler))


def _checked(handler: _Handler) -> _Handler:
    async def handle(request: web.Request) -> web.StreamResponse:
        try:
            return await handler(request)
        except ValidationError as error:
            return _json({"errors": error.errors(include_url=False, include_input=False, include_context=False)}, 400)
        except ValueError as error:
            return _json({"errors": [{"msg": str(error)}]}, HTTPStatus.BAD_REQUEST)

    return handle


def _json(body: Any, status: int = HTTPStatus.OK) -> web.Response:
    return web.json_response(body, status=status)


def _done() -> web.Response:
    return web.Response(status=HTTPStatus.NO_CONTENT)


class _Control:
    def __init__(self, azure: "FakeAzure") -> None:
        self._azure = azure

    async def not_found(self, _request: web.Request) -> web.Response:
        return _json({}, HTTPStatus.NOT_FOUND)

    async def get_calls(self, _request: web.Request) -> web.Response:
        return _json(self._azure.calls.dump())

    async def reset_calls(self, _request: web.Request) -> web.Response:
        self._azure.calls.reset()
        return _done()

    async def get_settings(self, _request: web.Request) -> web.Response:
        return _json(self._azure.settings.model_dump(mode="json"))

    async def put_settings(self, request: web.Request) -> web.Response:
        self._azure.settings.change(Settings.model_validate(await request.json()).model_dump())
        return await self.get_settings(request)

    async def patch_settings(self, request: web.Request) -> web.Response:
        self._azure.settings.change(_OBJECT.validate_python(await request.json()))
        return await self.get_settings(request)

    async def get_faults(self, _request: web.Request) -> web.Response:
        return _json(self._azure.faults.listing())

    async def add_fault(self, request: web.Request) -> web.Response:
        fault_id = self._azure.add_fault(FAULT.validate_python(await request.json()))
        return _json({"id": fault_id}, HTTPStatus.CREATED)

    async def clear_faults(self, _request: web.Request) -> web.Response:
        self._azure.faults.clear()
        return _done()

    async def remove_fault(self, request: web.Request) -> web.Response:
        return _done() if self._azure.faults.remove(request.match_info["id"]) else _json({}, HTTPStatus.NOT_FOUND)

    async def get_pools(self, _request: web.Request) -> web.Response:
        cluster = self._azure.cluster
        cluster.timeline.advance()
        return _json(
            [
                pool.resource(cluster.ids)
                | {"operation": pool.operation.body() if pool.operation else None, "machines": len(pool.instances)}
                for pool in cluster.pools.values()
            ]
        )

    async def get_machines(self, _request: web.Request) -> web.Response:
        return _json([asdict(machine) for machine in self._azure.machines()])

    async def lose_machine(self, request: web.Request) -> web.Response:
        known = self._azure.cluster.lose_machine(request.match_info["name"])
        return _done() if known else _json({}, HTTPStatus.NOT_FOUND)

    async def get_cluster(self, _request: web.Request) -> web.Response:
        cluster = self._azure.cluster
        return _json(
            {
                "provisioning_state": cluster.provisioning_state,
                "power_state": cluster.power_state,
                "kubernetes_version": cluster.kubernetes_version,
            }
        )

    async def put_cluster(self, request: web.Request) -> web.Response:
        state = ClusterState.model_validate(await request.json())
        self._azure.cluster.set_state(
            provisioning_state=state.provisioning_state,
            power_state=state.power_state,
            kubernetes_version=state.kubernetes_version,
        )
        return await self.get_cluster(request)

    async def reset_throttling(self, _request: web.Request) -> web.Response:
        self._azure.throttle.reset()
        return _done()

    async def expire_tokens(self, _request: web.Request) -> web.Response:
        self._azure.entra.expire_tokens()
        return _done()

    async def rotate_federated_token(self, _request: web.Request) -> web.Response:
        self._azure.entra.rotate_federated_token()
        return _done()
