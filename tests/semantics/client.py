"""A client that hides nothing of what a Kubernetes API answers: codes, headers, bodies, and each line of a watch."""

import contextlib
import http.client
import itertools
import json
import socket
import ssl
import time
import urllib.parse
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from fakes.cluster.credentials import ADMIN_USER
from fakes.cluster.interface import ControlPlane

T = TypeVar("T")
Object = dict[str, Any]

JSON = "application/json"
MERGE = "application/merge-patch+json"
JSON_PATCH = "application/json-patch+json"
STRATEGIC = "application/strategic-merge-patch+json"
APPLY = "application/apply-patch+yaml"

# Seconds. Generous, for machines with all cores busy; nothing is expected to take a tenth of it.
PATIENCE = 30.0
_POLL = 0.02

_numbers = itertools.count(1)


def unique(prefix: str = "o") -> str:
    """Return a name that no other test has."""
    return f"{prefix}{next(_numbers)}"


def eventually(look: Callable[[], T], *, until: Callable[[T], object] = bool) -> T:
    """Look again and again until what is seen satisfies; fail with what was seen last."""
    deadline = time.monotonic() + PATIENCE
    while True:
        seen = look()
        if until(seen):
            return seen
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {PATIENCE:g} s; last seen: {json.dumps(seen, default=str)[:3000]}")
        time.sleep(_POLL)


@dataclass(frozen=True)
class Answer:
    """What was answered; `body` is parsed where it is JSON."""

    code: int
    headers: Mapping[str, str]
    body: Any

    @property
    def reason(self) -> str:
        """The machine-readable reason of a Status."""
        return str(self.body.get("reason"))

    @property
    def message(self) -> str:
        """The message of a Status."""
        return str(self.body["message"])

    def fields(self) -> set[str]:
        """The fields that a refusal names."""
        return {cause["field"] for cause in self.body["details"]["causes"]}


class Kube:
    """Speaks to one control plane as one user. Connections are kept."""

    def __init__(self, cluster: ControlPlane, *, token: str | None = "") -> None:
        """Take the administrator's token unless there is another one, or none."""
        self._address = urllib.parse.urlsplit(cluster.url).netloc
        self._context = ssl.create_default_context(cafile=cluster.ca)
        tokens = {
            line.split(",")[1]: line.split(",")[0] for line in (cluster.folder / "tokens.csv").read_text().split()
        }
        self._token = tokens[ADMIN_USER] if token == "" else token
        self._connection: http.client.HTTPSConnection | None = None

    def close(self) -> None:
        """Close the connection; the next request opens another one."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def ask(self, method: str, path: str, body: Any = None, *, content_type: str = JSON, accept: str = JSON) -> Answer:
        """Send a request and return whatever is answered."""
        if self._connection is None:
            self._connection = self._connect()
        response = self._send(self._connection, method, path, body, content_type, accept)
        text = response.read().decode()
        # Not by the type that is told: the real server calls one of its documents plain text.
        parsed = json.loads(text) if text[:1] == "{" else text
        return Answer(response.status, dict(response.headers), parsed)

    def get(self, path: str) -> Object:
        """Return an object or a list."""
        return self._done("GET", path)

    def find(self, path: str) -> Object | None:
        """Return an object, None where there is none."""
        answer = self.ask("GET", path)
        assert answer.code in {200, 404}, answer
        found: Object = answer.body
        return found if answer.code == 200 else None

    def create(self, path: str, body: Any) -> Object:
        """Create an object."""
        return self._done("POST", path, body)

    def replace(self, path: str, body: Any) -> Object:
        """Replace an object."""
        return self._done("PUT", path, body)

    def patch(self, path: str, body: Any, *, content_type: str = MERGE) -> Object:
        """Patch an object."""
        return self._done("PATCH", path, body, content_type=content_type)

    def apply(self, path: str, body: Any, *, manager: str, force: bool = False) -> Answer:
        """Apply an object."""
        query = urllib.parse.urlencode({"fieldManager": manager, "force": str(force).lower()})
        return self.ask("PATCH", f"{path}?{query}", body, content_type=APPLY)

    def delete(self, path: str, body: Any = None) -> Object:
        """Delete an object or a collection."""
        return self._done("DELETE", path, body)

    def gone(self, path: str) -> None:
        """Wait until there is no such object."""
        eventually(lambda: self.find(path), until=lambda found: found is None)

    @contextlib.contextmanager
    def watch(self, path: str, **query: str) -> Iterator["Watch"]:
        """Watch; the stream ends by itself when its `timeoutSeconds` are over, or with the context."""
        parameters = urllib.parse.urlencode({"watch": "true", "timeoutSeconds": "20", **query})
        connection = self._connect()
        try:
            separator = "&" if "?" in path else "?"
            response = self._send(connection, "GET", f"{path}{separator}{parameters}", None, JSON, JSON)
            assert response.status == 200, response.read()
            yield Watch(response)
        finally:
            connection.close()

    def _done(self, method: str, path: str, body: Any = None, *, content_type: str = JSON) -> Object:
        answer = self.ask(method, path, body, content_type=content_type)
        assert 200 <= answer.code < 300, answer
        done: Object = answer.body
        return done

    def _connect(self) -> http.client.HTTPSConnection:
        connection = http.client.HTTPSConnection(self._address, context=self._context, timeout=PATIENCE)
        connection.connect()
        connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return connection

    def _send(
        self, connection: http.client.HTTPSConnection, method: str, path: str, body: Any, content_type: str, accept: str
    ) -> http.client.HTTPResponse:
        headers = {"Accept": accept, "User-Agent": "semantics/1"}
        if self._token is not None:
            headers["Authorization"] = f"Bearer {self._token}"
        if body is not None:
            headers["Content-Type"] = content_type
        data = body if body is None or isinstance(body, str) else json.dumps(body)
        connection.request(method, path, body=data, headers=headers)
        return connection.getresponse()


class Watch:
    """The events of a watch, as they come."""

    def __init__(self, response: http.client.HTTPResponse) -> None:
        self._response = response

    def __iter__(self) -> Iterator[Object]:
        """Yield events until the server ends the watch."""
        while line := self._response.readline():
            yield json.loads(line)

    def next(self) -> Object:
        """Return the next event."""
        event: Object = next(iter(self))
        return event

    def told(self) -> tuple[str, str]:
        """Return type and name of the next event."""
        event = self.next()
        return event["type"], event["object"]["metadata"].get("name", "")


def condition(item: Object, kind: str) -> Object:
    """Return the condition of a type, an empty one where there is none."""
    conditions = (item.get("status") or {}).get("conditions") or ()
    found: Object = next((entry for entry in conditions if entry["type"] == kind), {})
    return found


def is_true(kind: str) -> Callable[[Object], bool]:
    """Return a predicate: the condition is True."""
    return lambda item: condition(item, kind).get("status") == "True"


def names(items: Object) -> list[str]:
    """Return the names in a list."""
    return [item["metadata"]["name"] for item in items["items"]]
