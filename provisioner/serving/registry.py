"""A container registry, by its HTTP API (OCI distribution, v2): manifests and blobs, in and out."""

import asyncio
import hashlib
import json
import logging
import os
import re
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Final

import aiohttp
from yarl import URL

from provisioner.serving import bodies
from provisioner.serving.credentials import Credential
from provisioner.serving.problem import Problem
from provisioner.serving.reference import Reference, is_loopback

_log: Final = logging.getLogger(__name__)
MANIFEST: Final = "application/vnd.oci.image.manifest.v1+json"
_MANIFESTS: Final = (
    MANIFEST,
    "application/vnd.docker.distribution.manifest.v2+json",
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
)
_LARGEST_MANIFEST: Final = 4 << 20
_CHUNK: Final = 1 << 20
_REDIRECTS: Final = 5
_CHALLENGE: Final = re.compile(r'(\w+)="([^"]*)"')
_TIMEOUT: Final = aiohttp.ClientTimeout(total=None, sock_connect=15, sock_read=120)
# How often what failed on the way is tried again, and the seconds between.
_ATTEMPTS: Final = 4
_PAUSE: Final = 1.0


class Denied(Exception):
    """The registry does not let this credential do that."""


class Interrupted(Exception):
    """The registry did not answer, or broke off; trying again may help."""


