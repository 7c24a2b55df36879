"""Plain requests to an API server on loopback, for what has to be asked before any client library is of use."""

import http.client
import json
import ssl
import urllib.parse
from pathlib import Path
from typing import Any


class ApiError(RuntimeError):
    """An answer outside 2xx. `status` is its code, `body` the Status object or text that came with it."""

    def __init__(self, status: int, body: Any) -> None:
        message = body.get("message", "") if isinstance(body, dict) else str(body)
        super().__init__(f"{status}: {message}")
        self.status = status
        self.body = body


class ApiClient:
    """Speaks to one server with one token, a connection for each request. May be used from any thread."""

    def __init__(self, url: str, *, ca: Path, token: str | None = None) -> None:
        self._address = urllib.parse.urlsplit(url).netloc
        self._context = ssl.create_default_context(cafile=ca)
        self._headers = {"Accept": "application/json"}
        if token is not None:
            self._headers["Authorization"] = f"Bearer {token}"

    def request(
        self,
        method: str,
        path: str,
        *,
        body: Any = None,
        content_type: str = "application/json",
        timeout: float = 10.0,
    ) -> Any:
        """Return the answer: parsed when it is JSON, else as text. Raises ApiError, OSError and HTTPException."""
        connection = http.client.HTTPSConnection(self._address, context=self._context, timeout=timeout)
        try:
            headers = self._headers if body is None else {**self._headers, "Content-Type": content_type}
            connection.request(method, path, body=None if body is None else json.dumps(body), headers=headers)
            response = connection.getresponse()
            text = response.read().decode()
        finally:
            connection.close()
        is_json = response.headers.get_content_type() == "application/json"
        answer = json.loads(text) if is_json else text
        if not 200 <= response.status < 300:
            raise ApiError(response.status, answer)
        return answer

    def answers(self, path: str, *, timeout: float = 2.0) -> bool:
        """Tell whether a health endpoint says that all is well."""
        try:
            self.request("GET", path, timeout=timeout)
        except (ApiError, OSError, http.client.HTTPException):
            return False
        return True
