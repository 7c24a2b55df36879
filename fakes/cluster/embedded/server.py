"""HTTP: who asks, what for, and the answer."""

import asyncio
import json
import logging
import secrets
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import yaml
from aiohttp import web

from fakes.cluster.embedded import discovery, patches, problems
from fakes.cluster.embedded.api import STATUS, Api, Call, Deletion
from fakes.cluster.embedded.controllers.disruption import evict
from fakes.cluster.embedded.objects import Object, name_of, namespace_of, uid_of
from fakes.cluster.embedded.problems import Problem, bad_request
from fakes.cluster.embedded.reading import Lists, Target, View, Watch, number
from fakes.cluster.embedded.store import Item

_log = logging.getLogger(__name__)

_HEALTH: Final = ("/healthz", "/livez", "/readyz")
_ACCEPTED: Final = ("application/json", "application/yaml")
_JSON_PATCH: Final = "application/json-patch+json"
_MERGE_PATCH: Final = "application/merge-patch+json"
_STRATEGIC: Final = "application/strategic-merge-patch+json"
_APPLY: Final = "application/apply-patch+yaml"
_DONE: Final = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success"}
_PROPAGATIONS: Final = ("Foreground", "Background", "Orphan")
_TOKEN_SECONDS: Final = 3600
_NEVER: Final = datetime.min.replace(tzinfo=UTC)
# Seconds that the last words of a watch may take; who has not read them by then does not read.
_LAST_WORDS: Final = 5.0


