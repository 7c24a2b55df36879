"""A thin Kubernetes client: dicts over aiohttp.

A thousand nodes mean a hundred Lease renewals a second, beside the processes of the control plane itself: the official
client costs 0.45 ms of CPU a call and refuses watch lines above 200 KB, this one 0.1 ms and takes any.
"""

import asyncio
import base64
import json
import os
import ssl
import tempfile
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

import aiohttp
import yaml

Object = dict[str, Any]

Method = Literal["GET", "POST", "PATCH", "DELETE"]

MERGE_PATCH = "application/merge-patch+json"
CALL_TIMEOUT = 30.0
CONNECT_TIMEOUT = 5.0
# A little more than the server was asked for, so that a connection that died silently is noticed.
WATCH_SLACK = 10.0


def uid_of(item: Object) -> str:
    """UID of an object."""
    return str(item["metadata"]["uid"])


class ApiError(Exception):
    """The API server's answer was no success, or a watch carried an ERROR."""

    def __init__(self, status: int, reason: str, message: str) -> None:
        super().__init__(f"{status} {reason}: {message}")
        self.status = status
        self.reason = reason


TRANSIENT = (ApiError, aiohttp.ClientError, TimeoutError, OSError)
"""What a call raises when the server refuses, restarts or is away."""


class KubeApi:
    """Calls and watches on one API server, as its kubeconfig says (token, client certificate, CA)."""

    def __init__(self, kubeconfig: Path, *, connections: int = 64) -> None:
        config = yaml.safe_load(kubeconfig.read_text())
        context = _named(config["contexts"], config["current-context"])["context"]
        cluster = _named(config["clusters"], context["cluster"])["cluster"]
        user = _named(config["users"], context["user"]).get("user") or {}
        self._server = str(cluster["server"]).rstrip("/")
        self._server_hostname = cluster.get("tls-server-name")
        self._headers = {"Accept": "application/json", "User-Agent": "fake-kubelet"}
        if "token" in user:
            self._headers["Authorization"] = f"Bearer {user['token']}"
        self._ssl = _ssl_context(cluster, user) if self._server.startswith("https:") else False
        self._connections = connections
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=self._connections, ssl=self._ssl),
            headers=self._headers,
            timeout=aiohttp.ClientTimeout(total=CALL_TIMEOUT, sock_connect=CONNECT_TIMEOUT),
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def call(
        self,
        method: Method,
        path: str,
        *,
        body: Object | None = None,
        params: Mapping[str, str] | None = None,
    ) -> Object:
        """Return the answered object. A PATCH is a JSON merge patch, which every server of ours understands.

        Raises:
            ApiError: any status above 399.
            aiohttp.ClientError, TimeoutError, OSError: no answer.
        """
        headers = {"Content-Type": MERGE_PATCH if method == "PATCH" else "application/json"} if body else None
        async with self._live.request(
            method,
            self._server + path,
            data=json.dumps(body) if body else None,
            params=params,
            headers=headers,
            server_hostname=self._server_hostname,
        ) as response:
            text = await response.read()
            if response.status >= 400:
                raise _error(response.status, text)
            answer: Object = json.loads(text)
            return answer

    async def watch(self, path: str, *, version: str, seconds: int) -> AsyncIterator[tuple[str, Object]]:
        """Yield (type, object) from a resource version on, until the server ends the watch after `seconds`.

        Raises:
            ApiError: the watch was refused, or carried an ERROR (410: the version is too old).
            aiohttp.ClientError, TimeoutError, OSError: the connection broke.
        """
        params = {
            "watch": "true",
            "resourceVersion": version,
            "allowWatchBookmarks": "true",
            "timeoutSeconds": str(seconds),
        }
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_TIMEOUT, sock_read=seconds + WATCH_SLACK)
        async with self._live.get(
            self._server + path, params=params, timeout=timeout, server_hostname=self._server_hostname
        ) as response:
            if response.status >= 400:
                raise _error(response.status, await response.read())
            buffer = b""
            async for chunk in response.content.iter_any():
                *lines, buffer = (buffer + chunk).split(b"\n")
                for line in lines:
                    event = json.loads(line)
                    if event["type"] == "ERROR":
                        raise _status_error(event["object"])
                    yield event["type"], event["object"]

    @property
    def _live(self) -> aiohttp.ClientSession:
        if self._session is None:
            raise RuntimeError("KubeApi is used outside its context")
        return self._session


def _named(entries: list[Object], name: str) -> Object:
    return next(entry for entry in entries if entry["name"] == name)


def _error(status: int, text: bytes) -> ApiError:
    try:
        answer = json.loads(text)
    except ValueError:
        return ApiError(status, "Unknown", text[:200].decode(errors="replace"))
    return _status_error(answer, status=status) if isinstance(answer, dict) else ApiError(status, "Unknown", "")


def _status_error(answer: Object, *, status: int = 0) -> ApiError:
    return ApiError(status or int(answer.get("code") or 0), answer.get("reason") or "", answer.get("message") or "")


def _ssl_context(cluster: Object, user: Object) -> ssl.SSLContext:
    context = ssl.create_default_context()
    if authority := _pem(cluster, "certificate-authority"):
        context = ssl.create_default_context(cadata=authority.decode())
    if cluster.get("insecure-skip-tls-verify"):
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    certificate, key = _pem(user, "client-certificate"), _pem(user, "client-key")
    if certificate and key:
        # ssl reads a certificate's key from a file only; mkstemp's is readable by its owner alone.
        handle, name = tempfile.mkstemp(suffix=".pem")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(certificate + b"\n" + key)
            context.load_cert_chain(name)
        finally:
            Path(name).unlink()
    return context


def _pem(entry: Object, field: str) -> bytes | None:
    if data := entry.get(f"{field}-data"):
        return base64.b64decode(data)
    if path := entry.get(field):
        return Path(path).read_bytes()
    return None


async def backoff(failures: int) -> None:
    """Sleep before the next try after so many failures in a row: 0.1 s, doubling to 1.6 s."""
    await asyncio.sleep(0.1 * 2 ** min(failures - 1, 4))
