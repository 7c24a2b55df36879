"""HTTP: who asks, what for, and the answer."""

import json
import logging
from collections.abc import Mapping
from typing import Any, Final

from aiohttp import web

from fakes.cluster.embedded import discovery, disruption, patches, problems
from fakes.cluster.embedded.access import Access
from fakes.cluster.embedded.objects import Object, dig
from fakes.cluster.embedded.problems import Problem
from fakes.cluster.embedded.reading import Lists, watch
from fakes.cluster.embedded.requests import Target, check_kind, delete_options, locate, parse, write_options
from fakes.cluster.embedded.rest import STATUS, Api, Call
from fakes.cluster.embedded.store import Item
from fakes.cluster.embedded.views import View, wants_table

_log = logging.getLogger(__name__)

_HEALTH: Final = ("/healthz", "/livez", "/readyz")
_JSON_PATCH: Final = "application/json-patch+json"
_MERGE_PATCH: Final = "application/merge-patch+json"
_STRATEGIC: Final = "application/strategic-merge-patch+json"
_APPLY: Final = "application/apply-patch+yaml"


class Server:
    """Answers requests; the objects are in `api`."""

    def __init__(self, api: Api, access: Access) -> None:
        self._api = api
        self._access = access
        self.lists = Lists(api.store)

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer one request."""
        try:
            return await self._route(request)
        except Problem as problem:
            headers = {} if problem.retry_after is None else {"Retry-After": str(problem.retry_after)}
            return _answer(problem.body(), code=problem.code, headers=headers)
        except (ConnectionError, TimeoutError):
            raise
        except Exception:  # noqa: BLE001 -- a bug of ours is answered as the API server answers its own
            _log.exception("%s %s", request.method, request.path_qs)
            return _answer(Problem(500, "InternalError", "this control plane has a bug: see its log").body(), code=500)

    async def _route(self, request: web.BaseRequest) -> web.StreamResponse:
        path = request.path
        if path.startswith(_HEALTH):
            return web.Response(text="ok")
        user = self._access.user(request.headers.get("Authorization", ""))
        if path == "/version":
            return _answer(discovery.VERSION)
        if user is None:
            text = f'forbidden: User "system:anonymous" cannot {request.method.lower()} path "{path}"'
            raise Problem(403, "Forbidden", text, details={})
        parts = [part for part in path.split("/") if part]
        whole = "as=APIGroupDiscoveryList" in request.headers.get("Accept", "") and "v=v2;" in request.headers["Accept"]
        if whole and path in {"/api", "/apis"}:
            body = discovery.dumps(discovery.aggregated(self._api.registry, core=path == "/api"))
            return web.Response(body=body, headers={"Content-Type": discovery.AGGREGATED})
        if found := self._discover(parts):
            return _answer(found)
        if parts[:1] == ["apis"] and len(parts) == 4 and parts[1] in {"authentication.k8s.io", "authorization.k8s.io"}:
            body = parse(await request.read(), request.content_type)
            return _answer(self._access.review(user, parts[3], body), code=201)
        if parts[:1] == ["api"] and len(parts) > 2:
            parts.insert(1, "")
        elif parts[:1] != ["apis"] or len(parts) < 4 or (parts[1], parts[2]) not in self._versions():
            return web.Response(status=404, text="404 page not found\n")
        return await self._serve(request, locate(self._api.registry, parts[1:]))

    def _versions(self) -> set[tuple[str, str]]:
        return {(group, version) for group, versions in self._api.registry.groups().items() for version in versions}

    def _discover(self, parts: list[str]) -> Object | None:
        registry = self._api.registry
        match parts:
            case ["api"]:
                return {"kind": "APIVersions", "versions": ["v1"]}
            case ["apis"]:
                listed = [discovery.group(*entry) for entry in discovery.groups(registry).items()]
                return {"kind": "APIGroupList", "apiVersion": "v1", "groups": listed}
            case ["apis", group] if group in discovery.groups(registry):
                found = discovery.group(group, discovery.groups(registry)[group])
                return {"kind": "APIGroup", "apiVersion": "v1", **found}
            case ["api", version]:
                return discovery.resource_list(registry, "", version)
            case ["apis", group, version]:
                return discovery.resource_list(registry, group, version)
            case ["openapi", "v3"]:
                return discovery.openapi_index(registry)
            case ["openapi", "v3", "api", version]:
                return discovery.openapi(registry, "", version)
            case ["openapi", "v3", "apis", group, version]:
                return discovery.openapi(registry, group, version)
        return None

    async def _serve(self, request: web.BaseRequest, target: Target) -> web.StreamResponse:
        view = View(target.resource, target.version, wants_table(request.headers.get("Accept", "")))
        if target.subresource:
            return await self._subresource(request, target, view)
        match request.method, bool(target.name):
            case "GET", _ if request.query.get("watch") in {"1", "true"}:
                return await self._watch(request, target, view)
            case "GET", True:
                return _raw(view.one(self._api.get(target.resource, target.key)))
            case "GET", False:
                return _raw(self.lists.answer(target, request.query, view))
            case "POST", False if target.namespace or not target.resource.namespaced:
                return await self._create(request, target, view)
            case "PUT", True:
                return await self._replace(request, target, view)
            case "PATCH", True:
                return await self._patch(request, target, view)
            case "DELETE", True:
                body = await self._body(request) if request.can_read_body else None
                item, gone = self._api.delete(target.resource, target.key, delete_options(request.query, body))
                return _answer(_success(item)) if gone else _raw(item.whole(target.version))
            case "DELETE", False:
                return await self._delete_all(request, target, view)
        raise problems.not_allowed()

    async def _subresource(self, request: web.BaseRequest, target: Target, view: View) -> web.StreamResponse:
        resource, version = target.resource, target.resource.versions[target.version]
        item = self._api.get(resource, target.key)
        match resource.path, target.subresource, request.method:
            case _, "status", "GET" if version.has_status:
                return _raw(view.one(item))
            case _, "status", "PUT" if version.has_status:
                return await self._replace(request, target, view)
            case _, "status", "PATCH" if version.has_status:
                return await self._patch(request, target, view)
            case _, "scale", "GET" | "PUT" | "PATCH" if version.scale:
                return await self._scale(request, target, version.scale, item)
            case "pods", "eviction", "POST":
                body = await self._body(request)
                disruption.evict(
                    self._api, target.key, delete_options(request.query, (body or {}).get("deleteOptions"))
                )
                return _answer({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success"}, code=201)
            case "pods", "binding", "POST":
                node = dig(await self._body(request), "target", "name")
                if item.object["spec"].get("nodeName") or not node:
                    why = f"pod {target.name} is already assigned to node {item.object['spec'].get('nodeName', '')!r}"
                    raise problems.conflict("", "pods/binding", target.name, why)
                self._api.bind(item.object, node, item.object[STATUS].get("conditions") or [])
                return _answer({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success"}, code=201)
            case "pods", "log", "GET":
                raise problems.bad_request("nothing runs on the nodes of this control plane, so there are no logs")
            case "serviceaccounts", "token", "POST":
                return _answer(self._access.token(item.object, await self._body(request)), code=201)
        if target.subresource in discovery.subresources(resource, target.version):
            raise problems.not_allowed()
        raise problems.not_served()

    async def _watch(self, request: web.BaseRequest, target: Target, view: View) -> web.StreamResponse:
        lines = watch(self._api.store, target, request.query, view)
        first = await anext(lines, b"")
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        await response.prepare(request)
        try:
            await response.write(first)
            async for line in lines:
                await response.write(line)
            await response.write_eof()
        except ConnectionError:
            pass  # the client has seen enough
        finally:
            await lines.aclose()  # type: ignore[attr-defined]  # an async generator, whatever it is declared to be
        return response

    async def _create(self, request: web.BaseRequest, target: Target, view: View) -> web.Response:
        body = check_kind(target, await self._body(request))
        call = _call(request, target)
        item = self._api.create(target.resource, body, namespace=target.namespace, version=target.version, call=call)
        return _raw(view.one(item), code=201, warnings=call.warnings)

    async def _replace(self, request: web.BaseRequest, target: Target, view: View) -> web.Response:
        body = check_kind(target, await self._body(request))
        call = _call(request, target)
        item = self._api.update(target.resource, target.key, lambda _: body, version=target.version, call=call)
        return _raw(view.one(item), warnings=call.warnings)

    async def _patch(self, request: web.BaseRequest, target: Target, view: View) -> web.Response:
        resource, version, kind = target.resource, target.version, request.content_type
        call = _call(request, target, is_patch=True)
        if kind == _APPLY:
            if "fieldManager" not in request.query:
                cause = problems.required("fieldManager", "is required for apply patch")
                raise problems.invalid("PatchOptions", "", [cause], group="meta.k8s.io")
            config = check_kind(target, await self._body(request))
            force = request.query.get("force") in {"true", "1"}
            item, new = self._api.apply(resource, target.key, config, version=version, call=call, force=force)
            return _raw(view.one(item), code=201 if new else 200, warnings=call.warnings)
        accepted = [_JSON_PATCH, _MERGE_PATCH, *([] if resource.custom else [_STRATEGIC]), _APPLY]
        if kind not in accepted:
            raise problems.unsupported_media(*accepted)
        patch = await self._body(request)
        whole = {"apiVersion": resource.api_version(version), "kind": resource.kind}

        def edit(old: Object) -> Object:
            if kind == _JSON_PATCH:
                made = patches.json_patch({**whole, **old}, patch)
            elif kind == _MERGE_PATCH:
                made = patches.merge_patch({**whole, **old}, patch)
            else:
                made = patches.strategic_merge(resource.schema(version), {**whole, **old}, patch)
            return check_kind(target, made)

        item = self._api.update(resource, target.key, edit, version=version, call=call)
        return _raw(view.one(item), warnings=call.warnings)

    async def _scale(
        self, request: web.BaseRequest, target: Target, paths: Mapping[str, str], item: Item
    ) -> web.Response:
        wish, present = (tuple(paths[key].strip(".").split(".")) for key in ("specReplicasPath", "statusReplicasPath"))
        if request.method != "GET":
            body = await self._body(request)
            old = {"spec": {"replicas": dig(item.object, *wish)}}
            replicas = dig(patches.merge_patch(old, body), "spec", "replicas")
            path = {wish[-1]: replicas}
            for step in reversed(wish[:-1]):
                path = {step: path}
            item = self._api.update(
                target.resource,
                target.key,
                lambda old: patches.merge_patch(old, path),
                version=target.version,
                call=_call(request, target, is_patch=True, subresource=""),
            )
        metadata = {
            key: item.object["metadata"].get(key)
            for key in ("name", "namespace", "uid", "resourceVersion", "creationTimestamp")
        }
        status = {"replicas": dig(item.object, *present) or 0}
        spec = {"replicas": dig(item.object, *wish) or 0}
        return _answer(
            {"kind": "Scale", "apiVersion": "autoscaling/v1", "metadata": metadata, "spec": spec, STATUS: status}
        )

    async def _delete_all(self, request: web.BaseRequest, target: Target, view: View) -> web.Response:
        body = await self._body(request) if request.can_read_body else None
        how = delete_options(request.query, body)
        if target.resource.path == "namespaces":
            raise problems.not_allowed()
        items = [
            self._api.delete(target.resource, item.key, how)[0]
            for item in self.lists.select(target, request.query)
            if self._api.store.get(target.resource, item.key) is not None
        ]
        return _raw(view.many(items, {"resourceVersion": str(self._api.store.version)}))

    async def _body(self, request: web.BaseRequest) -> Any:
        return parse(await request.read(), request.content_type)


def _call(request: web.BaseRequest, target: Target, **more: Any) -> Call:
    agent = request.headers.get("User-Agent", "")
    return write_options(request.query, agent, **{"subresource": target.subresource, **more})


def _success(item: Item) -> Object:
    resource = item.resource
    details = {
        "name": item.key[1],
        "group": resource.group,
        "kind": resource.plural,
        "uid": item.object["metadata"]["uid"],
    }
    about = {key: value for key, value in details.items() if value}
    return {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": about}


def _answer(body: Object, *, code: int = 200, headers: Mapping[str, str] | None = None) -> web.Response:
    return web.Response(status=code, body=discovery.dumps(body), content_type="application/json", headers=headers)


def _raw(body: bytes, *, code: int = 200, warnings: list[str] | None = None) -> web.Response:
    response = web.Response(status=code, body=body, content_type="application/json")
    for warning in warnings or ():
        response.headers.add("Warning", f"299 - {json.dumps(warning)}")
    return response
