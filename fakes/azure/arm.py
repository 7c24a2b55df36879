"""ARM's answers: what a request means to the cluster, and how the result goes over the wire."""

import base64
import binascii
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import urlencode

from fakes.azure import errors, skus
from fakes.azure.cluster import Cluster
from fakes.azure.etags import Conditions
from fakes.azure.ids import find_id, parent
from fakes.azure.machines import machine_resource
from fakes.azure.operations import Operation
from fakes.azure.routes import METHOD_NOT_ALLOWED, UNKNOWN, Match
from fakes.azure.usages import REGIONS

# What AKS puts into the URLs of operations, whatever version the request had.
_OPERATION_API_VERSION: Final = "2017-08-31"
_API_VERSION: Final = re.compile(r"\d{4}-\d{2}-\d{2}(-preview)?", re.ASCII)


@dataclass(frozen=True, kw_only=True)
class Request:
    """A request as far as ARM looks at it. Header names are lower-cased."""

    match: Match
    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> dict[str, Any]:
        """Return the body. Raises 400 unless it is a JSON object."""
        try:
            value = json.loads(self.body)
        except ValueError as error:
            raise errors.invalid_content(str(error)) from None
        if not isinstance(value, dict):
            raise errors.invalid_content("The body is no JSON object")
        return value

    @property
    def conditions(self) -> Conditions:
        """The conditional headers."""
        return Conditions(if_match=self.headers.get("if-match"), if_none_match=self.headers.get("if-none-match"))


@dataclass(frozen=True, kw_only=True)
class Response:
    """An answer; `retry_after` in simulated seconds."""

    status: int
    body: Any = None
    headers: Mapping[str, str] = field(default_factory=dict)
    retry_after: float | None = None