class Server:
    """Answers requests; the objects are in `api`. `tokens` are those that are good, and until when."""

    def __init__(self, api: Api, tokens: dict[str, datetime]) -> None:
        self._api = api
        self._tokens = tokens
        self.lists = Lists(api.store)

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer one request."""
        try:
            return await self._route(request)
        except Problem as problem:
            headers = {} if problem.retry_after is None else {"Retry-After": str(problem.retry_after)}
            return _answer(problem.body(), code=problem.code, headers=headers)
        except web.HTTPRequestEntityTooLarge as error:
            return _answer(Problem(413, "RequestEntityTooLarge", f"{error.text}").body(), code=413)
        except (ConnectionError, TimeoutError):
            raise
        except Exception:  # noqa: BLE001 -- a bug of ours is answered as the API server answers its own
            _log.exception("%s %s", request.method, request.path_qs)
            return _answer(Problem(500, "InternalError", "this control plane has a bug: see its log").body(), code=500)

    def check_token(self, request: web.BaseRequest) -> None:
        """Let in who has a token. Raises Problem: 401 for a wrong one, 403 for none."""
        authorization = request.headers.get("Authorization", "")
        if not authorization:
            text = f'forbidden: User "system:anonymous" cannot {request.method.lower()} path "{request.path}"'
            raise Problem(403, "Forbidden", text, details={})
        if self._tokens.get(authorization.removeprefix("Bearer "), _NEVER) < datetime.now(UTC):
            raise Problem(401, "Unauthorized", "Unauthorized")

    async def _route(self, request: web.BaseRequest) -> web.StreamResponse:
        path = request.path
        if path.startswith(_HEALTH):
            return web.Response(text="ok")
        if path == "/version":
            return _answer(discovery.VERSION)
        self.check_token(request)
        parts = [part for part in path.split("/") if part]
        if found := discovery.discover(self._api.registry, parts):
            return _answer(found)
        if parts[:1] == ["api"] and len(parts) > 2:
            parts.insert(1, "")
        elif parts[:1] != ["apis"] or len(parts) < 4 or not self._api.registry.of(parts[1], parts[2]):
            return web.Response(status=404, text="404 page not found\n")
        return await self._serve(request, self._locate(parts[1], parts[2], parts[3:]))

    def _locate(self, group: str, version: str, rest: list[str]) -> Target:
        """Return what a path names. Raises Problem: 404."""
        namespace = ""
        if rest[0] == "namespaces" and len(rest) > 2 and rest[2] != STATUS:
            _, namespace, *rest = rest
        plural, name, subresource, *more = [*rest, *("" for _ in range(3 - len(rest)))]
        resource = self._api.registry.get(group, version, plural)
        if resource is None or more:
            raise problems.not_served()
        if (namespace and not resource.namespaced) or (name and resource.namespaced and not namespace):
            raise problems.not_served()
        return Target(resource=resource, namespace=namespace, name=name, subresource=subresource)

    async def _serve(self, request: web.BaseRequest, target: Target) -> web.StreamResponse:
        resource = target.resource
        # The first media type that the client accepts.
        view = View(resource, "as=Table" in request.headers.get("Accept", "").split(",")[0])
        if target.subresource not in {"", STATUS}:
            return await self._subresource(request, target)
        if target.subresource and not resource.has_status:
            raise problems.not_served()
        match request.method, bool(target.name):
            case "GET", _ if request.query.get("watch") in {"1", "true"}:
                return await self._watch(request, target, view)
            case "GET", True:
                return _raw(view.one(self._api.get(resource, target.key)))
            case "GET", False:
                return _raw(self.lists.answer(target, request.query, view))
            case "POST", False if target.namespace or not resource.namespaced:
                body, call = _of_kind(target, await _body(request)), _call(request, target)
                item = self._api.create(resource, body, namespace=target.namespace, call=call)
                return _raw(view.one(item), code=201, warnings=call.warnings)
            case "PUT", True:
                body, call = _of_kind(target, await _body(request)), _call(request, target)
                item = self._api.update(resource, target.key, lambda _: body, call)
                return _raw(view.one(item), warnings=call.warnings)
            case "PATCH", True:
                return await self._patch(request, target, view)
            case "DELETE", True if not target.subresource:
                item, gone = self._api.delete(resource, target.key, await _deletion(request))
                return _answer(_gone(item)) if gone else _raw(view.one(item))
            case "DELETE", False if resource.path != "namespaces":
                return await self._delete_all(request, target, view)
        raise problems.not_allowed()

    async def _subresource(self, request: web.BaseRequest, target: Target) -> web.StreamResponse:
        item = self._api.get(target.resource, target.key)
        match target.resource.path, target.subresource, request.method:
            case "pods", "eviction", "POST":
                options = (await _body(request) or {}).get("deleteOptions")
                evict(self._api, target.key, _deletion_options(request, options))
                return _answer(_DONE, code=201)
            case "pods", "log", "GET":
                raise bad_request("nothing runs on the nodes of this control plane, so there are no logs")
            case "serviceaccounts", "token", "POST":
                return _answer(self._token(item.object, await _body(request)), code=201)
        raise problems.not_served()

    async def _watch(self, request: web.BaseRequest, target: Target, view: View) -> web.StreamResponse:
        watch = Watch(self._api.store, target, request.query, view)
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        await response.prepare(request)
        try:
            try:
                async with asyncio.timeout(watch.seconds):
                    await watch.run(response.write)
            except TimeoutError:
                pass  # its time is over, be it that the client does not read
            async with asyncio.timeout(_LAST_WORDS):
                await response.write_eof()
        except (ConnectionError, TimeoutError):
            if request.transport is not None:
                request.transport.abort()
        return response

    async def _patch(self, request: web.BaseRequest, target: Target, view: View) -> web.Response:
        resource, kind, call = target.resource, request.content_type, _call(request, target)
        accepted = [_JSON_PATCH, _MERGE_PATCH, *([] if resource.custom else [_STRATEGIC]), _APPLY]
        if kind not in accepted:
            raise problems.unsupported_media(*accepted)
        patch = await _body(request)
        if kind == _APPLY:
            if "fieldManager" not in request.query:
                cause = problems.required("fieldManager", "is required for apply patch")
                raise problems.invalid("PatchOptions", "", [cause])
            config, force = _of_kind(target, patch), request.query.get("force") in {"true", "1"}
            item, new = self._api.apply(resource, target.key, config, call=call, force=force)
            return _raw(view.one(item), code=201 if new else 200, warnings=call.warnings)

        def edit(old: Object) -> Object:
            whole = {**resource.head, **old}
            if kind == _JSON_PATCH:
                made = patches.json_patch(whole, patch)
            elif kind == _MERGE_PATCH:
                made = patches.merge_patch(whole, patch)
            else:
                made = patches.strategic_merge(resource.schema, whole, patch)
            return _of_kind(target, made)

        item = self._api.update(resource, target.key, edit, call)
        return _raw(view.one(item), warnings=call.warnings)

    async def _delete_all(self, request: web.BaseRequest, target: Target, view: View) -> web.Response:
        how = await _deletion(request)
        items = [
            self._api.delete(target.resource, item.key, how)[0]
            for item in self.lists.select(target, request.query)
            if self._api.store.get(target.resource, item.key) is not None
        ]
        return _raw(view.many(items, {"resourceVersion": str(self._api.store.version)}))

    def _token(self, account: Object, request: Any) -> Object:
        """Answer a TokenRequest for a service account."""
        spec = (request or {}).get("spec") or {}
        seconds = int(spec.get("expirationSeconds") or _TOKEN_SECONDS)
        namespace, until = namespace_of(account), datetime.now(UTC) + timedelta(seconds=seconds)
        for old in [old for old, end in self._tokens.items() if end < datetime.now(UTC)]:
            del self._tokens[old]
        token = secrets.token_urlsafe(32)
        self._tokens[token] = until
        return {
            "kind": "TokenRequest",
            "apiVersion": "authentication.k8s.io/v1",
            "metadata": {"name": name_of(account), "namespace": namespace, "uid": uid_of(account)},
            "spec": {"audiences": ["https://kubernetes.default.svc"], **spec, "expirationSeconds": seconds},
            "status": {"token": token, "expirationTimestamp": until.strftime("%Y-%m-%dT%H:%M:%SZ")},
        }


async def _body(request: web.BaseRequest) -> Any:
    """Return the parsed body. Raises Problem: 415 or 400."""
    text, content_type = await request.read(), request.content_type
    if content_type not in _ACCEPTED and not content_type.endswith(("+json", "+yaml")):
        raise problems.unsupported_media(*_ACCEPTED)
    try:
        # Applied configurations are called YAML and nearly always written as JSON, which is parsed faster.
        return yaml.safe_load(text) if text.lstrip()[:1] not in b"{[" else json.loads(text)
    except (ValueError, yaml.YAMLError) as error:
        raise bad_request(f"the object provided is unrecognized: {error}") from error


def _of_kind(target: Target, body: Any) -> Object:
    """Return the body where it is an object of the target's kind. Raises Problem."""
    resource = target.resource
    if not isinstance(body, dict):
        raise bad_request(f"the object provided is unrecognized (must be of type {resource.kind})")
    kind, version = body.get("kind"), body.get("apiVersion")
    if resource.custom and not kind:
        text = f"the object provided is unrecognized (must be of type {resource.kind}): Object 'Kind' is missing"
        raise bad_request(text)
    if resource.custom and version == resource.api_version and kind != resource.kind:
        cause = problems.wrong("kind", kind, f"must be {resource.kind}")
        raise resource.invalid(str((body.get("metadata") or {}).get("name", "")), [cause])
    if (kind or resource.kind, version or resource.api_version) != (resource.kind, resource.api_version):
        text = f"{version} {kind} does not match what the path is for: {resource.api_version} {resource.kind}"
        raise bad_request(text)
    return body


