"""How tests see the SDK."""

from typing import Any

# A ContainerServiceClient. Its types make every property optional and no body a plain dict; tests send and read both.
Client = Any


def answer_of(error: Any) -> Any:
    """Return the HTTP response that an SDK error was made from."""
    assert error.response is not None
    return error.response


def code_of(error: Any) -> str:
    """Return the error code that the SDK read from the body."""
    assert error.error is not None
    assert isinstance(error.error.code, str)
    return error.error.code