class Arm:
    """The resource providers of one subscription: container service for one cluster, compute for sizes and quotas."""

    def __init__(self, cluster: Cluster, *, endpoint: str) -> None:
        self._cluster = cluster
        self._ids = cluster.ids
        self._settings = cluster.settings
        self._endpoint = endpoint
        self._handlers: Mapping[str, Callable[[Request], Response]] = {
            "managedClusters.get": self._get_cluster,
            "agentPools.list": self._list_pools,
            "agentPools.get": self._get_pool,
            "agentPools.put": self._put_pool,
            "agentPools.delete": self._delete_pool,
            "agentPools.deleteMachines": self._delete_machines,
            "agentPools.getUpgradeProfile": self._get_upgrade_profile,
            "machines.list": self._list_machines,
            "machines.get": self._get_machine,
            "operations.get": self._get_operation,
            "operationResults.get": self._get_operation_result,
            "skus.list": self._list_skus,
            "usages.list": self._list_usages,
            "subnets.get": self._get_subnet,
            "capacityReservations.list": self._list_reservations,
        }

    def check(self, request: Request) -> None:
        """Raise what the front door answers before any resource provider is asked."""
        match request.match.operation:
            case operation if operation == UNKNOWN:
                raise errors.unknown_resource_type(request.path)
            case operation if operation == METHOD_NOT_ALLOWED:
                raise errors.method_not_allowed(request.method)
        if not _API_VERSION.fullmatch(request.query.get("api-version", "")):
            raise errors.missing_api_version()
        arguments, ids = request.match.arguments, self._ids
        if not _same(arguments["subscription"], ids.subscription):
            raise errors.subscription_not_found(arguments["subscription"])
        if "group" in arguments and not _same(arguments["group"], ids.resource_group):
            raise errors.resource_group_not_found(arguments["group"])
        if "cluster" in arguments and not _same(arguments["cluster"], ids.cluster):
            if request.match.operation == "managedClusters.get":
                raise errors.cluster_not_found(arguments["cluster"], arguments["group"])
            raise errors.parent_not_found(request.path.partition("/agentPools")[0])

    def answer(self, request: Request) -> Response:
        """Carry a request out. Raises AzureError."""
        self._cluster.timeline.advance()
        return self._handlers[request.match.operation](request)

    # --- managed cluster and agent pools

    def _get_cluster(self, _request: Request) -> Response:
        return Response(status=200, body=self._cluster.resource())

    def _list_pools(self, request: Request) -> Response:
        rows = [(pool.name, pool.resource(self._ids)) for pool in self._cluster.pools.values()]
        return self._page(request, rows, size=self._settings.page_size)

    def _get_pool(self, request: Request) -> Response:
        return self._pool_response(request.match.pool, status=200)

    def _pool_response(self, name: str, *, status: int, operation: Operation | None = None) -> Response:
        pool = self._cluster.pool(name)
        return Response(
            status=status,
            body=pool.resource(self._ids),
            headers={} if operation is None else self._polling(operation),
            retry_after=None if operation is None else self._settings.operation_retry_after_seconds,
        )

    def _put_pool(self, request: Request) -> Response:
        wish = request.json().get("properties")
        if not isinstance(wish, dict):
            raise errors.invalid_parameter("Required parameter properties is missing (null).", target="properties")
        # The name as sent: AKS takes lower-case names only, although the path is read in any case.
        name = request.match.arguments["pool"]
        pool, operation, new = self._cluster.put_pool(name, wish, conditions=request.conditions)
        return self._pool_response(pool.name, status=201 if new else 200, operation=operation)

    def _delete_pool(self, request: Request) -> Response:
        ignore = request.query.get("ignore-pod-disruption-budget", "false")
        if ignore.lower() not in ("true", "false"):
            raise errors.invalid_parameter(f"The value '{ignore}' of ignore-pod-disruption-budget is no boolean.")
        operation = self._cluster.delete_pool(request.match.pool, conditions=request.conditions)
        return Response(status=204) if operation is None else self._accepted(operation)

    def _delete_machines(self, request: Request) -> Response:
        names = request.json().get("machineNames")
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise errors.unmarshal("value into Go struct field .machineNames of type []string")
        return self._accepted(self._cluster.delete_machines(request.match.pool, names))

    def _get_upgrade_profile(self, request: Request) -> Response:
        return Response(status=200, body=self._cluster.upgrade_profile(request.match.pool))

    def _list_machines(self, request: Request) -> Response:
        pool = self._cluster.pool(request.match.pool)
        rows = [(f"{instance.index:09d}", machine_resource(pool, instance, self._ids)) for instance in pool.instances]
        return self._page(request, rows, size=self._settings.page_size)

    def _get_machine(self, request: Request) -> Response:
        pool, name = self._cluster.pool(request.match.pool), request.match.arguments["machine"]
        for instance in pool.instances:
            if _same(self._ids.node_name(pool.name, instance.index), name):
                return Response(status=200, body=machine_resource(pool, instance, self._ids))
        raise errors.machine_not_found(name, pool.name)

    # --- operations

    def _accepted(self, operation: Operation) -> Response:
        headers = self._polling(operation) | {"Location": self._operation_url(operation, kind="operationresults")}
        return Response(status=202, headers=headers, retry_after=self._settings.operation_retry_after_seconds)

    def _polling(self, operation: Operation) -> dict[str, str]:
        return {"Azure-AsyncOperation": self._operation_url(operation, kind="operations")}

    def _operation_url(self, operation: Operation, *, kind: str) -> str:
        return (
            f"{self._endpoint}/subscriptions/{self._ids.subscription}/providers/Microsoft.ContainerService"
            f"/locations/{self._ids.location}/{kind}/{operation.id}?api-version={_OPERATION_API_VERSION}"
        )

    def _find_operation(self, request: Request) -> Operation:
        arguments = request.match.arguments
        operation = self._cluster.operations.find(arguments["operation"])
        if operation is None or not _same(arguments["location"], self._ids.location):
            raise errors.operation_not_found(arguments["operation"])
        return operation

    def _get_operation(self, request: Request) -> Response:
        operation = self._find_operation(request)
        retry_after = self._settings.operation_retry_after_seconds if operation.running else None
        return Response(status=200, body=operation.body(), retry_after=retry_after)

    def _get_operation_result(self, request: Request) -> Response:
        operation = self._find_operation(request)
        if operation.running:
            return self._accepted(operation)
        if operation.status != "Succeeded":
            # A result that is none has the error for its body, under a status of its own.
            failed = operation.error or errors.error("InternalOperationError", "The operation did not succeed.")
            return Response(status=500, body={"error": failed})
        if operation.kind in ("Deleting", "DeletingMachines") or operation.pool not in self._cluster.pools:
            return Response(status=204)
        return self._pool_response(operation.pool, status=200)

    # --- compute

    def _list_skus(self, request: Request) -> Response:
        try:
            rows = skus.listing(
                location=self._ids.location,
                odata_filter=request.query.get("$filter"),
                restricted=self._settings.restricted,
                retired=self._settings.list_retired_sizes,
            )
        except ValueError as error:
            raise errors.AzureError(
                400, "BadRequest", f"The filter '{error}' is not supported: only location is.", shape="nested"
            ) from None
        keyed = [(f"{index:06d}", row) for index, row in enumerate(rows)]
        return self._page(request, keyed, size=self._settings.sku_page_size)

    def _list_usages(self, request: Request) -> Response:
        # ARM reads "East US" as "eastus".
        region = request.match.arguments["location"].replace("%20", "").replace(" ", "").lower()
        if region not in REGIONS | {self._ids.location}:
            raise errors.no_such_location(region, request.query["api-version"], "locations/usages", sorted(REGIONS))
        rows = self._cluster.fleet.quota.rows(region)
        keyed = [(f"{index:06d}", row) for index, row in enumerate(rows)]
        return self._page(request, keyed, size=self._settings.usage_page_size)

    # --- what pools refer to

    def _get_subnet(self, request: Request) -> Response:
        found = find_id(request.path, self._settings.subnets)
        if found is not None:
            return Response(status=200, body=_resource(found, {"provisioningState": "Succeeded"}))
        arguments = request.match.arguments
        if any(_same(parent(known), parent(request.path)) for known in self._settings.subnets):
            raise errors.child_not_found(request.path)
        raise errors.resource_not_found("Microsoft.Network/virtualNetworks", arguments["network"], arguments["owner"])

    def _list_reservations(self, request: Request) -> Response:
        groups = self._settings.capacity_reservation_groups
        group = request.path.rpartition("/")[0]
        found = find_id(group, groups)
        if found is None:
            raise errors.parent_not_found(group)
        rows = []
        for number, entry in enumerate(groups[found]):
            size, _, zone = entry.partition("/")
            row = {
                **_resource(f"{found}/capacityReservations/reservation-{number}", {"provisioningState": "Succeeded"}),
                "location": self._ids.location,
                "sku": {"name": size, "capacity": 1},
                **({"zones": [zone]} if zone else {}),
            }
            rows.append((f"{number:06d}", row))
        return self._page(request, rows, size=self._settings.page_size)

    # --- pages

    def _page(self, request: Request, rows: list[tuple[str, Any]], *, size: int) -> Response:
        """Return a page of rows in order of their keys; the token is the last key, so that deletions skip nothing."""
        after = _decode_token(request.query.get("$skiptoken", ""))
        left = sorted((row for row in rows if row[0] > after), key=lambda row: row[0])
        body: dict[str, Any] = {"value": [value for _, value in left[:size]]}
        if len(left) > size:
            token = base64.urlsafe_b64encode(left[size - 1][0].encode()).decode()
            query = {name: value for name, value in request.query.items() if name != "$skiptoken"}
            body["nextLink"] = f"{self._endpoint}{request.path}?{urlencode(query | {'$skiptoken': token})}"
        return Response(status=200, body=body)


def _resource(resource_id: str, properties: Mapping[str, Any]) -> dict[str, Any]:
    name = resource_id.rpartition("/")[2]
    return {"id": resource_id, "name": name, "properties": dict(properties)}


def _same(left: str, right: str) -> bool:
    return left.lower() == right.lower()


def _decode_token(token: str) -> str:
    try:
        return base64.urlsafe_b64decode(token).decode()
    except (binascii.Error, UnicodeDecodeError):
        raise errors.AzureError(
            400, "InvalidSkipToken", f"The skip token '{token}' is invalid.", shape="nested"
        ) from None