def _call(request: web.BaseRequest, target: Target) -> Call:
    """Return how a write is meant. The manager is the first word of the client's name where it does not say."""
    query = request.query
    if query.get("dryRun") not in {None, "", "All"}:
        raise problems.invalid("PatchOptions", "", [problems.unsupported("dryRun", query["dryRun"], ("All",))])
    return Call(
        manager=query.get("fieldManager") or request.headers.get("User-Agent", "").split("/")[0] or "unknown",
        subresource=target.subresource,
        dry_run=query.get("dryRun") == "All",
        validation=query.get("fieldValidation") or "Warn",
        is_patch=request.method == "PATCH",
    )


async def _deletion(request: web.BaseRequest) -> Deletion:
    return _deletion_options(request, await _body(request) if request.can_read_body else None)


def _deletion_options(request: web.BaseRequest, body: Any) -> Deletion:
    """Return how a deletion is meant, by its query or its body. Raises Problem."""
    said = {**request.query, **(body if isinstance(body, dict) else {})}
    preconditions = said.get("preconditions") or {}
    grace, propagation = said.get("gracePeriodSeconds"), said.get("propagationPolicy")
    if propagation not in {None, *_PROPAGATIONS}:
        cause = problems.unsupported("propagationPolicy", propagation, _PROPAGATIONS)
        raise problems.invalid("DeleteOptions", "", [cause])
    return Deletion(
        uid=preconditions.get("uid"),
        version=preconditions.get("resourceVersion"),
        grace=None if grace is None else number(grace),
        propagation=propagation,
        dry_run=bool(said.get("dryRun")),
    )


def _gone(item: Item) -> Object:
    """Return what is said of an object that has been deleted."""
    resource = item.resource
    about = {"name": item.key[1], "group": resource.group, "kind": resource.plural, "uid": uid_of(item.object)}
    return {**_DONE, "details": {key: value for key, value in about.items() if value}}


def _answer(body: Object, *, code: int = 200, headers: Mapping[str, str] | None = None) -> web.Response:
    return web.Response(status=code, body=json.dumps(body), content_type="application/json", headers=headers)


def _raw(body: bytes, *, code: int = 200, warnings: list[str] | None = None) -> web.Response:
    response = web.Response(status=code, body=body, content_type="application/json")
    for warning in warnings or ():
        response.headers.add("Warning", f"299 - {json.dumps(warning)}")
    return response