class Repository:
    """A repository of a registry, as somebody with the first credential that is good enough sees it."""

    def __init__(self, reference: Reference, *, credentials: Sequence[Credential], writes: bool = False) -> None:
        self._reference = reference
        self._credentials = tuple(credentials)
        self._actions = "pull,push" if writes else "pull"
        self._headers: dict[str, str] = {}
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> "Repository":
        self._session = aiohttp.ClientSession(timeout=_TIMEOUT, trust_env=False)
        try:
            await self._log_in()
        except BaseException:
            await self._session.close()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._session is not None  # noqa: S101 -- for the type checker: it has been entered
        await self._session.close()

    async def manifest(self, version: str) -> dict[str, Any]:
        """Return a manifest or a list of manifests; what is asked for by digest is checked. Raises Problem."""

        async def get() -> bytes:
            headers = {"Accept": ", ".join(_MANIFESTS)}
            async with self._request("GET", f"/manifests/{version}", headers=headers) as answer:
                self._expect(answer, 200, f"manifest {version}")
                return await bodies.read(answer.content, _LARGEST_MANIFEST)

        body = await self._patiently(get)
        if version.startswith("sha256:") and hashlib.sha256(body).hexdigest() != version.partition(":")[2]:
            raise Problem(f"{self._reference}: the registry's manifest is not the one of digest {version[:19]}")
        try:
            found = json.loads(body)
        except (ValueError, RecursionError) as error:
            raise Problem(f"{self._reference}: the registry's manifest cannot be read") from error
        if not isinstance(found, dict):
            raise Problem(f"{self._reference}: the registry's manifest cannot be read")
        return found

    async def download(self, digest: str, path: Path, *, limit: int) -> None:
        """Write a blob to a file. Raises Problem: for a blob of another digest, or of more bytes than `limit`."""

        async def get() -> None:
            async with self._request("GET", f"/blobs/{digest}") as answer:
                self._expect(answer, 200, f"blob {digest[:19]}")
                hashed, size = hashlib.sha256(), 0
                with path.open("wb") as file:
                    async for chunk in answer.content.iter_chunked(_CHUNK):
                        size += len(chunk)
                        if size > limit:
                            raise Problem(f"{self._reference}: a layer is larger than the {limit} bytes it should have")
                        hashed.update(chunk)
                        await asyncio.to_thread(file.write, chunk)
            if hashed.hexdigest() != digest.partition(":")[2]:
                raise Problem(f"{self._reference}: a layer is not the one of digest {digest[:19]}")

        await self._patiently(get)

    async def upload(self, digest: str, path: Path) -> bool:
        """Write a file as a blob; tell whether it was not there already. Raises Problem."""
        size = str(await asyncio.to_thread(os.path.getsize, path))

        async def put() -> bool:
            async with self._request("HEAD", f"/blobs/{digest}") as answer:
                if answer.status == 200:
                    return False
            async with self._request("POST", "/blobs/uploads/") as answer:
                self._expect(answer, 202, "an upload")
                location = answer.headers.get("Location", "")
            target = URL(self._reference.url).join(URL(location, encoded=True))
            self._check_address(target)
            target = target.update_query(digest=digest)
            headers = {"Content-Type": "application/octet-stream", "Content-Length": size}
            async with self._request("PUT", target, headers=headers, data=_chunks(path)) as answer:
                self._expect(answer, 201, f"blob {digest[:19]}")
            return True

        return bool(await self._patiently(put))

    async def put_manifest(self, version: str, manifest: Mapping[str, Any]) -> str:
        """Write a manifest; return its digest. Raises Problem."""
        body = json.dumps(manifest, sort_keys=True).encode()

        async def put() -> None:
            headers = {"Content-Type": MANIFEST}
            async with self._request("PUT", f"/manifests/{version}", headers=headers, data=body) as answer:
                self._expect(answer, 201, f"manifest {version}")

        await self._patiently(put)
        return "sha256:" + hashlib.sha256(body).hexdigest()

    async def _patiently(self, action: Any) -> Any:
        may_log_in = True
        for attempt in range(_ATTEMPTS):
            try:
                return await action()
            except (aiohttp.ClientError, TimeoutError, Interrupted) as error:
                reason: Exception = error
            except Denied as error:
                reason = error
                if may_log_in:
                    # Tokens are good for some minutes, layers may take longer.
                    may_log_in = False
                    await self._log_in()
                    continue
                raise Problem(
                    f"{self._reference}: the registry refuses it ({error}); check the image's name and the pull secrets"
                ) from error
            if attempt + 1 < _ATTEMPTS:
                _log.warning("%s: %s, trying again", self._reference, type(reason).__name__)
                await asyncio.sleep(_PAUSE * 2**attempt)
        raise Problem(f"{self._reference}: the registry cannot be reached ({reason})")

    async def _log_in(self) -> None:
        """Find the first credential that the registry takes for what is to be done."""
        base = URL(self._reference.url).origin() / "v2/"

        async def challenge() -> str:
            async with self._send("GET", base, {}) as answer:
                if answer.status >= 500:
                    raise Interrupted(f"it answers {answer.status}")
                return answer.headers.get("WWW-Authenticate", "") if answer.status == 401 else ""

        wanted = await self._patiently(challenge)
        if not wanted:
            return
        for credential in self._credentials:
            self._headers = await self._patiently(lambda c=credential: self._authorization(wanted, c))
            if await self._patiently(self._is_let_in):
                return
        raise Problem(
            f"{self._reference}: the registry refuses it (tried {len(self._credentials) - 1} secrets, and none);"
            " check the image's name and the pull secrets"
        )

    async def _is_let_in(self) -> bool:
        # What is to be written is asked for beforehand as well: HEAD of a blob that cannot be there needs the rights.
        path = f"/manifests/{self._reference.version}" if self._actions == "pull" else f"/blobs/sha256:{'0' * 64}"
        async with self._request("HEAD", path, headers={"Accept": ", ".join(_MANIFESTS)}, raises=False) as answer:
            return answer.status not in (401, 403)

    async def _authorization(self, challenge: str, credential: Credential) -> dict[str, str]:
        scheme, _, rest = challenge.partition(" ")
        if scheme.lower() == "basic":
            return {"Authorization": credential.basic} if credential.user else {}
        fields = dict(_CHALLENGE.findall(rest))
        realm = URL(fields.get("realm", ""))
        self._check_address(realm)
        scope = f"repository:{self._reference.repository}:{self._actions}"
        query = {"service": fields["service"]} if fields.get("service") else {}
        assert self._session is not None  # noqa: S101 -- for the type checker: it has been entered
        if credential.refresh_token:
            form = {**query, "grant_type": "refresh_token", "refresh_token": credential.refresh_token, "scope": scope}
            asking = self._session.post(realm, data=form, allow_redirects=False)
        else:
            headers = {"Authorization": credential.basic} if credential.user else {}
            asking = self._session.get(
                realm.update_query({**query, "scope": scope}), headers=headers, allow_redirects=False
            )
        async with asking as answer:
            if answer.status >= 500:
                raise Interrupted(f"it answers {answer.status}")
            try:
                said = json.loads(await bodies.read(answer.content, _CHUNK)) if answer.status == 200 else {}
            except (ValueError, RecursionError):
                said = {}
        token = (said.get("token") or said.get("access_token")) if isinstance(said, dict) else None
        return {"Authorization": f"Bearer {token}"} if token else {}

    @asynccontextmanager
    async def _request(
        self,
        method: str,
        path: str | URL,
        *,
        headers: Mapping[str, str] | None = None,
        data: Any = None,
        raises: bool = True,
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """Send a request, and follow it to where a registry keeps its blobs: without the credential, if elsewhere."""
        own = URL(self._reference.url).origin()
        url = URL(self._reference.url + path, encoded=True) if isinstance(path, str) else path
        for _ in range(_REDIRECTS):
            known = self._headers if url.origin() == own else {}
            async with self._send(method, url, {**(headers or {}), **known}, data) as answer:
                if answer.status in (301, 302, 303, 307, 308) and method in ("GET", "HEAD"):
                    url = url.join(URL(answer.headers.get("Location", ""), encoded=True))
                    self._check_address(url)
                    continue
                if answer.status in (401, 403) and raises:
                    raise Denied(str(answer.status))
                if answer.status == 429 or answer.status >= 500:
                    raise Interrupted(f"it answers {answer.status}")
                yield answer
                return
        raise Problem(f"{self._reference}: the registry redirects in circles")

    @asynccontextmanager
    async def _send(
        self, method: str, url: URL, headers: Mapping[str, str], data: Any = None
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        assert self._session is not None  # noqa: S101 -- for the type checker: it has been entered
        async with self._session.request(method, url, headers=headers, data=data, allow_redirects=False) as answer:
            yield answer

    def _check_address(self, url: URL) -> None:
        allowed = ("http", "https") if is_loopback(self._reference.registry) else ("https",)
        if url.scheme not in allowed or not url.host:
            raise Problem(f"{self._reference}: the registry sends elsewhere without TLS")

    def _expect(self, answer: aiohttp.ClientResponse, status: int, what: str) -> None:
        if answer.status == 404:
            raise Problem(f"{self._reference}: the registry has no {what}; check the image's name and tag")
        if answer.status != status:
            raise Problem(f"{self._reference}: the registry answers {answer.status} for {what}")


async def _chunks(path: Path) -> AsyncIterator[bytes]:
    with path.open("rb") as file:
        while chunk := await asyncio.to_thread(file.read, _CHUNK):
            yield chunk
