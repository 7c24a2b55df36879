"""Logging to standard error, one line an entry: JSON for collectors, text for people."""

import json
import logging
import sys
from datetime import UTC, datetime
from typing import Final

from provisioner.settings import LogFormat, LogLevel

_STANDARD: Final = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
# Libraries that tell of each request, headers included, or of each handler call.
_QUIET: Final = ("azure", "msal", "urllib3", "aiohttp", "kubernetes", "asyncio", "kopf")


class JsonFormatter(logging.Formatter):
    """One JSON object a line; what is passed as `extra` becomes fields."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        entry: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, tz=UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **_fields(record),
        }
        if record.exc_info:
            entry["exception"] = self.formatException(record.exc_info)
        return json.dumps(entry, default=str)


class TextFormatter(logging.Formatter):
    """Time, level, message and the fields, readable on a terminal."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        time = datetime.fromtimestamp(record.created, tz=UTC).strftime("%H:%M:%S")
        fields = "".join(f" {key}={value}" for key, value in _fields(record).items())
        # A newline in a field would let whoever wrote it forge entries.
        line = f"{time} {record.levelname:<7} {record.getMessage()}{fields}".replace("\n", "\\n")
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


def _fields(record: logging.LogRecord) -> dict[str, object]:
    return {key: value for key, value in vars(record).items() if key not in _STANDARD}


def configure(*, level: LogLevel, log_format: LogFormat) -> None:
    """Set logging up for the process."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if log_format == "json" else TextFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    for name in _QUIET:
        logging.getLogger(name).setLevel(max(logging.WARNING, root.level))
