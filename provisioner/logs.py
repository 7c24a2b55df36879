"""Logging to standard error, one line an entry: JSON for collectors, text for people.

Much of what is logged was written by others: Azure, a proxy on the way, whoever made an object. Tokens in it are left
out, and it can neither begin a line of its own nor reach a terminal as control characters.
"""

import json
import logging
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Final

from provisioner.redaction import redact
from provisioner.settings import LogFormat, LogLevel

_STANDARD: Final = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
# Libraries that tell of each request, headers included, or of each handler call.
_QUIET: Final = ("azure", "msal", "urllib3", "aiohttp", "kubernetes", "asyncio", "kopf")
_BOUND: ContextVar[Mapping[str, object]] = ContextVar("fields of log lines", default=MappingProxyType({}))


@contextmanager
def bound(**fields: object) -> Iterator[None]:
    """Have each line that is logged inside carry these fields, whoever logs it; empty ones are left out."""
    token = _BOUND.set({**_BOUND.get(), **{key: value for key, value in fields.items() if value != ""}})
    try:
        yield
    finally:
        _BOUND.reset(token)


class JsonFormatter(logging.Formatter):
    """One JSON object a line; what is passed as `extra` becomes fields, and what is bound."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        entry: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, tz=UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": redact(record.getMessage()),
            **_fields(record),
        }
        if record.exc_info:
            entry["exception"] = redact(self.formatException(record.exc_info))
        # In ASCII: whatever else a text holds is escaped.
        return json.dumps(entry, default=str).replace("\x7f", "\\u007f")


class TextFormatter(logging.Formatter):
    """Time, level, message and the fields, readable on a terminal."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line, and below it those of a traceback, each with a mark that no entry begins with."""
        time = datetime.fromtimestamp(record.created, tz=UTC).strftime("%H:%M:%S")
        fields = "".join(f" {key}={value}" for key, value in _fields(record).items())
        lines = [f"{time} {record.levelname:<7} {redact(record.getMessage())}{fields}"]
        if record.exc_info:
            lines += (f"  | {line}" for line in redact(self.formatException(record.exc_info)).split("\n"))
        return "\n".join(map(_printable, lines))


def _fields(record: logging.LogRecord) -> dict[str, object]:
    given = {key: value for key, value in vars(record).items() if key not in _STANDARD}
    return {key: _value(value) for key, value in {**_BOUND.get(), **given}.items()}


def _value(value: object) -> object:
    return value if value is None or isinstance(value, bool | int | float) else redact(str(value))


def _printable(text: str) -> str:
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def configure(*, level: LogLevel, log_format: LogFormat) -> None:
    """Set logging up for the process."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if log_format == "json" else TextFormatter())
    # Of the handler too: libraries whose loggers have a level of their own are not to be louder than all else.
    handler.setLevel(level.upper())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    logging.captureWarnings(True)
    for name in _QUIET:
        logging.getLogger(name).setLevel(max(logging.WARNING, root.level))
