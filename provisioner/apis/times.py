"""Timestamps as the Kubernetes API writes them: RFC 3339, UTC, whole seconds."""

from datetime import UTC, datetime


def format_time(moment: datetime) -> str:
    """Return `2026-11-21T04:34:24Z`."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def parse_time(value: object) -> datetime | None:
    """Return the moment, or None where the value is absent or no timestamp."""
    if not isinstance(value, str):
        return None
    try:
        moment = datetime.fromisoformat(value)
    except ValueError:
        return None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
