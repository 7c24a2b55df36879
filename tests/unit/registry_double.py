"""A container registry on loopback: tokens, manifests, blobs, uploads; it checks every digest it is given."""

import base64
import hashlib
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web
from aiohttp.test_utils import TestServer

USER, PASSWORD = "user", "password"


def digest_of(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


@dataclass
class Registry:
    """What it holds, and how it behaves. `calls` are methods and paths, in the order they came."""

    is_private: bool = False
    basic: bool = False
    realm: str = ""
    redirects: bool = False
    fails: int = 0
    expires: bool = False
    blobs: dict[str, bytes] = field(default_factory=dict)
    manifests: dict[str, bytes] = field(default_factory=dict)
    calls: list[str] = field(default_factory=list)
    blob_headers: list[dict[str, str]] = field(default_factory=list)
    host: str = ""

    def add_blob(self, data: bytes) -> dict[str, Any]:
        """Take a blob; return its descriptor."""
        self.blobs[digest_of(data)] = data
        return {"digest": digest_of(data), "size": len(data), "mediaType": "application/octet-stream"}

    def add_manifest(self, name: str, manifest: Any) -> dict[str, Any]:
        """Take a manifest by a tag; return its descriptor."""
        data = json.dumps(manifest).encode()
        self.manifests[name] = self.manifests[digest_of(data)] = data
        return {"digest": digest_of(data), "size": len(data)}

    def add_image(self, name: str, *layers: dict[str, Any]) -> dict[str, Any]:
        return self.add_manifest(name, {"schemaVersion": 2, "config": self.add_blob(b"{}"), "layers": list(layers)})

    async def answer(self, request: web.Request) -> web.StreamResponse:
        self.calls.append(f"{request.method} {request.path}")
        if request.path == "/token":
            return self._token(request)
        if request.path.startswith("/storage/"):
            self.blob_headers.append(dict(request.headers))
            return web.Response(body=self.blobs[request.path.removeprefix("/storage/")])
        if self.fails:
            self.fails -= 1
            return web.Response(status=503)
        if self.expires and "/uploads/" in request.path:
            self.expires = False
            return web.Response(status=401)
        if not self._may(request):
            realm = self.realm or f"http://{self.host}/token"
            challenge = 'Basic realm="r"' if self.basic else f'Bearer realm="{realm}",service="r"'
            return web.Response(status=401, headers={"WWW-Authenticate": challenge})
        _, _, rest = request.path.partition("/v2/")
        name, _, what = rest.rpartition("/")
        if request.method in ("GET", "HEAD"):
            return self._get(rest, name, what)
        return await self._put(request, rest, what)

    def _token(self, request: web.Request) -> web.Response:
        given = request.headers.get("Authorization", "")
        right = "Basic " + base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
        if given and given != right:
            return web.Response(status=401)
        return web.json_response({"token": "good" if given else "anonymous"})

    def _may(self, request: web.Request) -> bool:
        given = request.headers.get("Authorization", "")
        if self.basic:
            return given == "Basic " + base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
        if request.path == "/v2/":
            return not self.is_private and not self.realm
        return not self.is_private or given == "Bearer good"

    def _get(self, rest: str, name: str, what: str) -> web.StreamResponse:
        if not rest:
            return web.json_response({})
        held = self.manifests if name.endswith("/manifests") else self.blobs
        if what not in held:
            return web.Response(status=404)
        if held is self.blobs and self.redirects:
            # Another name of the same machine: another origin.
            elsewhere = self.host.replace("127.0.0.1", "localhost")
            return web.Response(status=307, headers={"Location": f"http://{elsewhere}/storage/{what}"})
        return web.Response(body=held[what])

    async def _put(self, request: web.Request, rest: str, what: str) -> web.StreamResponse:
        body = await request.read()
        if request.method == "POST":
            return web.Response(status=202, headers={"Location": f"/v2/{rest.rstrip('/')}/1?state=x"})
        if "/blobs/uploads/" in rest:
            if digest_of(body) != request.query["digest"] or request.query["state"] != "x":
                return web.Response(status=400)
            self.blobs[request.query["digest"]] = body
            return web.Response(status=201)
        manifest = json.loads(body)
        if any(entry["digest"] not in self.blobs for entry in (manifest["config"], *manifest["layers"])):
            return web.Response(status=400)
        self.manifests[what] = self.manifests[digest_of(body)] = body
        return web.Response(status=201)


@asynccontextmanager
async def serve(registry: Registry) -> AsyncIterator[Registry]:
    app = web.Application(client_max_size=1 << 26)
    app.router.add_route("*", "/{path:.*}", registry.answer)
    async with TestServer(app) as server:
        registry.host = f"127.0.0.1:{server.port}"
        yield registry
