"""What a refused request is answered with: a Status object, in the words of kube-apiserver."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

TYPE_INVALID: Final = "FieldValueTypeInvalid"


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
        self.details = details
        self.retry_after = retry_after

    def body(self) -> dict[str, Any]:
        """Return the Status object."""
        body: dict[str, Any] = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure"}
        about = {"message": str(self), "reason": self.reason or None, "details": self.details, "code": self.code}
        return body | {key: value for key, value in about.items() if value is not None}


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


def duplicate(field: str, value: Any) -> Cause:
    """Return: the value is in the list already."""
    return Cause("FieldValueDuplicate", f"Duplicate value: {shown(value)}", field)


def shown(value: Any) -> str:
    """Return a value as messages show it."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def invalid(kind: str, name: str, causes: Sequence[Cause], *, group: str = "meta.k8s.io") -> Problem:
    """Return 422 for an object with such faults."""
    texts = [f"{cause.field}: {cause.message}" for cause in causes]
    told = texts[0] if len(texts) == 1 else f"[{', '.join(texts)}]"
    return Problem(
        422,
        "Invalid",
        f'{qualified(kind, group)} "{name}" is invalid: {told}',
        details={**details(kind, group, name), "causes": [vars(cause) for cause in causes]},
    )


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


def qualified(name: str, group: str) -> str:
    """Return a kind or a plural with its group behind it."""
    return f"{name}.{group}" if group else name


def details(kind: str, group: str, name: str) -> dict[str, Any]:
    """Return what a Status says about the object that it is about."""
    return {key: value for key, value in (("name", name), ("group", group), ("kind", kind)) if value}
