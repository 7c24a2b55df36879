"""What a refused request is answered with: a Status object, in the words of kube-apiserver."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

TYPE_INVALID = "FieldValueTypeInvalid"


class Problem(Exception):
    """A request is refused with an HTTP code. `retry_after` is in seconds."""

    def __init__(
        self,
        code: int,
        reason: str,
        message: str,
        *,
        details: dict[str, Any] | None = None,
        retry_after: int | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.reason = reason
        self.message = message
        self.details = details
        self.retry_after = retry_after

    def body(self) -> dict[str, Any]:
        """Return the Status object."""
        body: dict[str, Any] = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure"}
        body["message"] = self.message
        if self.reason:
            body["reason"] = self.reason
        if self.details is not None:
            body["details"] = self.details
        return {**body, "code": self.code}


@dataclass(frozen=True)
class Cause:
    """What is wrong with one field."""

    reason: str
    message: str
    field: str


def required(field: str, why: str = "") -> Cause:
    """Return: the field is missing."""
    return Cause("FieldValueRequired", f"Required value{': ' if why else ''}{why}", field)


def wrong(field: str, value: Any, why: str) -> Cause:
    """Return: the value of the field will not do."""
    return Cause("FieldValueInvalid", f"Invalid value: {shown(value)}: {why}", field)


def forbidden(field: str, why: str) -> Cause:
    """Return: the field may not be set, or not be changed."""
    return Cause("FieldValueForbidden", f"Forbidden: {why}", field)


def unsupported(field: str, value: Any, choices: Iterable[Any]) -> Cause:
    """Return: the value is none of the choices."""
    text = f"Unsupported value: {shown(value)}: supported values: {', '.join(shown(choice) for choice in choices)}"
    return Cause("FieldValueNotSupported", text, field)


def shown(value: Any) -> str:
    """Return a value as messages show it."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def invalid(kind: str, name: str, causes: Sequence[Cause], *, group: str = "") -> Problem:
    """Return 422 for an object with such faults."""
    texts = [f"{cause.field}: {cause.message}" for cause in causes]
    told = texts[0] if len(texts) == 1 else f"[{', '.join(texts)}]"
    details = {"name": name, "group": group, "kind": kind}
    return Problem(
        422,
        "Invalid",
        f'{kind}{"." if group else ""}{group} "{name}" is invalid: {told}',
        details={**{k: v for k, v in details.items() if v}, "causes": [vars(cause) for cause in causes]},
    )


def not_found(group: str, plural: str, name: str) -> Problem:
    """Return 404 for an object."""
    return _about(404, "NotFound", group, plural, name, "not found")


def exists(group: str, plural: str, name: str) -> Problem:
    """Return 409 for a name that is taken."""
    return _about(409, "AlreadyExists", group, plural, name, "already exists")


def conflict(group: str, plural: str, name: str, why: str) -> Problem:
    """Return 409 for a decision on an old state."""
    problem = _about(409, "Conflict", group, plural, name, "")
    problem.message = f"Operation cannot be fulfilled on {problem.message.strip()}: {why}"
    return problem


def stale(group: str, plural: str, name: str) -> Problem:
    """Return 409 for a resourceVersion that is not the present one."""
    why = "the object has been modified; please apply your changes to the latest version and try again"
    return conflict(group, plural, name, why)


def denied(group: str, plural: str, name: str, why: str) -> Problem:
    """Return 403 for something that nobody may do."""
    return _about(403, "Forbidden", group, plural, name, f"is forbidden: {why}")


def bad_request(message: str) -> Problem:
    """Return 400."""
    return Problem(400, "BadRequest", message)


def not_served() -> Problem:
    """Return 404 for a resource or subresource that there is not."""
    return Problem(404, "NotFound", "the server could not find the requested resource", details={})


def not_allowed() -> Problem:
    """Return 405."""
    text = "the server does not allow this method on the requested resource"
    return Problem(405, "MethodNotAllowed", text, details={})


def unsupported_media(*accepted: str) -> Problem:
    """Return 415."""
    text = f"the body of the request was in an unknown format - accepted media types include: {', '.join(accepted)}"
    return Problem(415, "UnsupportedMediaType", text)


def expired(message: str) -> Problem:
    """Return 410: what is asked for has been there and is forgotten."""
    return Problem(410, "Expired", message)


def _about(code: int, reason: str, group: str, plural: str, name: str, what: str) -> Problem:
    details = {"name": name, "group": group, "kind": plural}
    return Problem(
        code,
        reason,
        f'{plural}{"." if group else ""}{group} "{name}" {what}',
        details={key: value for key, value in details.items() if value},
    )
